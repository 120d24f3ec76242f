//! The lock table: the held claims, the queue of waiters, and the wait-for graph.
//!
//! Invariants, between any two calls:
//!
//! - A waiter's blockers are owners of two kinds: all owners that hold a claim that conflicts with
//!   its request, and the earlier waiters with a conflicting request that it was not let past.
//! - Each waiter has a blocker, or it would not wait.
//! - `blocks` is the inverse of `blockers`, and `calls` of `callers`.
//! - The graph from waiters to their blockers, and from callers to the waiters that they called, has
//!   no cycle.
//!
//! A grant turns a waiter into a holder of what it asked for. The waiters behind it keep the same
//! edge: they now wait for a holder.

use super::counters::LockCounters;
use super::held::Held;
use super::owner::Owner;
use super::request::Request;
use super::wait_slot::{WaitSlot, Wakes};
use crate::error::{Error, Result};
use crate::io::sync::Arc;
use crate::machine::Footprint;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

/// The held claims and the waiters. Owners are named by their ids.
#[derive(Debug)]
pub(super) struct LockTable {
    held: Held,
    /// The waiters, by owner.
    waits: BTreeMap<u64, Wait>,
    /// Maps each owner to the waiters that it blocks. No set is empty.
    blocks: BTreeMap<u64, BTreeSet<u64>>,
    /// Maps each transaction to the waiters whose requests were made within its closure. No set is
    /// empty.
    calls: BTreeMap<u64, BTreeSet<u64>>,
    next_ticket: u64,
    /// Whether the locks are closed: no owner may wait any more.
    closed: bool,
}

/// A request in the queue.
#[derive(Debug)]
struct Wait {
    owner: Owner,
    /// The position in the queue. An earlier request has a smaller one.
    ticket: u64,
    request: Request,
    blockers: BTreeSet<u64>,
    /// The transactions whose closures the waiting thread runs.
    callers: Vec<u64>,
    slot: Arc<WaitSlot>,
}

/// Whether a request that is not free may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitPolicy {
    Wait,
    NoWait,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Answer {
    Granted,
    Refused(Error),
    Waits(Arc<WaitSlot>),
}

