//! The states that recovery may begin from, the best first.

use crate::error::{Error, Result};
use crate::format::manifest::{SNAPSHOTS_KEPT, SnapshotEntry};
use crate::format::names;
use crate::format::snapshot::{HEADER_BYTES, SnapshotHeader};
use crate::format::{Epoch, Lsn};
use crate::storage::{AlignedBuf, OpenMode, read_device_full};
use crate::wal::attach::Attached;
use crate::wal::scan::Scanner;
use crate::wal::segments::OpenSegment;

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
    #[cfg(any(test, feature = "inspect"))]
    pub(crate) fn start(&self) -> Lsn {
        match self {
            Candidate::Snapshot(entry) => entry.lsn,
            Candidate::Origin(start) => *start,
        }
    }
}

/// Lists them. The manifest says which snapshots count. Without any manifest, those count that the valid log passed.
pub(crate) fn list(attached: &Attached) -> Result<Vec<Candidate>> {
    if let Some(manifest) = &attached.manifest {
        let mut list: Vec<Candidate> = manifest.snapshots.iter().copied().map(Candidate::Snapshot).collect();
        if manifest.log_start == manifest.origin {
            list.push(Candidate::Origin(manifest.log_start));
        }
        return Ok(list);
    }
    let origin = attached.origin()?.map(Candidate::Origin);
    let Some(first) = attached.oldest_usable()? else {
        return Ok(Vec::from_iter(origin));
    };
    let mut list = Vec::new();
    for lsn in passed(attached, first.header.base)?.into_iter().take(SNAPSHOTS_KEPT) {
        let name = names::snapshot(lsn);
        let io = |operation, e| Error::io(operation, attached.storage.path(&name), e);
        let file = attached.storage.open(&name, OpenMode::Read).map_err(|e| io("open", e))?;
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
fn passed(attached: &Attached, start: Lsn) -> Result<Vec<Lsn>> {
    let mut found = Vec::new();
    for &lsn in &attached.snapshots {
        found.push((lsn, epoch_of(attached, lsn)?, false));
    }
    let mut pass = |lsn: Lsn, oldest: Epoch| {
        let at = found.binary_search_by(|(snapshot, ..)| lsn.cmp(snapshot)).ok();
        if let Some((_, epoch, passed)) = at.and_then(|at| found.get_mut(at)) {
            *passed |= *epoch >= oldest;
        }
    };
    let mut scanner = Scanner::new(attached, start)?;
    while let Some(chunk) = scanner.next_chunk()? {
        chunk.frames().for_each(|frame| pass(frame.end(), frame.header.epoch));
        scanner.reuse(chunk);
    }
    scanner.take_end()?;
    for file in attached.segments.iter().filter(|file| file.base >= start) {
        let header = OpenSegment::open(&*attached.storage, file)?.header;
        // where nothing was cut before the first one, its base is also the end of the log before
        let uncut = file.base == start && header.previous_end == start;
        pass(file.base, if uncut { Epoch::default() } else { header.epoch });
    }
    Ok(found.into_iter().filter_map(|(lsn, _, passed)| passed.then_some(lsn)).collect())
}

/// The epoch that wrote a snapshot. One that cannot be read counts as the newest: it is found out when it is loaded.
pub(crate) fn epoch_of(attached: &Attached, lsn: Lsn) -> Result<Epoch> {
    let name = names::snapshot(lsn);
    let io = |operation, e| Error::io(operation, attached.storage.path(&name), e);
    let file = attached.storage.open(&name, OpenMode::Read).map_err(|e| io("open", e))?;
    let block = HEADER_BYTES.max(attached.storage.block_bytes() as usize);
    let mut buf = AlignedBuf::zeroed(block).map_err(|e| io("read", e))?;
    let read = read_device_full(&*file, &mut buf, 0).map_err(|e| io("read", e))?;
    let header = SnapshotHeader::decode(buf.get(..read.min(HEADER_BYTES)).unwrap_or_default());
    Ok(header.map_or(Epoch::new(u64::MAX), |header| header.epoch))
}
