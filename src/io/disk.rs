//! The real storage: a directory of an operating system's file system.
//!
//! Invariants:
//! - Every file is opened relative to one descriptor of the directory. So neither a change of the
//!   working directory nor a rename of the store's directory redirects a call.
//! - A write that direct I/O refuses goes through the page cache and is synced. That is slower, and
//!   as durable.
//! - An error of a sync is returned once, and the sync is never retried.
//!
//! This module does not interpret the content of files. The only file name it knows is its own
//! `LOCK`.

use crate::io::deadline::pauses;
use crate::io::descriptor;
use crate::io::descriptor::{check_is_file, missing, not_a_directory, occupy_standard_streams, open_dir, open_new_dir};
use crate::io::disk_file::{DiskFile, Paths, is_sync_missing, sync_result};
use crate::io::inherit::{inherit, inherit_dir};
use crate::io::lock::{LOCK_FILE, Locks};
use crate::io::probe;
use crate::io::probe::Probe;
use crate::io::sync::{Arc, AtomicBool, Ordering};
use crate::io::sync_plausibility::SyncPlausibility;
use crate::io::{Clock, Create, Directory, DirectoryLock, File, LockMode, OpenMode, WritePath};
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// `O_DSYNC` and nothing else.
///
/// rustix's `OFlags::DSYNC` has the bits of `O_SYNC`, which would also write the file's timestamps
/// at every write. The value is the same on all Linux architectures but these four, which use the
/// stricter flag.
const DATA_SYNC: OFlags =
    if cfg!(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64")) {
        OFlags::DSYNC
    } else {
        OFlags::from_bits_retain(0o10000)
    };

/// The size of one step of a gradual deletion. Measured where the file system discards online: a
/// commit waited 2 to 9 ms behind the deletion of one file of 4 to 64 MiB.
const TRUNCATE_STEP_BYTES: u64 = 1 << 20;
/// Bounds the steps of one file, and thereby its deletion to 256 pauses (1.3 s).
const MAX_TRUNCATE_STEPS: u64 = 256;
/// A pause takes twice as long as the step before it, so that commits get two thirds of the device.
const PAUSE_FACTOR: u32 = 2;
/// The maximum length of a pause, in case a step was slow for another reason.
const MAX_PAUSE: Duration = Duration::from_millis(5);

/// Truncates an unlinked file in small steps, with pauses, because commits wait while the file
/// system discards freed extents. Best effort: closing the file frees the rest.
fn truncate_gradually(file: &fs::File) {
    let Ok(stat) = rustix::fs::fstat(file) else { return };
    if stat.st_nlink != 0 || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return;
    }
    let mut len = u64::try_from(stat.st_size).unwrap_or(0);
    let step = TRUNCATE_STEP_BYTES.max(len / MAX_TRUNCATE_STEPS);
    while len > step {
        len = len.saturating_sub(step);
        let began = Instant::now();
        if file.set_len(len).is_err() {
            return;
        }
        thread::sleep(began.elapsed().saturating_mul(PAUSE_FACTOR).min(MAX_PAUSE));
    }
}

/// A directory on a file system.
///
/// Durable writes bypass the page cache (`O_DIRECT | O_DSYNC`) if the file system supports it.
/// Otherwise they go through the page cache, followed by `fdatasync`. [`DiskStorage::write_path`]
/// returns which.
///
/// ```
/// use seawal::io::{AlignedBuf, Create, Directory, DiskStorage, OpenMode};
///
/// # let dir = tempfile::tempdir()?;
/// let disk = DiskStorage::open(dir.path().join("store"), Create::IfMissing)?;
/// let file = disk.open("data", OpenMode::CreateNew)?;
/// let mut block = AlignedBuf::zeroed(disk.block_bytes() as usize)?;
/// block[..5].copy_from_slice(b"hello");
/// file.write_durable_at(&block, 0)?;
/// file.sync_all()?;
/// disk.sync_dir()?; // from here on the file and these bytes survive power loss
/// assert_eq!(disk.list()?, ["data"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DiskStorage {
    path: PathBuf,
    /// The directory, open as long as the storage exists.
    dir: fs::File,
    probe: Probe,
    paths: Arc<Paths>,
    since: Instant,
    locks: Locks,
    lock_wait: Duration,
    /// True once a sync of the directory or of its parent was found to be missing.
    dir_sync_missing: AtomicBool,
    _standard_streams: Vec<OwnedFd>,
}

// no code of the caller runs while its state is changed
impl UnwindSafe for DiskStorage {}
impl RefUnwindSafe for DiskStorage {}

