//! Looking at a store from outside: what lies in its directory, and whether all of it is whole.
//!
//! Everything here opens a store to read, under a shared lock, and writes nothing: not the cut of a torn tail, not the undo.
//! It works on the store of any machine; only the replay of commands needs the machine itself.
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

mod survey;
#[cfg(test)]
mod tests;
mod text;
mod verify;

pub use survey::{SegmentFigures, SnapshotFigures, Survey, survey};
pub use text::{Detail, write_text};
pub use verify::{Depth, Finding, Severity, Soundness, VerifyReport, verify, verify_machine};

use crate::error::{Error, Result};
use crate::format::MachineTag;
use crate::storage::{Create, DiskStorage, Storage};
use crate::sync::Arc;
use crate::wal::attach::{Access, Attached};
use crate::wal::segments::OpenSegment;
use std::path::Path;

/// A directory to look at. It is not created if it is not there.
///
/// # Errors
/// [`Error::NotAStore`] if there is no such directory, and I/O errors.
pub fn storage(dir: impl AsRef<Path>) -> Result<Arc<dyn Storage>> {
    let dir = dir.as_ref();
    let storage = DiskStorage::open(dir, Create::Never).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotAStore { path: dir.into(), reason: "there is no such directory".into() }
        }
        _ => Error::io("open", dir.into(), e),
    })?;
    Ok(Arc::new(storage))
}

/// Locks and lists a store to look at it.
fn attach(storage: Arc<dyn Storage>) -> Result<Attached> {
    let attached = Attached::new(storage, Access::ReadOnly)?;
    if attached.is_new() {
        let path = attached.storage.path("");
        return Err(Error::NotAStore { path, reason: "it holds neither a manifest nor a segment".into() });
    }
    Ok(attached)
}

/// Which machine the store belongs to: what the manifest says, else the oldest segment that can be read.
fn machine_of(attached: &Attached) -> Option<MachineTag> {
    if let Some(manifest) = &attached.manifest {
        return Some(manifest.machine.clone());
    }
    let mut headers = attached.segments.iter().map(|file| OpenSegment::open(&*attached.storage, file));
    headers.find_map(|segment| segment.ok().map(|segment| segment.header.machine))
}
