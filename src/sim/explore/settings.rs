//! The settings of an exploration.

use super::diary::shortened;
use super::explorable::Explorable;
use super::work::{Draw, Drawing, Look, Source, Space, Step};
use crate::io::WritePath;
use crate::machine::StateMachine;
use crate::options::{Background, Options};
use crate::sim::rng::{Rng, mix};
use crate::sim::{SimDisk, SimDiskBuilder};
use std::time::Duration;

type Invariant<M> = Box<dyn Fn(&M) -> Result<(), String> + Send + Sync>;
type ShowState<M> = Box<dyn Fn(&M) -> String + Send + Sync>;

/// The settings of an exploration: the workload, the invariant, and the limits.
///
/// ```
/// use seawal::kv::{Kv, KvCommand};
/// use seawal::sim::explore::Explore;
///
/// let explored = Explore::<Kv>::commands(|rng| {
///     let key = [rng.below(5) as u8];
///     if rng.below(3) == 0 { KvCommand::delete("", key) } else { KvCommand::put("", key, rng.next().to_le_bytes()) }
/// })
/// .steps(20)
/// .run()?;
/// assert!(explored.states > 100);
/// # Ok::<(), Box<seawal::sim::explore::Failure>>(())
/// ```
#[must_use]
pub struct Explore<M: StateMachine> {
    pub(super) source: Source<M>,
    pub(super) looks: Option<Draw<Look<M>>>,
    pub(super) invariant: Invariant<M>,
    show_state: ShowState<M>,
    pub(super) options: Options,
    pub(super) steps: usize,
    pub(super) seed: u64,
    pub(super) seeds: Option<u64>,
    pub(super) states: Option<u64>,
    pub(super) time: Option<Duration>,
    pub(super) threads: usize,
    pub(super) one_in: u64,
    pub(super) space: Space,
    pub(super) disks: Option<Box<dyn Fn(u64) -> SimDisk + Send + Sync>>,
}

impl<M: Explorable> Explore<M> {
    fn new(source: Source<M>) -> Self {
        Explore {
            source,
            looks: None,
            invariant: Box::new(|_| Ok(())),
            show_state: Box::new(saved_bytes),
            options: Options::new()
                .first_segment_bytes(16 << 10)
                .segment_bytes(32 << 10)
                .max_log_bytes(2 << 20)
                .checkpoint_log_bytes(48 << 10),
            steps: 60,
            seed: 0,
            seeds: None,
            states: None,
            time: None,
            threads: 1,
            one_in: 1,
            space: Space::Enough,
            disks: None,
        }
        .options_as_needed()
    }

    /// A workload of random commands, combined into random transactions, which may end or return to
    /// a savepoint after any command. The invariant must hold for any combination of commands.
    pub fn commands(draw: impl Fn(&mut Rng) -> M::Command + Send + Sync + 'static) -> Self {
        Self::new(Source::Commands(Box::new(draw)))
    }

    /// A workload of random transactions. The commands of a transaction are executed in order, all
    /// or none; the commands of concurrent transactions interleave. A transaction is rolled back if
    /// one of its commands is rejected.
    pub fn transactions(draw: impl Fn(&mut Rng) -> Vec<M::Command> + Send + Sync + 'static) -> Self {
        Self::new(Source::Transactions(Box::new(draw)))
    }

    /// A workload of these transactions, each begun once, in this order, with up to four open at a
    /// time. A transaction that fails to get a lock, expires, or is open at a crash is rolled back
    /// and not repeated.
    pub fn workload(transactions: Vec<Vec<M::Command>>) -> Self {
        Self::new(Source::Listed(transactions)).seeds(4)
    }

    /// The invariant of every state that is recovered or viewed. Default: none.
    pub fn invariant(mut self, invariant: impl Fn(&M) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.invariant = Box::new(invariant);
        self
    }

    /// How a failure shows a state, for people. Default: the bytes that the machine saves. If the
    /// machine implements `Debug`, use that.
    ///
    /// ```
    /// # use seawal::kv::{Kv, KvCommand};
    /// # use seawal::sim::explore::Explore;
    /// let explore = Explore::<Kv>::commands(|rng| KvCommand::put("", "key", [rng.below(9) as u8]))
    ///     .invariant(|kv| if kv.get("", "key") == Some(&[7]) { Err("a seven".into()) } else { Ok(()) })
    ///     .show_state(|kv| format!("{:?}", kv.get("", "key")));
    /// let failure = explore.run().unwrap_err();
    /// assert!(failure.history().contains(&"the state before: None".into()));
    /// assert!(failure.history().contains(&"the state after: Some([7])".into()));
    /// ```
    pub fn show_state(mut self, show: impl Fn(&M) -> String + Send + Sync + 'static) -> Self {
        self.show_state = Box::new(show);
        self
    }

