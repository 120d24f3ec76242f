//! Commit watermarks: how far the log must be durable before an answer about a key may be returned.
//!
//! A commit releases its locks when its record is appended, not when the record is durable. So a
//! reader may see state that a power loss would take back. It must wait until the commits that it
//! saw are durable. A fixed table of atomics, indexed by the hash of the key, holds the LSN past
//! the last commit at that key. The values only grow, and no entry is ever removed. Two keys with
//! the same slot cost at most an unnecessary wait. The waiting itself is done elsewhere.

use crate::durability::Durability;
use crate::ids::Lsn;
use crate::io::sync::{AtomicU64, Ordering};
use crate::machine::{Access, Extent, Footprint};
use crate::txn::hash;

// a model has few, because its checker keeps a history of each atomic
const SLOTS: usize = if cfg!(loom) { 2 } else { 4096 };

/// How far the log must be durable and written before an answer may be returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DurabilityBarrier {
    /// The durable LSN must reach this: then everything below it survives power loss.
    pub(crate) durable: Lsn,
    /// The written LSN must reach this: then everything below it survives a kill of the process.
    /// The commits concerned asked for no more than that.
    pub(crate) written: Lsn,
}

impl DurabilityBarrier {
    /// The barrier that satisfies both.
    pub(crate) fn and(self, other: DurabilityBarrier) -> DurabilityBarrier {
        DurabilityBarrier { durable: self.durable.max(other.durable), written: self.written.max(other.written) }
    }
}

/// The slots of the keys that a transaction has written. Its memory is bounded, however many keys
/// the transaction writes.
#[derive(Debug, Default)]
pub(crate) struct WrittenSlots {
    /// The slots, in ascending order.
    keys: Vec<u16>,
    /// Whether a range or the whole state was written.
    wide: bool,
}

impl WrittenSlots {
    /// Adds the claims of a footprint that write.
    pub(crate) fn add(&mut self, footprint: &Footprint) {
        for claim in footprint.claims().iter().filter(|c| c.access == Access::Exclusive) {
            match &claim.extent {
                Extent::Key(key) => {
                    let slot = (hash(key) & (SLOTS - 1)) as u16;
                    if let Err(at) = self.keys.binary_search(&slot) {
                        self.keys.insert(at, slot);
                    }
                }
                Extent::Range(..) | Extent::Everything => self.wide = true,
            }
        }
    }
}

/// The highest LSN committed at each key.
struct Slots {
    slots: Box<[AtomicU64]>,
    /// The highest LSN of commits that wrote a range or the whole state. It counts for every key.
    wide: AtomicU64,
    /// The highest LSN of all commits.
    highest: AtomicU64,
}

