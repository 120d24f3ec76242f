//! Time limits of waits, by the storage's clock.
//!
//! A simulated clock can jump, so that the limit is reached without real time passing. It can also
//! stand still, and the wait must end even then. So a wait sleeps in slices of real time, and reads
//! the clock after each. The sum of the slices counts towards the limit too, and whichever reaches
//! it first ends the wait.

use super::Clock;
use super::sync::thread;
use std::time::Duration;

/// The longest sleep between two readings of the clock.
const SLICE: Duration = Duration::from_millis(10);

/// The end of a wait.
pub(crate) struct Deadline<'a> {
    clock: &'a dyn Clock,
    /// The end by the clock; `None` if the clock cannot express it.
    at: Option<Duration>,
    /// The real time that may still be slept.
    left: Duration,
}

impl<'a> Deadline<'a> {
    /// A deadline at `limit` from now.
    pub(crate) fn after(clock: &'a dyn Clock, limit: Duration) -> Self {
        Deadline { clock, at: clock.monotonic().checked_add(limit), left: limit }
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_over(&self) -> bool {
        self.left.is_zero() || self.at.is_some_and(|at| self.clock.monotonic() >= at)
    }

    /// Sleeps once, by calling `sleep` with the time to sleep: the least of a slice, `most` and the
    /// time left. `sleep` returns `true` if it slept for all of that time, and `false` if it was
    /// woken.
    pub(crate) fn sleep(&mut self, most: Duration, sleep: impl FnOnce(Duration) -> bool) {
        let slice = SLICE.min(most).min(self.left);
        if sleep(slice) {
            self.left = self.left.saturating_sub(slice);
        }
    }
}

/// The first and the longest pause between two tries. The longest bounds how long a resource stays
/// unused; 20 tries per second take negligible processor time.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The pauses between tries, each twice as long as the one before, for as long as `limit`. Each
/// call sleeps and returns `true`, or returns `false` without sleeping once the limit has passed.
pub(crate) fn pauses(clock: &dyn Clock, limit: Duration) -> impl FnMut() -> bool {
    let mut deadline = Deadline::after(clock, limit);
    let mut pause = MIN_PAUSE;
    move || {
        if deadline.is_over() {
            return false;
        }
        let mut left = pause;
        while !left.is_zero() && !deadline.is_over() {
            deadline.sleep(left, |slice| {
                thread::park_timeout(slice);
                left = left.saturating_sub(slice);
                true
            });
        }
        pause = pause.saturating_mul(2).min(MAX_PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn the_clock_or_the_time_slept_ends_a_wait_whichever_is_first() {
        let disk = SimDisk::new(1);
        let mut deadline = Deadline::after(&disk, Duration::from_millis(25));
        let mut slept = Vec::new();
        while !deadline.is_over() {
            deadline.sleep(Duration::MAX, |limit| {
                slept.push(limit.as_millis());
                true
            });
        }
        assert_eq!(slept, [10, 10, 5], "the clock stands still");
        let mut deadline = Deadline::after(&disk, Duration::from_secs(3600));
        deadline.sleep(Duration::MAX, |_| false);
        assert!(!deadline.is_over());
        disk.advance(Duration::from_secs(3600));
        assert!(deadline.is_over());
        assert!(!Deadline::after(&disk, Duration::MAX).is_over());
    }

    #[test]
    fn pauses_grow_and_end_with_the_limit() {
        let disk = SimDisk::new(1);
        assert!(!pauses(&disk, Duration::ZERO)());
        let mut pause = pauses(&disk, Duration::from_millis(100));
        assert_eq!(std::iter::repeat_with(&mut pause).take_while(|paused| *paused).count(), 7, "1, 2, 4 ... 32, 37");
        let mut pause = pauses(&disk, Duration::from_secs(3600));
        assert!(pause());
        disk.advance(Duration::from_secs(3600));
        assert!(!pause(), "by the storage's clock");
        assert!(pauses(&disk, Duration::MAX)());
    }
}
