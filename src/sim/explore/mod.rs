//! Crash fuzzing for a state machine: your own, or the built-in one.
//!
//! [`Explore`] runs a workload on a [`SimDisk`] and crashes it in the middle of every storage operation.
//! It recovers from the states that a power loss or a kill can leave of unsynced data, and checks:
//!
//! - Every acknowledged commit is present, no transaction is present in part, and the state is one that
//!   the commits produced in their order.
//! - Everything that a hardened read, a view or a rejection has shown is still true.
//! - Your invariant holds in every state that was recovered or viewed.
//! - Crashes during recovery change none of this. For one in three operations, one state is recovered
//!   with a crash in each operation of the recovery, in two random ways. One in sixteen of those
//!   crashes again during the second recovery.
//! - The machine keeps the law in the documentation of [`StateMachine`].
//!
//! Exploration is deterministic. A failure contains a [`Replay`], the seed and the steps that reproduce
//! it. Everything runs on the calling threads and in simulated time; a state takes some 10 µs to 100 µs.

mod builtin;
mod crashes;
mod failure;
mod faults;
mod files;
mod killed;
mod law;
mod oracle;
mod run;
mod slot;
#[cfg(test)]
mod tests;
mod work;

pub use failure::{Failure, Replay};
pub use killed::{KilledStore, kill};
pub use run::Explorable;
pub use work::Look;

use self::crashes::Exploration;
use self::work::{Draw, Drawing, Source, Space, Step};
use super::rng::{Rng, mix};
use super::{SimDisk, SimDiskBuilder};
use crate::io::WritePath;
use crate::io::sync::{AtomicBool, AtomicU64, Ordering, thread};
use crate::machine::StateMachine;
use crate::options::Background;
use crate::options::Options;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

type Invariant<M> = Box<dyn Fn(&M) -> Result<(), String> + Send + Sync>;

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
    source: Source<M>,
    looks: Option<Draw<Look<M>>>,
    invariant: Invariant<M>,
    options: Options,
    steps: usize,
    seed: u64,
    seeds: Option<u64>,
    states: Option<u64>,
    time: Option<Duration>,
    threads: usize,
    one_in: u64,
    space: Space,
    disks: Option<Box<dyn Fn(u64) -> SimDisk + Send + Sync>>,
}

/// The amount of work that an exploration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// The number of workloads.
    pub seeds: u64,
    /// The number of storage operations, in workloads and recoveries, that were interrupted by a crash.
    pub operations: u64,
    /// The number of states after a crash that were recovered and checked.
    pub states: u64,
    /// The number of those states that a crash during recovery left.
    pub within_recovery: u64,
    /// The number of runs in which an operation failed on purpose.
    pub failures: u64,
    /// How often the workloads and recoveries did what, by name.
    pub did: BTreeMap<&'static str, u64>,
}

impl Explored {
    /// Adds the numbers of another exploration.
    pub fn add(&mut self, other: Explored) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.states += other.states;
        self.within_recovery += other.within_recovery;
        self.failures += other.failures;
        for (what, count) in other.did {
            *self.did.entry(what).or_default() += count;
        }
    }
}

/// The limits, shared by the threads.
pub(crate) struct Limits {
    states: AtomicU64,
    most_states: u64,
    until: Option<Instant>,
    stopped: AtomicBool,
}

impl Limits {
    fn none() -> Self {
        Limits { states: AtomicU64::new(0), most_states: u64::MAX, until: None, stopped: AtomicBool::new(false) }
    }

    fn count_state(&self) {
        if self.states.fetch_add(1, Ordering::Relaxed) + 1 >= self.most_states {
            self.stop();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_reached(&self) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.stop();
        }
        self.stopped.load(Ordering::Relaxed)
    }
}