impl DiskStorage {
    /// Opens a directory.
    ///
    /// When this returns, the directory's own name survives power loss, provided that its parent is
    /// durable, may be opened, and can be synced. A directory that this call creates has mode 0700,
    /// and missing ones above it have ordinary permissions. If root creates them, they get the
    /// owner and the group of the directory above. A new file gets the owner and the group of the
    /// directory, as far as the process may set them, and the group's permissions.
    ///
    /// # Errors
    /// The operating system's error; [`io::ErrorKind::NotFound`] with [`Create::Never`] if there is
    /// no such directory.
    pub fn open(path: impl AsRef<Path>, create: Create) -> io::Result<DiskStorage> {
        let path = std::path::absolute(path)?;
        let _standard_streams = occupy_standard_streams();
        let synced = match create {
            Create::IfMissing => make_dir_durable(&path, STORE_MODE)?,
            Create::Never if path.is_dir() => sync_parent(&path)?,
            Create::Never => DirSync::Done,
        };
        let dir =
            open_dir(&path).map_err(|e| if e.kind() == io::ErrorKind::NotFound { missing(&path, e) } else { e })?;
        let probe = probe::probe(&dir, create)?;
        let direct = probe.direct_io;
        Ok(DiskStorage {
            path,
            dir,
            probe,
            paths: Arc::new(Paths {
                direct_writes: AtomicBool::new(direct),
                direct_reads: AtomicBool::new(direct),
                sync_plausibility: SyncPlausibility::default(),
            }),
            since: Instant::now(),
            locks: Locks::default(),
            lock_wait: Duration::ZERO,
            dir_sync_missing: AtomicBool::new(synced == DirSync::Missing),
            _standard_streams,
        })
    }

    /// Chooses how durable writes reach the device. If the file system refuses
    /// [`WritePath::Direct`], writes are buffered and synced.
    ///
    /// ```
    /// use seawal::io::{Create, DiskStorage, WritePath};
    /// # let dir = tempfile::tempdir()?;
    /// let disk = DiskStorage::open(dir.path(), Create::Never)?.with_write_path(WritePath::BufferedSync);
    /// assert_eq!(disk.write_path(), WritePath::BufferedSync);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn with_write_path(self, path: WritePath) -> DiskStorage {
        let direct = path == WritePath::Direct && self.probe.direct_io;
        self.paths.direct_writes.store(direct, Ordering::Relaxed);
        self
    }

    /// Sets how long [`Directory::lock`] waits for other openers. Default: not at all.
    ///
    /// ```
    /// use seawal::io::{Create, Directory, DiskStorage, LockMode};
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?; let disk = DiskStorage::open(dir.path(),
    /// Create::Never)?.with_lock_wait(Duration::from_secs(5)); let _lock =
    /// disk.lock(LockMode::Exclusive)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> DiskStorage {
        self.lock_wait = wait;
        self
    }

    /// How durable writes reach the device, as far as is known. The first direct write may still
    /// show that the file system refuses them.
    pub fn write_path(&self) -> WritePath {
        if self.paths.direct_writes.load(Ordering::Relaxed) { WritePath::Direct } else { WritePath::BufferedSync }
    }

    /// The entries of the directory and their kinds, by name. A link to a directory counts as a
    /// directory, and a dangling link as a link.
    fn entries(&self) -> io::Result<Vec<(String, FileType)>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if [".", "..", LOCK_FILE].contains(&name) {
                continue;
            }
            let kind = |flags| rustix::fs::statat(&self.dir, name, flags).map(|s| FileType::from_raw_mode(s.st_mode));
            let found = match entry.file_type() {
                FileType::Unknown => kind(AtFlags::SYMLINK_NOFOLLOW),
                known => Ok(known),
            };
            let found = match found {
                Ok(FileType::Symlink) => kind(AtFlags::empty()).or(Ok(FileType::Symlink)),
                other => other,
            };
            match found {
                Ok(kind) => entries.push((name.to_owned(), kind)),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Opens the same file again, for direct I/O. `None` if the file system refuses.
    fn open_direct(&self, name: &str, buffered: &fs::File, access: OFlags) -> io::Result<Option<fs::File>> {
        if !self.probe.direct_io {
            return Ok(None);
        }
        match descriptor::open_file(&self.dir, name, access | OFlags::DIRECT | DATA_SYNC) {
            Ok(direct) => {
                let (a, b) = (rustix::fs::fstat(&direct)?, rustix::fs::fstat(buffered)?);
                // another file may have taken the name in between
                Ok((a.st_dev == b.st_dev && a.st_ino == b.st_ino).then_some(direct))
            }
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT) => Ok(None),
                _ => Err(e),
            },
        }
    }
}

