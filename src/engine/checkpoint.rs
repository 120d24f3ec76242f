//! Checkpoints: freezing the state, writing it in the background, publishing it, and giving up the log before it.
//!
//! A checkpoint is fuzzy: the frozen state holds uncommitted effects, and beside it stand the open transactions with their
//! inverses. It is a job of four stages, so that a simulator can run other things, or crash, between them:
//!
//! 1. freeze, under the core lock: the forming frame is sealed, so that the snapshot's LSN is a frame boundary;
//! 2. write the snapshot, sync it, read it back;
//! 3. make the log durable through its LSN, then publish it in the manifest;
//! 4. recycle what neither of the two newest snapshots needs.

use super::shared::Shared;
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::manifest::{SNAPSHOTS_KEPT, SnapshotEntry};
use crate::format::names::{self, FileName};
use crate::format::record::Record;
use crate::format::snapshot::SnapshotHeader;
use crate::machine::{StateMachine, bulk};
use crate::snapshot::{self, Pace};
use crate::storage::OpenMode;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering, thread};
use crate::txn::{Table, guarded};
use crate::wal::{Level, Log};
use std::time::{Duration, Instant};

/// How long after a failed checkpoint the next one is tried at the earliest.
const RETRY: Duration = Duration::from_secs(1);
/// A commit that is slowed down waits so long at the most.
const HOLD_BACK: Duration = Duration::from_millis(10);
/// Pressure is looked at once in so many commands.
const PRESSURE_SAMPLE: u64 = 64;
/// A checkpoint goes as fast as it can from where what changed beside it takes this share of the state's memory.
const COPIED_HURRY: f64 = 1.0 / 8.0;
/// From here on commits wait for it. Buffers and what an allocator makes of it come on top, and all of it is to stay below a third.
const COPIED_MOST: f64 = 3.0 / 16.0;
/// Where memory is short, what is looked at so often is how much of it was given back.
const COPIED_LOOK: Duration = Duration::from_micros(500);

enum Stage<M: StateMachine> {
    /// With the point in the log that marks this state for a digest, if digests are wanted.
    Write {
        state: M,
        table: Table<M::Command>,
        point: Option<Lsn>,
    },
    /// With the digest, which goes into the log behind the snapshot, so that loading it is checked too.
    Publish {
        entry: SnapshotEntry,
        digest: Option<(Lsn, u64)>,
    },
    Recycle,
}

/// A checkpoint under way.
struct Job<M: StateMachine> {
    header: SnapshotHeader,
    stage: Stage<M>,
    /// What the log had taken in when the state was frozen.
    mark: Mark,
    /// When that was.
    began: Duration,
}

/// How much the log has taken in.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    records: u64,
    lsn: Lsn,
}

/// What is known of checkpoints.
pub(crate) struct Checkpoints<M: StateMachine> {
    /// The one under way; locked while a stage runs.
    job: Mutex<Option<Job<M>>>,
    published: Mutex<Published>,
    pressed: AtomicBool,
    /// Whether what copies there are belong to the state that is being written.
    counts_copies: AtomicBool,
    commands: AtomicU64,
    /// Signalled when a checkpoint has ended.
    ended: (Mutex<()>, Condvar),
    freeze_nanos: AtomicU64,
    taken: AtomicU64,
}

struct Published {
    snapshots: Vec<SnapshotEntry>,
    /// Where the newest one begins; unset until the first of this open.
    mark: Option<Mark>,
    last_error: Option<Error>,
    ended_at: Duration,
    took: Duration,
}

impl<M: StateMachine> Checkpoints<M> {
    pub(super) fn new(snapshots: Vec<SnapshotEntry>) -> Self {
        let published =
            Published { snapshots, mark: None, last_error: None, ended_at: Duration::ZERO, took: Duration::ZERO };
        Checkpoints {
            job: Mutex::new(None),
            published: Mutex::new(published),
            pressed: AtomicBool::new(false),
            counts_copies: AtomicBool::new(false),
            commands: AtomicU64::new(0),
            ended: (Mutex::new(()), Condvar::new()),
            freeze_nanos: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// While this is held, no stage of a checkpoint runs.
    pub(super) fn between_stages(&self) -> impl Sized + '_ {
        self.job.lock()
    }

    pub(super) fn snapshots(&self) -> Vec<SnapshotEntry> {
        self.published.lock().snapshots.clone()
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.published.lock().last_error.clone()
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How long the longest freeze held the core lock.
    pub(super) fn longest_freeze(&self) -> Duration {
        Duration::from_nanos(self.freeze_nanos.load(Ordering::Relaxed))
    }
}

/// Keeps a checkpoint to its rate.
struct Pacer<'a, M: StateMachine> {
    shared: &'a Shared<M>,
    log: &'a Log,
    began: Duration,
    bytes_per_second: Option<u64>,
}

impl<M: StateMachine> Pace for Pacer<'_, M> {
    fn is_gentle(&self) -> bool {
        self.bytes_per_second.is_some()
    }

