//! Reading the log: every frame from an LSN on, verified, up to where the evidence says that it ends.
//!
//! A segment with a successor ends exactly where that successor's header says; the newest one ends at
//! its first unacceptable frame, unless something proves that more had been completed ([`super::evidence`]).
//! Frames behind that place are searched for at block boundaries, and from each on as they follow one another, only for what
//! their watermarks prove. Reads go around the page cache, whole blocks. It knows nothing of what records mean.

use super::attach::{Attached, SegmentFile};
use super::evidence::{Evidence, Finding};
use super::root::header_error;
use crate::error::{Error, Result};
use crate::format::bytes::round_up;
use crate::format::frame::{self, Frame, FrameFault, FrameHeader, Place};
use crate::format::manifest::Manifest;
use crate::format::segment::{self, SegmentHeader};
use crate::format::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::storage::ahead::{self, Ahead};
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
        let (segment, found_bytes) = Self::open_what_is_left(storage, file)?;
        let stated = segment.header.file_bytes;
        if stated > found_bytes {
            let reason = format!("the segment was {stated} bytes long and is {found_bytes} now");
            return Err(Error::corrupt(storage.path(&file.name), found_bytes, None, reason));
        }
        Ok(segment)
    }

    /// Opens a segment of which a part may be missing, and says how many bytes are there.
    pub(crate) fn open_what_is_left(storage: &dyn Storage, file: &SegmentFile) -> Result<(OpenSegment, u64)> {
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
        let machine_name = header.machine.name.as_str().into();
        Ok((OpenSegment { file: file.clone(), header, header_checksum, machine_name, handle }, found_bytes))
    }

    /// Makes up the header of a segment that has lost it, for those who gather what is left, from its first frame, if that is
    /// whole. Where its predecessor ended and which machine wrote it is not known then.
    pub(crate) fn from_first_frame(
        storage: &dyn Storage,
        file: &SegmentFile,
        store: StoreId,
        block_bytes: u32,
    ) -> Result<Option<OpenSegment>> {
        let io = |operation, e| Error::io(operation, storage.path(&file.name), e);
        let handle = storage.open(&file.name, OpenMode::Read).map_err(|e| io("open", e))?;
        let block = u64::from(block_bytes);
        let found_bytes = handle.len().map_err(|e| io("measure", e))?;
        let file_bytes = found_bytes.saturating_sub(found_bytes.checked_rem(block).unwrap_or(0));
        let read = |bytes: u64| -> Result<AlignedBuf> {
            let mut buf = zeroed(storage, &file.name, bytes)?;
            let read = read_device_full(&*handle, &mut buf, block).map_err(|e| io("read", e))?;
            buf.resize(read).map_err(|e| io("read", e))?;
            Ok(buf)
        };
        let room = file_bytes.saturating_sub(block);
        let first = read(block.min(room))?;
        let Some(stated) = frame::stated_bytes(&first).filter(|stated| *stated <= room) else {
            return Ok(None);
        };
        let epoch = frame::stated_epoch(&first).unwrap_or_default();
        let place = Place { store, epoch, lsn: file.base, block_bytes };
        let whole = read(round_up(stated, block).min(room))?;
        let Ok(frame) = frame::check(&whole, &place) else { return Ok(None) };
        let machine = MachineTag { name: String::new(), version: 0 };
        let header = SegmentHeader {
            block_bytes,
            previous_checksum: segment::UNKNOWN_CHECKSUM,
            store,
            id: file.id,
            epoch,
            base: file.base,
            previous_end: file.base,
            watermark: frame.header.watermark,
            file_bytes,
            machine,
        };
        let header_checksum = frame.header.previous_checksum;
        Ok(Some(OpenSegment { file: file.clone(), header, header_checksum, machine_name: "".into(), handle }))
    }

    /// Where an LSN lies in the file.
    pub(crate) fn offset_of(&self, lsn: Lsn) -> u64 {
        lsn.since(self.header.base).saturating_add(u64::from(self.header.block_bytes))
    }

    /// Where an offset of the file lies in the log.
    fn lsn_at(&self, offset: u64) -> Lsn {
        self.header.base.plus(offset.saturating_sub(u64::from(self.header.block_bytes)))
    }

    /// Where the block begins that an offset of the file lies in.
    fn block_of(&self, offset: u64) -> u64 {
        offset & !u64::from(self.header.block_bytes.saturating_sub(1))
    }

    /// The first block boundary behind an offset of the file.
    fn next_boundary(&self, offset: u64) -> u64 {
        self.block_of(offset).saturating_add(u64::from(self.header.block_bytes))
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
    /// In the buffer.
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

    /// Where its first frame begins.
    pub(crate) fn first_lsn(&self) -> Lsn {
        self.frames.first().map_or(Lsn::ZERO, |at| at.header.lsn)
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
    /// What was read behind the last whole frame: in which segment, where in it, and the bytes.
    carry: (usize, u64, Vec<u8>),
    /// Reads ahead, if there is a thread for it.
    ahead: Option<Ahead>,
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
        let (at, upto, end, carry, ahead) = (0, None, None, <_>::default(), None);
        let mut scanner =
            Scanner { storage, segments, at, lsn, previous_checksum, watermark, clean_end, upto, end, carry, ahead };
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
    pub(crate) fn position(&self) -> Lsn {
        self.lsn
    }

    /// Whether a following segment says where this one ended.
    pub(crate) fn end_is_recorded(&self) -> bool {
        self.recorded_end(self.at).is_some()
    }

    /// Goes on behind damage, for those who gather what is left: at the next whole frame in this segment or, behind its recorded
    /// end, in the next one. `false` where nothing is left. What lies between is for the caller to report.
    pub(crate) fn skip_damage(&mut self) -> Result<bool> {
        let Some(segment) = self.segments.get(self.at).cloned() else { return Ok(false) };
        let recorded_end = self.recorded_end(self.at);
        if let Some(lsn) = self.next_whole(&segment, recorded_end.unwrap_or_else(|| segment.capacity_end()))? {
            self.lsn = lsn;
            self.previous_checksum = None;
            return Ok(true);
        }
        if recorded_end.is_some() {
            self.enter(self.at.saturating_add(1));
        }
        Ok(recorded_end.is_some())
    }

    /// The LSN of the first whole frame of a segment behind the one that should stand here.
    fn next_whole(&self, segment: &OpenSegment, limit: Lsn) -> Result<Option<Lsn>> {
        let block = u64::from(segment.header.block_bytes);
        let end = segment.offset_of(limit).min(segment.header.file_bytes);
        let mut buf = zeroed(&*self.storage, &segment.file.name, block)?;
        let mut from = segment.next_boundary(segment.offset_of(self.lsn));
        while from < end {
            self.fill(segment, &mut buf, from, CHUNK_BYTES.min(end.saturating_sub(from)))?;
            for (at, rest) in (0u64..).step_by(usize::try_from(block).unwrap_or(usize::MAX)).zip(blocks(&buf, block)) {
                let position = from.saturating_add(at);
                let place = segment.place(segment.lsn_at(position));
                if self.is_whole(segment, rest, position, &place)? {
                    return Ok(Some(place.lsn));
                }
            }
            from = from.saturating_add(CHUNK_BYTES);
        }
        Ok(None)
    }

    /// Whether a whole frame of that very place stands there.
    fn is_whole(&self, segment: &OpenSegment, bytes: &[u8], position: u64, place: &Place) -> Result<bool> {
        if !frame::claims_place(bytes, place) {
            return Ok(false);
        }
        let stated = frame::stated_bytes(bytes).unwrap_or(0);
        if stated <= bytes.len() as u64 {
            return Ok(frame::check(bytes, place).is_ok());
        }
        if stated > segment.header.file_bytes.saturating_sub(position) {
            return Ok(false);
        }
        let mut whole = zeroed(&*self.storage, &segment.file.name, place.block_bytes.into())?;
        self.fill(segment, &mut whole, position, round_up(stated, place.block_bytes.into()))?;
        Ok(frame::check(&whole, place).is_ok())
    }

    /// Stops at a frame boundary below which all is known to be durable.
    pub(crate) fn stop_at(mut self, upto: Lsn) -> Scanner {
        self.upto = Some(upto);
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
            // whole blocks are read, and nothing behind the limit is looked at
            let from = segment.block_of(offset);
            let left = limit.saturating_sub(from);
            let block = u64::from(segment.header.block_bytes);
            let base =
                self.fill_on(&segment, &mut buf, from, round_up(want.min(left), block), round_up(left, block))?;
            self.cut(&segment, &mut buf, base, left)?;
            let (frames, fault) = self.parse(&segment, &mut buf, base, from);
            if !frames.is_empty() {
                // what is kept begins with a block, too
                let next = segment.block_of(segment.offset_of(self.lsn));
                let kept = usize::try_from(next.saturating_sub(from)).unwrap_or(usize::MAX).saturating_add(base);
                self.carry = (self.at, next, buf.get(kept..).unwrap_or_default().to_vec());
                let machine_version = segment.header.machine.version;
                let machine_name = segment.machine_name.clone();
                return Ok(Some(Chunk { buf, frames, segment: segment.file, machine_version, machine_name }));
            }
            let into = usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX);
            let first = buf.get(base.saturating_add(into)..).unwrap_or_default();
            let needed = frame::stated_bytes(first).unwrap_or(0).saturating_add(into as u64);
            if fault == FrameFault::Length && needed > want && needed <= left {
                want = needed;
                continue;
            }
            self.judge(&segment, recorded_end, offset, fault)?;
        }
        Ok(None)
    }

    /// Reads on: what was read of these bytes before, or ahead, is not read again, and what comes behind them, within `left`, is read
    /// ahead. Returns where in the buffer they begin; they may be more than were asked for.
    fn fill_on(
        &mut self,
        segment: &OpenSegment,
        buf: &mut AlignedBuf,
        offset: u64,
        bytes: u64,
        left: u64,
    ) -> Result<usize> {
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
        let next = start.saturating_add(read as u64);
        let more = offset.saturating_add(left).saturating_sub(next);
        self.ask_ahead(segment, next, more);
        Ok(base)
    }

    /// Has what comes next read ahead: so many bytes more of this segment or, where that is none, the beginning of the one that follows.
    fn ask_ahead(&mut self, segment: &OpenSegment, next: u64, more: u64) {
        let following = self.at.saturating_add(1);
        let (at, handle, offset, bytes) = match self.segments.get(following) {
            Some(segment) if more == 0 => {
                let end = self.recorded_end(following).unwrap_or_else(|| segment.capacity_end());
                let offset = segment.offset_of(segment.header.base);
                let block = u64::from(segment.header.block_bytes);
                // whole blocks, wherever its last frame ends
                (following, &segment.handle, offset, round_up(segment.offset_of(end).saturating_sub(offset), block))
            }
            _ => (self.at, &segment.handle, next, more),
        };
        let bytes = usize::try_from(bytes.min(CHUNK_BYTES)).unwrap_or(0);
        if let Some(ahead) = self.ahead.as_mut().filter(|_| bytes > 0) {
            ahead.ask(at, handle, offset, bytes);
        }
    }

    fn fill(&self, segment: &OpenSegment, buf: &mut AlignedBuf, offset: u64, bytes: u64) -> Result<()> {
        let io = |e| Error::io_at("read", self.storage.path(&segment.file.name), offset, e);
        // what it held before is overwritten, and not cleared
        buf.resize(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(io)?;
        let read = read_device_full(&*segment.handle, buf, offset).map_err(io)?;
        buf.resize(read).map_err(io)
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
            let payload_end = start.saturating_add(frame::HEADER_BYTES).saturating_add(frame.payload.len());
            frames.push(FrameAt {
                header: frame.header,
                checksum: frame.checksum,
                start,
                payload_end,
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
        if let Some(error) = self.unsupported(segment, fault) {
            return Err(error);
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
                let torn = offset < segment.header.file_bytes && later.is_torn(fault);
                let tail = Tail { path, offset, reason: fault.reason(), later_frames: later.frames, torn };
                self.finish(Some(tail), Epoch::default());
                Ok(())
            }
            Finding::Damage => Err(Error::corrupt(path, offset, Some(self.lsn), fault.reason())),
        }
    }

    /// What a whole frame that this program does not know comes to.
    fn unsupported(&self, segment: &OpenSegment, fault: FrameFault) -> Option<Error> {
        let (what, found, supported) = match fault {
            FrameFault::Version(found) => ("frame", found, u32::from(crate::format::FORMAT_VERSION)),
            FrameFault::Kind(found) => ("frame kind", found, frame::KINDS),
            _ => return None,
        };
        let path = self.storage.path(&segment.file.name);
        Some(Error::UnsupportedVersion { path, what: what.into(), found, supported })
    }

    /// Looks for whole frames of this segment behind `offset`: in the blocks that a frame can begin in, and right behind each that it
    /// finds.
    ///
    /// What claims to be a frame is read once, however many such claims there are: where another can begin inside it the claim
    /// is false, and one that goes beyond what was read is read together with all that is to be searched in it.
    fn search(&self, segment: &OpenSegment, offset: u64) -> Result<Later> {
        let block = u64::from(segment.header.block_bytes);
        let file_bytes = segment.header.file_bytes;
        let mut later = Later::default();
        let mut buf = zeroed(&*self.storage, &segment.file.name, block)?;
        let mut position = segment.next_boundary(offset);
        let mut want = CHUNK_BYTES;
        while position < file_bytes {
            let from = segment.block_of(position);
            self.fill(segment, &mut buf, from, round_up(want, block).min(file_bytes.saturating_sub(from)))?;
            let end = from.saturating_add(buf.len() as u64);
            // a file that has become shorter meanwhile gives nothing to go on with
            if end <= position {
                break;
            }
            let began = position;
            while position < end {
                let into = usize::try_from(position.saturating_sub(from)).ok();
                let rest = into.and_then(|into| buf.get(into..)).unwrap_or_default();
                let place = segment.place(segment.lsn_at(position));
                let stated = frame::stated_bytes(rest).unwrap_or(0);
                let needed = stated.saturating_add(position.saturating_sub(segment.block_of(position)));
                position = match later.look(rest, &place) {
                    Ok(total) => position.saturating_add(total),
                    Err(FrameFault::Length)
                        if stated <= file_bytes.saturating_sub(position) && (position > began || needed > want) =>
                    {
                        want = needed.max(CHUNK_BYTES);
                        break;
                    }
                    Err(fault) => match self.unsupported(segment, fault) {
                        Some(error) => return Err(error),
                        None => segment.next_boundary(position),
                    },
                };
                want = CHUNK_BYTES;
            }
        }
        Ok(later)
    }
}

/// All of a buffer from each block boundary on.
fn blocks(buf: &[u8], block: u64) -> impl Iterator<Item = &[u8]> {
    let block = usize::try_from(block).unwrap_or(usize::MAX);
    std::iter::successors(Some(buf), move |rest| rest.get(block..)).take_while(|rest| !rest.is_empty())
}

/// What lies behind a place where no acceptable frame stands.
#[derive(Clone, Copy, Debug, Default)]
struct Later {
    /// Whole frames of their very place.
    frames: u64,
    /// The highest that stands in one.
    watermark: Lsn,
    /// Whether anything was ever written there.
    written: bool,
    /// Whether something there begins as the frame of another place, as it does where a file is used again.
    stale: bool,
    /// The end and the checksum of the frame that was found last.
    last: Option<(Lsn, u32)>,
}

impl Later {
    /// Looks at what `bytes` starts with. Returns the length of the frame there, or why there is none.
    ///
    /// Inside a block a frame counts only as the next one of a chain: what begins there is not told from a record's bytes by its
    /// first four.
    fn look(&mut self, bytes: &[u8], place: &Place) -> Result<u64, FrameFault> {
        let before = self.last.filter(|(end, _)| *end == place.lsn).map(|(_, checksum)| checksum);
        let at_boundary = place.rest_of_block() == place.block_bytes as usize;
        if !frame::claims_place(bytes, place) {
            let rest = bytes.get(..place.rest_of_block()).unwrap_or(bytes);
            self.written = self.written || rest.iter().any(|&byte| byte != 0);
            self.stale = self.stale || frame::stated_bytes(bytes).is_some();
            return Err(FrameFault::Elsewhere);
        }
        self.written = true;
        let found = frame::check(bytes, place)?;
        if !at_boundary && before != Some(found.header.previous_checksum) {
            return Err(FrameFault::Chain);
        }
        self.frames = self.frames.saturating_add(1);
        self.watermark = self.watermark.max(found.header.watermark);
        self.last = Some((place.lsn.plus(found.total_bytes), found.checksum));
        Ok(found.total_bytes)
    }

    /// Whether this, behind that fault, looks like a write that was interrupted. Where a file is used again nobody can tell the
    /// inside of an old frame from that of one whose first block was lost; it is taken for the former.
    fn is_torn(&self, fault: FrameFault) -> bool {
        self.frames > 0
            || match fault {
                FrameFault::Elsewhere => false,
                FrameFault::NeverWritten => self.written && !self.stale,
                FrameFault::NoFrame => !self.stale,
                _ => true,
            }
    }
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
pub(crate) fn check_sequence(
    storage: &dyn Storage,
    segments: &[OpenSegment],
    manifest: Option<&Manifest>,
) -> Result<()> {
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
