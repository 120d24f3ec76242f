//! The model of durability: which commits must survive a crash, and which may.
//!
//! The rule: what recovery finds is the state after some prefix, in commit order, of the
//! transactions that committed or may have, and every acknowledged one is in that prefix. What a
//! hardened read showed counts as acknowledged.

use super::explorable::Explorable;
use super::work::shared;
use crate::durability::Durability;
use crate::machine::{Footprint, StateMachine};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::time::Duration;

/// A hash of the saved bytes: equal for equal states.
pub(super) fn digest<M: StateMachine>(machine: &M) -> u64 {
    struct Into(DefaultHasher);
    impl io::Write for Into {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut into = Into(DefaultHasher::new());
    // hashing has no errors; a machine that makes one up differs from one that does not
    if machine.save(&mut into).is_err() {
        into.0.write_u8(1);
    }
    into.0.finish()
}

/// What a crash loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The process; the page cache survives.
    Process,
    /// Everything that is not on the device.
    Power,
}

impl Lost {
    /// What this crash and another one lose together.
    pub(super) fn and(self, other: Lost) -> Lost {
        if self == Lost::Power { self } else { other }
    }
}

/// Checks a recovered state.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    /// The digest of the state after each commit, from what was last recovered.
    digests: Vec<u64>,
    /// The number of commits that must survive power loss.
    acked: usize,
    /// The number of commits that must survive a kill.
    written: usize,
}

impl Judge {
    pub(super) fn new(digest: u64) -> Judge {
        Judge { digests: vec![digest], acked: 0, written: 0 }
    }

    #[cfg(test)]
    pub(super) fn of(digests: Vec<u64>, acked: usize, written: usize) -> Judge {
        Judge { digests, acked, written }
    }

    /// The judge for a crash within the step that led to `after`. Commits of that step may survive
    /// or not.
    pub(super) fn until(mut self, after: &Judge) -> Judge {
        if after.digests.len() > self.digests.len() && after.digests.starts_with(&self.digests) {
            self.digests.clone_from(&after.digests);
        }
        self
    }

    pub(super) fn check(&self, found: u64, lost: Lost) -> Result<(), String> {
        let least = if lost == Lost::Power { self.acked } else { self.written };
        let commits = self.digests.len() - 1;
        if self.digests[least..].contains(&found) {
            return Ok(());
        }
        Err(match self.digests.iter().rposition(|digest| *digest == found) {
            Some(at) => format!("{at} commits are there, of {least} acknowledged and {commits} made"),
            None => format!("the state is none that {commits} commits, {least} of them acknowledged, went through"),
        })
    }
}

/// The committed state, and what is known about which commits must and may survive.
pub(super) struct Oracle<M> {
    /// The state with every commit, those in doubt included.
    committed: M,
    judge: Judge,
    /// The footprints that commits with `Sync` wrote, with the number of the commit.
    synced: Vec<(Footprint, usize)>,
    /// Commits with `Interval`, and when they are due.
    due: Vec<(usize, Duration)>,
    /// The state before the last commit, if that commit is in doubt.
    without_last: Option<M>,
}

impl<M: Explorable> Oracle<M> {
    pub(super) fn new(found: M) -> Self {
        let judge = Judge::new(digest(&found));
        Oracle { committed: found, judge, synced: Vec::new(), due: Vec::new(), without_last: None }
    }

    pub(super) fn judge(&self) -> &Judge {
        &self.judge
    }

    pub(super) fn committed(&self) -> &M {
        &self.committed
    }

    /// The digest of the committed state.
    pub(super) fn digest(&self) -> u64 {
        self.judge.digests.last().copied().unwrap_or(0)
    }

    /// Notes a transaction that committed, and returns its number.
    pub(super) fn commit(&mut self, commands: &[M::Command], durability: Durability) -> Result<usize, String> {
        let mut written = Footprint::none();
        for command in commands {
            self.committed.apply(command).map_err(|rejection| {
                format!("in commit order {command:?} is rejected with {rejection:?}, though it was carried out")
            })?;
            written = written.and(M::footprint(command));
        }
        self.judge.digests.push(digest(&self.committed));
        let at = self.judge.digests.len() - 1;
        if durability == Durability::Sync {
            self.synced.push((written, at));
        }
        Ok(at)
    }

    /// Notes a transaction whose commit failed with an unknown outcome.
    pub(super) fn commit_in_doubt(&mut self, commands: &[M::Command]) -> Result<(), String> {
        let before = self.committed.clone();
        self.commit(commands, Durability::Os)?;
        self.without_last = Some(before);
        Ok(())
    }

    /// Settles a commit in doubt by the state that the engine shows. Returns whether that state is
    /// possible.
    pub(super) fn settle(&mut self, shown: u64) -> bool {
        if let Some(before) = self.without_last.take()
            && shown != self.digest()
        {
            self.committed = before;
            self.judge.digests.pop();
            let last = self.judge.digests.len() - 1;
            self.synced.retain(|(_, at)| *at <= last);
        }
        shown == self.digest()
    }

    /// Whether a latched engine may show this state.
    pub(super) fn may_show(&self, shown: u64) -> bool {
        shown == self.digest() || self.without_last.as_ref().is_some_and(|before| digest(before) == shown)
    }

    pub(super) fn ack(&mut self, at: usize) {
        self.judge.acked = self.judge.acked.max(at);
        self.judge.written = self.judge.written.max(at);
        self.synced.retain(|(_, synced)| *synced > self.judge.acked);
    }

    pub(super) fn ack_all(&mut self) {
        self.ack(self.judge.digests.len() - 1);
    }

    /// Notes that a commit with this durability was acknowledged.
    pub(super) fn acknowledge(&mut self, at: usize, durability: Durability, now: Duration) {
        match durability {
            Durability::Sync => self.ack(at),
            Durability::Os => self.judge.written = self.judge.written.max(at),
            Durability::Interval(within) => {
                self.judge.written = self.judge.written.max(at);
                self.due.push((at, now.saturating_add(within)));
            }
        }
    }

    /// Notes that commits which are due were made durable.
    pub(super) fn synced_due(&mut self, now: Duration) {
        for (position, at) in std::mem::take(&mut self.due) {
            if at <= now {
                self.ack(position);
            } else {
                self.due.push((position, at));
            }
        }
    }

    /// The newest commit with `Sync` that a hardened read of this footprint depends on.
    pub(super) fn shown(&self, footprint: &Footprint) -> usize {
        let read = shared(footprint);
        let rests_on = self.synced.iter().filter(|(written, _)| written.conflicts_with(&read));
        rests_on.map(|(_, at)| *at).max().unwrap_or(0)
    }
}
