//! Who holds what, who waits for whom, and in which order.
//!
//! Invariants, between any two calls:
//!
//! - A waiter's blockers are exactly: the owners that hold what conflicts with its request, and some of the
//!   waiters that came before it with a conflicting request (all, but for those it was let past).
//! - A waiter has a blocker, or it would not wait.
//! - `blocks` is `blockers` the other way round.
//! - Who waits for whom has no cycle.
//!
//! A grant turns a waiter into a holder of what it asked for; who waited behind it goes on waiting for it, by the same edge.

use super::held::Held;
use super::request::Request;
use super::{Owner, WaitSlot, Wakes};
use crate::error::{Error, Result};
use crate::io::sync::Arc;
use crate::machine::Footprint;
use crate::txn::locks::counters::LockCounters;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

#[derive(Debug)]
pub(super) struct LockTable {
    held: Held,
    waits: BTreeMap<u64, Wait>,
    /// Owner to the waiters that have it among their blockers. Never an empty set.
    blocks: BTreeMap<u64, BTreeSet<u64>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Wait {
    owner: Owner,
    /// Who came earlier has the smaller one.
    ticket: u64,
    request: Request,
    blockers: BTreeSet<u64>,
    spot: Arc<WaitSlot>,
}

/// Whether a request that is not free may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    None,
    Waits,
}

/// What a request comes to.
#[derive(Debug)]
pub(super) enum Answer {
    Granted,
    Refused(Error),
    Waits(Arc<WaitSlot>),
}