    fn keep(&mut self, bytes: u64) -> Result<()> {
        let shared = self.shared;
        shared.check_not_poisoned()?;
        if shared.stopping.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let Some(rate) = self.bytes_per_second else { return Ok(()) };
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(rate);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let early = due.saturating_sub(shared.storage.monotonic().saturating_sub(self.began));
        let pressed = || shared.is_pressed(self.log) || shared.copied_share() > COPIED_HURRY;
        if !early.is_zero() && !pressed() && shared.check().is_ok() {
            thread::park_timeout(early.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}

impl<M: StateMachine> Shared<M> {
    /// Records and bytes of log that recovery would have to read now.
    pub(super) fn log_since_snapshot(&self) -> (u64, u64) {
        let Some(log) = &self.log else { return (0, 0) };
        let (records, lsn) = log.appended();
        match self.checkpoints.published.lock().mark {
            Some(mark) => (records.saturating_sub(mark.records), lsn.since(mark.lsn)),
            None => {
                // what was recovered at open is still in front of it
                let start = log.start_of_epoch();
                let records = records.saturating_add(self.report.records);
                (records, lsn.since(start).saturating_add(self.report.log_bytes))
            }
        }
    }

    pub(super) fn anything_since_snapshot(&self) -> bool {
        self.log_since_snapshot().0 > 0 || self.checkpoints.published.lock().snapshots.is_empty()
    }

    fn snapshot_bytes(&self) -> u64 {
        let published = self.checkpoints.published.lock();
        match (published.mark, published.snapshots.first()) {
            (None, _) => self.report.snapshot_bytes,
            (Some(_), newest) => newest.map_or(0, |s| s.file_bytes),
        }
    }

    pub(super) fn estimated_recovery(&self) -> Duration {
        let (records, bytes) = self.log_since_snapshot();
        self.meter.estimate(self.snapshot_bytes(), bytes, records)
    }

    /// Whether even a checkpoint at this moment would leave more to do than the budget allows.
    pub(super) fn budget_cannot_be_met(&self) -> bool {
        let least = self.meter.estimate(self.snapshot_bytes(), 0, 0);
        self.options.recover_within.is_some_and(|budget| least > budget)
    }

    /// Whether a trigger says that a checkpoint is due.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let (records, bytes) = self.log_since_snapshot();
        // also where nothing was written: a program that is restarted again and again leaves a segment each time
        let log_bytes = self.log.as_ref().map_or(0, |log| log.segment_bytes());
        let crowded = log_bytes > self.options.max_log_bytes / 2;
        if records == 0 && !crowded {
            return false;
        }
        let now = self.storage.monotonic();
        let (rested, took, failed) = {
            let published = self.checkpoints.published.lock();
            (now.saturating_sub(published.ended_at), published.took, published.last_error.is_some())
        };
        if failed && rested < RETRY {
            return false;
        }
        if bytes >= self.options.checkpoint_log_bytes {
            return true;
        }
        // where the log is crowded though little is new, the older snapshot holds it back: the next checkpoints let go of that
        let near = log_bytes > self.options.max_log_bytes / 4 * 3;
        if crowded && (bytes > self.options.max_log_bytes / 8 || (near && rested >= RETRY)) {
            return true;
        }
        if records == 0 {
            return false;
        }
        let Some(budget) = self.options.recover_within else { return false };
        // a budget that cannot be met must not turn into one checkpoint after another
        let restless = rested < took.max(Duration::from_millis(50));
        let spent = self.estimated_recovery();
        let room = budget.saturating_sub(self.meter.estimate(self.snapshot_bytes(), 0, 0));
        let left = budget.saturating_sub(spent);
        !restless && (left < room / 2 || (self.budget_cannot_be_met() && rested > took.saturating_mul(4)))
    }

    /// Whether a bound is so near that commits must slow down.
    fn is_pressed(&self, log: &Log) -> bool {
        if log.segment_bytes() > self.options.max_log_bytes / 4 * 3 {
            return true;
        }
        let Some(budget) = self.options.recover_within else { return false };
        let least = self.meter.estimate(self.snapshot_bytes(), 0, 0);
        let near = least.saturating_add(budget.saturating_sub(least).saturating_mul(4) / 5);
        least <= budget && self.estimated_recovery() > near
    }

    /// How much of the state's memory the frozen one holds beside it.
    fn copied_share(&self) -> f64 {
        if self.checkpoints.counts_copies.load(Ordering::Relaxed) { self.share_of_copies() } else { 0.0 }
    }

    fn share_of_copies(&self) -> f64 {
        let core = self.core.read();
        guarded(|| bulk::copied_share(&core.state)).unwrap_or(0.0)
    }

    /// Slows a command down where a bound is near, so that the checkpoint catches up.
    ///
    /// # Errors
    /// [`Error::Full`] where the log is at its bound.
    pub(super) fn hold_back(&self, log: &Log) -> Result<()> {
        let checkpoints = &self.checkpoints;
        let count = checkpoints.commands.fetch_add(1, Ordering::Relaxed);
        // large commands fill the log between two samples
        let near = log.segment_bytes() > self.options.max_log_bytes / 4 * 3;
        if near || count.is_multiple_of(PRESSURE_SAMPLE) || checkpoints.pressed.load(Ordering::Relaxed) {
            checkpoints.pressed.store(self.is_pressed(log), Ordering::Relaxed);
            self.await_copies();
        }
        if !checkpoints.pressed.load(Ordering::Relaxed) || self.options.log.background == crate::wal::Background::Manual
        {
            return self.refuse_over_bound(log);
        }
        {
            let mut guard = checkpoints.ended.0.lock();
            checkpoints.ended.1.wait_for(&mut guard, HOLD_BACK);
        }
        self.refuse_over_bound(log)
    }

    /// Waits, not for long, until the checkpoint has given memory back.
    fn await_copies(&self) {
        let deadline = Instant::now().checked_add(HOLD_BACK);
        while self.copied_share() > COPIED_MOST && deadline.is_some_and(|deadline| Instant::now() < deadline) {
            let mut guard = self.checkpoints.ended.0.lock();
            self.checkpoints.ended.1.wait_for(&mut guard, COPIED_LOOK);
        }
    }

    fn refuse_over_bound(&self, log: &Log) -> Result<()> {
        if !self.checkpoints.pressed.load(Ordering::Relaxed) || log.segment_bytes() <= self.options.max_log_bytes {
            return Ok(());
        }
        let deadline = Instant::now().checked_add(self.options.lock_timeout);
        let threads = self.options.log.background == crate::wal::Background::Threads;
        while threads && deadline.is_some_and(|deadline| Instant::now() < deadline) {
            let mut guard = self.checkpoints.ended.0.lock();
            self.checkpoints.ended.1.wait_for(&mut guard, HOLD_BACK);
            if log.segment_bytes() <= self.options.max_log_bytes {
                return Ok(());
            }
        }
        Err(Error::Full { what: "the log, which is at its bound", source: None })
    }

    /// Takes a checkpoint from beginning to end. One that is under way is finished first.
    pub(super) fn checkpoint_now(&self) -> Result<()> {
        self.log()?;
        let mut job = self.checkpoints.job.lock();
        while job.is_some() {
            self.run_stage(&mut job)?;
        }
        self.freeze(&mut job)?;
        while job.is_some() {
            self.run_stage(&mut job)?;
        }
        Ok(())
    }

    /// Freezes the state for a checkpoint, unless one is under way. Returns whether it did.
    pub(super) fn begin_checkpoint(&self) -> Result<bool> {
        let mut job = self.checkpoints.job.lock();
        if job.is_some() {
            return Ok(false);
        }
        self.freeze(&mut job)?;
        Ok(job.is_some())
    }

    /// Runs the next stage of a checkpoint, or begins one that is due. Returns whether there was anything to do.
    pub(super) fn checkpoint_step(&self) -> Result<bool> {
        let mut job = self.checkpoints.job.lock();
        if job.is_none() {
            if !self.checkpoint_is_due() {
                return Ok(false);
            }
            self.freeze(&mut job)?;
            return Ok(job.is_some());
        }
        self.run_stage(&mut job)?;
        Ok(true)
    }

    fn freeze(&self, job: &mut Option<Job<M>>) -> Result<()> {
        self.freeze_now(job).inspect_err(|error| self.note_failure(error))
    }

    /// That a checkpoint has failed is kept for the stats, and for a while no other is begun by itself.
    fn note_failure(&self, error: &Error) {
        let mut published = self.checkpoints.published.lock();
        published.took = Duration::ZERO;
        published.ended_at = self.storage.monotonic();
        published.last_error = Some(error.clone());
        drop(published);
        crate::events::event!(warn, %error, "a checkpoint failed; the log is kept");
    }

    fn freeze_now(&self, job: &mut Option<Job<M>>) -> Result<()> {
        let log = self.log()?;
        log.check_latch()?;
        // no more than one checkpoint's at a time
        self.remains.give_back();
        match self.pay_owed(log) {
            // the snapshot then holds the state as the log tells it, and recovery undoes the losers once more
            Err(error) if error.is_full() && log.has_entered() => {}
            other => other?,
        }
        self.begin_log(log)?;
        let core = self.core.write();
        let began = self.storage.monotonic();
        self.check_not_poisoned()?;
        let lsn = log.seal()?;
        let (state, table) = match &core.owed {
            Some(owed) => (&owed.state, &owed.table),
            None => (&core.state, &core.table),
        };
        let (state, table) = (guarded(|| state.clone())?, table.clone());
        let point = self.note_point(&core, log)?;
        let (records, _) = log.appended();
        drop(core);
        let frozen = self.storage.monotonic().saturating_sub(began);
        self.checkpoints.freeze_nanos.fetch_max(frozen.as_nanos() as u64, Ordering::Relaxed);
        let identity = log.identity();
        let header = SnapshotHeader {
            store: identity.store,
            lsn,
            epoch: identity.epoch,
            wall_micros: self.storage.wall_clock_micros(),
            machine: identity.machine.clone(),
        };
        *job = Some(Job { header, stage: Stage::Write { state, table, point }, mark: Mark { records, lsn }, began });
        Ok(())
    }

    /// Sees to it that a snapshot's LSN comes to stand on disk: a store that was opened without space has no segment of this opening until
    /// something is appended. Does nothing elsewhere.
    ///
    /// # Errors
    /// [`Error::Full`] while the disk has no space for a segment.
    fn begin_log(&self, log: &Log) -> Result<()> {
        while !log.has_entered() {
            let core = self.core.write();
            self.check_not_poisoned()?;
            // a record that is not written yet will be, before the snapshot counts
            if log.appended().0 > 0 {
                break;
            }
            match log.lacks_room(0)? {
                Some(lack) => {
                    drop(core);
                    self.remains.unless_given_back(log.make_room(lack, 0))?;
                }
                // one that says nothing by itself
                None => drop(log.append_record(&[], None, |lsn| Record::Point.head(lsn))?),
            }
        }
        Ok(())
    }

    fn run_stage(&self, job: &mut Option<Job<M>>) -> Result<()> {
        let Some(current) = job.take() else { return Ok(()) };
        let began = current.began;
        let result = self.stage(current);
        let now = self.storage.monotonic();
        let mut published = self.checkpoints.published.lock();
        match result {
            Ok(Some(next)) => *job = Some(next),
            Ok(None) => {
                published.took = now.saturating_sub(began);
                published.ended_at = now;
                published.last_error = None;
                drop(published);
                self.checkpoints.taken.fetch_add(1, Ordering::Relaxed);
                crate::events::event!(info, "a checkpoint was taken");
                self.end_checkpoint();
            }
            Err(error) => {
                drop(published);
                self.note_failure(&error);
                self.end_checkpoint();
                return Err(error);
            }
        }
        Ok(())
    }

    fn end_checkpoint(&self) {
        let _guard = self.checkpoints.ended.0.lock();
        self.checkpoints.ended.1.notify_all();
    }

    fn stage(&self, job: Job<M>) -> Result<Option<Job<M>>> {
        let log = self.log()?;
        // it may have failed, or been closed, since the state was frozen
        log.check_latch()?;
        let Job { header, stage, mark, began } = job;
        let stage = match stage {
            Stage::Write { state, table, point } => {
                let mut pace = self.pacer(log);
                let newest = self.checkpoints.published.lock().snapshots.first().copied();
                if let Some(newest) = newest.filter(|s| s.lsn == header.lsn) {
                    // nothing is new; but where the log is crowded, what only an older state needs can go
                    if log.segment_bytes() <= self.options.max_log_bytes / 2 {
                        return Ok(None);
                    }
                    self.keep_only(log, newest)?;
                    return Ok(Some(Job { header, stage: Stage::Recycle, mark, began }));
                }
                // a digest that cannot be had is no reason to let the log grow
                let digest = point.and_then(|point| Some((point, self.digest_of(&state).ok()?)));
                let help = self.options.log.background.into();
                // what another copy holds that is being saved, a backup say, this one cannot give back
                let threads = self.options.log.background == crate::wal::Background::Threads;
                self.checkpoints.counts_copies.store(threads && self.share_of_copies() <= 0.0, Ordering::Relaxed);
                let written = snapshot::write(&*self.storage, &header, state, &table, help, &mut pace);
                self.checkpoints.counts_copies.store(false, Ordering::Relaxed);
                Stage::Publish { entry: written?, digest }
            }
            Stage::Publish { entry, digest } => {
                log.wait(header.lsn, Level::Durable)?;
                self.publish(log, entry, mark)?;
                if let Some((point, digest)) = digest
                    && self.note_digest(log, point, digest)?
                    && let Some(mark) = &mut self.checkpoints.published.lock().mark
                {
                    // this record alone is no reason for another checkpoint
                    mark.records = mark.records.saturating_add(1);
                }
                Stage::Recycle
            }
            Stage::Recycle => {
                self.recycle(log)?;
                return Ok(None);
            }
        };
        Ok(Some(Job { header, stage, mark, began }))
    }

    /// Keeps a checkpoint to its rate, unless a bound is near.
    fn pacer<'a>(&'a self, log: &'a Log) -> Pacer<'a, M> {
        let threads = self.options.log.background == crate::wal::Background::Threads;
        let bytes_per_second = self.options.checkpoint_bytes_per_second.filter(|_| threads);
        Pacer { shared: self, log, began: self.storage.monotonic(), bytes_per_second }
    }

    fn publish(&self, log: &Log, entry: SnapshotEntry, mark: Mark) -> Result<()> {
        let durable = log.durable_lsn();
        let mut snapshots = vec![entry];
        snapshots.extend(self.checkpoints.snapshots().into_iter().take(SNAPSHOTS_KEPT.saturating_sub(1)));
        log.publish(|m| {
            // as long as there is one snapshot only, the log from its beginning is what stands in for it
            if let [_, .., older] = snapshots.as_slice() {
                m.log_start = older.lsn;
            }
            m.snapshots.clone_from(&snapshots);
            m.watermark = m.watermark.max(durable);
        })?;
        let mut published = self.checkpoints.published.lock();
        published.snapshots = snapshots;
        published.mark = Some(mark);
        Ok(())
    }

    /// Gives up every state to begin from but the newest snapshot, once that has been read back whole.
    fn keep_only(&self, log: &Log, newest: SnapshotEntry) -> Result<()> {
        snapshot::check(&*self.storage, newest.lsn)?;
        log.publish(|m| {
            m.log_start = newest.lsn;
            m.snapshots = vec![newest];
        })?;
        self.checkpoints.published.lock().snapshots = vec![newest];
        Ok(())
    }

    fn recycle(&self, log: &Log) -> Result<()> {
        let manifest = log.manifest();
        log.recycle_below(manifest.log_start)?;
        let names = self.storage.list().map_err(|e| Error::io("list", self.storage.path(""), e))?;
        let gentle = self.pacer(log).is_gentle();
        let later = !gentle && self.options.log.background == crate::wal::Background::Threads;
        let mut removed = false;
        for name in names {
            if let FileName::Snapshot { lsn } = names::parse(&name)
                && !manifest.snapshots.iter().any(|s| s.lsn == lsn)
            {
                let remove = || if gentle { self.storage.remove_gently(&name) } else { self.storage.remove(&name) };
                // a file that cannot be opened ends at once
                let file = later.then(|| self.storage.open(&name, OpenMode::Read).ok()).flatten();
                remove().map_err(|e| Error::io("remove", self.storage.path(&name), e))?;
                file.into_iter().for_each(|file| self.remains.hold(file));
                removed = true;
            }
        }
        if removed {
            self.storage.sync_dir().map_err(|e| Error::io("sync", self.storage.path(""), e))?;
        }
        Ok(())
    }
}
