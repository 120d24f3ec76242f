//! Storage: everything that the crate asks of the operating system.
//!
//! A [`Storage`] is one flat directory of files, a clock, and a source of random numbers.
//! [`DiskStorage`] is the real one. [`SimDisk`](crate::sim::SimDisk) is a deterministic one that
//! crashes and fails on demand. This layer does not depend on LSNs, frames or transactions.
//!
//! Every implementation keeps these invariants:
//! - Bytes survive power loss once [`File::write_durable_at`], or a sync after [`File::write_at`],
//!   has returned `Ok`.
//! - A directory change (create, rename, remove) survives power loss once [`Directory::sync_dir`]
//!   has returned `Ok`.
//! - An error of a sync is reported once. A later sync that succeeds does not take it back.

pub(crate) mod background_errors;
mod buffer;
pub(crate) mod deadline;
pub(crate) mod deferred_unlinks;
mod descriptor;
mod disk;
mod disk_file;
mod inherit;
mod lock;
mod named_file;
pub(crate) mod parallel;
mod probe;
pub(crate) mod read_ahead;
pub(crate) mod sync;
mod sync_plausibility;
pub(crate) mod threads;

pub use buffer::AlignedBuf;
#[cfg(test)]
pub(crate) use buffer::failing;
pub use disk::DiskStorage;
pub(crate) use named_file::NamedFile;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How [`Directory::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; it is an error if the name is taken.
    CreateNew,
}

/// What a storage does about a directory that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Creates it, accessible to its owner only. Missing directories above it are created too, with
    /// ordinary permissions.
    IfMissing,
    /// Returns [`io::ErrorKind::NotFound`].
    Never,
}

/// Whether other openers may share a lock on the store's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Shared among readers, which write nothing.
    Shared,
    /// Held by one opener, which may write.
    Exclusive,
}

/// How durable writes reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum WritePath {
    /// `O_DIRECT | O_DSYNC`: bypasses the page cache, and is durable when the call returns.
    Direct,
    /// Writes through the page cache, then calls `fdatasync`.
    BufferedSync,
}

/// A lock that lasts until it is dropped.
pub trait DirectoryLock: Send + Sync {
    /// Returns an error if the directory is no longer the one that was locked, because another
    /// opener may own the one in its place. The text says what happened and what to do.
    ///
    /// The default is for storages whose lock cannot be lost.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A flat directory of files.
///
/// All methods may be called from several threads. Names are plain file names without separators.
pub trait Directory: Send + Sync + 'static {
    /// Opens or creates a file. A created file survives power loss once the file and the directory
    /// have both been synced.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// The names of all files in the directory, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Whether this name leads to this open file, and not to another file or to none. The default
    /// is for storages whose names no other process can change.
    fn is_named(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let _ = name;
        file.is_linked()
    }

    /// The names of all sub-directories, sorted. A store has none. If one has the name of a store's
    /// file, it must not be mistaken for a missing file.
    fn list_directories(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Renames a file, replacing the target if that is a file. Durable after
    /// [`Directory::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`Directory::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Unlinks a file and truncates it in small steps, so that freeing its extents does not stall
    /// concurrent writes. Nothing may read the file any more. Durable after
    /// [`Directory::sync_dir`].
    fn remove_gradually(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }

    /// Makes every directory change so far durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Locks the store against other openers, in this process and in others.
    ///
    /// While another opener holds the lock, the error has the kind [`io::ErrorKind::WouldBlock`]
    /// and its text names the holder if that is known. [`LockMode::Shared`] writes nothing.
    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>>;

    /// Like [`Directory::lock`], but tries again while another opener holds the lock. It calls
    /// `pause` before each further try, and gives up when that returns `false`. A storage may
    /// refuse new readers meanwhile, so that they cannot overtake an owner that waits.
    fn lock_when_free(&self, mode: LockMode, pause: &mut dyn FnMut() -> bool) -> io::Result<Box<dyn DirectoryLock>> {
        loop {
            match self.lock(mode) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && pause() => {}
                other => return other,
            }
        }
    }

    /// The block that no two frames share: the larger of the device's physical sector and the
    /// alignment of direct I/O, in bytes. A power of two.
    fn block_bytes(&self) -> u32;

    /// The largest file that this process may write, in bytes. A write beyond such a limit can end
    /// the process by a signal, so the store keeps its files below it.
    fn max_file_bytes(&self) -> u64 {
        u64::MAX
    }

    /// The path of a file, for messages. An empty name gives the path of the directory.
    fn path(&self, name: &str) -> PathBuf;

    /// Reasons why this storage may not keep its promises, one sentence each: a file system in
    /// memory, for example, or durable writes that return faster than any device can complete them.
    /// Recovery reports them.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Time and randomness.
pub trait Clock: Send + Sync + 'static {
    /// The time since a fixed point. It never goes back.
    fn monotonic(&self) -> Duration;

    /// The wall-clock time, in microseconds since 1970. It is shown to people only; correctness
    /// never depends on it.
    fn wall_clock_micros(&self) -> u64;

    /// A random number, uniform over all values.
    fn random(&self) -> u64;
}

/// Everything a store asks of the outside world: one directory and one clock.
///
/// Every type that is both a [`Directory`] and a [`Clock`] is a storage.
pub trait Storage: Directory + Clock {}

impl<T: Directory + Clock> Storage for T {}

/// One open file.
#[expect(clippy::len_without_is_empty, reason = "no caller asks whether a file is empty")]
pub trait File: Send + Sync {
    /// Reads at `offset`, through the page cache. Returns the number of bytes read; 0 at the end of
    /// the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reads from the device, bypassing the page cache. `offset` and the length of `buf` are
    /// multiples of the block size, and `buf` is a part of an [`AlignedBuf`]. Returns the number of
    /// bytes read; fewer than requested only at the end of the file.
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, through the page cache. Returns the number of bytes written, which may
    /// be fewer than given. They survive a kill of the process, and power loss only after a sync.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`. The bytes survive power loss when this returns `Ok`.
    ///
    /// `offset` and the length are multiples of the block size, and `buf` is a part of an
    /// [`AlignedBuf`]. Bytes that [`File::write_at`] wrote before may stay unsynced.
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Hints that a range was written through the page cache and is not needed soon, so that the
    /// storage may start writeback. It guarantees nothing, does not block, and hides no error from
    /// a later sync.
    fn hint_written(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Makes the file's content durable, and its length if that has changed.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the file's content and all its metadata durable.
    fn sync_all(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Sets the file's length.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space for the first `len` bytes and sets the length to at least that.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// How [`File::write_durable_at`] reaches the device.
    fn write_path(&self) -> WritePath;

    /// Whether the file still has a name. Bytes written to a file without a name are lost once it
    /// is closed. The default is for storages whose files no other process can remove.
    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// What distinguishes the file from all others of its storage, whatever its name is: on the
    /// real disk, its device and its inode. `None` if the storage has nothing like it.
    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }
}

/// Creates a file, replacing one that an earlier attempt may have left incomplete. An error is
/// returned with the operation that failed.
pub(crate) fn create_anew(storage: &dyn Storage, name: &str) -> Result<Arc<dyn File>, (&'static str, io::Error)> {
    let create = || storage.open(name, OpenMode::CreateNew);
    match create() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(name).map_err(|e| ("remove", e))?;
            create()
        }
        other => other,
    }
    .map_err(|e| ("create", e))
}

/// Writes all of `buf` at `offset` through the page cache, looping over short writes and
/// interrupts.
///
/// Survives what [`File::write_at`] survives. A write that makes no progress is an error.
pub(crate) fn write_all_at(file: &dyn File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, offset) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the write made no progress")),
            Ok(n) => {
                buf = buf.get(n..).unwrap_or_default();
                offset = offset.saturating_add(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads until `buf` is full or the file ends, around the page cache, looping over interrupts.
/// Returns how many bytes were read.
pub(crate) fn read_device_full(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_device_at(buf, offset) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads until `buf` is full or the file ends, through the page cache, looping over short reads and
/// interrupts. Returns how many bytes were read.
pub(crate) fn read_cached_full(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done = done.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
