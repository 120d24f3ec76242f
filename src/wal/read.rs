//! Reading records back from an open log: one by its LSN, or a range.
//!
//! A frame is the unit of reading, because its checksum covers all of it. The [index of
//! frames](super::frame_index) says where the frame of an LSN begins and ends, so one read of the
//! device is enough. What only the page cache holds is read from there.
//!
//! A reader holds the segments that it has yet to read before it looks at the start of the log, and
//! a truncation raises the start before it looks at the holds. So a reader either is refused, or
//! its segments are kept.

use super::Level;
use super::frame_index::{FrameIndex, Run};
use super::reader_holds::ReaderHold;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::format::bytes::round_up;
use crate::format::frame;
use crate::ids::Lsn;
use crate::io::sync::{Arc, Ordering};
use std::ops::{Bound, RangeBounds};
use std::panic::{RefUnwindSafe, UnwindSafe};

/// Frames that a reader of a range reads at once, in bytes. A larger frame is read alone.
const BATCH_BYTES: u64 = 256 << 10;

/// The records of a log in order: those of a range of LSNs that were there when the iterator was
/// made.
///
/// Each item is a record's LSN and its bytes. The iterator ends after an error: [`Error::Corrupt`]
/// for damage, [`Error::Closed`] once the log was closed, or an I/O error.
///
/// While it lives, no segment that it has yet to read is recycled, whatever is truncated.
pub struct Records {
    /// `None` after the end.
    shared: Option<Arc<Shared>>,
    from: Lsn,
    upto: Lsn,
    /// The frames up to here have been read.
    next: Lsn,
    /// Keeps the segments that are still to be read from being recycled.
    hold: ReaderHold,
    /// Records that were read and not returned yet, in reverse.
    ready: Vec<(Lsn, Vec<u8>)>,
}

// as for the log
impl UnwindSafe for Records {}
impl RefUnwindSafe for Records {}

impl Records {
    /// Begins at `from`, unless the range begins later.
    pub(super) fn skip_to(mut self, from: Lsn) -> Records {
        self.from = self.from.max(from.min(self.upto));
        self.next = self.from;
        self.hold.advance(self.from);
        self
    }

    /// Reads the next frames into `ready`. Returns `false` at the end.
    fn read_batch(&mut self) -> Result<bool> {
        debug_assert!(self.ready.is_empty(), "all records of the frames before have been returned");
        let Some(shared) = &self.shared else { return Ok(false) };
        let index = shared.index()?;
        let run = index.run(self.next, self.upto, shared.commit.durable(), BATCH_BYTES);
        let Some(run) = run else { return Ok(false) };
        let (from, upto) = (self.from, self.upto);
        let mut records = Vec::new();
        shared.read_run(index, &run, |lsn, bytes| {
            if lsn >= from && lsn < upto {
                records.push((lsn, bytes.to_vec()));
            }
        })?;
        records.reverse();
        self.ready = records;
        if let Some((start, bytes)) = run.frames.last() {
            self.next = start.plus(*bytes);
            self.hold.advance(self.next);
        }
        Ok(true)
    }
}

