//! Opens a store directory: locks it, syncs and lists its files, and reads its manifest.
//!
//! Recovery must rest on what the device holds. The page cache may remember writes of a process
//! that was killed, or of a sync that failed. So every file is synced first and then read around
//! the cache.

use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SNAPSHOTS_KEPT, SnapshotEntry};
use crate::ids::{Epoch, Lsn, MAX_MACHINE_NAME_BYTES, MachineTag, SegmentId, StoreId};
use crate::io::deadline::pauses;
use crate::io::sync::Arc;
use crate::io::{DirectoryLock, File, LockMode, NamedFile, OpenMode, Storage};
use crate::store::layout as names;
use crate::store::layout::FileName;
use crate::store::manifest_file::{Copies, ManifestFile, read_copies};
use std::path::PathBuf;
use std::time::Duration;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To append to it, under an exclusive lock.
    ReadWrite,
    /// To read it, under a shared lock: nothing on disk changes.
    ReadOnly,
}

/// A segment file, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) id: SegmentId,
    pub(crate) base: Lsn,
}

/// A preallocated segment file.
#[derive(Clone)]
pub(crate) struct PreallocatedSegment {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) file_bytes: u64,
    /// The file, open for writing, so that a log without descriptors can still rotate. `None` if
    /// that was not possible; it is opened when it is needed then.
    pub(crate) file: Option<Arc<dyn File>>,
}

/// What a new manifest is made of where no whole copy of the old one is left.
#[derive(Clone, Debug)]
pub(crate) struct ManifestStandIn {
    pub(crate) store: StoreId,
    pub(crate) block_bytes: u32,
    pub(crate) log_start: Lsn,
    /// Where the state was empty, if the log goes back to that place.
    pub(crate) origin: Option<Lsn>,
    /// The snapshots that are known to belong to this log, newest first.
    pub(crate) snapshots: Vec<SnapshotEntry>,
}

/// A locked store and what its directory holds.
pub(crate) struct StoreDir {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) lock: Option<Box<dyn DirectoryLock>>,
    /// By id, lowest first.
    pub(crate) segments: Vec<SegmentFile>,
    pub(crate) preallocated: Vec<PreallocatedSegment>,
    /// LSNs, newest first.
    pub(crate) snapshots: Vec<Lsn>,
    /// Names of files that this crate did not create.
    pub(crate) foreign: Vec<String>,
    /// Names of temporary files that a crash left behind.
    unfinished: Vec<String>,
    pub(crate) manifest: Option<Manifest>,
    /// What is wrong with each damaged copy of the manifest.
    pub(crate) manifest_faults: Vec<Error>,
    /// The place of the current manifest among its copies.
    manifest_slot: usize,
    /// The names of the manifest's copies that are not on disk.
    pub(crate) manifests_missing: Vec<&'static str>,
}

impl StoreDir {
    /// Locks the store, syncs its files and reads the manifest. It waits up to `lock_wait` for the
    /// lock. [`Access::ReadOnly`] writes nothing.
    ///
    /// # Errors
    /// [`Error::Locked`]; [`Error::Corrupt`] where a store has lost its manifest and all its segments;
    /// [`Error::UnsupportedVersion`] for a manifest of a newer program; I/O errors.
    pub(crate) fn new(storage: Arc<dyn Storage>, access: Access, lock_wait: Duration) -> Result<StoreDir> {
        let (store_dir, lost) = Self::read(storage, access, lock_wait)?;
        lost.map_or(Ok(store_dir), Err)
    }

    /// Like [`StoreDir::new`] with [`Access::ReadWrite`], but also accepts what an interrupted
    /// backup left.
    pub(crate) fn for_backup(storage: Arc<dyn Storage>, lock_wait: Duration) -> Result<StoreDir> {
        let (store_dir, lost) = Self::read(storage, Access::ReadWrite, lock_wait)?;
        let lost = lost.filter(|_| !store_dir.is_interrupted_backup());
        lost.map_or(Ok(store_dir), Err)
    }

