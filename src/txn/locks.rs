//! Locks on footprints: strict two-phase locking, first come, first served, with deadlock
//! detection.
//!
//! An owner (a transaction) takes claims as it runs, and releases all of them at once when it ends.
//! A request that must wait waits for owners: for each owner that holds a conflicting claim, and
//! for each that asked for one earlier and still waits. This wait-for graph has no cycle between
//! two calls:
//!
//! - A cycle can only be closed by an owner that begins to wait. So the search for one starts there
//!   and is done at no other time.
//! - A cycle may contain an owner that waits only for its turn in the queue, and not for a held
//!   claim. That is no deadlock: this owner is let past the one that asked before it.
//! - In any other cycle each owner holds what the previous one wants. This is a deadlock, and the
//!   youngest owner in it gets [`Error::Conflict`]. So the victim always holds a lock, and the
//!   oldest of all transactions is never the victim. A transaction that is run again keeps its age,
//!   so at some time it succeeds.
//! - A transaction also waits for a request that another owner makes on the thread that runs its
//!   closure. If such an edge is part of a deadlock, that request gets [`Error::SelfDeadlock`],
//!   because the closure would wait for itself.
//!
//! Nothing here depends on a hash order or on an address: the same calls in the same order give the
//! same grants and the same victims. Locks know nothing of what they guard, nor of LSNs.
//!
//! | file | contents |
//! | --- | --- |
//! | `table` | the held claims, the queue, and the wait-for graph |
//! | `held`, `counters` | which owner holds which claims; their number, readable without a lock |
//! | `running_closures` | the transactions whose closures a thread runs |
//! | `request`, `owner`, `wait_slot` | what a waiter asks for, its identity, and where its thread sleeps |

mod counters;
mod held;
mod owner;
mod request;
mod running_closures;
mod table;
mod wait_slot;

#[cfg(test)]
mod tests;

pub(crate) use owner::Owner;
pub(crate) use running_closures::RunningClosure;

use crate::error::{Error, Result};
use crate::io::Clock;
use crate::io::deadline::Deadline;
use crate::io::sync::{Arc, Mutex};
use crate::machine::{Access, Footprint};
use counters::LockCounters;
use std::time::Duration;
use table::{Answer, LockTable, WaitPolicy};
use wait_slot::{WaitSlot, Wakes, wake_all};

/// All locks of one engine.
///
/// Lock order: `table`, then one [`WaitSlot`]. No code of the caller runs under either, and waiters
/// are woken after `table` is released.
pub(crate) struct Locks {
    /// The held claims and the waiters.
    table: Mutex<LockTable>,
    /// The number of held claims, readable without the lock of the table.
    counters: Arc<LockCounters>,
    /// The clock of the timeouts.
    clock: Arc<dyn Clock>,
}

