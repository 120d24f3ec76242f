//! The lock on a directory: `flock` on the directory itself, and on its file `LOCK`.
//!
//! The lock on the directory decides, and not the file, because another process can give the name
//! `LOCK` to another file. The file is locked too, for file systems that cannot lock a directory.
//! It also excludes earlier versions of this crate, which lock only the file. Its text is the
//! process id of the last exclusive holder, for messages only.
//!
//! A lock belongs to the open file description. It therefore excludes a second handle in the same
//! process, and ends with the process in every case. It does not pass to a program started by
//! `exec`. A forked child shares it, so it is unlocked explicitly.
//!
//! A reader holds the directory, and the file only for a moment. An owner that waits for readers
//! holds the file, so that new readers cannot overtake it.

use crate::io::descriptor::above_standard_streams;
use crate::io::inherit::inherit;
use crate::io::sync::{Arc, Mutex};
use crate::io::{DirectoryLock, LockMode};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::thread;
use std::time::Duration;

/// The reserved name of the lock file.
pub(super) const LOCK_FILE: &str = "LOCK";

/// How often locking `LOCK` is retried if its name changes or a reader holds it for a moment.
const MAX_TRIES: u32 = 20;
/// The pause between two such tries. A reader holds `LOCK` for two system calls.
const TRY_PAUSE: Duration = Duration::from_millis(1);

/// The advice in every error of [`DirectoryLock::check`].
const ADVICE: &str = "another process may own what stands there now, so this store acknowledges nothing more; close it, \
                      see which directory holds the data, and open that one";

/// An open file description with an `flock`. Dropping it unlocks.
#[derive(Debug)]
struct Flock(File);

impl Drop for Flock {
    fn drop(&mut self) {
        // closing the file is not enough: a child that another thread is starting shares it until
        // `exec`
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Held until dropped.
#[derive(Debug)]
struct DiskLock {
    path: PathBuf,
    mode: LockMode,
    /// The lock file. `None` for a reader that holds the directory, or that found no lock file.
    file: Option<Flock>,
    dir: Dir,
}

/// A descriptor of the directory.
#[derive(Debug)]
enum Dir {
    Locked(Flock),
    /// The file system cannot lock a directory.
    Unlocked(File),
}

impl Dir {
    fn file(&self) -> &File {
        match self {
            Dir::Locked(lock) => &lock.0,
            Dir::Unlocked(file) => file,
        }
    }

    fn is_locked(&self) -> bool {
        matches!(self, Dir::Locked(_))
    }
}

impl DirectoryLock for DiskLock {
    fn check(&self) -> io::Result<()> {
        let lost = |what: &str| Err(io::Error::other(format!("{what}: {ADVICE}")));
        let dir = self.dir.file();
        let opened = match rustix::fs::fstat(dir) {
            Err(Errno::STALE) => return lost("the directory was removed"),
            other => other?,
        };
        match rustix::fs::stat(&self.path) {
            Ok(found) if !is_same(&found, &opened) => return lost("another directory has taken its place"),
            // a directory that was renamed is still locked under its new name
            Err(Errno::NOENT | Errno::NOTDIR) if opened.st_nlink == 0 => return lost("the directory was removed"),
            // a path that cannot be looked up proves nothing
            _ => {}
        }
        let Some(file) = &self.file else { return Ok(()) };
        match rustix::fs::statat(dir, LOCK_FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if !is_same(&found, &rustix::fs::fstat(&file.0)?) => lost("its file LOCK was replaced"),
            Err(Errno::NOENT) if !self.dir.is_locked() => lost("its file LOCK was removed"),
            _ => Ok(()),
        }
    }
}

impl Drop for DiskLock {
    fn drop(&mut self) {
        // a stale process id would make a later message blame a process that has ended
        if let Some(file) = self.file.take_if(|_| self.mode == LockMode::Exclusive) {
            let _ = rustix::fs::ftruncate(&file.0, 0);
        }
    }
}

fn is_same(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev && a.st_ino == b.st_ino
}

/// Makes the locks of one storage. Its readers share one lock, so that an owner that waits does not
/// stop further readers of the same storage.
#[derive(Debug, Default)]
pub(super) struct Locks {
    shared: Mutex<Weak<DiskLock>>,
}

/// The lock that the readers of one storage share.
#[derive(Debug)]
struct SharedLock(Arc<DiskLock>);

impl DirectoryLock for SharedLock {
    fn check(&self) -> io::Result<()> {
        self.0.check()
    }
}

impl Locks {
    /// Locks a directory; see [`crate::io::Directory::lock_when_free`].
    pub(super) fn lock(
        &self,
        dir: &File,
        path: &Path,
        mode: LockMode,
        pause: &mut dyn FnMut() -> bool,
    ) -> io::Result<Box<dyn DirectoryLock>> {
        let mut gate = None;
        loop {
            let tried = match mode {
                LockMode::Shared => self.lock_shared(dir, path),
                LockMode::Exclusive => lock_exclusive(dir, path, &mut gate).map(|lock| Box::new(lock) as _),
            };
            match tried {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && pause() => {}
                other => return other,
            }
            if mode == LockMode::Exclusive && gate.is_none() {
                gate = close_gate(dir);
            }
        }
    }

    fn lock_shared(&self, dir: &File, path: &Path) -> io::Result<Box<dyn DirectoryLock>> {
        let mut shared = self.shared.lock();
        let lock = match shared.upgrade() {
            Some(lock) => lock,
            None => Arc::new(lock_shared(dir, path)?),
        };
        *shared = Arc::downgrade(&lock);
        Ok(Box::new(SharedLock(lock)))
    }
}

/// Locks the lock file before the directory is locked, which refuses new readers. `None` if an
/// owner or another waiting one holds it, or if there is none.
fn close_gate(dir: &File) -> Option<Flock> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, LOCK_FILE, flags, Mode::empty()).ok()?);
    if !rustix::fs::fstat(&file).is_ok_and(|stat| is_regular(&stat)) {
        return None;
    }
    flock(file, FlockOperation::NonBlockingLockExclusive).ok()?.ok()
}

