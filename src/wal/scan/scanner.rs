//! Reads every frame of the log from an LSN on, verified, up to where the evidence says that it
//! ends.
//!
//! A segment with a successor ends where the successor's header says. The newest segment ends at
//! its first invalid frame, unless something proves that more of it had been durable
//! ([`evidence`](crate::wal::scan::evidence)). Later frames count only for what their watermarks
//! prove ([`tail_scan`](crate::wal::scan::tail_scan)). Reads bypass the page cache, in whole
//! blocks. The scanner does not interpret records.

use crate::error::{Error, Result};
use crate::format::bytes::round_up;
use crate::format::frame::{self, FrameFault};
use crate::format::segment;
use crate::ids::{Epoch, Lsn};
use crate::io::read_ahead::{FRONT_BYTES, Fetcher, Filled, READS_AHEAD, SequentialReader, Wanted};
use crate::io::sync::Arc;
use crate::io::{AlignedBuf, Storage, read_device_full};
use crate::store::open_dir::StoreDir;
use crate::wal::scan::chunk::{Chunk, FrameAt};
use crate::wal::scan::evidence::{Evidence, Finding};
use crate::wal::scan::segment_set::{OpenSegment, Segment, check_sequence, needed_segments};
use crate::wal::scan::tail_scan::{self, CHUNK_BYTES, TailFindings};

/// A larger buffer is freed after use. It bounds what a few very large frames can make the scan
/// hold.
const MAX_SPARE_BYTES: usize = FRONT_BYTES + 4 * CHUNK_BYTES as usize;

/// What lies past the end of the log in its last segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Tail {
    /// The segment's path.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::path"))]
    pub path: std::path::PathBuf,
    /// The offset in the segment at which the log ends, in bytes.
    pub offset: u64,
    /// What is wrong with the bytes at that offset: why they are not the next frame.
    pub reason: &'static str,
    /// The row of the decision table in `docs/recovery.md` that ended the log here, such as `E6`.
    pub rule: &'static str,
    /// The number of valid frames further on. Nothing proves that any of them was acknowledged.
    pub later_frames: u64,
    /// Whether the bytes look like a write that was interrupted by power loss or a kill.
    pub torn: bool,
}

/// Where the log ended.
#[derive(Clone)]
pub(crate) struct ScanEnd {
    pub(crate) end: Lsn,
    pub(crate) last_checksum: u32,
    /// An LSN above any that the segments on disk could hold.
    pub(crate) beyond: Lsn,
    pub(crate) highest_epoch: Epoch,
    /// The number of opens that wrote the segments that were read.
    pub(crate) opens: usize,
    pub(crate) tail: Option<Tail>,
    /// The newest segment, if it holds neither a frame nor bytes that look like part of one.
    pub(crate) unused: Option<Arc<Segment>>,
}

/// Facts about the log from outside its segments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Everything below it was on stable storage.
    pub(crate) watermark: Lsn,
    /// The end of the log when it was last closed, if it was.
    pub(crate) clean_end: Option<Lsn>,
}

/// The bytes read past the last frame of a chunk. They are the start of the next window.
#[derive(Default)]
struct Carry {
    /// The index of the segment.
    at: usize,
    /// The offset in the file, a block boundary.
    offset: u64,
    bytes: Vec<u8>,
}

/// A walk over the log.
pub(crate) struct Scanner {
    storage: Arc<dyn Storage>,
    segments: Vec<Arc<Segment>>,
    /// The segments whose files are open, by index: the current one, and the next one once it is
    /// prefetched. Descriptors are scarce, and a log may have any number of segments.
    open: Vec<(usize, OpenSegment)>,
    /// The index of the current segment.
    at: usize,
    /// Where the next frame begins.
    lsn: Lsn,
    /// The checksum of the previous frame, if it is known.
    previous_checksum: Option<u32>,
    /// The highest LSN that the manifest, the clean mark or a segment header proves.
    watermark: Lsn,
    /// The end of the log when it was last closed, if it was.
    clean_end: Option<Lsn>,
    /// Where to stop, for a reader: its log is open and grows while it reads.
    upto: Option<Lsn>,
    end: Option<ScanEnd>,
    carry: Carry,
    /// The window's size in bytes. It grows to the largest frame so far, so that the next frame of
    /// that size is read in one piece.
    want: u64,
    /// Buffers to read into.
    spare: Vec<AlignedBuf>,
    reader: SequentialReader,
    /// Whether the bytes past the last chunk are not a valid frame.
    at_fault: bool,
}

