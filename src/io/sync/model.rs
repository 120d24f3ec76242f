//! A model checker's primitives with the interface of `parking_lot`'s (`--cfg loom`, `--cfg
//! shuttle`).
//!
//! Time does not pass in a model. A timed wait on a condition never times out, so that a lost
//! wake-up shows as a deadlock. A timed park is used for polling only, and may return at any
//! moment.

#[cfg(loom)]
use ::loom as checker;
#[cfg(not(loom))]
use ::shuttle as checker;

pub(crate) use checker::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
pub(crate) use checker::sync::{RwLockReadGuard, RwLockWriteGuard};
pub(crate) use checker::thread_local as checker_thread_local;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

#[cfg(not(loom))]
pub(crate) use checker::sync::mpsc;
#[cfg(loom)]
pub(crate) use std::sync::mpsc;

/// The checker's `thread_local!`, for the static variables that the standard library's accepts.
/// loom's knows no `const` initializers, so these are initialized like others.
macro_rules! model_thread_local {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = const $init:block;)+) => {
        $crate::io::sync::checker_thread_local! { $($(#[$attribute])* static $name: $type = $init;)+ }
    };
    ($($rest:tt)*) => {
        $crate::io::sync::checker_thread_local! { $($rest)* }
    };
}
pub(crate) use model_thread_local;

/// Threads of the model.
#[cfg(not(loom))]
pub(crate) mod thread {
    #[allow(unused_imports, reason = "tests yield")]
    pub(crate) use crate::io::sync::model::checker::thread::{
        Builder, JoinHandle, Thread, current, panicking, park, scope, yield_now,
    };

    pub(crate) fn park_timeout(_limit: std::time::Duration) {
        yield_now();
    }
}

#[cfg(loom)]
#[path = "loom_thread.rs"]
pub(crate) mod thread;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

/// Empty only while the thread waits for a condition.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(Option<checker::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard(Some(guard))),
            Err(TryLockError::Poisoned(poisoned)) => Some(MutexGuard(Some(poisoned.into_inner()))),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[expect(clippy::expect_used, reason = "the guard is missing only during a wait")]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("the lock is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[expect(clippy::expect_used, reason = "the guard is missing only during a wait")]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the lock is held")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(checker::sync::Condvar);

/// The result of a timed wait. It never says that the time was over.
pub(crate) struct NotTimedOut;

impl NotTimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Condvar(checker::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.0 = guard.0.take().map(|guard| self.0.wait(guard).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _limit: Duration) -> NotTimedOut {
        self.wait(guard);
        NotTimedOut
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[derive(Debug)]
pub(crate) struct RwLock<T>(checker::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        RwLock(checker::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> checker::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn write_spinning<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write()
}
