//! Whether an open store still owns its directory.
//!
//! The lock keeps other owners out. It cannot keep an operator from replacing the directory or the
//! lock file under its owner. The owner therefore checks before it publishes anything, and a leader
//! of group commit checks once per [`CHECK_INTERVAL`]. An idle store acknowledges nothing, so it
//! needs no check and no timer.

use crate::error::{Error, Result};
use crate::io::sync::{Arc, Mutex};
use crate::io::{DirectoryLock, Storage};
use std::time::Duration;

/// Bounds how long commits are acknowledged after the ownership was lost. A check takes three
/// system calls, so one per second costs nothing that can be measured.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The lock of an open store.
pub(crate) struct Ownership {
    storage: Arc<dyn Storage>,
    /// `None` once the store was closed.
    lock: Mutex<Option<Box<dyn DirectoryLock>>>,
}

impl Ownership {
    pub(crate) fn new(storage: Arc<dyn Storage>, lock: Option<Box<dyn DirectoryLock>>) -> Ownership {
        Ownership { storage, lock: Mutex::new(lock) }
    }

    /// # Errors
    /// [`Error::Io`] if the directory or its lock file was replaced or removed.
    pub(crate) fn check(&self) -> Result<()> {
        let lock = self.lock.lock();
        let Some(lock) = &*lock else { return Ok(()) };
        lock.check().map_err(|e| Error::io("keep the ownership of", self.storage.path(""), e))
    }

    /// Unlocks the directory for the next owner.
    pub(crate) fn release(&self) {
        *self.lock.lock() = None;
    }
}