    pub(super) fn shown(&self, state: &M) -> String {
        shortened((self.show_state)(state))
    }

    /// Random reads of parts of the state, for the workload. Default: reads of the whole state.
    pub fn looks(mut self, draw: impl Fn(&mut Rng) -> Look<M> + Send + Sync + 'static) -> Self {
        self.looks = Some(Box::new(draw));
        self
    }

    /// The options of the store. Exploration sets background work and time limits itself. Default:
    /// the smallest possible segments.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self.options_as_needed()
    }

    fn options_as_needed(mut self) -> Self {
        self.options = self.options.background(Background::Manual).lock_timeout(Duration::ZERO);
        self
    }

    /// The number of steps of a workload. A given list of transactions continues after them.
    /// Default: 60.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// The first seed. Each seed gives another workload on another disk. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The number of seeds. Default: 1, or no limit if [`Explore::states`] or [`Explore::within`]
    /// sets one.
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = Some(seeds);
        self
    }

    /// Stops after this number of states. Default: no limit.
    pub fn states(mut self, states: u64) -> Self {
        self.states = Some(states);
        self
    }

    /// Stops after this much real time. Default: no limit.
    pub fn within(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// The number of threads, each of which explores other seeds. Default: 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Crashes one in this many operations, chosen at random, for long workloads. Default: 1, which
    /// is every operation.
    pub fn one_in(mut self, operations: u64) -> Self {
        self.one_in = operations.max(1);
        self
    }

    /// The disk that the workload of a seed begins on. Each call must return a new disk with the
    /// same content. If it has a store, the state that first opens is taken as correct and must not
    /// be lost. Default: an empty disk, whose properties depend on the seed.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk, explore::Explore};
    ///
    /// // crashes in the first opening of a store that a kill left behind
    /// let left = |seed| {
    ///     let disk = SimDisk::new(seed);
    ///     let _ = Explore::kv().seed(seed).run_on(&disk);
    ///     disk.crash(Crash::KillOnly)
    /// };
    /// let explored = Explore::kv().disks(left).steps(0).run()?;
    /// assert!(explored.states > 20);
    /// # Ok::<(), Box<seawal::sim::explore::Failure>>(())
    /// ```
    pub fn disks(mut self, disks: impl Fn(u64) -> SimDisk + Send + Sync + 'static) -> Self {
        self.disks = Some(Box::new(disks));
        self
    }

    /// Lets the disk become full at random times, and have space again later. On a full disk,
    /// operations that need space may fail, but the store must open, and it must continue once
    /// there is space.
    pub fn full_disks(mut self) -> Self {
        self.space = Space::Scarce;
        self
    }

    /// The steps of a seed, at least as many as are named. More steps do not change the earlier
    /// ones.
    pub(super) fn draw_steps(&self, seed: u64, kept: Option<&[usize]>) -> Vec<Step<M>> {
        let named = match (&self.source, kept) {
            (Source::Listed(_), _) | (_, None) => 0,
            (_, Some(kept)) => kept.iter().max().map_or(0, |last| last + 1),
        };
        self.drawing(Rng::new(mix(seed))).steps(self.steps.max(named))
    }

    pub(super) fn drawing(&self, rng: Rng) -> Drawing<'_, M> {
        Drawing { source: &self.source, looks: self.looks.as_ref(), space: self.space, rng }
    }

    /// The disk of a seed. Seeds take turns with the kinds of disks.
    pub(super) fn disk(&self, seed: u64) -> SimDisk {
        if let Some(disks) = &self.disks {
            return disks(seed);
        }
        let path = if seed % 3 == 2 { WritePath::BufferedSync } else { WritePath::Direct };
        let block_bytes = if seed % 5 == 3 { 512 } else { 4096 };
        let builder: SimDiskBuilder = SimDisk::builder();
        builder.seed(seed).write_path(path).block_bytes(block_bytes).build()
    }
}

/// The bytes of a state, as far as they are ASCII characters in clear.
fn saved_bytes<M: StateMachine>(state: &M) -> String {
    let mut bytes = Vec::new();
    match state.save(&mut bytes) {
        Ok(()) => format!("b\"{}\"", bytes.escape_ascii()),
        Err(error) => format!("it cannot be saved: {error}"),
    }
}
