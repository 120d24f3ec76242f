//! The state under the append lock: the forming frame, the sealed frames, the room for records, and through
//! [`super::in_flight`] and [`super::waiters`] the frames on their way and the threads and tasks that wait.
//!
//! Invariants:
//! - LSNs are handed out in order and are contiguous within an open, across segments too;
//! - a frame that is to be made durable, or may be, ends on a block boundary; one that is merely written ends where its payload
//!   does, and the next one goes on in the same block;
//! - nothing is synced while what was written last ends inside a block: a frame that fills it up comes first;
//! - a record is only placed where it fits, in the current segment or in a preallocated one, and an ordinary record never takes
//!   the last preallocated segments: together they hold what open transactions were promised for their rollback, and one is
//!   left for the next open;
//! - while the forming frame holds a record, the memory of the next frame is in the pool: taking a frame off cannot fail;
//! - `durable` is the end of the contiguous prefix of completed frames and never goes back.
//!
//! Nothing here blocks, does I/O or runs foreign code.

use super::Level;
use super::waiters::{Waiters, Wake};
use crate::error::{Error, Result};
use crate::format::bytes::{Head, round_up};
use crate::format::frame::HEADER_BYTES;
use crate::format::frame::{self, FrameKind};
use crate::ids::Lsn;
use crate::io::AlignedBuf;
use crate::io::sync::thread;
use crate::store::open_dir::Spare;
use crate::wal::batch_sizes::BatchSizes;
use crate::wal::in_flight::{FrameState, InFlight, Progress};
use std::collections::VecDeque;
use std::time::Duration;

/// Number of buffers kept for reuse, and the capacity above which one is freed instead. Together they bound the pool to 16 MiB.
const POOLED_BUFFERS: usize = 4;
/// Initial capacity of a buffer: the largest that comes from the heap and not from a map of its own.
const NEW_BUFFER_BYTES: usize = 64 << 10;
const POOLED_BUFFER_BYTES: usize = 4 << 20;
/// Room that must be left in spares beyond what is promised to open transactions, in bytes.
const RESERVE_BYTES: u64 = 64 << 10;

/// A frame that records are still added to, or that waits for its leader.
pub(super) struct Forming {
    pub(super) kind: FrameKind,
    pub(super) buf: AlignedBuf,
    pub(super) start: Lsn,
    pub(super) records: u32,
    /// The frame is the first of a new segment, which this spare becomes.
    pub(super) enters: Option<Spare>,
    /// What its end is padded to a multiple of; a block until it is known that a smaller one serves.
    align: u32,
}

impl Forming {
    fn payload_bytes(&self) -> u64 {
        (self.buf.len() as u64).saturating_sub(HEADER_BYTES as u64)
    }

    /// The position behind it.
    pub(super) fn end(&self) -> Lsn {
        frame::end_of(self.start, self.payload_bytes(), self.align)
    }

    fn holds_something(&self) -> bool {
        self.records > 0 || self.kind == FrameKind::Watermark
    }
}

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

/// Why a record cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// A spare of so many bytes behind its header is needed.
    Spare { bytes: u64 },
    /// Too much waits to be written.
    Pending,
    /// The manifest could not be written when the log was opened: without it nothing may be.
    Manifest,
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
    forming: Forming,
    sealed: VecDeque<Forming>,
    sealed_bytes: u64,
    /// Where the segment of the forming frame starts, and the LSN behind what it can hold.
    segment_start: Lsn,
    segment_end: Lsn,
    /// Capacity of the segment that rotation went to last, so that the next is at least as large.
    pub(super) segment_bytes: u64,
    spares: Vec<Spare>,
    promised: u64,
    want_durable: Lsn,
    want_written: Lsn,
    /// Positions to make durable by a time, for `Interval` commits.
    pub(super) due: Option<(Duration, Lsn)>,
    in_flight: InFlight,
    pub(super) leaders: usize,
    /// Recent number of concurrent waiters: it rises at once and decays by an eighth with each frame.
    pub(super) committers: usize,
    pub(super) waiters: Waiters,
    /// The log is closed: no record is taken any more.
    closed: bool,
    /// No record is taken yet: the epoch that it would carry is not durable.
    barred: bool,
    pool: Vec<AlignedBuf>,
    /// The flusher sleeps and wants to be woken when there is work that nobody leads.
    pub(super) flusher: Option<thread::Thread>,
    /// It sleeps with nothing to look after, not even a watermark: the next frame that lands must wake it.
    pub(super) flusher_is_idle: bool,
    pub(super) frames: u64,
    pub(super) records: u64,
    pub(super) groups: BatchSizes,
}