impl Scanner {
    /// Prepares to read from `start`, which is a frame boundary. Reads the headers of all segments
    /// from there on and checks them.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::UnsupportedVersion`], I/O errors.
    pub(crate) fn new(store_dir: &StoreDir, start: Lsn) -> Result<Scanner> {
        let storage = store_dir.storage.clone();
        let manifest = store_dir.manifest.as_ref();
        let needed = needed_segments(store_dir, start)?;
        let segments: Vec<Segment> = needed.iter().map(|file| Segment::read(&*storage, file)).collect::<Result<_>>()?;
        check_sequence(&*storage, &segments, manifest)?;
        if let Some(first) = segments.first()
            && start > first.capacity_end()
        {
            let reason = "log_start lies past the end of its segment";
            let path = storage.path(&first.file.name);
            return Err(Error::corrupt(path, first.header.file_bytes, Some(start), reason));
        }
        let watermark = manifest.map_or(Lsn::ZERO, |m| m.watermark.max(m.clean_end));
        let known = Known { watermark, clean_end: manifest.map(|m| m.clean_end) };
        Ok(Self::over(storage, segments, start, known))
    }

    /// Prepares to read segments that [`check_sequence`] has accepted.
    pub(crate) fn over(storage: Arc<dyn Storage>, segments: Vec<Segment>, start: Lsn, known: Known) -> Scanner {
        let mut scanner = Scanner {
            storage,
            watermark: segments.iter().map(|s| s.header.watermark).fold(known.watermark, Lsn::max),
            segments: segments.into_iter().map(Arc::new).collect(),
            open: Vec::new(),
            at: 0,
            lsn: start,
            previous_checksum: None,
            clean_end: known.clean_end,
            upto: None,
            end: None,
            carry: Carry::default(),
            want: CHUNK_BYTES,
            spare: Vec::new(),
            reader: SequentialReader::default(),
            at_fault: false,
        };
        match scanner.segments.first() {
            Some(first) if scanner.lsn <= first.header.base => scanner.enter(0),
            Some(_) => {}
            None => scanner.finish(None),
        }
        scanner
    }

    fn enter(&mut self, at: usize) {
        debug_assert!(at == 0 || at > self.at, "the segments are read in order");
        if let Some(segment) = self.segments.get(at) {
            let lsn = self.lsn.max(segment.header.base);
            debug_assert!(lsn >= self.lsn, "the position never goes back");
            self.at = at;
            self.lsn = lsn;
            self.previous_checksum = Some(segment.header_checksum);
        }
    }

    fn finish(&mut self, tail: Option<Tail>) {
        debug_assert!(self.end.is_none(), "the log ends once");
        let last = self.segments.last();
        let is_torn = tail.as_ref().is_some_and(|tail| tail.torn);
        let unused = last.filter(|segment| !is_torn && self.lsn == segment.header.base).cloned();
        let mut epochs: Vec<_> = self.segments.iter().map(|segment| segment.header.epoch).collect();
        epochs.dedup();
        self.end = Some(ScanEnd {
            end: self.lsn,
            last_checksum: self.previous_checksum.unwrap_or(segment::UNKNOWN_CHECKSUM),
            beyond: last.map_or(self.lsn, |segment| segment.capacity_end()).max(self.lsn),
            highest_epoch: last.map_or(Epoch::default(), |s| s.header.epoch),
            opens: epochs.len(),
            tail,
            unused,
        });
    }

    /// An upper bound of the bytes that are left to read.
    pub(crate) fn bytes_ahead(&self) -> u64 {
        let ends = self.segments.iter().enumerate().map(|(i, segment)| {
            let end = self.recorded_end(i).unwrap_or_else(|| segment.capacity_end());
            end.since(segment.header.base.max(self.lsn))
        });
        ends.fold(0, u64::saturating_add)
    }