impl LockTable {
    pub(super) fn new(counters: Arc<LockCounters>) -> Self {
        LockTable { held: Held::new(counters), waits: BTreeMap::new(), blocks: BTreeMap::new(), next_ticket: 0 }
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn waiters(&self) -> usize {
        self.waits.len()
    }

    /// Grants the claims, or queues for them if that is allowed, after ending any deadlock this closes.
    pub(super) fn request(
        &mut self,
        owner: Owner,
        footprint: &Footprint,
        patience: Patience,
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
        // What it holds already it may go on holding, whoever waits for that.
        let wanted = footprint.claims().iter().filter(|claim| !self.held.covers(id, claim));
        let request = Request::new(wanted.cloned().collect());
        if request.is_empty() {
            return Answer::Granted;
        }
        let spot = self.enqueue(owner, request);
        match patience {
            Patience::Waits => self.end_deadlocks(id, wakes),
            Patience::None => self.end_attempt(id, wakes),
        }
        // The request may have been answered on the way: granted, since all it queued behind wait for it, or refused.
        let answer = spot.outcome.lock().take();
        match answer {
            Some(Ok(())) => Answer::Granted,
            Some(Err(error)) => Answer::Refused(error),
            None => Answer::Waits(spot),
        }
    }

    /// Puts the request last in the queue and finds who blocks it. It is granted in [`settle`](Self::settle), if nobody does.
    fn enqueue(&mut self, owner: Owner, request: Request) -> Arc<WaitSlot> {
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
        let spot = Arc::new(WaitSlot::default());
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waits.insert(id, Wait { owner, ticket, request, blockers, spot: Arc::clone(&spot) });
        spot
    }

    /// Removes every cycle through a waiter that was just queued, and grants what that frees.
    ///
    /// Each turn removes an edge, so it ends.
    fn end_deadlocks(&mut self, newcomer: u64, wakes: &mut Wakes) {
        self.settle(BTreeSet::from([newcomer]), wakes);
        while let Some(cycle) = self.cycle_through(newcomer) {
            match self.first_queueing(&cycle) {
                Some((waiter, blocker)) => {
                    self.unlink(waiter, blocker);
                    self.settle(BTreeSet::from([waiter]), wakes);
                }
                None => {
                    self.fail(self.youngest(&cycle), Error::Conflict, wakes);
                }
            }
        }
    }

    /// Answers a newcomer that won't wait: granted if only those stand in its way that wait for it, else refused. Nobody else notices.
    fn end_attempt(&mut self, newcomer: u64, wakes: &mut Wakes) {
        let mut error = Error::LockTimeout;
        while let Some(cycle) = self.cycle_through(newcomer) {
            match self.first_queueing(&cycle) {
                Some((waiter, blocker)) if waiter == newcomer => self.unlink(waiter, blocker),
                // Others would get past each other if the newcomer waited.
                Some(_) => break,
                None => {
                    if self.youngest(&cycle) == newcomer {
                        error = Error::Conflict;
                    }
                    break;
                }
            }
        }
        self.settle(BTreeSet::from([newcomer]), wakes);
        self.fail(newcomer, error, wakes);
    }

    /// Gives back all that the owner holds and grants what that frees. A wait of the owner ends with [`Error::Expired`].
    pub(super) fn release(&mut self, id: u64, wakes: &mut Wakes) {
        self.fail(id, Error::Expired, wakes);
        self.held.release(id);
        let freed = self.blocks.get(&id).cloned().unwrap_or_default();
        for waiter in &freed {
            self.unlink(*waiter, id);
        }
        self.settle(freed, wakes);
    }

    /// Ends the owner's wait with an error, and lets those go on who only queued behind it. It says whether the owner waited.
    pub(super) fn fail(&mut self, id: u64, error: Error, wakes: &mut Wakes) -> bool {
        if !self.dequeue(id, Err(error), wakes) {
            return false;
        }
        let mut behind = self.blocks.get(&id).cloned().unwrap_or_default();
        behind.retain(|waiter| self.only_queues(*waiter, id));
        for waiter in &behind {
            self.unlink(*waiter, id);
        }
        self.settle(behind, wakes);
        true
    }

    /// Grants those of the waiters that nobody blocks any more, in the order in which they came.
    fn settle(&mut self, waiters: BTreeSet<u64>, wakes: &mut Wakes) {
        let mut free: Vec<_> =
            waiters.iter().filter_map(|id| self.waits.get(id)).map(|w| (w.ticket, w.owner.id)).collect();
        free.sort_unstable();
        for (_, id) in free {
            // Looked at only now: a grant of this loop may block a later one of it.
            if self.waits.get(&id).is_some_and(|wait| wait.blockers.is_empty()) {
                self.grant(id, wakes);
            }
        }
    }

    fn grant(&mut self, id: u64, wakes: &mut Wakes) {
        let Some(wait) = self.waits.get(&id) else { return };
        for claim in wait.request.claims() {
            self.held.take(id, claim);
        }
        // Whoever it was let past, or was let past it, waits for it from now on.
        let conflicting = |other: &&Wait| other.owner.id != id && other.request.conflicts_with(&wait.request);
        let behind: Vec<u64> = self.waits.values().filter(conflicting).map(|other| other.owner.id).collect();
        for waiter in behind {
            self.link(waiter, id);
        }
        self.dequeue(id, Ok(()), wakes);
    }

    /// Takes the owner out of the queue with an answer. It says whether it was there.
    fn dequeue(&mut self, id: u64, outcome: Result<()>, wakes: &mut Wakes) -> bool {
        let Some(blockers) = self.waits.get_mut(&id).map(|wait| std::mem::take(&mut wait.blockers)) else {
            return false;
        };
        for blocker in blockers {
            self.unlink(id, blocker);
        }
        if let Some(wait) = self.waits.remove(&id) {
            wait.spot.answer(outcome);
            wakes.push(wait.spot);
        }
        true
    }

    fn link(&mut self, waiter: u64, blocker: u64) {
        if let Some(wait) = self.waits.get_mut(&waiter) {
            wait.blockers.insert(blocker);
            self.blocks.entry(blocker).or_default().insert(waiter);
        }
    }

    fn unlink(&mut self, waiter: u64, blocker: u64) {
        if let Some(wait) = self.waits.get_mut(&waiter) {
            wait.blockers.remove(&blocker);
        }
        if let Some(waiters) = self.blocks.get_mut(&blocker) {
            waiters.remove(&waiter);
            if waiters.is_empty() {
                self.blocks.remove(&blocker);
            }
        }
    }

    /// A shortest cycle through a waiter: each waits for the next, and the last for the first.
    fn cycle_through(&self, start: u64) -> Option<Vec<u64>> {
        // Most waiters hold nothing, and nobody waits for them.
        if !self.waits.contains_key(&start) || !self.blocks.contains_key(&start) {
            return None;
        }
        let mut came_from = BTreeMap::new();
        let mut frontier = VecDeque::from([start]);
        while let Some(at) = frontier.pop_front() {
            let Some(wait) = self.waits.get(&at) else { continue };
            if wait.blockers.contains(&start) {
                let mut cycle: Vec<u64> = std::iter::successors(Some(at), |id| came_from.get(id).copied()).collect();
                cycle.reverse();
                return Some(cycle);
            }
            for blocker in &wait.blockers {
                came_from.entry(*blocker).or_insert_with(|| {
                    frontier.push_back(*blocker);
                    at
                });
            }
        }
        None
    }

    /// The first in the cycle that waits for the next only because that one asked before it.
    fn first_queueing(&self, cycle: &[u64]) -> Option<(u64, u64)> {
        let edges = cycle.iter().zip(cycle.iter().cycle().skip(1));
        edges.map(|(waiter, blocker)| (*waiter, *blocker)).find(|(waiter, blocker)| self.only_queues(*waiter, *blocker))
    }

    /// Whether what stands between the two is not what the blocker holds, but what it asked for earlier.
    fn only_queues(&self, waiter: u64, blocker: u64) -> bool {
        self.waits.get(&waiter).is_some_and(|wait| !self.held.owner_conflicts(blocker, wait.request.claims()))
    }

    fn youngest(&self, cycle: &[u64]) -> u64 {
        let members = cycle.iter().filter_map(|id| self.waits.get(id)).map(|wait| (wait.owner.age, wait.owner.id));
        members.max().map_or(0, |(_, id)| id)
    }
}

#[cfg(test)]
impl LockTable {
    /// Asserts the module's invariants.
    pub(super) fn check(&self) {
        self.held.check();
        for (id, wait) in &self.waits {
            assert_eq!(*id, wait.owner.id);
            assert!(!wait.blockers.is_empty(), "{id} waits for nobody");
            assert!(wait.spot.outcome.lock().is_none(), "{id} waits though it has its answer");
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
            assert_eq!(self.cycle_through(*id), None);
        }
        for (blocker, waiters) in &self.blocks {
            assert!(!waiters.is_empty());
            assert!(waiters.iter().all(|waiter| self.waits[waiter].blockers.contains(blocker)));
        }
    }
}
