//! Records which locks the current thread holds, so that a call that would wait for its own thread
//! is refused.
//!
//! User code runs under some locks: a machine's own code, and the closure of a read. It may call
//! back. With a mark for each such lock, the callee finds out without waiting whether its own
//! caller holds it. A mark costs two stores to memory of the thread.

use super::thread_local;
use std::cell::{Cell, RefCell};

/// The number of locks that a thread can mark at once, each of another store. Further locks are not
/// marked.
const SLOTS: usize = 4;

/// The marks of one thread.
struct Marks {
    /// Addresses of locks; 0 is no mark.
    slots: [Cell<usize>; SLOTS],
    /// The number of marks, including those that found no slot.
    count: Cell<usize>,
    /// Whether there is deferred work.
    has_deferred: Cell<bool>,
}

type Deferred = Vec<Box<dyn FnOnce()>>;

thread_local! {
    static MARKS: Marks =
        const {
            let slots = [const { Cell::new(0) }; SLOTS];
            Marks { slots, count: Cell::new(0), has_deferred: Cell::new(false) }
        };
    static DEFERRED: RefCell<Deferred> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread holds the lock at an address.
#[inline]
pub(crate) fn is_held(lock: usize) -> bool {
    // almost always no lock is held, which costs one comparison
    MARKS.with(|marks| marks.count.get() > 0 && marks.slots.iter().any(|slot| slot.get() == lock))
}

/// Runs `work` at once if this thread holds no marked lock, and otherwise when it has released the
/// last one.
pub(crate) fn defer(work: Box<dyn FnOnce()>) {
    if MARKS.with(|marks| marks.count.get() == 0) {
        return work();
    }
    DEFERRED.with(|deferred| deferred.borrow_mut().push(work));
    MARKS.with(|marks| marks.has_deferred.set(true));
}

/// What runs under a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// A closure of users or a machine of theirs, which may call the engine.
    UserCode,
    /// Code of this library alone, which does not.
    OwnCode,
}

/// Marks a lock as held by this thread. The mark is dropped after the lock was released.
#[must_use = "dropping it says that the lock is released"]
pub(crate) struct HoldMark {
    slot: Option<usize>,
}

impl HoldMark {
    /// Notes that this thread holds the lock at an address, if code of users runs under it.
    #[inline]
    pub(crate) fn while_runs(runs: Runs, lock: usize) -> Option<HoldMark> {
        (runs == Runs::UserCode).then(|| HoldMark::new(lock))
    }

    /// Marks the lock at an address as held by this thread.
    #[inline]
    pub(crate) fn new(lock: usize) -> HoldMark {
        MARKS.with(|marks| {
            let count = marks.count.get();
            marks.count.set(count.saturating_add(1));
            let slot = if count == 0 { Some(0) } else { marks.slots.iter().position(|slot| slot.get() == 0) };
            if let Some(free) = slot.and_then(|slot| marks.slots.get(slot)) {
                free.set(lock);
            }
            HoldMark { slot }
        })
    }
}

impl Drop for HoldMark {
    #[inline]
    fn drop(&mut self) {
        let is_due = MARKS.with(|marks| {
            if let Some(slot) = self.slot.and_then(|slot| marks.slots.get(slot)) {
                slot.set(0);
            }
            marks.count.set(marks.count.get().saturating_sub(1));
            marks.has_deferred.get() && marks.count.get() == 0
        });
        if is_due {
            run_deferred();
        }
    }
}

#[cold]
fn run_deferred() {
    MARKS.with(|marks| marks.has_deferred.set(false));
    let deferred = DEFERRED.with(RefCell::take);
    deferred.into_iter().for_each(|work| work());
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_lock_is_held_from_its_mark_on_until_that_is_dropped() {
        assert!(!is_held(8));
        let mark = HoldMark::new(8);
        let other = HoldMark::new(16);
        assert!(is_held(8) && is_held(16) && !is_held(24));
        assert!(!std::thread::spawn(|| is_held(8)).join().unwrap());
        drop(mark);
        assert!(!is_held(8) && is_held(16));
        drop(other);
        assert!(!is_held(16));
    }

    #[test]
    fn deferred_work_runs_when_the_last_mark_is_dropped_and_may_defer_again() {
        let done = Rc::new(Cell::new(0));
        let work = |by: u32| {
            let done = done.clone();
            Box::new(move || done.set(done.get() + by))
        };
        defer(work(1));
        assert_eq!(done.get(), 1);
        let (outer, inner) = (HoldMark::new(8), HoldMark::new(16));
        let nested = work(10);
        defer(Box::new(move || {
            let mark = HoldMark::new(8);
            defer(nested);
            drop(mark);
        }));
        drop(inner);
        assert_eq!(done.get(), 1);
        drop(outer);
        assert_eq!(done.get(), 11);
    }

    #[test]
    fn locks_beyond_the_slots_are_not_marked_and_do_no_harm() {
        let marks: Vec<_> = (1..20).map(HoldMark::new).collect();
        assert!(is_held(SLOTS) && !is_held(SLOTS + 1));
        drop(marks);
        assert!(!(1..20).any(is_held));
    }
}
