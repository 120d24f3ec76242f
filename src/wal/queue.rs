//! The state under the append lock.
//!
//! It has four parts. [`super::frame_builder`] places records in frames, and [`super::room`] counts
//! the space for them. [`super::in_flight`] tracks the frames on their way to the device, and
//! [`super::waiters`] holds the threads and tasks that wait. Callers use a part directly where it
//! alone has the answer. The queue itself keeps what must be made durable or written, by which
//! time, and how many leaders are active.
//!
//! No sync happens while the last written frame ends inside a block: a frame that fills the block
//! is written first.
//!
//! No function here blocks, does I/O or runs foreign code.

use super::Level;
use super::waiters::{Waiters, Wake};
use crate::error::{Error, Result};
use crate::format::bytes::Head;
use crate::format::frame::{self, FrameKind};
use crate::ids::Lsn;
use crate::io::sync::thread;
use crate::store::open_dir::PreallocatedSegment;
use crate::wal::batch_sizes::BatchSizes;
use crate::wal::frame_builder::{Forming, FrameBuilder};
use crate::wal::in_flight::{FrameState, InFlight, Progress};
use crate::wal::room::{Room, Shortage};
use std::time::Duration;

/// How a watermark reaches the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watermark {
    /// No watermark is needed, or frames are still on their way.
    Nothing,
    /// The frame that ends at `end` carries it, once that frame is written.
    InFrame { end: Lsn },
    /// The segment has no room for another frame, so the caller must publish it in the manifest.
    InManifest { upto: Lsn },
}

/// The work of a leader.
pub(super) enum Work {
    /// Write this frame, and make it reach `level`. `follows` is set if an earlier frame is still
    /// being written.
    Frame { frame: Forming, level: Level, follows: bool },
    /// Sync the frames that were only written.
    Sync,
}

/// Sizes that bound the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) block_bytes: u32,
    pub(super) segment_bytes: u64,
    pub(super) max_frame_bytes: u64,
    pub(super) max_pending_bytes: u64,
    /// The maximum number of frames on their way at once. `None` allows one, and its leader waits
    /// for other committers to join.
    pub(super) max_in_flight: Option<usize>,
}

pub(super) struct Queue {
    bounds: Bounds,
    pub(super) frames: FrameBuilder,
    pub(super) room: Room,
    want_durable: Lsn,
    want_written: Lsn,
    /// For `Interval` commits: everything below this LSN must be durable by this time.
    pub(super) due: Option<(Duration, Lsn)>,
    pub(super) in_flight: InFlight,
    pub(super) leaders: usize,
    /// The recent number of concurrent waiters. It rises at once and decays by an eighth with each
    /// frame.
    pub(super) committers: usize,
    pub(super) waiters: Waiters,
    /// Whether the log is closed: it accepts no more records.
    closed: bool,
    /// Whether this open's epoch is not durable yet. No record is accepted until it is, because its
    /// frame would carry the epoch.
    epoch_pending: bool,
    /// The flusher while it is parked. It must be woken when there is work without a leader.
    pub(super) flusher: Option<thread::Thread>,
    /// Whether the flusher is parked without any work to come, not even a watermark. The next frame
    /// that lands must wake it.
    pub(super) flusher_is_idle: bool,
    /// The number of frames taken off to be written.
    pub(super) frames_taken: u64,
    pub(super) groups: BatchSizes,
}

impl Queue {
    /// A queue whose next frame starts at `start`, in a segment that holds everything below
    /// `segment_end`.
    pub(super) fn new(bounds: Bounds, start: Lsn, segment_end: Lsn, spares: Vec<PreallocatedSegment>) -> Result<Queue> {
        Ok(Queue {
            bounds,
            frames: FrameBuilder::new(bounds.block_bytes, bounds.max_frame_bytes, start, segment_end)?,
            room: Room::new(bounds.block_bytes, bounds.segment_bytes, spares),
            want_durable: Lsn::ZERO,
            want_written: Lsn::ZERO,
            due: None,
            in_flight: InFlight::new(start),
            leaders: 0,
            committers: 0,
            waiters: Waiters::default(),
            closed: false,
            epoch_pending: false,
            flusher: None,
            flusher_is_idle: false,
            frames_taken: 0,
            groups: BatchSizes::default(),
        })
    }

    /// Takes the smallest preallocated segment as the first segment of an open, which starts at
    /// `base`. A program that is restarted often would otherwise fill the disk with nearly empty
    /// large segments.
    pub(super) fn take_first_preallocated(&mut self, base: Lsn) -> Option<PreallocatedSegment> {
        let spare = self.room.take(0)?;
        self.frames.enter_first(base, self.room.capacity_of(&spare));
        Some(spare)
    }

