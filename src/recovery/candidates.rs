//! The states that recovery may begin from, the best first.

use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::manifest::{SNAPSHOTS_KEPT, SnapshotEntry};
use crate::format::names;
use crate::storage::{AlignedBuf, OpenMode};
use crate::sync::Arc;
use crate::wal::attach::Attached;
use crate::wal::scan::Scanner;

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

/// Lists them. The manifest says which snapshots count. Without any manifest, those count that the valid log reaches.
pub(crate) fn list(attached: &Attached) -> Result<Vec<Candidate>> {
    if let Some(manifest) = &attached.manifest {
        let mut list: Vec<Candidate> = manifest.snapshots.iter().copied().map(Candidate::Snapshot).collect();
        if manifest.log_start == manifest.origin {
            list.push(Candidate::Origin(manifest.log_start));
        }
        return Ok(list);
    }
    let origin = attached.origin()?.map(Candidate::Origin);
    let Some(first) = attached.segments.first() else {
        return Ok(Vec::from_iter(origin));
    };
    let end = end_of_log(attached, first.base)?;
    let reached = attached.snapshots.iter().filter(|lsn| **lsn >= first.base && **lsn <= end).take(SNAPSHOTS_KEPT);
    let mut list = Vec::new();
    for &lsn in reached {
        let name = names::snapshot(lsn);
        let io = |operation, e| Error::io(operation, attached.storage.path(&name), e);
        let file = attached.storage.open(&name, OpenMode::Read).map_err(|e| io("open", e))?;
        let file_bytes = file.len().map_err(|e| io("measure", e))?;
        list.push(Candidate::Snapshot(SnapshotEntry { lsn, file_bytes }));
    }
    list.extend(origin);
    Ok(list)
}

fn end_of_log(attached: &Attached, start: Lsn) -> Result<Lsn> {
    let mut scanner = Scanner::new(attached, start)?;
    let fail = |e| Error::Full { what: "a read buffer", source: Some(Arc::new(e)) };
    let mut buf = AlignedBuf::with_capacity(0).map_err(fail)?;
    while let Some(chunk) = scanner.next_chunk(buf)? {
        buf = chunk.into_buf();
    }
    Ok(scanner.take_end()?.end)
}
