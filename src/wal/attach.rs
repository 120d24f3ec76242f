//! What lies in a store's directory, made safe to rely on: locked, synced, listed, its manifest read.
//!
//! Recovery must rest on what the device holds, not on what a page cache remembers of a process that was
//! killed or of a sync that failed. So everything is synced first and read around the cache afterwards.
//! It knows nothing of records.

use super::root::{Copies, read_copies};
use super::segments::OpenSegment;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::names::{self, FileName};
use crate::format::{Lsn, SegmentId};
use crate::storage::{LockMode, OpenMode, Storage, StorageLock};
use crate::sync::Arc;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To go on with it.
    ReadWrite,
    /// To look at it: nothing on disk changes.
    ReadOnly,
}

/// A segment file, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) id: SegmentId,
    pub(crate) base: Lsn,
}

/// A file written ahead of need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) file_bytes: u64,
}

/// A locked store and what its directory holds.
pub(crate) struct Attached {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) lock: Option<Box<dyn StorageLock>>,
    /// By id, lowest first.
    pub(crate) segments: Vec<SegmentFile>,
    pub(crate) spares: Vec<Spare>,
    /// LSNs, newest first.
    pub(crate) snapshots: Vec<Lsn>,
    /// Names of files that are none of the store's.
    pub(crate) foreign: Vec<String>,
    /// Names of files that a crash left unfinished.
    unfinished: Vec<String>,
    pub(crate) manifest: Option<Manifest>,
    /// What is wrong with a copy of the manifest, where one is.
    pub(crate) manifest_faults: Vec<Error>,
    /// How many copies of it are there, whole or not.
    manifests_present: usize,
}

/// The name of an empty file that lies beside the snapshot of a backup until the manifest is there. No store has a segment
/// of this number.
pub(crate) fn backup_mark(lsn: Lsn) -> String {
    names::temp(&names::segment(SegmentId::new(0), lsn))
}

impl Attached {
    /// Locks the store, makes what it holds durable and reads the manifest.
    ///
    /// With [`Access::ReadOnly`] nothing is written.
    pub(crate) fn new(storage: Arc<dyn Storage>, access: Access) -> Result<Attached> {
        let (attached, lost) = Self::gather(storage, access)?;
        lost.map_or(Ok(attached), Err)
    }

    /// As [`Attached::new`] does to go on with a store, but also where there is nothing but what an interrupted backup left.
    pub(crate) fn for_backup(storage: Arc<dyn Storage>) -> Result<Attached> {
        let (attached, lost) = Self::gather(storage, Access::ReadWrite)?;
        let lost = lost.filter(|_| attached.cut_off_backup().is_none());
        lost.map_or(Ok(attached), Err)
    }

    /// As [`Attached::new`] does to look at a store, but also where that has lost its root: then with what there is to say of it.
    #[cfg(any(test, feature = "salvage"))]
    pub(crate) fn for_salvage(storage: Arc<dyn Storage>) -> Result<(Attached, Option<Error>)> {
        Self::gather(storage, Access::ReadOnly)
    }

    /// What is there, and what to say where a store was there that has lost its root.
    fn gather(storage: Arc<dyn Storage>, access: Access) -> Result<(Attached, Option<Error>)> {
        let lock = take_lock(&*storage, access)?;
        let dir = |operation, e| Error::io(operation, storage.path(""), e);
        let names = storage.list().map_err(|e| dir("list", e))?;
        if access == Access::ReadWrite {
            make_durable(&*storage, &names)?;
        }
        let Copies { current, faults, present } = read_copies(&*storage, &names)?;
        let mut attached = Attached {
            lock: Some(lock),
            segments: Vec::new(),
            spares: Vec::new(),
            snapshots: Vec::new(),
            foreign: Vec::new(),
            unfinished: Vec::new(),
            manifest: current,
            manifest_faults: faults,
            manifests_present: present,
            storage,
        };
        for name in names {
            attached.sort_in(name)?;
        }
        attached.segments.sort_by_key(|s| (s.id, s.base));
        attached.snapshots.sort_by(|a, b| b.cmp(a));
        let lost = attached.manifest.is_none()
            && attached.segments.is_empty()
            && (present > 0 || !attached.snapshots.is_empty());
        let lost = lost.then(|| {
            let fault = attached.manifest_faults.pop();
            fault.unwrap_or_else(|| {
                let reason = "it holds snapshots, but neither a manifest nor a segment: a backup that was cut off, or a store that lost them";
                Error::corrupt(attached.storage.path(""), 0, None, reason)
            })
        });
        Ok((attached, lost))
    }

    /// The snapshot of a backup that was cut off before it had a manifest. The mark beside it tells it from that of a store
    /// which lost everything else.
    fn cut_off_backup(&self) -> Option<Lsn> {
        let [lsn] = *self.snapshots.as_slice() else { return None };
        let marked = self.unfinished.contains(&backup_mark(lsn));
        (marked && self.is_new() && self.manifests_present == 0).then_some(lsn)
    }

