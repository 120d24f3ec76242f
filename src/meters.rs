//! Measurements for programs that export them through the facade `metrics`: only with the feature
//! of that name. Without it, every type here is empty and every call does nothing.
//!
//! - The recorder is foreign code. Only a thread that holds no lock calls it. What happens under a
//!   lock is counted there, and reported after its release.
//! - Each instrument is registered when the store is opened. So a commit makes no look-up and takes
//!   no lock here.
//! - What the store counts anyway is read from there, at most once a second, by a commit.

use crate::io::Clock;
use std::path::Path;
use std::time::Duration;

#[cfg(feature = "metrics")]
use crate::io::sync::{Arc, AtomicU64, Ordering};
#[cfg(feature = "metrics")]
use ::metrics::{Counter, Gauge, Histogram, Unit};

/// How often a commit reads what the store counts anyway.
#[cfg(feature = "metrics")]
const INTERVAL: Duration = Duration::from_secs(1);

/// When a commit was called.
#[derive(Clone, Copy)]
pub(crate) struct Began(#[cfg(feature = "metrics")] Duration);

/// What the store counts anyway.
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nothing is measured"))]
pub(crate) struct Figures<'a> {
    /// Bytes appended to the log since the open, padding included.
    pub(crate) appended_bytes: u64,
    /// How many groups of each size were taken off to be written: the smallest size of a class of
    /// powers of two, and the number of groups.
    pub(crate) groups: &'a mut dyn Iterator<Item = (u32, u64)>,
    /// Size of the segment files.
    pub(crate) segment_bytes: u64,
    /// Size of the log behind the newest snapshot.
    pub(crate) log_bytes_since_snapshot: u64,
    /// How long opening the store would take.
    pub(crate) estimated_recovery: Duration,
}

/// The instruments of one store.
#[derive(Clone)]
pub(crate) struct Meters {
    #[cfg(feature = "metrics")]
    instruments: Arc<Instruments>,
}

#[cfg(feature = "metrics")]
struct Instruments {
    commits: Counter,
    commit_seconds: Histogram,
    conflicts: Growing,
    rollbacks: Growing,
    appended_bytes: Growing,
    group_records: Histogram,
    /// The groups reported so far, by powers of two.
    groups: [AtomicU64; u32::BITS as usize],
    segment_bytes: Gauge,
    log_bytes_since_snapshot: Gauge,
    estimated_recovery: Gauge,
    checkpoints: Counter,
    checkpoint_failures: Counter,
    checkpoint_seconds: Histogram,
    checkpoint_bytes: Histogram,
    /// When the figures were last read, in nanoseconds of the storage's clock.
    read_at_nanos: AtomicU64,
}

/// A counter of what is counted elsewhere.
#[cfg(feature = "metrics")]
struct Growing {
    counter: Counter,
    noted: AtomicU64,
    reported: AtomicU64,
}

#[cfg(feature = "metrics")]
impl Growing {
    fn new(counter: Counter) -> Growing {
        Growing { counter, noted: AtomicU64::new(0), reported: AtomicU64::new(0) }
    }

    fn note(&self) {
        self.noted.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports what was noted. The caller holds no lock.
    fn report(&self) {
        let noted = self.noted.load(Ordering::Relaxed);
        if self.reported.load(Ordering::Relaxed) < noted {
            self.reach(noted);
        }
    }

    /// Reports that the count has reached this total. Each unit is reported once, whichever thread
    /// comes first.
    fn reach(&self, total: u64) {
        let before = self.reported.fetch_max(total, Ordering::Relaxed);
        self.counter.increment(total.saturating_sub(before));
    }
}

#[cfg(feature = "metrics")]
impl Meters {
    /// Registers the instruments of a store with the recorder that is installed now.
    pub(crate) fn new(machine: &'static str, dir: &Path) -> Meters {
        let dir = dir.display().to_string();
        macro_rules! instrument {
            ($register:ident, $describe:ident, $name:literal, $unit:ident, $what:literal) => {{
                ::metrics::$describe!($name, Unit::$unit, $what);
                ::metrics::$register!($name, "machine" => machine, "dir" => dir.clone())
            }};
        }
        macro_rules! counter {
            ($($of:tt)*) => { instrument!(counter, describe_counter, $($of)*) };
        }
        macro_rules! gauge {
            ($($of:tt)*) => { instrument!(gauge, describe_gauge, $($of)*) };
        }
        macro_rules! histogram {
            ($($of:tt)*) => { instrument!(histogram, describe_histogram, $($of)*) };
        }
        let instruments = Instruments {
            commits: counter!("seawal_commits_total", Count, "commands and transactions that were committed"),
            commit_seconds: histogram!("seawal_commit_seconds", Seconds, "the time of a commit that waits"),
            conflicts: Growing::new(counter!("seawal_conflicts_total", Count, "transactions that lost a deadlock")),
            rollbacks: Growing::new(counter!("seawal_rollbacks_total", Count, "transactions that were rolled back")),
            appended_bytes: Growing::new(counter!("seawal_log_appended_bytes_total", Bytes, "bytes added to the log")),
            group_records: histogram!("seawal_group_records", Count, "records in one write, rounded down to 2^n"),
            groups: [const { AtomicU64::new(0) }; u32::BITS as usize],
            segment_bytes: gauge!("seawal_log_segment_bytes", Bytes, "the size of the log's segments"),
            log_bytes_since_snapshot: gauge!("seawal_log_since_snapshot_bytes", Bytes, "the log that an open redoes"),
            estimated_recovery: gauge!("seawal_estimated_recovery_seconds", Seconds, "how long an open would take"),
            checkpoints: counter!("seawal_checkpoints_total", Count, "checkpoints that were taken"),
            checkpoint_failures: counter!("seawal_checkpoint_failures_total", Count, "checkpoints that failed"),
            checkpoint_seconds: histogram!("seawal_checkpoint_seconds", Seconds, "the time of a checkpoint"),
            checkpoint_bytes: histogram!("seawal_checkpoint_bytes", Bytes, "the size of a snapshot that was written"),
            read_at_nanos: AtomicU64::new(0),
        };
        Meters { instruments: Arc::new(instruments) }
    }

