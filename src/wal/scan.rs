//! Reading the log: every frame from an LSN on, verified, up to where the evidence says that it ends.
//!
//! A segment with a successor ends exactly where that successor's header says; the newest one ends at
//! its first unacceptable frame, unless something proves that more had been completed ([`super::evidence`]).
//! Frames behind that place are searched for at block boundaries, only for what their watermarks
//! prove. Reads go around the page cache. It knows nothing of what records mean.

use super::attach::{Attached, SegmentFile};
use super::evidence::{Evidence, Finding};
use super::root::header_error;
use crate::error::{Error, Result};
use crate::format::frame::{self, Frame, FrameFault, FrameHeader, Place};
use crate::format::manifest::Manifest;
use crate::format::segment::{self, SegmentHeader};
use crate::format::{Epoch, Lsn, SegmentId};
use crate::storage::{AlignedBuf, OpenMode, Storage, StorageFile, read_device_full};
use crate::sync::Arc;

/// How much is read at once, unless a frame is larger.
const CHUNK_BYTES: u64 = 4 << 20;

/// A segment whose header was read and checked.
#[derive(Clone)]
pub(crate) struct OpenSegment {
    pub(crate) file: SegmentFile,
    pub(crate) header: SegmentHeader,
    pub(crate) header_checksum: u32,
    pub(crate) machine_name: Arc<str>,
    pub(crate) handle: Arc<dyn StorageFile>,
}

impl OpenSegment {
    /// Opens a segment and checks that its header belongs to its name and that nothing of the file is missing.
    pub(crate) fn open(storage: &dyn Storage, file: &SegmentFile) -> Result<OpenSegment> {
        let path = || storage.path(&file.name);
        let handle = storage.open(&file.name, OpenMode::Read).map_err(|e| Error::io("open", path(), e))?;
        let found_bytes = handle.len().map_err(|e| Error::io("measure", path(), e))?;
        let decode = |header_bytes: u64| -> Result<_> {
            let mut buf = zeroed(storage, &file.name, header_bytes)?;
            let read = read_device_full(&*handle, &mut buf, 0).map_err(|e| Error::io_at("read", path(), 0, e))?;
            Ok(SegmentHeader::decode(buf.get(..read).unwrap_or_default()))
        };
        // the block size stands in the header, and is seldom another than the storage's; the largest one is bounded by the file
        let block = storage.block_bytes();
        let mut header = decode(u64::from(block))?;
        if header.is_err() {
            let most = u64::from(block).max(MAX_BLOCK_BYTES).min(found_bytes);
            header = decode(frame::frame_bytes(most.saturating_sub(frame::HEADER_BYTES as u64), block))?;
        }
        let (header, header_checksum) = header.map_err(|fault| header_error(storage, &file.name, fault))?;
        let damage = |reason| Err(Error::corrupt(path(), 0, Some(file.base), reason));
        if (header.id, header.base) != (file.id, file.base) {
            return damage("the segment's header is that of another segment");
        }
        if header.file_bytes > found_bytes {
            let reason = format!("the segment was {} bytes long and is {found_bytes} now", header.file_bytes);
            return Err(Error::corrupt(path(), found_bytes, None, reason));
        }
        let machine_name = header.machine.name.as_str().into();
        Ok(OpenSegment { file: file.clone(), header, header_checksum, machine_name, handle })
    }

    /// Where an LSN lies in the file.
    pub(crate) fn offset_of(&self, lsn: Lsn) -> u64 {
        lsn.since(self.header.base).saturating_add(u64::from(self.header.block_bytes))
    }

    /// Where an offset of the file lies in the log.
    fn lsn_at(&self, offset: u64) -> Lsn {
        self.header.base.plus(offset.saturating_sub(u64::from(self.header.block_bytes)))
    }

    /// The LSN behind all that the file can hold.
    pub(crate) fn capacity_end(&self) -> Lsn {
        self.lsn_at(self.header.file_bytes)
    }

    fn place(&self, lsn: Lsn) -> Place {
        let SegmentHeader { store, epoch, block_bytes, .. } = self.header;
        Place { store, epoch, lsn, block_bytes }
    }
}

const MAX_BLOCK_BYTES: u64 = 64 << 10;

fn zeroed(storage: &dyn Storage, name: &str, bytes: u64) -> Result<AlignedBuf> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    AlignedBuf::zeroed(bytes).map_err(|e| Error::io("read", storage.path(name), e))
}

/// Verified frames, and the bytes they lie in.
pub(crate) struct Chunk {
    buf: AlignedBuf,
    frames: Vec<FrameAt>,
    segment: SegmentFile,
    /// The version of the machine that wrote them.
    pub(crate) machine_version: u32,
    pub(crate) machine_name: Arc<str>,
}

#[derive(Clone, Copy)]
struct FrameAt {
    header: FrameHeader,
    checksum: u32,
    start: usize,
    payload_end: usize,
    total_bytes: u64,
    file_offset: u64,
}

