//! The manifest's two copies on disk: reading the one that counts, and replacing the other.
//!
//! A publication writes the copy that does not count, so a crash in its middle leaves the one that does. The
//! counter moves only when a write was completed: after a failure the same copy is written again.
//! It knows nothing of what the manifest points to.

use crate::error::{Error, Result, out_of_space};
use crate::format::HeaderFault;
use crate::format::manifest::{MANIFEST_BYTES, Manifest};
use crate::io::sync::Arc;
use crate::io::{AlignedBuf, File, OpenMode, Storage, create_anew, read_device_full, write_all_at};
use crate::store::layout as names;
use std::io;

/// What stands in the two copies.
#[derive(Debug)]
pub(crate) struct Copies {
    /// The one that counts, if any is whole.
    pub(crate) current: Option<Manifest>,
    /// A sentence for each copy that is not whole though it is there.
    pub(crate) faults: Vec<Error>,
    /// How many copies are there.
    pub(crate) present: usize,
}

/// Reads both copies as the device holds them.
pub(crate) fn read_copies(storage: &dyn Storage, names_present: &[String]) -> Result<Copies> {
    let mut copies = Copies { current: None, faults: Vec::new(), present: 0 };
    for (_, copy) in read_each(storage, names_present)? {
        copies.present = copies.present.saturating_add(1);
        match copy {
            Ok(manifest) => {
                if copies.current.as_ref().is_none_or(|m| m.counter < manifest.counter) {
                    copies.current = Some(manifest);
                }
            }
            // a newer program's root pointer: the older copy beside it does not stand for what that program did
            Err(fault @ Error::UnsupportedVersion { .. }) => return Err(fault),
            Err(fault) => copies.faults.push(fault),
        }
    }
    Ok(copies)
}

/// What stands in each copy that is there, or what is wrong with it.
pub(crate) fn read_each(
    storage: &dyn Storage,
    names_present: &[String],
) -> Result<Vec<(&'static str, Result<Manifest>)>> {
    let present = names::MANIFESTS.into_iter().filter(|name| names_present.iter().any(|n| n == name));
    present.map(|name| Ok((name, read_copy(storage, name)?.map_err(|f| header_error(storage, name, f))))).collect()
}

fn read_copy(storage: &dyn Storage, name: &str) -> Result<Result<Manifest, HeaderFault>> {
    let io = |operation, e| Error::io(operation, storage.path(name), e);
    let file = storage.open(name, OpenMode::Read).map_err(|e| io("open", e))?;
    let block = MANIFEST_BYTES.max(storage.block_bytes() as usize);
    let mut buf = AlignedBuf::zeroed(block).map_err(|e| io("read", e))?;
    let read = read_device_full(&*file, &mut buf, 0).map_err(|e| io("read", e))?;
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
    /// `None` where a copy is missing, and the disk was too full to make it anew.
    files: [Option<Arc<dyn File>>; 2],
    current: Manifest,
}

impl ManifestFile {
    /// Creates both copies of a new store. When it returns, the first survives power loss.
    pub(crate) fn create(storage: Arc<dyn Storage>, manifest: Manifest) -> Result<ManifestFile> {
        for name in names::MANIFESTS {
            Self::create_copy(&*storage, name, &manifest)?;
        }
        Self::open(storage, manifest)
    }

    /// Puts a whole copy in place of one that is missing or damaged: temporary file, write, sync, rename, sync of the directory.
    fn create_copy(storage: &dyn Storage, name: &str, manifest: &Manifest) -> Result<()> {
        let temp = names::temp(name);
        let fail = |operation, e| full_or_io(storage, operation, name, e);
        let written = (|| {
            let file = create_anew(storage, &temp).map_err(|(operation, e)| fail(operation, e))?;
            let block = encode(storage, manifest)?;
            write_all_at(&*file, &block, 0).map_err(|e| fail("write", e))?;
            file.sync_all().map_err(|e| fail("sync", e))?;
            storage.rename(&temp, name).map_err(|e| fail("rename", e))
        })();
        if let Err(error) = written {
            // best effort: a left-over is removed at the next open
            let _ = storage.remove(&temp);
            return Err(error);
        }
        storage.sync_dir().map_err(|e| Error::io("sync", storage.path(""), e))
    }

    /// Opens the copies of an existing store for publication. A copy that is missing is made anew, so that later
    /// publications need no space; on a full disk that is left to the first one that finds some.
    pub(crate) fn open(storage: Arc<dyn Storage>, current: Manifest) -> Result<ManifestFile> {
        let open = |name: &str| -> Result<Option<Arc<dyn File>>> {
            let opened = match storage.open(name, OpenMode::ReadWrite) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    // a counter of zero never counts against the whole copy
                    match Self::create_copy(&*storage, name, &Manifest { counter: 0, ..current.clone() }) {
                        Err(error) if error.is_full() => return Ok(None),
                        other => other?,
                    }
                    storage.open(name, OpenMode::ReadWrite)
                }
                other => other,
            };
            opened.map(Some).map_err(|e| Error::io("open", storage.path(name), e))
        };
        let [first, second] = names::MANIFESTS;
        let files = [open(first)?, open(second)?];
        Ok(ManifestFile { storage, files, current })
    }

    /// What counts now.
    pub(crate) fn current(&self) -> &Manifest {
        &self.current
    }

    /// Replaces the manifest by what `change` makes of it. When it returns `Ok` the new one survives power loss;
    /// when it fails the old one does, or the new. It is [`Error::Full`] where a copy had to be made anew and there is no space.
    pub(crate) fn publish(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut next = self.current.clone();
        change(&mut next);
        next.counter = self.current.counter.saturating_add(1);
        let odd = next.counter & 1 == 1;
        let (name, file) = match (&names::MANIFESTS, &mut self.files) {
            ([_, second], [_, file]) if odd => (second, file),
            ([first, _], [file, _]) => (first, file),
        };
        let storage = &*self.storage;
        let io = |operation, e| Error::io(operation, storage.path(name), e);
        if let Some(file) = file {
            let block = encode(storage, &next)?;
            write_all_at(&**file, &block, 0).map_err(|e| full_or_io(storage, "write", name, e))?;
            file.sync_all().map_err(|e| io("sync", e))?;
        } else {
            Self::create_copy(storage, name, &next)?;
            *file = Some(storage.open(name, OpenMode::ReadWrite).map_err(|e| io("open", e))?);
        }
        self.current = next;
        Ok(())
    }
}

fn full_or_io(storage: &dyn Storage, operation: &'static str, name: &str, e: io::Error) -> Error {
    if out_of_space(&e) {
        return Error::Full { what: "a copy of the manifest", source: Some(Arc::new(e)) };
    }
    Error::io(operation, storage.path(name), e)
}

/// A copy as it stands in its file, which it shares no block of the device with anything else in: the manifest, then zeros.
fn encode(storage: &dyn Storage, manifest: &Manifest) -> Result<Vec<u8>> {
    let mut block = vec![0; MANIFEST_BYTES.max(storage.block_bytes() as usize)];
    let copy = block.get_mut(..MANIFEST_BYTES).unwrap_or_default();
    manifest.encode(copy).ok_or_else(|| Error::InvalidArgument {
        reason: format!("the manifest of {} does not fit", storage.path("").display()).into(),
    })?;
    Ok(block)
}
