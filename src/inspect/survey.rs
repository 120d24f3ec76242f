//! Lists a store's files, with their sizes, without reading their content.

use super::attach;
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::io::sync::Arc;
use crate::io::{OpenMode, Storage};
use crate::store::layout as names;
use crate::wal::scan::Segment;

/// The files of a store and the content of its manifest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// The machine that the store belongs to; `None` if no copy of the manifest is readable.
    pub machine: Option<MachineTag>,
    /// The store's random identifier.
    pub store: Option<StoreId>,
    /// The number of times that the store has been opened.
    pub epoch: Option<Epoch>,
    /// The oldest LSN that recovery may need.
    pub log_start: Option<Lsn>,
    /// The block size that frames are padded to, in bytes.
    pub block_bytes: Option<u32>,
    /// The end of the log if the store was closed; `None` if it is open or was killed.
    pub clean_end: Option<Lsn>,
    /// The snapshots that the manifest names, newest first.
    pub snapshots: Vec<SnapshotFigures>,
    /// The log's segments, oldest first.
    pub segments: Vec<SegmentFigures>,
    /// Preallocated segments: their number, and their total size in bytes.
    pub preallocated: (usize, u64),
    /// Files that do not belong to the store.
    pub foreign: Vec<String>,
    /// Damaged copies of the manifest.
    pub manifest_faults: Vec<Error>,
}

/// A snapshot file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotFigures {
    /// The LSN of the state in it.
    pub lsn: Lsn,
    /// The file's length according to the manifest, in bytes.
    pub file_bytes: u64,
}

/// A segment file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SegmentFigures {
    /// The file's name.
    pub name: String,
    /// The segment's number.
    pub id: SegmentId,
    /// The LSN of its first frame.
    pub base: Lsn,
    /// The file's length, in bytes.
    pub file_bytes: u64,
    /// The epoch (open of the store) that wrote it; `None` if its header is damaged.
    pub epoch: Option<Epoch>,
}

/// Lists a store's files and reads its manifest and segment headers.
///
/// # Errors
/// [`Error::NotAStore`]; [`Error::Locked`]; [`Error::Corrupt`] if neither a manifest nor a segment
/// header is readable; I/O errors.
pub fn survey(storage: Arc<dyn Storage>) -> Result<Survey> {
    let store_dir = attach(storage)?;
    let storage = &*store_dir.storage;
    let mut segments = Vec::new();
    for file in &store_dir.segments {
        let io = |operation, e| Error::io(operation, storage.path(&file.name), e);
        let handle = storage.open(&file.name, OpenMode::Read).map_err(|e| io("open", e))?;
        let file_bytes = handle.len().map_err(|e| io("measure", e))?;
        let epoch = Segment::read(storage, file).ok().map(|segment| segment.header.epoch);
        segments.push(SegmentFigures { name: file.name.clone(), id: file.id, base: file.base, file_bytes, epoch });
    }
    let manifest = store_dir.manifest.as_ref();
    let spare_bytes = store_dir.preallocated.iter().map(|spare| spare.file_bytes).fold(0, u64::saturating_add);
    Ok(Survey {
        machine: super::machine_of(&store_dir),
        store: manifest.map(|m| m.store),
        epoch: manifest.map(|m| m.epoch),
        log_start: manifest.map(|m| m.log_start),
        block_bytes: manifest.map(|m| m.block_bytes),
        clean_end: manifest.map(|m| m.clean_end).filter(|end| *end != Lsn::ZERO),
        snapshots: manifest.map_or_else(Vec::new, |m| {
            m.snapshots.iter().map(|s| SnapshotFigures { lsn: s.lsn, file_bytes: s.file_bytes }).collect()
        }),
        segments,
        preallocated: (store_dir.preallocated.len(), spare_bytes),
        foreign: store_dir.foreign.clone(),
        manifest_faults: store_dir.manifest_faults.clone(),
    })
}

impl SnapshotFigures {
    /// The file's name.
    pub fn name(&self) -> String {
        names::snapshot(self.lsn)
    }
}
