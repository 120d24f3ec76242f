//! Locks on footprints: strict two-phase, first come first served, with deadlocks found as they close.
//!
//! An owner (a transaction) takes claims and gives them all back at once, when it ends. Who must wait
//! waits for owners: for those that hold something it conflicts with, and for those that asked for
//! such a thing before it. That graph has no cycle while nothing is being asked for:
//!
//! - A cycle can only close where an owner begins to wait, so it is looked for there, and nowhere else.
//! - A cycle that stands only because somebody queues is no deadlock: who queues behind one that waits
//!   for it goes first.
//! - In any other cycle everyone holds what the one before it wants, and the youngest of them gets
//!   [`Error::Conflict`]. So an owner that holds nothing is never chosen, nor is the oldest of all, and
//!   a transaction that is run again with its old age ends.
//!
//! Nothing here depends on a hash order or on an address: the same calls in the same order give the same
//! grants and the same victims. Locks know nothing of what they guard, nor of LSNs.

mod counters;
mod held;
mod request;
mod table;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::io::Clock;
use crate::io::deadline::Deadline;
use crate::io::sync::{Arc, Condvar, Mutex};
use crate::machine::{Access, Claim, Extent, Footprint};
use counters::LockCounters;
use std::time::Duration;
use table::{Answer, LockTable, Patience};

/// Who holds or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Unique in the process, and never used again.
    pub(crate) id: u64,
    /// When the transaction first began: smaller is older. Kept when it is run again.
    pub(crate) age: u64,
}

/// All locks of one engine.
///
/// Lock order: `table`, then a single [`WaitSlot`]. Nothing of the caller's runs under either, and waiters are woken after
/// `table` is let go.
pub(crate) struct Locks {
    /// Who holds what and who waits for whom.
    table: Mutex<LockTable>,
    /// What is held, in numbers, readable without the table.
    counters: Arc<LockCounters>,
    /// Timeouts go by it.
    clock: Arc<dyn Clock>,
}

/// Where one waiter sleeps.
#[derive(Debug, Default)]
struct WaitSlot {
    /// How the wait ended. Set once, by who holds the table's lock.
    outcome: Mutex<Option<Result<()>>>,
    changed: Condvar,
}

/// Spots whose waits have ended, to be woken once the table is let go.
type Wakes = Vec<Arc<WaitSlot>>;

