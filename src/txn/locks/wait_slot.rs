//! The place where one thread sleeps until its lock request is answered.

use crate::error::Result;
use crate::io::deadline::Deadline;
use crate::io::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// One wait for locks: the answer to the request, and the sleeping thread.
#[derive(Debug, Default)]
pub(super) struct WaitSlot {
    /// The answer. It is set once, under the lock of the table.
    outcome: Mutex<Option<Result<()>>>,
    changed: Condvar,
}

/// The slots of waits that were answered. Their threads are woken after the lock of the table is
/// released.
pub(super) type Wakes = Vec<Arc<WaitSlot>>;

/// Wakes the threads of all these waits.
pub(super) fn wake_all(wakes: Wakes) {
    for slot in wakes {
        slot.changed.notify_one();
    }
}

impl WaitSlot {
    /// Sets the answer. It does not wake the thread, see [`wake_all`].
    pub(super) fn answer(&self, outcome: Result<()>) {
        *self.outcome.lock() = Some(outcome);
    }

    /// Takes the answer, if there is one.
    pub(super) fn take_outcome(&self) -> Option<Result<()>> {
        self.outcome.lock().take()
    }

    /// Sleeps until there is an answer, and takes it. Returns `None` if the deadline comes first.
    pub(super) fn wait(&self, deadline: &mut Deadline<'_>) -> Option<Result<()>> {
        let mut outcome = self.outcome.lock();
        loop {
            if let Some(outcome) = outcome.take() {
                return Some(outcome);
            }
            if deadline.is_over() {
                return None;
            }
            deadline.sleep(Duration::MAX, |limit| self.changed.wait_for(&mut outcome, limit).timed_out());
        }
    }

    /// A copy of the answer, if there is one.
    #[cfg(test)]
    pub(super) fn outcome(&self) -> Option<Result<()>> {
        self.outcome.lock().clone()
    }
}
