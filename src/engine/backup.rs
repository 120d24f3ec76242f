//! Backups: a committed state, written as a new and complete store.

use super::shared::Shared;
use super::view::View;
use crate::error::{Error, Result};
use crate::io::sync::Arc;
use crate::io::{Create, DiskStorage, Storage};
use crate::machine::{SnapshotSource, StateMachine};
use crate::store::create::NewStore;
use crate::wal::{Level, Log};
use crate::{recovery, snapshot};
use std::path::Path;

pub(super) fn to_dir<M: StateMachine>(shared: &Shared<M>, dir: &Path) -> Result<()> {
    shared.core.check_not_held()?;
    let storage = DiskStorage::open(dir, Create::IfMissing).map_err(|e| Error::io("open", dir.into(), e))?;
    to_storage(shared, Arc::new(storage))
}

pub(super) fn to_storage<M: StateMachine>(shared: &Shared<M>, storage: Arc<dyn Storage>) -> Result<()> {
    shared.core.check_not_held()?;
    let place = NewStore::claim(storage, shared.options.log.lock_wait)?;
    let help = (&shared.options).into();
    // as in this store, so that both are open to the same programs
    let known = shared.log.as_ref().map_or(Vec::new(), |log| log.manifest().shape);
    snapshot::write_as_store(place, committed_state(shared)?, M::shape(&known), help)
}

fn committed_state<M: StateMachine>(shared: &Shared<M>) -> Result<M> {
    match (M::SNAPSHOT_SOURCE, &shared.log) {
        (SnapshotSource::Replay, Some(log)) if log.check_latch().is_ok() => rebuilt(shared, log),
        // where no commit is accepted, no commit waits for a clone
        (SnapshotSource::Replay, _) | (SnapshotSource::Clone, _) => Ok(View::take_hardened(shared)?.into_inner()),
    }
}

/// The committed state of this moment, rebuilt from the newest snapshot and the log.
fn rebuilt<M: StateMachine>(shared: &Shared<M>, log: &Log) -> Result<M> {
    shared.core.check()?;
    let upto = if log.has_entered() || log.appended().0 > 0 {
        let end = log.seal()?;
        log.wait(end, Level::Durable)?;
        end
    } else {
        // on a full disk this open may not have a segment yet
        log.end_of_earlier_segments()
    };
    let _snapshots = shared.checkpointer.keep_snapshots();
    let check = || shared.core.check();
    let help = (&shared.options).into();
    let rebuilt = recovery::rebuild_committed(log, upto, (help, shared.options.redo_memory_bytes), &check);
    // the files of a closed store are another owner's
    rebuilt.map_err(|error| shared.core.check().err().unwrap_or(error))
}
