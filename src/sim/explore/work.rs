//! What a workload is made of: transactions, looks at the state, and steps drawn from a seed.
//!
//! A step makes sense whatever came before it, so that a history can be thinned out and still be
//! run.

use super::super::rng::Rng;
use crate::durability::Durability;
use crate::durability::ReadLevel;
use crate::io::sync::Arc;
use crate::machine::{Access, Claim, Footprint, StateMachine};
use crate::wal::LogStep;
use std::fmt;
use std::time::Duration;

/// How many transactions are open at a time, at the most.
pub(super) const SLOTS: usize = 4;
/// How long `Interval` commits of a workload may take.
const INTERVAL: Duration = Duration::from_millis(50);

/// The commands of one transaction.
pub(super) type Script<M> = Vec<<M as StateMachine>::Command>;
type Show<M> = Arc<dyn Fn(&M) -> Vec<u8> + Send + Sync>;
pub(super) type Draw<T> = Box<dyn Fn(&mut Rng) -> T + Send + Sync>;

/// Where the commands come from.
pub(super) enum Source<M: StateMachine> {
    /// Any command may stand beside any other, and a transaction may end anywhere.
    Commands(Draw<M::Command>),
    /// Transactions that only make sense as a whole.
    Transactions(Draw<Script<M>>),
    /// The same, one after the other as listed.
    Listed(Vec<Script<M>>),
}

impl<M: StateMachine> Source<M> {
    /// Whether a transaction may commit before it has come to its end.
    pub(super) fn ends_anywhere(&self) -> bool {
        matches!(self, Source::Commands(_))
    }

    /// Any command, by itself.
    pub(super) fn command(&self, rng: &mut Rng) -> Option<M::Command> {
        match self {
            Source::Commands(draw) => Some(draw(rng)),
            Source::Transactions(draw) => any(&draw(rng), rng),
            Source::Listed(all) => any(all.get(rng.below(all.len() as u64) as usize)?, rng),
        }
    }

    fn script(&self, rng: &mut Rng) -> Script<M> {
        match self {
            Source::Commands(draw) => (0..1 + rng.below(6)).map(|_| draw(rng)).collect(),
            Source::Transactions(draw) => draw(rng),
            // which is next on the list is known when it begins
            Source::Listed(_) => Script::<M>::new(),
        }
    }
}

fn any<C: Clone>(script: &[C], rng: &mut Rng) -> Option<C> {
    script.get(rng.below(script.len() as u64) as usize).cloned()
}

/// A look at a part of the state: what it reads, and what it shows of it.
///
/// The exploration checks that it shows the right thing, and that what it showed is never missing
/// afterwards.
pub struct Look<M> {
    pub(super) footprint: Footprint,
    pub(super) show: Show<M>,
}

impl<M> Clone for Look<M> {
    fn clone(&self) -> Self {
        Look { footprint: self.footprint.clone(), show: self.show.clone() }
    }
}

impl<M> fmt::Debug for Look<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.footprint.claims())
    }
}

impl<M> Look<M> {
    /// A look that stays within `footprint`, of which all counts as shared.
    pub fn new(footprint: &Footprint, show: impl Fn(&M) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Look { footprint: shared(footprint), show: Arc::new(show) }
    }
}

/// The same extents, for reading.
pub(super) fn shared(footprint: &Footprint) -> Footprint {
    footprint.claims().iter().fold(Footprint::none(), |all, claim| {
        all.and_claim(Claim { access: Access::Shared, extent: claim.extent.clone() })
    })
}

/// How a transaction is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Waiting,
    Ticket,
}

/// How a transaction ends without a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    Rollback,
    Drop,
}

/// How an engine goes before it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Closed, with transactions open.
    Close,
    /// Dropped, and the transactions later than the engine.
    DropFirst,
    /// Dropped, after the transactions.
    DropLast,
}

pub(super) enum Step<M: StateMachine> {
    /// The next command of the transaction in a slot; where the slot is vacant, the transaction
    /// begins.
    Go {
        slot: usize,
        script: Script<M>,
    },
    Look {
        slot: usize,
        look: Option<Look<M>>,
    },
    Savepoint {
        slot: usize,
    },
    RollbackTo {
        slot: usize,
        which: u64,
    },
    Commit {
        slot: usize,
        durability: Durability,
        by: By,
    },
    End {
        slot: usize,
        how: Without,
    },
    Execute {
        command: M::Command,
        durability: Durability,
        by: By,
    },
    Wait {
        which: u64,
    },
    Read {
        look: Option<Look<M>>,
        level: ReadLevel,
    },
    View {
        level: ReadLevel,
    },
    Log(LogStep),
    Digest,
    BeginCheckpoint,
    CheckpointStage,
    Checkpoint,
    Sync,
    Pass(Duration),
    Expire,
    /// So many bytes are left on the disk from here on, or as many as one likes.
    Space(Option<u64>),
    Reopen(Leave),
}

