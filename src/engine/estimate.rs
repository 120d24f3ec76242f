//! How long recovery would take, by measured rates.
//!
//! What a record costs is measured where commands are applied, one in so many; what a snapshot and the log cost to read and redo,
//! where this store was last recovered, if that was enough to tell. Until then cautious figures stand in.
//!
//! Redo at once is faster than the commands were, by how much depends on them. What the last recovery took for a byte of log is believed
//! as far as it lies between what the commands of now took, one by one, and a part of that: the log may hold others by now.

use crate::io::Storage;
use crate::io::sync::{AtomicU64, Ordering};
use crate::recovery::RecoveryReport;
use std::time::Duration;

/// One command in so many is timed.
const SAMPLE: u64 = 64;
/// Before anything was measured: nanoseconds to replay a record beside reading it, and to read a byte of log or snapshot.
const RECORD_NANOS: u64 = 1_500;
const LOG_BYTE_PICOS: u64 = 3_000;
const SNAPSHOT_BYTE_PICOS: u64 = 6_000;
/// Decoding and bookkeeping of a record, beside applying it.
const RECORD_OVERHEAD_NANOS: u64 = 250;
/// Opening, syncing and starting a segment.
const FIXED: Duration = Duration::from_millis(40);
/// Redo at once is believed to be so many times faster than the commands were, at the most.
const MAX_SPEEDUP: u64 = 6;
/// A measurement over less than this says little.
const TELLING_BYTES: u64 = 8 << 20;

/// Measured costs.
#[derive(Debug)]
pub(crate) struct RecoveryCostModel {
    commands: AtomicU64,
    /// A moving average of what applying a command takes, in nanoseconds; 0 before the first sample.
    apply_nanos: AtomicU64,
    snapshot_byte_picos: u64,
    /// What a byte of log took to be read and redone, if that is known.
    redo_byte_picos: Option<u64>,
}

impl RecoveryCostModel {
    pub(super) fn new(report: &RecoveryReport) -> RecoveryCostModel {
        let picos = |time: Duration, bytes: u64| {
            let picos = time.as_nanos().saturating_mul(1000).checked_div(u128::from(bytes))?;
            u64::try_from(picos).ok().filter(|_| bytes >= TELLING_BYTES)
        };
        RecoveryCostModel {
            commands: AtomicU64::new(0),
            apply_nanos: AtomicU64::new(0),
            snapshot_byte_picos: picos(report.phases.snapshot, report.snapshot_bytes).unwrap_or(SNAPSHOT_BYTE_PICOS),
            redo_byte_picos: picos(report.phases.redo, report.log_bytes),
        }
    }

    /// Begins to time a command, if it is one of those that are.
    pub(super) fn start(&self, storage: &dyn Storage) -> Option<Duration> {
        let count = self.commands.fetch_add(1, Ordering::Relaxed);
        count.is_multiple_of(SAMPLE).then(|| storage.monotonic())
    }

    pub(super) fn stop(&self, started: Option<Duration>, storage: &dyn Storage) {
        let Some(started) = started else { return };
        let taken = storage.monotonic().saturating_sub(started).as_nanos().min(1_000_000_000) as u64;
        let before = self.apply_nanos.load(Ordering::Relaxed);
        let average = if before == 0 { taken } else { before.saturating_mul(15).saturating_add(taken) / 16 };
        self.apply_nanos.store(average.max(1), Ordering::Relaxed);
    }

    /// How long recovery would take for so much.
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