impl Chunk {
    /// The frames in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().map(|at| Frame {
            header: at.header,
            checksum: at.checksum,
            payload: self.buf.get(at.start.saturating_add(frame::HEADER_BYTES)..at.payload_end).unwrap_or_default(),
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

    /// How many bytes its frames take.
    pub(crate) fn bytes(&self) -> u64 {
        self.frames.iter().map(|f| f.total_bytes).fold(0, u64::saturating_add)
    }

    /// Its memory, to be read into again.
    pub(crate) fn into_buf(self) -> AlignedBuf {
        self.buf
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
        let mut watermark = manifest.map_or(Lsn::ZERO, |m| m.watermark.max(m.clean_end));
        for segment in &segments {
            watermark = watermark.max(segment.header.watermark);
        }
        let mut scanner = Scanner {
            storage,
            segments,
            at: 0,
            lsn: start,
            previous_checksum: None,
            watermark,
            clean_end: manifest.map(|m| m.clean_end),
            upto: None,
            end: None,
        };
        match scanner.segments.first() {
            Some(first) if scanner.lsn <= first.header.base => scanner.enter(0),
            Some(_) => {}
            None => scanner.finish(None, Epoch::default()),
        }
        Ok(scanner)
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

    /// Stops at a frame boundary below which all is known to be durable.
    pub(crate) fn stop_at(mut self, upto: Lsn) -> Scanner {
        self.upto = Some(upto);
        self
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

    /// The next verified frames, read into `buf`; `None` at the end of the log.
    ///
    /// # Errors
    /// Damage, an unknown version, or an I/O error: never the end of the log by mistake.
    pub(crate) fn next_chunk(&mut self, mut buf: AlignedBuf) -> Result<Option<Chunk>> {
        let mut want = CHUNK_BYTES;
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
            let limit = match (recorded_end, self.upto) {
                (Some(end), _) => segment.offset_of(end),
                (None, Some(upto)) => segment.offset_of(upto).min(segment.header.file_bytes),
                (None, None) => segment.header.file_bytes,
            };
            let left = limit.saturating_sub(offset);
            self.fill(&segment, &mut buf, offset, want.min(left))?;
            let (frames, fault) = self.parse(&segment, &buf, offset);
            if !frames.is_empty() {
                let machine_version = segment.header.machine.version;
                let machine_name = segment.machine_name.clone();
                return Ok(Some(Chunk { buf, frames, segment: segment.file, machine_version, machine_name }));
            }
            let stated = frame::stated_bytes(&buf, segment.header.block_bytes).unwrap_or(0);
            if fault == FrameFault::Length && stated > want && stated <= left {
                want = stated;
                continue;
            }
            self.judge(&segment, recorded_end, offset, fault)?;
        }
        Ok(None)
    }

    fn fill(&self, segment: &OpenSegment, buf: &mut AlignedBuf, offset: u64, bytes: u64) -> Result<()> {
        let io = |e| Error::io_at("read", self.storage.path(&segment.file.name), offset, e);
        buf.clear();
        buf.resize(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(io)?;
        let read = read_device_full(&*segment.handle, buf, offset).map_err(io)?;
        buf.resize(read).map_err(io)
    }

    /// All acceptable frames at the front of `buf`, and why the next one is not.
    fn parse(&mut self, segment: &OpenSegment, buf: &[u8], offset: u64) -> (Vec<FrameAt>, FrameFault) {
        let mut frames = Vec::new();
        let mut start = 0usize;
        loop {
            let rest = buf.get(start..).unwrap_or_default();
            let frame = match frame::decode(rest, &segment.place(self.lsn)) {
                Ok(frame) => frame,
                Err(fault) => return (frames, fault),
            };
            if self.previous_checksum.is_some_and(|previous| previous != frame.header.previous_checksum) {
                return (frames, FrameFault::Chain);
            }
            let payload_end = start.saturating_add(frame::HEADER_BYTES).saturating_add(frame.payload.len());
            frames.push(FrameAt {
                header: frame.header,
                checksum: frame.checksum,
                start,
                payload_end,
                total_bytes: frame.total_bytes,
                file_offset: offset.saturating_add(start as u64),
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
        let unsupported = match fault {
            FrameFault::Version(found) => Some(("frame", found, u32::from(crate::format::FORMAT_VERSION))),
            FrameFault::Kind(found) => Some(("frame kind", found, frame::KINDS)),
            _ => None,
        };
        if let Some((what, found, supported)) = unsupported {
            return Err(Error::UnsupportedVersion { path, what: what.into(), found, supported });
        }
        let later = match recorded_end {
            None if self.clean_end != Some(self.lsn) => self.search(segment, offset)?,
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
                let torn = later.frames > 0 || !matches!(fault, FrameFault::NeverWritten | FrameFault::Elsewhere);
                let torn = torn && offset < segment.header.file_bytes;
                let tail = Tail { path, offset, reason: fault.reason(), later_frames: later.frames, torn };
                self.finish(Some(tail), Epoch::default());
                Ok(())
            }
            Finding::Damage => Err(Error::corrupt(path, offset, Some(self.lsn), fault.reason())),
        }
    }

    /// Looks for whole frames of this segment behind `offset`, at block boundaries.
    fn search(&self, segment: &OpenSegment, offset: u64) -> Result<Later> {
        let block = u64::from(segment.header.block_bytes);
        let file_bytes = segment.header.file_bytes;
        let mut later = Later::default();
        let mut buf = zeroed(&*self.storage, &segment.file.name, block)?;
        let mut from = offset.saturating_add(block);
        while from < file_bytes {
            self.fill(segment, &mut buf, from, CHUNK_BYTES.min(file_bytes.saturating_sub(from)))?;
            let filled = buf.len() as u64;
            let mut at = 0u64;
            while at < filled {
                let position = from.saturating_add(at);
                let place = segment.place(segment.lsn_at(position));
                let rest = usize::try_from(at).ok().and_then(|at| buf.get(at..)).unwrap_or_default();
                let step = match self.frame_at(segment, rest, position, &place)? {
                    Some((watermark, total)) => {
                        later.frames = later.frames.saturating_add(1);
                        later.watermark = later.watermark.max(watermark);
                        total
                    }
                    None => block,
                };
                at = at.saturating_add(step);
            }
            from = from.saturating_add(at.max(block));
        }
        Ok(later)
    }

    /// The watermark and length of the frame at a position, if a whole one of that very place stands there.
    fn frame_at(
        &self,
        segment: &OpenSegment,
        bytes: &[u8],
        position: u64,
        place: &Place,
    ) -> Result<Option<(Lsn, u64)>> {
        if !frame::claims_place(bytes, place) {
            return Ok(None);
        }
        let read = |frame: Frame<'_>| (frame.header.watermark, frame.total_bytes);
        let stated = frame::stated_bytes(bytes, place.block_bytes).unwrap_or(0);
        if stated <= bytes.len() as u64 {
            return Ok(frame::decode(bytes, place).ok().map(read));
        }
        if stated > segment.header.file_bytes.saturating_sub(position) {
            return Ok(None);
        }
        let mut whole = zeroed(&*self.storage, &segment.file.name, stated)?;
        self.fill(segment, &mut whole, position, stated)?;
        Ok(frame::decode(&whole, place).ok().map(read))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Later {
    frames: u64,
    watermark: Lsn,
}

/// The segments from the one that holds `start` on. Older ones are garbage, whatever they hold.
fn needed_segments(attached: &Attached, start: Lsn) -> Result<&[SegmentFile]> {
    let segments = &attached.segments;
    let newest = attached.manifest.as_ref().map_or(SegmentId::default(), |m| m.segment);
    let missing = |id: SegmentId| {
        let reason = format!("segment {id} is missing");
        Err(Error::corrupt(attached.storage.path(""), 0, Some(start), reason))
    };
    if segments.last().map_or(SegmentId::default(), |s| s.id) < newest {
        return missing(newest);
    }
    let Some(first) = segments.iter().rposition(|s| s.base <= start) else {
        return match segments.first() {
            Some(first) => missing(SegmentId::new(first.id.get().saturating_sub(1))),
            None => Ok(&[]),
        };
    };
    let needed = segments.get(first..).unwrap_or_default();
    for (segment, next) in needed.iter().zip(needed.iter().skip(1)) {
        let expected = SegmentId::new(segment.id.get().saturating_add(1));
        if next.id != expected {
            return if next.id == segment.id {
                let path = attached.storage.path(&next.name);
                Err(Error::corrupt(path, 0, Some(next.base), "two files claim to be this segment"))
            } else {
                missing(expected)
            };
        }
    }
    Ok(needed)
}

/// Checks that the headers tell one story.
fn check_sequence(storage: &dyn Storage, segments: &[OpenSegment], manifest: Option<&Manifest>) -> Result<()> {
    let store = manifest.map(|m| m.store).or(segments.first().map(|s| s.header.store));
    let mut before: Option<&OpenSegment> = None;
    for segment in segments {
        let header = &segment.header;
        let damage = |reason| Err(Error::corrupt(storage.path(&segment.file.name), 0, Some(header.base), reason));
        if Some(header.store) != store {
            return damage("the segment belongs to another store");
        }
        if let Some(before) = before {
            if header.previous_end < before.header.base || header.previous_end > before.capacity_end() {
                return damage("the segment's predecessor cannot have ended where its header says");
            }
            if header.base < header.previous_end || header.epoch < before.header.epoch {
                return damage("the segment goes back behind its predecessor");
            }
        }
        before = Some(segment);
    }
    Ok(())
}
