//! Estimates the time that recovery would take, from measured rates.
//!
//! Three costs are measured, each where that is possible:
//!
//! - Opening the directory and cutting the log: by this open.
//! - Loading the snapshot: by this open, and by a rehearsal after each checkpoint if there is a
//!   recovery budget.
//! - Redoing a record: by this open. The time to apply a command, sampled while commands run, stands
//!   in where this open redid little, and bounds the measurement where the log holds a different mix
//!   now.
//!
//! Until then, the machine's typical rates are used. A log of small durable commits is mostly
//! padding, which recovery only reads. So bytes of log count at the rate of reading, and the rest
//! of the cost belongs to the records.

use crate::io::Clock;
use crate::io::sync::{AtomicU64, Ordering};
use crate::machine::RecoveryRates;
use std::time::Duration;

/// One command in this many is timed: two clock reads take about as long as a small command.
const SAMPLE_COMMANDS: u64 = 64;
/// The weight of the average so far against one sample.
const SAMPLES_AVERAGED: u64 = 31;
/// A sample counts as at most this many averages: a thread that lost its processor within a command
/// tells nothing about the command.
const LARGEST_SAMPLE: u64 = 4;
/// The time to apply a command before the first sample.
const APPLY_NANOS: u64 = 1_000;
/// The cost per record of decoding and bookkeeping, which the sample does not include.
const RECORD_OVERHEAD_NANOS: u64 = 250;
/// The cost of reading and checking a byte of log, padding included.
const LOG_BYTE_PICOS: u64 = 400;
/// Opening the directory, a dozen syncs, and starting a segment: the least, and the most that a
/// measurement counts for. It may include a wait for the lock.
const FIXED: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(200));
/// How far the cost of the records redone at open may be from what the commands now suggest.
const PLAUSIBLE_FACTOR: u64 = 4;
/// Below this size the fixed cost of a recovery dominates, so its rates are not used.
pub(super) const TELLING_BYTES: u64 = 8 << 20;

/// What the last recovery took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MeasuredRecovery {
    /// All but the load and the redo.
    pub(crate) fixed: Duration,
    /// The time and the bytes of the load.
    pub(crate) load: (Duration, u64),
    /// The time, the bytes and the records of the redo.
    pub(crate) redo: (Duration, u64, u64),
}

/// Measured costs.
#[derive(Debug)]
pub(crate) struct RecoveryCostModel {
    rates: RecoveryRates,
    fixed: Duration,
    commands: AtomicU64,
    /// A moving average of the time to apply a command, in nanoseconds; 0 before the first sample.
    apply_nanos: AtomicU64,
    /// The time to load a byte of a snapshot, in picoseconds; 0 before it was measured.
    load_byte_picos: AtomicU64,
    /// The time to redo a record beyond reading it, in nanoseconds, if it was measured.
    redo_record_nanos: Option<u64>,
}

fn byte_picos((time, bytes): (Duration, u64)) -> Option<u64> {
    let picos = time.as_nanos().saturating_mul(1000).checked_div(u128::from(bytes))?;
    u64::try_from(picos).ok()
}

fn read_nanos(log_bytes: u64) -> u64 {
    log_bytes.saturating_mul(LOG_BYTE_PICOS) / 1000
}

