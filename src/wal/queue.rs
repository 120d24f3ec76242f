//! The state under the append lock.
//!
//! It composes four parts: [`super::frame_builder`] places records in frames, [`super::room`] counts the
//! space for them, [`super::in_flight`] follows the frames to the device, and [`super::waiters`] holds the
//! threads and tasks that wait. Callers use a part directly where it alone has the answer. The queue itself
//! keeps what is to be made durable or written, by when, and how many leaders do so.
//!
//! Nothing is synced while what was written last ends inside a block: a frame that fills the block comes first.
//!
//! Nothing here blocks, does I/O or runs foreign code.

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
    /// There is nothing to prove, or not the time for it.
    Nothing,
    /// In the frame that ends there, once it has been written.
    InFrame { end: Lsn },
    /// There is no room for a frame: the manifest is to carry it.
    InManifest { upto: Lsn },
}

/// What a leader is to do.
pub(super) enum Work {
    /// Write this frame, so durably. `follows` another that is still being written.
    Frame { frame: Forming, level: Level, follows: bool },
    /// Sync what was written before.
    Sync,
}

/// Sizes that bound the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) block_bytes: u32,
    pub(super) max_frame_bytes: u64,
    pub(super) max_pending_bytes: u64,
    /// Frames that may be on their way at once; one, which all join, where nothing is said.
    pub(super) max_in_flight: Option<usize>,
}

pub(super) struct Queue {
    bounds: Bounds,
    pub(super) frames: FrameBuilder,
    pub(super) room: Room,
    want_durable: Lsn,
    want_written: Lsn,
    /// Positions to make durable by a time, for `Interval` commits.
    pub(super) due: Option<(Duration, Lsn)>,
    pub(super) in_flight: InFlight,
    pub(super) leaders: usize,
    /// Recent number of concurrent waiters: it rises at once and decays by an eighth with each frame.
    pub(super) committers: usize,
    pub(super) waiters: Waiters,
    /// The log is closed: no record is taken any more.
    closed: bool,
    /// No record is taken yet: the epoch that it would carry is not durable.
    epoch_pending: bool,
    /// The flusher sleeps and wants to be woken when there is work that nobody leads.
    pub(super) flusher: Option<thread::Thread>,
    /// It sleeps with nothing to look after, not even a watermark: the next frame that lands must wake it.
    pub(super) flusher_is_idle: bool,
    /// Frames taken off to be written.
    pub(super) frames_taken: u64,
    pub(super) groups: BatchSizes,
}

