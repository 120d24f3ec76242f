//! Decides when a checkpoint is due and when commits are throttled, by pure functions of measured
//! values.

use std::time::Duration;

/// The least time between a failed checkpoint and the next one, and between checkpoints that are to
/// free space.
const RETRY: Duration = Duration::from_secs(1);
/// The longest time between a failed checkpoint and the next one: the log grows meanwhile.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// The least time between checkpoints that the recovery budget asks for. An empty checkpoint takes
/// a few syncs, which is about this long on a slow disk.
const LEAST_REST: Duration = Duration::from_millis(50);
/// With a recovery budget, the most that the log may grow before the policy is asked again, in
/// bytes. Redo of this amount takes a few milliseconds.
const MAX_QUIET_BYTES: u64 = 64 << 10;

/// A close always takes a checkpoint that writes at most this many bytes: it takes about as long as
/// the syncs of a close. So the next open of a small store has nothing to redo.
const SMALL_CHECKPOINT_BYTES: u64 = 1 << 20;

/// A checkpoint is due once recovery has to read the segments of this many earlier opens. Each open
/// that writes something leaves a segment, most of it unused.
const OPENS_PER_CHECKPOINT: usize = 16;
/// From this many opens on, the open itself takes the checkpoint: no open before it lived long
/// enough to take one.
const OPENS_OVERDUE: usize = 2 * OPENS_PER_CHECKPOINT;
/// The same for a log near its bound.
const OPENS_OVERDUE_NEAR_BOUND: usize = OPENS_PER_CHECKPOINT / 2;

/// While the user has set nothing else, the log grows to this many times the newest snapshot before
/// a checkpoint is due, within these bounds. So a small store stays small, and its checkpoints
/// write a fraction of what commits write.
const LOG_PER_SNAPSHOT: u64 = 4;
const LEAST_LOG_BYTES: u64 = 32 << 20;
const MOST_LOG_BYTES: u64 = 256 << 20;

/// What the user has set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_log_bytes: u64,
    pub(super) checkpoint_log_bytes: Option<u64>,
    pub(super) recover_within: Option<Duration>,
}

/// The estimated time to open the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecoveryTime {
    /// Right after a checkpoint.
    pub(super) least: Duration,
    /// Now.
    pub(super) now: Duration,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs {
    /// The size of all segment files, in bytes.
    pub(super) segment_bytes: u64,
    /// Records in the log after the newest snapshot.
    pub(super) records: u64,
    /// Bytes of log after the newest snapshot, padding included.
    pub(super) log_bytes: u64,
    /// What a checkpoint would write: the size of the newest snapshot, in bytes.
    pub(super) write_bytes: u64,
    /// Time since the last checkpoint ended, whether it failed or not.
    pub(super) rested: Duration,
    /// How long the last checkpoint took, whether it failed or not.
    pub(super) took: Duration,
    pub(super) failed: bool,
    /// How many opens wrote the log that recovery would have to read, without this one.
    pub(super) opens: usize,
    pub(super) recovery: RecoveryTime,
    /// The disk has no space for another segment, and a checkpoint may free some.
    pub(super) frees_wanted_space: bool,
}

impl Inputs {
    /// The time between the last checkpoint and the next retry. A checkpoint that keeps failing
    /// takes at most half of the time, because a try may read or write as much as the state.
    fn retry_rest(&self) -> Duration {
        if self.failed { self.took.clamp(RETRY, LONGEST_RETRY) } else { RETRY }
    }
}

impl Limits {
    /// True above half of the bound. From there on, checkpoints delete segments step by step even
    /// if few records are new.
    pub(super) fn is_crowded(&self, segment_bytes: u64) -> bool {
        segment_bytes > self.max_log_bytes / 2
    }

    /// True above three quarters of the bound. The last quarter is for commits that arrive while a
    /// checkpoint is written.
    pub(super) fn is_near_bound(&self, segment_bytes: u64) -> bool {
        segment_bytes > self.max_log_bytes / 4 * 3
    }