impl Slots {
    fn new() -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Slots { slots, wide: AtomicU64::new(0), highest: AtomicU64::new(0) }
    }

    fn slot(&self, hash: usize) -> Option<&AtomicU64> {
        self.slots.get(hash & (SLOTS - 1))
    }

    fn note(&self, footprint: &Footprint, end: Lsn) {
        let mut wrote = false;
        for claim in footprint.claims().iter().filter(|c| c.access == Access::Exclusive) {
            wrote = true;
            let slot = match &claim.extent {
                Extent::Key(key) => self.slot(hash(key)),
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

    /// [`note`](Self::note) for the slots that a transaction has written.
    fn note_slots(&self, written: &WrittenSlots, end: Lsn) {
        let keys = written.keys.iter().filter_map(|slot| self.slot(usize::from(*slot)));
        for slot in keys.chain(written.wide.then_some(&self.wide)) {
            slot.fetch_max(end.get(), Ordering::AcqRel);
        }
        if written.wide || !written.keys.is_empty() {
            self.highest.fetch_max(end.get(), Ordering::AcqRel);
        }
    }

    /// [`note`](Self::note) for single keys, by their hashes.
    fn note_keys(&self, hashes: &[usize], end: Lsn) {
        for slot in hashes.iter().filter_map(|hash| self.slot(*hash)) {
            slot.fetch_max(end.get(), Ordering::AcqRel);
        }
        if !hashes.is_empty() {
            self.highest.fetch_max(end.get(), Ordering::AcqRel);
        }
    }

    fn at_key(&self, hash: usize) -> Lsn {
        let own = self.slot(hash).map_or(0, |slot| slot.load(Ordering::Acquire));
        Lsn::new(own.max(self.wide.load(Ordering::Acquire)))
    }

    fn anywhere(&self) -> Lsn {
        Lsn::new(self.highest.load(Ordering::Acquire))
    }
}

/// Two tables: one for commits that had to be durable, and one for commits that only had to be
/// handed to the operating system.
pub(crate) struct CommitWatermarks {
    durable: Slots,
    written: Slots,
}

impl CommitWatermarks {
    pub(crate) fn new() -> Self {
        CommitWatermarks { durable: Slots::new(), written: Slots::new() }
    }

    /// Records a commit: an answer about what the footprint writes needs everything below `end`,
    /// with this durability. The caller holds the lock that orders commits.
    pub(crate) fn note(&self, footprint: &Footprint, end: Lsn, durability: Durability) {
        match durability {
            Durability::Sync => self.durable.note(footprint, end),
            Durability::Interval(_) | Durability::Os => self.written.note(footprint, end),
        }
    }

    /// [`note`](Self::note) for the slots that a transaction has written.
    pub(crate) fn note_slots(&self, written: &WrittenSlots, end: Lsn, durability: Durability) {
        match durability {
            Durability::Sync => self.durable.note_slots(written, end),
            Durability::Interval(_) | Durability::Os => self.written.note_slots(written, end),
        }
    }

    /// [`note`](Self::note) for written keys, by their [`hash`]es.
    pub(crate) fn note_keys(&self, hashes: &[usize], end: Lsn, durability: Durability) {
        match durability {
            Durability::Sync => self.durable.note_keys(hashes, end),
            Durability::Interval(_) | Durability::Os => self.written.note_keys(hashes, end),
        }
    }

    /// The barrier for an answer about keys, by their [`hash`]es.
    pub(crate) fn needed_for_keys(&self, hashes: &[usize]) -> DurabilityBarrier {
        hashes.iter().map(|hash| self.needed_for_hash(*hash)).fold(DurabilityBarrier::default(), DurabilityBarrier::and)
    }

    /// The barrier for an answer about one key.
    pub(crate) fn needed_for_key(&self, key: &[u8]) -> DurabilityBarrier {
        self.needed_for_hash(hash(key))
    }

    fn needed_for_hash(&self, hash: usize) -> DurabilityBarrier {
        DurabilityBarrier { durable: self.durable.at_key(hash), written: self.written.at_key(hash) }
    }

    /// The barrier for an answer about a footprint.
    pub(crate) fn needed_for(&self, footprint: &Footprint) -> DurabilityBarrier {
        let needed = footprint.claims().iter().map(|claim| match &claim.extent {
            Extent::Key(key) => self.needed_for_key(key),
            Extent::Range(..) | Extent::Everything => self.needed_for_all(),
        });
        needed.fold(DurabilityBarrier::default(), DurabilityBarrier::and)
    }

    /// The barrier for an answer about the whole state.
    pub(crate) fn needed_for_all(&self) -> DurabilityBarrier {
        DurabilityBarrier { durable: self.durable.anywhere(), written: self.written.anywhere() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(lsn: u64) -> DurabilityBarrier {
        DurabilityBarrier { durable: Lsn::new(lsn), written: Lsn::ZERO }
    }

    #[test]
    fn a_read_needs_what_was_last_committed_there_and_nothing_else() {
        let hardening = CommitWatermarks::new();
        let wrote = |key: &[u8]| Footprint::key(Access::Exclusive, key);
        hardening.note(&wrote(b"a"), Lsn::new(10), Durability::Sync);
        hardening.note(&Footprint::key(Access::Shared, b"b"), Lsn::new(20), Durability::Sync);
        assert_eq!(hardening.needed_for_key(b"a"), durable(10));
        assert_eq!(hardening.needed_for_key(b"b"), DurabilityBarrier::default());
        assert_eq!(hardening.needed_for(&Footprint::range(Access::Shared, "x"..)), durable(10));
        hardening.note(&Footprint::everything(Access::Exclusive), Lsn::new(30), Durability::Sync);
        assert_eq!(hardening.needed_for_key(b"b"), durable(30));
        hardening.note(&wrote(b"b"), Lsn::new(40), Durability::Os);
        assert_eq!(hardening.needed_for_key(b"b"), DurabilityBarrier { durable: Lsn::new(30), written: Lsn::new(40) });
    }

    #[test]
    fn slots_that_a_transaction_has_written_are_what_its_footprints_are() {
        let (by_slot, by_footprint) = (CommitWatermarks::new(), CommitWatermarks::new());
        let mut written = WrittenSlots::default();
        by_slot.note_slots(&written, Lsn::new(5), Durability::Sync);
        assert_eq!(by_slot.needed_for_all(), DurabilityBarrier::default(), "nothing was written");
        let keys =
            Footprint::key(Access::Exclusive, b"b").and_key(Access::Shared, b"s").and_key(Access::Exclusive, b"a");
        for (n, footprint) in (1..).zip([keys.clone(), keys, Footprint::range(Access::Exclusive, "x"..)]) {
            written.add(&footprint);
            by_slot.note_slots(&written, Lsn::new(n * 10), Durability::Sync);
            by_footprint.note(&Footprint::key(Access::Exclusive, b"a"), Lsn::new(n * 10), Durability::Sync);
            by_footprint.note(&Footprint::key(Access::Exclusive, b"b"), Lsn::new(n * 10), Durability::Sync);
            by_footprint.note(&footprint, Lsn::new(n * 10), Durability::Sync);
            for key in [b"a", b"b", b"s"] {
                assert_eq!(by_slot.needed_for_key(key), by_footprint.needed_for_key(key));
            }
            assert_eq!(by_slot.needed_for_all(), by_footprint.needed_for_all());
        }
        (0..100_000u32).for_each(|n| written.add(&Footprint::key(Access::Exclusive, &n.to_le_bytes())));
        assert!(written.keys.len() <= SLOTS);
    }

    #[test]
    fn keys_by_their_hashes_are_what_a_footprint_of_them_is() {
        let (by_hash, by_footprint) = (CommitWatermarks::new(), CommitWatermarks::new());
        let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
        for (n, durability) in (1..).zip([Durability::Sync, Durability::Os]) {
            let hashes = keys.map(hash);
            by_hash.note_keys(&hashes[..2], Lsn::new(n * 10), durability);
            let footprint = Footprint::key(Access::Exclusive, b"a").and_key(Access::Exclusive, b"b");
            by_footprint.note(&footprint, Lsn::new(n * 10), durability);
            for (key, hash) in keys.iter().zip(hashes) {
                assert_eq!(by_hash.needed_for_keys(&[hash]), by_footprint.needed_for_key(key));
            }
            assert_eq!(by_hash.needed_for_keys(&hashes), by_footprint.needed_for(&footprint));
            assert_eq!(by_hash.needed_for_all(), by_footprint.needed_for_all());
        }
        by_hash.note_keys(&[], Lsn::new(90), Durability::Sync);
        assert_eq!(by_hash.needed_for_all(), by_footprint.needed_for_all());
    }
}
