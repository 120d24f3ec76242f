//! Opening an engine: on a directory, or on a storage of the caller's own.

use super::Engine;
use crate::error::{Error, Result};
use crate::io::sync::Arc;
use crate::io::{Create, Directory, DiskStorage, Storage};
use crate::machine::StateMachine;
use crate::options::{Options, RecoveryPolicy};
use crate::store::layout;
use std::path::Path;

/// Refuses a directory without any file of a store before the lock leaves its file there. If `LOCK`
/// is there, another owner may be creating the store, so the lock decides.
fn check_holds_something(storage: &DiskStorage) -> Result<()> {
    let path = storage.path("");
    let names = storage.list().and_then(|files| Ok([files, storage.list_directories()?].concat()));
    let names = names.map_err(|e| Error::io("list", path.clone(), e))?;
    let is_empty = names.iter().all(|name| layout::parse(name) == layout::FileName::Foreign);
    if is_empty && path.join("LOCK").symlink_metadata().is_err() {
        return Err(Error::NotAStore { path, reason: "it holds neither a manifest nor a segment".into() });
    }
    Ok(())
}

impl Options {
    /// Opens the store in a directory; see [`Engine::open`].
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open<M: StateMachine>(&self, dir: impl AsRef<Path>) -> Result<Engine<M>> {
        let dir = dir.as_ref();
        let create = match self.policy {
            RecoveryPolicy::Strict => self.create,
            RecoveryPolicy::ReadOnly => Create::Never,
        };
        let storage = DiskStorage::open(dir, create).map_err(|e| {
            if create == Create::Never && e.kind() == std::io::ErrorKind::NotFound {
                Error::NotAStore { path: dir.into(), reason: "there is no such directory".into() }
            } else {
                Error::io("open", dir.into(), e)
            }
        })?;
        if create == Create::Never {
            check_holds_something(&storage)?;
        }
        self.open_on(Arc::new(storage))
    }

    /// Opens the store on a storage of the caller's own, such as [`crate::sim::SimDisk`].
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_on<M: StateMachine>(&self, storage: Arc<dyn Storage>) -> Result<Engine<M>> {
        Engine::open_with(storage, self.clone())
    }
}
