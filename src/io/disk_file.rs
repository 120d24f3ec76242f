//! One open file of the real storage.
//!
//! A file has up to two descriptors: one through the page cache, and one for direct I/O where the
//! file system supports it. The caller guarantees that both refer to the same inode. This module
//! does not deal with names and directories.

use crate::io::probe::Probe;
use crate::io::sync::{Arc, AtomicBool, Ordering};
use crate::io::sync_plausibility::SyncPlausibility;
use crate::io::{File, WritePath};
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::num::NonZeroU64;

/// What the file system has been found to support. Each flag changes from true to false only.
#[derive(Debug)]
pub(super) struct Paths {
    /// True while durable writes try to bypass the page cache.
    pub(super) direct_writes: AtomicBool,
    /// True while device reads try to bypass the page cache.
    pub(super) direct_reads: AtomicBool,
    /// The latency of the first durable writes.
    pub(super) sync_plausibility: SyncPlausibility,
}

/// The result of an `fsync` or `fdatasync`, which is never retried.
///
/// After a failure the kernel may mark the lost pages clean, so that a second sync returns `Ok` for
/// bytes that are gone. The same holds for an interrupted sync, which may have consumed an error.
/// std retries interrupted calls, and so may a caller, on [`io::ErrorKind::Interrupted`]; hence the
/// other error kind. All other errors are returned as they are.
pub(super) fn sync_result(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(Errno::INTR) => Err(io::Error::other("a sync was interrupted; what it covered may not be durable")),
        Err(e) => Err(e.into()),
    }
}

/// True if the file system has no sync for this kind of file, as opposed to one that failed. A file
/// system that turned read-only after an error answers `EROFS`, which is such a failure.
pub(super) fn is_sync_missing(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF | Errno::ISDIR)
}

/// One open file on a file system.
#[derive(Debug)]
pub(super) struct DiskFile {
    buffered: fs::File,
    /// Opened with `O_DIRECT | O_DSYNC`; `None` if the file system refuses.
    direct: Option<fs::File>,
    writable: bool,
    /// The alignment of offsets and lengths for direct I/O, in bytes.
    align: usize,
    /// The alignment of buffer addresses for direct I/O, in bytes.
    memory_align: usize,
    paths: Arc<Paths>,
    /// True if the page cache may hold bytes that no sync has covered, from this process or an
    /// earlier one. Read by [`DiskFile::drop_cached`] only.
    maybe_dirty: AtomicBool,
    /// True if this process wrote through the page cache since the last sync. Only such a sync has
    /// something to write, so only its latency says anything about the device.
    written: AtomicBool,
}

impl DiskFile {
    pub(super) fn new(
        buffered: fs::File,
        direct: Option<fs::File>,
        writable: bool,
        probe: &Probe,
        paths: Arc<Paths>,
    ) -> DiskFile {
        let maybe_dirty = AtomicBool::new(true);
        let (align, memory_align) = (probe.direct_align, probe.memory_align);
        let written = AtomicBool::new(false);
        DiskFile { buffered, direct, writable, align, memory_align, paths, maybe_dirty, written }
    }

    /// True if direct I/O accepts this buffer at this offset.
    fn aligned(&self, buf: &[u8], offset: u64) -> bool {
        buf.len().is_multiple_of(self.align)
            && offset.is_multiple_of(self.align as u64)
            && buf.as_ptr().addr().is_multiple_of(self.memory_align)
    }

