//! Fails every storage operation in turn, and checks what the engine promises after a failure.

use super::crashes::state_on;
use super::diary::Diary;
use super::explorable::Explorable;
use super::explored::Explored;
use super::failure::{Telling, Wrong};
use super::limits::Limits;
use super::oracle::{Judge, Lost, digest};
use super::run::{Refusals, Run};
use super::settings::Explore;
use super::stop::{Stop, Stopped, contained, wrong};
use super::work::Step;
use crate::durability::ReadLevel;
use crate::engine::ExecuteError;
use crate::error::Error;
use crate::machine::{Access, Footprint};
use crate::sim::rng::{Rng, mix};
use crate::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use crate::store::layout::{FileName, parse};

/// The number of failures after which a run continues.
const GO_ON: usize = 3;

/// One operation that fails.
#[derive(Clone, Copy, Debug)]
struct Planned {
    op: u64,
    fault: Fault,
    persistence: Persistence,
}

/// What may follow if an operation of an open engine fails once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The engine retries it, and no caller gets an error.
    Unnoticed,
    /// The caller gets an error, and the engine goes on.
    GoesOn,
    /// The log writes no more.
    Latches,
    /// The engine goes on, or the log latches: it depends on what was to be published.
    Either,
}

impl Outcome {
    fn of(fault: Fault, kind: OpKind, name: &str) -> Outcome {
        use OpKind::{ReadAt, ReadDeviceAt, SyncAll, SyncData, SyncDir, WriteAt, WriteDurableAt};
        match (fault, kind, parse(name)) {
            (Fault::ShortWrite, ..) | (Fault::Interrupted, WriteAt | ReadAt | ReadDeviceAt, _) => Outcome::Unnoticed,
            // an open file keeps the name that it was opened under, and so most segments are spares
            // here
            (
                _,
                WriteAt | WriteDurableAt | SyncData | SyncAll,
                FileName::Preallocated { .. } | FileName::Segment { .. },
            ) => Outcome::Latches,
            (_, _, FileName::Manifest) | (_, SyncDir, _) => Outcome::Either,
            _ => Outcome::GoesOn,
        }
    }

    fn allows(self, after: After) -> bool {
        match self {
            Outcome::Unnoticed => false,
            Outcome::GoesOn => after != After::Latched,
            Outcome::Latches => after != After::GoesOn,
            Outcome::Either => true,
        }
    }
}

/// The engine's state after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    GoesOn,
    Latched,
    /// It did not open, or was being closed.
    Gone,
}

pub(super) fn fail_each<M: Explorable>(
    plan: &Explore<M>,
    seed: u64,
    steps: &[Step<M>],
    telling: Telling,
    limits: &Limits,
) -> Result<Explored, Wrong> {
    let mut explored = Explored { seeds: 1, ..Explored::default() };
    let whole = plan.disk(seed);
    let found = state_on(plan, &whole)?;
    let mut diary = Diary::default();
    let failed = |what: Stop, planned: Option<Planned>, diary: Diary| {
        let what = match what {
            Stop::Wrong(what) => what,
            Stop::Failed(error) => format!("an error that is not of the failure's kind: {error}"),
        };
        let what = planned.map_or(what.clone(), |Planned { op, fault, persistence }| {
            format!("{what} (operation {op} fails: {fault:?}, {persistence:?})")
        });
        Wrong { what, lines: diary.lines.unwrap_or_default(), steps_done: steps.len() }
    };
    let all = contained(|| {
        let mut run = Run::start(plan, &whole, Some((&found, Lost::Power)), &mut diary)?;
        steps.iter().try_for_each(|step| run.step(step))
    });
    if let Err(stop) = all {
        return Err(failed(stop, None, diary));
    }
    for op in 0..whole.op_count() {
        for fault in [Fault::Eio, Fault::NoSpace, Fault::ShortWrite, Fault::Interrupted] {
            for persistence in [Persistence::Once, Persistence::ForEver] {
                if limits.is_reached() {
                    return Ok(explored);
                }
                let planned = Planned { op, fault, persistence };
                let mut diary = Diary { lines: (telling == Telling::Told).then(Vec::new), ..Diary::default() };
                let done = contained(|| fail(plan, seed, steps, planned, &found, &mut diary));
                limits.count_state();
                explored.failures += 1;
                explored.states += 1;
                for (what, count) in std::mem::take(&mut diary.counts) {
                    *explored.did.entry(what).or_default() += count;
                }
                done.map_err(|stop| failed(stop, Some(planned), diary))?;
            }
        }
    }
    Ok(explored)
}

/// Runs a history in which one operation fails, then crashes, recovers and continues.
fn fail<M: Explorable>(
    plan: &Explore<M>,
    seed: u64,
    steps: &[Step<M>],
    planned: Planned,
    found: &Judge,
    diary: &mut Diary,
) -> Stopped {
    let disk = plan.disk(seed);
    disk.fail_at(planned.op, planned.fault, planned.persistence);
    let judge = match Run::start(plan, &disk, Some((found, Lost::Power)), diary) {
        Err(Stop::Failed(error)) => {
            typed(planned, &disk, error)?;
            diary.count("open failed");
            found.clone()
        }
        Err(stop) => return Err(stop),
        Ok(mut run) => {
            run.refusals = if planned.fault == Fault::NoSpace { Refusals::AtAnyTime } else { Refusals::WithoutSpace };
            let mut failures = 0;
            for step in steps {
                match run.step(step) {
                    Ok(()) => {}
                    Err(Stop::Failed(error)) => {
                        typed(planned, &disk, error)?;
                        failures += 1;
                        let after = run.after_a_failure()?;
                        judge_outcome(planned, &disk, after)?;
                        if failures > GO_ON || after != After::GoesOn {
                            break;
                        }
                    }
                    Err(stop) => return Err(stop),
                }
            }
            run.oracle.judge().clone()
        }
    };
    let mut rng = Rng::new(mix(planned.op));
    let choices = disk.crash_choices(rng.next());
    let crash = choices.get(rng.below(choices.len() as u64) as usize).copied().unwrap_or(Crash::Nothing);
    diary.note(|| format!("crash, which leaves: {crash}"));
    // a failed sync may lose what was only in the page cache, even without a power loss
    let after: SimDisk = disk.crash(crash);
    let mut run = Run::start(plan, &after, Some((&judge, Lost::Power)), diary)?;
    for step in steps.iter().take(12) {
        run.step(step)?;
    }
    Ok(())
}