    /// Like [`StoreDir::new`] with [`Access::ReadOnly`], but also accepts a store that has lost its
    /// manifest and its segments. The second result is the error that `new` would have returned.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn for_salvage(storage: Arc<dyn Storage>) -> Result<(StoreDir, Option<Error>)> {
        Self::read(storage, Access::ReadOnly, Duration::ZERO)
    }

    /// Reads the directory. The second result says what is wrong where a store has lost its
    /// manifest and its segments.
    fn read(storage: Arc<dyn Storage>, access: Access, lock_wait: Duration) -> Result<(StoreDir, Option<Error>)> {
        let lock = take_lock(&*storage, access, lock_wait)?;
        let mut names = storage.list_files()?;
        names.extend(storage.list_misnamed_directories()?);
        names.sort_unstable();
        if access == Access::ReadWrite {
            make_durable(&*storage, &names)?;
        }
        let Copies { current, slot, faults, missing } = read_copies(&*storage, &names)?;
        let has_manifest = missing.len() < names::MANIFESTS.len();
        let mut store_dir = StoreDir {
            lock: Some(lock),
            segments: Vec::new(),
            preallocated: Vec::new(),
            snapshots: Vec::new(),
            foreign: Vec::new(),
            unfinished: Vec::new(),
            manifest: current,
            manifest_faults: faults,
            manifest_slot: slot,
            manifests_missing: missing,
            storage,
        };
        for name in names {
            store_dir.classify(name)?;
        }
        store_dir.segments.sort_by_key(|s| (s.id, s.base));
        store_dir.snapshots.sort_by(|a, b| b.cmp(a));
        let is_lost = store_dir.manifest.is_none()
            && store_dir.segments.is_empty()
            && (has_manifest || !store_dir.snapshots.is_empty());
        let lost = if store_dir.is_interrupted_backup() {
            let reason = "an interrupted backup, whose manifest is missing; repeat the backup";
            Some(Error::corrupt_as_a_whole(store_dir.storage.path(""), None, reason))
        } else {
            is_lost.then(|| {
                let fault = store_dir.manifest_faults.pop();
                fault.unwrap_or_else(|| {
                    let reason = "snapshots without a manifest or segments: an interrupted backup, or lost files";
                    Error::corrupt_as_a_whole(store_dir.storage.path(""), None, reason)
                })
            })
        };
        Ok((store_dir, lost))
    }

    /// Whether the directory holds files of a backup that was interrupted before its manifest was
    /// written. The mark beside them distinguishes them from what a damaged store has left. The
    /// segments alone would otherwise pass for a store with a shorter log.
    fn is_interrupted_backup(&self) -> bool {
        let Some(lsn) = self.unfinished.iter().find_map(|name| names::parse_backup_mark(name)) else { return false };
        let is_of_it = self.snapshots.iter().all(|snapshot| *snapshot == lsn);
        let has_files = !self.snapshots.is_empty() || !self.segments.is_empty();
        is_of_it && has_files && self.manifests_missing.len() == names::MANIFESTS.len()
    }

    /// Whether a backup may write to the directory: it holds no store, or an interrupted backup.
    pub(crate) fn may_take_backup(&self) -> bool {
        self.is_new() || self.is_interrupted_backup()
    }

    /// Removes what an interrupted backup left. The mark is removed last.
    pub(crate) fn clear_for_backup(&self) -> Result<()> {
        if self.is_interrupted_backup() {
            self.snapshots.iter().try_for_each(|lsn| self.storage.remove_file(&names::snapshot(*lsn)))?;
            self.segments.iter().try_for_each(|segment| self.storage.remove_file(&segment.name))?;
            self.storage.sync_names()?;
        }
        self.remove_unfinished()
    }

    /// A view of the segments of a store that is already open.
    pub(crate) fn listed(storage: Arc<dyn Storage>, segments: Vec<SegmentFile>, manifest: Manifest) -> StoreDir {
        StoreDir {
            storage,
            lock: None,
            segments,
            preallocated: Vec::new(),
            snapshots: Vec::new(),
            foreign: Vec::new(),
            unfinished: Vec::new(),
            manifest: Some(manifest),
            manifest_faults: Vec::new(),
            manifest_slot: 0,
            manifests_missing: Vec::new(),
        }
    }

    /// Whether the directory holds no store yet.
    pub(crate) fn is_new(&self) -> bool {
        self.manifest.is_none() && self.segments.is_empty()
    }

    /// Removes the temporary files that a crash left. Recovery calls it only once the store is
    /// certain to open.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        self.unfinished.iter().try_for_each(|name| self.storage.remove_file(name))
    }

    /// The path of the manifest's current copy.
    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.storage.path(names::MANIFESTS.get(self.manifest_slot).copied().unwrap_or_default())
    }

    /// Removes unfinished files and opens the manifest for publication. Without a manifest, it
    /// makes one of `stand_in`, or creates that of a new store. A created manifest survives power
    /// loss when this returns.
    pub(crate) fn open_manifest(
        &self,
        machine: &MachineTag,
        stand_in: Option<ManifestStandIn>,
    ) -> Result<ManifestFile> {
        if machine.name.len() > MAX_MACHINE_NAME_BYTES {
            return Err(Error::invalid(format!("a machine's name is at most {MAX_MACHINE_NAME_BYTES} bytes long")));
        }
        self.remove_unfinished()?;
        let storage = self.storage.clone();
        if let Some(manifest) = &self.manifest {
            return ManifestFile::open(storage, manifest.clone(), self.manifest_slot);
        }
        let is_new = stand_in.is_none();
        let manifest = self.first_manifest(machine, stand_in);
        if is_new { ManifestFile::create(storage, manifest) } else { ManifestFile::open(storage, manifest, 0) }
    }

    /// The manifest of a store that has none: made of `stand_in`, or that of a new store.
    pub(crate) fn first_manifest(&self, machine: &MachineTag, stand_in: Option<ManifestStandIn>) -> Manifest {
        let block_bytes = self.storage.block_bytes();
        // the first frame lies behind the first segment's header
        let first = Lsn::new(u64::from(block_bytes));
        let new = Manifest {
            counter: 0,
            store: StoreId::new(self.storage.random()),
            epoch: Epoch::new(0),
            log_start: first,
            watermark: Lsn::ZERO,
            clean_end: Lsn::ZERO,
            segment: SegmentId::new(0),
            origin: first,
            block_bytes,
            machine: machine.clone(),
            snapshots: Vec::new(),
            shape: Vec::new(),
        };
        let Some(found) = stand_in else { return new };
        let ManifestStandIn { store, block_bytes, log_start, origin, mut snapshots } = found;
        snapshots.truncate(SNAPSHOTS_KEPT);
        let origin = origin.unwrap_or(Lsn::ZERO);
        Manifest { store, block_bytes, log_start, origin, snapshots, ..new }
    }

    fn classify(&mut self, name: String) -> Result<()> {
        match names::parse(&name) {
            FileName::Lock | FileName::Manifest => {}
            FileName::Segment { id, base } => self.segments.push(SegmentFile { name, id, base }),
            FileName::Preallocated { number } => {
                let file_bytes = NamedFile::open(&*self.storage, &name, OpenMode::Read)?.len()?;
                self.preallocated.push(PreallocatedSegment { name, number, file_bytes, file: None });
            }
            FileName::Snapshot { lsn } => self.snapshots.push(lsn),
            FileName::Temp => self.unfinished.push(name),
            FileName::Foreign => self.foreign.push(name),
        }
        Ok(())
    }
}