    /// How far the log grows before a checkpoint is due by what it costs.
    ///
    /// A checkpoint that writes no more than the log has at most doubles what reaches the device.
    /// Padding counts, because the device writes it too. The log of two such intervals is half of
    /// its bound, which leaves the other half for commits that arrive meanwhile.
    pub(super) fn due_bytes(&self, write_bytes: u64) -> u64 {
        let usual = || write_bytes.saturating_mul(LOG_PER_SNAPSHOT).clamp(LEAST_LOG_BYTES, MOST_LOG_BYTES);
        write_bytes.min(self.max_log_bytes / 4).max(self.checkpoint_log_bytes.unwrap_or_else(usual))
    }

    /// Whether a checkpoint is due.
    pub(super) fn is_due(&self, inputs: &Inputs) -> bool {
        let Inputs { segment_bytes, records, log_bytes, write_bytes, rested, took, failed, opens, .. } = *inputs;
        let recovery = &inputs.recovery;
        let retry_rest = inputs.retry_rest();
        if inputs.frees_wanted_space && rested >= retry_rest {
            return true;
        }
        // a crowded log counts even without records: a program that restarts repeatedly leaves a
        // segment each time
        let crowded = self.is_crowded(segment_bytes);
        if (records == 0 && !crowded) || (failed && rested < retry_rest) {
            return false;
        }
        if log_bytes >= self.due_bytes(write_bytes) || opens >= OPENS_PER_CHECKPOINT {
            return true;
        }
        // A crowded log with few new records is kept by the older snapshot, and the next
        // checkpoints drop that one. An eighth of the bound justifies writing a snapshot, if that
        // is no larger or the log takes five eighths of its bound.
        let near = self.is_near_bound(segment_bytes);
        let justified = log_bytes >= write_bytes || segment_bytes > self.max_log_bytes / 8 * 5;
        if crowded && ((justified && log_bytes > self.max_log_bytes / 8) || (near && rested >= RETRY)) {
            return true;
        }
        let Some(budget) = self.recover_within.filter(|_| records > 0) else { return false };
        // a budget that cannot be met must not cause back-to-back checkpoints: they take at most a
        // fifth of the time
        let restless = rested < took.max(LEAST_REST);
        let room = budget.saturating_sub(recovery.least);
        let left = budget.saturating_sub(recovery.now);
        !restless && (left < room / 2 || (recovery.least > budget && rested > took.saturating_mul(4)))
    }

    /// Whether a close takes a checkpoint: if that writes no more than the log has grown by, or
    /// little, or if the next open would need it.
    pub(super) fn is_due_at_close(&self, inputs: &Inputs) -> bool {
        let &Inputs { log_bytes, write_bytes, opens, recovery, .. } = inputs;
        let is_late = |budget| recovery.least <= budget && budget < recovery.now;
        write_bytes <= log_bytes.max(SMALL_CHECKPOINT_BYTES)
            || opens >= OPENS_PER_CHECKPOINT
            || self.recover_within.is_some_and(is_late)
    }

    /// After how long a checkpoint is due if nothing but time passes. `None` if it is not due then
    /// either.
    pub(super) fn due_in(&self, inputs: &Inputs) -> Option<Duration> {
        let &Inputs { rested, took, .. } = inputs;
        let budget = [took.max(LEAST_REST), took.saturating_mul(4).saturating_add(Duration::from_nanos(1))];
        let later = [RETRY, inputs.retry_rest()].into_iter().chain(budget);
        let times = later.map(|time| time.max(rested)).chain([rested]);
        let due = times.filter(|&rested| self.is_due(&Inputs { rested, ..*inputs })).min()?;
        Some(due.saturating_sub(rested))
    }

