//! The state and the open transactions under one lock, and whether they may still be used.

use crate::error::{Error, Result};
use crate::io::sync::{
    AtomicBool, HoldMark, Ordering, Runs, RwLock, RwLockReadGuard, RwLockWriteGuard, is_held, write_spinning,
};
use crate::machine::StateMachine;
use crate::txn::{ActiveTransactions, PendingUndo};
use std::ops::{Deref, DerefMut};

/// The data that the core lock guards.
pub(crate) struct Core<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
    /// The part of recovery's undo that could not be logged because the disk was full. It is logged
    /// before any other record.
    pub(crate) pending_undo: Option<PendingUndo<M>>,
}

/// The core and its lock. Lock order: a transaction's own lock, the footprint locks, this lock,
/// then the log's locks.
pub(crate) struct StateCore<M: StateMachine> {
    core: RwLock<Core<M>>,
    /// Whether the machine panicked or broke its law. The state must not be used then.
    poisoned: AtomicBool,
    closed: AtomicBool,
}

/// The core, locked for reading. User code may run under the lock, so the thread is marked as its
/// holder.
pub(crate) struct CoreRead<'a, M: StateMachine> {
    // the guard is dropped before the mark, because dropping the mark may run deferred work
    guard: RwLockReadGuard<'a, Core<M>>,
    _mark: Option<HoldMark>,
}

/// The core, locked for writing. The thread is marked as the holder of the lock.
pub(crate) struct CoreWrite<'a, M: StateMachine> {
    guard: RwLockWriteGuard<'a, Core<M>>,
    _mark: HoldMark,
}

impl<M: StateMachine> Deref for CoreRead<'_, M> {
    type Target = Core<M>;
    #[inline]
    fn deref(&self) -> &Core<M> {
        &self.guard
    }
}

impl<M: StateMachine> Deref for CoreWrite<'_, M> {
    type Target = Core<M>;
    #[inline]
    fn deref(&self) -> &Core<M> {
        &self.guard
    }
}

impl<M: StateMachine> DerefMut for CoreWrite<'_, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Core<M> {
        &mut self.guard
    }
}

impl<M: StateMachine> StateCore<M> {
    pub(crate) fn new(state: M, pending_undo: Option<PendingUndo<M>>) -> Self {
        StateCore {
            core: RwLock::new(Core { state, table: ActiveTransactions::default(), pending_undo }),
            poisoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Locks the core for reading.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if this thread holds the lock already, also for reading. A writer that
    /// waits between the two read locks would make the thread wait for itself.
    #[inline]
    pub(crate) fn read(&self) -> Result<CoreRead<'_, M>> {
        self.read_for(Runs::UserCode)
    }

    /// Locks the core for reading, and marks this thread only if code of users will run.
    ///
    /// # Errors
    /// As [`StateCore::read`].
    #[inline]
    pub(crate) fn read_for(&self, runs: Runs) -> Result<CoreRead<'_, M>> {
        self.check_not_held()?;
        let guard = self.core.read();
        Ok(CoreRead { guard, _mark: HoldMark::while_runs(runs, self.address()) })
    }

    /// Locks the core for writing.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if this thread holds the lock already.
    pub(crate) fn write(&self) -> Result<CoreWrite<'_, M>> {
        self.check_not_held()?;
        Ok(self.marked(self.core.write()))
    }

    /// Locks the core for a single command. It spins before it parks, because commands hold the
    /// lock only for a short time.
    ///
    /// # Errors
    /// As [`StateCore::write`].
    #[inline]
    pub(crate) fn write_spinning(&self) -> Result<CoreWrite<'_, M>> {
        self.check_not_held()?;
        Ok(self.marked(write_spinning(&self.core)))
    }

    /// Locks the core for writing, unless the state is poisoned.
    ///
    /// # Errors
    /// [`Error::Poisoned`], and those of [`StateCore::write`].
    pub(crate) fn write_trusted(&self) -> Result<CoreWrite<'_, M>> {
        let core = self.write()?;
        self.check_not_poisoned().map(|()| core)
    }

    #[inline]
    fn marked<'a>(&self, guard: RwLockWriteGuard<'a, Core<M>>) -> CoreWrite<'a, M> {
        CoreWrite { guard, _mark: HoldMark::new(self.address()) }
    }

    /// Identifies this lock among the locks that a thread holds.
    #[inline]
    fn address(&self) -> usize {
        std::ptr::from_ref(&self.core).addr()
    }

    /// Whether this thread holds the lock, for reading or writing. If so, it runs the closure of a
    /// read, or code of the machine.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        is_held(self.address())
    }

    /// Whether this thread may wait for the lock, or for a thread that may wait for it.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if this thread holds the lock itself.
    #[inline]
    pub(crate) fn check_not_held(&self) -> Result<()> {
        if self.is_held() { Err(Error::Reentrant) } else { Ok(()) }
    }

    /// Marks the state as unusable, and returns the error for the caller.
    pub(crate) fn poison(&self) -> Error {
        self.poisoned.store(true, Ordering::Release);
        Error::Poisoned
    }

    /// Refuses every later operation.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Fails if the engine is closed or its state is poisoned.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub(crate) fn check(&self) -> Result<()> {
        self.check_not_poisoned()?;
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Fails if the state is poisoned.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }
}
