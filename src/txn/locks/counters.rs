//! The number of held claims, by which most questions are answered without the lock of the table.
//!
//! Claims on keys are counted by hash in a fixed number of slots. Claims on ranges and on
//! everything share one count, and all claims together have a total. Several keys share a slot, so
//! a count above zero proves nothing about one of them. A count of zero proves that none of the
//! slot's keys is held.
//!
//! Memory ordering:
//!
//! - An owner raises counts before its acquisition returns, and lowers them after its last action.
//! - A load that sees a lowered count synchronizes with the release of that owner. So the loading
//!   thread also sees what the owner published before, such as the LSN that a reader must wait for.
//! - A raise that happens before a load is seen by it. A raise that does not happen before it
//!   belongs to an owner whose changes the caller cannot see either (see
//!   [`is_free`](super::Locks::is_free)).
//! - The counts are read one by one. They need not be consistent with each other, because every
//!   claim that could conflict shows by itself in one of the counts that are read.

use crate::io::sync::{AtomicU64, Ordering};
use crate::machine::{Access, Claim};
use crate::txn::hash;

/// The slots fit into a few KiB of the first-level cache. While a hundred keys are held, four of
/// five other keys have an empty slot. A model has few, because its checker keeps a history of
/// each.
const SLOTS: usize = if cfg!(loom) { 2 } else { 512 };

const SHARED: u64 = 1;
const EXCLUSIVE: u64 = 1 << 32;

/// A number of claims: exclusive ones in the upper half of the bits, shared ones in the lower.
#[derive(Debug)]
struct Count(AtomicU64);

/// The number of held claims.
#[derive(Debug)]
pub(super) struct LockCounters {
    /// All claims.
    total: Count,
    /// Claims on ranges and on everything.
    wide: Count,
    /// Claims on keys, by the hash of the key.
    slots: Box<[Count]>,
}

impl LockCounters {
    pub(super) fn new() -> Self {
        LockCounters { total: Count::zero(), wide: Count::zero(), slots: (0..SLOTS).map(|_| Count::zero()).collect() }
    }

    /// Whether no claim is held at all.
    pub(super) fn is_empty(&self) -> bool {
        self.total.admits(Access::Exclusive)
    }

    /// Whether the counts alone prove that the claim conflicts with no held claim.
    pub(super) fn admits(&self, claim: &Claim) -> bool {
        match claim.key() {
            Some(key) => self.admits_key(claim.access, key),
            None => self.total.admits(claim.access),
        }
    }

    /// [`admits`](Self::admits) for a single key.
    pub(super) fn admits_key(&self, access: Access, key: &[u8]) -> bool {
        self.wide.admits(access) && self.slot(key).admits(access)
    }

    /// Whether the counts alone prove that every claim with this access is free.
    pub(super) fn admits_all(&self, access: Access) -> bool {
        self.total.admits(access)
    }

    pub(super) fn add_key(&self, access: Access, key: &[u8]) {
        self.slot(key).add(weight(access));
        self.total.add(weight(access));
    }

    pub(super) fn remove_key(&self, access: Access, key: &[u8]) {
        self.slot(key).sub(weight(access));
        self.total.sub(weight(access));
    }

    pub(super) fn upgrade_key(&self, key: &[u8]) {
        self.slot(key).add(EXCLUSIVE - SHARED);
        self.total.add(EXCLUSIVE - SHARED);
    }

    pub(super) fn add_wide(&self, access: Access) {
        self.wide.add(weight(access));
        self.total.add(weight(access));
    }

    pub(super) fn remove_wide(&self, access: Access) {
        self.wide.sub(weight(access));
        self.total.sub(weight(access));
    }

    pub(super) fn upgrade_wide(&self) {
        self.wide.add(EXCLUSIVE - SHARED);
        self.total.add(EXCLUSIVE - SHARED);
    }

    fn slot(&self, key: &[u8]) -> &Count {
        &self.slots[hash(key) % SLOTS]
    }
}

impl Count {
    fn zero() -> Self {
        Count(AtomicU64::new(0))
    }

    fn admits(&self, access: Access) -> bool {
        let held = self.0.load(Ordering::Acquire);
        match access {
            Access::Shared => held < EXCLUSIVE,
            Access::Exclusive => held == 0,
        }
    }

    fn add(&self, weight: u64) {
        self.0.fetch_add(weight, Ordering::Release);
    }

    fn sub(&self, weight: u64) {
        self.0.fetch_sub(weight, Ordering::Release);
    }
}

fn weight(access: Access) -> u64 {
    match access {
        Access::Shared => SHARED,
        Access::Exclusive => EXCLUSIVE,
    }
}