    /// Sets whether the epoch is still to be made durable. While it is, records find no room.
    pub(super) fn set_epoch_pending(&mut self, epoch_pending: bool) {
        self.epoch_pending = epoch_pending;
    }

    /// Whether a record of `entry_bytes` can be placed at all, even in the reserve.
    pub(super) fn has_last_room(&self, entry_bytes: u64) -> bool {
        let frame = frame::frame_bytes(entry_bytes, self.bounds.block_bytes);
        !self.epoch_pending && (self.frames.fits_segment(frame) || self.room.holds(frame))
    }

    /// Whether an ordinary record can be placed. `entry_bytes` includes the length field. The
    /// answer stays true if a leader takes frames off meanwhile.
    pub(super) fn has_room(&self, entry_bytes: u64) -> Result<(), Shortage> {
        if self.epoch_pending {
            return Err(Shortage::Manifest);
        }
        if self.frames.pending_bytes() > self.bounds.max_pending_bytes {
            return Err(Shortage::Pending);
        }
        let frame = frame::frame_bytes(entry_bytes, self.bounds.block_bytes);
        self.room.check(frame, self.frames.fits_segment(frame))
    }

    /// Refuses every later record.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Appends a record: `head`, which may depend on the LSN, then `body`. Returns its LSN and the
    /// LSN past it.
    ///
    /// The caller has ensured room by [`Queue::has_room`] or a reservation. Otherwise the record
    /// may take space from the reserve.
    pub(super) fn append(&mut self, body: &[u8], head: impl FnOnce(Lsn) -> Head) -> Result<(Lsn, Lsn)> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.frames.append(&mut self.room, body, head)
    }

    /// Appends records to one frame, or none of them. See [`FrameBuilder::append_group`].
    pub(super) fn append_group(&mut self, bodies: &[&[u8]], entry_bytes: u64) -> Result<(Vec<Lsn>, Lsn)> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.frames.append_group(&mut self.room, bodies, entry_bytes)
    }

    /// Called when the log is idle. Queues a watermark behind the last completed records: in the
    /// forming frame, or in a frame of its own.
    pub(super) fn add_watermark(&mut self) -> Result<Watermark> {
        if self.in_flight.is_pending() || self.frames.has_sealed() || !self.needs_watermark() {
            return Ok(Watermark::Nothing);
        }
        let Some(end) = self.frames.seal_watermark()? else {
            // a watermark does not justify a new segment: the manifest can carry it too
            return Ok(Watermark::InManifest { upto: self.in_flight.records_end() });
        };
        self.want(end, Level::Durable);
        Ok(Watermark::InFrame { end })
    }

    /// Whether frames are on their way.
    pub(super) fn is_busy(&self) -> bool {
        self.leaders > 0 || self.in_flight.is_pending()
    }

    /// Whether the flusher has work now or will have some soon.
    pub(super) fn needs_flusher(&self) -> bool {
        self.is_busy() || self.needs_watermark() || self.due.is_some()
    }

    /// Whether no durable watermark proves the last completed records yet.
    pub(super) fn needs_watermark(&self) -> bool {
        self.in_flight.needs_watermark()
    }

    /// Requests this level for everything below `lsn`.
    pub(super) fn want(&mut self, lsn: Lsn, level: Level) {
        match level {
            Level::Durable => self.want_durable = self.want_durable.max(lsn),
            Level::Written => self.want_written = self.want_written.max(lsn),
        }
    }

    /// Requests now what was requested for a later time.
    pub(super) fn want_due(&mut self) {
        if let Some((_, upto)) = self.due.take() {
            self.want(upto, Level::Durable);
        }
    }

    /// Requests that everything below `lsn` is durable by `time`.
    pub(super) fn want_by(&mut self, lsn: Lsn, time: Duration, progress: &Progress) {
        if progress.reached(lsn, Level::Durable) {
            return;
        }
        self.due = Some(match self.due {
            Some((earlier, upto)) => (earlier.min(time), upto.max(lsn)),
            None => (time, lsn),
        });
    }

    /// Whether there is work for a leader.
    pub(super) fn has_work(&self, progress: &Progress) -> bool {
        let wanted = self.want_durable.max(self.want_written);
        if self.frames.holds_something()
            && (self.frames.untaken_start() < wanted || self.frames.pending_bytes() > self.bounds.max_pending_bytes)
        {
            return true;
        }
        // no write is pending, and frames that were only written were requested to be durable
        self.in_flight.holds_written()
            && !self.in_flight.is_pending()
            && !progress.reached(self.want_durable.min(self.frames.untaken_start()), Level::Durable)
    }

    /// Whether there is work for one more leader, and the limit allows one.
    pub(super) fn may_lead(&self, progress: &Progress) -> bool {
        self.leaders < self.bounds.max_in_flight.unwrap_or(1) && self.has_work(progress)
    }

    /// Whether the next frame was requested to be durable and no earlier frame waits for a sync.
    fn goes_directly(&self) -> bool {
        self.want_durable > self.frames.untaken_start() && !self.in_flight.holds_written()
    }

    /// Whether the records of all recent committers are in the next frame.
    fn has_gathered(&self) -> bool {
        self.frames.has_sealed() || self.frames.forming().records as usize >= self.committers
    }

    /// Whether a leader should wait for followers: threads that the last frame woke, and that are
    /// about to join the next one.
    pub(super) fn awaits_followers(&self) -> bool {
        self.bounds.max_in_flight.is_none() && self.goes_directly() && !self.has_gathered()
    }

    /// Lowers the expected number of committers: those that a leader waited for did not come.
    pub(super) fn expect_no_more(&mut self) {
        self.committers = self.waiting();
    }

    fn waiting(&self) -> usize {
        self.waiters.len().saturating_add(self.leaders)
    }

    /// The preallocated segment that the next frame needs, and the frame's start. `None` if a
    /// leader would find no such frame now.
    pub(super) fn next_to_enter(&self, progress: &Progress) -> Option<(PreallocatedSegment, Lsn)> {
        self.frames.next_to_enter().filter(|_| self.has_work(progress))
    }

    /// Takes the next work off the queue.
    pub(super) fn take_work(&mut self, progress: &Progress) -> Result<Option<Work>> {
        if !self.has_work(progress) {
            return Ok(None);
        }
        // frames that were only written and were requested to be durable are synced with the next
        // frame, so that frame must be durable as well
        let overdue = self.in_flight.holds_written() && !progress.reached(self.want_durable, Level::Durable);
        let want_durable = self.want_durable;
        let level_from = |start: Lsn| {
            if want_durable > start || overdue { Level::Durable } else { Level::Written }
        };
        let Some((frame, level)) = self.frames.take(level_from)? else { return Ok(Some(Work::Sync)) };
        let follows = self.in_flight.is_pending();
        self.committers = self.waiting().max(self.committers.saturating_sub(self.committers.div_ceil(8)));
        self.in_flight.take_off(frame.end(), frame.kind == FrameKind::Records);
        self.frames_taken = self.frames_taken.saturating_add(1);
        self.groups.add(frame.records);
        Ok(Some(Work::Frame { frame, level, follows }))
    }

    /// Records the new state of the frame that ends at `end`, and the watermark in it.
    pub(super) fn landed(&mut self, end: Lsn, state: FrameState, watermark: Lsn, progress: &Progress) {
        self.in_flight.land(end, state, watermark, progress);
        self.forget_reached_deadline(progress);
    }

    /// Records that every written frame is now on stable storage.
    pub(super) fn synced(&mut self, progress: &Progress) {
        self.in_flight.note_synced(progress);
        self.forget_reached_deadline(progress);
    }

    /// Forgets a deadline whose position is durable.
    fn forget_reached_deadline(&mut self, progress: &Progress) {
        if self.due.is_some_and(|(_, upto)| progress.reached(upto, Level::Durable)) {
            self.due = None;
        }
    }

    /// Counts one more leader.
    pub(super) fn add_leader(&mut self) {
        self.leaders = self.leaders.saturating_add(1);
        debug_assert!(
            self.leaders <= self.bounds.max_in_flight.unwrap_or(1),
            "more leaders than may have frames in flight"
        );
    }

    /// Counts one leader less.
    pub(super) fn remove_leader(&mut self) {
        debug_assert!(self.leaders > 0, "a leader steps down twice");
        self.leaders = self.leaders.saturating_sub(1);
    }

    /// Removes a waiter that can lead now: a parked or spinning thread, or else the flusher.
    pub(super) fn take_successor(&mut self, progress: &Progress) -> Option<Wake> {
        if !self.may_lead(progress) {
            return None;
        }
        // active leaders have already taken the frames below this position
        let above = (self.leaders > 0).then(|| self.frames.untaken_start());
        self.waiters.take_thread(above).or_else(|| self.flusher.take().map(Wake::Thread))
    }
}
