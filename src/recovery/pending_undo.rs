//! Undoing the losers: in memory only, or step by step into the log, as far as there is room for that.

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::machine::StateMachine;
use crate::txn::{ActiveTransactions, Scope, UndoFault, guarded, roll_back};
use crate::wal::Reservation;

impl From<UndoFault> for Error {
    fn from(_: UndoFault) -> Error {
        Error::Poisoned
    }
}

/// Undoes all transactions that have not ended, on a state that nothing is logged for.
pub(crate) fn undo_in_memory<M: StateMachine>(
    state: &mut M,
    table: &mut ActiveTransactions<M::Command>,
) -> Result<u64> {
    let undone = guarded(|| roll_back::<M, Error, ()>(state, table, Scope::All, || Ok(()), |_, _, ()| Ok(())))??;
    *table = ActiveTransactions::default();
    Ok(undone)
}

/// The state as the log tells it, losers included, of which the undo is still pending_undo to the log.
pub(crate) struct PendingUndo<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
}

impl<M: StateMachine> PendingUndo<M> {
    /// Undoes and logs, as far as `room` finds room for one more record; called again, it goes on from there. `report` is told
    /// how many steps this call has done. When it returns `Ok`, all of it is in the log, and not yet durable.
    ///
    /// # Errors
    /// Those of `room`; [`Error::Latched`]; [`Error::Poisoned`] if the machine broke its law.
    pub(crate) fn pay<'a>(
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
        Ok(())
    }
}
