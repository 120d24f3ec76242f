//! The segments of a log: each checked by its header, and all of them checked in order.
//!
//! A [`Segment`] holds no file open: a log may have any number of segments, and a process has few
//! descriptors. Frames are read through an [`OpenSegment`], of which a scan holds two at most.
//!
//! This module reads headers and maps an LSN to an offset in a file. It does not read frames.

use crate::error::{Error, Result};
use crate::format::MAX_BLOCK_BYTES;
#[cfg(any(test, feature = "salvage"))]
use crate::format::bytes::round_up;
use crate::format::frame::{self, FrameFault, Place};
use crate::format::manifest::Manifest;
#[cfg(any(test, feature = "salvage"))]
use crate::format::segment;
use crate::format::segment::SegmentHeader;
use crate::ids::{Lsn, SegmentId};
#[cfg(any(test, feature = "salvage"))]
use crate::ids::{MachineTag, StoreId};
use crate::io::sync::Arc;
use crate::io::{AlignedBuf, NamedFile, OpenMode, Storage};
use crate::store::manifest_file::header_error;
use crate::store::open_dir::{ManifestStandIn, SegmentFile, StoreDir};
use std::ops::Deref;

/// A segment whose header was read and checked. Its file is not open.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) file: SegmentFile,
    pub(crate) header: SegmentHeader,
    pub(crate) header_checksum: u32,
    pub(crate) machine_name: Arc<str>,
}

/// A segment whose file is open for reading.
#[derive(Clone)]
pub(super) struct OpenSegment {
    segment: Arc<Segment>,
    pub(super) handle: NamedFile,
}

impl Segment {
    /// Reads a segment's header. Checks that it belongs to the file's name, and that the file is
    /// complete.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::UnsupportedVersion`], I/O errors.
    pub(crate) fn read(storage: &dyn Storage, file: &SegmentFile) -> Result<Segment> {
        let (segment, found_bytes) = Self::read_what_is_left(storage, file)?;
        let stated = segment.header.file_bytes;
        if stated > found_bytes {
            let reason = format!("the segment was {stated} bytes long and is {found_bytes} now");
            return Err(Error::corrupt(storage.path(&file.name), found_bytes, None, reason));
        }
        Ok(segment)
    }

    /// Reads the header of a segment that may have lost its end. Also returns the length of the
    /// file in bytes.
    pub(crate) fn read_what_is_left(storage: &dyn Storage, file: &SegmentFile) -> Result<(Segment, u64)> {
        let handle = NamedFile::open(storage, &file.name, OpenMode::Read)?;
        let found_bytes = handle.len()?;
        let decode = |header_bytes: u64| -> Result<_> {
            let mut buf = buffer_for(&handle, header_bytes)?;
            let read = handle.read_device_full(&mut buf, 0)?;
            Ok(SegmentHeader::decode(buf.get(..read).unwrap_or_default()))
        };
        // the header states its block size, which is nearly always that of the storage; the file's
        // length bounds the second attempt
        let block = storage.block_bytes();
        let mut header = decode(u64::from(block))?;
        if header.is_err() {
            let most = u64::from(block.max(MAX_BLOCK_BYTES)).min(found_bytes);
            header = decode(frame::frame_bytes(most.saturating_sub(frame::HEADER_BYTES as u64), block))?;
        }
        let (header, header_checksum) = header.map_err(|fault| header_error(storage, &file.name, fault))?;
        if (header.id, header.base) != (file.id, file.base) {
            let reason = "the segment's header is that of another segment";
            return Err(Error::corrupt(storage.path(&file.name), 0, Some(file.base), reason));
        }
        let machine_name = header.machine.name.as_str().into();
        Ok((Segment { file: file.clone(), header, header_checksum, machine_name }, found_bytes))
    }

    /// For salvage: derives a header from the first frame of a segment that has lost its header, if
    /// that frame is whole. Its predecessor's end and the machine that wrote it remain unknown.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn from_first_frame(
        storage: &dyn Storage,
        file: &SegmentFile,
        store: StoreId,
        block_bytes: u32,
    ) -> Result<Option<Segment>> {
        let handle = NamedFile::open(storage, &file.name, OpenMode::Read)?;
        let block = u64::from(block_bytes);
        let found_bytes = handle.len()?;
        let file_bytes = found_bytes.saturating_sub(found_bytes.checked_rem(block).unwrap_or(0));
        let read = |bytes: u64| -> Result<AlignedBuf> {
            let mut buf = buffer_for(&handle, bytes)?;
            let read = handle.read_device_full(&mut buf, block)?;
            buf.resize(read).map_err(|e| Error::io("read", handle.path().to_owned(), e))?;
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
        Ok(Some(Segment { file: file.clone(), header, header_checksum, machine_name: "".into() }))
    }

    /// The offset of an LSN in the file.
    pub(crate) fn offset_of(&self, lsn: Lsn) -> u64 {
        lsn.since(self.header.base).saturating_add(u64::from(self.header.block_bytes))
    }

    /// The LSN of an offset in the file.
    pub(super) fn lsn_at(&self, offset: u64) -> Lsn {
        self.header.base.plus(offset.saturating_sub(u64::from(self.header.block_bytes)))
    }

    /// The offset of the block that holds `offset`.
    pub(super) fn block_of(&self, offset: u64) -> u64 {
        offset & !u64::from(self.header.block_bytes.saturating_sub(1))
    }

    /// The first block boundary past `offset`.
    pub(super) fn next_boundary(&self, offset: u64) -> u64 {
        self.block_of(offset).saturating_add(u64::from(self.header.block_bytes))
    }

    /// The LSN past everything that the file can hold.
    pub(crate) fn capacity_end(&self) -> Lsn {
        self.lsn_at(self.header.file_bytes)
    }

    /// The identity that a frame with this LSN must have.
    pub(super) fn place(&self, lsn: Lsn) -> Place {
        let SegmentHeader { store, epoch, block_bytes, .. } = self.header;
        Place { store, epoch, lsn, block_bytes }
    }
}

