//! The held claims, by key and by owner.
//!
//! Invariants: no two owners hold claims that conflict. Each owner has at most one entry per key
//! and per wide extent, with the stronger access. The counters count exactly these entries. This
//! module has no waiters.

use super::counters::LockCounters;
use crate::io::sync::Arc;
use crate::machine::{Access, Claim, Extent};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};

/// All claims that are held.
#[derive(Debug)]
pub(super) struct Held {
    keys: BTreeMap<Arc<[u8]>, Vec<KeyHold>>,
    /// Wide claims: those on ranges and on everything. A linear search suffices, because there are
    /// usually few.
    wide: Vec<WideHold>,
    owners: BTreeMap<u64, OwnerHolds>,
    counters: Arc<LockCounters>,
}

#[derive(Debug)]
struct KeyHold {
    owner: u64,
    access: Access,
}

#[derive(Debug)]
struct WideHold {
    owner: u64,
    access: Access,
    extent: Extent,
}

/// The claims that one owner holds; there is at least one.
#[derive(Debug, Default)]
struct OwnerHolds {
    keys: Vec<Arc<[u8]>>,
    /// The number of claims with exclusive access, on keys and wide ones.
    exclusive: usize,
    /// The memory that the claims take, in bytes.
    memory_bytes: u64,
}

impl Held {
    pub(super) fn new(counters: Arc<LockCounters>) -> Self {
        Held { keys: BTreeMap::new(), wide: Vec::new(), owners: BTreeMap::new(), counters }
    }

    /// The number of owners that hold a claim.
    pub(super) fn owners(&self) -> usize {
        self.owners.len()
    }

    /// Whether an owner other than `except` holds a claim that conflicts with this one.
    pub(super) fn conflicts(&self, claim: &Claim, except: Option<u64>) -> bool {
        self.each_conflict(claim, stop_at_other_than(except)).is_break()
    }

    /// [`conflicts`](Self::conflicts) for a single key.
    pub(super) fn key_conflicts(&self, access: Access, key: &[u8], except: Option<u64>) -> bool {
        self.each_key_conflict(access, key, &mut stop_at_other_than(except)).is_break()
    }

