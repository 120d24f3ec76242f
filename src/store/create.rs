//! Creating a store that begins with a state: a backup, or what a salvage has saved.

use super::layout::backup_mark;
use super::manifest_file::ManifestFile;
use super::open_dir::StoreDir;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SnapshotEntry};
use crate::format::snapshot::SnapshotHeader;
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::io::sync::Arc;
use crate::io::{OpenMode, Storage};
use std::time::Duration;

/// A locked directory that holds no store yet.
pub(crate) struct NewStore(StoreDir);

impl NewStore {
    /// Locks it, and waits up to `lock_wait` for that. Nothing but a lock file is written.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is a store already; [`Error::Locked`], I/O errors.
    pub(crate) fn claim(storage: Arc<dyn Storage>, lock_wait: Duration) -> Result<NewStore> {
        let store_dir = StoreDir::for_backup(storage, lock_wait)?;
        if !store_dir.may_take_backup() {
            return Err(Error::invalid(format!("{} holds a store already", store_dir.storage.path("").display())));
        }
        Ok(NewStore(store_dir))
    }

    /// Makes the directory a store that was closed. `write_snapshot` writes the state under the
    /// header that it gets.
    pub(crate) fn create(
        self,
        machine: MachineTag,
        shape: Vec<u8>,
        write_snapshot: impl FnOnce(&dyn Storage, &SnapshotHeader) -> Result<SnapshotEntry>,
    ) -> Result<()> {
        let storage = self.0.storage.clone();
        let store = StoreId::new(storage.random());
        let block_bytes = storage.block_bytes();
        // never where the log of a new store begins: without a manifest, that would pass for the
        // empty state's LSN
        let lsn = Lsn::new(u64::from(block_bytes).saturating_mul(2));
        let wall_micros = storage.wall_clock_micros();
        let header = SnapshotHeader { store, lsn, epoch: Epoch::new(0), wall_micros, machine: machine.clone() };
        self.create_from_files(lsn, |storage| {
            let entry = write_snapshot(&**storage, &header)?;
            Ok(Manifest {
                counter: 0,
                store,
                epoch: Epoch::new(0),
                log_start: lsn,
                watermark: Lsn::ZERO,
                clean_end: lsn,
                segment: SegmentId::new(0),
                origin: Lsn::ZERO,
                block_bytes,
                machine,
                snapshots: vec![entry],
                shape,
            })
        })
    }

    /// Makes the directory a store of files that `write_files` writes. When that returns the
    /// manifest to publish, the files and their names survive power loss. The store's state begins
    /// at `start`.
    ///
    /// The manifest is written last: before that, opening the directory reports an interrupted
    /// backup. An empty mark file allows another attempt to take the directory over. The mark is
    /// durable before any file has its name, and is removed after the manifest is there.
    pub(crate) fn create_from_files(
        self,
        start: Lsn,
        write_files: impl FnOnce(&Arc<dyn Storage>) -> Result<Manifest>,
    ) -> Result<()> {
        let storage = self.0.storage.clone();
        self.0.clear_for_backup()?;
        let mark = backup_mark(start);
        let io = |operation, e| Error::io(operation, storage.path(&mark), e);
        storage.open(&mark, OpenMode::CreateNew).map_err(|e| io("create", e))?;
        storage.sync_dir().map_err(|e| io("sync", e))?;
        let manifest = write_files(&storage)?;
        ManifestFile::create(storage.clone(), manifest)?;
        storage.remove(&mark).map_err(|e| io("remove", e))?;
        storage.sync_dir().map_err(|e| io("sync", e))
    }
}
