//! Crashes the disk at every operation, and recovers from the states that the crash can leave.

use super::diary::Diary;
use super::explorable::Explorable;
use super::explored::Explored;
use super::failure::{Telling, Wrong};
use super::limits::Limits;
use super::oracle::{Judge, Lost, digest};
use super::run::Run;
use super::settings::Explore;
use super::stop::{Stop, contained};
use super::work::Step;
use crate::sim::rng::{Rng, mix};
use crate::sim::{Crash, CrashPoint, SimDisk};

/// How many steps a run continues after some of the recoveries.
const STEPS_AFTERWARDS: u64 = 6;

pub(super) struct Exploration<'a, M: Explorable> {
    plan: &'a Explore<M>,
    seed: u64,
    limits: &'a Limits,
    telling: Telling,
    /// The lines of the history so far, crashes included.
    lines: Vec<String>,
    steps_done: usize,
    pub(super) explored: Explored,
}

/// What led to a crash.
#[derive(Clone, Copy)]
struct Before<'a> {
    judge: &'a Judge,
    /// How many of the listed transactions have begun.
    listed: usize,
    lost: Lost,
    /// The number of crashes, this one included.
    depth: u32,
}

impl<'a, M: Explorable> Exploration<'a, M> {
    pub(super) fn new(plan: &'a Explore<M>, seed: u64, limits: &'a Limits, telling: Telling) -> Self {
        let explored = Explored { seeds: 1, ..Explored::default() };
        Exploration { plan, seed, limits, telling, lines: Vec::new(), steps_done: 0, explored }
    }

    /// Runs a history once, without crashes, until it ends or the disk goes down.
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

    /// Adds the counts of a run.
    fn count(&mut self, diary: &mut Diary) {
        for (what, count) in std::mem::take(&mut diary.counts) {
            *self.explored.did.entry(what).or_default() += count;
        }
    }

    fn diary(&self) -> Diary {
        Diary { lines: (self.telling == Telling::Told).then(Vec::new), ..Diary::default() }
    }

    /// Runs a history once, and explores the crashes of each of its operations.
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

    /// Moves the new lines to the history.
    fn tell(&mut self, lines: &mut Option<Vec<String>>) {
        self.lines.append(lines.get_or_insert_default());
        if self.telling == Telling::Silent {
            *lines = None;
        }
    }

    fn wrong(&mut self, stop: Stop) -> Wrong {
        Wrong { what: stop.into_text(), lines: std::mem::take(&mut self.lines), steps_done: self.steps_done }
    }

    /// Explores the crashes of the operations of the last step.
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
            // for one operation in three, the recovery of one state is crashed at each of its
            // operations too
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

    /// Continues the run on the recovered state, crashes it, and checks once more.
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

/// The judge of a disk before the run: of an empty store, or of the store that is on the disk.
pub(super) fn state_on<M: Explorable>(plan: &Explore<M>, disk: &SimDisk) -> Result<Judge, Wrong> {
    if disk.file_names().is_empty() {
        return Ok(Judge::new(digest(&M::default())));
    }
    let copy = disk.crash(Crash::KillOnly);
    let opened = contained(|| Run::start(plan, &copy, None, &mut Diary::default()).map(|run| run.oracle.digest()));
    opened.map(Judge::new).map_err(|stop| Wrong {
        what: format!("the store on the disk: {}", stop.into_text()),
        lines: Vec::new(),
        steps_done: 0,
    })
}