fn out_of_memory(error: std::io::Error) -> Error {
    Error::Full { what: "a frame in memory", source: Some(std::sync::Arc::new(error)) }
}

fn new_buffer() -> Result<AlignedBuf> {
    AlignedBuf::with_capacity(NEW_BUFFER_BYTES).map_err(out_of_memory)
}

fn fresh_buffer(pool: &mut Vec<AlignedBuf>) -> Result<AlignedBuf> {
    let mut buf = pool.pop().map_or_else(new_buffer, Ok)?;
    buf.clear();
    buf.resize(HEADER_BYTES).map_err(out_of_memory)?;
    Ok(buf)
}

impl Queue {
    /// A queue whose next frame starts at `start`, in a segment that holds everything below `segment_end`.
    pub(super) fn new(bounds: Bounds, start: Lsn, segment_end: Lsn, spares: Vec<Spare>) -> Result<Queue> {
        let mut pool = Vec::new();
        let buf = fresh_buffer(&mut pool)?;
        Ok(Queue {
            bounds,
            forming: Forming {
                kind: FrameKind::Records,
                buf,
                start,
                records: 0,
                enters: None,
                align: bounds.block_bytes,
            },
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            segment_start: start,
            segment_end,
            segment_bytes: 0,
            spares,
            promised: 0,
            want_durable: Lsn::ZERO,
            want_written: Lsn::ZERO,
            due: None,
            in_flight: InFlight::new(start),
            leaders: 0,
            committers: 0,
            waiters: Waiters::default(),
            closed: false,
            barred: false,
            pool,
            flusher: None,
            flusher_is_idle: false,
            frames: 0,
            records: 0,
            groups: BatchSizes::default(),
        })
    }

    fn capacity(&self, spare: &Spare) -> u64 {
        spare.file_bytes.saturating_sub(u64::from(self.bounds.block_bytes))
    }

    fn spare_capacity(&self) -> u64 {
        self.spares.iter().map(|s| self.capacity(s)).fold(0, u64::saturating_add)
    }

    pub(super) fn spares(&self) -> &[Spare] {
        &self.spares
    }

    /// The size of all preallocated segment files, in bytes.
    pub(super) fn preallocated_bytes(&self) -> u64 {
        self.spares.iter().map(|s| s.file_bytes).fold(0, u64::saturating_add)
    }

    pub(super) fn add_spare(&mut self, spare: Spare) {
        self.spares.push(spare);
    }

    /// Takes a spare that holds at least `bytes` behind its header.
    pub(super) fn take_spare(&mut self, bytes: u64) -> Option<Spare> {
        // the smallest that serves: the others may hold what was promised
        let serving = self.spares.iter().enumerate().filter(|(_, s)| self.capacity(s) >= bytes);
        let (at, _) = serving.min_by_key(|(_, s)| s.file_bytes)?;
        Some(self.spares.remove(at))
    }

    /// Takes the spare that the first segment of an open goes into, which starts at `base`: the smallest, so that a program that
    /// is restarted again and again does not fill the disk with segments hardly used.
    pub(super) fn take_first_spare(&mut self, base: Lsn) -> Option<Spare> {
        let at = (0..self.spares.len()).min_by_key(|&i| self.spares.get(i).map(|s| s.file_bytes))?;
        let spare = self.spares.remove(at);
        self.segment_start = base;
        self.segment_end = base.plus(self.capacity(&spare));
        Some(spare)
    }

    /// How many bytes of the segment of the forming frame are taken, and how many it has.
    pub(super) fn filled(&self) -> (u64, u64) {
        (self.forming.start.since(self.segment_start), self.segment_end.since(self.segment_start))
    }

    /// The place behind everything appended, if no more is: a frame boundary only if nothing is forming.
    pub(super) fn next_frame_start(&self) -> Lsn {
        if self.forming.holds_something() { self.forming.end() } else { self.forming.start }
    }