impl dyn Storage {
    /// The names of sub-directories that are names of this store's files. Opening one is an error
    /// that names it; a directory must not pass for a file that is missing.
    fn list_misnamed_directories(&self) -> Result<Vec<String>> {
        let mut names = self.list_directories().map_err(|e| Error::io("list", self.path(""), e))?;
        names.retain(|name| names::parse(name) != FileName::Foreign);
        Ok(names)
    }
}

fn take_lock(storage: &dyn Storage, access: Access, lock_wait: Duration) -> Result<Box<dyn DirectoryLock>> {
    let mode = match access {
        Access::ReadWrite => LockMode::Exclusive,
        Access::ReadOnly => LockMode::Shared,
    };
    // without a wait of the caller's, the storage may have one of its own
    let locked = match lock_wait {
        Duration::ZERO => storage.lock(mode),
        _ => storage.lock_when_free(mode, &mut pauses(storage, lock_wait)),
    };
    locked.map_err(|e| {
        if e.kind() == std::io::ErrorKind::WouldBlock {
            Error::Locked { path: storage.path(""), holder: Some(e.to_string()).filter(|s| !s.is_empty()) }
        } else {
            Error::io("lock", storage.path(""), e)
        }
    })
}

/// Syncs every file that recovery may read, then the directory. A killed process may have left its
/// last writes and renames in the page cache, and recovery must not depend on those.
fn make_durable(storage: &dyn Storage, present: &[String]) -> Result<()> {
    for name in present {
        if let FileName::Manifest | FileName::Segment { .. } | FileName::Snapshot { .. } = names::parse(name) {
            NamedFile::open(storage, name, OpenMode::ReadWrite)?.sync_all()?;
        }
    }
    storage.sync_names()
}
