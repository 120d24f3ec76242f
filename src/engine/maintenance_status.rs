//! The state that the maintenance thread and its callers share.

use crate::error::Error;
use crate::io::background_errors::BackgroundErrors;
use crate::io::sync::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The kinds of work whose failures are kept.
pub(super) const KINDS: usize = 4;

pub(super) struct MaintenanceStatus {
    /// When the thread wakes up by itself, in nanoseconds of the storage's clock; zero while it is
    /// awake, and `u64::MAX` if it does not.
    wakes_at_nanos: AtomicU64,
    pub(super) errors: BackgroundErrors<KINDS>,
    /// Whether a close was called within a stage of a checkpoint. It follows the stage.
    close_asked: AtomicBool,
    /// Whether the last handle was dropped within a stage. The maintenance thread, which runs the
    /// stage, ends the log.
    end_left: AtomicBool,
}

impl MaintenanceStatus {
    pub(super) fn new() -> Self {
        MaintenanceStatus {
            wakes_at_nanos: AtomicU64::new(0),
            errors: BackgroundErrors::new(),
            close_asked: AtomicBool::new(false),
            end_left: AtomicBool::new(false),
        }
    }

    pub(super) fn ask_for_close(&self) {
        self.close_asked.store(true, Ordering::Release);
    }

    /// Whether a close was requested. Only the first call after the request returns `true`.
    pub(super) fn takes_over_close(&self) -> bool {
        self.close_asked.load(Ordering::Acquire) && self.close_asked.swap(false, Ordering::AcqRel)
    }

    pub(super) fn leave_end(&self) {
        self.end_left.store(true, Ordering::Release);
    }

    pub(super) fn takes_over_end(&self) -> bool {
        self.end_left.swap(false, Ordering::AcqRel)
    }

    /// Records that the thread is awake. It need not be woken for work that it will see before it
    /// sleeps.
    pub(super) fn note_awake(&self) {
        self.wakes_at_nanos.store(0, Ordering::Release);
    }

    /// Records when the thread will wake up by itself. The thread calls this before its last check
    /// for work.
    pub(super) fn note_sleep(&self, time: Option<Duration>) {
        self.wakes_at_nanos.store(time.map_or(u64::MAX, nanos), Ordering::Release);
    }

    /// Whether the thread would sleep through this time.
    pub(super) fn sleeps_beyond(&self, time: Duration) -> bool {
        nanos(time) < self.wakes_at_nanos.load(Ordering::Acquire)
    }

    pub(super) fn error(&self) -> Option<Error> {
        self.errors.first()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
