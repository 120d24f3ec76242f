//! What may be deleted: snapshots that the manifest does not name, and segments below the log's start.

use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SNAPSHOTS_KEPT, SnapshotEntry};
use crate::ids::Lsn;
use crate::io::sync::Arc;
use crate::io::{OpenMode, Storage};
use crate::store::layout::{self, FileName};
use crate::wal::Log;

/// How the space of a snapshot that was unlinked is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unlink {
    /// In small steps, so that commits beside it get the device.
    Gradually,
    /// By the maintenance thread, later.
    Deferred,
    /// At once.
    AtOnce,
}

/// The snapshots to keep when there is a new one, the newest first.
pub(super) fn kept(newest: SnapshotEntry, before: Vec<SnapshotEntry>) -> Vec<SnapshotEntry> {
    let mut snapshots = vec![newest];
    snapshots.extend(before.into_iter().take(SNAPSHOTS_KEPT.saturating_sub(1)));
    snapshots
}

/// Where the log must begin for these snapshots, if it may begin later than it does: while there is one snapshot only, the log from
/// its beginning stands in for a second one.
pub(super) fn log_start(snapshots: &[SnapshotEntry]) -> Option<Lsn> {
    match snapshots {
        [_, .., older] => Some(older.lsn),
        _ => None,
    }
}

/// Gives up the segments and snapshots that the published manifest does not need. When it returns, that survives power loss, but for
/// space that is freed later.
///
/// # Errors
/// I/O errors; what is left is given up after the next checkpoint.
pub(super) fn give_up_unneeded(storage: &Arc<dyn Storage>, log: &Log, unlink: Unlink) -> Result<()> {
    let manifest = log.manifest();
    log.recycle_below(manifest.log_start)?;
    let mut removed = false;
    for name in storage.list_files()? {
        if !is_unneeded_snapshot(&name, &manifest) {
            continue;
        }
        // a file that cannot be opened is freed at once
        let file = (unlink == Unlink::Deferred).then(|| storage.open(&name, OpenMode::Read).ok()).flatten();
        let result = match unlink {
            Unlink::Gradually => storage.remove_gradually(&name),
            Unlink::Deferred | Unlink::AtOnce => storage.remove(&name),
        };
        result.map_err(|e| Error::io("remove", storage.path(&name), e))?;
        file.into_iter().for_each(|file| log.deferred_unlinks().defer(file));
        removed = true;
    }
    if removed { storage.sync_names() } else { Ok(()) }
}

fn is_unneeded_snapshot(name: &str, manifest: &Manifest) -> bool {
    match layout::parse(name) {
        FileName::Snapshot { lsn } => !manifest.snapshots.iter().any(|s| s.lsn == lsn),
        _ => false,
    }
}
