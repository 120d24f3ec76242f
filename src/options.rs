//! The options of a store and of a log. They are data only; the engine opens stores.

use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::io::Create;
use crate::io::sync::Arc;
use std::fmt;
use std::time::Duration;

/// Four blocks of 4 KiB, the smallest segment that has space for a header and a frame.
const MIN_SEGMENT_BYTES: u64 = 16 << 10;
/// Positions within a segment are 32 bits on disk; half of that leaves space to round up.
const MAX_SEGMENT_BYTES: u64 = (u32::MAX / 2) as u64;

/// The default of [`Options::redo_memory_bytes`].
pub(crate) const DEFAULT_REDO_MEMORY_BYTES: u64 = 1 << 30;

/// Which threads run background work: flushing tickets, preallocating segments, taking checkpoints.
///
/// Default: [`Background::Threads`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Background {
    /// The store starts threads of its own.
    #[default]
    Threads,
    /// The caller runs each step through explicit calls of `step`. A single-threaded caller then
    /// gets the same sequence of I/O operations in every run.
    Manual,
}

/// Sizes and limits of a log that is used on its own ([`wal::Log`](crate::wal::Log)). Each method sets
/// the field of its name; [`LogOptions::open`] opens the log.
///
/// [`Options`] has the same settings, under the same names, for the log of a store.
///
/// ```
/// use seawal::{Durability, wal::Log};
///
/// let dir = tempfile::tempdir()?;
/// let options = Log::options().name("journal").version(2).oldest_version(1);
/// let log = options.durability(Durability::Os).max_log_bytes(1 << 30).open(dir.path())?;
/// log.append(b"an entry")?.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    /// The kind of records, at most 64 bytes. It is written into every file, and a log with
    /// another name is refused. Default: `"log"`.
    pub name: String,
    /// The version of the records' encoding. It is recorded when the log is opened, in the manifest
    /// and in each segment written from then on. A program of a lower version is refused from then
    /// on. Default: 1.
    pub version: u32,
    /// The oldest version whose records this program reads. A log that holds records of an older
    /// version, or of a newer one than `version`, is refused with [`Error::UnsupportedVersion`],
    /// which names both. Default: `None`, which reads the records of `version` alone.
    pub oldest_version: Option<u32>,
    /// What a record has survived once its ticket was waited for, unless its append chooses
    /// another level. Default: [`Durability::Sync`], which survives power loss.
    pub durability: Durability,
    /// The maximum size of the log, in bytes: from its first LSN to its end. An append that would
    /// exceed it fails with [`Error::Full`] until the log is truncated. The files take up to one
    /// segment more, and preallocated segments and those held by readers come on top. Default:
    /// `u64::MAX`, no limit. A store has [`Options::max_log_bytes`] instead.
    pub max_log_bytes: u64,
    /// The maximum size of a segment file, in bytes, and of a record. Default: 64 MiB.
    pub segment_bytes: u64,
    /// The size of the first segment, in bytes; each later one is twice as large, up to
    /// `segment_bytes`. Default: 1 MiB.
    pub first_segment_bytes: u64,
    /// The maximum size of a frame that combines several records, in bytes. A larger record gets a
    /// frame of its own. Default: 1 MiB.
    pub max_frame_bytes: u64,
    /// The maximum size of the records that wait in memory to be written, in bytes; beyond it an
    /// append blocks (back-pressure). Default: 64 MiB.
    pub max_pending_bytes: u64,
    /// The maximum number of frames that are being written at once. `None` writes one frame at a
    /// time and waits for woken committers to join the next. Default: `None`.
    pub max_frames_in_flight: Option<usize>,
    /// How long a waiting committer spins (yielding) before it parks, once four or more are
    /// waiting; zero disables it. Ignored while a durable write takes more than half of it.
    /// Default: 500 µs.
    pub commit_spin: Duration,
    /// The number of segments that are preallocated ahead of need. One of them is a reserve, which
    /// lets a log be opened on a full disk. Default: 2.
    pub preallocated_segments: usize,
    /// The maximum number of preallocated segments that recycling keeps; it removes further
    /// truncated segments. Reserving room for the rollback of open transactions may add more.
    /// Default: `None`, as many as hold the log between two truncations, and at least 6.
    pub max_preallocated_segments: Option<usize>,
    /// Which threads run background work. Default: [`Background::Threads`].
    pub background: Background,
    /// How long opening waits while another process or handle has the log open. Default: zero,
    /// which refuses at once.
    pub lock_wait: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            name: "log".into(),
            version: 1,
            oldest_version: None,
            durability: Durability::Sync,
            max_log_bytes: u64::MAX,
            segment_bytes: 64 << 20,
            first_segment_bytes: 1 << 20,
            max_frame_bytes: 1 << 20,
            max_pending_bytes: 64 << 20,
            max_frames_in_flight: None,
            commit_spin: Duration::from_micros(500),
            preallocated_segments: 2,
            max_preallocated_segments: None,
            background: Background::Threads,
            lock_wait: Duration::ZERO,
        }
    }
}