    /// Writes the whole buffer through the page cache, then syncs the file's data.
    fn write_buffered_sync(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write_at(buf, offset) {
                Ok(0) => return Err(no_progress()),
                Ok(n) => {
                    buf = buf.get(n..).unwrap_or_default();
                    offset = offset.saturating_add(n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.maybe_dirty.store(false, Ordering::Relaxed);
        // the caller times the write and the sync together
        self.written.store(false, Ordering::Relaxed);
        sync_result(rustix::fs::fdatasync(&self.buffered))
    }

    /// Does one direct read. `None` if direct I/O is not possible for this call, or at all.
    fn read_direct(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let Some(direct) = self.direct.as_ref().filter(|_| self.paths.direct_reads.load(Ordering::Relaxed)) else {
            return Ok(None);
        };
        if !self.aligned(buf, offset) {
            return Ok(None);
        }
        loop {
            match rustix::io::pread(direct, &mut *buf, offset) {
                Ok(n) => return Ok(Some(n)),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => {
                    self.paths.direct_reads.store(false, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Drops a range from the page cache, so that the next buffered read comes from the device.
    ///
    /// The kernel does not drop dirty pages, so the file is synced first. An error of that sync is
    /// returned, because the device then lacks bytes that the cache shows.
    fn drop_cached(&self, offset: u64, len: usize) -> io::Result<()> {
        if self.maybe_dirty.load(Ordering::Relaxed) {
            match self.sync_data() {
                // a file system that cannot be written (squashfs) has no sync, and nothing dirty
                Err(e) if !self.writable && Errno::from_io_error(&e).is_some_and(is_sync_missing) => {}
                other => other?,
            }
        }
        if let Some(len) = NonZeroU64::new(len as u64) {
            rustix::fs::fadvise(&self.buffered, offset, Some(len), Advice::DontNeed)?;
        }
        Ok(())
    }

    fn read_buffered(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match rustix::io::pread(&self.buffered, &mut *buf, offset) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn write_through(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let direct = self.direct.as_ref().filter(|_| self.paths.direct_writes.load(Ordering::Relaxed));
            let Some(direct) = direct.filter(|_| self.aligned(rest, at)) else {
                return self.write_buffered_sync(rest, at);
            };
            match rustix::io::pwrite(direct, rest, at) {
                Ok(0) => return Err(no_progress()),
                Ok(n) => done = done.saturating_add(n),
                // A retried write sends the bytes to the device again. Unlike a retried sync, it
                // does not depend on pages that the first attempt may have marked clean.
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => self.paths.direct_writes.store(false, Ordering::Relaxed),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sync(&self, sync: impl FnOnce(&fs::File) -> rustix::io::Result<()>) -> io::Result<()> {
        // before the sync, because the sync may not cover a concurrent write
        self.maybe_dirty.store(false, Ordering::Relaxed);
        let sync = || sync_result(sync(&self.buffered));
        if self.written.swap(false, Ordering::Relaxed) { self.paths.sync_plausibility.timed(sync) } else { sync() }
    }
}

impl File for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_buffered(buf, offset)
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        let mut uncached = false;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let n = match self.read_direct(rest, at)? {
                Some(n) => n,
                None => {
                    if !uncached {
                        // the kernel drops whole pages only, so the range begins at a block's start
                        let back = at % self.align as u64;
                        self.drop_cached(at.saturating_sub(back), rest.len().saturating_add(self.align))?;
                        uncached = true;
                    }
                    self.read_buffered(rest, at)?
                }
            };
            if n == 0 {
                break;
            }
            done = done.saturating_add(n);
            // a direct read that ends within a block has reached the end of the file
            if !done.is_multiple_of(self.align) && offset.saturating_add(done as u64) >= self.len()? {
                break;
            }
        }
        Ok(done)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.maybe_dirty.store(true, Ordering::Relaxed);
        self.written.store(true, Ordering::Relaxed);
        Ok(rustix::io::pwrite(&self.buffered, buf, offset)?)
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.paths.sync_plausibility.timed(|| self.write_through(buf, offset))
    }

    /// On Linux, `POSIX_FADV_DONTNEED` starts writeback of dirty pages without waiting for it, and
    /// drops clean pages.
    fn hint_written(&self, offset: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            let _ = rustix::fs::fadvise(&self.buffered, offset, Some(len), Advice::DontNeed);
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|file| rustix::fs::fdatasync(file))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|file| rustix::fs::fsync(file))
    }

    fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.buffered)?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.buffered.set_len(len)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(&self.buffered)?.st_nlink > 0)
    }

    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        let stat = rustix::fs::fstat(&self.buffered)?;
        Ok(Some((stat.st_dev, stat.st_ino)))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.buffered, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // the file system cannot reserve space, so only the length is set
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.len()? < len => return self.set_len(len),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn write_path(&self) -> WritePath {
        if self.writable && self.direct.is_some() && self.paths.direct_writes.load(Ordering::Relaxed) {
            WritePath::Direct
        } else {
            WritePath::BufferedSync
        }
    }
}

fn no_progress() -> io::Error {
    io::Error::new(io::ErrorKind::WriteZero, "the write made no progress")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::probe;

    #[test]
    fn dropping_the_cache_syncs_first_what_no_sync_covered() {
        let dir = tempfile::tempdir().unwrap();
        let probe = probe::probe(&fs::File::open(dir.path()).unwrap(), crate::io::Create::Never).unwrap();
        let no = || AtomicBool::new(false);
        let paths = Paths { direct_writes: no(), direct_reads: no(), sync_plausibility: Default::default() };
        let file = fs::File::create_new(dir.path().join("f")).unwrap();
        let file = DiskFile::new(file, None, true, &probe, Arc::new(paths));
        for _ in 0..2 {
            assert!(file.maybe_dirty.load(Ordering::Relaxed), "at first for what an earlier process wrote");
            file.read_device_at(&mut [0; 4096], 0).unwrap();
            assert!(!file.maybe_dirty.load(Ordering::Relaxed));
            file.write_at(b"x", 0).unwrap();
        }
    }
}
