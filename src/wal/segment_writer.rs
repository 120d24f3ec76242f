//! The current segment: entering a new one, and writing frames into it.
//!
//! Invariants: no frame goes into a segment before all of its predecessor is durable and its own header
//! and name are; a direct write is only made while nothing that was merely written lies before it; a frame that goes on
//! in a block that an earlier one has begun is written without a byte of that one. It knows nothing of who waits.

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

/// What every frame and segment of one open carries.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    pub(crate) block_bytes: u32,
    pub(crate) machine: MachineTag,
}

/// Why a preallocated segment did not become the next segment.
pub(super) enum EnterError {
    /// Opening or renaming it was refused. It still has its name and holds nothing.
    Refused(Error),
    /// A write or a sync failed, or the file is gone.
    Failed(Error),
}

impl EnterError {
    /// A file that has vanished does not come back, so entering it must not be tried for ever.
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

/// The segment that is written to.
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

    /// Writes a frame so that it survives power loss when this returns `Ok`.
    pub(super) fn write_durable(&self, frame: &[u8], lsn: Lsn) -> Result<()> {
        let offset = self.offset_of(lsn);
        self.file.write_durable_at(frame, offset).map_err(|e| Error::io_at("write", self.path.clone(), offset, e))
    }

    /// Writes a frame so that it survives a kill of the process, not power loss.
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

/// The end of the chain of frames, and the segment it goes on in.
pub(super) struct SegmentWriter {
    storage: Arc<dyn Storage>,
    ownership: Arc<Ownership>,
    /// The time of the last check of the ownership.
    checked: Duration,
    identity: Identity,
    root: Arc<Mutex<ManifestFile>>,
    pub(super) active: Option<Arc<Active>>,
    last_checksum: u32,
    /// Behind the last frame that was sealed.
    end: Lsn,
    last_id: SegmentId,
    /// Bytes were written to the active segment that no sync has covered.
    pub(super) unsynced: bool,
    /// Up to where the storage was told of them.
    hinted: Lsn,
}

/// So much is written before the storage is told to begin handing it to the device: a sync that comes is short then, above all
/// that of a segment's end.
const HINT_BYTES: u64 = 1 << 20;

impl SegmentWriter {
    /// A writer that goes on behind `end`, where the frame with `last_checksum` ends, in a segment yet to be entered.
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

    /// Makes a spare the next segment, starting at `base`. All frames before have been completed.
    ///
    /// 1. the header is written into the spare and synced, so that no segment name ever shows a half-made header;
    /// 2. it is renamed and the directory synced;
    /// 3. the manifest names it, so that its loss would be noticed.
    ///
    /// When it returns, the new segment survives power loss, and where its predecessor ends is recorded.
    ///
    /// # Errors
    /// [`EnterError::Refused`] if the spare is as it was: it can be entered again, and nothing that was promised depends on it.
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

    /// Whether a durable write may go to the device directly: nothing before it waits for a sync.
    pub(super) fn may_write_directly(&self) -> bool {
        !self.unsynced && self.active.as_ref().is_some_and(|a| a.file.write_path() == WritePath::Direct)
    }

    /// Notes that all up to `end` was written through the page cache.
    pub(super) fn wrote(&mut self, end: Lsn) {
        let block = u64::from(self.identity.block_bytes);
        let upto = Lsn::new(end.get() & !block.wrapping_sub(1));
        if let Some(active) = self.active.as_ref().filter(|_| upto.since(self.hinted) >= HINT_BYTES) {
            active.file.hint_written(active.offset_of(self.hinted), upto.since(self.hinted));
            self.hinted = upto;
        }
    }

    /// Extends a frame that ends inside a block, where none has begun one, by zeros up to the block's end: what a file held that is used
    /// again is not to stand behind the frame, nor to be read in before the block is written.
    pub(super) fn zero_rest(&self, buf: &mut AlignedBuf, start: Lsn, end: Lsn) -> Result<()> {
        let block = u64::from(self.identity.block_bytes);
        let (begins_at, ends_at) = (start.get() & !block.wrapping_sub(1), round_up(end.get(), block));
        if ends_at.saturating_sub(begins_at) == block && begins_at != start.get() {
            return Ok(());
        }
        let bytes = usize::try_from(ends_at.saturating_sub(start.get())).unwrap_or(usize::MAX);
        buf.resize(bytes).map_err(|e| Error::Full { what: "a frame in memory", source: Some(Arc::new(e)) })
    }

    /// Completes a frame in memory, up to `end`: padding, header, checksum, and its place in the chain.
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
