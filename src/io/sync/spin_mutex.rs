//! Locks that are held for less time than a context switch takes.
//!
//! On contention, spin for up to ~20 µs before falling back to parking_lot's yield-then-park. With
//! many runnable threads, a yield or a park lasts until each of them had its turn. A thread that
//! yields while it holds another lock makes all waiters of that lock wait as long (a lock convoy).

use crate::io::sync::{RwLock, RwLockWriteGuard};
use parking_lot::{Mutex, MutexGuard};
use std::hint::spin_loop;

/// About 20 µs. The holder needs longer only if it is preempted.
const SPINS_BEFORE_PARK: u32 = 1000;
/// About 2 µs, because user code may run under this lock, for any length of time.
const WRITE_SPINS_BEFORE_PARK: u32 = 100;

/// A mutex for critical sections that change a few words or copy a record.
pub(crate) struct SpinMutex<T>(Mutex<T>);

impl<T> SpinMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        SpinMutex(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.try_lock().unwrap_or_else(|| self.lock_contended())
    }

    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, T> {
        for _ in 0..SPINS_BEFORE_PARK {
            if !self.0.is_locked()
                && let Some(guard) = self.0.try_lock()
            {
                return guard;
            }
            spin_loop();
        }
        self.0.lock()
    }
}

/// Locks for writing, and spins before it parks.
#[inline]
pub(crate) fn write_spinning<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    for _ in 0..WRITE_SPINS_BEFORE_PARK {
        if !lock.is_locked()
            && let Some(guard) = lock.try_write()
        {
            return guard;
        }
        spin_loop();
    }
    lock.write()
}