impl<M: StateMachine> Clone for Step<M> {
    fn clone(&self) -> Self {
        match self {
            Step::Go { slot, script } => Step::Go { slot: *slot, script: script.clone() },
            Step::Look { slot, look } => Step::Look { slot: *slot, look: look.clone() },
            Step::Savepoint { slot } => Step::Savepoint { slot: *slot },
            Step::RollbackTo { slot, which } => Step::RollbackTo { slot: *slot, which: *which },
            Step::Commit { slot, durability, by } => Step::Commit { slot: *slot, durability: *durability, by: *by },
            Step::End { slot, how } => Step::End { slot: *slot, how: *how },
            Step::Execute { command, durability, by } => {
                Step::Execute { command: command.clone(), durability: *durability, by: *by }
            }
            Step::Wait { which } => Step::Wait { which: *which },
            Step::Read { look, level } => Step::Read { look: look.clone(), level: *level },
            Step::View { level } => Step::View { level: *level },
            Step::Log(step) => Step::Log(*step),
            Step::Digest => Step::Digest,
            Step::BeginCheckpoint => Step::BeginCheckpoint,
            Step::CheckpointStage => Step::CheckpointStage,
            Step::Checkpoint => Step::Checkpoint,
            Step::Sync => Step::Sync,
            Step::Pass(time) => Step::Pass(*time),
            Step::Expire => Step::Expire,
            Step::Space(free_bytes) => Step::Space(*free_bytes),
            Step::Reopen(leave) => Step::Reopen(*leave),
        }
    }
}

/// How much space the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Enough,
    /// It runs out and comes back.
    Scarce,
}

/// Draws the steps of a workload.
pub(super) struct Drawing<'a, M: StateMachine> {
    pub(super) source: &'a Source<M>,
    pub(super) looks: Option<&'a Draw<Look<M>>>,
    pub(super) space: Space,
    pub(super) rng: Rng,
}

impl<M: StateMachine> Drawing<'_, M> {
    pub(super) fn steps(&mut self, count: usize) -> Vec<Step<M>> {
        let mut steps: Vec<_> = (0..count).map(|_| self.step()).collect();
        // a list is played out, whatever was asked for: in each round one of the open transactions
        // gets on
        if let Source::Listed(all) = self.source {
            let rounds: usize = all.iter().map(|script| script.len() + 2).sum();
            let slots = (0..rounds).flat_map(|_| 0..SLOTS);
            steps.extend(slots.map(|slot| Step::Go { slot, script: Script::<M>::new() }));
        }
        steps
    }

    pub(super) fn step(&mut self) -> Step<M> {
        let slot = self.rng.below(SLOTS as u64) as usize;
        match self.rng.below(40) {
            0..=13 => Step::Go { slot, script: self.source.script(&mut self.rng) },
            14..=15 => Step::Look { slot, look: self.look() },
            16 => Step::Savepoint { slot },
            17 => Step::RollbackTo { slot, which: self.rng.next() },
            18..=21 => Step::Commit { slot, durability: self.durability(), by: self.by() },
            22 => Step::End { slot, how: if self.rng.coin() { Without::Rollback } else { Without::Drop } },
            23..=27 => self.execute(),
            28 => Step::Wait { which: self.rng.next() },
            29..=30 => Step::Read { look: self.look(), level: self.level() },
            31 => Step::View { level: self.level() },
            32..=33 => Step::Log(LogStep::ALL[self.rng.below(4) as usize]),
            34 => Step::Digest,
            35 => Step::Log(LogStep::Flush),
            36 => [Step::BeginCheckpoint, Step::CheckpointStage, Step::CheckpointStage][self.rng.below(3) as usize]
                .clone(),
            37 => match (self.space, self.rng.below(4)) {
                (Space::Scarce, 0) => Step::Space(None),
                (Space::Scarce, 1..=2) => Step::Space(Some(self.rng.below(12) << 12)),
                _ => Step::Pass(Duration::from_millis(30)),
            },
            38 => match self.rng.below(12) {
                0 => Step::Expire,
                1..=5 => Step::Checkpoint,
                _ => Step::Sync,
            },
            _ => match self.rng.below(8) {
                0 => Step::Reopen(Leave::Close),
                1 => Step::Reopen(Leave::DropFirst),
                2 => Step::Reopen(Leave::DropLast),
                _ => Step::CheckpointStage,
            },
        }
    }

    /// A command of its own, where the source has transactions of one command; else a part of one.
    fn execute(&mut self) -> Step<M> {
        let durability = self.durability();
        let by = self.by();
        match self.source {
            Source::Commands(draw) => Step::Execute { command: draw(&mut self.rng), durability, by },
            _ => {
                let slot = self.rng.below(SLOTS as u64) as usize;
                Step::Go { slot, script: self.source.script(&mut self.rng) }
            }
        }
    }

    fn look(&mut self) -> Option<Look<M>> {
        match self.looks {
            Some(draw) if self.rng.below(8) > 0 => Some(draw(&mut self.rng)),
            _ => None,
        }
    }

    fn by(&mut self) -> By {
        if self.rng.below(3) == 0 { By::Ticket } else { By::Waiting }
    }

    fn level(&mut self) -> ReadLevel {
        if self.rng.below(3) == 0 { ReadLevel::Latest } else { ReadLevel::Hardened }
    }

    fn durability(&mut self) -> Durability {
        match self.rng.below(6) {
            0 => Durability::Os,
            1 => Durability::Interval(INTERVAL),
            _ => Durability::Sync,
        }
    }
}
