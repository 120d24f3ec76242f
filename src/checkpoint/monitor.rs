//! Measures the inputs of the policy: the log, the newest snapshot, the last checkpoint, and the
//! recovery time.

use super::policy::{Inputs, Limits, RecoveryTime};
use super::recovery_time::{RecoveryCostModel, TELLING_BYTES};
use crate::error::Error;
use crate::format::manifest::SnapshotEntry;
use crate::ids::Lsn;
use crate::io::Storage;
use crate::io::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::meters::{Figures, Meters};
use crate::options::Options;
use crate::wal::Log;
use std::time::Duration;

/// A position in the log, and the number of records before it since the store was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) records: u64,
    pub(super) lsn: Lsn,
}

/// What recovery read when the store was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveredSizes {
    pub(crate) records: u64,
    pub(crate) log_bytes: u64,
    pub(crate) snapshot_bytes: u64,
    /// How many opens wrote the log that was read.
    pub(crate) opens: usize,
}

/// The outcome of the checkpoints so far.
struct Published {
    snapshots: Vec<SnapshotEntry>,
    /// The newest snapshot's position in the log. `None` until the first checkpoint since the open.
    mark: Option<Mark>,
    last_error: Option<Error>,
    ended_at: Duration,
    took: Duration,
}

/// The current sizes of the log and the snapshots, and the outcome of the last checkpoint.
pub(crate) struct Monitor {
    storage: Arc<dyn Storage>,
    /// `None` when the store was opened read-only.
    log: Option<Arc<Log>>,
    cost_model: Arc<RecoveryCostModel>,
    recovered: RecoveredSizes,
    limits: Limits,
    meters: Meters,
    /// Whether a warning has told that the budget cannot be met.
    told_of_budget: AtomicBool,
    /// This lock is held for a few loads and stores only. Nothing waits while it is held.
    published: Mutex<Published>,
}

impl Monitor {
    pub(super) fn new(
        (storage, log): (Arc<dyn Storage>, Option<Arc<Log>>),
        options: &Options,
        cost_model: Arc<RecoveryCostModel>,
        (recovered, snapshots): (RecoveredSizes, Vec<SnapshotEntry>),
        meters: Meters,
    ) -> Self {
        let limits = Limits {
            max_log_bytes: options.max_log_bytes,
            checkpoint_log_bytes: options.checkpoint_log_bytes,
            recover_within: options.recover_within,
        };
        let published =
            Published { snapshots, mark: None, last_error: None, ended_at: Duration::ZERO, took: Duration::ZERO };
        let monitor = Monitor {
            storage,
            log,
            cost_model,
            recovered,
            limits,
            meters,
            told_of_budget: AtomicBool::new(false),
            published: Mutex::new(published),
        };
        monitor.announce_interval();
        monitor
    }

    /// Tells the log how far it grows between two checkpoints.
    fn announce_interval(&self) {
        if let Some(log) = &self.log {
            // a log whose checkpoints are due beyond its bound is crowded before, so it frees less
            let due = self.due_bytes();
            log.expect_truncation_every(due, due.min(self.limits.max_log_bytes / 4));
        }
    }

