//! The checkpoint job: it freezes the state, writes it in the background, publishes it, and deletes
//! the log before it.
//!
//! A checkpoint is fuzzy: the frozen state holds uncommitted effects. The open transactions and
//! their inverses are saved with it. The job has these stages, so that a simulator can run other
//! operations between them, or crash there:
//!
//! 1. Freeze the state under the core lock. The forming frame is sealed, so that the snapshot's LSN
//!    is a frame boundary. A machine with [`SnapshotSource::Replay`] is not cloned: only the LSN is
//!    chosen here, and a stage of its own then rebuilds the state at that LSN from the snapshot before
//!    it and the log. That is a recovery beside the live state, so it finds the same transactions open
//!    and the same inverses.
//! 2. Write the snapshot, sync it, and read it back.
//! 3. Make the log durable through the snapshot's LSN, then publish the snapshot in the manifest.
//! 4. Recycle the segments that neither of the two newest snapshots needs.
//!
//! On a full disk, a checkpoint frees space, and keeps only the newest snapshot. If there is no
//! space for that snapshot, the checkpoint first removes files that recovery does not need: the
//! older snapshot with its log, then preallocated segments. It reserves the freed space for the
//! snapshot, so that no commit takes it, and begins again.
//!
//! Lock order: the job's lock comes before those that the engine's first page lists. Events are
//! reported after every lock is released.

use super::digest::Digester;
use super::monitor::{Mark, Monitor, RecoveredSizes};
use super::pending_undo::log_pending_undo;
use super::recovery_time::RecoveryCostModel;
use super::retention::{self, SnapshotReaders, Unlink};
use super::span::CheckpointSpan;
use super::throttle::{CheckpointPace, CommitThrottle, check_goes_on};
use crate::error::{Error, Result};
use crate::events::Span;
use crate::format::manifest::SnapshotEntry;
use crate::format::record::Record;
use crate::format::snapshot::SnapshotHeader;
use crate::ids::Lsn;
use crate::io::Storage;
use crate::io::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, thread_local};
use crate::io::threads::contained;
use crate::machine::{SnapshotSource, StateMachine};
use crate::meters::Meters;
use crate::options::{Background, Options};
use crate::recovery::{self, Rebuilt};
use crate::snapshot::{self, SnapshotThrottle};
use crate::txn::{ActiveTransactions, Core, StateCore, guarded};
use crate::wal::{DeferredWakes, Level, Log, Need, SpaceAside};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// The address of the checkpointer whose job this thread holds, or zero.
    static IN_STAGE: Cell<usize> = const { Cell::new(0) };
}

/// What a panic in a stage becomes.
const PANICKED: Error = Error::Internal { what: "it took a checkpoint" };

enum Stage<M: StateMachine> {
    /// The state at the snapshot's LSN is to be rebuilt from the snapshot before it and the log.
    ///
    /// `point` is the point in the log that marks this state for a digest, if digests are enabled.
    Rebuild {
        point: Option<Lsn>,
    },
    /// `point` as above.
    Write {
        state: M,
        table: ActiveTransactions<M::Command>,
        point: Option<Lsn>,
    },
    /// `digest` goes into the log after the snapshot, so that a load of the snapshot is checked
    /// too.
    Publish {
        entry: SnapshotEntry,
        digest: Option<(Lsn, u64)>,
    },
    Recycle,
}

/// A checkpoint in progress.
struct Job<M: StateMachine> {
    header: SnapshotHeader,
    stage: Stage<M>,
    /// How much the log held when the state was frozen.
    mark: Mark,
    /// The time when the checkpoint began. On a full disk it may freeze the state several times.
    began: Duration,
    /// What was freed for it on a full disk.
    space: Option<SpaceAside>,
}

/// How a checkpoint ended.
enum CheckpointEnd {
    /// It was taken in this time, and wrote a snapshot of this size, or none.
    Taken {
        took: Duration,
        snapshot_bytes: u64,
    },
    Failed(Error),
}

/// The outcomes of checkpoints that ended while the job was locked. They are reported after every
/// lock is released.
#[derive(Default)]
#[must_use = "how a checkpoint ended is to be reported"]
pub(crate) struct CheckpointEnds(Vec<CheckpointEnd>);

impl CheckpointEnds {
    /// Reports them as events and measurements. The caller must hold no lock: subscribers and
    /// recorders are foreign code.
    pub(crate) fn report(self, monitor: &Monitor) {
        self.report_within(monitor, &Span::none());
    }

