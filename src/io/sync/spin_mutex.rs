//! Locks that are held for less time than it takes to let another thread run.
//!
//! Who finds one taken looks again for a while before it does what the lock's own code does: let others run, and then sleep. On a
//! processor with many threads that are ready, either takes until all of them have had their turn, and whoever holds another lock
//! meanwhile keeps all who want that from running.

use crate::io::sync::{RwLock, RwLockWriteGuard};
use parking_lot::{Mutex, MutexGuard};
use std::hint::spin_loop;

/// Some twenty microseconds: only an interrupt of the holder takes longer.
const LOOKS: u32 = 1000;
/// Fewer: what is done under that lock is the user's.
const LOOKS_TO_WRITE: u32 = 100;

/// A mutex under which a few words are changed, or a record is copied.
pub(crate) struct SpinMutex<T>(Mutex<T>);

impl<T> SpinMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        SpinMutex(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.try_lock().unwrap_or_else(|| self.look_again())
    }

    #[cold]
    fn look_again(&self) -> MutexGuard<'_, T> {
        for _ in 0..LOOKS {
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

/// Locks for writing what nobody holds for long.
#[inline]
pub(crate) fn write_spinning<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    for _ in 0..LOOKS_TO_WRITE {
        if !lock.is_locked()
            && let Some(guard) = lock.try_write()
        {
            return guard;
        }
        spin_loop();
    }
    lock.write()
}
