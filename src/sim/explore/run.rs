//! A run: an engine on a simulated disk, beside the model that every answer is compared with.
//!
//! A run has one thread and several open transactions. If a lock is held, the engine must say so at
//! once.

use super::diary::Diary;
use super::explorable::Explorable;
use super::files::Files;
use super::oracle::{Judge, Lost, Oracle, digest};
use super::settings::Explore;
use super::slot::Slot;
use super::stop::{Stop, Stopped, wrong};
use super::work::{Look, SLOTS};
use crate::durability::Durability;
use crate::engine::{Engine, Ticket};
use crate::error::Error;
use crate::io::sync::Arc;
use crate::machine::{Access, Footprint, StateMachine};
use crate::sim::SimDisk;

/// A ticket, and the answer that it must give.
pub(super) struct Pending<T> {
    pub(super) position: usize,
    /// The newest commit that the transaction had seen.
    pub(super) saw: usize,
    /// The answer that the ticket must give.
    pub(super) wanted: T,
    pub(super) durability: Durability,
    pub(super) ticket: Ticket<T>,
}

/// One run of a workload.
pub(super) struct Run<'a, M: Explorable> {
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
    /// When operations may fail for lack of space.
    pub(super) refusals: Refusals,
    pub(super) files: Files,
    pub(super) diary: &'a mut Diary,
}

/// When the engine may return an error for lack of space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusals {
    WithoutSpace,
    AtAnyTime,
}

impl<'a, M: Explorable> Run<'a, M> {
    /// Opens the store and lets the judge check what it finds. Without a judge, any state is
    /// accepted.
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

    /// Whether a transaction other than the one in slot `me` holds a conflicting lock.
    pub(super) fn is_held(&self, me: Option<usize>, footprint: &Footprint) -> bool {
        let others = self.slots.iter().enumerate().filter(|(at, _)| Some(*at) != me);
        others.filter_map(|(_, slot)| slot.as_ref()).any(|slot| slot.held.conflicts_with(footprint))
    }

    /// Applies an executed command to the model.
    pub(super) fn redo(&mut self, command: &M::Command) -> Stopped<M::Command> {
        match self.live.apply(command) {
            Ok((_, inverse)) => Ok(inverse),
            Err(rejection) => wrong(format!("{command:?} is not deterministic: then accepted, now {rejection:?}")),
        }
    }

    /// Accepts an error for lack of space, if the disk is full.
    pub(super) fn full(&mut self, error: &Error) -> Stopped {
        self.diary.count("full");
        let free_bytes = self.disk.free_bytes();
        if self.refusals == Refusals::WithoutSpace && free_bytes > self.plan.options.max_log_bytes {
            return wrong(format!("{error}, though {free_bytes} bytes are free"));
        }
        Ok(())
    }
}

/// Opens a store and copies its state.
pub(super) fn open<M: Explorable>(plan: &Explore<M>, disk: &SimDisk, diary: &mut Diary) -> Stopped<(Engine<M>, M)> {
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
    (plan.invariant)(&found).map_err(|why| {
        diary.note(|| format!("the state that was opened: {}", plan.shown(&found)));
        Stop::Wrong(format!("in the state that was opened: {why}"))
    })?;
    Ok((engine, found))
}

pub(super) fn footprint_of<M>(look: Option<&Look<M>>) -> Footprint {
    look.map_or_else(|| Footprint::everything(Access::Shared), |look| look.footprint.clone())
}

/// What a look shows. Without a look, it is the digest of the whole state.
pub(super) fn show<M: StateMachine>(look: Option<&Look<M>>, machine: &M) -> Vec<u8> {
    look.map_or_else(|| digest(machine).to_le_bytes().to_vec(), |look| (look.show)(machine))
}

pub(super) fn outcome<T>(result: &crate::Result<T>) -> String {
    result.as_ref().map_or_else(|error| error.to_string(), |_| "done".to_owned())
}

/// Whether the engine and the run continue after this error.
pub(super) fn is_ordinary(error: &Error) -> bool {
    matches!(error, Error::Conflict | Error::LockTimeout | Error::Expired | Error::TooLarge { .. } | Error::Full { .. })
}
