//! What is held, in numbers: answers most questions without the table's lock.
//!
//! Keys are counted by hash in a fixed number of slots, ranges and claims on everything in one count, and all of them in a total. A slot that
//! is not empty proves nothing, as keys share it; one that is empty proves that none of its keys is held.
//!
//! Ordering. Counts are raised before the acquisition returns and lowered after all that the owner did. A load that sees a count lowered is an
//! acquire of that release, so it also sees what the owner had published before, such as the LSN that a reader has to wait for. A raise that
//! happens before a load is seen by it, by coherence; a raise that does not belongs to an owner whose changes the
//! caller cannot see either (see [`is_free`](crate::txn::locks::Locks::is_free)). The counts are read one by one: each claim shows in the count that is asked about it, and
//! no claim is proven absent by two counts together.

use crate::io::sync::{AtomicU64, Ordering};
use crate::machine::{Access, Claim};
use crate::txn::hash;
use crate::txn::locks::single_key;

/// A few pages of the processor's nearest cache: with a hundred keys held, four of five other keys meet an empty slot.
/// In a model few: its checker keeps a history of each.
const SLOTS: usize = if cfg!(loom) { 2 } else { 512 };

const SHARED: u64 = 1;
const EXCLUSIVE: u64 = 1 << 32;

/// Claims held, exclusive ones in the upper half and shared ones in the lower.
#[derive(Debug)]
struct Count(AtomicU64);

#[derive(Debug)]
pub(super) struct LockCounters {
    total: Count,
    wide: Count,
    slots: Box<[Count]>,
}

impl LockCounters {
    pub(super) fn new() -> Self {
        LockCounters { total: Count::zero(), wide: Count::zero(), slots: (0..SLOTS).map(|_| Count::zero()).collect() }
    }

    /// Whether nothing at all is held.
    pub(super) fn is_empty(&self) -> bool {
        self.total.admits(Access::Exclusive)
    }

    /// Whether the counts alone prove that the claim conflicts with nothing held.
    pub(super) fn admits(&self, claim: &Claim) -> bool {
        match single_key(claim) {
            Some(key) => self.admits_key(claim.access, key),
            None => self.total.admits(claim.access),
        }
    }

    /// [`admits`](Self::admits) for a single key.
    pub(super) fn admits_key(&self, access: Access, key: &[u8]) -> bool {
        self.wide.admits(access) && self.slot(key).admits(access)
    }

    /// Whether the counts alone prove that nothing held conflicts with any claim.
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
