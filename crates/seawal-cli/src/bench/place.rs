//! The directory of a measurement. It is removed afterwards; files that were there before are never
//! touched.

use super::super::demo::Temporary;
use super::super::failure::{Failure, Status};
use seawal::io::DiskStorage;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory to measure in.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A temporary directory, removed however this process ends.
    Temporary(Temporary),
    /// A new directory with the given name.
    Created,
    /// An empty directory that existed before.
    Found,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let what = format!("{what} {}", path.display());
    move |e| Failure::io(what, &e)
}

fn make(path: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(failed("create", path))
}

impl Place {
    /// Takes the given directory, which must be new or empty, or creates a temporary one in the
    /// current directory.
    pub(super) fn new(named: Option<&Path>) -> Result<Place, Failure> {
        let Some(path) = named else {
            let here = std::env::current_dir().map_err(|e| Failure::io("find the current directory", &e))?;
            let temporary = Temporary::new_in(&here, "seawal-bench")?;
            return Ok(Place { path: temporary.path().to_path_buf(), kind: Kind::Temporary(temporary) });
        };
        let path = path.to_path_buf();
        match std::fs::read_dir(&path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(Place { path, kind: Kind::Found }),
            Ok(false) => {
                let text = format!("{} is not empty; name a new or an empty directory", path.display());
                Err(Failure::new(Status::Usage, text))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                make(&path)?;
                Ok(Place { path, kind: Kind::Created })
            }
            Err(e) => Err(failed("open", &path)(e)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The subdirectory for a store.
    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The subdirectory for the floor.
    pub(super) fn floor(&self) -> PathBuf {
        self.path.join("floor")
    }

    /// Removes everything that the measurement created.
    pub(super) fn remove(self) -> Result<(), Failure> {
        if let Kind::Temporary(temporary) = self.kind {
            return temporary.remove();
        }
        for made in [self.store(), self.floor()] {
            match std::fs::remove_dir_all(&made) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove", &made)(e)),
                _ => {}
            }
        }
        match self.kind {
            Kind::Created => std::fs::remove_dir(&self.path).map_err(failed("remove", &self.path)),
            _ => Ok(()),
        }
    }
}

/// Opens a directory through the storage layer of the store.
pub(super) fn open_disk(dir: &Path) -> Result<DiskStorage, Failure> {
    DiskStorage::open(dir, seawal::io::Create::IfMissing)
        .map_err(|e| Failure::io(format_args!("open {}", dir.display()), &e))
}
