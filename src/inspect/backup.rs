//! Backups of files: a copy of what recovery needs of a store, made without its machine.

use super::verify::start_of_bare_log;
use super::{attach, machine_of};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SnapshotEntry};
use crate::ids::Lsn;
use crate::io::sync::Arc;
use crate::io::{NamedFile, OpenMode, Storage};
use crate::recovery::candidates::{self, Candidate};
use crate::recovery::new_report;
use crate::store::create::NewStore;
use crate::store::layout as names;
use crate::store::open_dir::StoreDir;
use crate::wal::scan::{ScanEnd, Scanner, Segment, manifest_stand_in, needed_segments};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much is copied at once, in bytes. A multiple of every block size. It bounds the memory of a
/// copy.
const PIECE_BYTES: usize = 1 << 20;

/// What a backup of files holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The LSN of the snapshot that was copied. `None` if the log goes back to the empty state.
    pub snapshot: Option<Lsn>,
    /// The end of the log that was copied.
    pub end: Lsn,
    /// What is wrong with the original, one sentence each. The copy does not have these faults.
    pub warnings: Vec<String>,
}

/// Copies the store in `source` into `target`, which must hold no store. It works on the store of
/// any machine, and opens with that machine only.
///
/// It copies what recovery would use: the newest intact snapshot and the log after it. An
/// interrupted write at the end of the log is left out, as an open would cut it. Transactions that
/// are open there are rolled back by the first open of the copy. The copy has the identifier of the
/// original, unlike that of [`Engine::backup_to`](crate::Engine::backup_to).
///
/// Nothing is written to `source`, and a shared lock keeps it from being opened for writing
/// meanwhile. The copy is read back before it counts. When this returns `Ok`, the copy is complete
/// and survives power loss. When it fails or the process is killed, `target` does not open as a
/// store, and another backup may write to it.
///
/// ```
/// use seawal::{Engine, inspect, io, kv::Kv};
/// use std::sync::Arc;
///
/// let dir = tempfile::tempdir()?;
/// let store = Engine::<Kv>::open(dir.path().join("store"))?;
/// store.insert("key", "value")?;
/// store.close()?;
///
/// let target = io::DiskStorage::open(dir.path().join("copy"), io::Create::IfMissing)?;
/// inspect::backup(inspect::storage(dir.path().join("store"))?, Arc::new(target))?;
/// let copy = Engine::<Kv>::open(dir.path().join("copy"))?;
/// assert_eq!(copy.get("key")?.as_deref(), Some(&b"value"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// - [`Error::NotAStore`] if `source` has no store; [`Error::Corrupt`] if it does not open.
/// - [`Error::Locked`] if one of the two is in use.
/// - [`Error::InvalidArgument`] if `target` has a store already.
/// - [`Error::UnsupportedVersion`] if a newer program wrote the store.
/// - [`Error::Full`]; I/O errors.
pub fn backup(source: Arc<dyn Storage>, target: Arc<dyn Storage>) -> Result<BackupReport> {
    let store_dir = attach(source)?;
    // locked after the source, so that a backup of a store into itself fails
    let place = NewStore::claim(target, Duration::ZERO)?;
    let mut report = new_report(&store_dir);
    let needed = Needed::find(&store_dir, &mut |warning| report.warn_of_stand_in(warning))?;
    place.create_from_files(needed.start, |target| needed.write(target))?;
    let (snapshot, end) = (needed.snapshot.map(|entry| entry.lsn), needed.end.end);
    Ok(BackupReport { snapshot, end, warnings: report.warnings })
}

/// What recovery needs of a store.
struct Needed<'a> {
    store_dir: &'a StoreDir,
    /// Where replay begins.
    start: Lsn,
    snapshot: Option<SnapshotEntry>,
    segments: Vec<NeededSegment>,
    end: ScanEnd,
}

/// A segment that replay reads.
struct NeededSegment {
    segment: Segment,
    /// The end of its last frame in the file. What follows it is not copied.
    used_bytes: u64,
}

