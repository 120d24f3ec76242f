//! The list of threads and tasks that wait until the log has reached a position.
//!
//! It knows nothing of frames, and it wakes nobody: the caller takes waiters out under the append lock and wakes them once that
//! lock is released.
//!
//! Threads are few, so they are kept in a vector. Tasks may be as many as there are tickets: they are kept in order of their
//! position, so that adding, removing and finding those that were reached takes logarithmic time.

use super::Level;
use crate::ids::Lsn;
use crate::io::sync::thread;
use std::collections::BTreeMap;
use std::task::Waker;

/// How to wake a waiter when its position is reached.
pub(super) enum Wake {
    /// A thread that is parked.
    Thread(thread::Thread),
    /// A thread that spins: it looks at the progress, and whether it was taken out of the list.
    Spinning,
    /// A task, by its waker.
    Task(Waker),
}

impl Wake {
    pub(super) fn wake(self) {
        match self {
            Wake::Thread(thread) => thread.unpark(),
            Wake::Spinning => {}
            // a waker is foreign code: its panic must not keep the others asleep
            Wake::Task(waker) => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()))),
        }
    }
}

struct WaitingThread {
    id: u64,
    lsn: Lsn,
    level: Level,
    wake: Wake,
}

/// Names the registration of a task. Sorted by the position it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskKey {
    lsn: Lsn,
    id: u64,
    level: Level,
}

/// All waiters.
#[derive(Default)]
pub(super) struct Waiters {
    threads: Vec<WaitingThread>,
    durable_tasks: BTreeMap<TaskKey, Waker>,
    written_tasks: BTreeMap<TaskKey, Waker>,
    next_id: u64,
}

impl Waiters {
    pub(super) fn len(&self) -> usize {
        self.threads.len().saturating_add(self.durable_tasks.len()).saturating_add(self.written_tasks.len())
    }

    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    fn tasks(&mut self, level: Level) -> &mut BTreeMap<TaskKey, Waker> {
        match level {
            Level::Durable => &mut self.durable_tasks,
            Level::Written => &mut self.written_tasks,
        }
    }

    /// Registers a thread. Returns its number.
    pub(super) fn add_thread(&mut self, lsn: Lsn, level: Level, wake: Wake) -> u64 {
        debug_assert!(!matches!(wake, Wake::Task(_)), "tasks have a list of their own");
        let id = self.next_id();
        self.threads.push(WaitingThread { id, lsn, level, wake });
        id
    }

    /// Makes a spinning thread one that is parked, unless it was taken out already. Returns whether it still waits.
    pub(super) fn park_thread(&mut self, id: u64, thread: thread::Thread) -> bool {
        let waiting = self.threads.iter_mut().find(|w| w.id == id);
        waiting.map(|w| w.wake = Wake::Thread(thread)).is_some()
    }

    /// Whether a thread was not taken out yet.
    pub(super) fn contains_thread(&self, id: u64) -> bool {
        self.threads.iter().any(|w| w.id == id)
    }

    /// Registers a task. Returns the key of the registration.
    pub(super) fn add_task(&mut self, lsn: Lsn, level: Level, waker: Waker) -> TaskKey {
        let key = TaskKey { lsn, id: self.next_id(), level };
        let before = self.tasks(level).insert(key, waker);
        debug_assert!(before.is_none(), "two tasks have the same key");
        key
    }

    /// Changes the waker of a task. Returns the waker from before, to be dropped without a lock, or the new one if the task was
    /// taken out already.
    pub(super) fn replace_waker(&mut self, key: TaskKey, waker: Waker) -> Result<Waker, Waker> {
        match self.tasks(key.level).get_mut(&key) {
            Some(registered) => Ok(std::mem::replace(registered, waker)),
            None => Err(waker),
        }
    }

    /// Forgets a task. Returns its waker, to be dropped without a lock.
    #[must_use]
    pub(super) fn remove_task(&mut self, key: TaskKey) -> Option<Waker> {
        self.tasks(key.level).remove(&key)
    }

    /// Takes out all whose position was reached.
    pub(super) fn take_reached(&mut self, reached: impl Fn(Lsn, Level) -> bool) -> Vec<Wake> {
        let mut out = Vec::new();
        let mut at = 0usize;
        while let Some(waiter) = self.threads.get(at) {
            if reached(waiter.lsn, waiter.level) {
                out.push(self.threads.swap_remove(at).wake);
            } else {
                at = at.saturating_add(1);
            }
        }
        for tasks in [&mut self.durable_tasks, &mut self.written_tasks] {
            while let Some(first) = tasks.first_entry() {
                if !reached(first.key().lsn, first.key().level) {
                    break;
                }
                out.push(Wake::Task(first.remove()));
            }
        }
        out
    }

    /// Takes out all: the log has failed or was closed.
    pub(super) fn take_all(&mut self) -> Vec<Wake> {
        let tasks = [std::mem::take(&mut self.durable_tasks), std::mem::take(&mut self.written_tasks)];
        let tasks = tasks.into_iter().flat_map(BTreeMap::into_values).map(Wake::Task);
        self.threads.drain(..).map(|w| w.wake).chain(tasks).collect()
    }

    /// Takes out a thread; where `above` is given, one that waits for a position above it.
    pub(super) fn take_thread(&mut self, above: Option<Lsn>) -> Option<Wake> {
        let at = self.threads.iter().position(|w| above.is_none_or(|above| w.lsn > above))?;
        Some(self.threads.swap_remove(at).wake)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_taken_out_in_order_of_their_position_and_by_their_level() {
        let mut waiters = Waiters::default();
        let waker = || Waker::noop().clone();
        let keys: Vec<_> = [5, 1, 3, 1].map(|lsn| waiters.add_task(Lsn::new(lsn), Level::Durable, waker())).into();
        let written = waiters.add_task(Lsn::new(4), Level::Written, waker());
        assert!(waiters.replace_waker(keys[0], waker()).is_ok());
        let reached = waiters.take_reached(|lsn, level| level == Level::Durable && lsn <= Lsn::new(3));
        assert_eq!((reached.len(), waiters.len()), (3, 2));
        assert!(waiters.replace_waker(keys[1], waker()).is_err() && waiters.remove_task(keys[3]).is_none());
        assert!(waiters.take_thread(None).is_none(), "no task leads");
        assert!(waiters.remove_task(written).is_some());
        assert_eq!((waiters.take_all().len(), waiters.len()), (1, 0));
    }
}
