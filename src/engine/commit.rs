//! Execution of commands: locks, apply, append.

use super::answer::{AnswerBarrier, wait_for};
use super::encoded_command::EncodedCommand;
use super::execute_result::{ExecuteError, ExecuteResult};
use super::shared::{HeldLocks, Shared};
use crate::checkpoint::log_pending_undo;
use crate::durability::Durability;
use crate::error::Result;
use crate::format::bytes::Head;
use crate::format::record::Record;
use crate::ids::Lsn;
use crate::machine::{StateMachine, bulk};
use crate::txn::{Core, CoreWrite, UndoEntry, guarded};
use crate::wal::{Level, Log, Need, Position, Reservation, RollbackRoom};

/// A command that was executed and appended, but not acknowledged yet.
pub(super) struct Committed<M: StateMachine> {
    pub(super) reply: M::Reply,
    pub(super) barrier: AnswerBarrier,
}

/// A command that was applied and appended.
pub(super) struct Applied<M: StateMachine> {
    pub(super) reply: M::Reply,
    /// The inverse and the length of its encoding in bytes, if the caller keeps it.
    pub(super) undo: Option<(M::Command, u64)>,
    pub(super) position: Position,
    /// Room in the log for the records of its rollback, if it was reserved.
    pub(super) rollback: Option<RollbackRoom>,
}

/// Applies a command in place and appends its record. After an error the state is as before, unless
/// the error is [`Error::Poisoned`](crate::Error::Poisoned).
#[inline]
pub(super) fn apply_and_append<M: StateMachine>(
    shared: &Shared<M>,
    core: &mut Core<M>,
    room: Reservation<'_>,
    command: &M::Command,
    undo_room: Option<u64>,
    wanted: Option<Level>,
    (body, head): (&[u8], impl FnOnce(Lsn) -> Head),
) -> ExecuteResult<M, Applied<M>> {
    let timed = shared.cost_model.start(&*shared.storage);
    let outcome = guarded(|| match undo_room {
        Some(_) => core.state.apply(command).map(|(reply, inverse)| (reply, Some(inverse))),
        None => bulk::apply_without_inverse(&mut core.state, command),
    });
    let outcome = outcome.map_err(|_| shared.core.poison())?;
    shared.cost_model.stop(timed, &*shared.storage);
    let (reply, inverse) = outcome.map_err(ExecuteError::Rejected)?;
    let mut bytes = 0;
    if let (Some(room), Some(inverse)) = (undo_room, &inverse) {
        // the state has changed and nothing is logged yet, so a panic here must poison the state
        bytes = guarded(|| bulk::encoded_len::<M>(inverse)).map_err(|_| shared.core.poison())? as u64;
        let memory = UndoEntry::<M::Command>::memory_bytes(bytes);
        if memory > room {
            take_back(shared, core, command, &reply, Some(inverse))?;
            // report the total that exceeds the limit, not the size of this inverse alone
            let used = shared.options.max_txn_undo_bytes.saturating_sub(room);
            return Err(shared.undo_too_large(used.saturating_add(memory)).into());
        }
    }
    match room.append(body, wanted, head) {
        Ok((position, rollback)) => {
            let undo = undo_room.and(inverse).map(|inverse| (inverse, bytes));
            Ok(Applied { reply, undo, position, rollback })
        }
        Err(error) => {
            take_back(shared, core, command, &reply, inverse.as_ref())?;
            Err(error.into())
        }
    }
}

/// Undoes a command whose record was not appended.
fn take_back<M: StateMachine>(
    shared: &Shared<M>,
    core: &mut Core<M>,
    command: &M::Command,
    reply: &M::Reply,
    inverse: Option<&M::Command>,
) -> Result<()> {
    let mut undo = |inverse: &M::Command| core.state.apply(inverse).is_ok();
    let undone = guarded(|| match inverse {
        Some(inverse) => undo(inverse),
        None => bulk::inverse_of::<M>(command, reply).is_some_and(|inverse| undo(&inverse)),
    });
    match undone {
        Ok(true) => Ok(()),
        // a missing or rejected inverse breaks the machine's law, so the state must not be used any
        // more
        _ => Err(shared.core.poison()),
    }
}

/// Executes a command as a transaction of its own, and appends its record.
pub(super) fn execute<M: StateMachine>(
    shared: &Shared<M>,
    command: &M::Command,
    durability: Durability,
) -> ExecuteResult<M, Committed<M>> {
    // checked before any wait that only this thread could end
    shared.core.check_not_held()?;
    let mut encoded = EncodedCommand::of::<M>(command)?;
    let log = shared.log()?;
    log.check_record(encoded.body().len())?;
    shared.checkpointer.throttle().throttle()?;
    let need = Need::record(encoded.body().len());
    let lock = || lock_for_command(shared, log, &mut encoded, command);
    let ((mut core, held), room) = log.reserve_under(need, lock)?;
    let seen = encoded.needed(&shared.watermarks);
    let wall_micros = shared.storage.wall_clock_micros();
    let head = |lsn| Record::Execute { wall_micros, command: &[] }.head(lsn);
    let wanted = Some(durability.into());
    let applied = apply_and_append(shared, &mut core, room, command, None, wanted, (encoded.body(), head));
    if let Ok(applied) = &applied {
        encoded.note(&shared.watermarks, applied.position.end, durability);
    }
    drop(core);
    drop(held);
    match applied {
        Ok(applied) => {
            let barrier = AnswerBarrier { own: Some((applied.position, durability)), seen };
            Ok(Committed { reply: applied.reply, barrier })
        }
        Err(error) => {
            if let ExecuteError::Rejected(_) = &error {
                wait_for(shared.log.as_deref(), seen)?;
            }
            Err(error)
        }
    }
}

/// Locks the core for a single command at a moment when no transaction holds a conflicting lock. If
/// it had to wait for footprint locks, it returns them with the core lock. A caller that then waits
/// for log space releases both.
#[inline]
fn lock_for_command<'a, M: StateMachine>(
    shared: &'a Shared<M>,
    log: &Log,
    encoded: &mut EncodedCommand,
    command: &M::Command,
) -> Result<(CoreWrite<'a, M>, Option<HeldLocks<'a>>)> {
    let mut held: Option<HeldLocks<'a>> = None;
    loop {
        // the footprint is made before the core lock is taken, and only checked under it
        if held.is_none() && !shared.locks.are_free() {
            encoded.make_footprint::<M>(command)?;
        }
        let core = shared.core.write_spinning()?;
        shared.core.check()?;
        if core.pending_undo.is_some() {
            drop(core);
            drop(held.take());
            log_pending_undo(&shared.core, log)?;
            continue;
        }
        if held.is_some() || shared.locks.are_free() {
            return Ok((core, held));
        }
        match encoded.footprint() {
            Some(footprint) if shared.locks.is_free(footprint, None) => return Ok((core, held)),
            Some(footprint) => {
                drop(core);
                held = Some(shared.wait_for_locks(footprint)?);
            }
            None => {}
        }
    }
}

/// Locks the core for a command of a transaction. Recovery's pending undo is logged first.
pub(super) fn lock_core<'a, M: StateMachine>(shared: &'a Shared<M>, log: &Log) -> Result<CoreWrite<'a, M>> {
    loop {
        let core = shared.core.write_spinning()?;
        shared.core.check()?;
        if core.pending_undo.is_none() {
            return Ok(core);
        }
        drop(core);
        log_pending_undo(&shared.core, log)?;
    }
}
