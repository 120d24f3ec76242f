//! Read-only tools: list the files of a store, show them as text, verify them, and copy them.
//!
//! Every function here takes a shared lock and writes nothing to the store: it neither cuts a torn
//! tail nor undoes transactions. It works on the store of any machine; only the replay of commands
//! needs the machine.
//!
//! Requires the feature `inspect`.
//!
//! ```
//! use seawal::inspect::{self, Depth, Soundness};
//! use seawal::{Engine, kv::Kv};
//!
//! let dir = tempfile::tempdir()?;
//! let store = Engine::<Kv>::open(dir.path())?;
//! store.insert("key", "value")?;
//! store.close()?;
//!
//! let report = inspect::verify(inspect::storage(dir.path())?)?;
//! assert_eq!(report.soundness(), Soundness::Clean);
//! assert_eq!(report.depth, Depth::Replayed);
//!
//! let mut text = Vec::new();
//! inspect::write_text(inspect::storage(dir.path())?, inspect::Detail::Records, &mut text)?;
//! assert!(String::from_utf8(text)?.contains("segment 1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)]

mod backup;
mod survey;
#[cfg(test)]
mod tests;
mod text;
mod verify;

pub use backup::{BackupReport, backup};
pub use survey::{SegmentFigures, SnapshotFigures, Survey, survey};
pub use text::{Detail, write_text};
pub use verify::{Depth, Finding, Severity, Soundness, VerifyReport, verify, verify_machine};

use crate::error::{Error, Result};
use crate::ids::MachineTag;
use crate::io::sync::Arc;
use crate::io::{Create, DiskStorage, Storage};
use crate::store::open_dir::{Access, StoreDir};
use crate::wal::scan::Segment;
use std::path::Path;
use std::time::Duration;

/// Opens a directory for inspection. It is not created if it does not exist.
///
/// # Errors
/// [`Error::NotAStore`] if there is no such directory, and I/O errors.
pub fn storage(dir: impl AsRef<Path>) -> Result<Arc<dyn Storage>> {
    storage_within(dir, Duration::ZERO)
}

/// Like [`storage`], but its lock waits so long for an owner to end.
///
/// # Errors
/// As [`storage`].
pub fn storage_within(dir: impl AsRef<Path>, lock_wait: Duration) -> Result<Arc<dyn Storage>> {
    let dir = dir.as_ref();
    let storage = DiskStorage::open(dir, Create::Never).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotAStore { path: dir.into(), reason: "the directory does not exist".into() }
        }
        _ => Error::io("open", dir.into(), e),
    })?;
    Ok(Arc::new(storage.with_lock_wait(lock_wait)))
}

/// Takes a shared lock on a store and lists its files.
fn attach(storage: Arc<dyn Storage>) -> Result<StoreDir> {
    let store_dir = StoreDir::new(storage, Access::ReadOnly, Duration::ZERO)?;
    if store_dir.is_new() {
        let path = store_dir.storage.path("");
        return Err(Error::NotAStore { path, reason: "the directory has neither a manifest nor a segment".into() });
    }
    Ok(store_dir)
}

/// The machine that the store belongs to, from the manifest or else from the oldest readable
/// segment.
fn machine_of(store_dir: &StoreDir) -> Option<MachineTag> {
    if let Some(manifest) = &store_dir.manifest {
        return Some(manifest.machine.clone());
    }
    let mut headers = store_dir.segments.iter().map(|file| Segment::read(&*store_dir.storage, file));
    headers.find_map(|segment| segment.ok().map(|segment| segment.header.machine))
}
