//! Backups: a view of the committed state, written as a new and complete store.

use super::shared::Shared;
use super::view::View;
use crate::error::{Error, Result};
use crate::io::sync::Arc;
use crate::io::{Create, DiskStorage, Storage};
use crate::machine::StateMachine;
use crate::snapshot;
use crate::store::create::NewStore;
use std::path::Path;

pub(super) fn to_dir<M: StateMachine>(shared: &Shared<M>, dir: &Path) -> Result<()> {
    shared.core.check_not_held()?;
    let storage = DiskStorage::open(dir, Create::IfMissing).map_err(|e| Error::io("open", dir.into(), e))?;
    to_storage(shared, Arc::new(storage))
}

pub(super) fn to_storage<M: StateMachine>(shared: &Shared<M>, storage: Arc<dyn Storage>) -> Result<()> {
    shared.core.check_not_held()?;
    let place = NewStore::claim(storage)?;
    let help = shared.options.log.background.into();
    snapshot::write_as_store(place, View::take_hardened(shared)?.into_inner(), help)
}