impl<'a> Needed<'a> {
    /// Chooses as recovery does, and verifies the choice. `warn` gets each snapshot that is passed
    /// over.
    fn find(store_dir: &'a StoreDir, warn: &mut dyn FnMut(String)) -> Result<Needed<'a>> {
        let (start, snapshot) = choose(store_dir, warn)?;
        let (end, ends) = scan(store_dir, start)?;
        let mut segments = Vec::new();
        for file in needed_segments(store_dir, start)? {
            let segment = Segment::read(&*store_dir.storage, file)?;
            let header_bytes = u64::from(segment.header.block_bytes);
            let used_bytes = ends.get(&file.name).copied().unwrap_or(header_bytes);
            segments.push(NeededSegment { segment, used_bytes });
        }
        Ok(Needed { store_dir, start, snapshot, segments, end })
    }

    /// Writes the files, makes them durable and reads them back. Returns the manifest of the copy.
    fn write(&self, target: &Arc<dyn Storage>) -> Result<Manifest> {
        let manifest = self.manifest()?;
        let source = &*self.store_dir.storage;
        let full = |error: Error| error.full_if_out_of_space("a backup");
        if let Some(entry) = self.snapshot {
            let name = names::snapshot(entry.lsn);
            copy(source, &**target, &name, (entry.file_bytes, entry.file_bytes)).map_err(full)?;
        }
        for NeededSegment { segment, used_bytes } in &self.segments {
            let sizes = (*used_bytes, segment.header.file_bytes);
            copy(source, &**target, &segment.file.name, sizes).map_err(full)?;
        }
        target.sync_names()?;
        self.verify(target, &manifest)?;
        Ok(manifest)
    }

    /// The manifest of the copy, which names one snapshot at most.
    fn manifest(&self) -> Result<Manifest> {
        let current = match &self.store_dir.manifest {
            Some(manifest) => manifest.clone(),
            None => {
                let stand_in = manifest_stand_in(self.store_dir)?;
                let machine = machine_of(self.store_dir).zip(stand_in);
                let (machine, stand_in) = machine.ok_or_else(|| {
                    let reason = "no manifest or segment header is intact, so the machine of the store is unknown";
                    Error::corrupt_as_a_whole(self.store_dir.storage.path(""), None, reason)
                })?;
                self.store_dir.first_manifest(&machine, Some(stand_in))
            }
        };
        Ok(Manifest { snapshots: Vec::from_iter(self.snapshot), log_start: self.start, ..current })
    }

    /// Reads the copy as the device holds it.
    fn verify(&self, target: &Arc<dyn Storage>, manifest: &Manifest) -> Result<()> {
        let differs = || {
            let reason = "the copy does not read back as it was written";
            Error::corrupt_as_a_whole(target.path(""), Some(self.start), reason)
        };
        if let Some(entry) = self.snapshot {
            let (header, file_bytes) = crate::snapshot::check(&**target, entry.lsn)?;
            if (header.store, file_bytes) != (manifest.store, entry.file_bytes) {
                return Err(differs());
            }
        }
        let files = self.segments.iter().map(|needed| needed.segment.file.clone()).collect();
        let (end, _) = scan(&StoreDir::listed(target.clone(), files, manifest.clone()), self.start)?;
        let read = |end: &ScanEnd| (end.end, end.last_checksum, end.highest_epoch, end.beyond);
        if read(&end) == read(&self.end) { Ok(()) } else { Err(differs()) }
    }
}

/// Where replay begins, and the snapshot there.
fn choose(store_dir: &StoreDir, warn: &mut dyn FnMut(String)) -> Result<(Lsn, Option<SnapshotEntry>)> {
    let storage = &*store_dir.storage;
    let store = store_dir.manifest.as_ref().map(|manifest| manifest.store);
    let mut list = candidates::list(store_dir)?;
    if list.is_empty() {
        list.extend(start_of_bare_log(store_dir));
    }
    let mut first_fault = None;
    for candidate in list {
        let Candidate::Snapshot(SnapshotEntry { lsn, .. }) = candidate else {
            return Ok((candidate.start(), None));
        };
        let checked = crate::snapshot::check(storage, lsn).and_then(|(header, file_bytes)| {
            if store.is_none_or(|store| store == header.store) {
                return Ok(SnapshotEntry { lsn, file_bytes });
            }
            let reason = "the snapshot belongs to another store";
            Err(Error::corrupt_as_a_whole(storage.path(&names::snapshot(lsn)), Some(lsn), reason))
        });
        match checked {
            Ok(entry) => return Ok((lsn, Some(entry))),
            Err(error) if error.is_corrupt() => {
                warn(format!("{}; an older state is copied", error.finding()));
                first_fault.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_fault.unwrap_or_else(|| {
        let reason = "no snapshot is left and the log does not go back to the beginning";
        Error::corrupt_as_a_whole(storage.path(""), None, reason)
    }))
}

/// Reads the log from `start` on. Returns where it ends, and where the frames end in each segment
/// that has some.
fn scan(store_dir: &StoreDir, start: Lsn) -> Result<(ScanEnd, BTreeMap<String, u64>)> {
    let mut scanner = Scanner::new(store_dir, start)?;
    let mut ends = BTreeMap::new();
    while let Some(chunk) = scanner.next_chunk()? {
        let end = chunk.first_lsn().plus(chunk.bytes());
        ends.insert(chunk.segment().name.clone(), chunk.offset_of(end));
        scanner.reuse(chunk);
    }
    Ok((scanner.take_end()?, ends))
}

/// Copies the first `used_bytes` bytes of a file, and makes the copy `file_bytes` long. Both
/// survive power loss once the directory is synced too.
fn copy(source: &dyn Storage, target: &dyn Storage, name: &str, (used_bytes, file_bytes): (u64, u64)) -> Result<()> {
    if file_bytes > target.max_file_bytes() {
        return Err(Error::io("write", target.path(name), std::io::ErrorKind::FileTooLarge.into()));
    }
    let from = NamedFile::open(source, name, OpenMode::Read)?;
    let to = NamedFile::open(target, name, OpenMode::CreateNew)?;
    let mut piece = from.buffer(PIECE_BYTES)?;
    let mut offset = 0u64;
    while offset < used_bytes {
        let read = from.read_device_full(&mut piece, offset)? as u64;
        let bytes = read.min(used_bytes.saturating_sub(offset));
        if bytes == 0 {
            let reason = format!("the file was {used_bytes} bytes long and is {offset} now");
            return Err(Error::corrupt(source.path(name), offset, None, reason));
        }
        let read = piece.get(..usize::try_from(bytes).unwrap_or(usize::MAX)).unwrap_or_default();
        to.write_all_at(read, offset)?;
        to.file().hint_written(offset, bytes);
        offset = offset.saturating_add(bytes);
    }
    if file_bytes > used_bytes {
        let set = to.file().set_len(file_bytes);
        set.map_err(|e| Error::io("set the length of", target.path(name), e))?;
    }
    to.sync_all()
}