    /// How far the log may grow before the policy is asked again, in bytes: to where a checkpoint
    /// is due, but at most 1/64 of the log's bound, and little of a recovery budget. Time alone
    /// makes a checkpoint due that has failed; see [`Limits::due_in`].
    pub(super) fn quiet_bytes(&self, log_bytes: u64, write_bytes: u64) -> u64 {
        let coarse = (self.max_log_bytes / 64).max(1);
        let fine = MAX_QUIET_BYTES.min(coarse);
        match self.due_bytes(write_bytes).saturating_sub(log_bytes) {
            0 => fine,
            to_checkpoint if self.recover_within.is_some() => fine.min(to_checkpoint),
            to_checkpoint => coarse.min(to_checkpoint),
        }
    }

    /// Whether this open must take a checkpoint, after the number of opens that wrote the log.
    pub(super) fn is_overdue(&self, opens: usize, segment_bytes: u64) -> bool {
        let limit = if self.is_near_bound(segment_bytes) { OPENS_OVERDUE_NEAR_BOUND } else { OPENS_OVERDUE };
        opens >= limit
    }

    /// Whether commits are throttled and checkpoints are written without pauses. True if the log
    /// takes three quarters of its bound, or if commits have used four fifths of their part of the
    /// recovery budget.
    pub(super) fn is_under_pressure(&self, segment_bytes: u64, recovery: impl FnOnce() -> RecoveryTime) -> bool {
        if self.is_near_bound(segment_bytes) {
            return true;
        }
        let Some(budget) = self.recover_within else { return false };
        let RecoveryTime { least, now } = recovery();
        let near = least.saturating_add(budget.saturating_sub(least).saturating_mul(4) / 5);
        least <= budget && now > near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits =
        Limits { max_log_bytes: 64 * MIB, checkpoint_log_bytes: Some(16 * MIB), recover_within: None };
    /// Limits in the proportions of the defaults.
    const LARGE: Limits = Limits { max_log_bytes: 1024 * MIB, ..LIMITS };

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A log with little in it, long after the last checkpoint.
    fn quiet() -> Inputs {
        Inputs {
            segment_bytes: 8 * MIB,
            records: 10,
            log_bytes: MIB,
            write_bytes: MIB / 2,
            rested: Duration::from_secs(100),
            took: millis(200),
            failed: false,
            opens: 0,
            recovery: RecoveryTime { least: millis(100), now: millis(110) },
            frees_wanted_space: false,
        }
    }

    #[test]
    fn a_checkpoint_is_due_by_this_table() {
        let budget = |time| Limits { recover_within: Some(millis(time)), ..LIMITS };
        let recovery = |least, now| RecoveryTime { least: millis(least), now: millis(now) };
        let crowded = Inputs { segment_bytes: 33 * MIB, ..quiet() };
        let near = Inputs { segment_bytes: 49 * MIB, records: 0, log_bytes: 0, ..quiet() };
        let table = [
            ("little is new", LIMITS, quiet(), false),
            ("enough log", LIMITS, Inputs { log_bytes: 16 * MIB, ..quiet() }, true),
            ("nothing is new", LIMITS, Inputs { records: 0, log_bytes: 16 * MIB, ..quiet() }, false),
            (
                "failed just now",
                LIMITS,
                Inputs { log_bytes: 16 * MIB, failed: true, rested: millis(999), ..quiet() },
                false,
            ),
            (
                "failed a second ago",
                LIMITS,
                Inputs { log_bytes: 16 * MIB, failed: true, rested: RETRY, ..quiet() },
                true,
            ),
            (
                "failed after a long try",
                LIMITS,
                Inputs { log_bytes: 16 * MIB, failed: true, took: millis(5000), rested: millis(4999), ..quiet() },
                false,
            ),
            (
                "rested as long as the try took",
                LIMITS,
                Inputs { log_bytes: 16 * MIB, failed: true, took: millis(5000), rested: millis(5000), ..quiet() },
                true,
            ),
            (
                "rested for the longest time",
                LIMITS,
                Inputs { log_bytes: 16 * MIB, failed: true, took: Duration::MAX, rested: LONGEST_RETRY, ..quiet() },
                true,
            ),
            ("many opens", LIMITS, Inputs { opens: OPENS_PER_CHECKPOINT, ..quiet() }, true),
            ("not so many", LIMITS, Inputs { opens: OPENS_PER_CHECKPOINT - 1, ..quiet() }, false),
            ("crowded, little new", LIMITS, crowded, false),
            ("crowded, an eighth new", LIMITS, Inputs { log_bytes: 8 * MIB + 1, ..crowded }, true),
            ("the disk is full", LIMITS, Inputs { records: 0, frees_wanted_space: true, ..quiet() }, true),
            (
                "the disk is full, right after another",
                LIMITS,
                Inputs { frees_wanted_space: true, rested: millis(999), ..quiet() },
                false,
            ),
            (
                "the disk is full, and the snapshot does not fit",
                LIMITS,
                Inputs { frees_wanted_space: true, failed: true, took: millis(5000), rested: millis(4999), ..quiet() },
                false,
            ),
            (
                "the disk is full again after a long checkpoint",
                LIMITS,
                Inputs { frees_wanted_space: true, took: millis(5000), rested: RETRY, ..quiet() },
                true,
            ),
            ("near the bound, nothing new", LIMITS, near, true),
            ("the same right after another", LIMITS, Inputs { rested: millis(999), ..near }, false),
            ("budget half spent", budget(200), Inputs { recovery: recovery(100, 151), ..quiet() }, true),
            ("budget not half spent", budget(200), Inputs { recovery: recovery(100, 150), ..quiet() }, false),
            (
                "the same without rest",
                budget(200),
                Inputs { recovery: recovery(100, 199), rested: millis(199), ..quiet() },
                false,
            ),
            ("budget that cannot be met", budget(50), Inputs { rested: millis(801), ..quiet() }, true),
            ("nothing new for a budget", budget(50), Inputs { records: 0, ..quiet() }, false),
        ];
        for (case, limits, inputs, due) in table {
            assert_eq!(limits.is_due(&inputs), due, "{case}");
        }
    }

    /// S17: A checkpoint is due by what it would write, between `checkpoint_log_bytes` and a
    /// quarter of the log's bound.
    #[test]
    fn a_checkpoint_is_due_once_the_log_has_grown_by_what_it_would_write() {
        for (write_bytes, due) in [(0, 16), (16, 16), (17, 17), (100, 100), (256, 256), (257, 256), (10_000, 256)] {
            let inputs = |log_bytes| Inputs { write_bytes: write_bytes * MIB, log_bytes, ..quiet() };
            assert!(!LARGE.is_due(&inputs(due * MIB - 1)), "{write_bytes} MiB to write");
            assert!(LARGE.is_due(&inputs(due * MIB)), "{write_bytes} MiB to write");
        }
        // a log that holds two intervals takes a little more than half of its bound
        let crowded = |segment_bytes| Inputs { segment_bytes, write_bytes: 900 * MIB, log_bytes: 255 * MIB, ..quiet() };
        assert!(!LARGE.is_due(&crowded(640 * MIB)));
        assert!(LARGE.is_due(&crowded(640 * MIB + 1)));
        // what is asked for in log stays the least, whatever the bound
        let rare = Limits { checkpoint_log_bytes: Some(2048 * MIB), ..LARGE };
        assert!(!rare.is_due(&Inputs { log_bytes: 500 * MIB, ..quiet() }));
    }

    /// N11: By default, a small state has little log, and a checkpoint of it costs little. For a
    /// state of 64 MiB or more, checkpoints are as rare as speed needs.
    #[test]
    fn by_default_a_small_state_has_little_log() {
        let limits = Limits { max_log_bytes: 4096 * MIB, checkpoint_log_bytes: None, recover_within: None };
        let table = [(0, 32), (8, 32), (9, 36), (64, 256), (256, 256), (257, 257), (1024, 1024), (1025, 1024)];
        for (write_bytes, due) in table {
            assert_eq!(limits.due_bytes(write_bytes * MIB), due * MIB, "{write_bytes} MiB to write");
        }
    }

    /// S10: A close writes no more than what has changed, or little.
    #[test]
    fn a_close_takes_a_checkpoint_that_costs_no_more_than_what_has_changed() {
        let large = Inputs { write_bytes: 100 * MIB, ..quiet() };
        assert!(!LIMITS.is_due_at_close(&large));
        assert!(LIMITS.is_due_at_close(&Inputs { write_bytes: MIB, log_bytes: 1, ..large }));
        assert!(LIMITS.is_due_at_close(&Inputs { log_bytes: 100 * MIB, ..large }));
        assert!(LIMITS.is_due_at_close(&Inputs { opens: OPENS_PER_CHECKPOINT, ..large }));
        let budget = |time| Limits { recover_within: Some(millis(time)), ..LIMITS };
        assert!(!budget(110).is_due_at_close(&large));
        assert!(budget(109).is_due_at_close(&large), "the next open would be late");
        assert!(!budget(99).is_due_at_close(&large), "a checkpoint would not help");
    }

    #[test]
    fn what_makes_a_checkpoint_due_by_time_alone_is_known_beforehand() {
        let failed = Inputs { log_bytes: 16 * MIB, failed: true, rested: millis(400), ..quiet() };
        assert_eq!(LIMITS.due_in(&failed), Some(millis(600)));
        assert_eq!(LIMITS.due_in(&Inputs { took: millis(5000), ..failed }), Some(millis(4600)));
        assert_eq!(LIMITS.due_in(&Inputs { records: 0, ..failed }), None);
        assert_eq!(LIMITS.due_in(&Inputs { failed: false, ..failed }), Some(Duration::ZERO));
        assert_eq!(LIMITS.due_in(&quiet()), None);
        let full = Inputs { frees_wanted_space: true, rested: millis(400), ..quiet() };
        assert_eq!(LIMITS.due_in(&full), Some(millis(600)));
        let budget = |time| Limits { recover_within: Some(millis(time)), ..LIMITS };
        let recovery = RecoveryTime { least: millis(100), now: millis(199) };
        let restless = Inputs { recovery, rested: millis(150), ..quiet() };
        assert_eq!(budget(200).due_in(&restless), Some(millis(50)));
        let missed = budget(50).due_in(&restless).unwrap();
        assert!(missed <= millis(651) && budget(50).is_due(&Inputs { rested: restless.rested + missed, ..restless }));
    }

    #[test]
    fn the_log_is_looked_at_where_a_checkpoint_is_due() {
        let budget = Limits { recover_within: Some(millis(200)), ..LIMITS };
        assert_eq!((LIMITS.quiet_bytes(0, 0), budget.quiet_bytes(0, 0)), (MIB, 64 << 10));
        assert_eq!((LIMITS.quiet_bytes(16 * MIB - 100, 0), budget.quiet_bytes(16 * MIB - 100, 0)), (100, 100));
        assert_eq!(LIMITS.quiet_bytes(17 * MIB, 0), 64 << 10, "it has failed, and time makes it due again");
        assert_eq!(LARGE.quiet_bytes(17 * MIB, 100 * MIB), LARGE.max_log_bytes / 64);
        assert_eq!(LARGE.quiet_bytes(100 * MIB - 100, 100 * MIB), 100);
        assert_eq!(Limits { max_log_bytes: MIB, ..LIMITS }.quiet_bytes(0, 0), 16 << 10);
    }

    #[test]
    fn commits_are_under_pressure_near_a_bound_that_can_be_kept() {
        let budget = Limits { recover_within: Some(millis(200)), ..LIMITS };
        let at = |least, now| move || RecoveryTime { least: millis(least), now: millis(now) };
        assert!(!LIMITS.is_under_pressure(48 * MIB, at(0, 1_000_000)));
        assert!(LIMITS.is_under_pressure(48 * MIB + 1, at(0, 0)));
        assert!(!budget.is_under_pressure(0, at(100, 180)));
        assert!(budget.is_under_pressure(0, at(100, 181)));
        assert!(!budget.is_under_pressure(0, at(201, 300)), "no checkpoint would help");
    }
}
