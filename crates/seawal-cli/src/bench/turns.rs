//! The turns of a measurement: short slices, one after the other, until its time is over.

use std::time::{Duration, Instant};

/// The duration of a slice.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// Whether the measurement needs another turn. It has at least one.
pub(super) fn needs_another_turn(began: Instant, time: Duration, turns: usize) -> bool {
    turns == 0 || began.elapsed() < time
}
