//! The state and the open transactions under one lock, and whether they may still be used.

use crate::error::{Error, Result};
use crate::io::sync::{AtomicBool, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard, write_spinning};
use crate::machine::StateMachine;
use crate::txn::{ActiveTransactions, PendingUndo};

/// What the core lock guards.
pub(crate) struct Core<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
    /// The part of recovery's undo that a full disk kept out of the log. It is logged before anything else.
    pub(crate) pending_undo: Option<PendingUndo<M>>,
}

/// The core behind its lock. Lock order: a transaction's own lock, the footprint locks, this one, then the log's.
pub(crate) struct StateCore<M: StateMachine> {
    core: RwLock<Core<M>>,
    /// The machine panicked or broke its law: the state is not to be trusted.
    poisoned: AtomicBool,
    closed: AtomicBool,
}

impl<M: StateMachine> StateCore<M> {
    pub(crate) fn new(state: M, pending_undo: Option<PendingUndo<M>>) -> Self {
        StateCore {
            core: RwLock::new(Core { state, table: ActiveTransactions::default(), pending_undo }),
            poisoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Core<M>> {
        self.core.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Core<M>> {
        self.core.write()
    }

    /// Locks for a single command: it spins before it sleeps, as the lock is held for a short time only.
    pub(crate) fn write_spinning(&self) -> RwLockWriteGuard<'_, Core<M>> {
        write_spinning(&self.core)
    }

    /// Locks a state that may be trusted.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn write_trusted(&self) -> Result<RwLockWriteGuard<'_, Core<M>>> {
        let core = self.core.write();
        self.check_not_poisoned().map(|()| core)
    }

    /// Marks the state as not to be trusted.
    pub(crate) fn poison(&self) -> Error {
        self.poisoned.store(true, Ordering::Release);
        Error::Poisoned
    }

    /// Lets nothing begin any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the state still answers.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub(crate) fn check(&self) -> Result<()> {
        self.check_not_poisoned()?;
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether the state may be trusted.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }
}
