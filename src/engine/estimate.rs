//! How long recovery would take, by measured rates.
//!
//! What a record costs is measured where commands are applied, one in so many; what a snapshot and the log cost to read,
//! where this store was last recovered, if that was enough to tell. Until then cautious figures stand in.

use crate::recovery::RecoveryReport;
use crate::storage::Storage;
use crate::sync::{AtomicU64, Ordering};
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
/// A measurement over less than this says little.
const TELLING_BYTES: u64 = 8 << 20;

/// Measured costs.
#[derive(Debug)]
pub(crate) struct Meter {
    commands: AtomicU64,
    /// A moving average of what applying a command takes, in nanoseconds; 0 before the first sample.
    apply_nanos: AtomicU64,
    snapshot_byte_picos: u64,
    log_byte_picos: u64,
}

impl Meter {
    pub(super) fn new(report: &RecoveryReport) -> Meter {
        let picos = |time: Duration, bytes: u64, default: u64| {
            if bytes < TELLING_BYTES {
                return default;
            }
            u64::try_from(time.as_nanos().saturating_mul(1000).checked_div(u128::from(bytes)).unwrap_or(0))
                .unwrap_or(default)
        };
        Meter {
            commands: AtomicU64::new(0),
            apply_nanos: AtomicU64::new(0),
            snapshot_byte_picos: picos(report.phases.snapshot, report.snapshot_bytes, SNAPSHOT_BYTE_PICOS),
            log_byte_picos: LOG_BYTE_PICOS,
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
        let nanos = snapshot_bytes
            .saturating_mul(self.snapshot_byte_picos)
            .saturating_add(log_bytes.saturating_mul(self.log_byte_picos))
            / 1000;
        FIXED.saturating_add(Duration::from_nanos(nanos.saturating_add(records.saturating_mul(record_nanos))))
    }
}
