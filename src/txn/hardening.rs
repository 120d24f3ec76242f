//! What a read must wait for: the highest LSN committed at each key with a durability to wait for.
//!
//! Locks go when a commit record is appended, not when it is durable, so a reader may see state that power loss would
//! take back. It waits until what it saw has hardened. A fixed table of atomics, indexed by the hash of the key, holds
//! the LSN behind the last such commit; values only grow and nothing is ever removed. A collision costs a
//! short wait, nothing else. It knows nothing of who waits, or how.

use crate::format::Lsn;
use crate::machine::{Access, Extent, Footprint};
use crate::sync::{AtomicU64, Ordering};

const SLOTS: usize = 4096;

/// The table.
pub(crate) struct Hardening {
    slots: Box<[AtomicU64]>,
    /// Of commits that wrote a range or everything: they bear on every key.
    wide: AtomicU64,
    /// The highest of all.
    highest: AtomicU64,
}

impl Hardening {
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Hardening { slots, wide: AtomicU64::new(0), highest: AtomicU64::new(0) }
    }

    fn slot(&self, key: &[u8]) -> Option<&AtomicU64> {
        self.slots.get(crc32fast::hash(key) as usize & (SLOTS - 1))
    }

    /// Notes that what the footprint writes hangs on everything below `end` being durable. Under the lock that orders commits.
    pub(crate) fn note(&self, footprint: &Footprint, end: Lsn) {
        let mut wrote = false;
        for claim in footprint.claims().iter().filter(|c| c.access == Access::Exclusive) {
            wrote = true;
            let slot = match &claim.extent {
                Extent::Key(key) => self.slot(key),
                Extent::Range(..) | Extent::Everything => Some(&self.wide),
            };
            if let Some(slot) = slot {
                slot.fetch_max(end.get(), Ordering::AcqRel);
            }
        }
        if wrote {
            self.highest.fetch_max(end.get(), Ordering::AcqRel);
        }
    }

    /// What must be durable before an answer about this one key may leave.
    pub(crate) fn needed_for_key(&self, key: &[u8]) -> Lsn {
        let own = self.slot(key).map_or(0, |slot| slot.load(Ordering::Acquire));
        Lsn::new(own.max(self.wide.load(Ordering::Acquire)))
    }

    /// What must be durable before an answer about this footprint may leave.
    pub(crate) fn needed_for(&self, footprint: &Footprint) -> Lsn {
        let needed = footprint.claims().iter().map(|claim| match &claim.extent {
            Extent::Key(key) => self.needed_for_key(key),
            Extent::Range(..) | Extent::Everything => self.needed_for_all(),
        });
        needed.max().unwrap_or(Lsn::ZERO)
    }

    /// What must be durable before an answer about the whole state may leave.
    pub(crate) fn needed_for_all(&self) -> Lsn {
        Lsn::new(self.highest.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_needs_what_was_last_committed_there_and_nothing_else() {
        let hardening = Hardening::new();
        let wrote = |key: &[u8]| Footprint::key(Access::Exclusive, key);
        hardening.note(&wrote(b"a"), Lsn::new(10));
        hardening.note(&Footprint::key(Access::Shared, b"b"), Lsn::new(20));
        assert_eq!(hardening.needed_for_key(b"a"), Lsn::new(10));
        assert_eq!(hardening.needed_for_key(b"b"), Lsn::ZERO);
        assert_eq!(hardening.needed_for(&Footprint::range(Access::Shared, "x"..)), Lsn::new(10));
        hardening.note(&Footprint::everything(Access::Exclusive), Lsn::new(30));
        assert_eq!(hardening.needed_for_key(b"b"), Lsn::new(30));
    }
}
