//! Starts explorations: of every seed, on several threads, or once on a given disk.

use super::crashes::Exploration;
use super::explorable::Explorable;
use super::explored::Explored;
use super::failure::{self, Failure, Replay, Telling, Way};
use super::limits::Limits;
use super::settings::Explore;
use super::{faults, invariant, law};
use crate::io::sync::{AtomicU64, Ordering, thread};
use crate::io::threads::spawn_scoped;
use crate::sim::SimDisk;

impl<M: Explorable> Explore<M> {
    /// Runs the workload of the first seed once on this disk, without crashes, so that you can
    /// crash or damage the disk yourself. A store on the disk is continued. If the disk goes down,
    /// for example by
    /// [`Fault::Crash`](crate::sim::Fault::Crash), the run ends without a failure.
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
        let mut exploration = Exploration::new(self, self.seed, &limits, Telling::Told);
        match exploration.once(disk, &steps) {
            Ok(()) => Ok(exploration.explored),
            Err(wrong) => Err(wrong.into_failure(steps.len(), steps.len(), Replay::of_seed(self.seed))),
        }
    }

    /// Explores every crash. The result is deterministic, except for time limits. Before that, it
    /// checks the machine's law, and the invariant in states that commands lead to without a crash.
    ///
    /// # Errors
    /// The first violation that was found, minimized.
    pub fn run(&self) -> Result<Explored, Box<Failure>> {
        self.each_seed(|seed, limits| self.explore_seed(seed, None, limits))
    }

    /// Fails each storage operation in turn, once and permanently, with an I/O error, a full disk,
    /// a short transfer and an interruption; then crashes, recovers and continues. Checks the same
    /// as
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
        match replay.way() {
            Way::Crashes => self.explore_seed(replay.seed(), kept, &Limits::none()),
            Way::Failures => self.fail_seed(replay.seed(), kept, &Limits::none()),
            Way::Commands => {
                invariant::check(self, replay.seed(), kept)?;
                Ok(Explored { seeds: 1, ..Explored::default() })
            }
        }
    }

    fn each_seed(
        &self,
        explore: impl Fn(u64, &Limits) -> Result<Explored, Box<Failure>> + Sync,
    ) -> Result<Explored, Box<Failure>> {
        let unlimited = self.states.is_none() && self.time.is_none();
        let seeds = self.seeds.unwrap_or(if unlimited { 1 } else { u64::MAX });
        let limits = Limits::new(self.states, self.time);
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
            let threads: Vec<_> = (1..self.threads).map_while(|_| spawn_scoped(scope, one_thread).ok()).collect();
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
        if kept.is_none() {
            invariant::check(self, seed, None)?;
        }
        failure::find(
            self,
            seed,
            kept,
            Way::Crashes,
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
            Way::Failures,
            |steps, lines, limits| faults::fail_each(self, seed, steps, lines, limits),
            limits,
        )
    }
}
