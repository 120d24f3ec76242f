//! Reading the log: every frame from an LSN on, verified, up to where the evidence says that it ends.
//!
//! A segment with a successor ends exactly where that successor's header says; the newest one ends at
//! its first unacceptable frame, unless something proves that more had been completed ([`super::evidence`]).
//! Frames behind that place are searched for only for what their watermarks prove ([`super::later`]). Reads go around the page
//! cache, whole blocks. It knows nothing of what records mean.

use super::attach::{Attached, SegmentFile};
use super::evidence::{Evidence, Finding};
use super::later::{self, Later};
use super::segments::{CHUNK_BYTES, OpenSegment, check_sequence, needed_segments};
use crate::error::{Error, Result};
use crate::format::bytes::round_up;
use crate::format::frame::{self, Frame, FrameFault, FrameHeader};
use crate::format::{Epoch, Lsn, segment};
use crate::storage::ahead::{self, Ahead, Wanted};
use crate::storage::{AlignedBuf, Storage, read_device_full};
use crate::sync::Arc;

/// So many reads are under way or asked for: the thread that reads goes on at once.
const READS_AHEAD: usize = 2;
/// A buffer that is larger is not kept.
const SPARE_BYTES: usize = ahead::FRONT_BYTES + 4 * CHUNK_BYTES as usize;
/// A chunk is packed where its frames hold less than this part of it.
const PACKED_BELOW: u64 = 4;

/// Verified frames, and the bytes they lie in.
pub(crate) struct Chunk {
    bytes: Bytes,
    frames: Vec<FrameAt>,
    segment: SegmentFile,
    /// The version of the machine that wrote them.
    pub(crate) machine_version: u32,
    #[cfg_attr(not(any(test, feature = "inspect")), expect(dead_code, reason = "only `inspect` shows it"))]
    pub(crate) machine_name: Arc<str>,
}

enum Bytes {
    /// As they were read.
    Read(AlignedBuf),
    /// Only what the frames hold, one behind the other.
    Packed(Vec<u8>),
}

#[derive(Clone, Copy)]
struct FrameAt {
    header: FrameHeader,
    checksum: u32,
    /// In the bytes of the chunk.
    payload: (usize, usize),
    total_bytes: u64,
    file_offset: u64,
}

impl Chunk {
    /// The frames in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let bytes: &[u8] = match &self.bytes {
            Bytes::Read(buf) => buf,
            Bytes::Packed(bytes) => bytes,
        };
        self.frames.iter().map(move |at| Frame {
            header: at.header,
            checksum: at.checksum,
            payload: bytes.get(at.payload.0..at.payload.1).unwrap_or_default(),
            total_bytes: at.total_bytes,
        })
    }

    /// The file that holds them.
    pub(crate) fn segment(&self) -> &SegmentFile {
        &self.segment
    }

    /// Where in its file an LSN of this chunk lies.
    pub(crate) fn offset_of(&self, lsn: Lsn) -> u64 {
        let base = self.frames.first();
        base.map_or(0, |at| at.file_offset.saturating_add(lsn.since(at.header.lsn)))
    }

    /// Where its first frame begins.
    pub(crate) fn first_lsn(&self) -> Lsn {
        self.frames.first().map_or(Lsn::ZERO, |at| at.header.lsn)
    }

    /// How many bytes its frames take.
    pub(crate) fn bytes(&self) -> u64 {
        self.frames.iter().map(|f| f.total_bytes).fold(0, u64::saturating_add)
    }

    /// Where most of it is padding, copies what its frames hold, and gives back what it was read into.
    fn pack(&mut self) -> Option<AlignedBuf> {
        let held = self.frames().map(|frame| frame.payload.len()).fold(0, usize::saturating_add);
        let most = usize::try_from(self.bytes().checked_div(PACKED_BELOW)?).ok()?;
        let mut packed = Vec::new();
        // without memory for it, it stays as it is
        packed.try_reserve_exact(Some(held).filter(|held| *held <= most)?).ok()?;
        self.frames().for_each(|frame| packed.extend_from_slice(frame.payload));
        let mut end = 0usize;
        for at in &mut self.frames {
            let bytes = at.payload.1.saturating_sub(at.payload.0);
            at.payload = (end, end.saturating_add(bytes));
            end = at.payload.1;
        }
        match std::mem::replace(&mut self.bytes, Bytes::Packed(packed)) {
            Bytes::Read(buf) => Some(buf),
            Bytes::Packed(_) => None,
        }
    }
}

