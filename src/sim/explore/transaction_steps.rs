//! The steps of open transactions.

use super::explorable::Explorable;
use super::run::{Pending, Run, footprint_of, is_ordinary, outcome, show};
use super::slot::Slot;
use super::stop::{Stop, Stopped, wrong};
use super::work::{By, Look, Script, Source, Without};
use crate::durability::Durability;
use crate::engine::{ExecuteError, Step as EngineStep};
use crate::error::Error;
use crate::io::Clock;
use crate::machine::Footprint;

impl<M: Explorable> Run<'_, M> {
    /// Executes the next command of a transaction. In a vacant slot the transaction begins first.
    pub(super) fn go(&mut self, at: usize, script: &Script<M>) -> Stopped {
        if self.slots[at].is_none() {
            let script = match &self.plan.source {
                Source::Listed(all) => all.get(self.listed).map_or(&[][..], Vec::as_slice),
                _ => script,
            };
            if script.is_empty() {
                self.listed += 1;
                return Ok(());
            }
            let tx = self.engine()?.begin()?;
            self.listed += 1;
            self.diary.note(|| format!("{at}: begin"));
            self.slots[at] = Some(Slot {
                tx,
                script: script.to_vec(),
                done: 0,
                effects: Vec::new(),
                savepoints: Vec::new(),
                past: Vec::new(),
                held: Footprint::none(),
                saw: 0,
            });
        }
        let Some(slot) = &self.slots[at] else { return Ok(()) };
        let Some(command) = slot.script.get(slot.done).cloned() else {
            return self.commit(at, Durability::Sync, By::Waiting);
        };
        self.go_on(at, &command)
    }

    fn go_on(&mut self, at: usize, command: &M::Command) -> Stopped {
        let footprint = M::footprint(command);
        let conflict = self.is_held(Some(at), &footprint);
        let expected = self.live.clone().apply(command);
        let shown = self.oracle.shown(&footprint);
        let Some(slot) = &mut self.slots[at] else { return Ok(()) };
        let reply = slot.tx.execute(command.clone());
        self.diary.note(|| format!("{at}: {command:?}: {reply:?}"));
        match reply {
            Ok(reply) => {
                if conflict {
                    return wrong("a command got past another transaction's lock");
                }
                if !matches!(&expected, Ok((wanted, _)) if *wanted == reply) {
                    let wanted = expected.map(|(reply, _)| reply);
                    return wrong(format!("{command:?} answered {reply:?}, wanted {wanted:?}"));
                }
                let inverse = self.redo(command)?;
                let Some(slot) = &mut self.slots[at] else { return Ok(()) };
                slot.effects.push((command.clone(), inverse));
                slot.done += 1;
                self.holds(at, footprint, shown);
                Ok(())
            }
            Err(ExecuteError::Rejected(rejection)) => {
                self.check_rejection(command, &rejection, &expected, conflict)?;
                self.holds(at, footprint, shown);
                if self.plan.source.ends_anywhere() {
                    if let Some(slot) = &mut self.slots[at] {
                        slot.done += 1;
                    }
                    return Ok(());
                }
                self.end(at, Without::Rollback)
            }
            Err(ExecuteError::Failed(error)) => {
                if matches!(error, Error::Full { .. } | Error::TooLarge { .. }) {
                    // it may have got its locks before it was refused
                    self.holds(at, footprint, 0);
                }
                self.failed(at, error, conflict)
            }
        }
    }

    fn holds(&mut self, at: usize, footprint: Footprint, saw: usize) {
        if let Some(slot) = &mut self.slots[at] {
            slot.held = std::mem::take(&mut slot.held).and(footprint);
            slot.saw = slot.saw.max(saw);
        }
    }

    /// Handles the error of a transaction's step: the transaction goes on, was rolled back, or ends
    /// the run.
    fn failed(&mut self, at: usize, error: Error, conflict: bool) -> Stopped {
        match error {
            Error::LockTimeout | Error::Conflict if !conflict => {
                return wrong(format!("{error:?}, though nobody holds the lock"));
            }
            Error::Conflict | Error::Expired => {
                self.forget(at, 0)?;
                self.slots[at] = None;
                self.diary.count("lost transaction");
            }
            Error::Full { .. } => return self.full(&error),
            error if !is_ordinary(&error) => return Err(error.into()),
            _ => {}
        }
        Ok(())
    }

    /// Undoes the effects of an open transaction in the model, down to the first `to`.
    fn forget(&mut self, at: usize, to: usize) -> Stopped {
        let Some(slot) = &mut self.slots[at] else { return Ok(()) };
        for (command, inverse) in slot.effects.drain(to.min(slot.effects.len())..).rev() {
            if let Err(rejection) = self.live.apply(&inverse) {
                return wrong(format!("the inverse {inverse:?} of {command:?} is rejected with {rejection:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn look(&mut self, at: usize, look: Option<&Look<M>>) -> Stopped {
        let footprint = footprint_of(look);
        let conflict = self.is_held(Some(at), &footprint);
        let shown = self.oracle.shown(&footprint);
        let Some(slot) = &mut self.slots[at] else { return Ok(()) };
        let found = slot.tx.read_within(&footprint, |m| show(look, m));
        self.diary.note(|| format!("{at}: read {look:?}: {}", outcome(&found)));
        match found {
            Ok(_) if conflict => wrong("a read got past another transaction's exclusive lock"),
            Ok(found) if found != show(look, &self.live) => wrong("a transaction does not read what it should see"),
            Ok(_) => {
                self.holds(at, footprint, shown);
                Ok(())
            }
            Err(error) => self.failed(at, error, conflict),
        }
    }

    pub(super) fn savepoint(&mut self, at: usize) -> Stopped {
        let Some(slot) = &mut self.slots[at] else { return Ok(()) };
        match slot.tx.savepoint() {
            Ok(savepoint) => {
                self.diary.note(|| format!("{at}: savepoint {}", slot.savepoints.len()));
                slot.savepoints.push((savepoint, slot.effects.len(), slot.done));
                Ok(())
            }
            Err(error) => self.failed(at, error, false),
        }
    }

    pub(super) fn rollback_to(&mut self, at: usize, which: u64) -> Stopped {
        let Some(slot) = &mut self.slots[at] else { return Ok(()) };
        if let Some(past) = slot.past.last() {
            match slot.tx.rollback_to(*past) {
                Err(Error::UnknownSavepoint | Error::Expired) => {}
                other => return wrong(format!("a savepoint that was rolled past gave {other:?}")),
            }
        }
        let Some(which) = which.checked_rem(slot.savepoints.len() as u64).map(|at| at as usize) else {
            return Ok(());
        };
        let (savepoint, effects, done) = slot.savepoints[which];
        let result = slot.tx.rollback_to(savepoint);
        self.diary.note(|| format!("{at}: rollback to savepoint {which}: {result:?}"));
        match result {
            Ok(()) => {
                slot.past.extend(slot.savepoints.drain(which + 1..).map(|(savepoint, ..)| savepoint));
                slot.done = done;
                self.diary.count("rolled back to a savepoint");
                self.forget(at, effects)
            }
            Err(error) => self.failed(at, error, false),
        }
    }

    /// Commits. A transaction that must run as a whole executes its next command instead, until
    /// none is left.
    pub(super) fn commit(&mut self, at: usize, durability: Durability, by: By) -> Stopped {
        let Some(slot) = &self.slots[at] else { return Ok(()) };
        if !self.plan.source.ends_anywhere()
            && let Some(command) = slot.script.get(slot.done).cloned()
        {
            return self.go_on(at, &command);
        }
        let Some(Slot { tx, effects, saw, .. }) = self.slots[at].take() else { return Ok(()) };
        let commands: Vec<M::Command> = effects.iter().map(|(command, _)| command.clone()).collect();
        let result = match by {
            By::Waiting => tx.commit_with(durability).map(|()| None),
            By::Ticket => tx.submit_with(durability).map(Some),
        };
        self.diary.note(|| format!("{at}: commit {durability:?}, {by:?}: {}", outcome(&result)));
        let now = self.disk.monotonic();
        match result {
            Ok(ticket) => {
                let position = match commands.as_slice() {
                    [] => 0,
                    commands => self.oracle.commit(commands, durability).map_err(Stop::Wrong)?,
                };
                match ticket {
                    Some(ticket) => self.commits.push(Pending { position, saw, wanted: (), durability, ticket }),
                    None => {
                        self.oracle.acknowledge(position, durability, now);
                        self.oracle.ack(saw);
                    }
                }
                self.diary.count("committed");
                Ok(())
            }
            Err(error) if is_ordinary(&error) => {
                for (_, inverse) in effects.iter().rev() {
                    self.redo(inverse)?;
                }
                Ok(())
            }
            Err(error) => {
                if !commands.is_empty() {
                    self.oracle.commit_in_doubt(&commands).map_err(Stop::Wrong)?;
                }
                Err(error.into())
            }
        }
    }

    pub(super) fn end(&mut self, at: usize, how: Without) -> Stopped {
        self.forget(at, 0)?;
        let Some(Slot { tx, .. }) = self.slots[at].take() else { return Ok(()) };
        self.diary.note(|| format!("{at}: {how:?}"));
        self.diary.count("rolled back");
        match how {
            Without::Rollback => Ok(tx.rollback()?),
            Without::Drop => {
                drop(tx);
                Ok(())
            }
        }
    }

    /// Advances the clock until every transaction has expired.
    pub(super) fn expire(&mut self) -> Stopped {
        self.disk.advance(self.plan.options.max_txn_age.saturating_mul(2));
        self.engine()?.step(EngineStep::Expire)?;
        self.diary.note(|| "every transaction expires".to_owned());
        for at in 0..self.slots.len() {
            self.forget(at, 0)?;
            if let Some(slot) = self.slots[at].take() {
                match slot.tx.commit() {
                    Err(Error::Expired) => self.diary.count("expired"),
                    Err(error) if !is_ordinary(&error) => return Err(error.into()),
                    other => return wrong(format!("an expired transaction commits: {other:?}")),
                }
            }
        }
        Ok(())
    }
}