impl Queue {
    /// A queue whose next frame starts at `start`, in a segment that holds everything below `segment_end`.
    pub(super) fn new(bounds: Bounds, start: Lsn, segment_end: Lsn, spares: Vec<PreallocatedSegment>) -> Result<Queue> {
        Ok(Queue {
            bounds,
            frames: FrameBuilder::new(bounds.block_bytes, bounds.max_frame_bytes, start, segment_end)?,
            room: Room::new(bounds.block_bytes, spares),
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

    /// Takes the preallocated segment for the first segment of an open, which starts at `base`: the smallest, so that a program
    /// that is restarted again and again does not fill the disk with segments hardly used.
    pub(super) fn take_first_preallocated(&mut self, base: Lsn) -> Option<PreallocatedSegment> {
        let spare = self.room.take(0)?;
        self.frames.enter_first(base, self.room.capacity_of(&spare));
        Some(spare)
    }

    /// Takes no record until the epoch is durable, or takes them from now on.
    pub(super) fn set_epoch_pending(&mut self, epoch_pending: bool) {
        self.epoch_pending = epoch_pending;
    }

    /// Whether a record of `entry_bytes` can be placed at all, be it in the reserve.
    pub(super) fn has_last_room(&self, entry_bytes: u64) -> bool {
        let frame = frame::frame_bytes(entry_bytes, self.bounds.block_bytes);
        !self.epoch_pending && (self.frames.fits_segment(frame) || self.room.holds(frame))
    }

    /// Whether an ordinary record of `entry_bytes` with its length can be placed, whatever a leader takes away meanwhile.
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

    /// Appends a record: `head`, which may depend on the LSN, then `body`. Returns its LSN and the LSN behind it.
    ///
    /// Room was ensured by [`Queue::has_room`] or a reservation; without it this takes what there is.
    pub(super) fn append(&mut self, body: &[u8], head: impl FnOnce(Lsn) -> Head) -> Result<(Lsn, Lsn)> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.frames.append(&mut self.room, body, head)
    }

    /// Sees to it that a watermark follows the last completed records, now that the log has rested: in the frame that is forming, or
    /// in one of its own.
    pub(super) fn add_watermark(&mut self) -> Result<Watermark> {
        if self.in_flight.is_pending() || self.frames.has_sealed() || !self.needs_watermark() {
            return Ok(Watermark::Nothing);
        }
        let Some(end) = self.frames.seal_watermark()? else {
            // worth no rotation: the manifest can carry it too
            return Ok(Watermark::InManifest { upto: self.in_flight.records_end() });
        };
        self.want(end, Level::Durable);
        Ok(Watermark::InFrame { end })
    }

    /// Whether frames are on their way.
    pub(super) fn is_busy(&self) -> bool {
        self.leaders > 0 || self.in_flight.is_pending()
    }

    /// Whether there is, or will soon be, something for the flusher to look after.
    pub(super) fn needs_flusher(&self) -> bool {
        self.is_busy() || self.needs_watermark() || self.due.is_some()
    }

    /// Whether completed records have nothing behind them yet that proves it.
    pub(super) fn needs_watermark(&self) -> bool {
        self.in_flight.needs_watermark()
    }

    /// Notes that everything below `lsn` is wanted at this level.
    pub(super) fn want(&mut self, lsn: Lsn, level: Level) {
        match level {
            Level::Durable => self.want_durable = self.want_durable.max(lsn),
            Level::Written => self.want_written = self.want_written.max(lsn),
        }
    }

    /// Wants at once what is wanted by a time to come.
    pub(super) fn want_due(&mut self) {
        if let Some((_, upto)) = self.due.take() {
            self.want(upto, Level::Durable);
        }
    }

    /// Notes that everything below `lsn` is to be durable by `time`.
    pub(super) fn want_by(&mut self, lsn: Lsn, time: Duration, progress: &Progress) {
        if progress.reached(lsn, Level::Durable) {
            return;
        }
        self.due = Some(match self.due {
            Some((earlier, upto)) => (earlier.min(time), upto.max(lsn)),
            None => (time, lsn),
        });
    }

    /// Whether a leader would find something to do.
    pub(super) fn has_work(&self, progress: &Progress) -> bool {
        let wanted = self.want_durable.max(self.want_written);
        if self.frames.holds_something()
            && (self.frames.untaken_start() < wanted || self.frames.pending_bytes() > self.bounds.max_pending_bytes)
        {
            return true;
        }
        // nothing pending, something only written, and someone wants it durable
        self.in_flight.holds_written()
            && !self.in_flight.is_pending()
            && !progress.reached(self.want_durable.min(self.frames.untaken_start()), Level::Durable)
    }

    /// Whether one more leader may begin now.
    pub(super) fn may_lead(&self, progress: &Progress) -> bool {
        self.leaders < self.bounds.max_in_flight.unwrap_or(1) && self.has_work(progress)
    }

    /// Whether the next frame is to be durable and nothing before it waits for a sync.
    fn goes_directly(&self) -> bool {
        self.want_durable > self.frames.untaken_start() && !self.in_flight.holds_written()
    }

    /// Whether the records of all recent committers are in the next frame.
    fn has_gathered(&self) -> bool {
        self.frames.has_sealed() || self.frames.forming().records as usize >= self.committers
    }

    /// Whether a leader should wait for threads that were woken just now to join.
    pub(super) fn is_forming(&self) -> bool {
        self.bounds.max_in_flight.is_none() && self.goes_directly() && !self.has_gathered()
    }

    /// Notes that the threads a leader waited for have not come.
    pub(super) fn expect_no_more(&mut self) {
        self.committers = self.waiting();
    }

    fn waiting(&self) -> usize {
        self.waiters.len().saturating_add(self.leaders)
    }

    /// The preallocated segment that the next frame goes into, and the frame's start, if a leader would take that frame now.
    pub(super) fn next_to_enter(&self, progress: &Progress) -> Option<(PreallocatedSegment, Lsn)> {
        self.frames.next_to_enter().filter(|_| self.has_work(progress))
    }

    /// Takes the next thing to do off the queue.
    pub(super) fn take_work(&mut self, progress: &Progress) -> Result<Option<Work>> {
        if !self.has_work(progress) {
            return Ok(None);
        }
        // bytes that were only written, and are wanted durable, are synced with the next frame, whatever it holds itself
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

    /// Notes what became of the frame that ends at `end`, and the watermark in it.
    pub(super) fn landed(&mut self, end: Lsn, state: FrameState, watermark: Lsn, progress: &Progress) {
        self.in_flight.land(end, state, watermark, progress);
        self.forget_reached_deadline(progress);
    }

    /// Notes that everything that had been written is now on stable storage.
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

    /// Takes out a waiter that can lead now: a parked or spinning thread, or else the flusher.
    pub(super) fn take_successor(&mut self, progress: &Progress) -> Option<Wake> {
        if !self.may_lead(progress) {
            return None;
        }
        // active leaders have taken the frames before that
        let above = (self.leaders > 0).then(|| self.frames.untaken_start());
        self.waiters.take_thread(above).or_else(|| self.flusher.take().map(Wake::Thread))
    }
}
