//! Counters and sizes of a running engine.

use super::shared::Shared;
use crate::error::Error;
use crate::ids::Lsn;
use crate::machine::StateMachine;
use crate::wal::LogStats;
use std::time::Duration;

/// Counters and sizes of a running engine; see [`Engine::stats`](crate::Engine::stats).
///
/// With the feature `serde`, it can be serialized. Times are then seconds, and their names end in
/// `_seconds`. Errors are their text.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Statistics of the log; `None` if the store was opened read-only.
    pub log: Option<LogStats>,
    /// Number of open transactions.
    pub open_transactions: usize,
    /// Number of transactions and commands that hold locks.
    pub lock_holders: usize,
    /// Number of transactions and commands that wait for locks.
    pub lock_waiters: usize,
    /// The LSNs of the snapshots kept, the newest first.
    pub snapshots: Vec<Lsn>,
    /// Number of records behind the newest snapshot.
    pub records_since_snapshot: u64,
    /// Size of the log behind the newest snapshot, in bytes, padding included.
    pub log_bytes_since_snapshot: u64,
    /// Size of the log behind the newest snapshot at which a checkpoint is due by what it would
    /// write, in bytes; see
    /// [`Options::checkpoint_log_bytes`](crate::Options::checkpoint_log_bytes).
    pub checkpoint_due_bytes: u64,
    /// Number of checkpoints taken since the store was opened.
    pub checkpoints: u64,
    /// The longest time that one of them held the core lock.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "longest_freeze_seconds", serialize_with = "crate::serialize::seconds")
    )]
    pub longest_freeze: Duration,
    /// Why the last checkpoint failed, if it did.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::text"))]
    pub checkpoint_error: Option<Error>,
    /// What replaced a damaged or missing part of the store when it was opened: an older snapshot,
    /// or the other copy of the manifest. Empty once a checkpoint has repaired the store.
    pub degraded: Vec<String>,
    /// Why other background work of the engine failed, such as a panic in the machine's code, until
    /// that work succeeds. It is tried again. Failures of the log's threads are in [`LogStats`].
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::text"))]
    pub background_error: Option<Error>,
    /// Number of digests of the state written to the log since the store was opened.
    pub digests: u64,
    /// Estimate of how long opening the store would take now.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "estimated_recovery_seconds", serialize_with = "crate::serialize::seconds")
    )]
    pub estimated_recovery: Duration,
    /// Whether `recover_within` is less than opening the store would take right after a checkpoint.
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
        checkpoint_due_bytes: monitor.due_bytes(),
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