    /// Bytes that the forming and the sealed frames hold in memory.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.sealed_bytes.saturating_add(self.forming.payload_bytes())
    }

    /// Takes no record until the epoch is durable, or takes them from now on.
    pub(super) fn bar(&mut self, barred: bool) {
        self.barred = barred;
    }

    /// Whether a record of `entry_bytes` can be placed at all, be it in the reserve.
    pub(super) fn has_last_room(&self, entry_bytes: u64) -> bool {
        let frame = frame::frame_bytes(entry_bytes, self.bounds.block_bytes);
        !self.barred && (self.fits_segment(frame) || self.spares.iter().any(|s| self.capacity(s) >= frame))
    }

    /// Whether a frame goes into the current segment, even if a watermark slips in before it, or one that fills up a block.
    fn fits_segment(&self, frame: u64) -> bool {
        let block = u64::from(self.bounds.block_bytes);
        self.block_boundary(self.next_frame_start()).plus(frame).plus(block) <= self.segment_end
    }

    /// The first block boundary that is not before a position.
    fn block_boundary(&self, lsn: Lsn) -> Lsn {
        Lsn::new(round_up(lsn.get(), u64::from(self.bounds.block_bytes)))
    }

    /// Whether an ordinary record of `entry_bytes` with its length can be placed, whatever a leader takes away meanwhile.
    pub(super) fn has_room(&self, entry_bytes: u64) -> Result<(), Shortage> {
        if self.barred {
            return Err(Shortage::Manifest);
        }
        if self.pending_bytes() > self.bounds.max_pending_bytes {
            return Err(Shortage::Pending);
        }
        let frame = frame::frame_bytes(entry_bytes, self.bounds.block_bytes);
        let floor = self.promised.saturating_add(RESERVE_BYTES);
        if self.spare_capacity() < floor {
            return Err(Shortage::Spare { bytes: floor.max(frame) });
        }
        if self.fits_segment(frame) {
            return Ok(());
        }
        let left = |spare: &Spare| self.spare_capacity().saturating_sub(self.capacity(spare));
        if self.spares.iter().any(|s| self.capacity(s) >= frame && left(s) >= floor) {
            return Ok(());
        }
        Err(Shortage::Spare { bytes: floor.max(frame) })
    }

    /// Sets room aside for records that must not fail for lack of it: the rollback of an open transaction.
    pub(super) fn promise(&mut self, bytes: u64) -> Result<(), Shortage> {
        let total = self.promised.saturating_add(bytes);
        if self.spare_capacity() < total.saturating_add(RESERVE_BYTES) {
            return Err(Shortage::Spare { bytes: total.saturating_add(RESERVE_BYTES) });
        }
        self.promised = total;
        Ok(())
    }

    pub(super) fn release_promise(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.promised, "{bytes} bytes are given back of {} that are promised", self.promised);
        self.promised = self.promised.saturating_sub(bytes);
    }

    /// Refuses every later record.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// The position behind everything appended, within a frame.
    pub(super) fn appended_end(&self) -> Lsn {
        if self.forming.holds_something() {
            self.forming.start.plus(self.forming.buf.len() as u64)
        } else {
            self.forming.start
        }
    }

    /// Appends a record: `head`, which may depend on the LSN, then `body`. Returns its LSN and the LSN behind it.
    ///
    /// Room was ensured by [`Queue::has_room`] or a promise; without it this takes what there is.
    pub(super) fn append(&mut self, body: &[u8], head: impl FnOnce(Lsn) -> Head) -> Result<(Lsn, Lsn)> {
        if self.closed {
            return Err(Error::Closed);
        }
        let bound = frame::record_bytes((body.len() as u64).saturating_add(Head::CAPACITY as u64));
        self.place(bound)?;
        let lsn = self.forming.start.plus(self.forming.buf.len() as u64);
        let head = head(lsn);
        let len = head.as_slice().len().saturating_add(body.len());
        let mut prefix = Head::default();
        prefix.varint(len as u64);
        let prefix = prefix.as_slice();
        // the next frame gets its memory before this one holds a record, so that taking this one off cannot fail
        if self.pool.is_empty() {
            self.pool.push(new_buffer()?);
        }
        let before = self.forming.buf.len();
        debug_assert!(self.forming.kind == FrameKind::Records, "a record goes into a frame without records");
        let needed = before.saturating_add(prefix.len()).saturating_add(len);
        self.forming.buf.reserve(needed).map_err(out_of_memory)?;
        for part in [prefix, head.as_slice(), body] {
            self.forming.buf.extend_from_slice(part).map_err(out_of_memory)?;
        }
        self.forming.records = self.forming.records.saturating_add(1);
        self.records = self.records.saturating_add(1);
        let end = self.forming.start.plus(self.forming.buf.len() as u64);
        debug_assert!(
            end > lsn && self.forming.end() <= self.segment_end,
            "the record at {lsn} does not fit its segment"
        );
        Ok((lsn, end))
    }

    /// Makes the forming frame one that a record of so many bytes fits in.
    fn place(&mut self, entry_bytes: u64) -> Result<()> {
        let block = self.bounds.block_bytes;
        if self.forming.holds_something() {
            let with = self.forming.payload_bytes().saturating_add(entry_bytes);
            let end = frame::end_of(self.forming.start, with, block);
            let fits = end.since(self.forming.start) <= self.bounds.max_frame_bytes && end <= self.segment_end;
            if fits && self.forming.records < u32::MAX {
                return Ok(());
            }
            self.seal()?;
        }
        if frame::end_of(self.forming.start, entry_bytes, block) <= self.segment_end {
            return Ok(());
        }
        let alone = frame::frame_bytes(entry_bytes, block);
        // a segment ends on a block boundary, as its successor begins on one
        self.fill_block()?;
        let spare = self.take_spare(alone).ok_or(Error::Full { what: "the next segment", source: None })?;
        self.segment_start = self.forming.start;
        self.segment_end = self.forming.start.plus(self.capacity(&spare));
        self.segment_bytes = spare.file_bytes;
        self.forming.enters = Some(spare);
        Ok(())
    }

    /// Ends the forming frame; the next record starts another, on a block boundary. Does nothing if there is nothing to end and that is
    /// so already.
    pub(super) fn seal(&mut self) -> Result<()> {
        if !self.forming.holds_something() {
            return self.fill_block();
        }
        let frame = self.replace_forming(self.forming.kind, self.bounds.block_bytes)?;
        self.push_sealed(frame);
        Ok(())
    }

    fn push_sealed(&mut self, frame: Forming) {
        self.sealed_bytes = self.sealed_bytes.saturating_add(frame.payload_bytes());
        self.sealed.push_back(frame);
    }

    /// Ends a block that the last frame has left open, by a frame without records. Nothing is forming.
    fn fill_block(&mut self) -> Result<()> {
        if self.in_block() {
            let frame = self.replace_forming(FrameKind::Watermark, self.bounds.block_bytes)?;
            self.sealed.push_back(frame);
        }
        Ok(())
    }

    /// Whether the forming frame starts inside a block.
    fn in_block(&self) -> bool {
        self.block_boundary(self.forming.start) != self.forming.start
    }

    /// Takes the forming frame off, as a frame of this kind, padded to `align`. On an error nothing has changed.
    fn replace_forming(&mut self, kind: FrameKind, align: u32) -> Result<Forming> {
        let buf = fresh_buffer(&mut self.pool)?;
        self.forming.kind = kind;
        self.forming.align = align;
        let start = self.forming.end();
        debug_assert!(start > self.forming.start, "a frame takes no room");
        debug_assert!(start <= self.segment_end, "a frame ends at {start}, behind its segment");
        let align = self.bounds.block_bytes;
        let next = Forming { kind: FrameKind::Records, buf, start, records: 0, enters: None, align };
        Ok(std::mem::replace(&mut self.forming, next))
    }

    /// Sees to it that a watermark follows the last completed records, now that the log has rested: in the frame that is forming, or
    /// in one of its own.
    pub(super) fn add_watermark(&mut self) -> Result<Watermark> {
        if self.in_flight.is_pending() || !self.sealed.is_empty() || !self.needs_watermark() {
            return Ok(Watermark::Nothing);
        }
        let frame = if self.forming.holds_something() {
            self.replace_forming(self.forming.kind, self.bounds.block_bytes)?
        } else if frame::end_of(self.forming.start, 0, self.bounds.block_bytes) > self.segment_end {
            // worth no rotation: the manifest can carry it too
            return Ok(Watermark::InManifest { upto: self.in_flight.records_end() });
        } else {
            self.replace_forming(FrameKind::Watermark, self.bounds.block_bytes)?
        };
        let end = frame.end();
        self.push_sealed(frame);
        self.want(end, Level::Durable);
        Ok(Watermark::InFrame { end })
    }

    /// Notes that a watermark up to here stands in the manifest.
    pub(super) fn noted_watermark(&mut self, upto: Lsn) {
        self.in_flight.note_watermark(upto);
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

    fn untaken_start(&self) -> Lsn {
        self.sealed.front().map_or(self.forming.start, |frame| frame.start)
    }

    /// Whether a leader would find something to do.
    pub(super) fn has_work(&self, progress: &Progress) -> bool {
        let wanted = self.want_durable.max(self.want_written);
        let something = !self.sealed.is_empty() || self.forming.holds_something();
        if something && (self.untaken_start() < wanted || self.pending_bytes() > self.bounds.max_pending_bytes) {
            return true;
        }
        // nothing pending, something only written, and someone wants it durable
        self.in_flight.holds_written()
            && !self.in_flight.is_pending()
            && !progress.reached(self.want_durable.min(self.untaken_start()), Level::Durable)
    }

    /// Whether one more leader may begin now.
    pub(super) fn may_lead(&self, progress: &Progress) -> bool {
        self.leaders < self.bounds.max_in_flight.unwrap_or(1) && self.has_work(progress)
    }

    /// Whether the next frame is to be durable and nothing before it waits for a sync.
    fn goes_directly(&self) -> bool {
        self.want_durable > self.untaken_start() && !self.in_flight.holds_written()
    }

    /// Whether the records of all recent committers are in the next frame.
    fn has_gathered(&self) -> bool {
        !self.sealed.is_empty() || self.forming.records as usize >= self.committers
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

    /// Takes the next thing to do off the queue.
    pub(super) fn take_work(&mut self, progress: &Progress) -> Result<Option<Work>> {
        if !self.has_work(progress) {
            return Ok(None);
        }
        // bytes that were only written, and are wanted durable, are synced with the next frame, whatever it holds itself
        let overdue = self.in_flight.holds_written() && !progress.reached(self.want_durable, Level::Durable);
        let level_from = |start: Lsn| {
            if self.want_durable > start || overdue { Level::Durable } else { Level::Written }
        };
        let (frame, level) = match self.sealed.pop_front() {
            Some(frame) => {
                debug_assert!(
                    self.sealed_bytes >= frame.payload_bytes(),
                    "sealed frames hold less than they are counted for"
                );
                self.sealed_bytes = self.sealed_bytes.saturating_sub(frame.payload_bytes());
                let level = level_from(frame.start);
                (frame, level)
            }
            None if self.forming.holds_something() => {
                let level = level_from(self.forming.start);
                let align = match level {
                    Level::Durable => self.bounds.block_bytes,
                    Level::Written => frame::ALIGN_BYTES,
                };
                (self.replace_forming(self.forming.kind, align)?, level)
            }
            // what was written last ends inside a block, and no later write may share that with what is durable
            None if self.in_block() => {
                (self.replace_forming(FrameKind::Watermark, self.bounds.block_bytes)?, Level::Durable)
            }
            None => return Ok(Some(Work::Sync)),
        };
        let follows = self.in_flight.is_pending();
        self.committers = self.waiting().max(self.committers.saturating_sub(self.committers.div_ceil(8)));
        self.in_flight.take_off(frame.end(), frame.kind == FrameKind::Records);
        self.frames = self.frames.saturating_add(1);
        self.groups.add(frame.records);
        Ok(Some(Work::Frame { frame, level, follows }))
    }

    /// Whether a frame before `end` is still being written.
    pub(super) fn pending_before(&self, end: Lsn) -> bool {
        self.in_flight.pending_before(end)
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

    /// Returns a frame's memory to the pool.
    pub(super) fn recycle(&mut self, buf: AlignedBuf) {
        if self.pool.len() < POOLED_BUFFERS && buf.capacity() <= POOLED_BUFFER_BYTES {
            self.pool.push(buf);
        }
    }

    /// Takes out a waiter that can lead now: a parked or spinning thread, or else the flusher.
    pub(super) fn take_successor(&mut self, progress: &Progress) -> Option<Wake> {
        if !self.may_lead(progress) {
            return None;
        }
        // active leaders have taken the frames before that
        let above = (self.leaders > 0).then(|| self.untaken_start());
        self.waiters.take_thread(above).or_else(|| self.flusher.take().map(Wake::Thread))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_few_frames_is_kept_and_of_a_very_large_one_none() {
        let bounds =
            Bounds { block_bytes: 4096, max_frame_bytes: 1 << 20, max_pending_bytes: 1 << 20, max_in_flight: None };
        let mut queue = Queue::new(bounds, Lsn::new(4096), Lsn::new(1 << 20), Vec::new()).unwrap();
        queue.recycle(AlignedBuf::with_capacity(POOLED_BUFFER_BYTES + 1).unwrap());
        assert!(queue.pool.is_empty());
        for _ in 0..POOLED_BUFFERS + 1 {
            queue.recycle(AlignedBuf::with_capacity(POOLED_BUFFER_BYTES).unwrap());
        }
        assert_eq!(queue.pool.len(), POOLED_BUFFERS);
    }
}
