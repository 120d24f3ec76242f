//! The state and the open transactions under one lock, and whether they may still be used.

use crate::error::{Error, Result};
use crate::io::sync::{
    AtomicBool, HoldMark, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard, is_held, write_spinning,
};
use crate::machine::StateMachine;
use crate::txn::{ActiveTransactions, PendingUndo};
use std::ops::{Deref, DerefMut};

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

/// The core, locked for reading. User code may run under it, and this thread is marked as holding it.
pub(crate) struct CoreRead<'a, M: StateMachine> {
    // released before the mark is dropped, which may run deferred work
    guard: RwLockReadGuard<'a, Core<M>>,
    _mark: HoldMark,
}

/// The same for writing.
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

    /// Locks for reading.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if this thread holds the lock already, also for reading: the two might wait
    /// for each other, with a writer between them.
    #[inline]
    pub(crate) fn read(&self) -> Result<CoreRead<'_, M>> {
        self.check_not_held()?;
        Ok(CoreRead { guard: self.core.read(), _mark: HoldMark::new(self.address()) })
    }

    /// Locks for writing.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if this thread holds the lock already.
    pub(crate) fn write(&self) -> Result<CoreWrite<'_, M>> {
        self.check_not_held()?;
        Ok(self.marked(self.core.write()))
    }

    /// Locks for a single command: it spins before it sleeps, as the lock is held for a short time only.
    ///
    /// # Errors
    /// As [`StateCore::write`].
    #[inline]
    pub(crate) fn write_spinning(&self) -> Result<CoreWrite<'_, M>> {
        self.check_not_held()?;
        Ok(self.marked(write_spinning(&self.core)))
    }

    /// Locks a state that may be trusted.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; as [`StateCore::write`].
    pub(crate) fn write_trusted(&self) -> Result<CoreWrite<'_, M>> {
        let core = self.write()?;
        self.check_not_poisoned().map(|()| core)
    }

    #[inline]
    fn marked<'a>(&self, guard: RwLockWriteGuard<'a, Core<M>>) -> CoreWrite<'a, M> {
        CoreWrite { guard, _mark: HoldMark::new(self.address()) }
    }

    /// Names the lock among those that a thread holds.
    #[inline]
    fn address(&self) -> usize {
        std::ptr::from_ref(&self.core).addr()
    }

    /// Whether this thread holds the lock, for reading or writing: it runs a closure of a read, or the
    /// machine's own code.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        is_held(self.address())
    }

    /// Whether this thread may wait for the lock, or for a thread that may wait for it.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if it holds the lock itself.
    #[inline]
    pub(crate) fn check_not_held(&self) -> Result<()> {
        if self.is_held() { Err(Error::Reentrant) } else { Ok(()) }
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