    /// The instruments of this store.
    pub(crate) fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Reports the sizes of the log and the recovery time as measurements. The caller must hold no
    /// lock: recorders are foreign code.
    pub(crate) fn report_figures(&self) {
        if !cfg!(feature = "metrics") {
            return;
        }
        let Some(log) = &self.log else { return };
        let stats = log.stats();
        self.meters.report(Figures {
            appended_bytes: log.appended().1.since(log.start_of_epoch()),
            groups: &mut stats.batch_sizes.by_size(),
            segment_bytes: stats.segment_bytes,
            log_bytes_since_snapshot: self.log_since_snapshot().1,
            estimated_recovery: self.estimated_recovery(),
        });
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The size of all segment files, in bytes.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.segment_bytes())
    }

    /// Whether the log is over its limit, with the room that open transactions hold for their
    /// rollback.
    pub(super) fn is_over_limit(&self) -> bool {
        let rollback_bytes = self.log.as_ref().map_or(0, |log| log.rollback_bytes());
        self.segment_bytes().saturating_add(rollback_bytes) > self.limits.max_log_bytes
    }

    /// The records and the bytes of log that recovery would have to read now.
    pub(crate) fn log_since_snapshot(&self) -> (u64, u64) {
        let Some(log) = &self.log else { return (0, 0) };
        let (records, lsn) = log.appended();
        match self.published.lock().mark {
            Some(mark) => (records.saturating_sub(mark.records), lsn.since(mark.lsn)),
            None => {
                // recovery would again read what it read at open
                let records = records.saturating_add(self.recovered.records);
                (records, lsn.since(log.start_of_epoch()).saturating_add(self.recovered.log_bytes))
            }
        }
    }

    pub(crate) fn anything_since_snapshot(&self) -> bool {
        self.log_since_snapshot().0 > 0 || self.published.lock().snapshots.is_empty()
    }

    /// Whether a close takes a checkpoint.
    pub(crate) fn is_due_at_close(&self) -> bool {
        self.anything_since_snapshot() && self.limits.is_due_at_close(&self.inputs())
    }

    /// How many opens before this one wrote the log that recovery would have to read now.
    fn opens_since_snapshot(&self) -> usize {
        if self.published.lock().mark.is_some() { 0 } else { self.recovered.opens }
    }

    /// Whether earlier opens left so many segments that this open must take a checkpoint.
    pub(super) fn is_overdue(&self) -> bool {
        self.limits.is_overdue(self.opens_since_snapshot(), self.segment_bytes())
    }

    fn snapshot_bytes(&self) -> u64 {
        let published = self.published.lock();
        match (published.mark, published.snapshots.first()) {
            (None, _) => self.recovered.snapshot_bytes,
            (Some(_), newest) => newest.map_or(0, |s| s.file_bytes),
        }
    }

    fn recovery_time(&self) -> RecoveryTime {
        let (records, log_bytes) = self.log_since_snapshot();
        let snapshot_bytes = self.snapshot_bytes();
        RecoveryTime {
            least: self.cost_model.estimate(snapshot_bytes, 0, 0),
            now: self.cost_model.estimate(snapshot_bytes, log_bytes, records),
        }
    }

    /// The estimated time to open the store now.
    pub(crate) fn estimated_recovery(&self) -> Duration {
        self.recovery_time().now
    }

    /// Whether the budget would be exceeded even right after a checkpoint.
    pub(crate) fn budget_cannot_be_met(&self) -> bool {
        self.limits.recover_within.is_some_and(|budget| self.recovery_time().least > budget)
    }

    /// Whether the disk had no space for another segment, and no checkpoint has ended since.
    pub(super) fn lacks_space(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.lacks_space())
    }

    /// The newest snapshot, if files are kept that only stand in for it: an older snapshot, or log
    /// from before it.
    pub(super) fn newest_with_stand_ins(&self) -> Option<SnapshotEntry> {
        let newest = self.published.lock().snapshots.first().copied()?;
        let manifest = self.log.as_ref()?.manifest();
        (manifest.snapshots.len() > 1 || manifest.log_start < newest.lsn).then_some(newest)
    }

    /// Reports a budget that cannot be met any more as an event. The caller must hold no lock:
    /// event subscribers are foreign code.
    pub(super) fn report_budget(&self) {
        if self.limits.recover_within.is_none() {
            return;
        }
        let missed = self.budget_cannot_be_met();
        if !self.told_of_budget.swap(missed, Ordering::Relaxed) && missed {
            crate::events::event!(
                warn,
                least = ?self.recovery_time().least,
                "recover_within cannot be met: opening the store takes longer right after a checkpoint"
            );
        }
    }

    /// How much of this snapshot is to be loaded to measure the rate, in bytes: nothing without a
    /// budget, because that takes memory and processor time.
    pub(super) fn rehearsal_bytes(&self, snapshot: &SnapshotEntry) -> Option<u64> {
        let is_telling = self.limits.recover_within.is_some() && snapshot.file_bytes >= TELLING_BYTES;
        is_telling.then_some(TELLING_BYTES / 2)
    }

    /// Notes a measured load of a snapshot: its time and its bytes.
    pub(super) fn note_load(&self, load: (Duration, u64)) {
        self.cost_model.note_load(load);
    }

    /// Whether a checkpoint is due.
    pub(super) fn is_due(&self) -> bool {
        self.limits.is_due(&self.inputs())
    }

    /// After how long a checkpoint is due by time alone.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.limits.due_in(&self.inputs())
    }

    /// How far the log may grow before it must be looked at again.
    pub(super) fn quiet_bytes(&self) -> u64 {
        self.limits.quiet_bytes(self.log_since_snapshot().1, self.snapshot_bytes())
    }

    /// How far the log grows behind the newest snapshot before a checkpoint is due by what it
    /// costs.
    pub(crate) fn due_bytes(&self) -> u64 {
        self.limits.due_bytes(self.snapshot_bytes())
    }

    /// Wakes the maintenance thread, if it waits for the log to grow.
    pub(super) fn ring(&self) {
        if let Some(log) = &self.log {
            log.growth_alarm().ring();
        }
    }

    fn inputs(&self) -> Inputs {
        let (records, log_bytes) = self.log_since_snapshot();
        let (recovery, opens) = (self.recovery_time(), self.opens_since_snapshot());
        let write_bytes = self.snapshot_bytes();
        let now = self.storage.monotonic();
        let frees_wanted_space = self.lacks_space() && (records > 0 || self.newest_with_stand_ins().is_some());
        let published = self.published.lock();
        Inputs {
            segment_bytes: self.segment_bytes(),
            records,
            log_bytes,
            write_bytes,
            rested: now.saturating_sub(published.ended_at),
            took: published.took,
            failed: published.last_error.is_some(),
            opens,
            recovery,
            frees_wanted_space,
        }
    }

    /// Whether a bound is so near that commits must slow down.
    pub(super) fn is_under_pressure(&self) -> bool {
        self.limits.is_under_pressure(self.segment_bytes(), || self.recovery_time()) || self.is_over_limit()
    }

    /// The snapshots kept, the newest first.
    pub(crate) fn snapshots(&self) -> Vec<SnapshotEntry> {
        self.published.lock().snapshots.clone()
    }

    /// The error of the last checkpoint, if it failed.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.published.lock().last_error.clone()
    }

    /// Notes which snapshots the manifest names, and the position of the newest if that is a new
    /// one.
    pub(super) fn note_snapshots(&self, snapshots: Vec<SnapshotEntry>, mark: Option<Mark>) {
        {
            let mut published = self.published.lock();
            published.snapshots = snapshots;
            published.mark = mark.or(published.mark);
        }
        self.announce_interval();
    }

    /// Excludes a record from those that make another checkpoint due.
    pub(super) fn pass_over_record(&self) {
        if let Some(mark) = &mut self.published.lock().mark {
            mark.records = mark.records.saturating_add(1);
        }
    }

    /// Notes the end of a checkpoint that began at a time, and why it failed if it did. Returns how
    /// long it took.
    pub(super) fn note_end(&self, began: Duration, error: Option<&Error>) -> Duration {
        let now = self.storage.monotonic();
        let mut published = self.published.lock();
        published.ended_at = now;
        published.took = now.saturating_sub(began);
        published.last_error = error.cloned();
        published.took
    }
}
