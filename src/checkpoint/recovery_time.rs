//! Estimates the time that recovery would take, from measured rates.
//!
//! The cost of applying a command is sampled while commands run. The costs of reading a snapshot
//! and of redoing the log come from this store's last recovery, if that was large enough to measure
//! them. Until then, upper bounds are used.
//!
//! Batched redo is faster than one-by-one apply. The measured redo cost per byte is clamped to
//! [one-by-one / 6, one-by-one] of the current commands' cost, because the log may hold a different
//! mix now.

use crate::io::Clock;
use crate::io::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// One command in this many is timed: two clock reads take about as long as a small command.
const SAMPLE_COMMANDS: u64 = 64;
// Initial figures. They are upper bounds, so that a checkpoint comes too early rather than too
// late. A few seconds of work replace the first by a measurement; a large enough recovery replaces
// the others.
const RECORD_NANOS: u64 = 1_500;
const LOG_BYTE_PICOS: u64 = 3_000;
const SNAPSHOT_BYTE_PICOS: u64 = 6_000;
/// The cost per record of decoding and bookkeeping, which the sample does not include.
const RECORD_OVERHEAD_NANOS: u64 = 250;
/// Opening the directory, a dozen syncs, and starting a segment.
const FIXED: Duration = Duration::from_millis(40);
/// The built-in machine redoes in bulk up to six times as fast as it applies commands.
const MAX_SPEEDUP: u64 = 6;
/// Below this size the fixed cost of a recovery dominates, so its rates are not used.
const TELLING_BYTES: u64 = 8 << 20;

/// Measured costs.
#[derive(Debug)]
pub(crate) struct RecoveryCostModel {
    commands: AtomicU64,
    /// A moving average of the time to apply a command, in nanoseconds; 0 before the first sample.
    apply_nanos: AtomicU64,
    snapshot_byte_picos: u64,
    /// The time to read and redo a byte of log, in picoseconds, if it was measured.
    redo_byte_picos: Option<u64>,
}

impl RecoveryCostModel {
    /// Creates a model from the last recovery: the time and the bytes of its snapshot, and of its
    /// log.
    pub(crate) fn new(snapshot: (Duration, u64), redo: (Duration, u64)) -> RecoveryCostModel {
        let picos = |(time, bytes): (Duration, u64)| {
            let picos = time.as_nanos().saturating_mul(1000).checked_div(u128::from(bytes))?;
            u64::try_from(picos).ok().filter(|_| bytes >= TELLING_BYTES)
        };
        RecoveryCostModel {
            commands: AtomicU64::new(0),
            apply_nanos: AtomicU64::new(0),
            snapshot_byte_picos: picos(snapshot).unwrap_or(SNAPSHOT_BYTE_PICOS),
            redo_byte_picos: picos(redo),
        }
    }

    /// Begins to time a command, if it is one of the sampled ones.
    pub(crate) fn start<C: Clock + ?Sized>(&self, clock: &C) -> Option<Duration> {
        let count = self.commands.fetch_add(1, Ordering::Relaxed);
        count.is_multiple_of(SAMPLE_COMMANDS).then(|| clock.monotonic())
    }

    /// Ends the timing of a command.
    pub(crate) fn stop<C: Clock + ?Sized>(&self, started: Option<Duration>, clock: &C) {
        let Some(started) = started else { return };
        // at most one second: the process may have been suspended meanwhile
        let taken = clock.monotonic().saturating_sub(started).as_nanos().min(1_000_000_000) as u64;
        let before = self.apply_nanos.load(Ordering::Relaxed);
        let average = if before == 0 { taken } else { before.saturating_mul(15).saturating_add(taken) / 16 };
        self.apply_nanos.store(average.max(1), Ordering::Relaxed);
    }

    /// The estimated recovery time for these amounts.
    pub(super) fn estimate(&self, snapshot_bytes: u64, log_bytes: u64, records: u64) -> Duration {
        let record_nanos = match self.apply_nanos.load(Ordering::Relaxed) {
            0 => RECORD_NANOS,
            nanos => nanos.saturating_add(RECORD_OVERHEAD_NANOS),
        };
        let one_by_one =
            (log_bytes.saturating_mul(LOG_BYTE_PICOS) / 1000).saturating_add(records.saturating_mul(record_nanos));
        let redo = match self.redo_byte_picos {
            Some(picos) => (log_bytes.saturating_mul(picos) / 1000).clamp(one_by_one / MAX_SPEEDUP, one_by_one),
            None => one_by_one,
        };
        let load = snapshot_bytes.saturating_mul(self.snapshot_byte_picos) / 1000;
        FIXED.saturating_add(Duration::from_nanos(load.saturating_add(redo)))
    }
}
