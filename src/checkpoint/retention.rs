//! What may be deleted: snapshots that the manifest does not name, and segments below the log's
//! start.

use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SNAPSHOTS_KEPT, SnapshotEntry};
use crate::ids::Lsn;
use crate::io::sync::{Arc, AtomicU64, Ordering};
use crate::io::{OpenMode, Storage};
use crate::store::layout::{self, FileName};
use crate::wal::Log;

/// The size of the segments that an open deletes at most, if there is more than one. An open must
/// not wait for the deletion of a large log.
const BYTES_PER_OPEN: u64 = 16 << 20;

/// How the space of an unlinked snapshot is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unlink {
    /// In small steps, so that commits beside it get the device.
    Gradually,
    /// By the maintenance thread, later.
    Deferred,
    /// At once.
    AtOnce,
}

/// Counts those that read snapshots of an open store. While there are any, no snapshot is deleted.
#[derive(Default)]
pub(super) struct SnapshotReaders(AtomicU64);

impl SnapshotReaders {
    /// Keeps the snapshots that the manifest names from now on, until the result is dropped.
    pub(super) fn begin(&self) -> SnapshotReader<'_> {
        self.0.fetch_add(1, Ordering::AcqRel);
        SnapshotReader(&self.0)
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

pub(super) struct SnapshotReader<'a>(&'a AtomicU64);

impl Drop for SnapshotReader<'_> {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a reader ends once");
    }
}

/// The snapshots to keep when there is a new one, the newest first.
pub(super) fn kept(newest: SnapshotEntry, before: Vec<SnapshotEntry>) -> Vec<SnapshotEntry> {
    let mut snapshots = vec![newest];
    snapshots.extend(before.into_iter().take(SNAPSHOTS_KEPT.saturating_sub(1)));
    snapshots
}

/// The LSN at which the log must begin for these snapshots. `None` keeps the current start: with
/// only one snapshot, the log from its beginning is the fallback for a damaged snapshot.
pub(super) fn log_start(snapshots: &[SnapshotEntry]) -> Option<Lsn> {
    match snapshots {
        [_, .., older] => Some(older.lsn),
        _ => None,
    }
}

/// Deletes the segments and snapshots that the published manifest does not need. When it returns,
/// the deletions survive power loss; the space of deferred files is freed later. Snapshots stay
/// while there are readers.
///
/// # Errors
/// I/O errors. The next checkpoint deletes what is left.
pub(super) fn give_up_unneeded(
    storage: &Arc<dyn Storage>,
    log: &Log,
    readers: &SnapshotReaders,
    unlink: Unlink,
) -> Result<()> {
    let manifest = log.manifest();
    log.recycle_below(manifest.needed_from())?;
    remove_unneeded_snapshots(storage, log, readers, &manifest, unlink)
}

/// As [`give_up_unneeded`], but deletes only a few of the segments. The oldest go first. If no
/// segment is left over, it does not look for snapshots.
///
/// # Errors
/// I/O errors.
pub(super) fn give_up_some_unneeded(storage: &Arc<dyn Storage>, log: &Log, readers: &SnapshotReaders) -> Result<()> {
    let manifest = log.manifest();
    if log.recycle_some_below(manifest.needed_from(), BYTES_PER_OPEN)? == 0 {
        return Ok(());
    }
    remove_unneeded_snapshots(storage, log, readers, &manifest, Unlink::Deferred)
}

fn remove_unneeded_snapshots(
    storage: &Arc<dyn Storage>,
    log: &Log,
    readers: &SnapshotReaders,
    manifest: &Manifest,
    unlink: Unlink,
) -> Result<()> {
    // a reader that begins after this reads a manifest that names nothing of what is deleted here
    if !readers.is_empty() {
        return Ok(());
    }
    let mut removed = false;
    for name in storage.list_files()? {
        if !is_unneeded_snapshot(&name, manifest) {
            continue;
        }
        // the space of a file that cannot be opened is freed at once
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
