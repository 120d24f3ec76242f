//! Closing an engine.

use super::shared::Shared;
use super::transaction;
use crate::checkpoint::CheckpointEnds;
use crate::error::{Error, Result};
use crate::machine::StateMachine;

/// Closes the engine: nothing begins any more, open transactions are rolled back, a checkpoint is
/// taken, and the log is marked clean. A second call returns the same result.
pub(super) fn close<M: StateMachine>(shared: &Shared<M>) -> Result<()> {
    let mut ends = CheckpointEnds::default();
    let result = {
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
