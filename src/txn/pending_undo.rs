//! Undo of the transactions that recovery found open: in memory only, or logged step by step.

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::machine::StateMachine;
use crate::txn::{ActiveTransactions, Scope, UndoFault, guarded, roll_back};

impl From<UndoFault> for Error {
    fn from(_: UndoFault) -> Error {
        Error::Poisoned
    }
}

/// Undoes all transactions that have not ended, on a state whose changes are not logged. Returns
/// the number of effects undone.
///
/// # Errors
/// [`Error::Poisoned`] if the machine panicked or broke its law.
pub(crate) fn undo_in_memory<M: StateMachine>(
    state: &mut M,
    table: &mut ActiveTransactions<M::Command>,
) -> Result<u64> {
    let undone = guarded(|| roll_back::<M, Error, ()>(state, table, Scope::All, || Ok(()), |_, _, ()| Ok(())))??;
    *table = ActiveTransactions::default();
    Ok(undone)
}

/// The state that the log describes. It contains the effects of transactions whose undo is not
/// logged yet.
pub(crate) struct PendingUndo<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
}

impl<M: StateMachine> PendingUndo<M> {
    /// Undoes all open transactions and logs each step through `append`. Before each record, `room`
    /// reserves space for it; if that fails, the undo stops, and another call continues there. When
    /// it returns `Ok`, the whole undo is appended to the log, but it is not durable yet.
    ///
    /// # Errors
    /// Those of `room` and `append`; [`Error::Poisoned`] if the machine panicked or broke its
    /// law.
    pub(crate) fn log_undo<R>(
        &mut self,
        mut room: impl FnMut() -> Result<R>,
        mut append: impl FnMut(R, Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let PendingUndo { state, table } = self;
        guarded(|| {
            roll_back::<M, Error, _>(state, table, Scope::All, &mut room, |txn, undo_next, room| {
                append(room, Record::Clr { txn, undo_next })
            })
        })??;
        for txn in table.ids() {
            append(room()?, Record::Abort { txn })?;
            table.end(txn);
        }
        debug_assert!(table.is_empty(), "every transaction has ended");
        Ok(())
    }
}
