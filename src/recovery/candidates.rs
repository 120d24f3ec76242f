//! The states that recovery may start from, best first.

use crate::error::Result;
use crate::format::manifest::{SNAPSHOTS_KEPT, SnapshotEntry};
use crate::format::snapshot::{HEADER_BYTES, SnapshotHeader};
use crate::ids::{Epoch, Lsn};
use crate::io::{NamedFile, OpenMode};
use crate::store::layout as names;
use crate::store::open_dir::StoreDir;
use crate::wal::scan::{Scanner, Segment, oldest_usable, origin};

/// Where replay may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// At a snapshot.
    Snapshot(SnapshotEntry),
    /// With the empty state, at this LSN: the log goes back to its beginning.
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
    #[cfg(any(test, feature = "inspect"))]
    pub(crate) fn start(&self) -> Lsn {
        match self {
            Candidate::Snapshot(entry) => entry.lsn,
            Candidate::Origin(start) => *start,
        }
    }
}

/// Lists the candidates. The manifest names the snapshots that count. Without a manifest, a
/// snapshot counts if the valid log passes its LSN.
pub(crate) fn list(store_dir: &StoreDir) -> Result<Vec<Candidate>> {
    if let Some(manifest) = &store_dir.manifest {
        let mut list: Vec<Candidate> = manifest.snapshots.iter().copied().map(Candidate::Snapshot).collect();
        if manifest.log_start == manifest.origin {
            list.push(Candidate::Origin(manifest.log_start));
        }
        return Ok(list);
    }
    let origin = origin(store_dir)?.map(Candidate::Origin);
    let Some(first) = oldest_usable(store_dir)? else {
        return Ok(Vec::from_iter(origin));
    };
    let mut list = Vec::new();
    for lsn in passed(store_dir, first.header.base)?.into_iter().take(SNAPSHOTS_KEPT) {
        let file = NamedFile::open(&*store_dir.storage, &names::snapshot(lsn), OpenMode::Read)?;
        list.push(Candidate::Snapshot(SnapshotEntry { lsn, file_bytes: file.len()? }));
    }
    list.extend(origin);
    Ok(list)
}

/// The snapshots whose state the valid log passes, newest first.
///
/// A snapshot that was never published may hold what a later epoch cut off. The valid log then does
/// not pass its LSN, or passes it only within that later epoch, which used the LSN again.
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
        let header = Segment::read(&*store_dir.storage, file)?.header;
        // where nothing was cut before the first segment, its base is also the end of the log
        // before it
        let uncut = file.base == start && header.previous_end == start;
        pass(file.base, if uncut { Epoch::default() } else { header.epoch });
    }
    Ok(found.into_iter().filter_map(|(lsn, _, passed)| passed.then_some(lsn)).collect())
}

/// The epoch that wrote a snapshot. A damaged header counts as the newest epoch: loading the
/// snapshot then reports the damage.
pub(crate) fn epoch_of(store_dir: &StoreDir, lsn: Lsn) -> Result<Epoch> {
    let file = NamedFile::open(&*store_dir.storage, &names::snapshot(lsn), OpenMode::Read)?;
    let mut buf = file.buffer(HEADER_BYTES.max(store_dir.storage.block_bytes() as usize))?;
    let read = file.read_device_full(&mut buf, 0)?;
    let header = SnapshotHeader::decode(buf.get(..read.min(HEADER_BYTES)).unwrap_or_default());
    Ok(header.map_or(Epoch::new(u64::MAX), |header| header.epoch))
}