impl Directory for DiskStorage {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let (access, create) = match mode {
            OpenMode::Read => (OFlags::RDONLY, OFlags::empty()),
            OpenMode::ReadWrite => (OFlags::RDWR, OFlags::empty()),
            OpenMode::CreateNew => (OFlags::RDWR, OFlags::CREATE | OFlags::EXCL),
        };
        let file = descriptor::open_file(&self.dir, name, access | create)?;
        if mode == OpenMode::CreateNew {
            inherit(&self.dir, &file).inspect_err(|_| {
                let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
            })?;
        }
        let direct = self.open_direct(name, &file, access)?;
        Ok(Arc::new(DiskFile::new(file, direct, access == OFlags::RDWR, &self.probe, Arc::clone(&self.paths))))
    }

    /// Lists every entry with a UTF-8 name, except directories and the lock file. Opening an entry
    /// that is neither a regular file nor a link to one returns an error that names its kind.
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = self.entries()?.into_iter();
        Ok(entries.filter_map(|(name, kind)| (kind != FileType::Directory).then_some(name)).collect())
    }

    fn is_named(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        match rustix::fs::statat(&self.dir, name, AtFlags::empty()) {
            Ok(found) => Ok(file.identity()?.is_none_or(|opened| opened == (found.st_dev, found.st_ino))),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn list_directories(&self) -> io::Result<Vec<String>> {
        let entries = self.entries()?.into_iter();
        Ok(entries.filter_map(|(name, kind)| (kind == FileType::Directory).then_some(name)).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        check_is_file(&self.dir, to, to)?;
        Ok(rustix::fs::renameat(&self.dir, from, &self.dir, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        check_is_file(&self.dir, name, "it")?;
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn remove_gradually(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        check_is_file(&self.dir, name, "it")?;
        // if the file cannot be opened, it is deleted in one step, which is slower for commits only
        let file = descriptor::open_file(&self.dir, name, OFlags::WRONLY | OFlags::NOFOLLOW);
        rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?;
        if let Ok(file) = file {
            truncate_gradually(&file);
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        if sync_dir(&self.dir)? == DirSync::Missing {
            self.dir_sync_missing.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        self.lock_when_free(mode, &mut pauses(self, self.lock_wait))
    }

    fn lock_when_free(&self, mode: LockMode, pause: &mut dyn FnMut() -> bool) -> io::Result<Box<dyn DirectoryLock>> {
        self.locks.lock(&self.dir, &self.path, mode, pause)
    }

    fn max_file_bytes(&self) -> u64 {
        rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
    }

    fn block_bytes(&self) -> u32 {
        self.probe.block_bytes
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = probe::warnings(&self.dir);
        if self.dir_sync_missing.load(Ordering::Relaxed) && !probe::is_read_only(&self.dir) {
            warnings.push(NO_DIR_SYNC.to_owned());
        }
        warnings.extend(self.paths.sync_plausibility.warning());
        warnings
    }
}

impl Clock for DiskStorage {
    fn monotonic(&self) -> Duration {
        self.since.elapsed()
    }

    fn wall_clock_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        probe::random()
    }
}

fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain && name != LOCK_FILE {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a plain file name of this storage")))
}

/// The outcome of a sync of a directory that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirSync {
    Done,
    /// The file system has no sync for directories.
    Missing,
}

const NO_DIR_SYNC: &str = "the file system has no sync for directories: a file that was just created or renamed may be \
                           lost in a power loss";

fn sync_dir(dir: &fs::File) -> io::Result<DirSync> {
    match rustix::fs::fsync(dir) {
        Err(e) if is_sync_missing(e) => Ok(DirSync::Missing),
        other => sync_result(other).map(|()| DirSync::Done),
    }
}

/// The permissions of a store's directory, and of missing directories above it. The umask applies,
/// but not to the owner.
const STORE_MODE: u32 = 0o700;
const PARENT_MODE: u32 = 0o777;
/// What the owner of a directory needs to keep a store in it.
const OWNER_MODE: u32 = 0o700;

/// Creates a directory and its missing ancestors, and makes each durable before the next.
fn make_dir_durable(path: &Path, mode: u32) -> io::Result<DirSync> {
    if let Some(parent) = path.parent()
        && !parent.is_dir()
    {
        let named = |e: io::Error| match e.raw_os_error() {
            // the text says what is there, so it must say where
            None => io::Error::new(e.kind(), format!("{}: {e}", parent.display())),
            Some(_) => e,
        };
        make_dir_durable(parent, PARENT_MODE).map_err(named)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => open_to_owner(path).and_then(|()| give_to_owner_above(path)).inspect_err(|_| {
            let _ = std::fs::remove_dir(path);
        })?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(not_a_directory(path, e)),
        other => other?,
    }
    sync_parent(path)
}

/// Gives the owner of a new directory the permissions that a umask has withheld.
fn open_to_owner(path: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    if mode & OWNER_MODE == OWNER_MODE {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | OWNER_MODE))
}

/// Gives a new directory to the owner of the one above, if this process is root's. That user could
/// not open a store in it otherwise.
fn give_to_owner_above(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if rustix::process::geteuid().is_root() => inherit_dir(&open_dir(parent)?, &open_new_dir(path)?),
        _ => Ok(()),
    }
}

/// Makes a directory's name durable. A directory that exists is synced too, because the process
/// that created it may have died before its own sync. A parent that this process may not open is
/// not synced. Neither is one on another file system or on a read-only one, because it holds no
/// name that could be lost.
fn sync_parent(path: &Path) -> io::Result<DirSync> {
    let Some(parent) = path.parent() else { return Ok(DirSync::Done) };
    let dir = match open_dir(parent) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(DirSync::Done),
        other => other?,
    };
    match sync_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(DirSync::Done),
        Ok(DirSync::Missing) if rustix::fs::fstat(&dir)?.st_dev != rustix::fs::stat(path)?.st_dev => Ok(DirSync::Done),
        other => other,
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
