//! The current segment: entering a new one, and writing frames into it.
//!
//! Invariants:
//!
//! - No frame goes into a segment before its whole predecessor is durable, and its own header and
//!   name are.
//! - A frame is written directly only if no earlier frame waits for a sync.
//! - A frame that continues in a block that an earlier frame has begun is written without any byte
//!   of that earlier frame.
//!
//! This module does not depend on waiters.

use crate::error::{Error, Result};
use crate::format::bytes::round_up;
use crate::format::frame::{self, FrameHeader, FrameKind};
use crate::format::segment::SegmentHeader;
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::io::sync::{Arc, Mutex};
use crate::io::{AlignedBuf, File, OpenMode, Storage, WritePath, write_all_at};
use crate::store::layout as names;
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::PreallocatedSegment;
use crate::store::ownership::{CHECK_INTERVAL, Ownership};
use std::path::PathBuf;
use std::time::Duration;

/// The identity that every frame and segment of one open carries.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    pub(crate) block_bytes: u32,
    pub(crate) machine: MachineTag,
}

/// Why a preallocated segment did not become the next segment.
pub(super) enum EnterError {
    /// Opening or renaming it was refused. It still has its name and holds no frame.
    Refused(Error),
    /// A write or a sync failed, or the file is gone.
    Failed(Error),
}

impl EnterError {
    /// A vanished file does not come back, so its absence is a failure: a refusal would be retried
    /// for ever.
    fn refused_unless_gone(e: std::io::Error, error: impl Fn(std::io::Error) -> Error) -> EnterError {
        if e.kind() == std::io::ErrorKind::NotFound {
            EnterError::Failed(error(e))
        } else {
            EnterError::Refused(error(e))
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            EnterError::Refused(error) | EnterError::Failed(error) => error,
        }
    }
}

impl From<Error> for EnterError {
    fn from(error: Error) -> EnterError {
        EnterError::Failed(error)
    }
}

/// The segment that frames are written to.
pub(super) struct Active {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    base: Lsn,
    block_bytes: u32,
}

impl Active {
    fn offset_of(&self, lsn: Lsn) -> u64 {
        lsn.since(self.base).saturating_add(u64::from(self.block_bytes))
    }

    /// Writes a frame. When this returns `Ok`, the frame survives power loss.
    pub(super) fn write_durable(&self, frame: &[u8], lsn: Lsn) -> Result<()> {
        let offset = self.offset_of(lsn);
        self.file.write_durable_at(frame, offset).map_err(|e| Error::io_at("write", self.path.clone(), offset, e))
    }

    /// Writes a frame to the page cache. When this returns `Ok`, the frame survives a kill of the
    /// process, but not power loss.
    pub(super) fn write_cached(&self, frame: &[u8], lsn: Lsn) -> Result<()> {
        let offset = self.offset_of(lsn);
        write_all_at(&*self.file, frame, offset).map_err(|e| Error::io_at("write", self.path.clone(), offset, e))
    }

    /// Makes everything written to the segment survive power loss.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("sync", self.path.clone(), e))
    }
}

/// A segment of the open store.
#[derive(Clone, Debug)]
pub(crate) struct SegmentInfo {
    pub(crate) name: String,
    pub(crate) id: SegmentId,
    pub(crate) base: Lsn,
    pub(crate) file_bytes: u64,
}

/// Writes the chain of frames: it knows the end of the chain and the segment in which the chain
/// continues.
pub(super) struct SegmentWriter {
    storage: Arc<dyn Storage>,
    ownership: Arc<Ownership>,
    /// The time of the last check of the ownership.
    checked: Duration,
    pub(super) identity: Identity,
    root: Arc<Mutex<ManifestFile>>,
    pub(super) active: Option<Arc<Active>>,
    last_checksum: u32,
    /// The end of the last sealed frame.
    end: Lsn,
    last_id: SegmentId,
    /// Whether the active segment has written bytes that no sync has covered.
    pub(super) unsynced: bool,
    /// The storage was told to write back everything below this.
    hinted: Lsn,
}

/// After this many bytes, the storage is told to start their write-back. It shortens the next sync,
/// above all the sync at the end of a segment.
const HINT_BYTES: u64 = 1 << 20;

impl SegmentWriter {
    /// A writer that continues the chain at `end`, where the frame with `last_checksum` ends. It
    /// has yet to enter a segment.
    pub(super) fn new(
        (storage, ownership): (Arc<dyn Storage>, Arc<Ownership>),
        identity: Identity,
        root: Arc<Mutex<ManifestFile>>,
        end: Lsn,
        last_checksum: u32,
        last_id: SegmentId,
    ) -> SegmentWriter {
        SegmentWriter {
            checked: storage.monotonic(),
            storage,
            ownership,
            identity,
            root,
            active: None,
            last_checksum,
            end,
            last_id,
            unsynced: false,
            hinted: end,
        }
    }

    /// Checks that the directory is still this store's and the segment still in it, if the last
    /// check is older than [`CHECK_INTERVAL`].
    pub(super) fn check_ownership_if_due(&mut self) -> Result<()> {
        let now = self.storage.monotonic();
        if now.saturating_sub(self.checked) < CHECK_INTERVAL {
            return Ok(());
        }
        self.checked = now;
        self.ownership.check()?;
        let Some(active) = self.active.as_ref().filter(|active| active.file.is_linked().is_ok_and(|linked| !linked))
        else {
            return Ok(());
        };
        let removed =
            "another program removed it while it was being written, and what it holds is lost once it is closed";
        Err(Error::io("keep", active.path.clone(), std::io::Error::other(removed)))
    }

