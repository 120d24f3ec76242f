//! Undoes the transactions that had not ended: in memory only, or logged step by step as far as there is
//! space.

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::machine::StateMachine;
use crate::options::Phase;
use crate::recovery::report::{ProgressReporter, RecoveryReport};
use crate::txn::{ActiveTransactions, Scope, UndoFault, guarded, roll_back};
use crate::wal::{Level, Log, Reservation};

impl From<UndoFault> for Error {
    fn from(_: UndoFault) -> Error {
        Error::Poisoned
    }
}

/// Undoes all transactions that have not ended, and logs nothing. Returns the number of steps.
pub(crate) fn undo_in_memory<M: StateMachine>(
    state: &mut M,
    table: &mut ActiveTransactions<M::Command>,
) -> Result<u64> {
    let undone = guarded(|| roll_back::<M, Error, ()>(state, table, Scope::All, || Ok(()), |_, _, ()| Ok(())))??;
    *table = ActiveTransactions::default();
    Ok(undone)
}

/// The state as the log describes it, with the effects of transactions whose undo is not logged yet.
pub(crate) struct PendingUndo<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
}

impl<M: StateMachine> PendingUndo<M> {
    /// Undoes step by step and logs each step. `room` claims space for each record, and fails if there is
    /// none; a later call continues there. `report` receives the number of steps of this call. When it
    /// returns `Ok`, everything is in the log but not yet durable.
    ///
    /// # Errors
    /// The error of `room`; [`Error::Latched`]; [`Error::Poisoned`] if the machine rejects an inverse.
    pub(crate) fn log_pending_undo<'a>(
        &mut self,
        mut room: impl FnMut() -> Result<Reservation<'a>>,
        mut report: impl FnMut(u64),
    ) -> Result<()> {
        let mut done = 0u64;
        let PendingUndo { state, table } = self;
        guarded(|| {
            roll_back::<M, Error, _>(state, table, Scope::All, &mut room, |txn, undo_next, room| {
                room.append(&[], None, |lsn| Record::Clr { txn, undo_next }.head(lsn))?;
                done = done.saturating_add(1);
                report(done);
                Ok(())
            })
        })??;
        for txn in table.ids() {
            room()?.append(&[], None, |lsn| Record::Abort { txn }.head(lsn))?;
            table.end(txn);
        }
        debug_assert!(table.is_empty(), "every transaction has ended");
        Ok(())
    }

    /// At open: undoes everything, logs it and makes that durable. Returns the state.
    ///
    /// On a full disk it undoes everything in memory, and also returns what is not logged yet. That has to
    /// be logged before anything else is.
    pub(super) fn undo_at_open(
        mut self,
        log: &Log,
        report: &mut RecoveryReport,
        reporter: &ProgressReporter,
    ) -> Result<(M, Option<PendingUndo<M>>)> {
        if self.table.is_empty() {
            return Ok((self.state, None));
        }
        report.undone = self.table.len() as u64;
        let total = self.table.iter().map(|(_, undo)| undo.len() as u64).fold(0, u64::saturating_add);
        // the reserve is used only if the disk is full
        let mut room = log.last_room();
        let room = || match room.reserve() {
            Err(Error::Full { source, .. }) => {
                Err(Error::Full { what: "the rollback of recovered transactions", source })
            }
            other => other,
        };
        match self.log_pending_undo(room, |done| reporter.report(Phase::Undo, done, total)) {
            Ok(()) => {
                log.wait(log.seal()?, Level::Durable)?;
                report.undo_steps = total;
                Ok((self.state, None))
            }
            Err(error) if error.is_full() => {
                let (mut state, mut table) = guarded(|| (self.state.clone(), self.table.clone()))?;
                undo_in_memory(&mut state, &mut table)?;
                report.undo_steps = total;
                report.warnings.push(format!(
                    "{error}: the transactions are undone in memory, and commits are refused until there is space"
                ));
                Ok((state, Some(self)))
            }
            Err(error) => Err(error),
        }
    }
}
