//! Carries the steps of a workload out on an engine, and checks every answer against the model.
//!
//! One thread, several open transactions: where a lock is in the way the engine must say so at once.

use super::Explore;
use super::files::Files;
use super::oracle::{Judge, Lost, Oracle, digest};
use super::slot::Slot;
use super::work::{By, Leave, Look, SLOTS, Step};
use crate::durability::Durability;
use crate::durability::ReadLevel;
use crate::engine::{Engine, ExecuteError, Step as EngineStep, Ticket};
use crate::error::Error;
use crate::io::Clock;
use crate::io::sync::Arc;
use crate::machine::{Access, Footprint, StateMachine};
use crate::sim::SimDisk;
use crate::wal::LogStep;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// What an exploration needs of a machine besides its law: that its commands can be shown and its answers compared. Every machine
/// whose types allow it has this.
pub trait Explorable: StateMachine<Command: Debug, Reply: Debug + PartialEq, Rejection: Debug + PartialEq> {}

impl<M> Explorable for M where M: StateMachine<Command: Debug, Reply: Debug + PartialEq, Rejection: Debug + PartialEq> {}

pub(super) use Explorable as Known;

/// Why a run ended before its end.
pub(super) enum Stop {
    /// Something is not as promised.
    Wrong(String),
    /// The engine answered with an error that is no ordinary one.
    Failed(Error),
}

