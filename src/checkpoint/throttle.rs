//! Throttles commits near a bound, and keeps a checkpoint to its rate otherwise.

use super::monitor::Monitor;
use crate::error::{Error, Result};
use crate::io::Clock;
use crate::io::deadline::Deadline;
use crate::io::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering, thread};
use crate::machine::{StateMachine, bulk};
use crate::options::{Background, Options};
use crate::snapshot::SnapshotThrottle;
use crate::txn::{StateCore, guarded};
use std::time::Duration;

/// The longest delay of one commit. It waits for a checkpoint to end, but no longer than this.
const THROTTLED: Duration = Duration::from_millis(10);
/// Pressure is measured once in this many commits. A measurement takes two locks, and 64 commits
/// fill only a small part of a log.
const PRESSURE_SAMPLE_COMMITS: u64 = 64;
/// The share of the state's memory in copy-on-write duplicates above which a checkpoint is not
/// paced.
const COPIED_UNPACED: f64 = 1.0 / 8.0;
/// The share above which commits are throttled. With buffers and the allocator's waste, the total
/// must stay below a third.
const COPIED_THROTTLED: f64 = 3.0 / 16.0;
/// How often a throttled commit measures that share.
const COPIED_POLL: Duration = Duration::from_micros(500);
/// The longest pause of a paced checkpoint, so that it soon notices a stop or pressure.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Throttles commits.
pub(crate) struct CommitThrottle<M: StateMachine> {
    monitor: Arc<Monitor>,
    clock: Arc<dyn Clock>,
    copies: CopiedMemory<M>,
    /// Whether threads take checkpoints, so that a commit can wait for one.
    has_threads: bool,
    lock_timeout: Duration,
    commits: AtomicU64,
    under_pressure: AtomicBool,
    /// Signalled at the end of a checkpoint.
    ended: (Mutex<()>, Condvar),
}

impl<M: StateMachine> CommitThrottle<M> {
    pub(super) fn new(
        monitor: Arc<Monitor>,
        clock: Arc<dyn Clock>,
        core: Arc<StateCore<M>>,
        options: &Options,
    ) -> Self {
        CommitThrottle {
            monitor,
            clock,
            copies: CopiedMemory { core, counts: AtomicBool::new(false) },
            has_threads: options.log.background == Background::Threads,
            lock_timeout: options.lock_timeout,
            commits: AtomicU64::new(0),
            under_pressure: AtomicBool::new(false),
            ended: (Mutex::new(()), Condvar::new()),
        }
    }

    /// Delays a commit near a bound, so that the checkpoint catches up. The caller must not hold a
    /// lock.
    ///
    /// # Errors
    /// [`Error::Full`] if the log is at its bound and no checkpoint makes room within the lock
    /// timeout; [`Error::Closed`] once the engine is closed.
    pub(crate) fn throttle(&self) -> Result<()> {
        let count = self.commits.fetch_add(1, Ordering::Relaxed);
        // checked for each commit, because large commands fill the log between two samples
        let near = self.monitor.limits().is_near_bound(self.monitor.segment_bytes()) || self.monitor.is_over_limit();
        if near || count.is_multiple_of(PRESSURE_SAMPLE_COMMITS) || self.under_pressure.load(Ordering::Relaxed) {
            self.under_pressure.store(self.monitor.is_under_pressure(), Ordering::Relaxed);
            self.await_copies();
        }
        if !self.under_pressure.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.has_threads {
            self.monitor.ring();
            self.await_end(THROTTLED);
        }
        self.refuse_over_bound()
    }

    /// Waits until a checkpoint ends, but no longer than `limit`. Returns whether it timed out.
    fn await_end(&self, limit: Duration) -> bool {
        let mut guard = self.ended.0.lock();
        self.ended.1.wait_for(&mut guard, limit).timed_out()
    }

    /// Waits up to [`THROTTLED`] for the checkpoint to free memory.
    fn await_copies(&self) {
        let mut deadline = Deadline::after(&*self.clock, THROTTLED);
        while self.copies.share() > COPIED_THROTTLED && !deadline.is_over() {
            deadline.sleep(COPIED_POLL, |limit| self.await_end(limit));
        }
    }

