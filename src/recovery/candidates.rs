//! The states that recovery may begin from, the best first.

use crate::error::{Error, Result};
use crate::format::manifest::{SNAPSHOTS_KEPT, SnapshotEntry};
use crate::format::snapshot::{HEADER_BYTES, SnapshotHeader};
use crate::ids::{Epoch, Lsn};
use crate::io::{AlignedBuf, OpenMode, read_device_full};
use crate::store::layout as names;
use crate::store::open_dir::StoreDir;
use crate::wal::scan::scanner::Scanner;
use crate::wal::scan::segment_set::OpenSegment;

/// Where replay may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// At a snapshot.
    Snapshot(SnapshotEntry),
    /// With the empty state, at this LSN: the log goes back to the beginning.
    Origin(Lsn),
}

impl Candidate {
    pub(crate) fn entry(&self) -> Option<SnapshotEntry> {
        match self {
            Candidate::Snapshot(entry) => Some(*entry),
            Candidate::Origin(_) => None,
        }
    }

    /// Where replay begins.
    pub(crate) fn start(&self) -> Lsn {
        match self {
            Candidate::Snapshot(entry) => entry.lsn,
            Candidate::Origin(start) => *start,
        }
    }
}

/// Lists them. The manifest says which snapshots count. Without any manifest, those count that the valid log passed.
pub(crate) fn list(store_dir: &StoreDir) -> Result<Vec<Candidate>> {
    if let Some(manifest) = &store_dir.manifest {
        let mut list: Vec<Candidate> = manifest.snapshots.iter().copied().map(Candidate::Snapshot).collect();
        if manifest.log_start == manifest.origin {
            list.push(Candidate::Origin(manifest.log_start));
        }
        return Ok(list);
    }
    let origin = store_dir.origin()?.map(Candidate::Origin);
    let Some(first) = store_dir.oldest_usable()? else {
        return Ok(Vec::from_iter(origin));
    };
    let mut list = Vec::new();
    for lsn in passed(store_dir, first.header.base)?.into_iter().take(SNAPSHOTS_KEPT) {
        let name = names::snapshot(lsn);
        let io = |operation, e| Error::io(operation, store_dir.storage.path(&name), e);
        let file = store_dir.storage.open(&name, OpenMode::Read).map_err(|e| io("open", e))?;
        let file_bytes = file.len().map_err(|e| io("measure", e))?;
        list.push(Candidate::Snapshot(SnapshotEntry { lsn, file_bytes }));
    }
    list.extend(origin);
    Ok(list)
}

/// Which snapshots, the newest first, hold a state that the valid log passed.
///
/// One that was never published may hold what a later epoch cut off. Then the valid log does not pass its LSN, or only
/// within that later epoch, which used the LSN again.
fn passed(store_dir: &StoreDir, start: Lsn) -> Result<Vec<Lsn>> {
    let mut found = Vec::new();
    for &lsn in &store_dir.snapshots {
        found.push((lsn, epoch_of(store_dir, lsn)?, false));
    }
    let mut pass = |lsn: Lsn, oldest: Epoch| {
        let at = found.binary_search_by(|(snapshot, ..)| lsn.cmp(snapshot)).ok();
        if let Some((_, epoch, passed)) = at.and_then(|at| found.get_mut(at)) {
            *passed |= *epoch >= oldest;
        }
    };
    let mut scanner = Scanner::new(store_dir, start)?;
    while let Some(chunk) = scanner.next_chunk()? {
        chunk.frames().for_each(|frame| pass(frame.end(), frame.header.epoch));
        scanner.reuse(chunk);
    }
    scanner.take_end()?;
    for file in store_dir.segments.iter().filter(|file| file.base >= start) {
        let header = OpenSegment::open(&*store_dir.storage, file)?.header;
        // where nothing was cut before the first one, its base is also the end of the log before
        let uncut = file.base == start && header.previous_end == start;
        pass(file.base, if uncut { Epoch::default() } else { header.epoch });
    }
    Ok(found.into_iter().filter_map(|(lsn, _, passed)| passed.then_some(lsn)).collect())
}

/// The epoch that wrote a snapshot. One that cannot be read counts as the newest: it is found out when it is loaded.
pub(crate) fn epoch_of(store_dir: &StoreDir, lsn: Lsn) -> Result<Epoch> {
    let name = names::snapshot(lsn);
    let io = |operation, e| Error::io(operation, store_dir.storage.path(&name), e);
    let file = store_dir.storage.open(&name, OpenMode::Read).map_err(|e| io("open", e))?;
    let block = HEADER_BYTES.max(store_dir.storage.block_bytes() as usize);
    let mut buf = AlignedBuf::zeroed(block).map_err(|e| io("read", e))?;
    let read = read_device_full(&*file, &mut buf, 0).map_err(|e| io("read", e))?;
    let header = SnapshotHeader::decode(buf.get(..read.min(HEADER_BYTES)).unwrap_or_default());
    Ok(header.map_or(Epoch::new(u64::MAX), |header| header.epoch))
}
