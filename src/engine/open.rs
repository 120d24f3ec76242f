//! Opening an engine: on a directory, or on a storage of the caller's own.

use super::Engine;
use crate::error::{Error, Result};
use crate::io::sync::Arc;
use crate::io::{Create, DiskStorage, Storage};
use crate::machine::StateMachine;
use crate::options::{Options, RecoveryPolicy};
use std::path::Path;

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
