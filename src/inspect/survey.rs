//! The figures of a store's files, without reading what is in them.

use super::attach;
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::io::sync::Arc;
use crate::io::{OpenMode, Storage};
use crate::store::layout as names;
use crate::wal::scan::OpenSegment;

/// What files a store has, and what its root pointer says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// Whose store it is; `None` where no manifest can be read.
    pub machine: Option<MachineTag>,
    /// The store's name.
    pub store: Option<StoreId>,
    /// How often it has been opened.
    pub epoch: Option<Epoch>,
    /// The oldest LSN that recovery may need.
    pub log_start: Option<Lsn>,
    /// The block that frames are padded to, in bytes.
    pub block_bytes: Option<u32>,
    /// Whether it was closed; where its log ended then.
    pub clean_end: Option<Lsn>,
    /// The snapshots that the manifest names, the newest first.
    pub snapshots: Vec<SnapshotFigures>,
    /// The log's segments, the oldest first.
    pub segments: Vec<SegmentFigures>,
    /// Segments ready for use: how many, and their bytes.
    pub spares: (usize, u64),
    /// Files that are none of the store's.
    pub foreign: Vec<String>,
    /// What is wrong with a copy of the manifest.
    pub manifest_faults: Vec<Error>,
}

/// A snapshot file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotFigures {
    /// The state's LSN.
    pub lsn: Lsn,
    /// Its length in bytes, as the manifest has it.
    pub file_bytes: u64,
}

/// A segment file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SegmentFigures {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: SegmentId,
    /// The LSN of its first frame.
    pub base: Lsn,
    /// Its length in bytes.
    pub file_bytes: u64,
    /// Which open of the store wrote it; `None` where its header is damaged.
    pub epoch: Option<Epoch>,
}

/// Lists a store's files and reads its manifest and segment headers.
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Locked`], [`Error::Corrupt`] where neither a manifest nor a segment is left, and I/O errors.
pub fn survey(storage: Arc<dyn Storage>) -> Result<Survey> {
    let store_dir = attach(storage)?;
    let storage = &*store_dir.storage;
    let mut segments = Vec::new();
    for file in &store_dir.segments {
        let io = |operation, e| Error::io(operation, storage.path(&file.name), e);
        let handle = storage.open(&file.name, OpenMode::Read).map_err(|e| io("open", e))?;
        let file_bytes = handle.len().map_err(|e| io("measure", e))?;
        let epoch = OpenSegment::open(storage, file).ok().map(|segment| segment.header.epoch);
        segments.push(SegmentFigures { name: file.name.clone(), id: file.id, base: file.base, file_bytes, epoch });
    }
    let manifest = store_dir.manifest.as_ref();
    let spare_bytes = store_dir.spares.iter().map(|spare| spare.file_bytes).fold(0, u64::saturating_add);
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
        spares: (store_dir.spares.len(), spare_bytes),
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