impl Locks {
    /// No locks are held at first.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let counters = Arc::new(LockCounters::new());
        Locks { table: Mutex::new(LockTable::new(Arc::clone(&counters))), counters, clock }
    }

    /// Whether no owner other than `except` holds a claim that conflicts with the footprint. It
    /// takes no lock on the footprint and ignores waiters.
    ///
    /// If an acquisition happens before this call, this call sees it. Suppose that a caller
    /// excludes every change of the state by a lock of its own and gets `true`. Then the state
    /// contains no conflicting change of an owner that has not released: such an owner took its
    /// locks before it made the change, and made the change before the caller got its own lock.
    pub(crate) fn is_free(&self, footprint: &Footprint, except: Option<Owner>) -> bool {
        if self.counters.is_empty() || footprint.claims().iter().all(|claim| self.counters.admits(claim)) {
            return true;
        }
        let table = self.table.lock();
        !footprint.claims().iter().any(|claim| table.held().conflicts(claim, except.map(|o| o.id)))
    }

    /// Whether no claim is held at all. Then [`is_free`](Self::is_free) is true for any footprint.
    pub(crate) fn are_free(&self) -> bool {
        self.counters.is_empty()
    }

    /// [`is_free`](Self::is_free) for a single key.
    pub(crate) fn key_is_free(&self, access: Access, key: &[u8], except: Option<Owner>) -> bool {
        if self.counters.is_empty() || self.counters.admits_key(access, key) {
            return true;
        }
        !self.table.lock().held().key_conflicts(access, key, except.map(|o| o.id))
    }

    /// Whether [`is_free`](Self::is_free) is true for every footprint that only reads. If it is
    /// false, some of these footprints may still be free.
    pub(crate) fn is_free_to_read(&self) -> bool {
        self.counters.admits_all(Access::Shared)
    }

    /// Takes all claims of the footprint at once, in addition to what the owner holds. It waits for
    /// them at most as long as `timeout`; with a timeout of zero it never waits.
    ///
    /// A claim that the owner holds shared and asks for exclusively is upgraded.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the wait closed a deadlock, now or later, and this owner is its
    /// victim; [`Error::SelfDeadlock`] if the closure of another owner runs on this thread and the
    /// wait would end only after that owner; [`Error::LockTimeout`] when the time is over; the error given to
    /// [`cancel`](Self::cancel); or [`Error::Closed`] after a [`close`](Self::close). After an
    /// error the owner holds what it held before.
    pub(crate) fn acquire(&self, owner: Owner, footprint: &Footprint, timeout: Duration) -> Result<()> {
        let policy = if timeout.is_zero() { WaitPolicy::NoWait } else { WaitPolicy::Wait };
        let mut wakes = Wakes::new();
        let callers = self.callers_of(owner);
        let answer = self.table.lock().request((owner, &callers), footprint, policy, &mut wakes);
        wake_all(wakes);
        match answer {
            Answer::Granted => Ok(()),
            Answer::Refused(error) => Err(error),
            Answer::Waits(slot) => self.wait(owner, &slot, timeout),
        }
    }

    /// A bound on the memory that the claims of a footprint take while they are held, in bytes.
    pub(crate) fn memory_bytes(footprint: &Footprint) -> u64 {
        footprint.claims().iter().map(held::memory_bytes).fold(0, u64::saturating_add)
    }

    /// The memory that the owner's claims would take if it held the footprint too, in bytes.
    pub(crate) fn memory_bytes_with(&self, owner: Owner, footprint: &Footprint) -> u64 {
        self.table.lock().held().memory_bytes_with(owner.id, footprint.claims())
    }

    /// Takes all claims of the footprint if that needs no wait. Returns whether it took them.
    #[cfg(test)]
    pub(crate) fn try_acquire(&self, owner: Owner, footprint: &Footprint) -> bool {
        self.acquire(owner, footprint, Duration::ZERO).is_ok()
    }

    /// Releases all claims of the owner, and grants the requests that waited only for it.
    pub(crate) fn release(&self, owner: Owner) {
        let mut wakes = Wakes::new();
        self.table.lock().release(owner.id, &mut wakes);
        wake_all(wakes);
    }

    /// Ends the owner's wait with `error`. Returns whether the owner was waiting; if it was not,
    /// nothing happens.
    pub(crate) fn cancel(&self, owner: Owner, error: Error) -> bool {
        let mut wakes = Wakes::new();
        let waited = self.table.lock().fail(owner.id, error, &mut wakes);
        wake_all(wakes);
        waited
    }

    /// Ends every wait with [`Error::Closed`], also those that would begin later. Claims are still
    /// granted and released without a wait.
    pub(crate) fn close(&self) {
        let mut wakes = Wakes::new();
        self.table.lock().close(&mut wakes);
        wake_all(wakes);
    }

    /// The number of owners that hold a claim.
    pub(crate) fn holders(&self) -> usize {
        self.table.lock().held().owners()
    }

    /// The number of owners that wait.
    pub(crate) fn waiters(&self) -> usize {
        self.table.lock().waiters()
    }

    /// Sleeps until the request is answered or the time is over.
    fn wait(&self, owner: Owner, slot: &WaitSlot, timeout: Duration) -> Result<()> {
        let mut deadline = Deadline::after(&*self.clock, timeout);
        if let Some(outcome) = slot.wait(&mut deadline) {
            return outcome;
        }
        let mut wakes = Wakes::new();
        let mut table = self.table.lock();
        // an answer may have come between the end of the sleep and this lock; it remains valid,
        // because the claims are already taken
        if let Some(outcome) = slot.take_outcome() {
            return outcome;
        }
        table.fail(owner.id, Error::LockTimeout, &mut wakes);
        drop(table);
        wake_all(wakes);
        Err(Error::LockTimeout)
    }
}
