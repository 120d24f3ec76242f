//! Backups: a view, written as a new and complete store.

use super::shared::Shared;
use super::view::View;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::snapshot::SnapshotHeader;
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::io::sync::Arc;
use crate::io::{Create, DiskStorage, OpenMode, Storage};
use crate::machine::StateMachine;
use crate::snapshot::{self, Help, Unpaced};
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::{StoreDir, backup_mark};
use crate::txn::ActiveTransactions;
use std::path::Path;

pub(super) fn to_dir<M: StateMachine>(shared: &Shared<M>, dir: &Path) -> Result<()> {
    let storage = DiskStorage::open(dir, Create::IfMissing).map_err(|e| Error::io("open", dir.into(), e))?;
    to_storage(shared, Arc::new(storage))
}

pub(super) fn to_storage<M: StateMachine>(shared: &Shared<M>, storage: Arc<dyn Storage>) -> Result<()> {
    let place = NewStore::claim(storage)?;
    let help = shared.options.log.background.into();
    place.write(View::take_hardened(shared)?.into_inner(), help)
}

/// A locked directory that holds no store yet.
pub(crate) struct NewStore(StoreDir);

impl NewStore {
    /// Locks it. Nothing but a lock file is written.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is a store already; [`Error::Locked`], I/O errors.
    pub(crate) fn claim(storage: Arc<dyn Storage>) -> Result<NewStore> {
        let store_dir = StoreDir::for_backup(storage)?;
        if !store_dir.is_new() {
            return Err(Error::invalid(format!("{} holds a store already", store_dir.storage.path("").display())));
        }
        Ok(NewStore(store_dir))
    }

    /// Writes a state as a store that was closed. The manifest is written last: before that, opening the directory says that
    /// the backup was cut off. A mark, durable from before the snapshot has its name until after the manifest is there, allows
    /// another attempt to take the directory over.
    pub(crate) fn write<M: StateMachine>(self, state: M, help: Help) -> Result<()> {
        let storage = self.0.storage.clone();
        self.0.clear_for_backup()?;
        let store = StoreId::new(storage.random());
        let machine = MachineTag { name: M::NAME.into(), version: M::VERSION };
        let block_bytes = storage.block_bytes();
        // never where the log of a new store begins: without a manifest, that would pass for the empty state's LSN
        let lsn = Lsn::new(u64::from(block_bytes).saturating_mul(2));
        let wall_micros = storage.wall_clock_micros();
        let mark = backup_mark(lsn);
        let io = |operation, e| Error::io(operation, storage.path(&mark), e);
        storage.open(&mark, OpenMode::CreateNew).map_err(|e| io("create", e))?;
        storage.sync_dir().map_err(|e| io("sync", e))?;
        let header = SnapshotHeader { store, lsn, epoch: Epoch::new(0), wall_micros, machine: machine.clone() };
        let entry = snapshot::write(&*storage, &header, state, &ActiveTransactions::default(), help, &mut Unpaced)?;
        let manifest = Manifest {
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
        };
        ManifestFile::create(storage.clone(), manifest)?;
        storage.remove(&mark).map_err(|e| io("remove", e))?;
        storage.sync_dir().map_err(|e| io("sync", e))
    }
}
