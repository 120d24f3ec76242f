//! The state that all handles, transactions and threads of an engine share.

use super::maintenance_status::MaintenanceStatus;
use super::open_transactions::OpenTransactions;
use crate::checkpoint::{Checkpointer, MeasuredRecovery, RecoveredSizes, RecoveryCostModel};
use crate::error::{Error, Result};
use crate::io::Storage;
use crate::io::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::machine::{Footprint, StateMachine, bulk};
use crate::meters::{Began, Meters};
use crate::options::Options;
use crate::recovery::{Recovered, RecoveryReport};
use crate::txn::{CommitWatermarks, Locks, Owner, StateCore};
use crate::wal::Log;

/// An engine without its threads. Each part has its own locks; the module documentation of the
/// engine has the lock order.
pub(crate) struct Shared<M: StateMachine> {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) core: Arc<StateCore<M>>,
    /// The footprint locks.
    pub(crate) locks: Locks,
    /// Changed under the core lock, read without it.
    pub(crate) watermarks: CommitWatermarks,
    /// `None` when the store was opened read-only.
    pub(crate) log: Option<Arc<Log>>,
    owners: AtomicU64,
    pub(super) open: OpenTransactions,
    /// The outcome of the first close. The lock is held during that close.
    pub(super) close_result: Mutex<Option<Result<()>>>,
    pub(crate) checkpointer: Checkpointer<M>,
    pub(super) cost_model: Arc<RecoveryCostModel>,
    pub(super) maintenance: MaintenanceStatus,
    pub(crate) report: RecoveryReport,
}

/// Footprint locks of a single command or read. Dropping them releases them.
pub(super) struct HeldLocks<'a> {
    locks: &'a Locks,
    owner: Owner,
}

impl Drop for HeldLocks<'_> {
    fn drop(&mut self) {
        self.locks.release(self.owner);
    }
}

impl<M: StateMachine> Shared<M> {
    pub(crate) fn new(storage: Arc<dyn Storage>, options: Options, recovered: Recovered<M>) -> Self {
        let Recovered { state, pending_undo, log, report, snapshots, opens } = recovered;
        let core = Arc::new(StateCore::new(state, pending_undo));
        let log = log.map(Arc::new);
        let measured = MeasuredRecovery {
            fixed: report.phases.open_dir.saturating_add(report.phases.cut),
            load: (report.phases.snapshot, report.snapshot_bytes),
            redo: (report.phases.redo, report.log_bytes, report.records),
        };
        let cost_model = Arc::new(RecoveryCostModel::new(bulk::recovery_rates::<M>(), measured));
        let sizes = RecoveredSizes {
            records: report.records,
            log_bytes: report.log_bytes,
            snapshot_bytes: report.snapshot_bytes,
            opens,
        };
        let recovered = (sizes, snapshots);
        Shared {
            checkpointer: Checkpointer::new(&core, (&storage, &log), &options, cost_model.clone(), recovered),
            locks: Locks::new(storage.clone()),
            storage,
            options,
            core,
            watermarks: CommitWatermarks::new(),
            log,
            owners: AtomicU64::new(1),
            open: OpenTransactions::default(),
            close_result: Mutex::new(None),
            cost_model,
            maintenance: MaintenanceStatus::new(),
            report,
        }
    }

    pub(crate) fn next_owner_id(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// The log, for an operation that writes.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub(crate) fn log(&self) -> Result<&Log> {
        self.log.as_deref().ok_or(Error::ReadOnly)
    }

    /// The instruments of this store.
    #[inline]
    pub(super) fn meters(&self) -> &Meters {
        self.checkpointer.monitor().meters()
    }

    /// Measures a commit, with its time if its caller has waited for it. The caller holds no lock.
    #[inline]
    pub(super) fn note_committed(&self, began: Option<Began>) {
        if self.meters().committed(began, &*self.storage) {
            self.checkpointer.monitor().report_figures();
        }
    }

    /// Wakes the maintenance thread, so that it looks for work.
    pub(super) fn wake_maintenance(&self) {
        if let Some(log) = &self.log {
            log.growth_alarm().wake();
        }
    }

    /// Waits for the locks of a single command or read.
    pub(super) fn wait_for_locks(&self, footprint: &Footprint) -> Result<HeldLocks<'_>> {
        let id = self.next_owner_id();
        let owner = Owner { id, age: id };
        self.locks.acquire(owner, footprint, self.options.lock_timeout)?;
        Ok(HeldLocks { locks: &self.locks, owner })
    }

    /// The error of a transaction whose memory would pass its limit.
    pub(super) fn undo_too_large(&self, size: u64) -> Error {
        let limit = self.options.max_txn_undo_bytes;
        Error::TooLarge { what: "the memory of a transaction (max_txn_undo_bytes)", size, limit }
    }

    /// Whether a rollback must be logged. It need not be if the state is poisoned or the log
    /// accepts no more records.
    pub(super) fn logs_rollbacks(&self, log: &Log) -> bool {
        self.core.check_not_poisoned().is_ok() && log.check_latch().is_ok()
    }
}
