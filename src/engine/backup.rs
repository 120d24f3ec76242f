//! Backups: a view, written as a new and complete store.

use super::Engine;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::snapshot::SnapshotHeader;
use crate::format::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::machine::StateMachine;
use crate::storage::{Create, DiskStorage, Storage};
use crate::sync::Arc;
use crate::txn::Table;
use crate::wal::attach::{Access, Attached};
use crate::wal::root::Root;
use std::path::Path;

pub(super) fn to_dir<M: StateMachine>(engine: &Engine<M>, dir: &Path) -> Result<()> {
    let storage = DiskStorage::open(dir, Create::IfMissing).map_err(|e| Error::io("open", dir.into(), e))?;
    to_storage(engine, Arc::new(storage))
}

/// The manifest is written last: before that, opening the directory says that the backup was cut off.
pub(super) fn to_storage<M: StateMachine>(engine: &Engine<M>, storage: Arc<dyn Storage>) -> Result<()> {
    let attached = Attached::new(storage.clone(), Access::ReadWrite)?;
    if !attached.is_new() {
        return Err(Error::invalid(format!("{} holds a store already", storage.path("").display())));
    }
    let view = engine.view()?;
    attached.remove_unfinished()?;
    let store = StoreId::new(storage.random());
    let machine = MachineTag { name: M::NAME.into(), version: M::VERSION };
    let block_bytes = storage.block_bytes();
    // never where the log of a new store begins: without a manifest, that would pass for the empty state's LSN
    let lsn = Lsn::new(u64::from(block_bytes).saturating_mul(2));
    let wall_micros = storage.wall_clock_micros();
    let header = SnapshotHeader { store, lsn, epoch: Epoch::new(0), wall_micros, machine: machine.clone() };
    let entry = crate::snapshot::write(&*storage, &header, view.into_inner(), &Table::default(), &mut |_| Ok(()))?;
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
    Root::create(storage, manifest).map(|_| ())
}
