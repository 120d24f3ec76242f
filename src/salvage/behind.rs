//! Finds and applies complete transactions in the log after the first damage.
//!
//! A transaction is complete if its first record and its commit are present, with no gap in
//! between. Under two-phase locking the commit order is a serial order, so each transaction is
//! applied at its commit.

use super::report::Behind;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::ids::{Lsn, TxnId};
use crate::machine::StateMachine;
use std::collections::{BTreeMap, BTreeSet};

/// An encoded command, and the version of the machine that encoded it.
type Logged = (u32, Vec<u8>);

/// The transactions after the first damage.
#[derive(Default)]
pub(super) struct Aftermath {
    pub(super) figures: Behind,
    /// Open transactions with all of their records so far.
    open: BTreeMap<TxnId, Vec<Logged>>,
    broken: BTreeSet<TxnId>,
}

impl Aftermath {
    /// Notes a gap: no transaction that is open here is complete.
    pub(super) fn gap(&mut self) {
        self.broken.extend(std::mem::take(&mut self.open).into_keys());
    }

    /// Takes the next record. Given a state, applies the transaction that the record commits.
    pub(super) fn record<M: StateMachine>(
        &mut self,
        lsn: Lsn,
        bytes: &[u8],
        version: u32,
        state: Option<&mut M>,
    ) -> Result<()> {
        self.figures.records = self.figures.records.saturating_add(1);
        // commands are kept only if they will be applied
        let logged = |command: &[u8]| (version, if state.is_some() { command.to_vec() } else { Vec::new() });
        match Record::decode(lsn, bytes) {
            None | Some(Record::Point | Record::Digest { .. }) => {}
            Some(Record::Execute { command, .. }) => {
                let commands = [logged(command)];
                self.whole(&commands, state)?;
            }
            Some(Record::Update { txn, command }) => {
                if txn.first_lsn() == lsn {
                    self.open.insert(txn, vec![logged(command)]);
                } else if let Some(commands) = self.open.get_mut(&txn) {
                    commands.push(logged(command));
                } else {
                    self.broken.insert(txn);
                }
            }
            Some(Record::Clr { txn, .. }) => match self.open.get_mut(&txn) {
                Some(commands) => drop(commands.pop()),
                None => drop(self.broken.insert(txn)),
            },
            Some(Record::Commit { txn, .. }) => match self.open.remove(&txn) {
                Some(commands) => self.whole(&commands, state)?,
                None => drop(self.broken.insert(txn)),
            },
            // a transaction that was rolled back is not missing
            Some(Record::Abort { txn }) => {
                self.open.remove(&txn);
                self.broken.remove(&txn);
            }
        }
        Ok(())
    }

    /// The totals, after the last record.
    pub(super) fn finish(mut self) -> Behind {
        self.figures.broken = self.broken.len() as u64;
        self.figures
    }

    fn whole<M: StateMachine>(&mut self, commands: &[Logged], state: Option<&mut M>) -> Result<()> {
        let figures = &mut self.figures;
        figures.whole = figures.whole.saturating_add(1);
        let Some(state) = state else { return Ok(()) };
        let count = if carry_out(commands, state)? { &mut figures.applied } else { &mut figures.refused };
        *count = count.saturating_add(1);
        Ok(())
    }
}

/// Applies a transaction completely, or not at all if the machine rejects one of its commands.
fn carry_out<M: StateMachine>(commands: &[Logged], state: &mut M) -> Result<bool> {
    let mut inverses = Vec::new();
    for (version, bytes) in commands {
        let applied = M::decode(bytes, *version).ok().and_then(|command| state.apply(&command).ok());
        if let Some((_, inverse)) = applied {
            inverses.push(inverse);
            continue;
        }
        for inverse in inverses.iter().rev() {
            state.apply(inverse).map_err(|_| Error::Poisoned)?;
        }
        return Ok(false);
    }
    Ok(true)
}