impl RecoveryCostModel {
    /// Creates a model for a machine with these typical rates, after the recovery of this open.
    pub(crate) fn new(rates: RecoveryRates, measured: MeasuredRecovery) -> RecoveryCostModel {
        let MeasuredRecovery { fixed, load, redo: (time, bytes, records) } = measured;
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_sub(read_nanos(bytes));
        RecoveryCostModel {
            rates,
            fixed: fixed.clamp(FIXED.0, FIXED.1),
            commands: AtomicU64::new(0),
            apply_nanos: AtomicU64::new(0),
            load_byte_picos: AtomicU64::new(byte_picos(load).filter(|_| load.1 >= TELLING_BYTES).unwrap_or(0)),
            redo_record_nanos: nanos.checked_div(records).filter(|_| bytes >= TELLING_BYTES),
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
        self.note_apply(clock.monotonic().saturating_sub(started));
    }

    fn note_apply(&self, time: Duration) {
        let before = self.apply_nanos.load(Ordering::Relaxed);
        let most = if before == 0 { APPLY_NANOS } else { before }.saturating_mul(LARGEST_SAMPLE);
        let taken = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(most);
        let sum = before.saturating_mul(SAMPLES_AVERAGED).saturating_add(taken);
        let average = if before == 0 { taken } else { sum.div_ceil(SAMPLES_AVERAGED.saturating_add(1)) };
        self.apply_nanos.store(average.max(1), Ordering::Relaxed);
    }

    /// Notes a measured load of a snapshot: its time and its bytes.
    pub(super) fn note_load(&self, load: (Duration, u64)) {
        let Some(now) = byte_picos(load) else { return };
        let average = match self.load_byte_picos.load(Ordering::Relaxed) {
            0 => now,
            before => (before / 2).saturating_add(now / 2),
        };
        self.load_byte_picos.store(average.max(1), Ordering::Relaxed);
    }

    /// The estimated recovery time for these amounts.
    pub(super) fn estimate(&self, snapshot_bytes: u64, log_bytes: u64, records: u64) -> Duration {
        let load_byte_picos = match self.load_byte_picos.load(Ordering::Relaxed) {
            0 => self.rates.load_byte_picos,
            picos => picos,
        };
        let load = snapshot_bytes.saturating_mul(load_byte_picos) / 1000;
        let redo = read_nanos(log_bytes).saturating_add(records.saturating_mul(self.record_nanos()));
        self.fixed.saturating_add(Duration::from_nanos(load.saturating_add(redo)))
    }

    /// The time to redo a record beyond reading it.
    fn record_nanos(&self) -> u64 {
        let sampled = self.apply_nanos.load(Ordering::Relaxed);
        let apply = if sampled == 0 { APPLY_NANOS } else { sampled };
        // decoding and the memory that replay touches first take a quarter more
        let one_by_one = apply.saturating_mul(5) / 4;
        let typical = one_by_one.saturating_add(RECORD_OVERHEAD_NANOS).checked_div(self.rates.redo_speedup);
        let typical = typical.unwrap_or(one_by_one);
        match self.redo_record_nanos {
            Some(measured) if sampled == 0 => measured,
            Some(measured) => measured.clamp(typical / PLAUSIBLE_FACTOR, typical.saturating_mul(PLAUSIBLE_FACTOR)),
            None => typical,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_BY_ONE: RecoveryRates = RecoveryRates::ONE_BY_ONE;
    const NOTHING: MeasuredRecovery =
        MeasuredRecovery { fixed: Duration::ZERO, load: (Duration::ZERO, 0), redo: (Duration::ZERO, 0, 0) };

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// Whether two times differ by at most half of the smaller one.
    fn are_near(one: Duration, other: Duration) -> bool {
        one <= other * 3 / 2 && other <= one * 3 / 2
    }

    /// S18: Redos that were measured on a busy machine with two processors.
    #[test]
    fn the_estimate_is_within_half_of_what_the_redo_took() {
        const KV: RecoveryRates = RecoveryRates::IN_BATCHES;
        const MB: u64 = 1_000_000;
        // the time of a command in nanoseconds, the bytes and records of the log, the time of the
        // redo
        let table = [
            ("two million entries", KV, 2_664, 384 * MB, 2 * MB, micros(3_427_000)),
            ("a million entries of a map that serde saves", ONE_BY_ONE, 5_730, 128 * MB, MB, micros(9_719_000)),
        ];
        for (case, rates, apply_nanos, log_bytes, records, took) in table {
            let model = RecoveryCostModel::new(rates, NOTHING);
            (0..1000).for_each(|_| model.note_apply(Duration::from_nanos(apply_nanos)));
            let estimate = model.estimate(0, log_bytes, records);
            assert!(are_near(estimate, took + FIXED.0), "{case}: {estimate:?}, took {took:?}");
        }
    }

    /// S18: Padding is read, but there is nothing in it to redo.
    #[test]
    fn a_padded_log_costs_little_more_than_reading_it() {
        let model = RecoveryCostModel::new(RecoveryRates::IN_BATCHES, NOTHING);
        // a million durable commits of one thread fill a block each
        let padded = model.estimate(0, 4096 * 1_000_000, 1_000_000);
        assert!(padded < Duration::from_secs(3), "{padded:?}");
    }

    /// S18: One command in a thousand that lost its processor decides nothing.
    #[test]
    fn a_command_that_lost_its_processor_decides_nothing() {
        let model = RecoveryCostModel::new(ONE_BY_ONE, NOTHING);
        model.note_apply(Duration::from_millis(10));
        for n in 0..10_000 {
            model.note_apply(if n % 1000 == 999 { Duration::from_millis(10) } else { micros(1) });
        }
        assert!(are_near(model.estimate(0, 0, 1_000_000), micros(1_540_000)), "{model:?}");
        // where all commands become slower, the average follows
        (0..200).for_each(|_| model.note_apply(micros(100)));
        assert!(are_near(model.estimate(0, 0, 1_000_000), micros(125_000_000)), "{model:?}");
    }

    /// S18: What the last recovery or a rehearsal measured counts.
    #[test]
    fn what_was_measured_counts_unless_the_commands_are_others_now() {
        let measured = MeasuredRecovery {
            fixed: Duration::from_millis(90),
            load: (Duration::from_millis(400), 100 << 20),
            redo: (Duration::from_millis(5_700), 128_000_000, 1_000_000),
        };
        let model = RecoveryCostModel::new(ONE_BY_ONE, measured);
        assert!(are_near(model.estimate(100 << 20, 128_000_000, 1_000_000), Duration::from_millis(6_190)));
        // single commands instead of batches
        (0..1000).for_each(|_| model.note_apply(Duration::from_nanos(100)));
        assert!(model.estimate(0, 0, 1_000_000) < Duration::from_millis(1_700), "{model:?}");
        (0..10).for_each(|_| model.note_load((Duration::from_millis(160), 4 << 20)));
        assert!(are_near(model.estimate(100 << 20, 0, 0), Duration::from_millis(4_090)), "{model:?}");
    }

    #[test]
    fn no_amount_overflows() {
        for rates in [ONE_BY_ONE, RecoveryRates::IN_BATCHES] {
            let model = RecoveryCostModel::new(rates, NOTHING);
            model.note_apply(Duration::MAX);
            model.note_load((Duration::MAX, 0));
            model.note_load((Duration::MAX, 1));
            assert!(model.estimate(u64::MAX, u64::MAX, u64::MAX) > FIXED.0);
        }
    }
}
