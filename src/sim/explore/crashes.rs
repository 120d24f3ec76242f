//! Stops the machine at every operation, tries what a crash may leave, and recovers from that.

use super::failure::{Telling, Wrong};
use super::oracle::{Judge, Lost, digest};
use super::run::{Diary, Known, Run, Stop};
use super::work::Step;
use super::{Explore, Explored, Limits};
use crate::sim::rng::{Rng, mix};
use crate::sim::{Crash, CrashPoint, SimDisk};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many steps follow a recovery that is gone on from.
const STEPS_AFTERWARDS: u64 = 6;

pub(super) struct Exploration<'a, M: Known> {
    plan: &'a Explore<M>,
    seed: u64,
    limits: &'a Limits,
    telling: Telling,
    /// What was told of the history up to here, crashes included.
    lines: Vec<String>,
    steps_done: usize,
    pub(super) explored: Explored,
}

/// A crash, and what it depends on.
#[derive(Clone, Copy)]
struct Before<'a> {
    judge: &'a Judge,
    /// How far a list of transactions has been used.
    listed: usize,
    lost: Lost,
    /// How many crashes there were.
    depth: u32,
}

impl<'a, M: Known> Exploration<'a, M> {
    pub(super) fn new(plan: &'a Explore<M>, seed: u64, limits: &'a Limits, telling: Telling) -> Self {
        let explored = Explored { seeds: 1, ..Explored::default() };
        Exploration { plan, seed, limits, telling, lines: Vec::new(), steps_done: 0, explored }
    }

    /// Runs a history once on a disk, and only that, to its end or that of the disk.
    pub(super) fn once(&mut self, disk: &SimDisk, steps: &[Step<M>]) -> Result<(), Wrong> {
        let mut diary = self.diary();
        let done = contained(|| {
            let mut run = Run::start(self.plan, disk, None, &mut diary)?;
            steps.iter().try_for_each(|step| run.step(step))
        });
        self.count(&mut diary);
        self.tell(&mut diary.lines);
        match done {
            Err(Stop::Failed(_)) if disk.is_down() => Ok(()),
            done => done.map_err(|stop| self.wrong(stop)),
        }
    }

    /// Takes over what was counted.
    fn count(&mut self, diary: &mut Diary) {
        for (what, count) in std::mem::take(&mut diary.counts) {
            *self.explored.did.entry(what).or_default() += count;
        }
    }

    fn diary(&self) -> Diary {
        Diary { lines: (self.telling == Telling::Told).then(Vec::new), ..Diary::default() }
    }

    /// Runs a history once, and explores from each operation on its way.
    pub(super) fn history(&mut self, steps: &[Step<M>]) -> Result<(), Wrong> {
        let disk = self.plan.disk(self.seed);
        let mut diary = self.diary();
        let found = state_on(self.plan, &disk)?;
        disk.record_crash_points(..);
        let started = contained(|| Run::start(self.plan, &disk, Some((&found, Lost::Power)), &mut diary));
        let mut run = match started {
            Ok(run) => run,
            Err(stop) => {
                self.tell(&mut diary.lines);
                return Err(self.wrong(stop));
            }
        };
        self.points(&disk, (&found, 0), &mut run.diary.lines)?;
        for (at, step) in steps.iter().enumerate() {
            self.steps_done = at;
            if self.limits.is_reached() {
                break;
            }
            let before = run.oracle.judge().clone();
            let done = contained(|| run.step(step));
            if let Err(stop) = done {
                self.tell(&mut run.diary.lines);
                return Err(self.wrong(stop));
            }
            let judge = before.until(run.oracle.judge());
            self.points(&disk, (&judge, run.listed), &mut run.diary.lines)?;
        }
        let (judge, listed) = (run.oracle.judge().clone(), run.listed);
        drop(run);
        self.count(&mut diary);
        self.points(&disk, (&judge, listed), &mut diary.lines)
    }

    /// Moves what was told since the last time to the lines of the history.
    fn tell(&mut self, lines: &mut Option<Vec<String>>) {
        self.lines.append(lines.get_or_insert_default());
        if self.telling == Telling::Silent {
            *lines = None;
        }
    }

    fn wrong(&mut self, stop: Stop) -> Wrong {
        Wrong { what: stop.into_text(), lines: std::mem::take(&mut self.lines), steps_done: self.steps_done }
    }

