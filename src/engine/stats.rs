//! Counters and sizes of a running engine.

use super::shared::Shared;
use crate::error::Error;
use crate::ids::Lsn;
use crate::machine::StateMachine;
use crate::wal::LogStats;
use std::time::Duration;

/// Counters and sizes of a running engine; see [`Engine::stats`](crate::Engine::stats).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Of the log; `None` when read-only.
    pub log: Option<LogStats>,
    /// Transactions open now.
    pub open_transactions: usize,
    /// Transactions and commands that hold locks now.
    pub lock_holders: usize,
    /// Transactions and commands that wait for locks now.
    pub lock_waiters: usize,
    /// The LSNs of the snapshots kept, the newest first.
    pub snapshots: Vec<Lsn>,
    /// Records behind the newest snapshot.
    pub records_since_snapshot: u64,
    /// Bytes of log behind it.
    pub log_bytes_since_snapshot: u64,
    /// Checkpoints taken since the store was opened.
    pub checkpoints: u64,
    /// How long the longest of them held the core lock.
    pub longest_freeze: Duration,
    /// Why the last checkpoint failed, if it did.
    pub checkpoint_error: Option<Error>,
    /// What stands in for a damaged or missing part since the store was opened: an older snapshot, the
    /// other copy of the manifest. Empty once a checkpoint has made the store whole again.
    pub degraded: Vec<String>,
    /// Why other background work of the engine failed, such as a panic in the machine's code, until
    /// that work succeeds. It is tried again. Failures of the log's threads are in [`LogStats`].
    pub background_error: Option<Error>,
    /// Digests of the state that were put into the log since the store was opened.
    pub digests: u64,
    /// How long opening the store would take now.
    pub estimated_recovery: Duration,
    /// `recover_within` is less than opening the store would take right after a checkpoint.
    pub recovery_budget_cannot_be_met: bool,
}

pub(super) fn collect<M: StateMachine>(shared: &Shared<M>) -> Stats {
    let monitor = shared.checkpointer.monitor();
    let (records_since_snapshot, log_bytes_since_snapshot) = monitor.log_since_snapshot();
    Stats {
        log: shared.log.as_ref().map(|log| log.stats()),
        open_transactions: shared.open.len(),
        lock_holders: shared.locks.holders(),
        lock_waiters: shared.locks.waiters(),
        snapshots: monitor.snapshots().iter().map(|s| s.lsn).collect(),
        records_since_snapshot,
        log_bytes_since_snapshot,
        checkpoints: shared.checkpointer.taken(),
        longest_freeze: shared.checkpointer.longest_freeze(),
        checkpoint_error: monitor.last_error(),
        degraded: if shared.checkpointer.taken() == 0 { shared.report.stand_ins.clone() } else { Vec::new() },
        background_error: shared.maintenance.error(),
        digests: shared.checkpointer.digester().taken(),
        estimated_recovery: monitor.estimated_recovery(),
        recovery_budget_cannot_be_met: monitor.budget_cannot_be_met(),
    }
}
