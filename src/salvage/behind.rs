//! What stands behind the first damage: which transactions are there as a whole, and what can be made of them.
//!
//! A transaction is whole when its first record, its commit, and no gap between them are there. Under two-phase locks the order of
//! commits is an order in which all of them could have run one after the other, so each is carried out where it committed.

use super::report::Behind;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::ids::{Lsn, TxnId};
use crate::machine::StateMachine;
use std::collections::{BTreeMap, BTreeSet};

/// A command as it was logged, and by which version of the machine.
type Logged = (u32, Vec<u8>);

/// The transactions behind the first damage.
#[derive(Default)]
pub(super) struct Aftermath {
    pub(super) figures: Behind,
    /// Those of which all records so far were there.
    open: BTreeMap<TxnId, Vec<Logged>>,
    broken: BTreeSet<TxnId>,
}

impl Aftermath {
    /// Something is missing here: nothing that was open is whole.
    pub(super) fn gap(&mut self) {
        self.broken.extend(std::mem::take(&mut self.open).into_keys());
    }

    /// Notes a record; with a state, carries out what ends with it.
    pub(super) fn record<M: StateMachine>(
        &mut self,
        lsn: Lsn,
        bytes: &[u8],
        version: u32,
        state: Option<&mut M>,
    ) -> Result<()> {
        self.figures.records = self.figures.records.saturating_add(1);
        // kept only where they will be needed
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
            // what was rolled back is not missing
            Some(Record::Abort { txn }) => {
                self.open.remove(&txn);
                self.broken.remove(&txn);
            }
        }
        Ok(())
    }

    /// The figures, once all has been noted.
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

/// Carries a transaction out, all of it or, where the machine does not take it, nothing.
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