    /// Removes what an interrupted backup left, the mark last.
    pub(crate) fn clear_for_backup(&self) -> Result<()> {
        if let Some(lsn) = self.cut_off_backup() {
            let name = names::snapshot(lsn);
            self.storage.remove(&name).map_err(|e| Error::io("remove", self.storage.path(&name), e))?;
            self.storage.sync_dir().map_err(|e| Error::io("sync", self.storage.path(""), e))?;
        }
        self.remove_unfinished()
    }

    /// The segments of a store that is open already.
    pub(crate) fn listed(storage: Arc<dyn Storage>, segments: Vec<SegmentFile>, manifest: Manifest) -> Attached {
        Attached {
            storage,
            lock: None,
            segments,
            spares: Vec::new(),
            snapshots: Vec::new(),
            foreign: Vec::new(),
            unfinished: Vec::new(),
            manifest: Some(manifest),
            manifest_faults: Vec::new(),
            manifests_present: 0,
        }
    }

    /// Whether there is no store here yet.
    pub(crate) fn is_new(&self) -> bool {
        self.manifest.is_none() && self.segments.is_empty()
    }

    /// The oldest segment from which the ids go on without a gap and all headers are whole. What is older is garbage, unless
    /// a manifest says otherwise: files that were given up, and that a crash brought back or did not remove altogether.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where not even the newest one's header is whole, or one is there twice; I/O errors.
    pub(crate) fn oldest_usable(&self) -> Result<Option<OpenSegment>> {
        let mut oldest: Option<OpenSegment> = None;
        for file in self.segments.iter().rev() {
            if let Some(next) = &oldest {
                if file.id == next.file.id {
                    let path = self.storage.path(&next.file.name);
                    return Err(Error::corrupt(path, 0, Some(next.file.base), "two files claim to be this segment"));
                }
                if file.id.get().saturating_add(1) != next.file.id.get() {
                    break;
                }
            }
            match OpenSegment::open(&*self.storage, file) {
                Ok(segment) => oldest = Some(segment),
                Err(error) if error.is_corrupt() && oldest.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(oldest)
    }

    /// Where the log of a store without a manifest goes back to the beginning, if it does: the first segment of all begins
    /// there, right behind the room for a header.
    pub(crate) fn origin(&self) -> Result<Option<Lsn>> {
        let Some(OpenSegment { header, .. }) = self.oldest_usable()? else {
            return Ok(self.is_new().then(|| Lsn::new(u64::from(self.storage.block_bytes()))));
        };
        let begins = header.id == SegmentId::new(1) && header.base == Lsn::new(u64::from(header.block_bytes));
        Ok(begins.then_some(header.base))
    }

    /// Removes what a crash left unfinished. Done only once nothing stands in the way of opening the store.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        for name in &self.unfinished {
            self.storage.remove(name).map_err(|e| Error::io("remove", self.storage.path(name), e))?;
        }
        Ok(())
    }

    fn sort_in(&mut self, name: String) -> Result<()> {
        match names::parse(&name) {
            FileName::Lock | FileName::Manifest => {}
            FileName::Segment { id, base } => self.segments.push(SegmentFile { name, id, base }),
            FileName::Spare { number } => {
                let io = |operation, e| Error::io(operation, self.storage.path(&name), e);
                let file = self.storage.open(&name, OpenMode::Read).map_err(|e| io("open", e))?;
                let file_bytes = file.len().map_err(|e| io("measure", e))?;
                self.spares.push(Spare { name, number, file_bytes });
            }
            FileName::Snapshot { lsn } => self.snapshots.push(lsn),
            FileName::Temp => self.unfinished.push(name),
            FileName::Foreign => self.foreign.push(name),
        }
        Ok(())
    }
}

fn take_lock(storage: &dyn Storage, access: Access) -> Result<Box<dyn StorageLock>> {
    let mode = match access {
        Access::ReadWrite => LockMode::Exclusive,
        Access::ReadOnly => LockMode::Shared,
    };
    storage.lock(mode).map_err(|e| {
        if e.kind() == std::io::ErrorKind::WouldBlock {
            Error::Locked { path: storage.path(""), holder: Some(e.to_string()).filter(|s| !s.is_empty()) }
        } else {
            Error::io("lock", storage.path(""), e)
        }
    })
}

/// Syncs every file that recovery may read, then the directory: a killed process may have left its last writes and
/// renames in the page cache, and what recovery serves must not depend on them.
fn make_durable(storage: &dyn Storage, present: &[String]) -> Result<()> {
    for name in present {
        match names::parse(name) {
            FileName::Manifest | FileName::Segment { .. } | FileName::Snapshot { .. } => {
                let io = |operation, e| Error::io(operation, storage.path(name), e);
                let file = storage.open(name, OpenMode::ReadWrite).map_err(|e| io("open", e))?;
                file.sync_all().map_err(|e| io("sync", e))?;
            }
            _ => {}
        }
    }
    storage.sync_dir().map_err(|e| Error::io("sync", storage.path(""), e))
}
