//! What a user can set when opening a store.

use crate::error::{Error, Result};
use crate::machine::StateMachine;
use crate::recovery::{Progress, RecoveryReport};
use crate::storage::{Create, DiskStorage, Storage};
use crate::sync::Arc;
use crate::wal::{Background, LogOptions};
use crate::{Engine, RecoveryPolicy};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What a commit has survived once it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Power loss.
    #[default]
    Sync,
    /// A kill of the process at once, and power loss after no more than this time.
    Interval(Duration),
    /// A kill of the process. When it survives power loss is the operating system's choice; nobody waits for that.
    Os,
}

pub(crate) type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How a store is opened; [`Options::open`] opens it.
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
    pub(crate) checkpoint_log_bytes: u64,
    pub(crate) checkpoint_bytes_per_second: Option<u64>,
    pub(crate) max_log_bytes: u64,
    pub(crate) recover_within: Option<Duration>,
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
            checkpoint_log_bytes: 256 << 20,
            checkpoint_bytes_per_second: Some(256 << 20),
            max_log_bytes: 4 << 30,
            recover_within: None,
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
            .field("max_log_bytes", &self.max_log_bytes)
            .field("recover_within", &self.recover_within)
            .field("digest_every", &self.digest_every)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults: durable by default, checkpoints every 256 MiB of log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a missing store is created, which is the default.
    #[must_use]
    pub fn create(mut self, create: Create) -> Self {
        self.create = create;
        self
    }

    /// What a commit survives unless it says otherwise. [`Durability::Sync`] by default.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a command or a read waits for locks. 5 seconds by default.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How long a transaction may stay open before it is rolled back. A minute by default.
    #[must_use]
    pub fn max_txn_age(mut self, age: Duration) -> Self {
        self.max_txn_age = age;
        self
    }

    /// How many bytes of inverses a transaction may hold for its rollback. 256 MiB by default.
    #[must_use]
    pub fn max_txn_undo_bytes(mut self, bytes: u64) -> Self {
        self.max_txn_undo_bytes = bytes;
        self
    }

    /// After how many bytes of log a checkpoint is taken. 256 MiB by default.
    #[must_use]
    pub fn checkpoint_log_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_log_bytes = bytes;
        self
    }

    /// How many bytes a second a checkpoint writes unless a bound nears; `None` lets it go as fast as it can. 256 MiB by default. A rate of
    /// nothing is refused when the store is opened.
    ///
    /// A bound is also what the frozen state may take beside the one that goes on, where the machine
    /// [tells](crate::machine::BulkMachine::copied_share): from an eighth on the checkpoint hurries, and from three sixteenths on
    /// one commit in 64 waits for it, for ten milliseconds at the most.
    #[must_use]
    pub fn checkpoint_bytes_per_second(mut self, rate: Option<u64>) -> Self {
        self.checkpoint_bytes_per_second = rate;
        self
    }

    /// How many bytes the log may take on disk. Near it commits are slowed down for a checkpoint to catch up, at it they
    /// answer [`Error::Full`]. 4 GiB by default.
    #[must_use]
    pub fn max_log_bytes(mut self, bytes: u64) -> Self {
        self.max_log_bytes = bytes;
        self
    }

    /// Takes checkpoints so often that opening the store again would take no longer than this, by the engine's own estimate
    /// from rates that it measures. What cannot be met is reported in [`crate::Stats`].
    #[must_use]
    pub fn recover_within(mut self, budget: Duration) -> Self {
        self.recover_within = Some(budget);
        self
    }

    /// Puts a digest of the state into the log after about so many records, and one with each checkpoint; off by default. Opening the
    /// store compares them with what replay comes to, and a machine that is not deterministic, or whose snapshots lose something, is
    /// found out: [`Error::Diverged`] names the first LSN that differs. Digests that are there are compared whether this is set or
    /// not.
    ///
    /// Each costs a freeze of the state, as a checkpoint does, and one pass over it ([`BulkMachine::digest`](crate::machine::BulkMachine::digest)), both behind the
    /// scenes; and the same in replay. They cost commits nothing, nor do they wait for any.
    #[must_use]
    pub fn digest_every(mut self, records: u64) -> Self {
        self.digest_every = Some(records.max(1));
        self
    }

    /// The largest size of a log segment, in bytes. 64 MiB by default; at least four blocks of the device. No command can be larger.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.log.segment_bytes = bytes;
        self.log.first_segment_bytes = self.log.first_segment_bytes.min(bytes);
        self
    }

    /// The size of the first log segment, in bytes; later ones double. 1 MiB by default.
    #[must_use]
    pub fn first_segment_bytes(mut self, bytes: u64) -> Self {
        self.log.first_segment_bytes = bytes;
        self
    }

    /// How much may wait in memory to be written before commits have to wait, in bytes. 64 MiB by default.
    #[must_use]
    pub fn max_pending_bytes(mut self, bytes: u64) -> Self {
        self.log.max_pending_bytes = bytes;
        self
    }

    /// How many frames may be on their way to the device at once, each begun as soon as there is something to write. By default one, which
    /// those join who were woken by the one before.
    #[must_use]
    pub fn max_frames_in_flight(mut self, frames: usize) -> Self {
        self.log.max_in_flight = Some(frames);
        self
    }

    /// For how long one of four or more that wait for the device lets others run, again and again, before it sleeps: half a
    /// millisecond by default. It gives commits that come at once a third to a half more, and takes processor time that nothing else
    /// asked for. Where a durable write takes more than half of it, or it is zero, everybody sleeps at once.
    #[must_use]
    pub fn stay_awake(mut self, most: Duration) -> Self {
        self.log.most_awake = most;
        self
    }

    /// Who does the work behind the scenes.
    #[must_use]
    pub fn background(mut self, background: Background) -> Self {
        self.log.background = background;
        self
    }

    /// What to do about a store that is not whole, or not to be changed.
    #[must_use]
    pub fn recovery(mut self, policy: RecoveryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Calls `progress` from time to time while the store is being recovered.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Opens the store in a directory; see [`Engine::open`].
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open<M: StateMachine>(&self, dir: impl AsRef<Path>) -> Result<Engine<M>> {
        self.open_reporting(dir).map(|(engine, _)| engine)
    }

    /// The same, with the report of what recovery found and did.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_reporting<M: StateMachine>(&self, dir: impl AsRef<Path>) -> Result<(Engine<M>, RecoveryReport)> {
        let dir = dir.as_ref();
        let create = match self.policy {
            RecoveryPolicy::Strict => self.create,
            RecoveryPolicy::ReadOnly => Create::Never,
        };
        let storage = DiskStorage::open(dir, create).map_err(|e| {
            if create == Create::Never && e.kind() == std::io::ErrorKind::NotFound {
                Error::NotAStore { path: dir.into(), reason: "there is no such directory".into() }
            } else {
                Error::io("open", dir.into(), e)
            }
        })?;
        self.open_on(Arc::new(storage))
    }

    /// Opens a store on a storage of your own, such as [`crate::sim::SimDisk`].
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_on<M: StateMachine>(&self, storage: Arc<dyn Storage>) -> Result<(Engine<M>, RecoveryReport)> {
        Engine::open_with(storage, self.clone())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let log = &self.log;
        if log.segment_bytes < 16 << 10 || log.first_segment_bytes < 16 << 10 {
            return Err(Error::invalid("a segment is at least 16 KiB"));
        }
        if log.segment_bytes > u64::from(u32::MAX / 2) {
            return Err(Error::invalid("a segment is at most 2 GiB"));
        }
        if self.checkpoint_bytes_per_second == Some(0) {
            return Err(Error::invalid(
                "a checkpoint that writes nothing a second never ends; without a rate it goes as fast as it can",
            ));
        }
        if self.max_log_bytes < log.segment_bytes.saturating_mul(4) {
            return Err(Error::invalid("max_log_bytes must hold at least four segments"));
        }
        Ok(())
    }
}