impl Stop {
    /// In words, where nothing was made to fail.
    pub(super) fn into_text(self) -> String {
        match self {
            Stop::Wrong(what) => what,
            Stop::Failed(error) => format!("an error, though nothing failed: {error}"),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

pub(super) type Stopped<T = ()> = Result<T, Stop>;

pub(super) fn wrong<T>(what: impl Into<String>) -> Stopped<T> {
    Err(Stop::Wrong(what.into()))
}

/// A ticket, with what it is for.
pub(super) struct Pending<T> {
    pub(super) position: usize,
    /// What the transaction had seen.
    pub(super) saw: usize,
    /// What the ticket is to answer.
    pub(super) wanted: T,
    pub(super) durability: Durability,
    pub(super) ticket: Ticket<T>,
}

/// One run of a workload.
pub(super) struct Run<'a, M: Known> {
    pub(super) plan: &'a Explore<M>,
    pub(super) disk: SimDisk,
    pub(super) engine: Option<Engine<M>>,
    pub(super) oracle: Oracle<M>,
    /// The state with the effects of open transactions.
    pub(super) live: M,
    pub(super) slots: [Option<Slot<M>>; SLOTS],
    pub(super) replies: Vec<Pending<M::Reply>>,
    pub(super) commits: Vec<Pending<()>>,
    /// How many of the listed transactions have begun.
    pub(super) listed: usize,
    /// Whether operations may fail for want of space although there is some.
    pub(super) refusals: Refusals,
    files: Files,
    pub(super) diary: &'a mut Diary,
}

/// When the engine may say that there is no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusals {
    WithoutSpace,
    AtAnyTime,
}

/// What a run did: how often, and in words if somebody wants to read them.
#[derive(Default)]
pub(super) struct Diary {
    pub(super) lines: Option<Vec<String>>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Diary {
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(shortened(line()));
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

impl<'a, M: Known> Run<'a, M> {
    /// Opens the store and has the judge decide about what it finds; without one, whatever it finds is right.
    pub(super) fn start(
        plan: &'a Explore<M>,
        disk: &SimDisk,
        judge: Option<(&Judge, Lost)>,
        diary: &'a mut Diary,
    ) -> Stopped<Run<'a, M>> {
        let (engine, found) = open(plan, disk, diary)?;
        if let Some((judge, lost)) = judge {
            judge.check(digest(&found), lost).map_err(Stop::Wrong)?;
        }
        Ok(Run {
            plan,
            disk: disk.clone(),
            engine: Some(engine),
            oracle: Oracle::new(found.clone()),
            live: found,
            slots: Default::default(),
            replies: Vec::new(),
            commits: Vec::new(),
            listed: 0,
            refusals: Refusals::WithoutSpace,
            files: Files::of(disk),
            diary,
        })
    }

    pub(super) fn engine(&self) -> Stopped<&Engine<M>> {
        self.engine.as_ref().ok_or(Stop::Failed(Error::Closed))
    }

    /// Whether somebody else than the transaction in `me` stands in the way.
    pub(super) fn is_held(&self, me: Option<usize>, footprint: &Footprint) -> bool {
        let others = self.slots.iter().enumerate().filter(|(at, _)| Some(*at) != me);
        others.filter_map(|(_, slot)| slot.as_ref()).any(|slot| slot.held.conflicts_with(footprint))
    }

    pub(super) fn step(&mut self, step: &Step<M>) -> Stopped {
        match step {
            Step::Go { slot, script } => self.go(*slot, script),
            Step::Look { slot, look } => self.look(*slot, look.as_ref()),
            Step::Savepoint { slot } => self.savepoint(*slot),
            Step::RollbackTo { slot, which } => self.rollback_to(*slot, *which),
            Step::Commit { slot, durability, by } => self.commit(*slot, *durability, *by),
            Step::End { slot, how } => self.end(*slot, *how),
            Step::Execute { command, durability, by } => self.execute(command, *durability, *by),
            Step::Wait { which } => self.wait(*which),
            Step::Read { look, level } => self.read(look.as_ref(), *level),
            Step::View { level } => self.view(*level),
            Step::Log(step) => self.log_step(*step),
            Step::Digest => self.digest_step(),
            Step::BeginCheckpoint => self.checkpoint_step(EngineStep::BeginCheckpoint),
            Step::CheckpointStage => self.checkpoint_step(EngineStep::Checkpoint),
            Step::Checkpoint => self.checkpoint(),
            Step::Sync => self.sync(),
            Step::Pass(time) => {
                self.disk.advance(*time);
                Ok(())
            }
            Step::Expire => self.expire(),
            Step::Space(free_bytes) => {
                self.disk.set_free_bytes(*free_bytes);
                self.diary.note(|| format!("space: {free_bytes:?}"));
                Ok(())
            }
            Step::Reopen(leave) => self.reopen(*leave),
        }?;
        self.files.count(&self.disk, self.diary);
        self.take_done()?;
        // with no effects in flight, what was undone must have left no trace
        if self.engine.is_some() && !self.slots.iter().flatten().any(|slot| !slot.effects.is_empty()) {
            let live = digest(&self.live);
            if live != self.oracle.digest() {
                return wrong("the machine breaks its law: inverses, or commit order, give another state");
            }
        }
        Ok(())
    }

    fn execute(&mut self, command: &M::Command, durability: Durability, by: By) -> Stopped {
        let footprint = M::footprint(command);
        let conflict = self.is_held(None, &footprint);
        let expected = self.live.clone().apply(command);
        let engine = self.engine()?;
        let (reply, ticket) = match by {
            By::Waiting => (engine.execute_with(command.clone(), durability).map(Some), None),
            By::Ticket => match engine.submit_with(command.clone(), durability) {
                Ok(ticket) => (Ok(None), Some(ticket)),
                Err(error) => (Err(error), None),
            },
        };
        self.diary.note(|| format!("execute {command:?}, {durability:?}, {by:?}: {reply:?}"));
        let shown = self.oracle.shown(&footprint);
        match reply {
            Ok(reply) => {
                if conflict {
                    return wrong("a command got past another transaction's lock");
                }
                let wanted = match (expected, reply) {
                    (Ok((wanted, _)), None) => wanted,
                    (Ok((wanted, _)), Some(reply)) if wanted == reply => wanted,
                    (expected, reply) => {
                        let wanted = expected.map(|(reply, _)| reply);
                        return wrong(format!("{command:?} answered {reply:?}, wanted {wanted:?}"));
                    }
                };
                self.redo(command)?;
                let position = self.oracle.commit(std::slice::from_ref(command), durability).map_err(Stop::Wrong)?;
                match ticket {
                    Some(ticket) => self.replies.push(Pending { position, saw: shown, wanted, durability, ticket }),
                    None => {
                        self.oracle.ack(shown);
                        self.oracle.acknowledge(position, durability, self.disk.monotonic());
                    }
                }
                self.diary.count(if by == By::Waiting { "executed" } else { "submitted" });
                Ok(())
            }
            Err(ExecuteError::Rejected(rejection)) => {
                if conflict {
                    return wrong("a rejection saw another transaction's state");
                }
                if !matches!(&expected, Err(wanted) if *wanted == rejection) {
                    let wanted = expected.map(|(reply, _)| reply);
                    return wrong(format!("{command:?} was rejected with {rejection:?}, wanted {wanted:?}"));
                }
                self.diary.count("rejected");
                self.oracle.ack(shown);
                Ok(())
            }
            Err(ExecuteError::Failed(Error::LockTimeout)) if conflict => Ok(()),
            Err(ExecuteError::Failed(error @ Error::Full { .. })) => self.full(&error),
            Err(ExecuteError::Failed(Error::TooLarge { .. })) => Ok(()),
            Err(ExecuteError::Failed(ordinary)) if is_ordinary(&ordinary) => {
                wrong(format!("a single command answered {ordinary:?}"))
            }
            Err(ExecuteError::Failed(error)) => {
                // where a lock was in the way it was never carried out
                if !conflict && expected.is_ok() {
                    self.oracle.commit_in_doubt(std::slice::from_ref(command)).map_err(Stop::Wrong)?;
                }
                Err(error.into())
            }
        }
    }

    /// Takes a command that was carried out into the model.
    pub(super) fn redo(&mut self, command: &M::Command) -> Stopped<M::Command> {
        match self.live.apply(command) {
            Ok((_, inverse)) => Ok(inverse),
            Err(rejection) => wrong(format!("{command:?} is not deterministic: then accepted, now {rejection:?}")),
        }
    }

    /// No space is an answer where there is none.
    pub(super) fn full(&mut self, error: &Error) -> Stopped {
        self.diary.count("full");
        let free_bytes = self.disk.free_bytes();
        if self.refusals == Refusals::WithoutSpace && free_bytes > self.plan.options.max_log_bytes {
            return wrong(format!("{error}, though {free_bytes} bytes are free"));
        }
        Ok(())
    }

    fn wait(&mut self, which: u64) -> Stopped {
        let pick = |len: usize| (which / 2).checked_rem(len as u64).map(|at| at as usize);
        if which.is_multiple_of(2)
            && let Some(at) = pick(self.replies.len())
        {
            let pending = self.replies.swap_remove(at);
            self.take(pending)?;
        } else if let Some(at) = pick(self.commits.len()) {
            let pending = self.commits.swap_remove(at);
            self.take(pending)?;
        }
        Ok(())
    }

    /// Takes the answers that wait for nobody any more: what they promise counts from now on, whether they are asked for or not.
    fn take_done(&mut self) -> Stopped {
        let replies: Vec<_> = self.replies.extract_if(.., |pending| pending.ticket.is_done()).collect();
        replies.into_iter().try_for_each(|pending| self.take(pending))?;
        let commits: Vec<_> = self.commits.extract_if(.., |pending| pending.ticket.is_done()).collect();
        commits.into_iter().try_for_each(|pending| self.take(pending))
    }

    fn take<T: Debug + PartialEq>(&mut self, pending: Pending<T>) -> Stopped {
        let Pending { position, saw, wanted, durability, ticket } = pending;
        let done = if ticket.is_done() { "done" } else { "waited for" };
        let reply = ticket.wait();
        self.diary.note(|| format!("the ticket of commit {position}, {done}: {reply:?}"));
        let reply = reply?;
        if reply != wanted {
            return wrong(format!("the ticket of commit {position} answered {reply:?}, wanted {wanted:?}"));
        }
        self.diary.count(if done == "done" { "ticket done" } else { "ticket waited for" });
        self.oracle.acknowledge(position, durability, self.disk.monotonic());
        self.oracle.ack(saw);
        Ok(())
    }

    fn read(&mut self, look: Option<&Look<M>>, level: ReadLevel) -> Stopped {
        let footprint = footprint_of(look);
        let conflict = self.is_held(None, &footprint);
        let found = self.engine()?.read_within(&footprint, level, |m| show(look, m));
        self.diary.note(|| format!("read {look:?}, {level:?}: {}", outcome(&found)));
        match found {
            Ok(found) => {
                if conflict {
                    return wrong("a read got past an exclusive lock");
                }
                if found != show(look, self.oracle.committed()) {
                    return wrong("a read shows something else than what is committed");
                }
                if level == ReadLevel::Hardened {
                    let shown = self.oracle.shown(&footprint);
                    self.oracle.ack(shown);
                }
                Ok(())
            }
            Err(Error::LockTimeout) if conflict => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn view(&mut self, level: ReadLevel) -> Stopped {
        let engine = self.engine()?;
        let view = if level == ReadLevel::Latest { engine.view_latest() } else { engine.view() };
        self.diary.note(|| format!("view, {level:?}: {}", outcome(&view)));
        let view = view?;
        if digest(&*view) != self.oracle.digest() {
            return wrong("a view shows something else than what is committed");
        }
        (self.plan.invariant)(&view).map_err(|why| Stop::Wrong(format!("in a view: {why}")))?;
        if level == ReadLevel::Hardened {
            let shown = self.oracle.shown(&Footprint::everything(Access::Shared));
            self.oracle.ack(shown);
        }
        self.diary.count("view");
        Ok(())
    }

    fn log_step(&mut self, step: LogStep) -> Stopped {
        let now = self.disk.monotonic();
        let done = self.engine()?.step(EngineStep::Log(step));
        self.diary.note(|| format!("step {step:?}: {done:?}"));
        match done {
            Ok(_) if step == LogStep::SyncDue => self.oracle.synced_due(now),
            Err(error) if !is_ordinary(&error) => return Err(error.into()),
            _ => {}
        }
        Ok(())
    }

    fn digest_step(&mut self) -> Stopped {
        let done = self.engine()?.step(EngineStep::Digest);
        self.diary.note(|| format!("step Digest: {done:?}"));
        if done? {
            self.diary.count("digest step");
        }
        Ok(())
    }

    fn checkpoint_step(&mut self, step: EngineStep) -> Stopped {
        let done = self.engine()?.step(step);
        self.diary.note(|| format!("step {step:?}: {done:?}"));
        match done {
            Err(error) if !may_refuse_a_checkpoint(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn checkpoint(&mut self) -> Stopped {
        let done = self.engine()?.checkpoint();
        self.diary.note(|| format!("checkpoint: {done:?}"));
        match done {
            Ok(()) => {
                self.oracle.ack_all();
                self.diary.count("checkpoint");
                Ok(())
            }
            Err(error) if may_refuse_a_checkpoint(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&mut self) -> Stopped {
        let done = self.engine()?.sync();
        self.diary.note(|| format!("sync: {done:?}"));
        done?;
        self.oracle.ack_all();
        Ok(())
    }

    /// Opens the store again, with transactions left open.
    fn reopen(&mut self, leave: Leave) -> Stopped {
        if leave == Leave::DropLast {
            self.slots = Default::default();
        }
        if leave == Leave::Close {
            let done = self.engine()?.close();
            self.diary.note(|| format!("close: {done:?}"));
            match done {
                Ok(()) => {
                    self.oracle.ack_all();
                    self.diary.count("closed");
                }
                Err(error) if is_ordinary(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.replies.clear();
        self.commits.clear();
        let mut left_over = std::mem::take(&mut self.slots);
        self.engine = None;
        let opened = match open(self.plan, &self.disk, self.diary) {
            Err(Stop::Failed(Error::Locked { .. })) if left_over.iter().any(Option::is_some) => {
                self.diary.count("locked by a left-over transaction");
                // whether the store waits for it is open; it must only not disturb a new owner
                left_over = Default::default();
                open(self.plan, &self.disk, self.diary)
            }
            opened => opened,
        };
        let (engine, found) = opened?;
        for slot in left_over.into_iter().flatten() {
            if !slot.effects.is_empty() && slot.tx.commit().is_ok() {
                return wrong("a transaction of an engine that is gone commits into a store that has another owner");
            }
        }
        self.oracle.judge().check(digest(&found), Lost::Process).map_err(Stop::Wrong)?;
        self.engine = Some(engine);
        self.files.look_anew(&self.disk);
        self.oracle = Oracle::new(found.clone());
        self.live = found;
        self.diary.count("reopened");
        Ok(())
    }
}

/// The line without its middle, where it is a long one.
fn shortened(line: String) -> String {
    const MOST: usize = 300;
    if line.len() <= MOST {
        return line;
    }
    let (start, end) = (line.floor_char_boundary(MOST / 2), line.ceil_char_boundary(line.len() - MOST / 2));
    format!("{} … {}", &line[..start], &line[end..])
}

/// Opens a store and takes the state out.
fn open<M: Known>(plan: &Explore<M>, disk: &SimDisk, diary: &mut Diary) -> Stopped<(Engine<M>, M)> {
    let engine = plan.options.open_on::<M>(Arc::new(disk.clone())).inspect_err(|error| {
        diary.note(|| format!("open: {error}"));
    })?;
    let report = engine.recovery_report();
    diary.note(|| format!("open: {report}"));
    diary.count("opened");
    if report.undone > 0 {
        diary.count("losers undone");
    }
    if report.digests > 0 {
        diary.count("digest compared");
    }
    if report.snapshot.is_some() {
        diary.count("snapshot loaded");
    }
    let found = engine.read(M::clone)?;
    (plan.invariant)(&found).map_err(|why| Stop::Wrong(format!("in the state that was opened: {why}")))?;
    Ok((engine, found))
}

pub(super) fn footprint_of<M>(look: Option<&Look<M>>) -> Footprint {
    look.map_or_else(|| Footprint::everything(Access::Shared), |look| look.footprint.clone())
}

/// What a look shows; without one, all of the state as its digest.
pub(super) fn show<M: StateMachine>(look: Option<&Look<M>>, machine: &M) -> Vec<u8> {
    look.map_or_else(|| digest(machine).to_le_bytes().to_vec(), |look| (look.show)(machine))
}

pub(super) fn outcome<T>(result: &crate::Result<T>) -> String {
    result.as_ref().map_or_else(|error| error.to_string(), |_| "done".to_owned())
}

/// Errors after which the engine goes on, and so does the run.
pub(super) fn is_ordinary(error: &Error) -> bool {
    matches!(error, Error::Conflict | Error::LockTimeout | Error::Expired | Error::TooLarge { .. } | Error::Full { .. })
}

fn may_refuse_a_checkpoint(error: &Error) -> bool {
    is_ordinary(error) || error.is_out_of_space() && !error.is_latched()
}