    /// Notes that a commit begins that its caller waits for.
    pub(crate) fn begin(&self, clock: &dyn Clock) -> Began {
        Began(clock.monotonic())
    }

    /// Reports a commit, with its time if its caller waited for it. Returns whether the figures
    /// should be read now. The caller holds no lock.
    pub(crate) fn committed(&self, began: Option<Began>, clock: &dyn Clock) -> bool {
        let (all, now) = (&self.instruments, clock.monotonic());
        all.commits.increment(1);
        if let Some(Began(began)) = began {
            all.commit_seconds.record(now.saturating_sub(began));
        }
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let before = all.read_at_nanos.load(Ordering::Relaxed);
        now.saturating_sub(before) >= INTERVAL.as_nanos() as u64
            && all.read_at_nanos.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Counts a transaction that lost a deadlock. The caller may hold locks.
    pub(crate) fn note_conflict(&self) {
        self.instruments.conflicts.note();
    }

    /// Counts a rollback. The caller may hold locks.
    pub(crate) fn note_rollback(&self) {
        self.instruments.rollbacks.note();
    }

    /// Reports the conflicts and the rollbacks that were counted. The caller holds no lock.
    pub(crate) fn report_noted(&self) {
        self.instruments.conflicts.report();
        self.instruments.rollbacks.report();
    }

    /// Reports what the store counts anyway. The caller holds no lock.
    pub(crate) fn report(&self, figures: Figures<'_>) {
        let all = &self.instruments;
        all.appended_bytes.reach(figures.appended_bytes);
        for (least, groups) in figures.groups {
            let Some(reported) = least.checked_ilog2().and_then(|power| all.groups.get(power as usize)) else {
                continue;
            };
            let new = groups.saturating_sub(reported.fetch_max(groups, Ordering::Relaxed));
            all.group_records.record_many(f64::from(least), usize::try_from(new).unwrap_or(usize::MAX));
        }
        all.segment_bytes.set(figures.segment_bytes as f64);
        all.log_bytes_since_snapshot.set(figures.log_bytes_since_snapshot as f64);
        all.estimated_recovery.set(figures.estimated_recovery);
        self.report_noted();
    }

    /// Reports a checkpoint that was taken: its time, and the bytes of the snapshot that it wrote,
    /// if any. The caller holds no lock.
    pub(crate) fn checkpoint_taken(&self, took: Duration, bytes: u64) {
        self.instruments.checkpoints.increment(1);
        self.instruments.checkpoint_seconds.record(took);
        if bytes > 0 {
            self.instruments.checkpoint_bytes.record(bytes as f64);
        }
    }

    /// Reports a checkpoint that failed. The caller holds no lock.
    pub(crate) fn checkpoint_failed(&self) {
        self.instruments.checkpoint_failures.increment(1);
    }
}

#[cfg(not(feature = "metrics"))]
impl Meters {
    pub(crate) fn new(_: &'static str, _: &Path) -> Meters {
        Meters {}
    }

    #[inline]
    pub(crate) fn begin(&self, _: &dyn Clock) -> Began {
        Began()
    }

    #[inline]
    pub(crate) fn committed(&self, _: Option<Began>, _: &dyn Clock) -> bool {
        false
    }

    #[inline]
    pub(crate) fn note_conflict(&self) {}

    #[inline]
    pub(crate) fn note_rollback(&self) {}

    #[inline]
    pub(crate) fn report_noted(&self) {}

    pub(crate) fn report(&self, _: Figures<'_>) {}

    pub(crate) fn checkpoint_taken(&self, _: Duration, _: u64) {}

    pub(crate) fn checkpoint_failed(&self) {}
}