impl Locks {
    /// Locks of which none is held.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let counters = Arc::new(LockCounters::new());
        Locks { table: Mutex::new(LockTable::new(Arc::clone(&counters))), counters, clock }
    }

    /// Whether nobody but `except` holds anything that conflicts with the footprint. It takes nothing, and waiters don't count.
    ///
    /// Where an owner's acquisition happens before this call, this call sees it. So a caller under a lock
    /// that excludes every change of the state, who gets `true`, sees no change of an owner that has not released:
    /// that owner would have taken its locks before it made the change, and the change came before the caller's turn.
    pub(crate) fn is_free(&self, footprint: &Footprint, except: Option<Owner>) -> bool {
        if self.counters.is_empty() || footprint.claims().iter().all(|claim| self.counters.admits(claim)) {
            return true;
        }
        let table = self.table.lock();
        !footprint.claims().iter().any(|claim| table.held().conflicts(claim, except.map(|o| o.id)))
    }

    /// Whether nobody holds anything: then [`is_free`](Self::is_free) says yes to whatever it is asked.
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

    /// [`is_free`](Self::is_free) for any footprint that only reads. It may say no though some are.
    pub(crate) fn is_free_to_read(&self) -> bool {
        self.counters.admits_all(Access::Shared)
    }

    /// Takes all claims of the footprint at once, on top of what the owner holds, and waits for as long as `timeout` until they are free.
    ///
    /// What the owner holds shared and asks for exclusively is upgraded. With a timeout of zero it never waits.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the wait closed a deadlock, now or later, and this owner is the one to end it; [`Error::LockTimeout`] when the
    /// time is over; what [`cancel`](Self::cancel) was given. The owner then holds what it held before.
    pub(crate) fn acquire(&self, owner: Owner, footprint: &Footprint, timeout: Duration) -> Result<()> {
        let patience = if timeout.is_zero() { Patience::None } else { Patience::Waits };
        let mut wakes = Wakes::new();
        let answer = self.table.lock().request(owner, footprint, patience, &mut wakes);
        wake(wakes);
        match answer {
            Answer::Granted => Ok(()),
            Answer::Refused(error) => Err(error),
            Answer::Waits(spot) => self.wait(owner, &spot, timeout),
        }
    }

    /// Takes all claims of the footprint, or none if that would mean to wait. It says whether it took them.
    #[cfg(test)]
    pub(crate) fn try_acquire(&self, owner: Owner, footprint: &Footprint) -> bool {
        self.acquire(owner, footprint, Duration::ZERO).is_ok()
    }

    /// Gives back all that the owner holds, and hands it on to those who waited for it.
    pub(crate) fn release(&self, owner: Owner) {
        let mut wakes = Wakes::new();
        self.table.lock().release(owner.id, &mut wakes);
        wake(wakes);
    }

    /// Ends the owner's wait with `error`. It says whether the owner was waiting; if not, it does nothing.
    pub(crate) fn cancel(&self, owner: Owner, error: Error) -> bool {
        let mut wakes = Wakes::new();
        let waited = self.table.lock().fail(owner.id, error, &mut wakes);
        wake(wakes);
        waited
    }

    /// How many owners hold something.
    pub(crate) fn holders(&self) -> usize {
        self.table.lock().held().owners()
    }

    /// How many owners wait.
    pub(crate) fn waiters(&self) -> usize {
        self.table.lock().waiters()
    }

    /// Sleeps until the wait ends or the time is over.
    fn wait(&self, owner: Owner, spot: &WaitSlot, timeout: Duration) -> Result<()> {
        let mut deadline = Deadline::after(&*self.clock, timeout);
        let mut outcome = spot.outcome.lock();
        loop {
            if let Some(outcome) = outcome.take() {
                return outcome;
            }
            if deadline.is_over() {
                break;
            }
            deadline.sleep(Duration::MAX, |limit| spot.changed.wait_for(&mut outcome, limit).timed_out());
        }
        drop(outcome);

        let mut wakes = Wakes::new();
        let mut table = self.table.lock();
        // An answer may have come between the end of the sleep and this lock. It stands: the claims are taken.
        if let Some(outcome) = spot.outcome.lock().take() {
            return outcome;
        }
        table.fail(owner.id, Error::LockTimeout, &mut wakes);
        drop(table);
        wake(wakes);
        Err(Error::LockTimeout)
    }
}

impl WaitSlot {
    fn answer(&self, outcome: Result<()>) {
        *self.outcome.lock() = Some(outcome);
    }
}

fn wake(wakes: Wakes) {
    for spot in wakes {
        spot.changed.notify_one();
    }
}

/// Whether the extent takes in the key.
fn takes_in(extent: &Extent, key: &[u8]) -> bool {
    use std::ops::RangeBounds;
    match extent {
        Extent::Key(own) => **own == *key,
        Extent::Range(start, end) => (start.as_ref().map(|s| &**s), end.as_ref().map(|e| &**e)).contains(key),
        Extent::Everything => true,
    }
}

/// Whether two claims on a common part exclude each other.
fn excludes(a: Access, b: Access) -> bool {
    a == Access::Exclusive || b == Access::Exclusive
}

/// The key of a claim on a single one.
fn single_key(claim: &Claim) -> Option<&[u8]> {
    match &claim.extent {
        Extent::Key(key) => Some(key),
        Extent::Range(..) | Extent::Everything => None,
    }
}