impl Deref for OpenSegment {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}

impl OpenSegment {
    /// Opens a segment's file for reading.
    pub(super) fn open(storage: &dyn Storage, segment: &Arc<Segment>) -> Result<OpenSegment> {
        let handle = NamedFile::open(storage, &segment.file.name, OpenMode::Read)?;
        Ok(OpenSegment { segment: segment.clone(), handle })
    }

    /// The segment without its file.
    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Reads `bytes` bytes from `offset` into `buf`, around the page cache. Both are multiples of
    /// the block size. It reads less only at the end of the file.
    pub(super) fn fill(&self, buf: &mut AlignedBuf, offset: u64, bytes: u64) -> Result<()> {
        let io = |e| Error::io_at("read", self.handle.path().to_owned(), offset, e);
        // this overwrites the buffer's content, which need not be cleared
        buf.resize(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(io)?;
        let read = self.handle.read_device_full(buf, offset)?;
        buf.resize(read).map_err(io)
    }

    /// A zeroed buffer for direct reads of this segment.
    pub(super) fn buffer(&self, bytes: u64) -> Result<AlignedBuf> {
        buffer_for(&self.handle, bytes)
    }

    /// The error for a whole frame of a kind or version that this program does not know.
    pub(super) fn unsupported(&self, fault: FrameFault) -> Option<Error> {
        let (what, found, supported) = match fault {
            FrameFault::Version(found) => ("frame", found, u32::from(crate::format::FORMAT_VERSION)),
            FrameFault::Kind(found) => ("frame kind", found, frame::KINDS),
            _ => return None,
        };
        let path = self.handle.path().to_owned();
        Some(Error::UnsupportedVersion { path, what: what.into(), found, supported })
    }
}

fn buffer_for(handle: &NamedFile, bytes: u64) -> Result<AlignedBuf> {
    handle.buffer(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The segments from the one that holds `start` on. Older segments are garbage, so they are not
/// checked.
pub(crate) fn needed_segments(store_dir: &StoreDir, start: Lsn) -> Result<&[SegmentFile]> {
    let segments = &store_dir.segments;
    let newest = store_dir.manifest.as_ref().map_or(SegmentId::default(), |m| m.segment);
    let missing = |id: SegmentId| {
        let reason = format!("segment {id} is missing");
        Err(Error::corrupt_as_a_whole(store_dir.storage.path(""), Some(start), reason))
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
        if next.id == segment.id {
            return Err(twin(store_dir, next));
        }
        if next.id != expected {
            return missing(expected);
        }
    }
    Ok(needed)
}

fn twin(store_dir: &StoreDir, file: &SegmentFile) -> Error {
    Error::corrupt_as_a_whole(store_dir.storage.path(&file.name), Some(file.base), "two files claim to be this segment")
}

/// Checks that the headers of consecutive segments agree with each other and with the manifest.
pub(crate) fn check_sequence(storage: &dyn Storage, segments: &[Segment], manifest: Option<&Manifest>) -> Result<()> {
    let store = manifest.map(|m| m.store).or(segments.first().map(|s| s.header.store));
    let mut before: Option<&Segment> = None;
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

/// The oldest segment of the newest run without a gap in the ids and without a damaged header.
/// Without a manifest, older segments are garbage: files that were removed, which a crash brought
/// back or removed only in part.
///
/// # Errors
/// [`Error::Corrupt`] where the newest segment's header is damaged, or two files claim to be one
/// segment; I/O errors.
pub(crate) fn oldest_usable(store_dir: &StoreDir) -> Result<Option<Segment>> {
    let mut oldest: Option<Segment> = None;
    for file in store_dir.segments.iter().rev() {
        if let Some(next) = &oldest {
            if file.id == next.file.id {
                return Err(twin(store_dir, &next.file));
            }
            if file.id.get().saturating_add(1) != next.file.id.get() {
                break;
            }
        }
        match Segment::read(&*store_dir.storage, file) {
            Ok(segment) => oldest = Some(segment),
            Err(error) if error.is_corrupt() && oldest.is_some() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(oldest)
}

/// The LSN of the empty state, if the log of a store without a manifest reaches back to it. It is
/// the base of the very first segment, which leaves room for one header below it.
pub(crate) fn origin(store_dir: &StoreDir) -> Result<Option<Lsn>> {
    let Some(Segment { header, .. }) = oldest_usable(store_dir)? else {
        return Ok(store_dir.is_new().then(|| Lsn::new(u64::from(store_dir.storage.block_bytes()))));
    };
    let begins = header.id == SegmentId::new(1) && header.base == Lsn::new(u64::from(header.block_bytes));
    Ok(begins.then_some(header.base))
}

/// A stand-in for a missing manifest, derived from the segments. `None` if there is a manifest, or
/// no segment.
pub(crate) fn manifest_stand_in(store_dir: &StoreDir) -> Result<Option<ManifestStandIn>> {
    if store_dir.manifest.is_some() {
        return Ok(None);
    }
    let Some(Segment { header, .. }) = oldest_usable(store_dir)? else { return Ok(None) };
    Ok(Some(ManifestStandIn {
        store: header.store,
        block_bytes: header.block_bytes,
        log_start: header.base,
        origin: origin(store_dir)?,
        snapshots: Vec::new(),
    }))
}
