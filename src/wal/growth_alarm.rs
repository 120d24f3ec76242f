//! Wakes the maintenance thread once the log has grown far enough.
//!
//! The thread parks without a timeout, so an append must wake it. An append reads one atomic for
//! that.

use crate::ids::Lsn;
use crate::io::sync::{AtomicU64, OnceLock, Ordering, thread};

/// Wakes one thread, which registers itself.
pub(crate) struct GrowthAlarm {
    thread: OnceLock<thread::Thread>,
    /// The position that an append must reach to wake the thread; `u64::MAX` while the thread
    /// checks by itself.
    at: AtomicU64,
}

impl GrowthAlarm {
    pub(super) fn new() -> GrowthAlarm {
        GrowthAlarm { thread: OnceLock::new(), at: AtomicU64::new(u64::MAX) }
    }

    /// Registers the calling thread as the one to wake.
    pub(crate) fn wake_this_thread(&self) {
        let _ = self.thread.set(thread::current());
    }

    /// Sets the position. The caller must compare it with the log's end afterwards, because an
    /// earlier append did not wake the thread.
    pub(crate) fn set(&self, at: Lsn) {
        self.at.store(at.get(), Ordering::Release);
    }

    /// Wakes the thread if an append has reached the position.
    pub(super) fn note_end(&self, end: Lsn) {
        if end.get() >= self.at.load(Ordering::Acquire) {
            self.ring();
        }
    }

    /// Wakes the thread if it waits for the log to grow.
    pub(crate) fn ring(&self) {
        if self.at.swap(u64::MAX, Ordering::AcqRel) != u64::MAX {
            self.wake();
        }
    }

    /// Wakes the thread, whatever it waits for.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
