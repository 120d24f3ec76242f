//! The recent latency of durable writes, which decides whether waiting committers spin or park.
//!
//! Waking a parked thread costs a system call and a context switch, and more if the processor has
//! gone idle. Where many threads wait for a fast device, spinning with yields until the frame has
//! landed is cheaper. This module does not depend on frames or positions.

use crate::io::Storage;
use crate::io::sync::{Arc, AtomicU64, Ordering, thread};
use std::time::Duration;

/// Upper bound on yields, in case the storage clock does not advance. Under a model checker it
/// never does.
const MAX_YIELDS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 10_000 };
/// Bounds how long a leader waits for others to join. By then, threads that the previous frame woke
/// are running.
const MAX_GATHER: Duration = Duration::from_millis(1);
/// From this many concurrent committers on, waiters spin. (Measured on two cores: two threads lose
/// a fifth of their throughput by spinning, eight gain two fifths.)
const MIN_WAITERS_TO_SPIN: usize = if cfg!(any(loom, shuttle)) { 2 } else { 4 };

/// A moving average of the latency of durable writes.
pub(super) struct DeviceLatency {
    storage: Arc<dyn Storage>,
    /// Latency of a durable write in nanoseconds: each new measurement has a weight of one eighth.
    write_nanos: AtomicU64,
    commit_spin: Duration,
}

impl DeviceLatency {
    /// Waiters spin for up to `commit_spin` if a write takes no more than half of that.
    pub(super) fn new(storage: Arc<dyn Storage>, commit_spin: Duration) -> DeviceLatency {
        DeviceLatency { storage, write_nanos: AtomicU64::new(0), commit_spin }
    }

    /// Runs a durable write and measures its latency.
    pub(super) fn timed<T>(&self, write: impl FnOnce() -> T) -> T {
        let began = self.storage.monotonic();
        let out = write();
        let taken = self.storage.monotonic().saturating_sub(began).as_nanos();
        let taken = u64::try_from(taken).unwrap_or(u64::MAX);
        let before = self.write_nanos.load(Ordering::Relaxed);
        self.write_nanos.store((before / 8).saturating_mul(7).saturating_add(taken / 8), Ordering::Relaxed);
        out
    }

    /// How long a leader waits for others to join.
    pub(super) fn gather_limit(&self) -> Duration {
        self.half_a_write().min(MAX_GATHER)
    }

    fn half_a_write(&self) -> Duration {
        Duration::from_nanos(self.write_nanos.load(Ordering::Relaxed) / 2)
    }

    /// How long a waiter spins when this many threads commit at once; zero if it should park.
    pub(super) fn spin_limit(&self, committers: usize) -> Duration {
        let pays = committers >= MIN_WAITERS_TO_SPIN && self.half_a_write().saturating_mul(4) <= self.commit_spin;
        if pays { self.commit_spin } else { Duration::ZERO }
    }

    /// Yields in a loop until `done` returns true or the limit has passed. Returns whether `done`
    /// did.
    pub(super) fn yield_until(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        if limit.is_zero() {
            return false;
        }
        let began = self.storage.monotonic();
        for _ in 0..MAX_YIELDS {
            thread::yield_now();
            if done() {
                return true;
            }
            if self.storage.monotonic().saturating_sub(began) >= limit {
                break;
            }
        }
        false
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    fn pace(write: Duration) -> DeviceLatency {
        let pace = DeviceLatency::new(Arc::new(SimDisk::new(1)), Duration::from_micros(500));
        pace.write_nanos.store(write.as_nanos() as u64, Ordering::Relaxed);
        pace
    }

    #[test]
    fn many_waiters_spin_for_a_fast_device() {
        let quick = pace(Duration::from_micros(250));
        assert_eq!(quick.spin_limit(MIN_WAITERS_TO_SPIN), Duration::from_micros(500));
        assert_eq!(quick.spin_limit(MIN_WAITERS_TO_SPIN - 1), Duration::ZERO);
        assert_eq!(pace(Duration::from_micros(251)).spin_limit(64), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_does_not_advance_ends_the_spinning() {
        let mut rounds = 0;
        let said = pace(Duration::ZERO).yield_until(Duration::from_secs(1), || {
            rounds += 1;
            false
        });
        assert_eq!((said, rounds), (false, MAX_YIELDS));
        assert!(pace(Duration::ZERO).yield_until(Duration::from_secs(1), || true));
        assert!(!pace(Duration::ZERO).yield_until(Duration::ZERO, || true));
    }

    #[test]
    fn write_latency_is_measured_by_the_storage_clock() {
        let disk = SimDisk::new(1);
        let pace = DeviceLatency::new(Arc::new(disk.clone()), Duration::from_micros(500));
        for _ in 0..100 {
            pace.timed(|| disk.advance(Duration::from_millis(1)));
        }
        assert!(pace.gather_limit() > Duration::from_micros(400), "{:?}", pace.gather_limit());
        pace.timed(|| disk.advance(Duration::from_secs(2)));
        assert_eq!(pace.gather_limit(), MAX_GATHER);
        assert_eq!(pace.spin_limit(64), Duration::ZERO);
    }
}
