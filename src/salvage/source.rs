//! The storage of a damaged store, read-only. An unreadable block becomes damaged data instead of
//! an I/O error, so that one bad block does not end the salvage.

use crate::error::lacks_resources;
use crate::io::sync::{Arc, Mutex};
use crate::io::{Clock, Directory, DirectoryLock, File, LockMode, OpenMode, Storage, WritePath};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Replaces bytes that cannot be read. No header, frame or chunk begins with it, and it differs
/// from the zeros of a block that was never written.
const UNREADABLE: u8 = 0xff;
/// The maximum number of unreadable blocks that are reported one by one.
const MAX_REPORTED: usize = 256;

/// Unreadable blocks by file and offset, with the operating system's error.
pub(super) type Unreadable = BTreeMap<(String, u64), String>;

/// The damaged store.
pub(super) struct Source {
    store: Arc<dyn Storage>,
    unreadable: Arc<Mutex<Unreadable>>,
}

impl Source {
    pub(super) fn new(store: Arc<dyn Storage>) -> Source {
        Source { store, unreadable: Arc::default() }
    }

    /// The unreadable blocks found so far.
    pub(super) fn unreadable(&self) -> Unreadable {
        self.unreadable.lock().clone()
    }
}

/// Whether a failed read says something about the medium, and not about this process.
fn is_of_the_medium(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::Interrupted && !lacks_resources(error)
}

fn refuse<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "a store that is salvaged is not written to"))
}

impl Directory for Source {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode != OpenMode::Read {
            return refuse();
        }
        let file = self.store.open(name, mode)?;
        let block_bytes = self.store.block_bytes() as usize;
        Ok(Arc::new(SourceFile { file, name: name.to_owned(), block_bytes, unreadable: self.unreadable.clone() }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.store.list()
    }

    fn list_directories(&self) -> io::Result<Vec<String>> {
        self.store.list_directories()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refuse()
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        if mode == LockMode::Shared { self.store.lock(mode) } else { refuse() }
    }

    fn block_bytes(&self) -> u32 {
        self.store.block_bytes()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.path(name)
    }

    fn warnings(&self) -> Vec<String> {
        self.store.warnings()
    }
}

impl Clock for Source {
    fn monotonic(&self) -> Duration {
        self.store.monotonic()
    }

    fn wall_clock_micros(&self) -> u64 {
        self.store.wall_clock_micros()
    }

    fn random(&self) -> u64 {
        self.store.random()
    }
}

struct SourceFile {
    file: Arc<dyn File>,
    name: String,
    block_bytes: usize,
    unreadable: Arc<Mutex<Unreadable>>,
}

impl SourceFile {
    /// Reads block by block after a larger read failed.
    fn read_in_pieces(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.file.len()?.saturating_sub(offset)).unwrap_or(usize::MAX);
        let there = left.min(buf.len());
        let mut at = offset;
        let mut read = 0usize;
        for block in buf.chunks_mut(self.block_bytes.max(1)) {
            if read >= there {
                break;
            }
            let wanted = block.len().min(there.saturating_sub(read));
            match self.file.read_device_at(block, at) {
                Ok(n) if n >= wanted => {}
                Ok(n) => return Ok(read.saturating_add(n)),
                Err(e) if !is_of_the_medium(&e) => return Err(e),
                Err(e) => {
                    block.fill(UNREADABLE);
                    let mut unreadable = self.unreadable.lock();
                    if unreadable.len() < MAX_REPORTED {
                        unreadable.insert((self.name.clone(), at), e.to_string());
                    }
                }
            }
            read = read.saturating_add(wanted);
            at = at.saturating_add(wanted as u64);
        }
        Ok(read)
    }
}

impl File for SourceFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_device_at(buf, offset) {
            Err(e) if is_of_the_medium(&e) => self.read_in_pieces(buf, offset),
            other => other,
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        refuse()
    }

    fn write_durable_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refuse()
    }

    fn sync_data(&self) -> io::Result<()> {
        refuse()
    }

    fn sync_all(&self) -> io::Result<()> {
        refuse()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refuse()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refuse()
    }

    fn write_path(&self) -> WritePath {
        self.file.write_path()
    }
}