    /// As [`CheckpointEnds::report`], within the span of the checkpoint.
    fn report_within(self, monitor: &Monitor, span: &Span) {
        if self.0.is_empty() {
            return;
        }
        for end in self.0 {
            match end {
                CheckpointEnd::Taken { took, snapshot_bytes } => {
                    span.record("bytes", snapshot_bytes);
                    crate::events::event!(info, "a checkpoint was taken");
                    monitor.meters().checkpoint_taken(took, snapshot_bytes);
                }
                CheckpointEnd::Failed(error) => {
                    span.record_text("error", &error);
                    crate::events::event!(warn, error = %error, "a checkpoint failed; the log is kept");
                    monitor.meters().checkpoint_failed();
                }
            }
        }
        monitor.report_figures();
    }
}

/// Takes checkpoints.
pub(crate) struct Checkpointer<M: StateMachine> {
    core: Arc<StateCore<M>>,
    /// `None` when the store was opened read-only.
    log: Option<Arc<Log>>,
    storage: Arc<dyn Storage>,
    background: Background,
    /// Whether other threads help to read and write snapshots.
    help: snapshot::Help,
    /// How much memory a rebuilt state may take beyond itself for its redo, in bytes.
    redo_memory_bytes: u64,
    /// The rate limit of checkpoints, if there is one.
    bytes_per_second: Option<u64>,
    monitor: Arc<Monitor>,
    throttle: CommitThrottle<M>,
    digester: Digester<M>,
    /// True once the last handle is dropped: a checkpoint in progress is then aborted.
    stopping: AtomicBool,
    /// The checkpoint in progress. The lock is held while a stage runs.
    job: Mutex<Option<Job<M>>>,
    snapshot_readers: SnapshotReaders,
    freeze_nanos: AtomicU64,
    taken: AtomicU64,
    /// The size of the snapshot that the checkpoint in progress has published.
    published_bytes: AtomicU64,
    span: CheckpointSpan,
}

impl<M: StateMachine> Checkpointer<M> {
    pub(crate) fn new(
        core: &Arc<StateCore<M>>,
        (storage, log): (&Arc<dyn Storage>, &Option<Arc<Log>>),
        options: &Options,
        cost_model: Arc<RecoveryCostModel>,
        recovered: (RecoveredSizes, Vec<SnapshotEntry>),
    ) -> Self {
        let meters = Meters::new(M::NAME, &storage.path(""));
        let monitor = Arc::new(Monitor::new((storage.clone(), log.clone()), options, cost_model, recovered, meters));
        let background = options.log.background;
        Checkpointer {
            core: core.clone(),
            log: log.clone(),
            storage: storage.clone(),
            background,
            help: options.into(),
            redo_memory_bytes: options.redo_memory_bytes,
            bytes_per_second: options.checkpoint_bytes_per_second.filter(|_| background == Background::Threads),
            throttle: CommitThrottle::new(monitor.clone(), storage.clone(), core.clone(), options),
            monitor,
            digester: Digester::new(core.clone(), log.clone(), storage.clone(), options.digest_every),
            stopping: AtomicBool::new(false),
            job: Mutex::new(None),
            snapshot_readers: SnapshotReaders::default(),
            freeze_nanos: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            published_bytes: AtomicU64::new(0),
            span: CheckpointSpan::new(),
        }
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    pub(crate) fn throttle(&self) -> &CommitThrottle<M> {
        &self.throttle
    }

    pub(crate) fn digester(&self) -> &Digester<M> {
        &self.digester
    }

    /// Aborts a checkpoint in progress. It notices that after the current chunk.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the calling thread runs a stage, so that it must not wait for the job.
    pub(crate) fn is_in_stage(&self) -> bool {
        IN_STAGE.try_with(Cell::get).is_ok_and(|job| job == self.address())
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Blocks all stages of checkpoints until the result is dropped.
    pub(crate) fn between_stages(&self) -> impl Sized + '_ {
        self.job.lock()
    }

    /// Keeps checkpoints from deleting snapshots until the result is dropped.
    pub(crate) fn keep_snapshots(&self) -> impl Sized + '_ {
        self.snapshot_readers.begin()
    }

    /// The number of checkpoints taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The longest time for which a freeze held the core lock.
    pub(crate) fn longest_freeze(&self) -> Duration {
        Duration::from_nanos(self.freeze_nanos.load(Ordering::Relaxed))
    }

