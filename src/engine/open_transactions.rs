//! The open transactions, so that expired ones can be rolled back.

use crate::error::Error;
use crate::ids::TxnId;
use crate::io::sync::{Arc, Mutex};
use crate::txn::{DurabilityBarrier, Owner, WrittenSlots};
use crate::wal::RollbackRoom;
use std::collections::BTreeMap;
use std::time::Duration;

/// The state of a transaction.
pub(super) struct Tx {
    pub(super) owner: Owner,
    /// The transaction's id, once it has logged a record.
    pub(super) id: Option<TxnId>,
    /// Room in the log for the records of its rollback and of its end, once it has logged a record.
    pub(super) rollback_room: Option<RollbackRoom>,
    /// Further room for the next rollback to a savepoint. It is held from the savepoint to the end
    /// of that rollback.
    pub(super) partial_rollback_room: Option<RollbackRoom>,
    /// The barrier for answers that depend on what the transaction saw.
    pub(super) seen: DurabilityBarrier,
    pub(super) wrote: WrittenSlots,
    /// The memory of its inverses, in bytes.
    pub(super) undo_bytes: u64,
    /// A bound on the memory of its footprint locks, in bytes, and the last exact figure.
    pub(super) claim_bytes: u64,
    pub(super) counted_claim_bytes: u64,
    /// The savepoints, the oldest first: the number of each, and the length of the undo list when
    /// it was taken.
    pub(super) savepoints: Vec<(u64, usize)>,
    pub(super) next_savepoint: u64,
    /// Why the transaction has ended, once it has.
    pub(super) ended: Option<Error>,
}

impl Tx {
    pub(super) fn new(owner: Owner) -> Tx {
        Tx {
            owner,
            id: None,
            rollback_room: None,
            partial_rollback_room: None,
            seen: DurabilityBarrier::default(),
            wrote: WrittenSlots::default(),
            undo_bytes: 0,
            claim_bytes: 0,
            counted_claim_bytes: 0,
            savepoints: Vec::new(),
            next_savepoint: 0,
            ended: None,
        }
    }
}

/// An open transaction, as a thread that may have to end it needs it.
#[derive(Clone)]
pub(super) struct OpenTx {
    pub(super) owner: Owner,
    /// When it began, by the storage's clock.
    pub(super) began: Duration,
    /// Locked during each operation of the transaction, before every other lock.
    pub(super) tx: Arc<Mutex<Tx>>,
}

/// All open transactions, by owner. The lock is held only briefly, and no other lock is taken under
/// it.
#[derive(Default)]
pub(super) struct OpenTransactions(Mutex<BTreeMap<u64, OpenTx>>);

impl OpenTransactions {
    pub(super) fn insert(&self, tx: OpenTx) {
        self.0.lock().insert(tx.owner.id, tx);
    }

    pub(super) fn remove(&self, owner: Owner) {
        self.0.lock().remove(&owner.id);
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// The time when the oldest transaction began.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.0.lock().values().next().map(|open| open.began)
    }

    /// The transactions that are open now, the oldest first.
    pub(super) fn all(&self) -> Vec<OpenTx> {
        self.0.lock().values().cloned().collect()
    }
}
