//! The storage seam: everything the crate asks of the outside world.
//!
//! One flat directory of files, a clock, and a source of randomness. [`DiskStorage`] is the real one,
//! [`crate::sim::SimDisk`] the deterministic one that tests and users crash. Nothing here knows of
//! LSNs, frames or transactions.
//!
//! Invariants that every implementation keeps:
//! - what [`File::write_durable_at`] or a sync returned `Ok` for survives power loss;
//! - a directory change (create, rename, remove) survives only after [`Directory::sync_dir`];
//! - an error of a sync is reported once and never taken back by a later success.

mod buffer;
pub(crate) mod deferred_unlinks;
mod disk;
mod disk_file;
mod lock;
mod named_file;
mod probe;
pub(crate) mod read_ahead;
pub(crate) mod sync;
mod sync_plausibility;

pub use buffer::AlignedBuf;
#[cfg(test)]
pub(crate) use buffer::failing;
pub use disk::{Create, DiskStorage};
#[allow(unused_imports, reason = "layers move to it one by one")]
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

/// Whether a lock on the store's directory admits others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Readers that write nothing may share it.
    Shared,
    /// One owner.
    Exclusive,
}

/// How durable writes reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePath {
    /// `O_DIRECT | O_DSYNC`: around the page cache, complete when the call returns.
    Direct,
    /// Through the page cache, then `fdatasync`.
    BufferedSync,
}

/// A lock that lasts until it is dropped.
pub trait DirectoryLock: Send + Sync {}

/// A flat directory of files.
///
/// All methods may be called from several threads. Names are plain file names without separators.
pub trait Directory: Send + Sync + 'static {
    /// Opens or creates a file. A created file survives power loss only once the file and the
    /// directory have both been synced.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// The names of all files in the directory, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file, replacing the target. Durable after [`Directory::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`Directory::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Unlinks a file and truncates it in small steps, so that freeing its extents does not stall
    /// concurrent writes. Nothing may read the file any more. Durable after [`Directory::sync_dir`].
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

    /// The block that no two frames share: the larger of the device's physical sector and the
    /// alignment of direct I/O, in bytes. A power of two.
    fn block_bytes(&self) -> u32;

    /// The path of a file, for messages. An empty name gives the path of the directory.
    fn path(&self, name: &str) -> PathBuf;

    /// Promises that this storage may not keep, a sentence each: a memory file system, for example,
    /// or durable writes that completed faster than any device can. Recovery asks when it begins
    /// and after it has written.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Time and randomness.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed point. It never goes back.
    fn monotonic(&self) -> Duration;

    /// Microseconds since 1970, for people. Correctness never depends on it.
    fn wall_clock_micros(&self) -> u64;

    /// A random number.
    fn random(&self) -> u64;
}

/// Everything a store asks of the outside world: one directory and one clock.
///
/// Each type that is both a [`Directory`] and a [`Clock`] is a storage.
pub trait Storage: Directory + Clock {}

impl<T: Directory + Clock> Storage for T {}

/// One open file.
#[expect(clippy::len_without_is_empty, reason = "nothing asks whether a file is empty")]
pub trait File: Send + Sync {
    /// Reads at `offset`, through the page cache. Returns how many bytes; 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reads what the device holds, around the page cache. `offset` and the length of `buf` are multiples of
    /// the block size, and `buf` comes from an [`AlignedBuf`]. Returns how many bytes; less than
    /// asked only at the end of the file.
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, through the page cache. Returns how many bytes were taken, which may
    /// be fewer than given. Survives a kill of the process; survives power loss only after a sync.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`. When it returns `Ok`, these bytes survive power loss.
    ///
    /// `offset` and the length are multiples of the block size, and `buf` comes from an
    /// [`AlignedBuf`]. It says nothing about bytes that [`File::write_at`] left unsynced.
    /// On [`WritePath::BufferedSync`] it writes and syncs the file's data.
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Says that a range was written through the page cache and will not be written or read again soon: a storage may begin to hand it to
    /// the device. It promises nothing, waits for nothing and hides no error from a later sync.
    fn hint_written(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Makes the file's content durable, with its length where it has changed.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the file's content and all its metadata durable.
    fn sync_all(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Sets the file's length.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space for the first `len` bytes and sets the length to at least that.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Which path [`File::write_durable_at`] takes.
    fn write_path(&self) -> WritePath;
}

/// Creates a file, in place of one that an earlier attempt may have left unfinished. On failure it says what failed.
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

/// Writes all of `buf` at `offset` through the page cache, looping over short writes and interrupts.
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
