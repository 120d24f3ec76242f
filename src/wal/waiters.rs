//! The list of threads and tasks that wait until the log has reached a position.
//!
//! It does not depend on frames, and it wakes no waiter itself. The caller removes waiters under
//! the append lock and wakes them after it has released that lock.
//!
//! Commits need that lock, so finding a waiter takes logarithmic time. For each level, waiters are
//! sorted by position. Threads are in a queue, because most register with the highest position so
//! far, and those whose position was reached are at the front. The memory of the queue is reused,
//! so registering a thread rarely allocates. Tasks are in a tree, because a task leaves from the
//! middle when its future is dropped.

use super::Level;
use crate::ids::Lsn;
use crate::io::sync::thread;
use crate::wal::deferred_wakes;
use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

/// How to wake a waiter when its position is reached.
pub(super) enum Wake {
    /// A thread that is parked.
    Thread(thread::Thread),
    /// A thread that spins. It polls the progress, and whether it was removed from the list.
    Spinning,
    /// A task, by its waker.
    Task(Waker),
}

impl Wake {
    pub(super) fn wake(self) {
        match self {
            Wake::Thread(thread) => thread.unpark(),
            Wake::Spinning => {}
            Wake::Task(waker) => deferred_wakes::wake(waker),
        }
    }
}

/// The key of a registration. Keys are sorted by the position that the waiter needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WaitKey {
    lsn: Lsn,
    id: u64,
    level: Level,
}

/// Threads that wait for one level, in order of their keys.
#[derive(Default)]
struct Threads(VecDeque<(WaitKey, Wake)>);

impl Threads {
    fn add(&mut self, key: WaitKey, wake: Wake) {
        if self.0.back().is_none_or(|(last, _)| *last < key) {
            self.0.push_back((key, wake));
        } else {
            let at = self.0.partition_point(|(other, _)| *other < key);
            self.0.insert(at, (key, wake));
        }
    }

    fn get_mut(&mut self, key: WaitKey) -> Option<&mut Wake> {
        let at = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.0.get_mut(at).map(|(_, wake)| wake)
    }

    /// Removes the first thread. If `above` is given, it is the first that waits for a position
    /// above that.
    fn take(&mut self, above: Option<Lsn>) -> Option<Wake> {
        let at = above.map_or(0, |above| self.0.partition_point(|(key, _)| key.lsn <= above));
        self.0.remove(at).map(|(_, wake)| wake)
    }
}

/// All waiters.
#[derive(Default)]
pub(super) struct Waiters {
    durable_threads: Threads,
    written_threads: Threads,
    durable_tasks: BTreeMap<WaitKey, Waker>,
    written_tasks: BTreeMap<WaitKey, Waker>,
    next_id: u64,
}

impl Waiters {
    pub(super) fn len(&self) -> usize {
        let threads = self.durable_threads.0.len().saturating_add(self.written_threads.0.len());
        threads.saturating_add(self.durable_tasks.len()).saturating_add(self.written_tasks.len())
    }

    fn next_key(&mut self, lsn: Lsn, level: Level) -> WaitKey {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        WaitKey { lsn, id, level }
    }

    fn threads(&mut self, level: Level) -> &mut Threads {
        match level {
            Level::Durable => &mut self.durable_threads,
            Level::Written => &mut self.written_threads,
        }
    }

    fn tasks(&mut self, level: Level) -> &mut BTreeMap<WaitKey, Waker> {
        match level {
            Level::Durable => &mut self.durable_tasks,
            Level::Written => &mut self.written_tasks,
        }
    }

    /// Registers a thread. Returns the key of the registration.
    pub(super) fn add_thread(&mut self, lsn: Lsn, level: Level, wake: Wake) -> WaitKey {
        debug_assert!(!matches!(wake, Wake::Task(_)), "tasks have a list of their own");
        let key = self.next_key(lsn, level);
        self.threads(level).add(key, wake);
        key
    }

    /// Changes a spinning thread to a parked one, unless it was already removed. Returns whether it
    /// still waits.
    pub(super) fn park_thread(&mut self, key: WaitKey, thread: thread::Thread) -> bool {
        self.threads(key.level).get_mut(key).map(|wake| *wake = Wake::Thread(thread)).is_some()
    }

    /// Whether the thread is still registered.
    pub(super) fn contains_thread(&mut self, key: WaitKey) -> bool {
        self.threads(key.level).get_mut(key).is_some()
    }