/// A reader locks the file first, so that an owner of an earlier version refuses it too.
fn lock_shared(dir: &File, path: &Path) -> io::Result<DiskLock> {
    let mut file = None;
    if let Some(found) = open_to_read(dir) {
        match flock_on(&found, FlockOperation::NonBlockingLockShared) {
            Ok(()) => file = Some(Flock(found)),
            Err(Errno::WOULDBLOCK) => return Err(refused(&holder(Some(&found)))),
            // on a file system without locks there is no owner either
            Err(e) if is_unsupported(e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let dir = match lock_dir(dir, LockMode::Shared)? {
        Ok(dir) => dir,
        Err(_) => return Err(refused(&holder(file.as_ref().map(|file| &file.0)))),
    };
    if dir.is_locked() {
        file = None;
    }
    Ok(DiskLock { path: path.into(), mode: LockMode::Shared, file, dir })
}

/// An owner locks the directory first, so that an opener that is refused never touches the lock
/// file.
fn lock_exclusive(dir: &File, path: &Path, gate: &mut Option<Flock>) -> io::Result<DiskLock> {
    let own = match lock_dir(dir, LockMode::Exclusive)? {
        Ok(own) => own,
        Err(own) => {
            // if a shared lock is granted, only readers hold it, and the text is from a writer that
            // has ended
            if matches!(flock(own, FlockOperation::NonBlockingLockShared), Ok(Ok(_))) {
                return Err(refused("a reader"));
            }
            return Err(refused(&holder(open_to_read(dir).as_ref())));
        }
    };
    let is_named = |lock: &Flock| {
        let named = rustix::fs::statat(dir, LOCK_FILE, AtFlags::SYMLINK_NOFOLLOW);
        named.is_ok_and(|named| rustix::fs::fstat(&lock.0).is_ok_and(|locked| is_same(&named, &locked)))
    };
    let file = match gate.take().filter(is_named) {
        Some(file) => file,
        None => lock_file(dir, own.is_locked())?,
    };
    // errors are ignored, because a store must open on a full disk too
    let text = std::process::id().to_string();
    let _ = rustix::fs::ftruncate(&file.0, 0).and_then(|()| rustix::io::pwrite(&file.0, text.as_bytes(), 0));
    let lock = DiskLock { path: path.into(), mode: LockMode::Exclusive, file: Some(file), dir: own };
    lock.check()?;
    Ok(lock)
}

/// Locks the file that the name `LOCK` leads to once the lock is held.
fn lock_file(dir: &File, dir_is_locked: bool) -> io::Result<Flock> {
    let mut tries = 0;
    loop {
        tries += 1;
        let file = open_to_lock(dir, dir_is_locked)?;
        let lock = match flock(file, FlockOperation::NonBlockingLockExclusive)? {
            Ok(lock) => lock,
            Err(file) => {
                let holder = holder(Some(&file));
                let only_readers = matches!(flock(file, FlockOperation::NonBlockingLockShared), Ok(Ok(_)));
                if only_readers && dir_is_locked && tries < MAX_TRIES {
                    thread::sleep(TRY_PAUSE);
                    continue;
                }
                return Err(refused(if only_readers { "a reader" } else { &holder }));
            }
        };
        let locked = rustix::fs::fstat(&lock.0)?;
        match rustix::fs::statat(dir, LOCK_FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if is_same(&found, &locked) => return Ok(lock),
            Ok(_) | Err(Errno::NOENT) if tries < MAX_TRIES => {}
            Ok(_) | Err(Errno::NOENT) => return Err(refused("another process, which replaces the file LOCK")),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Opens or creates the lock file. With the directory locked, anything else of that name is
/// replaced: no owner can hold it. Links are not followed, because the file they lead to is not
/// ours to write to.
fn open_to_lock(dir: &File, dir_is_locked: bool) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || {
        let opened = rustix::fs::openat(dir, LOCK_FILE, flags, Mode::empty())?;
        above_standard_streams(opened).map(File::from)
    };
    let is_file = |file: &File| rustix::fs::fstat(file).is_ok_and(|stat| is_regular(&stat));
    let mut found = open();
    if matches!(found, Err(Errno::NOENT)) {
        if let Some(new) = create(dir, flags)? {
            return Ok(new);
        }
        found = open();
    }
    match found {
        Ok(file) if is_file(&file) => return Ok(file),
        Ok(_) | Err(Errno::LOOP | Errno::NXIO) if dir_is_locked => {}
        Ok(_) | Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
            return Err(io::Error::other("LOCK is not a regular file; remove it"));
        }
        Err(e) => return Err(explained(dir, e)),
    }
    rustix::fs::unlinkat(dir, LOCK_FILE, AtFlags::empty())?;
    create(dir, flags)?.ok_or_else(|| refused("another process, which replaces the file LOCK"))
}

/// Creates the lock file. `None` if another opener has just created it.
fn create(dir: &File, flags: OFlags) -> io::Result<Option<File>> {
    let mode = Mode::RUSR | Mode::WUSR;
    let new = match rustix::fs::openat(dir, LOCK_FILE, flags | OFlags::CREATE | OFlags::EXCL, mode) {
        Ok(new) => File::from(above_standard_streams(new)?),
        Err(Errno::EXIST) => return Ok(None),
        Err(e) => return Err(explained(dir, e)),
    };
    inherit(dir, &new).inspect_err(|_| {
        let _ = rustix::fs::unlinkat(dir, LOCK_FILE, AtFlags::empty());
    })?;
    Ok(Some(new))
}

/// The error of an owner that cannot open its lock file, with advice.
fn explained(dir: &File, error: Errno) -> io::Error {
    let advice = match error {
        Errno::ROFS => "the file system is read-only; open the store with RecoveryPolicy::ReadOnly".to_owned(),
        Errno::ACCESS => match rustix::fs::statat(dir, LOCK_FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if found.st_uid == rustix::process::geteuid().as_raw() => {
                "the permissions of its file LOCK do not let its owner read and write it; chmod u+rw LOCK".to_owned()
            }
            Ok(found) => format!(
                "its file LOCK belongs to user {}; open the store as that user, or change the owner of its files",
                found.st_uid
            ),
            Err(_) => "this user may not write to the directory".to_owned(),
        },
        _ => return error.into(),
    };
    io::Error::new(io::Error::from(error).kind(), advice)
}

/// The lock file, if there is one that may be read. It serves to read an owner's process id and to
/// take a shared lock.
fn open_to_read(dir: &File) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, LOCK_FILE, flags, Mode::empty()).ok()?;
    let file = File::from(above_standard_streams(opened).ok()?);
    rustix::fs::fstat(&file).is_ok_and(|stat| is_regular(&stat)).then_some(file)
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Locks the directory by a descriptor of its own. `Ok(Err(_))` returns that descriptor if another
/// opener holds the lock.
fn lock_dir(dir: &File, mode: LockMode) -> io::Result<Result<Dir, File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = File::from(above_standard_streams(rustix::fs::openat(dir, c".", flags, Mode::empty())?)?);
    let operation = match mode {
        LockMode::Shared => FlockOperation::NonBlockingLockShared,
        LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match flock_on(&own, operation) {
        Ok(()) => Ok(Ok(Dir::Locked(Flock(own)))),
        Err(Errno::WOULDBLOCK) => Ok(Err(own)),
        Err(e) if is_unsupported(e) => Ok(Ok(Dir::Unlocked(own))),
        Err(e) => Err(e.into()),
    }
}

/// True if the file system cannot lock a directory. NFS requires a descriptor that is open for
/// writing.
fn is_unsupported(error: Errno) -> bool {
    matches!(
        error,
        Errno::BADF | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::ISDIR | Errno::ACCESS
    )
}

/// `Ok(Err(_))` returns the file if another opener holds the lock.
fn flock(file: File, operation: FlockOperation) -> io::Result<Result<Flock, File>> {
    match flock_on(&file, operation) {
        Ok(()) => Ok(Ok(Flock(file))),
        Err(Errno::WOULDBLOCK) => Ok(Err(file)),
        Err(e) => Err(e.into()),
    }
}

fn flock_on(file: &File, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn refused(holder: &str) -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, holder)
}

/// A description of the owner, for messages, from the text of the lock file.
fn holder(file: Option<&File>) -> String {
    let mut text = [0u8; 20];
    let len = file.map_or(0, |file| rustix::io::pread(file, &mut text, 0).unwrap_or(0));
    let pid = text.get(..len).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse::<u32>().ok());
    match pid {
        Some(pid) if pid == std::process::id() => format!("process {pid} (this one)"),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn lock(dir: &File, path: &Path, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        Locks::default().lock(dir, path, mode, &mut || false)
    }

    #[test]
    fn a_lock_that_is_given_back_is_free_though_a_forked_process_shares_the_file() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        for mode in [LockMode::Exclusive, LockMode::Shared] {
            let held = match mode {
                LockMode::Exclusive => lock_exclusive(&dir, path.path(), &mut None),
                LockMode::Shared => lock_shared(&dir, path.path()),
            }
            .unwrap();
            // what a fork does to it
            let shared = held.dir.file().try_clone().unwrap();
            let shared_file = held.file.as_ref().map(|file| file.0.try_clone().unwrap());
            assert_eq!(shared_file.is_some(), mode == LockMode::Exclusive);
            assert!(lock(&dir, path.path(), LockMode::Exclusive).is_err());
            drop(held);
            lock(&dir, path.path(), LockMode::Exclusive).unwrap();
            drop((shared, shared_file));
        }
    }

    /// Holds `LOCK` alone, as earlier versions do, and as file systems that cannot lock a directory
    /// do.
    #[test]
    fn an_owner_that_locks_the_file_alone_is_respected() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        let file = lock_file(&dir, false).unwrap();
        std::fs::write(path.path().join(LOCK_FILE), "4000000").unwrap();
        for mode in [LockMode::Exclusive, LockMode::Shared] {
            let error = lock(&dir, path.path(), mode).err().unwrap();
            assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::WouldBlock, "process 4000000"));
        }
        // without a lock on the directory, the file is all that there is
        let own = File::open(path.path()).unwrap();
        let mode = LockMode::Exclusive;
        let alone = DiskLock { path: path.path().into(), mode, file: Some(file), dir: Dir::Unlocked(own) };
        alone.check().unwrap();
        std::fs::remove_file(path.path().join(LOCK_FILE)).unwrap();
        assert!(alone.check().unwrap_err().to_string().contains("LOCK was removed"));
    }

    /// S7: readers that follow each other without a gap do not keep an owner out that waits.
    #[test]
    fn an_owner_that_waits_is_not_overtaken_by_new_readers() {
        let path = tempfile::tempdir().unwrap();
        let dir = File::open(path.path()).unwrap();
        drop(lock(&dir, path.path(), LockMode::Exclusive).unwrap());
        let (first, storage) = (lock(&dir, path.path(), LockMode::Shared).unwrap(), Locks::default());
        let begun = storage.lock(&dir, path.path(), LockMode::Shared, &mut || false).unwrap();
        let (mut first, mut begun, mut pauses) = (Some(first), Some(begun), 0);
        let mut pause = || {
            pauses += 1;
            match pauses {
                1 => assert!(lock(&dir, path.path(), LockMode::Shared).is_ok(), "it does not wait yet"),
                2 => {
                    assert!(lock(&dir, path.path(), LockMode::Shared).is_err(), "a new reader");
                    let same = storage.lock(&dir, path.path(), LockMode::Shared, &mut || false);
                    assert!(same.is_ok(), "one that has begun goes on");
                    first = None;
                }
                _ => begun = None,
            }
            pauses < 10
        };
        let owner = Locks::default().lock(&dir, path.path(), LockMode::Exclusive, &mut pause).unwrap();
        owner.check().unwrap();
        assert_eq!(pauses, 3);
        assert_eq!(std::fs::read_to_string(path.path().join(LOCK_FILE)).unwrap(), std::process::id().to_string());
    }

    /// S6: nothing that the name `LOCK` leads to lets a second owner in, nor keeps the next one
    /// out.
    #[test]
    fn what_the_name_of_the_lock_file_leads_to_decides_nothing() {
        let path = tempfile::tempdir().unwrap();
        let name = path.path().join(LOCK_FILE);
        let other = path.path().join("other");
        let changes: [(&str, &dyn Fn()); 6] = [
            ("removed", &|| {}),
            ("replaced", &|| std::fs::write(&name, "").unwrap()),
            ("a symbolic link", &|| symlink(&other, &name).unwrap()),
            ("a dangling link", &|| symlink("nowhere", &name).unwrap()),
            ("a hard link", &|| std::fs::hard_link(&other, &name).unwrap()),
            ("a pipe", &|| {
                let pipe = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &name, pipe, Mode::RUSR | Mode::WUSR, 0).unwrap();
            }),
        ];
        let dir = File::open(path.path()).unwrap();
        for (change, make) in changes {
            std::fs::write(&other, "not ours").unwrap();
            let owner = lock(&dir, path.path(), LockMode::Exclusive).unwrap();
            std::fs::remove_file(&name).unwrap();
            make();
            for mode in [LockMode::Exclusive, LockMode::Shared] {
                let error = lock(&dir, path.path(), mode).err().unwrap();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{change}");
            }
            assert_eq!(owner.check().is_err(), name.symlink_metadata().is_ok(), "{change}");
            drop(owner);
            lock(&dir, path.path(), LockMode::Exclusive).unwrap_or_else(|e| panic!("{change}: {e}"));
            if change != "a hard link" {
                assert_eq!(std::fs::read_to_string(&other).unwrap(), "not ours", "{change}");
            }
            std::fs::remove_file(&other).unwrap();
        }
        std::fs::remove_file(&name).unwrap();
        std::fs::create_dir(&name).unwrap();
        assert!(lock(&dir, path.path(), LockMode::Exclusive).err().unwrap().to_string().contains("remove it"));
    }

    /// S6: the same directory is the same by any path.
    #[test]
    fn a_directory_is_locked_by_whatever_path_it_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store");
        std::fs::create_dir(&path).unwrap();
        symlink(&path, root.path().join("link")).unwrap();
        let owner = lock(&File::open(&path).unwrap(), &path, LockMode::Exclusive).unwrap();
        for other in [root.path().join("link"), root.path().join("store/../store/.")] {
            let dir = File::open(&other).unwrap();
            assert!(lock(&dir, &other, LockMode::Exclusive).is_err(), "{}", other.display());
        }
        owner.check().unwrap();
    }

    /// S6: an owner finds out that its directory is not what its path leads to.
    #[test]
    fn an_owner_notices_that_its_directory_was_removed_or_replaced() {
        let root = tempfile::tempdir().unwrap();
        let (path, aside) = (root.path().join("store"), root.path().join("aside"));
        std::fs::create_dir(&path).unwrap();
        let owner = lock(&File::open(&path).unwrap(), &path, LockMode::Exclusive).unwrap();
        std::fs::rename(&path, &aside).unwrap();
        owner.check().unwrap();
        assert!(lock(&File::open(&aside).unwrap(), &aside, LockMode::Exclusive).is_err(), "locked by its new name");
        std::fs::create_dir(&path).unwrap();
        assert!(owner.check().unwrap_err().to_string().contains("another directory has taken its place"));
        std::fs::remove_dir(&path).unwrap();
        owner.check().unwrap();
        std::fs::remove_dir_all(&aside).unwrap();
        assert!(owner.check().unwrap_err().to_string().contains("the directory was removed"));
    }
}