impl LockTable {
    pub(super) fn new(counters: Arc<LockCounters>) -> Self {
        LockTable {
            held: Held::new(counters),
            waits: BTreeMap::new(),
            blocks: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_ticket: 0,
            closed: false,
        }
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn waiters(&self) -> usize {
        self.waits.len()
    }

    /// Grants the claims, or queues for them if the policy allows it, and ends any deadlock that
    /// this closes. `callers` are the other transactions whose closures the asking thread runs.
    pub(super) fn request(
        &mut self,
        (owner, callers): (Owner, &[u64]),
        footprint: &Footprint,
        policy: WaitPolicy,
        wakes: &mut Wakes,
    ) -> Answer {
        let id = owner.id;
        assert!(!self.waits.contains_key(&id), "an owner asks for one thing at a time");
        if self.waits.is_empty() && !footprint.claims().iter().any(|claim| self.held.conflicts(claim, Some(id))) {
            for claim in footprint.claims() {
                self.held.take(id, claim);
            }
            return Answer::Granted;
        }
        // an owner need not queue for what it already holds, even if others wait for that
        let wanted = footprint.claims().iter().filter(|claim| !self.held.covers(id, claim));
        let request = Request::new(wanted.cloned().collect());
        if request.is_empty() {
            return Answer::Granted;
        }
        let slot = self.enqueue(owner, callers, request);
        let policy = if self.closed { WaitPolicy::NoWait } else { policy };
        match policy {
            WaitPolicy::Wait => self.end_deadlocks(id, wakes),
            WaitPolicy::NoWait => self.answer_at_once(id, wakes),
        }
        // the request may be answered by now: granted, if all that it queued behind wait for it, or
        // refused
        match slot.take_outcome() {
            Some(Ok(())) => Answer::Granted,
            Some(Err(error)) => Answer::Refused(error),
            None => Answer::Waits(slot),
        }
    }

    /// Appends the request to the queue and finds its blockers. If it has none, a later call of
    /// [`grant_unblocked`](Self::grant_unblocked) grants it.
    fn enqueue(&mut self, owner: Owner, callers: &[u64], request: Request) -> Arc<WaitSlot> {
        let id = owner.id;
        let mut blockers = BTreeSet::new();
        for claim in request.claims() {
            let _ = self.held.each_conflict(claim, |holder| {
                blockers.insert(holder);
                ControlFlow::Continue(())
            });
        }
        blockers.remove(&id);
        blockers.extend(self.waits.iter().filter(|(_, wait)| wait.request.conflicts_with(&request)).map(|(id, _)| id));
        for blocker in &blockers {
            self.blocks.entry(*blocker).or_default().insert(id);
        }
        for caller in callers {
            self.calls.entry(*caller).or_default().insert(id);
        }
        let slot = Arc::new(WaitSlot::default());
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let wait = Wait { owner, ticket, request, blockers, callers: callers.to_vec(), slot: Arc::clone(&slot) };
        self.waits.insert(id, wait);
        slot
    }

    /// Removes every cycle through a waiter, and grants what that frees.
    ///
    /// It terminates, because each iteration removes an edge.
    fn end_deadlocks(&mut self, id: u64, wakes: &mut Wakes) {
        self.grant_unblocked(BTreeSet::from([id]), wakes);
        while let Some(cycle) = self.cycle_through(id) {
            match self.first_queueing(&cycle) {
                Some((waiter, blocker)) => {
                    self.unlink(waiter, blocker);
                    self.grant_unblocked(BTreeSet::from([waiter]), wakes);
                }
                None => {
                    let (victim, error) = self.victim(&cycle);
                    self.fail(victim, error, wakes);
                }
            }
        }
    }

    /// Answers a newcomer that does not wait: it is granted if all its blockers wait for it, else
    /// it is refused. No other waiter is affected.
    fn answer_at_once(&mut self, newcomer: u64, wakes: &mut Wakes) {
        let mut error = if self.closed { Error::Closed } else { Error::LockTimeout };
        while let Some(cycle) = self.cycle_through(newcomer) {
            match self.first_queueing(&cycle) {
                Some((waiter, blocker)) if waiter == newcomer => self.unlink(waiter, blocker),
                // the cycle could only be removed by letting another waiter go first
                Some(_) => break,
                None => {
                    let (victim, its_error) = self.victim(&cycle);
                    if victim == newcomer && !self.closed {
                        error = its_error;
                    }
                    break;
                }
            }
        }
        self.grant_unblocked(BTreeSet::from([newcomer]), wakes);
        self.fail(newcomer, error, wakes);
    }

    /// Ends every wait, now and later, with [`Error::Closed`].
    pub(super) fn close(&mut self, wakes: &mut Wakes) {
        self.closed = true;
        // one that only queued behind another may be granted here, which does no harm
        let waiters: Vec<u64> = self.waits.keys().copied().collect();
        for id in waiters {
            self.fail(id, Error::Closed, wakes);
        }
    }

    /// Releases all that the owner holds and grants what that frees. If the owner waits, its wait
    /// ends with [`Error::Expired`].
    pub(super) fn release(&mut self, id: u64, wakes: &mut Wakes) {
        self.fail(id, Error::Expired, wakes);
        self.held.release(id);
        let freed = self.blocks.get(&id).cloned().unwrap_or_default();
        for waiter in &freed {
            self.unlink(*waiter, id);
        }
        self.grant_unblocked(freed, wakes);
    }

    /// Ends the owner's wait with an error, and unblocks the waiters that only queued behind it.
    /// Returns whether the owner waited.
    pub(super) fn fail(&mut self, id: u64, error: Error, wakes: &mut Wakes) -> bool {
        if !self.dequeue(id, Err(error), wakes) {
            return false;
        }
        let mut behind = self.blocks.get(&id).cloned().unwrap_or_default();
        behind.retain(|waiter| self.only_queues(*waiter, id));
        for waiter in &behind {
            self.unlink(*waiter, id);
        }
        self.grant_unblocked(behind, wakes);
        true
    }

    /// Grants the requests of those waiters that have no blocker left, in the order of the queue.
    fn grant_unblocked(&mut self, waiters: BTreeSet<u64>, wakes: &mut Wakes) {
        let mut free: Vec<_> =
            waiters.iter().filter_map(|id| self.waits.get(id)).map(|w| (w.ticket, w.owner.id)).collect();
        free.sort_unstable();
        for (_, id) in free {
            // looked up only now, because a grant in this loop may block a later waiter
            if self.waits.get(&id).is_some_and(|wait| wait.blockers.is_empty()) {
                self.grant(id, wakes);
            }
        }
    }

    /// Grants the request of a waiter without blockers.
    fn grant(&mut self, id: u64, wakes: &mut Wakes) {
        let Some(wait) = self.waits.get(&id) else { return };
        for claim in wait.request.claims() {
            self.held.take(id, claim);
        }
        // Every waiter with a conflicting request waits for this owner from now on. That includes
        // waiters that this one was let past, and those that were let past it.
        let conflicting = |other: &&Wait| other.owner.id != id && other.request.conflicts_with(&wait.request);
        let behind: Vec<u64> = self.waits.values().filter(conflicting).map(|other| other.owner.id).collect();
        for waiter in behind {
            self.link(waiter, id);
        }
        self.dequeue(id, Ok(()), wakes);
        // If another thread waits within this owner's closure, the new edges may close a cycle.
        let called = self.calls.get(&id).cloned().unwrap_or_default();
        for waiter in called {
            self.end_deadlocks(waiter, wakes);
        }
    }

    /// Removes the owner from the queue with an answer. Returns whether it was there.
    fn dequeue(&mut self, id: u64, outcome: Result<()>, wakes: &mut Wakes) -> bool {
        let Some(blockers) = self.waits.get_mut(&id).map(|wait| std::mem::take(&mut wait.blockers)) else {
            return false;
        };
        for blocker in blockers {
            self.unlink(id, blocker);
        }
        if let Some(wait) = self.waits.remove(&id) {
            for caller in &wait.callers {
                remove_from(&mut self.calls, *caller, id);
            }
            wait.slot.answer(outcome);
            wakes.push(wait.slot);
        }
        true
    }

    /// Adds an edge to the graph.
    fn link(&mut self, waiter: u64, blocker: u64) {
        if let Some(wait) = self.waits.get_mut(&waiter) {
            wait.blockers.insert(blocker);
            self.blocks.entry(blocker).or_default().insert(waiter);
        }
    }

    /// Removes an edge from the graph.
    fn unlink(&mut self, waiter: u64, blocker: u64) {
        if let Some(wait) = self.waits.get_mut(&waiter) {
            wait.blockers.remove(&blocker);
        }
        remove_from(&mut self.blocks, blocker, waiter);
    }

    /// The owners that this one waits for, and those that its closure called and that wait.
    fn waits_for(&self, id: u64) -> impl Iterator<Item = u64> {
        let blockers = self.waits.get(&id).into_iter().flat_map(|wait| &wait.blockers);
        blockers.chain(self.calls.get(&id).into_iter().flatten()).copied()
    }

    /// Whether the request of `waiter` was made within the closure of `caller`.
    fn is_called_by(&self, waiter: u64, caller: u64) -> bool {
        self.calls.get(&caller).is_some_and(|called| called.contains(&waiter))
    }

    /// A shortest cycle through a waiter: each member waits for the next, and the last for the
    /// first.
    fn cycle_through(&self, start: u64) -> Option<Vec<u64>> {
        let wait = self.waits.get(&start)?;
        // most waiters hold nothing and are in no closure, so no owner waits for them
        if !self.blocks.contains_key(&start) && wait.callers.is_empty() {
            return None;
        }
        let mut came_from = BTreeMap::new();
        let mut frontier = VecDeque::from([start]);
        while let Some(at) = frontier.pop_front() {
            if self.waits_for(at).any(|next| next == start) {
                let mut cycle: Vec<u64> = std::iter::successors(Some(at), |id| came_from.get(id).copied()).collect();
                cycle.reverse();
                return Some(cycle);
            }
            for next in self.waits_for(at) {
                came_from.entry(next).or_insert_with(|| {
                    frontier.push_back(next);
                    at
                });
            }
        }
        None
    }

    /// The first waiter in the cycle that waits for the next one only because that one asked
    /// earlier.
    fn first_queueing(&self, cycle: &[u64]) -> Option<(u64, u64)> {
        edges(cycle).find(|(waiter, blocker)| self.only_queues(*waiter, *blocker))
    }

    /// Whether the waiter waits for the blocker only because of what that one asked for earlier, and
    /// not because of what it holds.
    fn only_queues(&self, waiter: u64, blocker: u64) -> bool {
        let queues = |wait: &Wait| {
            wait.blockers.contains(&blocker) && !self.held.owner_conflicts(blocker, wait.request.claims())
        };
        self.waits.get(&waiter).is_some_and(queues)
    }

    /// The waiter that a deadlock ends, and its error: the youngest request that was made within the
    /// closure of a member, or else the youngest member.
    fn victim(&self, cycle: &[u64]) -> (u64, Error) {
        let youngest = |ids: &mut dyn Iterator<Item = u64>| {
            let waits = ids.filter_map(|id| self.waits.get(&id));
            waits.map(|wait| (wait.owner.age, wait.owner.id)).max().map(|(_, id)| id)
        };
        let mut called = edges(cycle).filter(|(caller, id)| self.is_called_by(*id, *caller)).map(|(_, id)| id);
        match youngest(&mut called) {
            Some(id) => (id, Error::SelfDeadlock),
            None => (youngest(&mut cycle.iter().copied()).unwrap_or(0), Error::Conflict),
        }
    }
}

/// Each member of a cycle with the one that it waits for.
fn edges(cycle: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    cycle.iter().copied().zip(cycle.iter().copied().cycle().skip(1))
}

/// Removes a member of one of the sets, and the set if it becomes empty.
fn remove_from(sets: &mut BTreeMap<u64, BTreeSet<u64>>, id: u64, member: u64) {
    if let Some(set) = sets.get_mut(&id) {
        set.remove(&member);
        if set.is_empty() {
            sets.remove(&id);
        }
    }
}

#[cfg(test)]
impl LockTable {
    /// Asserts the module's invariants.
    pub(super) fn check(&self) {
        self.held.check();
        for (id, wait) in &self.waits {
            assert_eq!(*id, wait.owner.id);
            assert!(!wait.blockers.is_empty(), "{id} waits without a blocker");
            assert!(wait.slot.outcome().is_none(), "{id} waits although it has its answer");
            let mut holders = BTreeSet::new();
            for claim in wait.request.claims() {
                let _ = self.held.each_conflict(claim, |holder| {
                    holders.insert(holder);
                    ControlFlow::Continue(())
                });
            }
            holders.remove(id);
            assert!(holders.is_subset(&wait.blockers), "{id} does not wait for a holder");
            for blocker in wait.blockers.difference(&holders) {
                let other = self.waits.get(blocker).expect("a blocker holds or waits");
                assert!(other.ticket < wait.ticket && other.request.conflicts_with(&wait.request));
            }
            for blocker in &wait.blockers {
                assert!(self.blocks[blocker].contains(id));
            }
            assert!(wait.callers.iter().all(|caller| self.is_called_by(*id, *caller)));
            assert_eq!(self.cycle_through(*id), None);
        }
        for (caller, called) in &self.calls {
            assert!(!called.is_empty());
            assert!(called.iter().all(|id| self.waits[id].callers.contains(caller)));
        }
        for (blocker, waiters) in &self.blocks {
            assert!(!waiters.is_empty());
            assert!(waiters.iter().all(|waiter| self.waits[waiter].blockers.contains(blocker)));
        }
    }
}
