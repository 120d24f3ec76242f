//! Undoes the transactions that had not ended, and logs each step as far as there is space.

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::machine::StateMachine;
use crate::options::Phase;
use crate::recovery::report::{ProgressReporter, RecoveryReport};
use crate::txn::{PendingUndo, guarded, undo_in_memory};
use crate::wal::{Level, Log, Reservation};

/// At open: undoes everything, logs it and makes that durable. Returns the state.
///
/// On a full disk it undoes everything in memory, and also returns what is not logged yet. That has
/// to be logged before anything else is.
pub(super) fn undo_at_open<M: StateMachine>(
    mut pending: PendingUndo<M>,
    log: &Log,
    report: &mut RecoveryReport,
    reporter: &ProgressReporter<'_>,
) -> Result<(M, Option<PendingUndo<M>>)> {
    if pending.table.is_empty() {
        return Ok((pending.state, None));
    }
    report.undone = pending.table.len() as u64;
    let total = pending.table.iter().map(|(_, undo)| undo.len() as u64).fold(0, u64::saturating_add);
    // the reserve is used only if the disk is full
    let mut room = log.last_room();
    let room = || match room.reserve() {
        Err(Error::Full { source, .. }) => Err(Error::Full { what: "the rollback of recovered transactions", source }),
        other => other,
    };
    let mut done = 0u64;
    let append = |room: Reservation<'_>, record: Record<'_>| {
        room.append(&[], None, |lsn| record.head(lsn))?;
        if let Record::Clr { .. } = record {
            done = done.saturating_add(1);
            reporter.report(Phase::Undo, done, total)?;
        }
        Ok(())
    };
    match pending.log_undo(room, append) {
        Ok(()) => {
            log.wait(log.seal()?, Level::Durable)?;
            report.undo_steps = total;
            Ok((pending.state, None))
        }
        Err(error) if error.is_full() => {
            let (mut state, mut table) = guarded(|| (pending.state.clone(), pending.table.clone()))?;
            undo_in_memory(&mut state, &mut table)?;
            report.undo_steps = total;
            report.warnings.push(format!(
                "{error}: the transactions are undone in memory, and commits are refused until there is space"
            ));
            Ok((state, Some(pending)))
        }
        Err(error) => Err(error),
    }
}