impl<M: Explorable> Explore<M> {
    fn new(source: Source<M>) -> Self {
        Explore {
            source,
            looks: None,
            invariant: Box::new(|_| Ok(())),
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

    /// A workload of random commands, combined into random transactions, which may end or return to a
    /// savepoint after any command. The invariant must hold for any combination of commands.
    pub fn commands(draw: impl Fn(&mut Rng) -> M::Command + Send + Sync + 'static) -> Self {
        Self::new(Source::Commands(Box::new(draw)))
    }

    /// A workload of random transactions. The commands of a transaction are executed in order, all or
    /// none; the commands of concurrent transactions interleave. A transaction is rolled back if one of
    /// its commands is rejected.
    pub fn transactions(draw: impl Fn(&mut Rng) -> Vec<M::Command> + Send + Sync + 'static) -> Self {
        Self::new(Source::Transactions(Box::new(draw)))
    }

    /// A workload of these transactions, each begun once, in this order, with up to four open at a time.
    /// A transaction that fails to get a lock, expires, or is open at a crash is rolled back and not
    /// repeated.
    pub fn workload(transactions: Vec<Vec<M::Command>>) -> Self {
        Self::new(Source::Listed(transactions)).seeds(4)
    }

    /// The invariant of every state that is recovered or viewed. Default: none.
    pub fn invariant(mut self, invariant: impl Fn(&M) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.invariant = Box::new(invariant);
        self
    }

    /// Random reads of parts of the state, for the workload. Default: reads of the whole state.
    pub fn looks(mut self, draw: impl Fn(&mut Rng) -> Look<M> + Send + Sync + 'static) -> Self {
        self.looks = Some(Box::new(draw));
        self
    }

    /// The options of the store. Exploration sets background work and time limits itself. Default: the
    /// smallest possible segments.
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

    /// The number of seeds. Default: 1, or no limit if [`Explore::states`] or [`Explore::within`] sets
    /// one.
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

    /// Crashes one in this many operations, chosen at random, for long workloads. Default: 1, which is
    /// every operation.
    pub fn one_in(mut self, operations: u64) -> Self {
        self.one_in = operations.max(1);
        self
    }

    /// The disk that the workload of a seed begins on. Each call must return a new disk with the same
    /// content. If it has a store, the state that first opens is taken as correct and must not be lost.
    /// Default: an empty disk, whose properties depend on the seed.
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

    /// Lets the disk become full at random times, and have space again later. On a full disk, operations
    /// that need space may fail, but the store must open, and it must continue once there is space.
    pub fn full_disks(mut self) -> Self {
        self.space = Space::Scarce;
        self
    }

    /// Runs the workload of the first seed once on this disk, without crashes, so that you can crash or
    /// damage the disk yourself. A store on the disk is continued. If the disk goes down, for example by
    /// [`Fault::Crash`](super::Fault::Crash), the run ends without a failure.
    ///
    /// ```
    /// use seawal::sim::{SimDisk, explore::Explore};
    ///
    /// let trace = |seed| {
    ///     let disk = SimDisk::new(1);
    ///     Explore::kv().seed(seed).run_on(&disk)?;
    ///     Ok::<_, Box<seawal::sim::explore::Failure>>(disk.trace_hash())
    /// };
    /// assert_eq!(trace(5)?, trace(5)?); // one seed, one trace of operations
    /// # Ok::<(), Box<seawal::sim::explore::Failure>>(())
    /// ```
    ///
    /// # Errors
    /// The first violation that was found. It is not minimized, because the disk has changed.
    pub fn run_on(&self, disk: &SimDisk) -> Result<Explored, Box<Failure>> {
        let steps = self.draw_steps(self.seed, None);
        let limits = Limits::none();
        let mut exploration = Exploration::new(self, self.seed, &limits, failure::Telling::Told);
        match exploration.once(disk, &steps) {
            Ok(()) => Ok(exploration.explored),
            Err(wrong) => Err(wrong.into_failure(steps.len(), steps.len(), Replay::of_seed(self.seed))),
        }
    }

    /// Explores every crash. The result is deterministic, except for time limits.
    ///
    /// # Errors
    /// The first violation that was found, minimized.
    pub fn run(&self) -> Result<Explored, Box<Failure>> {
        self.each_seed(|seed, limits| self.explore_seed(seed, None, limits))
    }

    /// Fails each storage operation in turn, once and permanently, with an I/O error, a full disk, a short
    /// transfer and an interruption; then crashes, recovers and continues. Checks the same as
    /// [`Explore::run`], and that each failure is a typed error of one operation or a latched store.
    ///
    /// ```
    /// use seawal::kv::{Kv, KvCommand};
    /// use seawal::sim::explore::Explore;
    ///
    /// let explore = Explore::<Kv>::commands(|rng| KvCommand::put("", [rng.below(5) as u8], rng.next().to_le_bytes()));
    /// assert!(explore.steps(5).fail_each_operation()?.failures > 100);
    /// # Ok::<(), Box<seawal::sim::explore::Failure>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Explore::run`].
    pub fn fail_each_operation(&self) -> Result<Explored, Box<Failure>> {
        self.each_seed(|seed, limits| self.fail_seed(seed, None, limits))
    }

    /// Reproduces a failure, without limits.
    ///
    /// # Errors
    /// As [`Explore::run`].
    pub fn replay(&self, replay: &Replay) -> Result<Explored, Box<Failure>> {
        let kept = replay.steps();
        if replay.fails_operations() {
            self.fail_seed(replay.seed(), kept, &Limits::none())
        } else {
            self.explore_seed(replay.seed(), kept, &Limits::none())
        }
    }

    fn each_seed(
        &self,
        explore: impl Fn(u64, &Limits) -> Result<Explored, Box<Failure>> + Sync,
    ) -> Result<Explored, Box<Failure>> {
        let unlimited = self.states.is_none() && self.time.is_none();
        let seeds = self.seeds.unwrap_or(if unlimited { 1 } else { u64::MAX });
        let limits = Limits {
            most_states: self.states.unwrap_or(u64::MAX),
            until: self.time.and_then(|time| Instant::now().checked_add(time)),
            ..Limits::none()
        };
        let next = AtomicU64::new(0);
        let one_thread = || {
            let mut all = Explored::default();
            while !limits.is_reached() {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= seeds {
                    break;
                }
                all.add(explore(self.seed.wrapping_add(nth), &limits).inspect_err(|_| limits.stop())?);
            }
            Ok(all)
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (1..self.threads).map(|_| scope.spawn(one_thread)).collect();
            let mut all = one_thread();
            for thread in threads {
                // a panic in a machine is caught where it happens: this one is ours
                let other = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                match (&mut all, other) {
                    (Ok(all), Ok(other)) => all.add(other),
                    (Ok(_), Err(failure)) => all = Err(failure),
                    (Err(_), _) => {}
                }
            }
            all
        })
    }

    /// The run of one seed, restricted to the steps in `kept`.
    fn explore_seed(&self, seed: u64, kept: Option<&[usize]>, limits: &Limits) -> Result<Explored, Box<Failure>> {
        law::check(self, seed)?;
        failure::find(
            self,
            seed,
            kept,
            failure::Way::Crashes,
            |steps, lines, limits| {
                let mut exploration = Exploration::new(self, seed, limits, lines);
                exploration.history(steps).map(|()| exploration.explored)
            },
            limits,
        )
    }

    fn fail_seed(&self, seed: u64, kept: Option<&[usize]>, limits: &Limits) -> Result<Explored, Box<Failure>> {
        law::check(self, seed)?;
        failure::find(
            self,
            seed,
            kept,
            failure::Way::Failures,
            |steps, lines, limits| faults::fail_each(self, seed, steps, lines, limits),
            limits,
        )
    }

    /// The steps of a seed, at least as many as are named. More steps do not change the earlier ones.
    fn draw_steps(&self, seed: u64, kept: Option<&[usize]>) -> Vec<Step<M>> {
        let named = match (&self.source, kept) {
            (Source::Listed(_), _) | (_, None) => 0,
            (_, Some(kept)) => kept.iter().max().map_or(0, |last| last + 1),
        };
        self.drawing(Rng::new(mix(seed))).steps(self.steps.max(named))
    }

    fn drawing(&self, rng: Rng) -> Drawing<'_, M> {
        Drawing { source: &self.source, looks: self.looks.as_ref(), space: self.space, rng }
    }

    /// The disk of a seed. Seeds take turns with the kinds of disks.
    fn disk(&self, seed: u64) -> SimDisk {
        if let Some(disks) = &self.disks {
            return disks(seed);
        }
        let path = if seed % 3 == 2 { WritePath::BufferedSync } else { WritePath::Direct };
        let block_bytes = if seed % 5 == 3 { 512 } else { 4096 };
        let builder: SimDiskBuilder = SimDisk::builder();
        builder.seed(seed).write_path(path).block_bytes(block_bytes).build()
    }
}
