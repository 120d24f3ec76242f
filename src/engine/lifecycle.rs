//! Closing an engine.

use super::shared::Shared;
use super::transaction;
use crate::checkpoint::CheckpointEnds;
use crate::error::{Error, Result};
use crate::machine::StateMachine;
use crate::wal::DeferredWakes;

/// Closes the engine: nothing begins any more, open transactions are rolled back, a checkpoint is
/// taken, and the log is marked clean. A second call returns the same result.
pub(super) fn close<M: StateMachine>(shared: &Shared<M>) -> Result<()> {
    if shared.checkpointer.is_in_stage() {
        shared.maintenance.ask_for_close();
        return Err(Error::invalid("a checkpoint called this close; it follows once the checkpoint's stage has ended"));
    }
    let mut ends = CheckpointEnds::default();
    let result = {
        // a waker may call this again
        let _wakes = DeferredWakes::begin();
        let mut outcome = shared.close_result.lock();
        outcome.get_or_insert_with(|| close_once(shared, &mut ends)).clone()
    };
    // Event subscribers are foreign code: they run under no lock, and may call this again. The
    // log's event comes first, for a nested call would report it too, and `tracing` drops events of
    // a thread that is in a subscriber.
    if let Some(log) = &shared.log {
        log.end_threads();
    }
    ends.report();
    result
}

/// Closes the engine if code of users has asked for it within a stage of a checkpoint. The caller holds
/// no lock.
pub(super) fn close_if_asked<M: StateMachine>(shared: &Shared<M>) {
    if shared.maintenance.takes_over_close() {
        let _ = close(shared);
    }
}

/// Ends what the last handle leaves behind, without a checkpoint and a clean mark.
pub(super) fn abandon<M: StateMachine>(shared: &Shared<M>) {
    let Some(log) = &shared.log else { return };
    if shared.checkpointer.is_in_stage() {
        // the store can have another owner only after this stage; the thread of the stage sees to that
        shared.maintenance.leave_end();
        return;
    }
    {
        let _wakes = DeferredWakes::begin();
        // no stage of a checkpoint may run on once the store can have another owner
        let _job = shared.checkpointer.between_stages();
        let _ = log.abandon_but_threads();
    }
    log.end_threads();
}

fn close_once<M: StateMachine>(shared: &Shared<M>, ends: &mut CheckpointEnds) -> Result<()> {
    shared.core.close();
    // A transaction that waits holds what is needed to end it. Nothing waits for locks, nor for room in
    // the log, from here on.
    shared.locks.close();
    shared.checkpointer.throttle().note_end();
    // one that began just before is in the list now, and one that begins now sees the mark
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
        Ok(()) if shared.checkpointer.monitor().anything_since_snapshot() => {
            let (result, reached) = shared.checkpointer.checkpoint_unreported();
            *ends = reached;
            result
        }
        _ => Ok(()),
    };
    // no stage of another checkpoint may run on once the store can have another owner
    let _job = shared.checkpointer.between_stages();
    let closed = if poisoned.is_ok() { log.close_but_threads() } else { log.abandon_but_threads() };
    poisoned.and(checkpoint).and(closed)
}