impl Iterator for Records {
    type Item = Result<(Lsn, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop() {
                return Some(Ok(record));
            }
            match self.read_batch() {
                Ok(true) => {}
                Ok(false) => {
                    self.shared = None;
                    // nothing more is read, so nothing more is kept
                    self.hold.advance(self.upto.max(self.next));
                    return None;
                }
                Err(error) => {
                    self.shared = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn index(&self) -> Result<&FrameIndex> {
        self.commit.frame_index.as_ref().ok_or_else(|| Error::invalid("the log of an engine is not read by LSN"))
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Brings what was appended below `upto` to the level of a reader. Returns the LSN below which
    /// everything has that level, at most `upto`.
    fn reach(&self, upto: Lsn, level: Level) -> Result<Lsn> {
        let reached = match level {
            Level::Durable => self.commit.durable(),
            Level::Written => Lsn::new(self.commit.progress.written.load(Ordering::Acquire)),
        };
        if upto <= reached || level == Level::Durable {
            return Ok(upto.min(reached));
        }
        let end = self.commit.queue.lock().frames.appended_end().min(upto);
        self.commit.wait(end, level)?;
        Ok(end)
    }

    /// See [`Log::read_at`](super::Log::read_at).
    pub(super) fn read_at(&self, lsn: Lsn, level: Level) -> Result<Option<Vec<u8>>> {
        let index = self.index()?;
        let _hold = self.commit.readers.hold(lsn);
        self.check_open()?;
        check_start(index, lsn)?;
        if self.reach(lsn.plus(1), level)? <= lsn {
            return Ok(None);
        }
        let not_a_record = Error::NotARecord { lsn };
        let Some((segment, frame)) = index.frame_at(lsn) else { return Err(not_a_record) };
        let durable = frame.0.plus(frame.1) <= self.commit.durable();
        let run = Run { segment, frames: vec![frame], durable };
        let mut found = None;
        self.read_run(index, &run, |at, bytes| {
            if at == lsn {
                found = Some(bytes.to_vec());
            }
        })?;
        found.map(Some).ok_or(not_a_record)
    }

    /// See [`Log::read`](super::Log::read).
    pub(super) fn read_range(self: &Arc<Self>, range: &impl RangeBounds<Lsn>, level: Level) -> Result<Records> {
        let index = self.index()?;
        let from = match range.start_bound() {
            Bound::Included(from) => Some(*from),
            Bound::Excluded(from) => Some(from.plus(1)),
            Bound::Unbounded => None,
        };
        let upto = match range.end_bound() {
            Bound::Included(last) => last.plus(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => Lsn::new(u64::MAX),
        };
        let hold = self.commit.readers.hold(from.unwrap_or(Lsn::ZERO));
        self.check_open()?;
        let from = match from {
            Some(from) => check_start(index, from).map(|()| from)?,
            None => {
                let start = index.start();
                hold.advance(start);
                start
            }
        };
        let upto = self.reach(upto, level)?;
        Ok(Records { shared: Some(self.clone()), from, upto, next: from, hold, ready: Vec::new() })
    }

    /// Reads frames that follow one another at once, and passes their records to `each`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they are not there as they were written; [`Error::Closed`] if the log
    /// was closed meanwhile, because its files may then be another owner's; I/O errors.
    fn read_run(&self, index: &FrameIndex, run: &Run, each: impl FnMut(Lsn, &[u8])) -> Result<()> {
        let read = self.read_open_run(index, run, each);
        // a close before the read has ended explains any failure
        if read.is_err() {
            self.check_open()?;
        }
        read
    }

    fn read_open_run(&self, index: &FrameIndex, run: &Run, mut each: impl FnMut(Lsn, &[u8])) -> Result<()> {
        let Run { segment, frames, durable } = run;
        let (Some((first, _)), Some((last, last_bytes))) = (frames.first(), frames.last()) else { return Ok(()) };
        let file = index.file(&*self.storage, segment)?;
        let (from, to) = (segment.offset_of(*first), segment.offset_of(last.plus(*last_bytes)));
        let block = u64::from(segment.block_bytes);
        // the device is read in whole blocks
        let begin = if *durable { from & !block.saturating_sub(1) } else { from };
        let end = if *durable { round_up(to, block) } else { to };
        let mut buf = file.buffer(usize::try_from(end.saturating_sub(begin)).unwrap_or(usize::MAX))?;
        let read =
            if *durable { file.read_device_full(&mut buf, begin)? } else { file.read_cached_full(&mut buf, begin)? };
        let bytes = buf.get_mut(..read).unwrap_or_default();
        for (lsn, total) in frames {
            let offset = segment.offset_of(*lsn);
            let corrupt = |reason| Error::corrupt(file.path().to_owned(), offset, Some(*lsn), reason);
            let at = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX);
            let rest = bytes.get_mut(at..).unwrap_or_default();
            let total = usize::try_from(*total).unwrap_or(usize::MAX).min(rest.len());
            let frame = rest.get_mut(..total).unwrap_or_default();
            let frame = frame::decode(frame, &segment.place(*lsn)).map_err(|fault| corrupt(fault.reason()))?;
            for record in frame.records() {
                let (lsn, bytes) = record.map_err(|fault| corrupt(fault.reason()))?;
                each(lsn, bytes);
            }
        }
        Ok(())
    }
}

fn check_start(index: &FrameIndex, lsn: Lsn) -> Result<()> {
    let start = index.start();
    if lsn < start { Err(Error::Truncated { lsn, start }) } else { Ok(()) }
}