/// Makes a method that sets the field of its name.
macro_rules! setters {
    ($($field:ident: $ty:ty $(=> $wrap:expr)?,)*) => {
        impl LogOptions {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](LogOptions#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $ty) -> Self {
                    self.$field = $($wrap)?($field);
                    self
                }
            )*
        }
    };
}

setters! {
    version: u32,
    oldest_version: u32 => Some,
    durability: Durability,
    max_log_bytes: u64,
    first_segment_bytes: u64,
    max_frame_bytes: u64,
    max_pending_bytes: u64,
    max_frames_in_flight: usize => Some,
    commit_spin: Duration,
    preallocated_segments: usize,
    max_preallocated_segments: usize => Some,
    background: Background,
    lock_wait: Duration,
}

impl LogOptions {
    /// Sets [`name`](LogOptions#structfield.name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets [`segment_bytes`](LogOptions#structfield.segment_bytes), and lowers
    /// [`first_segment_bytes`](LogOptions#structfield.first_segment_bytes) to it.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self.first_segment_bytes = self.first_segment_bytes.min(bytes);
        self
    }
}

/// What recovery may change on disk. Default: [`RecoveryPolicy::Strict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryPolicy {
    /// Cut a torn tail where the evidence proves that nothing durable is lost; report any other
    /// damage as an error and change nothing.
    #[default]
    Strict,
    /// Recover in memory and write nothing: neither the cut nor the undo. The store answers reads
    /// only.
    ReadOnly,
}

/// A phase of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Loading the newest snapshot.
    Snapshot,
    /// Reading the log and redoing its commands.
    Redo,
    /// Undoing transactions that had not committed.
    Undo,
}

/// The progress of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The current phase.
    pub phase: Phase,
    /// The amount of the phase that is done, in bytes; in [`Phase::Undo`], in steps.
    pub done: u64,
    /// An upper bound of the phase's total work, in the unit of `done`.
    pub total: u64,
}

