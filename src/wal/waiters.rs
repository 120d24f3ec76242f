//! Who waits until the log has reached a position, and how each is woken.
//!
//! It knows nothing of frames. The list wakes nobody: who takes someone out of it does so, once he has let go of the lock.

use super::Level;
use crate::ids::Lsn;
use crate::io::sync::thread;
use std::task::Waker;

/// Whom to wake when a position is reached.
pub(super) enum Wake {
    Thread(thread::Thread),
    /// A thread that does not sleep: it looks at the progress, and whether it was taken out.
    Awake,
    Task(Waker),
}

impl Wake {
    pub(super) fn wake(self) {
        match self {
            Wake::Thread(thread) => thread.unpark(),
            Wake::Awake => {}
            // a waker is a stranger's code: its panic must not keep the others asleep
            Wake::Task(waker) => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()))),
        }
    }
}

struct Waiter {
    id: u64,
    lsn: Lsn,
    level: Level,
    wake: Wake,
}

/// All who wait.
#[derive(Default)]
pub(super) struct Waiters {
    waiting: Vec<Waiter>,
    next_id: u64,
}

impl Waiters {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Registers someone to be woken. Returns the number to renew the registration by.
    pub(super) fn add(&mut self, lsn: Lsn, level: Level, wake: Wake) -> u64 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.waiting.push(Waiter { id, lsn, level, wake });
        id
    }

    /// Changes how a registered one is woken, and hands back how it was, to be dropped without a lock; the new one, if it was taken
    /// out already.
    pub(super) fn renew(&mut self, id: u64, wake: Wake) -> Result<Wake, Wake> {
        match self.waiting.iter_mut().find(|w| w.id == id) {
            Some(waiter) => Ok(std::mem::replace(&mut waiter.wake, wake)),
            None => Err(wake),
        }
    }

    /// Whether one who registered was not taken out yet.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.waiting.iter().any(|w| w.id == id)
    }

    /// Forgets a registration, and hands back what is to be dropped without a lock.
    #[must_use]
    pub(super) fn remove(&mut self, id: u64) -> Option<Wake> {
        let at = self.waiting.iter().position(|w| w.id == id)?;
        Some(self.waiting.remove(at).wake)
    }

    /// Takes out those whose position was reached.
    pub(super) fn take_reached(&mut self, reached: impl Fn(Lsn, Level) -> bool) -> Vec<Wake> {
        let mut out = Vec::new();
        let mut at = 0usize;
        while let Some(waiter) = self.waiting.get(at) {
            if reached(waiter.lsn, waiter.level) {
                out.push(self.waiting.swap_remove(at).wake);
            } else {
                at = at.saturating_add(1);
            }
        }
        out
    }

    /// Takes out everyone: the log has failed or was closed.
    pub(super) fn take_all(&mut self) -> Vec<Wake> {
        self.waiting.drain(..).map(|w| w.wake).collect()
    }

    /// Takes out a thread that waits, one that waits for something behind `above` if that is given.
    pub(super) fn take_thread(&mut self, above: Option<Lsn>) -> Option<Wake> {
        let can = |w: &Waiter| !matches!(w.wake, Wake::Task(_)) && above.is_none_or(|above| w.lsn > above);
        let at = self.waiting.iter().position(can)?;
        Some(self.waiting.swap_remove(at).wake)
    }
}
