//! Defers wakers while a thread holds locks of the engine or of a close.
//!
//! A waker is foreign code: it may close the store, or drop the last handle of it. A thread that
//! leads a flush under such a lock must therefore not run wakers until it has released the lock.

use crate::io::sync::thread_local;
use crate::io::threads::contained;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::task::Waker;

thread_local! {
    /// The wakers that this thread has yet to run; `None` while it may run them at once.
    static DEFERRED: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// While it lives, this thread runs no wakers. Dropping it runs them. The caller creates it before
/// it takes its locks, so that the guard outlives them.
#[must_use = "it defers wakers while it lives"]
pub(crate) struct DeferredWakes {
    is_outermost: bool,
    /// Makes the guard `!Send`: it belongs to one thread.
    _thread: PhantomData<*const ()>,
}

impl DeferredWakes {
    pub(crate) fn begin() -> DeferredWakes {
        let begin = |deferred: &RefCell<Option<Vec<Waker>>>| {
            let mut deferred = deferred.borrow_mut();
            let is_outermost = deferred.is_none();
            deferred.get_or_insert_default();
            is_outermost
        };
        // a thread that is ending has no list any more, so it runs wakers at once
        DeferredWakes { is_outermost: DEFERRED.try_with(begin).unwrap_or(false), _thread: PhantomData }
    }
}

impl Drop for DeferredWakes {
    fn drop(&mut self) {
        if self.is_outermost {
            let wakers = DEFERRED.try_with(|deferred| deferred.borrow_mut().take()).ok().flatten();
            wakers.into_iter().flatten().for_each(wake_now);
        }
    }
}

/// Wakes a task, at once or when this thread has released its locks.
pub(super) fn wake(waker: Waker) {
    let mut waker = Some(waker);
    let _ = DEFERRED.try_with(|deferred| {
        if let Some(wakers) = &mut *deferred.borrow_mut() {
            wakers.extend(waker.take());
        }
    });
    if let Some(waker) = waker {
        wake_now(waker);
    }
}

/// Runs a waker. A panic in it must not prevent other waiters from being woken.
fn wake_now(waker: Waker) {
    let _ = contained(|| waker.wake());
}
