//! What a durable write takes of late, and so how long it pays to wait without sleeping.
//!
//! A thread that sleeps has to be woken: a call of the system for whoever wakes it, a switch for itself, and more where the processor
//! has gone to sleep too. Where many wait for a device that is quick, it is cheaper to let others run again and again until the frame is there.
//! It knows nothing of frames or positions.

use crate::io::Storage;
use crate::io::sync::{Arc, AtomicU64, Ordering, thread};
use std::time::Duration;

/// Nobody lets others run more often than so, for the storage's clock may stand still. In a model it does.
const MOST_ROUNDS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 10_000 };
/// Who was woken is there by then, however long a sync of much took.
const MOST_GATHERING: Duration = Duration::from_millis(1);
/// From so many committers at once on they stay awake. (Measured on two cores: two threads lose a fifth by it, eight gain two fifths.)
const COMPANY: usize = if cfg!(any(loom, shuttle)) { 2 } else { 4 };

/// How quick the device is.
pub(super) struct DeviceLatency {
    storage: Arc<dyn Storage>,
    /// What a durable write takes, as a moving average.
    write_nanos: AtomicU64,
    commit_spin: Duration,
}

impl DeviceLatency {
    /// Those who wait stay awake for `commit_spin`, if a write takes no more than half of that.
    pub(super) fn new(storage: Arc<dyn Storage>, commit_spin: Duration) -> DeviceLatency {
        DeviceLatency { storage, write_nanos: AtomicU64::new(0), commit_spin }
    }

    /// Does a durable write, and notes what it takes.
    pub(super) fn timed<T>(&self, write: impl FnOnce() -> T) -> T {
        let began = self.storage.monotonic();
        let out = write();
        let taken = self.storage.monotonic().saturating_sub(began).as_nanos();
        let taken = u64::try_from(taken).unwrap_or(u64::MAX);
        let before = self.write_nanos.load(Ordering::Relaxed);
        self.write_nanos.store((before / 8).saturating_mul(7).saturating_add(taken / 8), Ordering::Relaxed);
        out
    }

    /// How long one who leads waits for others to join.
    pub(super) fn gathering(&self) -> Duration {
        self.half_a_write().min(MOST_GATHERING)
    }

    fn half_a_write(&self) -> Duration {
        Duration::from_nanos(self.write_nanos.load(Ordering::Relaxed) / 2)
    }

    /// How long one stays awake who waits beside so many.
    pub(super) fn awake(&self, committers: usize) -> Duration {
        let pays = committers >= COMPANY && self.half_a_write().saturating_mul(4) <= self.commit_spin;
        if pays { self.commit_spin } else { Duration::ZERO }
    }

    /// Lets others run again and again, until `done` says so or the time is over. Returns whether it said so.
    pub(super) fn give_way(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        if limit.is_zero() {
            return false;
        }
        let began = self.storage.monotonic();
        for _ in 0..MOST_ROUNDS {
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
    fn many_who_wait_for_a_quick_device_stay_awake() {
        let quick = pace(Duration::from_micros(250));
        assert_eq!(quick.awake(COMPANY), Duration::from_micros(500));
        assert_eq!(quick.awake(COMPANY - 1), Duration::ZERO);
        assert_eq!(pace(Duration::from_micros(251)).awake(64), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_stands_still_keeps_nobody_awake_for_ever() {
        let mut rounds = 0;
        let said = pace(Duration::ZERO).give_way(Duration::from_secs(1), || {
            rounds += 1;
            false
        });
        assert_eq!((said, rounds), (false, MOST_ROUNDS));
        assert!(pace(Duration::ZERO).give_way(Duration::from_secs(1), || true));
        assert!(!pace(Duration::ZERO).give_way(Duration::ZERO, || true));
    }

    #[test]
    fn what_a_write_takes_is_measured_by_the_storages_clock() {
        let disk = SimDisk::new(1);
        let pace = DeviceLatency::new(Arc::new(disk.clone()), Duration::from_micros(500));
        for _ in 0..100 {
            pace.timed(|| disk.advance(Duration::from_millis(1)));
        }
        assert!(pace.gathering() > Duration::from_micros(400), "{:?}", pace.gathering());
        pace.timed(|| disk.advance(Duration::from_secs(2)));
        assert_eq!(pace.gathering(), MOST_GATHERING);
        assert_eq!(pace.awake(64), Duration::ZERO);
    }
}
