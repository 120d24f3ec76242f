//! The manifest's two copies on disk: reading the current one, and replacing the other.
//!
//! A publication overwrites the copy that is not current, so a crash in its middle leaves the
//! current one whole, also where the other one is damaged or missing. The counter moves only after
//! a completed write: after a failure the same copy is written again.

use crate::error::{Error, Result};
use crate::format::HeaderFault;
use crate::format::manifest::{MANIFEST_BYTES, Manifest};
use crate::io::sync::Arc;
use crate::io::{NamedFile, OpenMode, Storage};
use crate::store::layout as names;
use std::io;

/// What the two copies hold.
#[derive(Debug)]
pub(crate) struct Copies {
    /// The whole copy with the higher counter.
    pub(crate) current: Option<Manifest>,
    /// The place of that copy in [`names::MANIFESTS`].
    pub(crate) slot: usize,
    /// What is wrong with each damaged copy.
    pub(crate) faults: Vec<Error>,
    /// The names of the copies that are not on disk.
    pub(crate) missing: Vec<&'static str>,
}

/// Reads both copies as the device holds them.
pub(crate) fn read_copies(storage: &dyn Storage, names_present: &[String]) -> Result<Copies> {
    let each = read_each(storage, names_present)?;
    let is_missing = |name: &&str| each.iter().all(|(present, _)| present != name);
    let missing = names::MANIFESTS.into_iter().filter(is_missing).collect();
    let mut copies = Copies { current: None, slot: 0, faults: Vec::new(), missing };
    for (name, copy) in each {
        match copy {
            Ok(manifest) => {
                if copies.current.as_ref().is_none_or(|m| m.counter < manifest.counter) {
                    copies.current = Some(manifest);
                    copies.slot = names::MANIFESTS.iter().position(|each| *each == name).unwrap_or(0);
                }
            }
            // a newer program wrote this copy, so the older copy beside it is out of date
            Err(fault @ Error::UnsupportedVersion { .. }) => return Err(fault),
            Err(fault) => copies.faults.push(fault),
        }
    }
    Ok(copies)
}

/// The content of each copy on disk, or what is wrong with it.
pub(crate) fn read_each(
    storage: &dyn Storage,
    names_present: &[String],
) -> Result<Vec<(&'static str, Result<Manifest>)>> {
    let present = names::MANIFESTS.into_iter().filter(|name| names_present.iter().any(|n| n == name));
    present.map(|name| Ok((name, read_copy(storage, name)?.map_err(|f| header_error(storage, name, f))))).collect()
}

fn read_copy(storage: &dyn Storage, name: &str) -> Result<Result<Manifest, HeaderFault>> {
    let file = NamedFile::open(storage, name, OpenMode::Read)?;
    let mut buf = file.buffer(MANIFEST_BYTES.max(storage.block_bytes() as usize))?;
    let read = file.read_device_full(&mut buf, 0)?;
    Ok(Manifest::decode(buf.get(..read.min(MANIFEST_BYTES)).unwrap_or_default()))
}

/// A header's fault as the crate's error.
pub(crate) fn header_error(storage: &dyn Storage, name: &str, fault: HeaderFault) -> Error {
    let path = storage.path(name);
    match fault {
        HeaderFault::Bad(reason) => Error::corrupt(path, 0, None, reason),
        HeaderFault::Version(found) => Error::UnsupportedVersion {
            path,
            what: "format".into(),
            found,
            supported: u32::from(crate::format::FORMAT_VERSION),
        },
    }
}

/// The manifest of an open store.
pub(crate) struct ManifestFile {
    storage: Arc<dyn Storage>,
    /// `None` where a copy is missing and the disk was too full to create it again.
    files: [Option<NamedFile>; 2],
    current: Manifest,
    /// The file that holds the current manifest. The next publication overwrites the other one.
    slot: usize,
}

impl ManifestFile {
    /// Creates both copies of a new store. They survive power loss when it returns.
    pub(crate) fn create(storage: Arc<dyn Storage>, manifest: Manifest) -> Result<ManifestFile> {
        for name in names::MANIFESTS {
            Self::create_copy(&*storage, name, &manifest)?;
        }
        Self::open(storage, manifest, 0)
    }

    /// Writes a whole copy in place of one that is missing or damaged: create a temporary file,
    /// write, sync, rename, sync the directory.
    fn create_copy(storage: &dyn Storage, name: &str, manifest: &Manifest) -> Result<()> {
        let temp = names::temp(name);
        let written = (|| {
            let file = NamedFile::create_anew(storage, &temp)?;
            file.write_all_at(&encode(storage, manifest)?, 0)?;
            file.sync_all()?;
            storage.rename_file(&temp, name)
        })();
        if let Err(error) = written {
            // best effort: the next open removes what is left
            let _ = storage.remove(&temp);
            return Err(full_if_out_of_space(error));
        }
        storage.sync_names()
    }