    /// The LSN of the next frame.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn position(&self) -> Lsn {
        self.lsn
    }

    /// Whether the next bytes are not a valid frame. The next [`next_chunk`](Self::next_chunk)
    /// decides what that means, which may read the rest of the segment. Until then there is time to
    /// work on the chunks so far.
    pub(crate) fn is_at_fault(&self) -> bool {
        self.at_fault
    }

    /// Whether a following segment's header records where this one ends.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn end_is_recorded(&self) -> bool {
        self.recorded_end(self.at).is_some()
    }

    /// For salvage: continues past damage, at the next whole frame in this segment. If there is
    /// none, it continues in the next segment, provided that the end of this one is recorded.
    /// Returns `false` where nothing is left. The caller reports what lies between.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn skip_damage(&mut self) -> Result<bool> {
        let Some(segment) = self.open_at(self.at)? else { return Ok(false) };
        let recorded_end = self.recorded_end(self.at);
        let limit = recorded_end.unwrap_or_else(|| segment.capacity_end());
        if let Some(lsn) = tail_scan::next_whole(&segment, self.lsn, limit)? {
            debug_assert!(lsn > self.lsn, "the position moves on");
            self.lsn = lsn;
            self.previous_checksum = None;
            return Ok(true);
        }
        if recorded_end.is_some() {
            self.enter(self.at.saturating_add(1));
        }
        Ok(recorded_end.is_some())
    }

    /// Stops at `upto`, a frame boundary below which everything is known to be durable.
    pub(crate) fn stop_at(mut self, upto: Lsn) -> Scanner {
        self.upto = Some(upto);
        // a missing frame below it is damage, not the end of the log
        self.watermark = self.watermark.max(upto);
        self
    }

    /// Starts to prefetch. The caller runs the returned [`Fetcher`] on a thread.
    pub(crate) fn start_ahead(&mut self) -> Fetcher {
        self.reader.start_ahead()
    }

    /// Where the log ended. Fails if the log was not read to its end.
    pub(crate) fn take_end(self) -> Result<ScanEnd> {
        self.end.ok_or_else(|| Error::invalid("the log was not read to its end"))
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    fn recorded_end(&self, at: usize) -> Option<Lsn> {
        self.segments.get(at.saturating_add(1)).map(|next| next.header.previous_end)
    }

    /// Takes back the buffer of a chunk that is no longer needed.
    pub(crate) fn reuse(&mut self, chunk: Chunk) {
        if let Some(buf) = chunk.into_buffer() {
            self.keep(buf);
        }
    }

    fn keep(&mut self, buf: AlignedBuf) {
        if buf.capacity() <= MAX_SPARE_BYTES {
            self.spare.push(buf);
        }
    }

    /// Shrinks a chunk that is kept for a while, if most of it is padding. The buffer that this
    /// frees is read into again while it is still in the processor's cache.
    pub(crate) fn pack(&mut self, chunk: &mut Chunk) {
        if let Some(buf) = chunk.pack() {
            self.keep(buf);
        }
    }

    /// The next verified frames; `None` at the end of the log.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::UnsupportedVersion`], I/O errors: an error is never taken for
    /// the end of the log. [`Error::Full`] without memory to read into.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let buf = self.spare.pop().map_or_else(|| AlignedBuf::with_capacity(0), Ok);
        let mut buf = buf.map_err(|e| Error::Full { what: "a read buffer", source: Some(Arc::new(e)) })?;
        let mut want = self.want;
        while self.end.is_none() {
            if self.recorded_end(self.at) == Some(self.lsn) {
                self.cross()?;
                continue;
            }
            if self.upto.is_some_and(|upto| self.lsn >= upto) {
                self.finish(None);
                break;
            }
            let Some(segment) = self.open_at(self.at)? else { break };
            let offset = segment.offset_of(self.lsn);
            // reads are whole blocks, but bytes past the limit are not parsed
            let from = segment.block_of(offset);
            let left = self.limit(self.at, &segment).saturating_sub(from);
            let block = u64::from(segment.header.block_bytes);
            let base = self.fill(&segment, &mut buf, from, round_up(want.min(left), block))?;
            self.truncate(&segment, &mut buf, base, left)?;
            let (frames, fault) = self.parse(&segment, &mut buf, Window { base, offset: from });
            self.at_fault = fault != FrameFault::Length;
            if !frames.is_empty() {
                self.carry = self.carry_of(&segment, &buf, Window { base, offset: from });
                return Ok(Some(Chunk::new(buf, frames, segment.segment().clone())));
            }
            let into = usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX);
            let first = buf.get(base.saturating_add(into)..).unwrap_or_default();
            let needed = frame::stated_bytes(first).unwrap_or(0).saturating_add(into as u64);
            if fault == FrameFault::Length && needed > want && needed <= left {
                want = needed;
                // with this bound, what is left of such a frame still fits in front of a prefetched
                // buffer
                self.want = self.want.max(needed.min(FRONT_BYTES as u64));
                continue;
            }
            self.judge(&segment, fault)?;
        }
        Ok(None)
    }

    /// The segment with this index, with its file open. Files of earlier segments are closed.
    fn open_at(&mut self, at: usize) -> Result<Option<OpenSegment>> {
        let current = self.at;
        self.open.retain(|(open, _)| *open >= current);
        if let Some((_, segment)) = self.open.iter().find(|(open, _)| *open == at) {
            return Ok(Some(segment.clone()));
        }
        let Some(segment) = self.segments.get(at) else { return Ok(None) };
        let segment = OpenSegment::open(&*self.storage, segment)?;
        self.open.push((at, segment.clone()));
        Ok(Some(segment))
    }

    /// The bytes in `buf` past the last frame. It begins with a block, like every window.
    fn carry_of(&self, segment: &Segment, buf: &[u8], window: Window) -> Carry {
        let next = segment.block_of(segment.offset_of(self.lsn));
        let skipped = usize::try_from(next.saturating_sub(window.offset)).unwrap_or(usize::MAX);
        let bytes = buf.get(skipped.saturating_add(window.base)..).unwrap_or_default();
        Carry { at: self.at, offset: next, bytes: bytes.to_vec() }
    }

    /// Fills `buf` with a window of the segment from `offset` on, and prefetches what follows.
    /// Returns where in the buffer the window begins. It may be larger than was asked for.
    fn fill(&mut self, segment: &OpenSegment, buf: &mut AlignedBuf, offset: u64, bytes: u64) -> Result<usize> {
        let Carry { at, offset: from, bytes: mut kept } = std::mem::take(&mut self.carry);
        let block = u64::from(segment.header.block_bytes);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if (at, from) != (self.at, offset) || !(kept.len() as u64).is_multiple_of(block) {
            kept.clear();
        }
        kept.truncate(bytes);
        let start = offset.saturating_add(kept.len() as u64);
        let file = segment.handle.file();
        let wanted = Wanted { number: self.at, file, offset: start, bytes };
        let read_now = |room: &mut [u8], offset| read_device_full(&**file, room, offset);
        let filled = self.reader.fill(buf, &kept, &wanted, read_now);
        let Filled { base, read } =
            filled.map_err(|e| Error::io_at("read", segment.handle.path().to_owned(), offset, e))?;
        self.prefetch(start.saturating_add(read as u64));
        Ok(base)
    }

    /// The offset in a segment's file past which nothing is read.
    fn limit(&self, at: usize, segment: &Segment) -> u64 {
        let end = self.recorded_end(at).map_or(segment.header.file_bytes, |end| segment.offset_of(end));
        self.upto.map_or(end, |upto| segment.offset_of(upto).min(end))
    }

    /// Prefetches what follows `offset` in the current segment and the next one.
    fn prefetch(&mut self, offset: u64) {
        if !self.reader.is_ahead() {
            return;
        }
        let first = self.next_read(self.at, offset);
        let reads =
            std::iter::successors(first, |&(at, offset, bytes)| self.next_read(at, offset.saturating_add(bytes)));
        let last = self.at.saturating_add(1);
        let reads: Vec<_> = reads.take(READS_AHEAD).take_while(|(at, ..)| *at <= last).collect();
        let open: Vec<_> = reads
            .into_iter()
            // a file that cannot be opened now is opened again when it is its turn, which reports
            // it
            .filter_map(|(at, offset, bytes)| Some((at, self.open_at(at).ok()??, offset, bytes)))
            .collect();
        let wanted: Vec<_> = open
            .iter()
            .filter_map(|(number, segment, offset, bytes)| {
                let (number, offset, bytes) = (*number, *offset, usize::try_from(*bytes).ok()?);
                Some(Wanted { number, file: segment.handle.file(), offset, bytes })
            })
            .collect();
        self.reader.prefetch(&wanted);
    }

    /// The segment, the offset and the length of the read that follows `offset`. It moves to the
    /// next segment if nothing of this one is left. Reads are whole blocks, wherever the last frame
    /// ends.
    fn next_read(&self, at: usize, offset: u64) -> Option<(usize, u64, u64)> {
        let here = self.segments.get(at).map(|segment| (at, segment, offset));
        let at = at.saturating_add(1);
        let next = self.segments.get(at).map(|segment| (at, segment, segment.offset_of(segment.header.base)));
        [here, next].into_iter().flatten().find_map(|(at, segment, offset)| {
            let limit = round_up(self.limit(at, segment), u64::from(segment.header.block_bytes));
            let left = limit.saturating_sub(offset);
            (left > 0).then_some((at, offset, left.min(self.want)))
        })
    }

    /// Shortens the window that begins at `base` to `bytes` bytes.
    fn truncate(&self, segment: &OpenSegment, buf: &mut AlignedBuf, base: usize, bytes: u64) -> Result<()> {
        let end = base.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        let kept = end.min(buf.len());
        buf.resize(kept).map_err(|e| Error::io("read", segment.handle.path().to_owned(), e))
    }

    /// All valid frames in the window from the current LSN on, and why the next bytes are not one.
    fn parse(&mut self, segment: &Segment, buf: &mut [u8], window: Window) -> (Vec<FrameAt>, FrameFault) {
        let mut frames = Vec::new();
        let into = segment.offset_of(self.lsn).saturating_sub(window.offset);
        let mut start = usize::try_from(into).unwrap_or(usize::MAX).saturating_add(window.base);
        loop {
            let rest = buf.get_mut(start..).unwrap_or_default();
            let frame = match frame::decode(rest, &segment.place(self.lsn)) {
                Ok(frame) => frame,
                Err(fault) => return (frames, fault),
            };
            if self.previous_checksum.is_some_and(|previous| previous != frame.header.previous_checksum) {
                return (frames, FrameFault::Chain);
            }
            debug_assert_eq!(frame.header.lsn, self.lsn, "a valid frame has another LSN than its place");
            debug_assert!(frame.end() > self.lsn, "the position moves on with each frame");
            let payload = start.saturating_add(frame::HEADER_BYTES);
            frames.push(FrameAt {
                header: frame.header,
                checksum: frame.checksum,
                payload: (payload, payload.saturating_add(frame.payload.len())),
                total_bytes: frame.total_bytes,
                file_offset: window.offset.saturating_add(start.saturating_sub(window.base) as u64),
            });
            self.previous_checksum = Some(frame.checksum);
            self.lsn = frame.end();
            start = start.saturating_add(usize::try_from(frame.total_bytes).unwrap_or(usize::MAX));
        }
    }

    /// Continues in the next segment, at the recorded end of this one.
    fn cross(&mut self) -> Result<()> {
        let here = self.segments.get(self.at);
        let next = self.at.saturating_add(1);
        if let (Some(segment), Some(next), Some(ours)) = (here, self.segments.get(next), self.previous_checksum)
            && ![ours, segment::UNKNOWN_CHECKSUM].contains(&next.header.previous_checksum)
        {
            let reason = "the segment's last frame is not the one that its successor follows";
            let offset = segment.offset_of(self.lsn);
            return Err(Error::corrupt(self.storage.path(&segment.file.name), offset, Some(self.lsn), reason));
        }
        self.enter(next);
        Ok(())
    }

    /// Decides what the invalid frame at the current LSN means.
    fn judge(&mut self, segment: &OpenSegment, fault: FrameFault) -> Result<()> {
        let path = segment.handle.path().to_owned();
        let offset = segment.offset_of(self.lsn);
        let recorded_end = self.recorded_end(self.at);
        if let Some(error) = segment.unsupported(fault) {
            return Err(error);
        }
        let later = match recorded_end {
            None if self.clean_end != Some(self.lsn) => tail_scan::search(segment, offset)?,
            // no frame was written past a recorded or a clean end
            _ => TailFindings::default(),
        };
        let evidence = Evidence {
            end_is_recorded: recorded_end.is_some(),
            at_recorded_end: recorded_end == Some(self.lsn),
            proven_complete: later.misplaced || self.watermark.max(later.watermark) > self.lsn,
        };
        let (rule, finding) = evidence.decide();
        match finding {
            Finding::EndOfSegment => self.cross(),
            Finding::EndOfLog => {
                // bytes past a clean end are those that the file held before it was recycled
                let closed = self.clean_end == Some(self.lsn);
                let torn = !closed && offset < segment.header.file_bytes && later.is_torn(fault);
                let tail = Tail { path, offset, reason: fault.reason(), rule, later_frames: later.frames, torn };
                self.finish(Some(tail));
                Ok(())
            }
            Finding::Damage => {
                Err(Error::corrupt(path, offset, Some(self.lsn), format!("{} (rule {rule})", fault.reason())))
            }
        }
    }
}

/// Where in a buffer a window of a file begins, and the offset of that place in the file.
#[derive(Clone, Copy)]
struct Window {
    base: usize,
    offset: u64,
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn the_memory_of_a_very_large_frame_is_not_kept() {
        let mut scanner = Scanner::over(Arc::new(SimDisk::new(1)), Vec::new(), Lsn::ZERO, Known::default());
        scanner.keep(AlignedBuf::with_capacity(MAX_SPARE_BYTES + 1).unwrap());
        assert!(scanner.spare.is_empty());
        scanner.keep(AlignedBuf::with_capacity(CHUNK_BYTES as usize).unwrap());
        assert_eq!(scanner.spare.len(), 1);
    }
}
