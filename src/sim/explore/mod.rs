//! Fuzzing the crash points of a state machine: your own, or the built-in one.
//!
//! [`Explore`] runs a workload on a [`SimDisk`], stops the machine in the middle of every operation of the storage, tries what
//! a power loss or a kill may leave of what was not synced, recovers, and checks what it finds:
//!
//! - every acknowledged commit is there, no transaction is there in part, and the state is one that the
//!   commits went through in their order;
//! - so is everything that a strict read, a view or a rejection had shown;
//! - your invariant holds in every state that was recovered or viewed;
//! - crashes within the recovery, and within the recovery from those, change none of this. Of one in three operations, one of the states
//!   is recovered with a crash in each operation of the recovery, in two ways that are drawn; one in sixteen of those goes deeper;
//! - the machine keeps the law in the documentation of [`StateMachine`].
//!
//! It is deterministic: a failure names a [`Replay`], one seed with the steps that matter, which finds it again.
//!
//! Everything runs on the calling threads and in simulated time; a state takes some tens of microseconds.
//!
//! Requires the feature `sim`.

mod builtin;
mod crashes;
mod failure;
mod faults;
mod files;
mod law;
mod oracle;
mod run;
mod slot;
#[cfg(test)]
mod tests;
mod work;

pub use failure::{Failure, Replay};
pub use run::Explorable;
pub use work::Look;

use self::crashes::Exploration;
use self::work::{Draw, Drawing, Source, Space, Step};
use super::rng::{Rng, mix};
use super::{SimDisk, SimDiskBuilder};
use crate::machine::StateMachine;
use crate::options::Options;
use crate::storage::WritePath;
use crate::sync::{AtomicBool, AtomicU64, Ordering, thread};
use crate::wal::Background;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

type Invariant<M> = Box<dyn Fn(&M) -> Result<(), String> + Send + Sync>;

/// An exploration of one machine: what it does, what must hold, and how far it goes.
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

/// How much was explored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Workloads that were run.
    pub seeds: u64,
    /// Operations of the storage, in workloads and recoveries, in the middle of which the machine was stopped.
    pub operations: u64,
    /// States that a crash left, each of which was recovered and checked.
    pub states: u64,
    /// Those among them that a crash within a recovery left.
    pub within_recovery: u64,
    /// Runs in which an operation was made to fail.
    pub failures: u64,
    /// What the workloads and the recoveries did, and how often.
    pub did: BTreeMap<&'static str, u64>,
}

impl Explored {
    /// Counts another exploration in.
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

/// When to stop, shared by the threads.
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

    /// A workload of single commands: any of them may stand beside any other in a transaction, which may end, or go back to a
    /// savepoint, after each of them. The invariant must hold whatever commands commit.
    pub fn commands(draw: impl Fn(&mut Rng) -> M::Command + Send + Sync + 'static) -> Self {
        Self::new(Source::Commands(Box::new(draw)))
    }

    /// A workload of transactions: all of a transaction's commands are carried out, in their order, or none. Of several open ones the
    /// commands interleave. One in which a command is rejected is rolled back.
    pub fn transactions(draw: impl Fn(&mut Rng) -> Vec<M::Command> + Send + Sync + 'static) -> Self {
        Self::new(Source::Transactions(Box::new(draw)))
    }

    /// A workload of these transactions, each begun once, in this order, up to four of them open at a time. One that loses a lock,
    /// grows too old or is open when the engine goes is rolled back and does not come again.
    pub fn workload(transactions: Vec<Vec<M::Command>>) -> Self {
        Self::new(Source::Listed(transactions)).seeds(4)
    }

    /// What must hold of every state that is recovered or viewed.
    pub fn invariant(mut self, invariant: impl Fn(&M) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.invariant = Box::new(invariant);
        self
    }

    /// Reads of parts of the state for the workload to mix in. Without them it reads all of it.
    pub fn looks(mut self, draw: impl Fn(&mut Rng) -> Look<M> + Send + Sync + 'static) -> Self {
        self.looks = Some(Box::new(draw));
        self
    }

    /// Opens the store with these options. Work behind the scenes and waits are the exploration's own affair: what the
    /// options say about those counts for nothing. By default the segments are as small as they can be.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self.options_as_needed()
    }

    fn options_as_needed(mut self) -> Self {
        self.options = self.options.background(Background::Manual).lock_timeout(Duration::ZERO);
        self
    }

    /// How many steps a workload has; 60 by default. A list of transactions is played out behind them.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// The first seed; 0 by default. Each seed gives another workload on another disk.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many seeds are explored; 1 by default, or as many as [`Explore::states`] or [`Explore::within`] leave time for.
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = Some(seeds);
        self
    }

    /// Stops after so many states.
    pub fn states(mut self, states: u64) -> Self {
        self.states = Some(states);
        self
    }

    /// Stops after this time, in real time.
    pub fn within(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// How many threads explore, each another seed; 1 by default.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Stops the machine in one of so many operations, drawn, and not in all of them: for long workloads.
    pub fn one_in(mut self, operations: u64) -> Self {
        self.one_in = operations.max(1);
        self
    }

    /// The disk that the workload of a seed begins on, in place of an empty one whose kind changes from seed to seed. It must be
    /// another one at each call, and the same each time. A store on it is gone on with: what opens first is right, and is not to be lost.
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

    /// Lets the disk run full at times, and have space again. A full disk may refuse what needs space; it must still open, and it
    /// must go on once there is space.
    pub fn full_disks(mut self) -> Self {
        self.space = Space::Scarce;
        self
    }

    /// Carries the workload of the first seed out on this disk, once, and crashes nothing: for what you do to the disk yourself.
    /// A store that is there already is gone on with. Where the disk goes down, by [`Fault::Crash`](super::Fault::Crash) say, the
    /// run ends, and that is no failure.
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
    /// The first thing that is not as promised. It is not made smaller, for the disk is used up.
    pub fn run_on(&self, disk: &SimDisk) -> Result<Explored, Box<Failure>> {
        let steps = self.draw_steps(self.seed, None);
        let limits = Limits::none();
        let mut exploration = Exploration::new(self, self.seed, &limits, failure::Telling::Told);
        match exploration.once(disk, &steps) {
            Ok(()) => Ok(exploration.explored),
            Err(wrong) => Err(wrong.into_failure(steps.len(), steps.len(), Replay::of_seed(self.seed))),
        }
    }

    /// Explores every crash. What it finds is deterministic but for limits of time.
    ///
    /// # Errors
    /// The first thing that is not as promised, minimised.
    pub fn run(&self) -> Result<Explored, Box<Failure>> {
        self.each_seed(|seed, limits| self.explore_seed(seed, None, limits))
    }

    /// Fails every operation of the storage in turn, once and for ever from then on, with an I/O error, a full disk, a short transfer
    /// and an interruption; then crashes, recovers and goes on. Checks the same, and that a failure is
    /// one operation's typed error or a latch with all that is promised of it.
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

    /// Runs what a failure named, without limits.
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

    /// All that one seed decides, from which `kept` are carried out.
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

    /// The steps of a seed, and at least as many as those that are named: further steps change nothing about the earlier ones.
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

    /// The disk of a seed: their kinds take turns.
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
