//! Logs the undo of recovered transactions that a full disk kept out of the log at open.

use crate::error::{Error, Result};
use crate::machine::StateMachine;
use crate::txn::StateCore;
use crate::wal::{Level, Log, Need};

/// Logs the pending undo and makes it durable. The caller must not hold a lock.
///
/// # Errors
/// [`Error::Full`] while the disk has no space for these records.
pub(crate) fn log_pending_undo<M: StateMachine>(state: &StateCore<M>, log: &Log) -> Result<()> {
    let need = Need::record(0);
    // each turn logs at least one record, and as many as there is room for
    loop {
        if state.read()?.pending_undo.is_none() {
            return Ok(());
        }
        let (mut core, first) = log.reserve_under(need, || state.write_trusted())?;
        let Some(pending_undo) = &mut core.pending_undo else { return Ok(()) };
        let (mut first, mut is_short) = (Some(first), false);
        let room = || match first.take() {
            Some(room) => Ok(room),
            None => log.try_reserve(need)?.ok_or_else(|| {
                is_short = true;
                Error::Full { what: "the rollback of recovered transactions", source: None }
            }),
        };
        match pending_undo.log_undo(room, |room, record| room.append(&[], None, |lsn| record.head(lsn)).map(drop)) {
            Ok(()) => {
                core.pending_undo = None;
                drop(core);
                return log.wait(log.seal()?, Level::Durable);
            }
            Err(_) if is_short => {}
            Err(Error::Poisoned) => return Err(state.poison()),
            Err(error) => return Err(error),
        }
    }
}
