//! The lock on a directory: `flock` on a file of its own.
//!
//! The lock belongs to the open file description. It therefore excludes a second handle in the same
//! process, and ends with the process in every case. It does not pass to a program started by `exec`.
//! A forked child shares it, so it is unlocked explicitly. The file's text is the process id of the
//! last exclusive holder, for messages only.

use crate::io::{DirectoryLock, LockMode};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// The reserved name of the lock file.
pub(super) const LOCK_FILE: &str = "LOCK";

/// Held until dropped.
#[derive(Debug)]
struct DiskLock {
    /// `None` if a reader found no lock file, so that there is no writer either.
    file: Option<File>,
    mode: LockMode,
}

impl DirectoryLock for DiskLock {}

impl Drop for DiskLock {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        // a stale process id would make a later message blame a process that has ended
        if self.mode == LockMode::Exclusive {
            let _ = rustix::fs::ftruncate(file, 0);
        }
        // closing the file is not enough: a child that another thread is starting shares it until `exec`
        let _ = rustix::fs::flock(file, FlockOperation::Unlock);
    }
}

/// Locks a directory; see [`crate::io::Directory::lock`].
pub(super) fn lock(dir: &File, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
    let (flags, operation) = match mode {
        LockMode::Shared => (OFlags::RDONLY, FlockOperation::NonBlockingLockShared),
        LockMode::Exclusive => (OFlags::RDWR | OFlags::CREATE, FlockOperation::NonBlockingLockExclusive),
    };
    let file: File = match rustix::fs::openat(dir, LOCK_FILE, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
        Err(Errno::NOENT) if mode == LockMode::Shared => return Ok(Box::new(DiskLock { file: None, mode })),
        other => other?.into(),
    };
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Err(io::Error::new(io::ErrorKind::WouldBlock, holder(&file, mode))),
            Err(e) => return Err(e.into()),
        }
    }
    if mode == LockMode::Exclusive {
        // errors are ignored, because a store must open on a full disk too
        let text = std::process::id().to_string();
        let _ = rustix::fs::ftruncate(&file, 0).and_then(|()| rustix::io::pwrite(&file, text.as_bytes(), 0));
    }
    Ok(Box::new(DiskLock { file: Some(file), mode }))
}

/// A description of the lock's holder, for messages.
fn holder(file: &File, wanted: LockMode) -> String {
    // if a shared lock is granted, only readers hold it, and the text is from a writer that has ended
    if wanted == LockMode::Exclusive && rustix::fs::flock(file, FlockOperation::NonBlockingLockShared).is_ok() {
        return "a reader".to_owned();
    }
    let mut text = [0u8; 20];
    let len = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
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

    #[test]
    fn a_lock_that_is_given_back_is_free_though_a_forked_process_shares_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        for mode in [LockMode::Exclusive, LockMode::Shared] {
            lock(&dir, LockMode::Exclusive).unwrap();
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(&dir, LOCK_FILE, flags, Mode::empty()).unwrap());
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
            // what a fork does to it
            let shared = file.try_clone().unwrap();
            let held = DiskLock { file: Some(file), mode };
            assert!(lock(&dir, LockMode::Exclusive).is_err());
            drop(held);
            lock(&dir, LockMode::Exclusive).unwrap();
            drop(shared);
        }
    }
}
