//! Time limits of waits, by the storage's clock.
//!
//! A simulated clock jumps, and then the limit is reached without any real time passing; or it stands still, and then the wait must
//! end all the same. So a wait sleeps in slices of real time: after each it looks at the clock, and the slices it has slept count
//! towards the limit too. Whichever is first at the limit ends the wait.

use super::Clock;
use std::time::Duration;

/// How long a wait sleeps before it looks at the clock again.
const SLICE: Duration = Duration::from_millis(10);

/// The end of a wait.
pub(crate) struct Deadline<'a> {
    clock: &'a dyn Clock,
    /// By the clock; `None` if that is more than the clock can express.
    at: Option<Duration>,
    /// Real time that may still be slept.
    left: Duration,
}

impl<'a> Deadline<'a> {
    /// A deadline this far ahead.
    pub(crate) fn after(clock: &'a dyn Clock, limit: Duration) -> Self {
        Deadline { clock, at: clock.monotonic().checked_add(limit), left: limit }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.left.is_zero() || self.at.is_some_and(|at| self.clock.monotonic() >= at)
    }

    /// Sleeps once, by calling `sleep` with the time to sleep: a slice, `most`, or what is left. `sleep` returns whether it slept
    /// for all of that, and was not woken.
    pub(crate) fn sleep(&mut self, most: Duration, sleep: impl FnOnce(Duration) -> bool) {
        let slice = SLICE.min(most).min(self.left);
        if sleep(slice) {
            self.left = self.left.saturating_sub(slice);
        }
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
}