    /// Registers a task. Returns the key of the registration.
    pub(super) fn add_task(&mut self, lsn: Lsn, level: Level, waker: Waker) -> WaitKey {
        let key = self.next_key(lsn, level);
        let before = self.tasks(level).insert(key, waker);
        debug_assert!(before.is_none(), "two tasks have the same key");
        key
    }

    /// Replaces the waker of a task. Returns the previous waker, or the new one as an error if the
    /// task was already removed. The caller drops it without the lock.
    pub(super) fn replace_waker(&mut self, key: WaitKey, waker: Waker) -> Result<Waker, Waker> {
        match self.tasks(key.level).get_mut(&key) {
            Some(registered) => Ok(std::mem::replace(registered, waker)),
            None => Err(waker),
        }
    }

    /// Removes a task. Returns its waker, which the caller drops without the lock.
    #[must_use]
    pub(super) fn remove_task(&mut self, key: WaitKey) -> Option<Waker> {
        self.tasks(key.level).remove(&key)
    }

    /// Removes every waiter whose position was reached.
    pub(super) fn take_reached(&mut self, reached: impl Fn(Lsn, Level) -> bool) -> Vec<Wake> {
        let mut out = Vec::new();
        for threads in [&mut self.durable_threads, &mut self.written_threads] {
            while let Some((_, wake)) = threads.0.pop_front_if(|(key, _)| reached(key.lsn, key.level)) {
                out.push(wake);
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

    /// Removes every waiter, because the log has failed or was closed.
    pub(super) fn take_all(&mut self) -> Vec<Wake> {
        let tasks = [std::mem::take(&mut self.durable_tasks), std::mem::take(&mut self.written_tasks)];
        let tasks = tasks.into_iter().flat_map(BTreeMap::into_values).map(Wake::Task);
        let threads = [&mut self.durable_threads, &mut self.written_threads];
        threads.into_iter().flat_map(|threads| threads.0.drain(..)).map(|(_, wake)| wake).chain(tasks).collect()
    }

    /// Removes a thread, which can lead. If `above` is given, it is one that waits for a position
    /// above that.
    pub(super) fn take_thread(&mut self, above: Option<Lsn>) -> Option<Wake> {
        self.durable_threads.take(above).or_else(|| self.written_threads.take(above))
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

    #[test]
    fn threads_are_taken_out_in_order_of_their_position_and_by_their_level() {
        let mut waiters = Waiters::default();
        let at = |n: u64| Lsn::new(n);
        let keys = [5, 1, 3].map(|n| waiters.add_thread(at(n), Level::Durable, Wake::Spinning));
        let written = waiters.add_thread(at(2), Level::Written, Wake::Spinning);
        assert_eq!(waiters.take_reached(|lsn, level| level == Level::Durable && lsn <= at(2)).len(), 1);
        assert!(!waiters.contains_thread(keys[1]) && waiters.contains_thread(keys[2]));
        assert!(waiters.park_thread(written, thread::current()) && !waiters.park_thread(keys[1], thread::current()));
        assert!(waiters.take_thread(Some(at(5))).is_none(), "none waits above that");
        assert!(matches!(waiters.take_thread(Some(at(3))), Some(Wake::Spinning)));
        assert!(!waiters.contains_thread(keys[0]) && waiters.contains_thread(keys[2]));
        assert!(matches!(waiters.take_thread(None), Some(Wake::Spinning)));
        assert!(matches!(waiters.take_thread(None), Some(Wake::Thread(_))));
        assert_eq!(waiters.len(), 0);
    }

    /// U4: each operation of any waiter takes logarithmic time. A scan of the others for each of
    /// them takes minutes.
    #[test]
    fn a_hundred_thousand_waiters_do_not_scan_each_other() {
        const WAITERS: u64 = 100_000;
        let began = std::time::Instant::now();
        let mut waiters = Waiters::default();
        let threads: Vec<_> =
            (0..WAITERS).map(|n| waiters.add_thread(Lsn::new(n), Level::Durable, Wake::Spinning)).collect();
        for key in threads {
            assert!(waiters.contains_thread(key) && waiters.park_thread(key, thread::current()));
        }
        let waker = || Waker::noop().clone();
        let tasks: Vec<_> = (0..WAITERS).map(|n| waiters.add_task(Lsn::new(n), Level::Durable, waker())).collect();
        for key in tasks.into_iter().rev() {
            assert!(waiters.replace_waker(key, waker()).is_ok() && waiters.remove_task(key).is_some());
        }
        for n in 0..WAITERS {
            assert_eq!(waiters.take_reached(|lsn, _| lsn <= Lsn::new(n)).len(), 1);
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