    /// Whether this owner holds a claim that conflicts with any of these.
    pub(super) fn owner_conflicts(&self, owner: u64, claims: &[Claim]) -> bool {
        let stop_at_owner = |id| if id == owner { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        claims.iter().any(|claim| self.each_conflict(claim, stop_at_owner).is_break())
    }

    /// Calls `visit` with each owner that holds a conflicting claim, perhaps more than once, until
    /// `visit` breaks.
    pub(super) fn each_conflict(
        &self,
        claim: &Claim,
        mut visit: impl FnMut(u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let access = claim.access;
        match &claim.extent {
            Extent::Key(key) => return self.each_key_conflict(access, key, &mut visit),
            Extent::Range(start, end) => {
                // only the start is passed to the map, because `range` panics if the start lies
                // past the end
                let from = (start.as_ref().map(|s| &**s), Bound::Unbounded);
                let until = (Bound::Unbounded, end.as_ref().map(|e| &**e));
                for (_, holds) in self.keys.range::<[u8], _>(from).take_while(|(key, _)| until.contains(&***key)) {
                    for hold in holds.iter().filter(|hold| hold.access.excludes(access)) {
                        visit(hold.owner)?;
                    }
                }
            }
            Extent::Everything => {
                for (owner, owned) in &self.owners {
                    if access == Access::Exclusive || owned.exclusive > 0 {
                        visit(*owner)?;
                    }
                }
                return ControlFlow::Continue(());
            }
        }
        for hold in &self.wide {
            if hold.access.excludes(access) && hold.extent.overlaps(&claim.extent) {
                visit(hold.owner)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn each_key_conflict(
        &self,
        access: Access,
        key: &[u8],
        visit: &mut impl FnMut(u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for hold in self.keys.get(key).into_iter().flatten() {
            if hold.access.excludes(access) {
                visit(hold.owner)?;
            }
        }
        for hold in &self.wide {
            if hold.access.excludes(access) && hold.extent.contains(key) {
                visit(hold.owner)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether the owner already holds the claim, by itself or as part of a wider one.
    pub(super) fn covers(&self, owner: u64, claim: &Claim) -> bool {
        let mut wide = self.wide.iter().filter(|hold| hold.owner == owner && hold.access >= claim.access);
        match claim.key() {
            Some(key) => {
                let mut holds = self.keys.get(key).into_iter().flatten();
                holds.any(|hold| hold.owner == owner && hold.access >= claim.access)
                    || wide.any(|hold| hold.extent.contains(key))
            }
            None => wide.any(|hold| hold.extent == Extent::Everything || hold.extent == claim.extent),
        }
    }

    /// The memory that the owner's claims would take if it held these too, in bytes.
    pub(super) fn memory_bytes_with(&self, owner: u64, claims: &[Claim]) -> u64 {
        let held = self.owners.get(&owner).map_or(0, |owned| owned.memory_bytes);
        let more = claims.iter().filter(|claim| !self.covers(owner, claim)).map(memory_bytes);
        more.fold(held, u64::saturating_add)
    }

    /// Adds the claim to what the owner holds. No other owner may hold a conflicting claim.
    pub(super) fn take(&mut self, owner: u64, claim: &Claim) {
        debug_assert!(!self.conflicts(claim, Some(owner)), "a lock is given out while another owner holds it");
        if self.covers(owner, claim) {
            return;
        }
        let owned = self.owners.entry(owner).or_default();
        owned.exclusive += usize::from(claim.access == Access::Exclusive);
        owned.memory_bytes = owned.memory_bytes.saturating_add(memory_bytes(claim));
        let Some(key) = claim.key() else { return self.take_wide(owner, claim) };
        // a claim that is not covered is new, or is held shared and now wanted exclusively
        match self.keys.get_mut(key) {
            None => {
                let key: Arc<[u8]> = Arc::from(key);
                owned.keys.push(Arc::clone(&key));
                self.counters.add_key(claim.access, &key);
                self.keys.insert(key, vec![KeyHold { owner, access: claim.access }]);
            }
            Some(holds) => match holds.iter_mut().find(|hold| hold.owner == owner) {
                Some(hold) => {
                    hold.access = Access::Exclusive;
                    self.counters.upgrade_key(key);
                }
                None => {
                    holds.push(KeyHold { owner, access: claim.access });
                    self.counters.add_key(claim.access, key);
                    if let Some((key, _)) = self.keys.get_key_value(key) {
                        owned.keys.push(Arc::clone(key));
                    }
                }
            },
        }
    }

    fn take_wide(&mut self, owner: u64, claim: &Claim) {
        match self.wide.iter_mut().find(|hold| hold.owner == owner && hold.extent == claim.extent) {
            Some(hold) => {
                hold.access = Access::Exclusive;
                self.counters.upgrade_wide();
            }
            None => {
                self.wide.push(WideHold { owner, access: claim.access, extent: claim.extent.clone() });
                self.counters.add_wide(claim.access);
            }
        }
    }

    /// Removes all that the owner holds.
    pub(super) fn release(&mut self, owner: u64) {
        let Some(owned) = self.owners.remove(&owner) else { return };
        for key in owned.keys {
            let Some(holds) = self.keys.get_mut(&key) else { continue };
            if let Some(at) = holds.iter().position(|hold| hold.owner == owner) {
                let hold = holds.remove(at);
                self.counters.remove_key(hold.access, &key);
            }
            if holds.is_empty() {
                self.keys.remove(&key);
            }
        }
        let counters = &self.counters;
        self.wide.retain(|hold| {
            let kept = hold.owner != owner;
            if !kept {
                counters.remove_wide(hold.access);
            }
            kept
        });
    }
}

/// The memory that a claim takes while it is held, in bytes: its entries in a tree and in two
/// lists, and its key, each with what the allocator adds.
pub(super) fn memory_bytes(claim: &Claim) -> u64 {
    const KEY_BYTES: usize =
        2 * size_of::<(Arc<[u8]>, Vec<KeyHold>)>() + 2 * size_of::<KeyHold>() + 2 * size_of::<Arc<[u8]>>();
    const ALLOCATION_BYTES: usize = 24;
    let of_bound = |bound: &Bound<Box<[u8]>>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => ALLOCATION_BYTES.saturating_add(key.len()),
        Bound::Unbounded => 0,
    };
    let bytes = match &claim.extent {
        Extent::Key(key) => KEY_BYTES.saturating_add(ALLOCATION_BYTES).saturating_add(key.len()),
        Extent::Range(start, end) => {
            (2 * size_of::<WideHold>()).saturating_add(of_bound(start)).saturating_add(of_bound(end))
        }
        Extent::Everything => 2 * size_of::<WideHold>(),
    };
    bytes as u64
}

/// A visitor that breaks at the first owner other than `except`.
fn stop_at_other_than(except: Option<u64>) -> impl FnMut(u64) -> ControlFlow<()> {
    move |owner| if Some(owner) == except { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

#[cfg(test)]
impl Held {
    /// Asserts the module's invariants.
    pub(super) fn check(&self) {
        let recount = LockCounters::new();
        let mut held: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for (key, holds) in &self.keys {
            assert!(!holds.is_empty(), "a key is kept that no owner holds");
            for hold in holds {
                assert!(!self.key_conflicts(hold.access, key, Some(hold.owner)));
                assert!(self.owners[&hold.owner].keys.contains(key));
                recount.add_key(hold.access, key);
                held.entry(hold.owner).or_default().0 += 1;
                held.entry(hold.owner).or_default().1 += usize::from(hold.access == Access::Exclusive);
            }
        }
        for hold in &self.wide {
            recount.add_wide(hold.access);
            held.entry(hold.owner).or_default().1 += usize::from(hold.access == Access::Exclusive);
        }
        let counts = self.owners.iter().map(|(id, owned)| (*id, (owned.keys.len(), owned.exclusive)));
        assert!(counts.eq(held), "the counts of an owner do not match its claims");
        assert_eq!(format!("{recount:?}"), format!("{:?}", self.counters));
    }
}