    /// Explores from the operations of the last step.
    fn points(
        &mut self,
        disk: &SimDisk,
        (judge, listed): (&Judge, usize),
        lines: &mut Option<Vec<String>>,
    ) -> Result<(), Wrong> {
        self.tell(lines);
        for point in disk.take_crash_points() {
            let mut rng = Rng::new(mix(self.seed) ^ mix(point.op()));
            if rng.below(self.plan.one_in) > 0 {
                continue;
            }
            let before = Before { judge, listed, lost: Lost::Process, depth: 1 };
            self.explored.operations += 1;
            let choices = point.crash_choices(rng.next());
            // of one of the states, often, the recovery is crashed at all of its operations as well
            let deeper = rng.below(3 * choices.len() as u64) as usize;
            for (at, crash) in choices.into_iter().enumerate() {
                if self.limits.is_reached() {
                    return Ok(());
                }
                self.crash(&point, crash, before, &mut rng, at == deeper)?;
            }
        }
        Ok(())
    }

    /// Crashes, recovers, checks, and perhaps goes on or crashes again.
    fn crash(
        &mut self,
        point: &CrashPoint,
        crash: Crash,
        before: Before<'_>,
        rng: &mut Rng,
        again: bool,
    ) -> Result<(), Wrong> {
        let disk = point.crash(crash);
        let lost = before.lost.and(if crash == Crash::KillOnly { Lost::Process } else { Lost::Power });
        let told = self.lines.len();
        if self.telling == Telling::Told {
            self.lines.push(format!("crash in operation {} ({}), which leaves: {crash}", point.op(), point.kind()));
        }
        if again {
            disk.record_crash_points(..);
        }
        let mut diary = self.diary();
        let opened = contained(|| Run::start(self.plan, &disk, Some((before.judge, lost)), &mut diary));
        self.limits.count_state();
        self.explored.states += 1;
        self.explored.within_recovery += u64::from(before.depth > 1);
        let points = if again { disk.take_crash_points() } else { Vec::new() };
        match opened {
            Err(stop) => {
                self.tell(&mut diary.lines);
                return Err(self.wrong(stop));
            }
            Ok(mut run) if again || rng.below(4) == 0 => {
                disk.record_crash_points(0..0);
                run.listed = before.listed;
                self.go_on(run, &disk, rng)?;
            }
            Ok(run) => drop(run),
        }
        self.count(&mut diary);
        for point in points {
            if self.limits.is_reached() {
                break;
            }
            self.explored.operations += 1;
            for _ in 0..2 {
                let choices = point.crash_choices(rng.next());
                let Some(&crash) = choices.get(rng.below(choices.len() as u64) as usize) else { continue };
                let before = Before { lost, depth: before.depth + 1, ..before };
                let again = before.depth < 3 && rng.below(16) == 0;
                self.crash(&point, crash, before, rng, again)?;
            }
        }
        self.lines.truncate(told);
        Ok(())
    }

    /// Works on with what was recovered, crashes, and checks once more.
    fn go_on(&mut self, mut run: Run<'_, M>, disk: &SimDisk, rng: &mut Rng) -> Result<(), Wrong> {
        let mut drawing = self.plan.drawing(Rng::new(rng.next()));
        let steps: Vec<_> = (0..STEPS_AFTERWARDS).map(|_| drawing.step()).collect();
        for step in &steps {
            if let Err(stop) = contained(|| run.step(step)) {
                self.tell(&mut run.diary.lines);
                return Err(self.wrong(stop));
            }
        }
        let judge = run.oracle.judge().clone();
        let told = self.lines.len();
        self.tell(&mut run.diary.lines);
        drop(run);
        let choices = disk.crash_choices(rng.next());
        if let Some(&crash) = choices.get(rng.below(choices.len() as u64) as usize) {
            let lost = if crash == Crash::KillOnly { Lost::Process } else { Lost::Power };
            if self.telling == Telling::Told {
                self.lines.push(format!("crash after that, which leaves: {crash}"));
            }
            let mut diary = self.diary();
            let opened =
                contained(|| Run::start(self.plan, &disk.crash(crash), Some((&judge, lost)), &mut diary).map(drop));
            self.limits.count_state();
            self.explored.states += 1;
            if let Err(stop) = opened {
                self.tell(&mut diary.lines);
                return Err(self.wrong(stop));
            }
            self.count(&mut diary);
        }
        self.lines.truncate(told);
        Ok(())
    }
}

/// Decides about what an untouched disk holds: nothing, or the state of the store that it came with.
pub(super) fn state_on<M: Known>(plan: &Explore<M>, disk: &SimDisk) -> Result<Judge, Wrong> {
    if disk.file_names().is_empty() {
        return Ok(Judge::new(digest(&M::default())));
    }
    let copy = disk.crash(Crash::KillOnly);
    let opened = contained(|| Run::start(plan, &copy, None, &mut Diary::default()).map(|run| run.oracle.digest()));
    opened.map(Judge::new).map_err(|stop| Wrong {
        what: format!("the store that the disk came with: {}", stop.into_text()),
        lines: Vec::new(),
        steps_done: 0,
    })
}

/// A panic counts as something wrong, the engine's as well as the machine's.
pub(super) fn contained<T>(run: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(Stop::Wrong(panic_text(panic.as_ref()))))
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("not in words"))
}