    fn refuse_over_bound(&self) -> Result<()> {
        if !self.monitor.is_over_limit() {
            return Ok(());
        }
        let mut deadline = Deadline::after(&*self.clock, self.lock_timeout);
        while self.has_threads && !deadline.is_over() {
            // a close ends this wait too
            self.copies.core.check()?;
            // a failed checkpoint may be due again by the storage's clock, which its thread does
            // not watch
            self.monitor.ring();
            deadline.sleep(THROTTLED, |limit| self.await_end(limit));
            if !self.monitor.is_over_limit() {
                return Ok(());
            }
        }
        Err(Error::Full { what: "the log: its size limit is reached (max_log_bytes)", source: None })
    }

    /// Wakes all commits that wait for a checkpoint: it has ended, or the engine is closed.
    pub(crate) fn note_end(&self) {
        let _guard = self.ended.0.lock();
        self.ended.1.notify_all();
    }

    pub(super) fn copies(&self) -> &CopiedMemory<M> {
        &self.copies
    }
}

/// The memory of copy-on-write duplicates: the live state has changed them, so only the frozen
/// state still holds the old versions.
pub(super) struct CopiedMemory<M: StateMachine> {
    core: Arc<StateCore<M>>,
    /// Whether the duplicates belong to the state that is being written, so that writing it frees
    /// them.
    counts: AtomicBool,
}

impl<M: StateMachine> CopiedMemory<M> {
    /// Runs `write`, and counts duplicates meanwhile. Those of another frozen state, such as a
    /// backup's, do not count, because this checkpoint cannot free them.
    pub(super) fn counted<T>(&self, has_threads: bool, write: impl FnOnce() -> T) -> T {
        /// Ends the counting, also where writing panics.
        struct Counting<'a>(&'a AtomicBool);
        impl Drop for Counting<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Relaxed);
            }
        }
        self.counts.store(has_threads && self.measure() <= 0.0, Ordering::Relaxed);
        let _counting = Counting(&self.counts);
        write()
    }

    /// The duplicates that count, as a share of the state's memory.
    fn share(&self) -> f64 {
        if self.counts.load(Ordering::Relaxed) { self.measure() } else { 0.0 }
    }

    fn measure(&self) -> f64 {
        let Ok(core) = self.core.read() else { return 0.0 };
        guarded(|| bulk::copied_share(&core.state)).unwrap_or(0.0)
    }
}

/// Keeps a checkpoint to its rate, unless a bound is near.
pub(super) struct CheckpointPace<'a, M: StateMachine> {
    pub(super) monitor: &'a Monitor,
    pub(super) clock: &'a dyn Clock,
    pub(super) core: &'a StateCore<M>,
    pub(super) copies: &'a CopiedMemory<M>,
    pub(super) stopping: &'a AtomicBool,
    pub(super) began: Duration,
    pub(super) bytes_per_second: Option<u64>,
}

impl<M: StateMachine> SnapshotThrottle for CheckpointPace<'_, M> {
    fn is_paced(&self) -> bool {
        self.bytes_per_second.is_some()
    }

    fn keep(&mut self, bytes: u64) -> Result<()> {
        check_goes_on(self.core, self.stopping)?;
        let Some(rate) = self.bytes_per_second else { return Ok(()) };
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(rate);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let early = due.saturating_sub(self.clock.monotonic().saturating_sub(self.began));
        let unpaced = || self.monitor.is_under_pressure() || self.copies.share() > COPIED_UNPACED;
        if !early.is_zero() && !unpaced() && self.core.check().is_ok() {
            thread::park_timeout(early.min(LONGEST_PAUSE));
        }
        Ok(())
    }
}

/// Whether a checkpoint still makes sense.
///
/// # Errors
/// [`Error::Poisoned`]; [`Error::Closed`] once the last handle is dropped.
pub(super) fn check_goes_on<M: StateMachine>(core: &StateCore<M>, stopping: &AtomicBool) -> Result<()> {
    core.check_not_poisoned()?;
    if stopping.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
}