    /// Opens both copies of an existing store for publication. It creates a missing copy, so that
    /// later publications need no space. On a full disk, the first publication that finds space
    /// does so. `slot` is the place of the current one in [`names::MANIFESTS`].
    pub(crate) fn open(storage: Arc<dyn Storage>, current: Manifest, slot: usize) -> Result<ManifestFile> {
        let open = |name: &str| -> Result<Option<NamedFile>> {
            match NamedFile::open(&*storage, name, OpenMode::ReadWrite) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => return other.map(Some),
            }
            // with a counter of zero it never becomes current beside the whole copy
            match Self::create_copy(&*storage, name, &Manifest { counter: 0, ..current.clone() }) {
                Err(error) if error.is_full() => Ok(None),
                Err(error) => Err(error),
                Ok(()) => NamedFile::open(&*storage, name, OpenMode::ReadWrite).map(Some),
            }
        };
        let [first, second] = names::MANIFESTS;
        let files = [open(first)?, open(second)?];
        Ok(ManifestFile { storage, files, current, slot })
    }

    /// The current manifest.
    pub(crate) fn current(&self) -> &Manifest {
        &self.current
    }

    /// Sets the shape of the machine's types. The next publication makes it durable.
    pub(crate) fn set_shape(&mut self, shape: Vec<u8>) {
        self.current.shape = shape;
    }

    /// Checks that the names of the copies still lead to the files that are open here. A
    /// publication in another file would not be found by the next open.
    ///
    /// # Errors
    /// [`Error::Io`] if a copy was removed or replaced. A name that cannot be looked up proves
    /// nothing.
    pub(crate) fn check_names(&self) -> Result<()> {
        for (name, file) in names::MANIFESTS.iter().zip(&self.files) {
            let Some(file) = file else { continue };
            if self.storage.is_named(name, &**file.file()).is_ok_and(|named| !named) {
                let lost = "another program removed or replaced it, so the next open would not find what is published";
                return Err(Error::io("keep", file.path().to_owned(), io::Error::other(lost)));
            }
        }
        Ok(())
    }

    /// Applies `change` to the manifest and publishes the result.
    ///
    /// When it returns `Ok`, the new manifest survives power loss. When it fails, either the old or
    /// the new one does.
    ///
    /// # Errors
    /// [`Error::Full`] where a missing copy had to be created and there is no space; I/O errors; those
    /// of [`ManifestFile::check_names`].
    pub(crate) fn publish(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.check_names()?;
        let mut next = self.current.clone();
        change(&mut next);
        next.counter = self.current.counter.saturating_add(1);
        debug_assert_eq!(next.store, self.current.store, "a publication keeps the store's identity");
        debug_assert!(next.epoch >= self.current.epoch, "the epoch never goes back");
        let slot = usize::from(self.slot == 0);
        let (name, file) = match (&names::MANIFESTS, &mut self.files) {
            ([_, second], [_, file]) if slot == 1 => (second, file),
            ([first, _], [file, _]) => (first, file),
        };
        let storage = &*self.storage;
        if let Some(file) = file {
            let block = encode(storage, &next)?;
            file.write_all_at(&block, 0).map_err(full_if_out_of_space)?;
            file.sync_all()?;
        } else {
            Self::create_copy(storage, name, &next)?;
            *file = Some(NamedFile::open(storage, name, OpenMode::ReadWrite)?);
        }
        self.current = next;
        self.slot = slot;
        // again, because the names may have changed during the write
        self.check_names()
    }
}

fn full_if_out_of_space(error: Error) -> Error {
    error.full_if_out_of_space("a copy of the manifest")
}

/// A copy as its file holds it: the manifest, then zeros to the end of the device's block, which no
/// other data shares.
fn encode(storage: &dyn Storage, manifest: &Manifest) -> Result<Vec<u8>> {
    let mut block = vec![0; MANIFEST_BYTES.max(storage.block_bytes() as usize)];
    let copy = block.get_mut(..MANIFEST_BYTES).unwrap_or_default();
    manifest.encode(copy).ok_or_else(|| Error::InvalidArgument {
        reason: format!("the manifest of {} does not fit", storage.path("").display()).into(),
    })?;
    Ok(block)
}
