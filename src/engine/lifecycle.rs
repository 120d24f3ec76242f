//! Closing an engine, by a call or by the drop of its last handle.

use super::shared::Shared;
use super::transaction;
use crate::checkpoint::{CheckpointEnds, log_pending_undo};
use crate::error::{Error, Result};
use crate::machine::StateMachine;
use crate::wal::{DeferredWakes, Log};

/// Closes the engine: it refuses new operations, rolls back open transactions, takes a checkpoint
/// if that costs no more than what has changed, and marks the log as closed cleanly. A second call
/// returns the same result.
pub(super) fn close<M: StateMachine>(shared: &Shared<M>) -> Result<()> {
    if shared.checkpointer.is_in_stage() {
        shared.maintenance.ask_for_close();
        return Err(Error::invalid(
            "close was called from within a stage of a checkpoint; the store is closed once that stage has ended",
        ));
    }
    let mut ends = CheckpointEnds::default();
    let result = {
        // a waker may call this again
        let _wakes = DeferredWakes::begin();
        let mut outcome = shared.close_result.lock();
        outcome.get_or_insert_with(|| close_once(shared, &mut ends)).clone()
    };
    // Event subscribers are foreign code: they run under no lock, and may call this again. The
    // log's event is reported first. Otherwise a nested call would report it within a subscriber,
    // where `tracing` drops events.
    if let Some(log) = &shared.log {
        log.end_threads();
    }
    ends.report(shared.checkpointer.monitor());
    shared.checkpointer.monitor().report_figures();
    result
}

/// Closes the engine if user code called `close` within a stage of a checkpoint. The caller holds
/// no lock.
pub(super) fn close_if_asked<M: StateMachine>(shared: &Shared<M>) {
    if shared.maintenance.takes_over_close() {
        let _ = close(shared);
    }
}

/// Ends the store after the last handle was dropped, as a close without a checkpoint does.
///
/// Transactions that are still open are left to the next open, which rolls them back: this thread
/// may be within one of them, and a large one takes a while.
pub(super) fn end_dropped<M: StateMachine>(shared: &Shared<M>) {
    if shared.checkpointer.is_in_stage() {
        // another owner may have the store only after this stage, so the maintenance thread, which
        // runs the stage, ends the log
        shared.maintenance.leave_end();
        return;
    }
    let Some(log) = &shared.log else { return };
    // a transaction that outlives the handles is refused, also one that waits for a checkpoint
    shared.core.close();
    shared.checkpointer.throttle().note_end();
    {
        let _wakes = DeferredWakes::begin();
        // nobody is left to be told of a failure: the next open recovers as after a kill
        let _ = end_log_but_threads(shared, log);
    }
    log.end_threads();
}

/// Ends the store if its last handle was dropped within a stage of a checkpoint. The caller holds
/// no lock.
pub(super) fn end_if_left<M: StateMachine>(shared: &Shared<M>) {
    if shared.maintenance.takes_over_end() {
        end_dropped(shared);
    }
}

/// Ends the log, and marks its end as clean unless the machine panicked. The caller ends its
/// threads after it has released its locks.
fn end_log_but_threads<M: StateMachine>(shared: &Shared<M>, log: &Log) -> Result<()> {
    let poisoned = shared.core.check_not_poisoned();
    // no stage of a checkpoint may still run once the store can have another owner
    let _job = shared.checkpointer.between_stages();
    if poisoned.is_ok() { log.close_but_threads() } else { log.abandon_but_threads() }
}

fn close_once<M: StateMachine>(shared: &Shared<M>, ends: &mut CheckpointEnds) -> Result<()> {
    shared.core.close();
    // A transaction that waits holds its own lock, which ending it needs. So from here on no call
    // waits for footprint locks or for room in the log.
    shared.locks.close();
    shared.checkpointer.throttle().note_end();
    // a transaction that began before the close is in the list now; one that begins now sees that
    // the core is closed
    loop {
        let open = shared.open.all();
        if open.is_empty() {
            break;
        }
        open.iter().for_each(|tx| transaction::end(shared, tx, Error::Closed));
    }
    let Some(log) = &shared.log else { return Ok(()) };
    let poisoned = shared.core.check_not_poisoned();
    let checkpoint = match &poisoned {
        Ok(()) if shared.options.checkpoint_on_close && shared.checkpointer.monitor().is_due_at_close() => {
            let (result, reached) = shared.checkpointer.checkpoint_at_close();
            *ends = reached;
            result
        }
        Ok(()) => {
            // one in progress is given up after its current chunk
            shared.checkpointer.stop();
            // without space for it, the next open undoes the same again
            log_pending_undo(&shared.core, log).or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })
        }
        Err(_) => Ok(()),
    };
    let closed = end_log_but_threads(shared, log);
    poisoned.and(checkpoint).and(closed)
}