/// Checks that the error is one that this failure may cause.
fn typed(planned: Planned, disk: &SimDisk, error: Error) -> Stopped {
    let typed = matches!(
        error,
        Error::Io { .. } | Error::Full { .. } | Error::Latched { .. } | Error::Delayed { .. } | Error::Closed
    );
    if !typed {
        return Err(error.into());
    }
    let Some((kind, name)) = disk.struck() else { return wrong(format!("nothing failed: {error}")) };
    // an interrupted sync fails, and so does an operation that is interrupted every time
    if planned.persistence == Persistence::Once && Outcome::of(planned.fault, kind, &name) == Outcome::Unnoticed {
        return wrong(format!("{kind} of {name:?} is not gone on with: {error}"));
    }
    if planned.fault != Fault::NoSpace && error.is_out_of_space() {
        return wrong(format!("there is space, and {kind} of {name:?} failed for another reason: {error}"));
    }
    Ok(())
}

/// Checks that the engine's state is one that this failure may cause.
fn judge_outcome(planned: Planned, disk: &SimDisk, after: After) -> Stopped {
    let Some((kind, name)) = disk.struck() else { return Ok(()) };
    let outcome = Outcome::of(planned.fault, kind, &name);
    if planned.persistence == Persistence::Once && !outcome.allows(after) {
        return wrong(format!(
            "{kind} of {name:?} failed, and the engine is {after:?}: {outcome:?} is what is promised"
        ));
    }
    Ok(())
}

impl<M: Explorable> Run<'_, M> {
    /// Checks the engine after a failure. Either the log is latched and keeps the promises for
    /// that, or the engine goes on as if nothing had failed.
    fn after_a_failure(&mut self) -> Stopped<After> {
        let Some(engine) = &self.engine else { return Ok(After::Gone) };
        match engine.begin() {
            Ok(tx) => drop(tx),
            Err(Error::Closed) => return Ok(After::Gone),
            Err(error) if error.is_latched() => {
                self.diary.count("latched");
                return self.check_latched().map(|()| After::Latched);
            }
            Err(error) => return wrong(format!("begin after a failure: {error:?}")),
        }
        self.diary.count("gone on after a failure");
        self.slots = Default::default();
        let found = engine.view_latest()?.into_inner();
        if !self.oracle.settle(digest(&found)) {
            return wrong("after a failure the state is another one");
        }
        self.live = found;
        Ok(After::GoesOn)
    }

    /// Checks that a latched log writes nothing more, and that the engine shows nothing that may
    /// vanish.
    fn check_latched(&mut self) -> Stopped {
        let mut rng = Rng::new(self.oracle.digest());
        // open transactions may hold locks
        let allowed = |error: &Error| error.is_latched() || matches!(error, Error::LockTimeout | Error::Conflict);
        for _ in 0..8 {
            let Some(command) = self.plan.source.command(&mut rng) else { break };
            match self.engine()?.execute(command.clone()) {
                Ok(_) => return wrong(format!("{command:?} is acknowledged by a log that is latched")),
                Err(ExecuteError::Rejected(_)) => {}
                Err(ExecuteError::Failed(error)) if allowed(&error) => {}
                Err(ExecuteError::Failed(error)) => {
                    return wrong(format!("a write on a latched log answers {error:?}"));
                }
            }
        }
        for slot in std::mem::take(&mut self.slots).into_iter().flatten() {
            let changes = !slot.effects.is_empty();
            match slot.tx.commit() {
                Ok(()) if changes => return wrong("a transaction commits on a log that is latched"),
                Err(error) if !allowed(&error) => return wrong(format!("a commit on a latched log: {error:?}")),
                _ => {}
            }
        }
        match self.engine()?.view_latest() {
            Ok(view) if self.oracle.may_show(digest(&*view)) => {}
            Ok(_) => return wrong("latched, and what was committed is not what is shown"),
            Err(error) if error.is_latched() => {}
            Err(error) => return wrong(format!("a view on a latched log: {error:?}")),
        }
        // what it still shows must survive the crash that follows
        let everything = Footprint::everything(Access::Shared);
        match self.engine()?.read_within(&everything, ReadLevel::Hardened, digest) {
            Ok(_) => {
                let shown = self.oracle.shown(&everything);
                self.oracle.ack(shown);
            }
            Err(error) if error.is_latched() => {}
            Err(error) => return wrong(format!("a read on a latched log: {error:?}")),
        }
        if let Some(draw) = &self.plan.looks {
            for _ in 0..8 {
                let look = draw(&mut rng);
                match self.engine()?.read_within(&look.footprint, ReadLevel::Hardened, |m| (look.show)(m)) {
                    Ok(_) => {
                        let shown = self.oracle.shown(&look.footprint);
                        self.oracle.ack(shown);
                    }
                    Err(error) if error.is_latched() => {}
                    Err(error) => return wrong(format!("a read on a latched log: {error:?}")),
                }
            }
        }
        if self.engine()?.close().is_ok() {
            return wrong("a latched log closes as if nothing had been");
        }
        Ok(())
    }
}
