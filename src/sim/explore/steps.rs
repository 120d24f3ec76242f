//! Carries the steps of a workload out on the engine, and compares every answer with the model.

use super::explorable::Explorable;
use super::oracle::{Lost, Oracle, digest};
use super::run::{Pending, Run, footprint_of, is_ordinary, open, outcome, show};
use super::stop::{Stop, Stopped, wrong};
use super::work::{By, Leave, Look, Step};
use crate::durability::{Durability, ReadLevel};
use crate::engine::{ExecuteError, Step as EngineStep};
use crate::error::Error;
use crate::io::Clock;
use crate::machine::{Access, Footprint};
use crate::wal::LogStep;
use std::fmt::Debug;

impl<M: Explorable> Run<'_, M> {
    /// Carries one step out.
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
        // with no effects in flight, undone commands must have left no trace
        if self.engine.is_some() && !self.slots.iter().flatten().any(|slot| !slot.effects.is_empty()) {
            let live = digest(&self.live);
            if live != self.oracle.digest() {
                return wrong("the machine breaks its law: inverses, or commit order, give another state");
            }
        }
        Ok(())
    }

    /// Checks that a command was rejected as the model rejects it, and not because of another
    /// transaction.
    pub(super) fn check_rejection(
        &mut self,
        command: &M::Command,
        rejection: &M::Rejection,
        expected: &Result<(M::Reply, M::Command), M::Rejection>,
        conflict: bool,
    ) -> Stopped {
        if conflict {
            return wrong("a rejection saw another transaction's state");
        }
        if !matches!(expected, Err(wanted) if wanted == rejection) {
            let wanted = expected.as_ref().map(|(reply, _)| reply);
            return wrong(format!("{command:?} was rejected with {rejection:?}, wanted {wanted:?}"));
        }
        self.diary.count("rejected");
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
                self.check_rejection(command, &rejection, &expected, conflict)?;
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
                // a command that met a lock was never carried out
                if !conflict && expected.is_ok() {
                    self.oracle.commit_in_doubt(std::slice::from_ref(command)).map_err(Stop::Wrong)?;
                }
                Err(error.into())
            }
        }
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

    /// Takes the answers of tickets that are done. Their promises hold from now on, whether the
    /// caller waits or not.
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
        (self.plan.invariant)(&view).map_err(|why| {
            self.diary.note(|| format!("the state in the view: {}", self.plan.shown(&view)));
            Stop::Wrong(format!("in a view: {why}"))
        })?;
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
                // the store may wait for it or not; it must only not disturb a new owner
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

fn may_refuse_a_checkpoint(error: &Error) -> bool {
    is_ordinary(error) || error.is_out_of_space() && !error.is_latched()
}