/// What lies behind the end of the log in its last segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The segment's path.
    pub path: std::path::PathBuf,
    /// Where in it the log ends, in bytes.
    pub offset: u64,
    /// What stands there instead of a frame.
    pub reason: &'static str,
    /// Whole frames further on that nothing proves to have been acknowledged.
    pub later_frames: u64,
    /// Whether what stands there looks like a write that power loss or a kill interrupted.
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
    pub(crate) tail: Option<Tail>,
}

/// A walk over the log.
pub(crate) struct Scanner {
    storage: Arc<dyn Storage>,
    segments: Vec<OpenSegment>,
    at: usize,
    lsn: Lsn,
    /// Of the frame before, where it is known.
    previous_checksum: Option<u32>,
    /// The highest LSN that the manifest, the clean mark or a segment header proves.
    watermark: Lsn,
    /// Where the log ended when it was closed, if it was.
    clean_end: Option<Lsn>,
    /// Where to stop though the log may go on, which it does under a reader's eyes.
    upto: Option<Lsn>,
    end: Option<ScanEnd>,
    /// What was read behind the last whole frame: in which segment, where in it, and the bytes.
    carry: (usize, u64, Vec<u8>),
    /// How much is read at once: so much that a frame as large as those before comes whole.
    want: u64,
    /// Buffers to read into.
    spare: Vec<AlignedBuf>,
    /// Reads ahead, if there is a thread for it.
    ahead: Option<Ahead>,
    /// Whether what stands behind the last chunk is no frame.
    at_fault: bool,
}

impl Scanner {
    /// Prepares to read from `start`, a frame boundary. Checks the headers of all segments from there on.
    pub(crate) fn new(attached: &Attached, start: Lsn) -> Result<Scanner> {
        let storage = attached.storage.clone();
        let manifest = attached.manifest.as_ref();
        let needed = needed_segments(attached, start)?;
        let segments: Vec<OpenSegment> =
            needed.iter().map(|file| OpenSegment::open(&*storage, file)).collect::<Result<_>>()?;
        check_sequence(&*storage, &segments, manifest)?;
        if let Some(first) = segments.first()
            && start > first.capacity_end()
        {
            let reason = "the log is to begin behind all that this segment can hold";
            let path = storage.path(&first.file.name);
            return Err(Error::corrupt(path, first.header.file_bytes, Some(start), reason));
        }
        let watermark = manifest.map_or(Lsn::ZERO, |m| m.watermark.max(m.clean_end));
        Ok(Self::over(storage, segments, start, watermark, manifest.map(|m| m.clean_end)))
    }

    /// Prepares to read segments whose headers tell one story. `watermark` and `clean_end` are what else is known.
    pub(crate) fn over(
        storage: Arc<dyn Storage>,
        segments: Vec<OpenSegment>,
        start: Lsn,
        watermark: Lsn,
        clean_end: Option<Lsn>,
    ) -> Scanner {
        let watermark = segments.iter().map(|s| s.header.watermark).fold(watermark, Lsn::max);
        let (lsn, previous_checksum) = (start, None);
        let (at, upto, end, carry, spare, ahead, at_fault) = (0, None, None, <_>::default(), Vec::new(), None, false);
        let want = CHUNK_BYTES;
        #[rustfmt::skip]
        let mut scanner = Scanner {
            storage, segments, at, lsn, previous_checksum, watermark, clean_end, upto, end, carry, want, spare, ahead, at_fault,
        };
        match scanner.segments.first() {
            Some(first) if scanner.lsn <= first.header.base => scanner.enter(0),
            Some(_) => {}
            None => scanner.finish(None, Epoch::default()),
        }
        scanner
    }

    fn enter(&mut self, at: usize) {
        if let Some(segment) = self.segments.get(at) {
            self.at = at;
            self.lsn = self.lsn.max(segment.header.base);
            self.previous_checksum = Some(segment.header_checksum);
        }
    }

    fn finish(&mut self, tail: Option<Tail>, least_epoch: Epoch) {
        let last = self.segments.last();
        self.end = Some(ScanEnd {
            end: self.lsn,
            last_checksum: self.previous_checksum.unwrap_or(segment::UNKNOWN_CHECKSUM),
            beyond: last.map_or(self.lsn, OpenSegment::capacity_end).max(self.lsn),
            highest_epoch: last.map_or(least_epoch, |s| s.header.epoch),
            tail,
        });
    }

    /// How many bytes there are to read at the most.
    pub(crate) fn bytes_ahead(&self) -> u64 {
        let ends = self.segments.iter().enumerate().map(|(i, segment)| {
            let end = self.recorded_end(i).unwrap_or_else(|| segment.capacity_end());
            end.since(segment.header.base.max(self.lsn))
        });
        ends.fold(0, u64::saturating_add)
    }

