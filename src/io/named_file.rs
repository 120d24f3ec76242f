//! Files and directories whose calls return the crate's error, with the operation and the path.

use super::{AlignedBuf, File, OpenMode, Storage, create_anew, read_cached_full, read_device_full, write_all_at};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file and its path.
#[derive(Clone)]
pub(crate) struct NamedFile {
    file: Arc<dyn File>,
    path: PathBuf,
}

impl NamedFile {
    /// Opens an existing file, or creates one with [`OpenMode::CreateNew`].
    pub(crate) fn open(storage: &dyn Storage, name: &str, mode: OpenMode) -> Result<NamedFile> {
        let path = storage.path(name);
        let operation = if mode == OpenMode::CreateNew { "create" } else { "open" };
        match storage.open(name, mode) {
            Ok(file) => Ok(NamedFile { file, path }),
            Err(e) => Err(Error::io(operation, path, e)),
        }
    }

    /// Creates a file, replacing one that an earlier attempt may have left incomplete.
    pub(crate) fn create_anew(storage: &dyn Storage, name: &str) -> Result<NamedFile> {
        let path = storage.path(name);
        match create_anew(storage, name) {
            Ok(file) => Ok(NamedFile { file, path }),
            Err((operation, e)) => Err(Error::io(operation, path, e)),
        }
    }

    /// The path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Reads until `buf` is full or the file ends, around the page cache. Returns the bytes read.
    pub(crate) fn read_device_full(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        read_device_full(&*self.file, buf, offset).map_err(|e| Error::io_at("read", self.path.clone(), offset, e))
    }

    /// Reads until `buf` is full or the file ends, through the page cache. Returns the bytes read.
    pub(crate) fn read_cached_full(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        read_cached_full(&*self.file, buf, offset).map_err(|e| Error::io_at("read", self.path.clone(), offset, e))
    }

    /// Writes all of `buf` through the page cache. It survives power loss only after a sync.
    pub(crate) fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        write_all_at(&*self.file, buf, offset).map_err(|e| Error::io_at("write", self.path.clone(), offset, e))
    }

    /// Writes all of `buf`, which survives power loss when this returns `Ok`.
    pub(crate) fn write_durable_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.file.write_durable_at(buf, offset).map_err(|e| Error::io_at("write", self.path.clone(), offset, e))
    }

    /// Makes the content and all metadata durable.
    pub(crate) fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io("sync", self.path.clone(), e))
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|e| Error::io("measure", self.path.clone(), e))
    }

    /// A zeroed buffer for direct I/O on this file.
    pub(crate) fn buffer(&self, bytes: usize) -> Result<AlignedBuf> {
        AlignedBuf::zeroed(bytes).map_err(|e| Error::io("get memory for", self.path.clone(), e))
    }
}

impl dyn Storage {
    /// The names of all files, sorted.
    pub(crate) fn list_files(&self) -> Result<Vec<String>> {
        self.list().map_err(|e| Error::io("list", self.path(""), e))
    }

    /// Renames a file, replacing the target. Durable after [`sync_names`](Self::sync_names).
    pub(crate) fn rename_file(&self, from: &str, to: &str) -> Result<()> {
        self.rename(from, to).map_err(|e| Error::io("rename", self.path(from), e))
    }

    /// Removes a file. Durable after [`sync_names`](Self::sync_names).
    pub(crate) fn remove_file(&self, name: &str) -> Result<()> {
        self.remove(name).map_err(|e| Error::io("remove", self.path(name), e))
    }

    /// Makes every directory change so far durable.
    pub(crate) fn sync_names(&self) -> Result<()> {
        self.sync_dir().map_err(|e| Error::io("sync", self.path(""), e))
    }
}
