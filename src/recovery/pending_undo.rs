//! Undoing the losers: in memory only, or step by step into the log, as far as there is room for that.

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::machine::StateMachine;
use crate::txn::{ActiveTransactions, Scope, UndoFault, guarded, roll_back};
use crate::wal::Log;

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
    let undone = guarded(|| roll_back::<M, Error>(state, table, Scope::All, || Ok(()), |_, _| Ok(())))??;
    *table = ActiveTransactions::default();
    Ok(undone)
}

/// The state as the log tells it, losers included, of which the undo is still pending_undo to the log.
pub(crate) struct PendingUndo<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
}

impl<M: StateMachine> PendingUndo<M> {
    /// Undoes and logs, as far as `ready` says before each record that there is room for it; told again, it goes on from there. `tell`
    /// is told how many steps this call has done. When it returns `Ok` all of it is in the log, and not yet durable.
    ///
    /// # Errors
    /// What `ready` says; [`Error::Latched`]; [`Error::Poisoned`] if the machine broke its law.
    pub(crate) fn pay(
        &mut self,
        log: &Log,
        mut ready: impl FnMut() -> Result<()>,
        mut tell: impl FnMut(u64),
    ) -> Result<()> {
        let mut done = 0u64;
        let PendingUndo { state, table } = self;
        guarded(|| {
            roll_back::<M, Error>(state, table, Scope::All, &mut ready, |txn, undo_next| {
                log.append_record(&[], None, |lsn| Record::Clr { txn, undo_next }.head(lsn))?;
                done = done.saturating_add(1);
                tell(done);
                Ok(())
            })
        })??;
        for txn in table.ids() {
            ready()?;
            log.append_record(&[], None, |lsn| Record::Abort { txn }.head(lsn))?;
            table.end(txn);
        }
        Ok(())
    }
}

/// Makes room for one more record of the undo at open, where it can, so that the reserve is only used where the disk is full.
pub(super) fn reserve_too(log: &Log) -> impl FnMut() -> Result<()> {
    let mut full = false;
    move || {
        while let Some(lack) = log.lacks_room(0)? {
            // a full disk is not asked again for each record
            if full && log.has_last_room() {
                break;
            }
            match log.make_room(lack, 0) {
                Err(error) if error.is_full() && log.has_last_room() => full = true,
                Err(Error::Full { source, .. }) => {
                    return Err(Error::Full { what: "the undo of what was open", source });
                }
                other => other?,
            }
        }
        Ok(())
    }
}