    /// Where it stands.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn position(&self) -> Lsn {
        self.lsn
    }

    /// Whether it stands before what is no frame. The next call finds out what that means, for which it may have to read all that is
    /// left of the segment: whoever has chunks to work on meanwhile can do so first.
    pub(crate) fn is_at_fault(&self) -> bool {
        self.at_fault
    }

    /// Whether a following segment says where this one ended.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn end_is_recorded(&self) -> bool {
        self.recorded_end(self.at).is_some()
    }

    /// Goes on behind damage, for those who gather what is left: at the next whole frame in this segment or, behind its recorded
    /// end, in the next one. `false` where nothing is left. What lies between is for the caller to report.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn skip_damage(&mut self) -> Result<bool> {
        let Some(segment) = self.segments.get(self.at).cloned() else { return Ok(false) };
        let recorded_end = self.recorded_end(self.at);
        let limit = recorded_end.unwrap_or_else(|| segment.capacity_end());
        if let Some(lsn) = later::next_whole(&*self.storage, &segment, self.lsn, limit)? {
            self.lsn = lsn;
            self.previous_checksum = None;
            return Ok(true);
        }
        if recorded_end.is_some() {
            self.enter(self.at.saturating_add(1));
        }
        Ok(recorded_end.is_some())
    }

    /// Stops at a frame boundary below which all is known to be durable.
    pub(crate) fn stop_at(mut self, upto: Lsn) -> Scanner {
        self.upto = Some(upto);
        // what is missing of it is damage and not the end
        self.watermark = self.watermark.max(upto);
        self
    }

    /// Has another thread read ahead.
    pub(crate) fn read_ahead(&mut self, ahead: Ahead) {
        self.ahead = Some(ahead);
    }

    /// Where the log ended, once all has been read.
    pub(crate) fn take_end(self) -> Result<ScanEnd> {
        self.end.ok_or_else(|| Error::invalid("the log was not read to its end"))
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The path of a file, for messages.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.storage.path(name)
    }

    fn recorded_end(&self, at: usize) -> Option<Lsn> {
        self.segments.get(at.saturating_add(1)).map(|next| next.header.previous_end)
    }

    /// Takes a chunk's memory, to read into it again.
    pub(crate) fn reuse(&mut self, chunk: Chunk) {
        if let Bytes::Read(buf) = chunk.bytes {
            self.keep(buf);
        }
    }

    /// Keeps a buffer to read into, unless a very large frame made it so large that all that are kept could come to gigabytes.
    fn keep(&mut self, buf: AlignedBuf) {
        if buf.capacity() <= SPARE_BYTES {
            self.spare.push(buf);
        }
    }

    /// Makes a chunk that is kept for a while smaller, where most of it is padding. So the same few buffers are read into in turn and
    /// stay in the processor's cache, where what a device reads arrives sooner.
    pub(crate) fn pack(&mut self, chunk: &mut Chunk) {
        if let Some(buf) = chunk.pack() {
            self.keep(buf);
        }
    }

    /// The next verified frames; `None` at the end of the log.
    ///
    /// # Errors
    /// Damage, an unknown version, or an I/O error: never the end of the log by mistake. [`Error::Full`] without memory to read into.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let buf = self.spare.pop().map_or_else(|| AlignedBuf::with_capacity(0), Ok);
        let mut buf = buf.map_err(|e| Error::Full { what: "a read buffer", source: Some(Arc::new(e)) })?;
        let mut want = self.want;
        while self.end.is_none() {
            let Some(segment) = self.segments.get(self.at).cloned() else { break };
            let recorded_end = self.recorded_end(self.at);
            if recorded_end == Some(self.lsn) {
                self.cross(&segment)?;
                continue;
            }
            let offset = segment.offset_of(self.lsn);
            if self.upto.is_some_and(|upto| self.lsn >= upto) {
                self.finish(None, Epoch::default());
                break;
            }
            let limit = self.limit(self.at, &segment);
            // whole blocks are read, and nothing behind the limit is looked at
            let from = segment.block_of(offset);
            let left = limit.saturating_sub(from);
            let block = u64::from(segment.header.block_bytes);
            let base = self.fill_on(&segment, &mut buf, from, round_up(want.min(left), block))?;
            self.cut(&segment, &mut buf, base, left)?;
            let (frames, fault) = self.parse(&segment, &mut buf, base, from);
            self.at_fault = fault != FrameFault::Length;
            if !frames.is_empty() {
                // what is kept begins with a block, too
                let next = segment.block_of(segment.offset_of(self.lsn));
                let kept = usize::try_from(next.saturating_sub(from)).unwrap_or(usize::MAX).saturating_add(base);
                self.carry = (self.at, next, buf.get(kept..).unwrap_or_default().to_vec());
                let machine_version = segment.header.machine.version;
                let machine_name = segment.machine_name.clone();
                let bytes = Bytes::Read(buf);
                return Ok(Some(Chunk { bytes, frames, segment: segment.file, machine_version, machine_name }));
            }
            let into = usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX);
            let first = buf.get(base.saturating_add(into)..).unwrap_or_default();
            let needed = frame::stated_bytes(first).unwrap_or(0).saturating_add(into as u64);
            if fault == FrameFault::Length && needed > want && needed <= left {
                want = needed;
                // what is left over of such a frame still goes in front of what is read ahead
                self.want = self.want.max(needed.min(ahead::FRONT_BYTES as u64));
                continue;
            }
            self.judge(&segment, recorded_end, offset, fault)?;
        }
        Ok(None)
    }

    /// Reads on: what was read of these bytes before, or ahead, is not read again, and what comes behind them is read ahead. Returns
    /// where in the buffer they begin; they may be more than were asked for.
    fn fill_on(&mut self, segment: &OpenSegment, buf: &mut AlignedBuf, offset: u64, bytes: u64) -> Result<usize> {
        let (at, from, mut carry) = std::mem::take(&mut self.carry);
        let block = u64::from(segment.header.block_bytes);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if (at, from) != (self.at, offset) || !(carry.len() as u64).is_multiple_of(block) {
            carry.clear();
        }
        carry.truncate(bytes);
        let start = offset.saturating_add(carry.len() as u64);
        let io = |e| Error::io_at("read", self.storage.path(&segment.file.name), offset, e);
        let was_ahead = self.ahead.as_mut().filter(|_| carry.len() < bytes).and_then(|a| a.take(self.at, start, buf));
        let (base, read) = match was_ahead {
            Some(read) if carry.len() <= ahead::FRONT_BYTES => {
                (ahead::FRONT_BYTES.saturating_sub(carry.len()), read.map_err(io)?)
            }
            _ => {
                buf.resize(bytes).map_err(io)?;
                let rest = buf.get_mut(carry.len()..).filter(|rest| !rest.is_empty());
                (0, rest.map_or(Ok(0), |rest| read_device_full(&*segment.handle, rest, start)).map_err(io)?)
            }
        };
        let behind = base.saturating_add(carry.len());
        if let Some(front) = buf.get_mut(base..behind) {
            front.copy_from_slice(&carry);
        }
        buf.resize(behind.saturating_add(read)).map_err(io)?;
        self.ask_ahead(start.saturating_add(read as u64));
        Ok(base)
    }

    /// Where in a segment's file nothing more is to be read.
    fn limit(&self, at: usize, segment: &OpenSegment) -> u64 {
        match (self.recorded_end(at), self.upto) {
            (Some(end), _) => segment.offset_of(end),
            (None, Some(upto)) => segment.offset_of(upto).min(segment.header.file_bytes),
            (None, None) => segment.header.file_bytes,
        }
    }

    /// Has read ahead what comes behind that offset in the segment's file.
    fn ask_ahead(&mut self, offset: u64) {
        if self.ahead.is_none() {
            return;
        }
        let first = self.behind(self.at, offset);
        let places = std::iter::successors(first, |&(at, offset, bytes)| self.behind(at, offset.saturating_add(bytes)));
        let wanted: Vec<_> = places
            .take(READS_AHEAD)
            .filter_map(|(number, offset, bytes)| {
                let file = &self.segments.get(number)?.handle;
                Some(Wanted { number, file, offset, bytes: usize::try_from(bytes).ok()? })
            })
            .collect();
        if let Some(ahead) = &mut self.ahead {
            ahead.ask(&wanted);
        }
    }

    /// What is to be read next: in which segment, from where in its file on, and how many bytes. Where nothing of a segment is left it is the
    /// beginning of the next. Always whole blocks, wherever the last frame ends.
    fn behind(&self, at: usize, offset: u64) -> Option<(usize, u64, u64)> {
        let here = self.segments.get(at).map(|segment| (at, segment, offset));
        let at = at.saturating_add(1);
        let beside = self.segments.get(at).map(|segment| (at, segment, segment.offset_of(segment.header.base)));
        [here, beside].into_iter().flatten().find_map(|(at, segment, offset)| {
            let limit = round_up(self.limit(at, segment), u64::from(segment.header.block_bytes));
            let left = limit.saturating_sub(offset);
            (left > 0).then_some((at, offset, left.min(self.want)))
        })
    }

    /// Shortens what lies behind `base` to so many bytes.
    fn cut(&self, segment: &OpenSegment, buf: &mut AlignedBuf, base: usize, bytes: u64) -> Result<()> {
        let end = base.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        let kept = end.min(buf.len());
        buf.resize(kept).map_err(|e| Error::io("read", self.storage.path(&segment.file.name), e))
    }

    /// All acceptable frames from the current LSN on in `buf`, which from `base` on holds the file from that offset on, and why the next
    /// one is not.
    fn parse(&mut self, segment: &OpenSegment, buf: &mut [u8], base: usize, offset: u64) -> (Vec<FrameAt>, FrameFault) {
        let mut frames = Vec::new();
        let into = segment.offset_of(self.lsn).saturating_sub(offset);
        let mut start = usize::try_from(into).unwrap_or(usize::MAX).saturating_add(base);
        loop {
            let rest = buf.get_mut(start..).unwrap_or_default();
            let frame = match frame::decode(rest, &segment.place(self.lsn)) {
                Ok(frame) => frame,
                Err(fault) => return (frames, fault),
            };
            if self.previous_checksum.is_some_and(|previous| previous != frame.header.previous_checksum) {
                return (frames, FrameFault::Chain);
            }
            let payload = start.saturating_add(frame::HEADER_BYTES);
            frames.push(FrameAt {
                header: frame.header,
                checksum: frame.checksum,
                payload: (payload, payload.saturating_add(frame.payload.len())),
                total_bytes: frame.total_bytes,
                file_offset: offset.saturating_add(start.saturating_sub(base) as u64),
            });
            self.previous_checksum = Some(frame.checksum);
            self.lsn = frame.end();
            start = start.saturating_add(usize::try_from(frame.total_bytes).unwrap_or(usize::MAX));
        }
    }

    /// Goes on in the next segment, at the recorded end of this one.
    fn cross(&mut self, segment: &OpenSegment) -> Result<()> {
        let next = self.at.saturating_add(1);
        if let (Some(next), Some(ours)) = (self.segments.get(next), self.previous_checksum)
            && ![ours, segment::UNKNOWN_CHECKSUM].contains(&next.header.previous_checksum)
        {
            let reason = "the segment's last frame is not the one that its successor follows";
            let offset = segment.offset_of(self.lsn);
            return Err(Error::corrupt(self.storage.path(&segment.file.name), offset, Some(self.lsn), reason));
        }
        self.enter(next);
        Ok(())
    }

    /// Decides what an unacceptable frame at the current LSN means.
    fn judge(
        &mut self,
        segment: &OpenSegment,
        recorded_end: Option<Lsn>,
        offset: u64,
        fault: FrameFault,
    ) -> Result<()> {
        let path = self.storage.path(&segment.file.name);
        if let Some(error) = segment.unsupported(&*self.storage, fault) {
            return Err(error);
        }
        let later = match recorded_end {
            None if self.clean_end != Some(self.lsn) => later::search(&*self.storage, segment, offset)?,
            // what lies behind a recorded end, or behind a clean one, was never written by the log that ends there
            _ => Later::default(),
        };
        let evidence = Evidence {
            end_is_recorded: recorded_end.is_some(),
            at_recorded_end: recorded_end == Some(self.lsn),
            proven_complete: self.watermark.max(later.watermark) > self.lsn,
        };
        match evidence.judge() {
            Finding::EndOfSegment => self.cross(segment),
            Finding::EndOfLog => {
                let torn = offset < segment.header.file_bytes && later.is_torn(fault);
                let tail = Tail { path, offset, reason: fault.reason(), later_frames: later.frames, torn };
                self.finish(Some(tail), Epoch::default());
                Ok(())
            }
            Finding::Damage => Err(Error::corrupt(path, offset, Some(self.lsn), fault.reason())),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn the_memory_of_a_very_large_frame_is_not_kept() {
        let mut scanner = Scanner::over(Arc::new(SimDisk::new(1)), Vec::new(), Lsn::ZERO, Lsn::ZERO, None);
        scanner.keep(AlignedBuf::with_capacity(SPARE_BYTES + 1).unwrap());
        assert!(scanner.spare.is_empty());
        scanner.keep(AlignedBuf::with_capacity(CHUNK_BYTES as usize).unwrap());
        assert_eq!(scanner.spare.len(), 1);
    }
}