pub(crate) type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How a store is opened. Each method sets one option; [`Options::open`] opens the store.
///
/// ```
/// use seawal::{Durability, Options, kv::Kv};
/// use std::time::Duration;
///
/// let dir = tempfile::tempdir()?;
/// let store = Options::new()
///     .durability(Durability::Interval(Duration::from_millis(50)))
///     .recover_within(Duration::from_secs(2))
///     .open::<Kv>(dir.path())?;
/// store.insert("key", "value")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) log: LogOptions,
    pub(crate) create: Create,
    pub(crate) durability: Durability,
    pub(crate) lock_timeout: Duration,
    pub(crate) max_txn_age: Duration,
    pub(crate) max_txn_undo_bytes: u64,
    /// `None` chooses by the size of the state.
    pub(crate) checkpoint_log_bytes: Option<u64>,
    pub(crate) checkpoint_bytes_per_second: Option<u64>,
    pub(crate) checkpoint_on_close: bool,
    pub(crate) max_log_bytes: u64,
    pub(crate) recover_within: Option<Duration>,
    pub(crate) redo_memory_bytes: u64,
    pub(crate) helper_threads: bool,
    pub(crate) digest_every: Option<u64>,
    pub(crate) policy: RecoveryPolicy,
    pub(crate) progress: Option<ProgressFn>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            log: LogOptions::default(),
            create: Create::IfMissing,
            durability: Durability::Sync,
            lock_timeout: Duration::from_secs(5),
            max_txn_age: Duration::from_secs(60),
            max_txn_undo_bytes: 256 << 20,
            checkpoint_log_bytes: None,
            checkpoint_bytes_per_second: Some(256 << 20),
            checkpoint_on_close: true,
            max_log_bytes: 4 << 30,
            recover_within: None,
            redo_memory_bytes: DEFAULT_REDO_MEMORY_BYTES,
            helper_threads: true,
            digest_every: None,
            policy: RecoveryPolicy::Strict,
            progress: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("log", &self.log)
            .field("durability", &self.durability)
            .field("lock_timeout", &self.lock_timeout)
            .field("max_txn_age", &self.max_txn_age)
            .field("max_txn_undo_bytes", &self.max_txn_undo_bytes)
            .field("checkpoint_log_bytes", &self.checkpoint_log_bytes)
            .field("checkpoint_bytes_per_second", &self.checkpoint_bytes_per_second)
            .field("checkpoint_on_close", &self.checkpoint_on_close)
            .field("max_log_bytes", &self.max_log_bytes)
            .field("recover_within", &self.recover_within)
            .field("redo_memory_bytes", &self.redo_memory_bytes)
            .field("helper_threads", &self.helper_threads)
            .field("digest_every", &self.digest_every)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The default settings: each commit survives power loss, and a checkpoint follows as much log
    /// as it writes itself, and four times as much while that is no more than 256 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// Settings for a program with little memory: an open, commits and a checkpoint of a store of
    /// [`Kv`](crate::kv::Kv) then take at most 16 MiB beside the state. A machine whose snapshots are
    /// [replayed](crate::machine::SnapshotSource::Replay) takes a second state during a checkpoint.
    ///
    /// It changes these defaults, and each can be set again. No command, and so no single write, may
    /// be larger than a segment. A store that was written with other settings can be opened with these;
    /// a record of it that is larger takes more memory.
    ///
    /// | option | value |
    /// | --- | --- |
    /// | [`segment_bytes`](Self::segment_bytes), [`first_segment_bytes`](Self::first_segment_bytes) | 1 MiB, 128 KiB |
    /// | [`checkpoint_log_bytes`](Self::checkpoint_log_bytes), [`max_log_bytes`](Self::max_log_bytes) | 4 MiB, 64 MiB |
    /// | [`max_pending_bytes`](Self::max_pending_bytes), and the records of one frame | 1 MiB, 256 KiB |
    /// | [`max_txn_undo_bytes`](Self::max_txn_undo_bytes), [`redo_memory_bytes`](Self::redo_memory_bytes) | 1 MiB, 1 MiB |
    /// | [`helper_threads`](Self::helper_threads) | `false` |
    ///
    /// ```
    /// use seawal::{Options, kv::Kv};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = Options::small_memory().open::<Kv>(dir.path())?;
    /// store.insert("key", "value")?; // survives power loss, as always
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn small_memory() -> Self {
        let mut options = Self::new()
            .segment_bytes(1 << 20)
            .first_segment_bytes(128 << 10)
            .checkpoint_log_bytes(4 << 20)
            .max_log_bytes(64 << 20)
            .max_pending_bytes(1 << 20)
            .max_txn_undo_bytes(1 << 20)
            .redo_memory_bytes(1 << 20)
            .helper_threads(false);
        options.log.max_frame_bytes = 256 << 10;
        options
    }

    /// What to do if there is no store in the directory. Default: [`Create::IfMissing`].
    #[must_use]
    pub fn create(mut self, create: Create) -> Self {
        self.create = create;
        self
    }

    /// What a commit survives once it returns, unless the commit itself chooses another level.
    ///
    /// Default: [`Durability::Sync`], which survives power loss.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long opening waits while another process or handle has the store open.
    ///
    /// Default: zero, which returns [`Error::Locked`] at once. A service sets a few seconds if it
    /// may start while its predecessor ends, or while a reader has the store open. New readers are
    /// refused while it waits. A backup waits as long for the directory that it writes.
    ///
    /// ```
    /// use seawal::{Options, kv::Kv};
    /// use std::time::Duration;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let options = Options::new().lock_wait(Duration::from_secs(10));
    /// let first = options.open::<Kv>(dir.path())?;
    /// let end = std::thread::spawn(move || first.close());
    /// let second = options.open::<Kv>(dir.path())?; // once the first has ended
    /// # end.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.log.lock_wait = wait;
        self
    }

    /// How long a command or a read waits for locks, and a commit for space in the log.
    /// [`Duration::MAX`] is no limit, here and in the other options. Then a wait ends only by a
    /// deadlock, by a close, or by the age limit of the transaction that holds the lock.
    ///
    /// Default: 5 seconds.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How long a transaction may stay open; after that it is rolled back, and its next call
    /// returns [`Error::Expired`]. Default: 60 seconds.
    #[must_use]
    pub fn max_txn_age(mut self, age: Duration) -> Self {
        self.max_txn_age = age;
        self
    }

    /// The maximum memory of a transaction, in bytes: the inverses that it keeps for its rollback,
    /// its footprint locks and its savepoints. A call that would exceed it fails with
    /// [`Error::TooLarge`], and the transaction continues. Default: 256 MiB.
    ///
    /// It is an estimate, within a factor of two. A small write counts some hundred bytes.
    #[must_use]
    pub fn max_txn_undo_bytes(mut self, bytes: u64) -> Self {
        self.max_txn_undo_bytes = bytes;
        self
    }

    /// The least amount of log after which a checkpoint is taken, in bytes. Default: four times the
    /// newest snapshot, but at least 32 MiB and at most 256 MiB.
    ///
    /// A checkpoint is due once the log has grown by as much as the newest snapshot takes, because
    /// it writes about that much. So checkpoints at most double the bytes that reach the device, up
    /// to a snapshot of a quarter of [`max_log_bytes`](Self::max_log_bytes). The amount is never
    /// less than this option, and otherwise at most that quarter. So a larger snapshot is written
    /// more often than its size asks for. [`recover_within`](Self::recover_within) may ask for a
    /// checkpoint earlier. [`Stats::checkpoint_due_bytes`](crate::Stats) tells the present amount.
    ///
    /// The amount bounds the directory: that takes at most about four times as much, and three
    /// snapshots. The log is kept from the snapshot before the newest one on, because that one
    /// stands in for a damaged newest one. Segments for a part of the next interval are
    /// preallocated. A segment grows to a quarter of the amount, unless `first_segment_bytes` or a
    /// record is larger.
    ///
    /// The padding of small durable commits counts, because the device writes it. Recovery hardly
    /// notices it, and `recover_within` does not count it as work.
    #[must_use]
    pub fn checkpoint_log_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_log_bytes = Some(bytes);
        self
    }

    /// The rate at which a checkpoint writes, in bytes per second. `None` is unlimited; `Some(0)`
    /// is refused when the store is opened. Default: `Some(256 MiB)`.
    ///
    /// The limit is lifted while the log is close to `max_log_bytes`. It is also lifted when
    /// copy-on-write duplicates, where the machine reports them, reach 1/8 of the state's memory.
    /// At 3/16, commits are throttled: one in 64 waits up to 10 ms.
    #[must_use]
    pub fn checkpoint_bytes_per_second(mut self, rate: Option<u64>) -> Self {
        self.checkpoint_bytes_per_second = rate;
        self
    }

    /// Whether a close may take a checkpoint. Default: `true`.
    ///
    /// A close takes one if it writes no more than the log has grown by, or no more than 1 MiB; and
    /// if `recover_within` or many restarts in a row need it. Otherwise the close leaves the log
    /// for the next open to redo. That log is then no longer than the snapshot that the open loads.
    /// With `false`, a close never takes one, and gives up one in progress. Either way the store is
    /// marked clean.
    ///
    /// If the next open is to have nothing to redo, call [`checkpoint`](crate::Engine::checkpoint)
    /// before [`close`](crate::Engine::close). A program does that before an update to a machine
    /// that cannot read the old commands.
    #[must_use]
    pub fn checkpoint_on_close(mut self, may_checkpoint: bool) -> Self {
        self.checkpoint_on_close = may_checkpoint;
        self
    }

    /// The maximum size of the log's segments on disk, in bytes, and of the space that open
    /// transactions have reserved for their rollback. At least four times `segment_bytes`.
    /// Default: 4 GiB.
    ///
    /// Close to the limit, commits are throttled so that a checkpoint can catch up. At the limit
    /// they return [`Error::Full`].
    ///
    /// Preallocated segments come on top: at most 6 of [`segment_bytes`](Self::segment_bytes) each
    /// (384 MiB by default), and one that is being written. A small store has smaller segments; see
    /// [`checkpoint_log_bytes`](Self::checkpoint_log_bytes).
    /// [`LogStats::preallocated_bytes`](crate::wal::LogStats) is their actual size.
    #[must_use]
    pub fn max_log_bytes(mut self, bytes: u64) -> Self {
        self.max_log_bytes = bytes;
        self
    }

    /// Takes checkpoints often enough that recovery takes no longer than `budget`, as the engine
    /// estimates it from rates that it measures. Default: no budget.
    ///
    /// Once four fifths of the time that the budget leaves for redo are used up, commits are
    /// throttled: each waits up to 10 ms for the checkpoint. [`Stats`](crate::Engine::stats) and a
    /// warning through `tracing` report a budget that is less than what opening takes right after a
    /// checkpoint.
    ///
    /// The rates are those of this open, of the commands that run, and of a rehearsal: after a
    /// checkpoint of 8 MiB or more, a thread loads the first 4 MiB of the new snapshot and drops
    /// them. The estimate assumes a machine as busy as now.
    #[must_use]
    pub fn recover_within(mut self, budget: Duration) -> Self {
        self.recover_within = Some(budget);
        self
    }

    /// The maximum memory that recovery takes to gather commands before it applies them, in bytes.
    /// It comes on top of the state. Default: 1 GiB.
    ///
    /// [`Kv`](crate::kv::Kv) takes half of what its state holds, but at least 64 MiB, and never more
    /// than this option, or one group of log. A group is as large as this option, but at least 1 MiB
    /// and at most 32 MiB. So a small state with a short log
    /// needs little. A small value suits a container that is sized for the state, and recovery of a
    /// long log takes longer then. Other machines gather nothing unless they implement
    /// [`BulkMachine::limit_redo_memory`](crate::machine::BulkMachine::limit_redo_memory).
    #[must_use]
    pub fn redo_memory_bytes(mut self, bytes: u64) -> Self {
        self.redo_memory_bytes = bytes;
        self
    }

    /// Whether opens, checkpoints and backups read, check and write with threads of their own, which
    /// end with the call. Default: `true`.
    ///
    /// With `false`, one thread does these steps one after the other. That takes up to twice the
    /// time, and some 10 MiB of buffers instead of some 70 MiB. The rehearsal of
    /// [`recover_within`](Self::recover_within) is then left out.
    #[must_use]
    pub fn helper_threads(mut self, may_help: bool) -> Self {
        self.helper_threads = may_help;
        self
    }

    /// Writes a digest of the state to the log after about this many records, and with each
    /// checkpoint. Default: no digests.
    ///
    /// Recovery compares each digest in the log with the state that replay produces, whether this
    /// option is set or not. [`Error::Diverged`] names the first LSN that differs. This finds
    /// machines that are not deterministic, and snapshots that lose a part of the state.
    ///
    /// A digest costs a freeze of the state, as a checkpoint does, and one pass over it
    /// ([`BulkMachine::digest`](crate::machine::BulkMachine::digest)). Both run in the background,
    /// and no commit waits for them. Replay pays the same price. A machine whose snapshots are
    /// [replayed](crate::machine::SnapshotSource::Replay) is not frozen: all commits wait for the pass.
    #[must_use]
    pub fn digest_every(mut self, records: u64) -> Self {
        self.digest_every = Some(records.max(1));
        self
    }

    /// The maximum size of a log segment, in bytes, and of a command. From 16 KiB to 2 GiB, and at
    /// least four blocks of the device. Default: 64 MiB.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.log.segment_bytes = bytes;
        self.log.first_segment_bytes = self.log.first_segment_bytes.min(bytes);
        self
    }

    /// The size of the first log segment, in bytes. Each later one is twice as large, up to a
    /// quarter of the log between two checkpoints, and at most `segment_bytes`. At least 16 KiB.
    /// Default: 1 MiB.
    #[must_use]
    pub fn first_segment_bytes(mut self, bytes: u64) -> Self {
        self.log.first_segment_bytes = bytes;
        self
    }

    /// The maximum size of the records that wait in memory to be written, in bytes; beyond it
    /// commits block (back-pressure). Default: 64 MiB.
    #[must_use]
    pub fn max_pending_bytes(mut self, bytes: u64) -> Self {
        self.log.max_pending_bytes = bytes;
        self
    }

    /// The maximum number of frames that are being written at once.
    ///
    /// Default: one frame at a time. Its leader waits briefly for the committers that the previous
    /// frame woke, so that they can join.
    #[must_use]
    pub fn max_frames_in_flight(mut self, frames: usize) -> Self {
        self.log.max_frames_in_flight = Some(frames);
        self
    }

    /// How long a waiting committer spins (yielding) before it parks, once four or more are
    /// waiting; zero disables it. Default: 500 µs.
    ///
    /// It raises the throughput of concurrent commits by 33–50 % on fast devices, at the price of
    /// CPU time. It is ignored while a durable write takes more than half of it.
    #[must_use]
    pub fn commit_spin(mut self, duration: Duration) -> Self {
        self.log.commit_spin = duration;
        self
    }

    /// The number of log segments that are preallocated ahead of need, one of them a reserve that
    /// lets the store be opened on a full disk. Default: 2.
    #[must_use]
    pub fn preallocated_segments(mut self, segments: usize) -> Self {
        self.log.preallocated_segments = segments;
        self
    }

    /// The maximum number of preallocated log segments that recycling keeps. Default: as many as
    /// hold the log between two checkpoints, and the segments that are kept ready. With fewer, the
    /// log reaches the device twice: a new segment is filled with zeros first.
    #[must_use]
    pub fn max_preallocated_segments(mut self, segments: usize) -> Self {
        self.log.max_preallocated_segments = Some(segments);
        self
    }

    /// Which threads run background work. Default: [`Background::Threads`].
    #[must_use]
    pub fn background(mut self, background: Background) -> Self {
        self.log.background = background;
        self
    }

    /// What recovery may change on disk. Default: [`RecoveryPolicy::Strict`].
    #[must_use]
    pub fn recovery(mut self, policy: RecoveryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Calls `progress` repeatedly while the store is being recovered. Default: no calls.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// # Errors
    /// [`Error::InvalidArgument`] for settings that are out of range or contradict each other.
    pub(crate) fn validate(&self) -> Result<()> {
        let log = &self.log;
        if log.segment_bytes < MIN_SEGMENT_BYTES {
            return Err(Error::invalid("segment_bytes must be at least 16 KiB"));
        }
        if log.first_segment_bytes < MIN_SEGMENT_BYTES {
            return Err(Error::invalid("first_segment_bytes must be at least 16 KiB"));
        }
        if log.segment_bytes > MAX_SEGMENT_BYTES {
            return Err(Error::invalid("segment_bytes must be at most 2 GiB"));
        }
        if self.checkpoint_bytes_per_second == Some(0) {
            return Err(Error::invalid("checkpoint_bytes_per_second must not be 0 (use None for unlimited)"));
        }
        if self.max_log_bytes < log.segment_bytes.saturating_mul(4) {
            return Err(Error::invalid("max_log_bytes must be at least four times segment_bytes"));
        }
        Ok(())
    }
}
