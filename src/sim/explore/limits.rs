//! The limits of an exploration: states, and real time.

use crate::io::sync::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The limits, shared by the threads.
pub(super) struct Limits {
    states: AtomicU64,
    most_states: u64,
    until: Option<Instant>,
    stopped: AtomicBool,
}

impl Limits {
    pub(super) fn new(states: Option<u64>, time: Option<Duration>) -> Self {
        Limits {
            states: AtomicU64::new(0),
            most_states: states.unwrap_or(u64::MAX),
            until: time.and_then(|time| Instant::now().checked_add(time)),
            stopped: AtomicBool::new(false),
        }
    }

    pub(super) fn none() -> Self {
        Limits::new(None, None)
    }

    pub(super) fn count_state(&self) {
        if self.states.fetch_add(1, Ordering::Relaxed) + 1 >= self.most_states {
            self.stop();
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_reached(&self) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.stop();
        }
        self.stopped.load(Ordering::Relaxed)
    }
}