    fn log(&self) -> Result<&Log> {
        self.log.as_deref().ok_or(Error::ReadOnly)
    }

    /// Takes a whole checkpoint. One in progress is finished first.
    ///
    /// # Errors
    /// Also [`Error::Full`] where the disk was full, and still has no space for the log.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let lacked_space = self.monitor.lacks_space();
        let began = self.storage.monotonic();
        self.within_span(|| true, || self.checkpoint_unreported(|| true))?;
        if !lacked_space {
            return Ok(());
        }
        let claimed = self.log()?.claim_freed_space();
        if let Err(error @ Error::Full { .. }) = &claimed {
            self.monitor.note_end(began, Some(error));
        }
        claimed
    }

    /// Takes the checkpoint of a close: one in progress is finished, and another is taken if it is
    /// due even then. The caller holds locks, and reports the outcomes after it has released them.
    pub(crate) fn checkpoint_at_close(&self) -> (Result<()>, CheckpointEnds) {
        self.checkpoint_unreported(|| self.monitor.is_due_at_close())
    }

    fn checkpoint_unreported(&self, is_wanted: impl FnOnce() -> bool) -> (Result<()>, CheckpointEnds) {
        if let Err(error) = self.log() {
            return (Err(error), CheckpointEnds::default());
        }
        self.with_job_unreported(|job, ends| {
            while job.is_some() {
                self.run_stage(job, ends)?;
            }
            if !is_wanted() {
                return Ok(());
            }
            self.begin_job(job, ends)?;
            while job.is_some() {
                self.run_stage(job, ends)?;
            }
            Ok(())
        })
    }

    /// Takes a checkpoint as part of an open, if so many opens before it wrote a little and left a
    /// segment each without ever living long enough for a checkpoint. A failure is kept for the
    /// stats.
    ///
    /// Otherwise it deletes some files that the last checkpoint no longer needed, but could not
    /// delete before its process was killed. What is left then is for the next open or checkpoint.
    pub(crate) fn tidy_after_many_opens(&self) {
        let Some(log) = &self.log else { return };
        let _ = if self.monitor.is_overdue() {
            self.checkpoint()
        } else {
            retention::give_up_some_unneeded(&self.storage, log, &self.snapshot_readers)
        };
    }

    /// Freezes the state for a checkpoint, unless one is in progress. Returns whether it did.
    pub(crate) fn begin(&self) -> Result<bool> {
        self.with_job(true, |job, ends| {
            if job.is_some() {
                return Ok(false);
            }
            self.begin_job(job, ends)?;
            Ok(job.is_some())
        })
    }

    /// After how long a checkpoint is due if nothing is appended meanwhile.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.monitor.due_in()
    }

    /// How far the log may grow before a checkpoint or a digest may be due.
    pub(crate) fn quiet_bytes(&self) -> u64 {
        self.monitor.quiet_bytes().min(self.digester.quiet_bytes())
    }

    /// Runs the next stage of a checkpoint, or begins one that is due. Returns `false` if there was
    /// nothing to do.
    pub(crate) fn step(&self) -> Result<bool> {
        self.with_job(false, |job, ends| {
            if job.is_some() {
                return self.run_stage(job, ends).map(|()| true);
            }
            // one that was given up is still due
            if self.stopping.load(Ordering::Acquire) || !self.monitor.is_due() {
                return Ok(false);
            }
            self.begin_job(job, ends)?;
            Ok(job.is_some())
        })
    }

    /// Runs a part of a checkpoint. `begins` says that one begins even if none is due.
    fn with_job<T>(
        &self,
        begins: bool,
        run: impl FnOnce(&mut Option<Job<M>>, &mut CheckpointEnds) -> Result<T>,
    ) -> Result<T> {
        let may_begin = || begins || (!self.stopping.load(Ordering::Acquire) && self.monitor.is_due());
        let result = self.within_span(may_begin, || self.with_job_unreported(run));
        self.monitor.report_budget();
        result
    }

    /// Runs a part of a checkpoint within its span, and reports the outcomes. The caller holds no
    /// lock, unless it is the machine's code within a stage.
    fn within_span<T>(
        &self,
        may_begin: impl FnOnce() -> bool,
        run: impl FnOnce() -> (Result<T>, CheckpointEnds),
    ) -> Result<T> {
        if self.is_in_stage() {
            let (result, ends) = run();
            debug_assert!(ends.0.is_empty(), "a nested call runs no stage");
            return result;
        }
        let new = || {
            crate::events::span!(
                "checkpoint",
                machine = M::NAME,
                dir = %self.storage.path("").display(),
                bytes = tracing::field::Empty,
                error = tracing::field::Empty
            )
        };
        let span = self.span.resume(may_begin, new);
        let result = {
            let _entered = span.enter();
            let (result, ends) = run();
            ends.report_within(&self.monitor, &span);
            result
        };
        self.span.pause(span);
        result
    }

    fn with_job_unreported<T>(
        &self,
        run: impl FnOnce(&mut Option<Job<M>>, &mut CheckpointEnds) -> Result<T>,
    ) -> (Result<T>, CheckpointEnds) {
        /// Names the job that the thread had before, if any.
        struct InStage(usize);
        impl Drop for InStage {
            fn drop(&mut self) {
                let _ = IN_STAGE.try_with(|job| job.set(self.0));
            }
        }
        let mut ends = CheckpointEnds::default();
        if self.is_in_stage() {
            // the machine's code called, and would wait for itself
            return (Err(Error::Reentrant), ends);
        }
        let _wakes = DeferredWakes::begin();
        let mut job = self.job.lock();
        let _in_stage = InStage(IN_STAGE.with(|own| own.replace(self.address())));
        let result = run(&mut job, &mut ends);
        self.span.is_under_way.store(job.is_some(), Ordering::Release);
        (result, ends)
    }

    fn begin_job(&self, job: &mut Option<Job<M>>, ends: &mut CheckpointEnds) -> Result<()> {
        self.freeze(job, self.storage.monotonic(), ends)
    }

    /// Freezes the state for a checkpoint that began at a time.
    fn freeze(&self, job: &mut Option<Job<M>>, began: Duration, ends: &mut CheckpointEnds) -> Result<()> {
        let try_freeze = || contained(|| self.freeze_now(began)).unwrap_or(Err(PANICKED));
        let mut frozen = try_freeze();
        // the log may need its first segment for that, so what is preallocated stays
        while frozen.as_ref().is_err_and(Error::can_be_met_by_freeing) && self.free_stand_ins() {
            frozen = try_freeze();
        }
        *job = Some(frozen.inspect_err(|error| self.note_failure(began, error, ends))?);
        Ok(())
    }

    /// Keeps a failure for the stats. It also delays the next automatic checkpoint, by at least the
    /// time that this one took; see the policy. A close that gives a checkpoint up is no failure.
    fn note_failure(&self, began: Duration, error: &Error, ends: &mut CheckpointEnds) {
        if matches!(error, Error::Closed) {
            return;
        }
        self.monitor.note_end(began, Some(error));
        ends.0.push(CheckpointEnd::Failed(error.clone()));
    }

    fn freeze_now(&self, began: Duration) -> Result<Job<M>> {
        let log = self.log()?;
        log.check_latch()?;
        // at most the files that one checkpoint unlinked are waiting for this
        log.deferred_unlinks().reclaim();
        match log_pending_undo(&self.core, log) {
            // the snapshot then holds the state without the undo, as the log does, and recovery
            // undoes the losers again
            Err(error) if error.is_full() && log.has_entered() => {}
            other => other?,
        }
        self.enter_first_segment(log)?;
        let core = self.core.write()?;
        let frozen_at = self.storage.monotonic();
        self.core.check_not_poisoned()?;
        let lsn = log.seal()?;
        let frozen = match M::SNAPSHOT_SOURCE {
            SnapshotSource::Clone => Some(frozen(&core)?),
            SnapshotSource::Replay => None,
        };
        let point = self.digester.note_point(&core, log)?;
        let (records, _) = log.appended();
        drop(core);
        let held = self.storage.monotonic().saturating_sub(frozen_at);
        self.freeze_nanos.fetch_max(held.as_nanos() as u64, Ordering::Relaxed);
        let identity = log.identity();
        let header = SnapshotHeader {
            store: identity.store,
            lsn,
            epoch: identity.epoch,
            wall_micros: self.storage.wall_clock_micros(),
            machine: identity.machine.clone(),
        };
        let stage = match frozen {
            Some((state, table)) => Stage::Write { state, table, point },
            None => Stage::Rebuild { point },
        };
        Ok(Job { header, stage, mark: Mark { records, lsn }, began, space: None })
    }

    /// Makes sure that the log on disk covers the snapshot's LSN. A store that was opened on a full
    /// disk has no segment of its current epoch until a record is appended. Does nothing otherwise.
    ///
    /// # Errors
    /// [`Error::Full`] while the disk has no space for a segment.
    fn enter_first_segment(&self, log: &Log) -> Result<()> {
        // a record that is still in memory is written before the snapshot is published
        let has_begun = || log.has_entered() || log.appended().0 > 0;
        if has_begun() {
            return Ok(());
        }
        let (_core, room) = log.reserve_under(Need::record(0), || self.core.write_trusted())?;
        if !has_begun() {
            // this record has no effect of its own
            room.append(&[], None, |lsn| Record::Point.head(lsn))?;
        }
        Ok(())
    }

    fn run_stage(&self, job: &mut Option<Job<M>>, ends: &mut CheckpointEnds) -> Result<()> {
        let Some(mut current) = job.take() else { return Ok(()) };
        let (began, space) = (current.began, current.space.take());
        // the machine's code runs in it, and the drop of its values
        match contained(|| self.stage(current)).unwrap_or(Err(PANICKED)) {
            Ok(Some(next)) => {
                *job = Some(Job { space, ..next });
                Ok(())
            }
            Ok(None) => {
                drop(space);
                self.log()?.note_space_freed();
                let took = self.monitor.note_end(began, None);
                self.taken.fetch_add(1, Ordering::Relaxed);
                let snapshot_bytes = self.published_bytes.swap(0, Ordering::Relaxed);
                ends.0.push(CheckpointEnd::Taken { took, snapshot_bytes });
                self.throttle.note_end();
                Ok(())
            }
            Err(error) => {
                if error.can_be_met_by_freeing()
                    && let Some(space) = self.free_space(space)
                {
                    // what was frozen is gone
                    self.freeze(job, began, ends)?;
                    if let Some(job) = job {
                        job.space = Some(space);
                    }
                    return Ok(());
                }
                self.note_failure(began, &error, ends);
                self.throttle.note_end();
                Err(error)
            }
        }
    }

    /// Frees something on a full disk. What is free then belongs to the next attempt; `None` where
    /// there was nothing to free.
    fn free_space(&self, space: Option<SpaceAside>) -> Option<SpaceAside> {
        let log = self.log().ok()?;
        // before it is free, for commits wait for it too
        let space = space.unwrap_or_else(|| log.set_space_aside());
        if self.free_stand_ins() {
            return Some(space);
        }
        // while the log has space, it keeps what is preallocated
        if !self.monitor.lacks_space() {
            return None;
        }
        let core = self.core.write().ok()?;
        let unreserved = log.take_unreserved();
        drop(core);
        log.remove_preallocated(unreserved).ok().filter(|freed| *freed).map(|_| space)
    }

    /// Frees unlinked files, or else the older snapshot and the log that stand in for the newest
    /// snapshot, once that was read back whole. Returns whether there was anything.
    fn free_stand_ins(&self) -> bool {
        let Ok(log) = self.log() else { return false };
        let give_up = |newest| {
            self.keep_only(log, newest)?;
            retention::give_up_unneeded(&self.storage, log, &self.snapshot_readers, Unlink::AtOnce)
        };
        log.deferred_unlinks().reclaim() || self.monitor.newest_with_stand_ins().is_some_and(|s| give_up(s).is_ok())
    }

    fn stage(&self, job: Job<M>) -> Result<Option<Job<M>>> {
        let log = self.log()?;
        // the log may have failed, been closed, or lost its directory, since the state was frozen
        log.check_ownership()?;
        let Job { header, stage, mark, began, space } = job;
        if let Stage::Rebuild { .. } | Stage::Write { .. } = &stage
            && let Some(newest) = self.monitor.snapshots().first().copied().filter(|s| s.lsn == header.lsn)
        {
            // the newest snapshot already holds this state; a crowded log or a full disk can still
            // drop what only the older one needs
            if !self.monitor.limits().is_crowded(log.segment_bytes()) && !self.monitor.lacks_space() {
                return Ok(None);
            }
            self.keep_only(log, newest)?;
            return Ok(Some(Job { header, stage: Stage::Recycle, mark, began, space }));
        }
        let stage = match stage {
            Stage::Rebuild { point } => self.rebuild(log, header.lsn, point)?,
            Stage::Write { state, table, point } => {
                // Of the state that is written, so that a load of it is checked. A checkpoint goes
                // on without its digest, because the log must not grow for that reason.
                let digest = point.and_then(|point| Some((point, self.digester.digest_of(&state).ok()?)));
                let (mut pace, help) = (self.pace(), self.help);
                let write = || snapshot::write(&*self.storage, &header, state, &table, help, &mut pace);
                let has_threads = self.background == Background::Threads;
                Stage::Publish { entry: self.throttle.copies().counted(has_threads, write)?, digest }
            }
            Stage::Publish { entry, digest } => {
                log.wait(header.lsn, Level::Durable)?;
                self.publish(log, entry, mark)?;
                if self.help == snapshot::Help::Threads
                    && let Some(most_bytes) = self.monitor.rehearsal_bytes(&entry)
                    && let Some(load) = snapshot::rehearse::<M>(&*self.storage, entry.lsn, most_bytes)
                {
                    self.monitor.note_load(load);
                }
                if let Some((point, digest)) = digest
                    && self.digester.note_digest(log, point, digest)?
                {
                    self.monitor.pass_over_record();
                }
                Stage::Recycle
            }
            Stage::Recycle => {
                let unlink = match (self.pace().is_paced(), self.background) {
                    (true, _) => Unlink::Gradually,
                    (false, Background::Threads) => Unlink::Deferred,
                    (false, Background::Manual) => Unlink::AtOnce,
                };
                retention::give_up_unneeded(&self.storage, log, &self.snapshot_readers, unlink)?;
                return Ok(None);
            }
        };
        Ok(Some(Job { header, stage, mark, began, space }))
    }

    /// Rebuilds the state at an LSN, to be written.
    fn rebuild(&self, log: &Log, lsn: Lsn, point: Option<Lsn>) -> Result<Stage<M>> {
        log.wait(lsn, Level::Durable)?;
        let check = || check_goes_on(&self.core, &self.stopping);
        let Rebuilt { state, table, snapshots } =
            recovery::rebuild(log, lsn, (self.help, self.redo_memory_bytes), &check)?;
        let known = self.monitor.snapshots();
        if known.iter().any(|known| !snapshots.contains(known)) {
            // the new snapshot must not take the place of the one that stood in for a damaged one
            self.monitor.note_snapshots(snapshots, None);
        }
        Ok(Stage::Write { state, table, point })
    }

    /// The throttle that keeps a checkpoint to its rate, unless a bound is near.
    fn pace(&self) -> CheckpointPace<'_, M> {
        CheckpointPace {
            monitor: &self.monitor,
            clock: &*self.storage,
            core: &self.core,
            copies: self.throttle.copies(),
            stopping: &self.stopping,
            began: self.storage.monotonic(),
            bytes_per_second: self.bytes_per_second,
        }
    }

    fn publish(&self, log: &Log, entry: SnapshotEntry, mark: Mark) -> Result<()> {
        let durable = log.durable_lsn();
        // on a full disk, nothing stays that only stands in for a snapshot that was just read back
        let (snapshots, log_start) = if self.monitor.lacks_space() {
            (vec![entry], Some(entry.lsn))
        } else {
            let snapshots = retention::kept(entry, self.monitor.snapshots());
            let log_start = retention::log_start(&snapshots);
            (snapshots, log_start)
        };
        log.publish(|m| {
            m.log_start = log_start.unwrap_or(m.log_start);
            m.snapshots.clone_from(&snapshots);
            m.watermark = m.watermark.max(durable);
        })?;
        self.monitor.note_snapshots(snapshots, Some(mark));
        self.published_bytes.store(entry.file_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the newest snapshot the only state from which recovery can begin, after it was read
    /// back whole.
    fn keep_only(&self, log: &Log, newest: SnapshotEntry) -> Result<()> {
        snapshot::check(&*self.storage, newest.lsn)?;
        log.publish(|m| {
            m.log_start = newest.lsn;
            m.snapshots = vec![newest];
        })?;
        self.monitor.note_snapshots(vec![newest], None);
        Ok(())
    }
}

/// A copy of the state as the log describes it, with its open transactions.
fn frozen<M: StateMachine>(core: &Core<M>) -> Result<(M, ActiveTransactions<M::Command>)> {
    let (state, table) = match &core.pending_undo {
        Some(pending_undo) => (&pending_undo.state, &pending_undo.table),
        None => (&core.state, &core.table),
    };
    Ok((guarded(|| state.clone())?, table.clone()))
}