    /// Turns a preallocated segment into the next segment, which starts at `base`. All earlier
    /// frames have been completed.
    ///
    /// 1. the header is written into it and synced, so that a file with a segment's name always has
    ///    a complete header;
    /// 2. it is renamed, and the directory is synced;
    /// 3. the manifest records its id, so that recovery detects its loss.
    ///
    /// When it returns, the new segment and its header survive power loss. The header records where
    /// its predecessor ends.
    ///
    /// # Errors
    /// [`EnterError::Refused`] if the preallocated segment is unchanged: entering it can be
    /// retried, and no durable record depends on it.
    pub(super) fn enter(&mut self, spare: &PreallocatedSegment, base: Lsn) -> Result<SegmentInfo, EnterError> {
        self.ownership.check()?;
        let id = SegmentId::new(self.last_id.get().saturating_add(1));
        let io = |operation, e| Error::io(operation, self.storage.path(&spare.name), e);
        let file = match &spare.file {
            Some(file) => file.clone(),
            None => self
                .storage
                .open(&spare.name, OpenMode::ReadWrite)
                .map_err(|e| EnterError::refused_unless_gone(e, |e| io("open", e)))?,
        };
        let header = SegmentHeader {
            block_bytes: self.identity.block_bytes,
            previous_checksum: self.last_checksum,
            store: self.identity.store,
            id,
            epoch: self.identity.epoch,
            base,
            previous_end: self.end,
            watermark: base,
            file_bytes: spare.file_bytes,
            machine: self.identity.machine.clone(),
        };
        let mut block = AlignedBuf::zeroed(self.identity.block_bytes as usize)
            .map_err(|e| EnterError::Refused(io("write the header of", e)))?;
        let checksum = header
            .encode(&mut block)
            .ok_or_else(|| Error::invalid("the machine's name does not fit a segment header"))?;
        file.write_durable_at(&block, 0).map_err(|e| io("write the header of", e))?;
        let name = names::segment(id, base);
        self.storage.rename(&spare.name, &name).map_err(|e| EnterError::refused_unless_gone(e, |e| io("rename", e)))?;
        self.storage.sync_dir().map_err(|e| Error::io("sync", self.storage.path(""), e))?;
        self.root.lock().publish(|m| {
            m.segment = id;
            m.watermark = m.watermark.max(base);
        })?;
        let path = self.storage.path(&name);
        self.active = Some(Arc::new(Active { file, path, base, block_bytes: self.identity.block_bytes }));
        self.last_checksum = checksum;
        self.last_id = id;
        self.end = base;
        self.unsynced = false;
        self.hinted = base;
        Ok(SegmentInfo { name, id, base, file_bytes: spare.file_bytes })
    }

    /// Whether a durable frame may be written directly to the device: no earlier frame waits for a
    /// sync.
    pub(super) fn may_write_directly(&self) -> bool {
        !self.unsynced && self.active.as_ref().is_some_and(|a| a.file.write_path() == WritePath::Direct)
    }

    /// Records that everything below `end` was written through the page cache.
    pub(super) fn wrote(&mut self, end: Lsn) {
        let block = u64::from(self.identity.block_bytes);
        let upto = Lsn::new(end.get() & !block.wrapping_sub(1));
        if let Some(active) = self.active.as_ref().filter(|_| upto.since(self.hinted) >= HINT_BYTES) {
            active.file.hint_written(active.offset_of(self.hinted), upto.since(self.hinted));
            self.hinted = upto;
        }
    }

    /// Extends a frame by zeros to the end of its last block, unless an earlier frame has begun
    /// that block. Otherwise old bytes of a recycled file would follow the frame, and the kernel
    /// would read the block before it writes it.
    pub(super) fn zero_rest(&self, buf: &mut AlignedBuf, start: Lsn, end: Lsn) -> Result<()> {
        let block = u64::from(self.identity.block_bytes);
        let (begins_at, ends_at) = (start.get() & !block.wrapping_sub(1), round_up(end.get(), block));
        if ends_at.saturating_sub(begins_at) == block && begins_at != start.get() {
            return Ok(());
        }
        let bytes = usize::try_from(ends_at.saturating_sub(start.get())).unwrap_or(usize::MAX);
        buf.resize(bytes).map_err(|e| Error::Full { what: "a frame in memory", source: Some(Arc::new(e)) })
    }

    /// Completes a frame in memory, up to `end`: padding, header, checksum, and its place in the
    /// chain.
    pub(super) fn seal(
        &mut self,
        buf: &mut AlignedBuf,
        kind: FrameKind,
        (lsn, end): (Lsn, Lsn),
        records: u32,
        watermark: Lsn,
    ) -> Result<()> {
        let payload_bytes = (buf.len() as u64).saturating_sub(frame::HEADER_BYTES as u64);
        let total = end.since(lsn);
        let too_large = || Error::TooLarge { what: "a frame", size: total, limit: u64::from(u32::MAX) };
        let header = FrameHeader {
            kind,
            store: self.identity.store,
            epoch: self.identity.epoch,
            lsn,
            watermark,
            payload_bytes: u32::try_from(payload_bytes).map_err(|_| too_large())?,
            records,
            previous_checksum: self.last_checksum,
        };
        let out_of_memory = |e| Error::Full { what: "a frame in memory", source: Some(Arc::new(e)) };
        buf.resize(usize::try_from(total).map_err(|_| too_large())?).map_err(out_of_memory)?;
        self.last_checksum = frame::seal(buf, &header).ok_or_else(too_large)?;
        self.end = end;
        Ok(())
    }
}
