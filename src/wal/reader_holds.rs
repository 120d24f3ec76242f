//! Holds that keep segments from being recycled before a reader has read them.

use crate::ids::Lsn;
use crate::io::sync::{Arc, Mutex};
use crate::store::open_dir::StoreDir;
use std::collections::BTreeMap;

/// The segments of an open log, as a directory to read. None of them is recycled while this lives.
pub(crate) struct HeldSegments {
    pub(crate) store_dir: StoreDir,
    /// Everything below it is durable.
    pub(crate) upto: Lsn,
    pub(super) hold: ReaderHold,
}

impl HeldSegments {
    /// Lets segments below a position be recycled.
    pub(crate) fn advance(&self, to: Lsn) {
        self.hold.advance(to);
    }
}

/// The positions that live readers have reached. Segments from the lowest one on are not recycled.
///
/// Recycling asks for the lowest position under the lock of the list of segments. A reader holds
/// everything before it reads that list, so it never lists a segment that is recycled afterwards.
#[derive(Default)]
pub(super) struct ReaderHolds {
    // never held over I/O
    positions: Mutex<Positions>,
}

#[derive(Default)]
struct Positions {
    next_id: u64,
    by_id: BTreeMap<u64, Lsn>,
}

impl ReaderHolds {
    /// Holds everything from a position on, until the hold is dropped.
    pub(super) fn hold(self: &Arc<Self>, from: Lsn) -> ReaderHold {
        let mut positions = self.positions.lock();
        let id = positions.next_id;
        positions.next_id = id.wrapping_add(1);
        let before = positions.by_id.insert(id, from);
        debug_assert!(before.is_none(), "two readers have the number {id}");
        ReaderHold { holds: self.clone(), id }
    }

    /// The lowest position that a reader has reached; `None` without readers.
    pub(super) fn lowest(&self) -> Option<Lsn> {
        self.positions.lock().by_id.values().copied().min()
    }
}

/// One reader's hold.
pub(in crate::wal) struct ReaderHold {
    holds: Arc<ReaderHolds>,
    id: u64,
}

impl ReaderHold {
    /// Releases everything below a position.
    pub(super) fn advance(&self, to: Lsn) {
        if let Some(from) = self.holds.positions.lock().by_id.get_mut(&self.id) {
            debug_assert!(*from <= to, "a reader goes back from {from} to {to}");
            *from = to.max(*from);
        }
    }
}

impl Drop for ReaderHold {
    fn drop(&mut self) {
        let held = self.holds.positions.lock().by_id.remove(&self.id);
        debug_assert!(held.is_some(), "a reader's hold was dropped twice");
    }
}
