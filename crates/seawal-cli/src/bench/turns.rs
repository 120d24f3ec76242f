//! How long is measured: short slices, one after the other, until the time is over.

use std::time::{Duration, Instant};

/// The length of a slice.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// Whether another turn is due. There is at least one.
pub(super) fn goes_on(began: Instant, time: Duration, turns: usize) -> bool {
    turns == 0 || began.elapsed() < time
}
