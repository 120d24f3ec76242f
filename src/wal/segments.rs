//! Segments that were opened: each checked by its header, and all of them in their order.
//!
//! It knows what a header says and where in a file an LSN lies, and nothing of what the frames hold.

use super::attach::{Attached, SegmentFile};
use super::root::header_error;
use crate::error::{Error, Result};
use crate::format::frame::{self, FrameFault, Place};
use crate::format::manifest::Manifest;
use crate::format::segment::SegmentHeader;
use crate::format::{Lsn, MAX_BLOCK_BYTES, SegmentId};
use crate::storage::{AlignedBuf, OpenMode, Storage, StorageFile, read_device_full};
use crate::sync::Arc;

/// How much of a segment is read at once, unless a frame is larger.
pub(super) const CHUNK_BYTES: u64 = 2 << 20;

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
            let most = u64::from(block.max(MAX_BLOCK_BYTES)).min(found_bytes);
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
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn from_first_frame(
        storage: &dyn Storage,
        file: &SegmentFile,
        store: crate::format::StoreId,
        block_bytes: u32,
    ) -> Result<Option<OpenSegment>> {
        use crate::format::{MachineTag, bytes::round_up, segment};
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
    pub(super) fn lsn_at(&self, offset: u64) -> Lsn {
        self.header.base.plus(offset.saturating_sub(u64::from(self.header.block_bytes)))
    }

    /// Where the block begins that an offset of the file lies in.
    pub(super) fn block_of(&self, offset: u64) -> u64 {
        offset & !u64::from(self.header.block_bytes.saturating_sub(1))
    }

    /// The first block boundary behind an offset of the file.
    pub(super) fn next_boundary(&self, offset: u64) -> u64 {
        self.block_of(offset).saturating_add(u64::from(self.header.block_bytes))
    }

    /// The LSN behind all that the file can hold.
    pub(crate) fn capacity_end(&self) -> Lsn {
        self.lsn_at(self.header.file_bytes)
    }

    pub(super) fn place(&self, lsn: Lsn) -> Place {
        let SegmentHeader { store, epoch, block_bytes, .. } = self.header;
        Place { store, epoch, lsn, block_bytes }
    }

    /// Reads from that offset on, around the page cache, whole blocks. Less than asked comes only where the file ends.
    pub(super) fn fill(&self, storage: &dyn Storage, buf: &mut AlignedBuf, offset: u64, bytes: u64) -> Result<()> {
        let io = |e| Error::io_at("read", storage.path(&self.file.name), offset, e);
        // what it held before is overwritten, and not cleared
        buf.resize(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(io)?;
        let read = read_device_full(&*self.handle, buf, offset).map_err(io)?;
        buf.resize(read).map_err(io)
    }

    /// What a whole frame that this program does not know comes to.
    pub(super) fn unsupported(&self, storage: &dyn Storage, fault: FrameFault) -> Option<Error> {
        let (what, found, supported) = match fault {
            FrameFault::Version(found) => ("frame", found, u32::from(crate::format::FORMAT_VERSION)),
            FrameFault::Kind(found) => ("frame kind", found, frame::KINDS),
            _ => return None,
        };
        let path = storage.path(&self.file.name);
        Some(Error::UnsupportedVersion { path, what: what.into(), found, supported })
    }
}

pub(super) fn zeroed(storage: &dyn Storage, name: &str, bytes: u64) -> Result<AlignedBuf> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    AlignedBuf::zeroed(bytes).map_err(|e| Error::io("read", storage.path(name), e))
}

/// The segments from the one that holds `start` on. Older ones are garbage, whatever they hold.
pub(super) fn needed_segments(attached: &Attached, start: Lsn) -> Result<&[SegmentFile]> {
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
