//! Interactive transactions: several at a time, interleaved in the log.

use super::answer::{AnswerBarrier, wait_for};
use super::commit::{apply_and_append, lock_core};
use super::execute_result::ExecuteResult;
use super::open_transactions::{OpenTx, Tx};
use super::read;
use super::shared::Shared;
use super::ticket::Ticket;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::format::bytes::Head;
use crate::format::frame;
use crate::format::record::Record;
use crate::ids::{Lsn, TxnId};
use crate::io::sync::{Arc, Mutex, defer};
use crate::machine::{Access, Footprint, StateMachine};
use crate::txn::{Core, Locks, Owner, RunningClosure, Scope, UndoEntry, guarded, roll_back};
use crate::wal::{DeferredWakes, Log, Need, RollbackRoom};
use std::borrow::Borrow;
use std::fmt;
use std::ops::DerefMut;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A point in a transaction to which it can be rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    owner: u64,
    number: u64,
}

/// The maximum size of a compensation record in a frame, in bytes.
const CLR_BYTES: u64 = frame::record_bytes(Head::CAPACITY as u64);
/// The average memory of a savepoint, in bytes: the list grows by doubling.
const SAVEPOINT_BYTES: u64 = 24;
/// The number of blocks to reserve for a rollback: its records may need a frame of their own, so
/// may the transaction's end, and a partial rollback leaves a part of its last block unused.
const ROLLBACK_BLOCKS: u64 = 3;

/// An open transaction. Its commands take effect at once, but no other transaction sees them until
/// it commits. Their replies are provisional until then. Dropping it rolls it back.
///
/// Threads may share a transaction by reference. Its operations run one at a time, so one that
/// waits for a lock makes the others wait.
///
/// ```
/// use seawal::{Engine, kv::{Kv, KvCommand}};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::<Kv>::open(dir.path())?;
/// let tx = engine.begin()?;
/// tx.execute(KvCommand::put("", "a", "1"))?;
/// let savepoint = tx.savepoint()?;
/// tx.execute(KvCommand::put("", "a", "2"))?;
/// tx.rollback_to(savepoint)?;
/// assert_eq!(tx.get("a")?.as_deref(), Some(&b"1"[..]));
/// tx.commit()?; // survives power loss from here on
/// assert_eq!(engine.get("a")?.as_deref(), Some(&b"1"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Transaction<M: StateMachine> {
    shared: Arc<Shared<M>>,
    owner: Owner,
    tx: Arc<Mutex<Tx>>,
}

// as for the engine: each operation of a transaction is done or not done
impl<M: StateMachine> UnwindSafe for Transaction<M> {}
impl<M: StateMachine> RefUnwindSafe for Transaction<M> {}

impl<M: StateMachine> Transaction<M> {
    pub(super) fn begin(shared: Arc<Shared<M>>, age: u64) -> Result<Self> {
        shared.core.check()?;
        shared.log()?.check_latch()?;
        let id = shared.next_owner_id();
        let owner = Owner { id, age };
        let tx = Arc::new(Mutex::new(Tx::new(owner)));
        let began = shared.storage.monotonic();
        shared.open.insert(OpenTx { owner, began, tx: tx.clone() });
        if shared.maintenance.sleeps_beyond(began.saturating_add(shared.options.max_txn_age)) {
            shared.wake_maintenance();
        }
        let transaction = Transaction { shared, owner, tx };
        // the engine may have been closed in between; dropping the transaction removes it from the
        // list then
        transaction.shared.core.check()?;
        Ok(transaction)
    }

    /// Locks the transaction's state.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if this thread holds the core lock. It must not wait then: another
    /// thread may hold this lock and wait for the core.
    fn lock(&self) -> Result<impl DerefMut<Target = Tx> + '_> {
        self.shared.core.check_not_held()?;
        Ok(self.tx.lock())
    }

    /// Notes that this thread runs the transaction's closure.
    pub(super) fn enter_closure(&self) -> RunningClosure {
        self.shared.locks.enter_closure(self.owner)
    }

    /// Whether it was rolled back as the victim of a deadlock.
    pub(super) fn lost_deadlock(&self) -> bool {
        // a thread that must not wait for the transaction's lock could not use the transaction
        self.lock().is_ok_and(|tx| matches!(tx.ended, Some(Error::Conflict)))
    }

    /// Executes a command, passed by value or by reference. Its locks are kept to the end of the
    /// transaction, also if it is rejected. Nothing survives power loss before the commit.
    ///
    /// # Errors
    /// The machine's rejection, [`Error::LockTimeout`], [`Error::TooLarge`], [`Error::Full`],
    /// [`Error::SelfDeadlock`]: the command had no effect, and the transaction can continue.
    /// [`Error::Conflict`], [`Error::Expired`]: the transaction has been rolled back.
    pub fn execute(&self, command: impl Borrow<M::Command>) -> ExecuteResult<M, M::Reply> {
        let command: &M::Command = command.borrow();
        // code of the machine runs before the lock is taken, because it may use the transaction
        self.shared.core.check_not_held()?;
        let mut body = Vec::with_capacity(256);
        guarded(|| M::encode(command, &mut body))?;
        let footprint = guarded(|| M::footprint(command))?;
        // a reservation may have to flush the log to find room, which wakes tasks
        let _wakes = DeferredWakes::begin();
        let result = self.lock()?.execute(&self.shared, command, &body, &footprint);
        self.shared.meters().report_noted();
        result
    }

    /// Reads the whole state as this transaction sees it, which locks all of it, shared, to the
    /// end.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn read<T>(&self, f: impl FnOnce(&M) -> T) -> Result<T> {
        self.read_within(&Footprint::everything(Access::Shared), f)
    }

    /// Reads a part of the state as this transaction sees it, and locks that part to the end. The
    /// closure must read nothing outside `footprint`.
    ///
    /// The footprint may claim exclusive access, for a read on which a later write of the same part
    /// depends. Two transactions that read a part with shared access and then write it always
    /// deadlock; with exclusive access, the second one waits until the first one has ended.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn read_within<T>(&self, footprint: &Footprint, f: impl FnOnce(&M) -> T) -> Result<T> {
        let result = self.lock()?.read(&self.shared, footprint, f);
        self.shared.meters().report_noted();
        result
    }

    /// Reads the state as it is, as [`Engine::peek_key`](super::Engine::peek_key) does.
    pub(crate) fn peek_key<T>(&self, key: &[u8], read: impl FnOnce(&M, bool) -> T) -> Result<T> {
        read::peek(&self.shared, key, read)
    }

    /// Sets a savepoint: a point to which [`rollback_to`](Self::rollback_to) can undo.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Expired`] or [`Error::Closed`] if the transaction is over;
    /// [`Error::Full`] if there is no room in the log for the records of a rollback to it;
    /// [`Error::TooLarge`] if there is no memory for it.
    pub fn savepoint(&self) -> Result<Savepoint> {
        let mut tx = self.lock()?;
        tx.check()?;
        let size = tx.memory_bytes().saturating_add(SAVEPOINT_BYTES);
        if size > self.shared.options.max_txn_undo_bytes {
            return Err(self.shared.undo_too_large(size));
        }
        tx.reserve_partial_rollback(&self.shared)?;
        let number = tx.next_savepoint;
        tx.next_savepoint = number.saturating_add(1);
        let len = tx.effects(&self.shared)?;
        tx.savepoints.push((number, len));
        Ok(Savepoint { owner: tx.owner.id, number })
    }

    /// Undoes everything since a savepoint. The savepoint stays usable, and locks are kept.
    ///
    /// # Errors
    /// [`Error::UnknownSavepoint`] if the savepoint is of another transaction, or if an earlier
    /// savepoint was rolled back to since. Those of [`Transaction::savepoint`]. Nothing was undone
    /// in either case. [`Error::Poisoned`] if an inverse failed, which ends the transaction.
    pub fn rollback_to(&self, savepoint: Savepoint) -> Result<()> {
        let mut tx = self.lock()?;
        tx.check()?;
        let at = tx.savepoints.binary_search_by_key(&savepoint.number, |(number, _)| *number);
        let (Ok(at), true) = (at, savepoint.owner == tx.owner.id) else { return Err(Error::UnknownSavepoint) };
        let Some(&(_, len)) = tx.savepoints.get(at) else { return Err(Error::UnknownSavepoint) };
        tx.reserve_partial_rollback(&self.shared)?;
        if let Err(error) = tx.undo_down_to(&self.shared, len) {
            tx.finish(&self.shared, error.clone());
            return Err(error);
        }
        tx.savepoints.truncate(at + 1);
        tx.partial_rollback_room = None;
        Ok(())
    }

    /// Commits with the default durability. When it returns `Ok`, the transaction survives what
    /// that durability promises.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Expired`]: it was rolled back; [`Error::Latched`]: whether it
    /// survived is known after the store is reopened.
    pub fn commit(self) -> Result<()> {
        let durability = self.shared.options.durability;
        self.commit_with(durability)
    }

    /// As [`Transaction::commit`], with this durability. A transaction that executed nothing leaves
    /// no record: it only waits until what it read is durable.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn commit_with(self, durability: Durability) -> Result<()> {
        let began = self.shared.meters().begin(&*self.shared.storage);
        let must = self.lock()?.commit(&self.shared, durability)?;
        must.wait(self.shared.log()?)?;
        if must.own.is_some() {
            self.shared.note_committed(Some(began));
        }
        Ok(())
    }

    /// Commits and returns a ticket, without waiting for the device. Other transactions see its
    /// effects at once; they survive power loss once the ticket is done.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn submit(self) -> Result<Ticket<()>> {
        let durability = self.shared.options.durability;
        self.submit_with(durability)
    }

    /// As [`Transaction::submit`], with this durability.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn submit_with(self, durability: Durability) -> Result<Ticket<()>> {
        self.submit_value(durability, ())
    }

    /// As [`Transaction::submit_with`], with a value for the ticket.
    pub(super) fn submit_value<T>(self, durability: Durability, value: T) -> Result<Ticket<T>> {
        let must = self.lock()?.commit(&self.shared, durability)?;
        let ticket = must.ticket(self.shared.log()?, value);
        if must.own.is_some() {
            self.shared.note_committed(None);
        }
        Ok(ticket)
    }

    /// Rolls everything back. When it returns `Ok`, no effect is left, and everything that the
    /// transaction read is as durable as its writer requested.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if an inverse failed; [`Error::Latched`] if a crash may take back what
    /// it had read.
    pub fn rollback(self) -> Result<()> {
        let seen = {
            let mut tx = self.lock()?;
            if tx.ended.is_some() {
                return Ok(());
            }
            tx.roll_back(&self.shared, Error::Closed)?;
            tx.seen
        };
        wait_for(self.shared.log.as_deref(), seen)
    }
}

impl<M: StateMachine> Drop for Transaction<M> {
    fn drop(&mut self) {
        if self.shared.core.is_held() {
            let (shared, tx) = (self.shared.clone(), self.tx.clone());
            return defer(Box::new(move || tx.lock().end_by(&shared, Error::Closed)));
        }
        self.tx.lock().end_by(&self.shared, Error::Closed);
        self.shared.meters().report_noted();
    }
}

/// Ends an open transaction. If it waits for a lock, ends the wait first.
pub(super) fn end<M: StateMachine>(shared: &Shared<M>, open: &OpenTx, reason: Error) {
    shared.locks.cancel(open.owner, reason.clone());
    open.tx.lock().end_by(shared, reason);
}

impl<M: StateMachine> fmt::Debug for Transaction<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Transaction");
        // only tries the lock: a thread that is ending the transaction may wait for a lock that
        // this thread holds
        match self.tx.try_lock() {
            Some(tx) => debug.field("id", &tx.id).field("ended", &tx.ended).finish(),
            None => debug.finish_non_exhaustive(),
        }
    }
}

impl Tx {
    fn check(&self) -> Result<()> {
        match &self.ended {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    /// Reserves room for a rollback to a savepoint: it may need a frame of its own, and a watermark
    /// frame may follow it.
    fn reserve_partial_rollback<M: StateMachine>(&mut self, shared: &Shared<M>) -> Result<()> {
        if self.partial_rollback_room.is_none() {
            let log = shared.log()?;
            let bytes = u64::from(log.identity().block_bytes).saturating_mul(2);
            self.partial_rollback_room = Some(log.reserve_rollback(bytes)?);
        }
        Ok(())
    }

    /// Keeps room for the rollback until the transaction ends.
    fn keep(&mut self, room: RollbackRoom) {
        match &mut self.rollback_room {
            Some(kept) => kept.join(room),
            None => self.rollback_room = Some(room),
        }
    }

    fn effects<M: StateMachine>(&self, shared: &Shared<M>) -> Result<usize> {
        let Some(id) = self.id else { return Ok(0) };
        Ok(shared.core.read()?.table.undo_list(id).map_or(0, |undo| undo.len()))
    }

    /// The memory of the transaction, in bytes: inverses, locks and savepoints.
    fn memory_bytes(&self) -> u64 {
        let savepoints = self.savepoints.len() as u64 * SAVEPOINT_BYTES;
        self.undo_bytes.saturating_add(self.claim_bytes).saturating_add(savepoints)
    }

    /// Adds the memory of the locks that the transaction is about to take.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the transaction would pass its limit.
    fn count_claims<M: StateMachine>(&mut self, shared: &Shared<M>, footprint: &Footprint) -> Result<()> {
        let limit = shared.options.max_txn_undo_bytes;
        let before = self.claim_bytes;
        self.claim_bytes = before.saturating_add(Locks::memory_bytes(footprint));
        // this counts locks that are already held again; an exact count takes the lock of the
        // table, so it is rare
        let excess = self.claim_bytes.saturating_sub(self.counted_claim_bytes);
        if excess > limit / 64 || self.memory_bytes() > limit {
            self.claim_bytes = shared.locks.memory_bytes_with(self.owner, footprint);
            self.counted_claim_bytes = self.claim_bytes;
        }
        let size = self.memory_bytes();
        if size <= limit {
            return Ok(());
        }
        self.claim_bytes = self.claim_bytes.min(before);
        self.counted_claim_bytes = self.claim_bytes;
        Err(shared.undo_too_large(size))
    }

    /// Takes locks. The victim of a deadlock is rolled back at once, so that the other transactions
    /// can proceed.
    fn lock<M: StateMachine>(&mut self, shared: &Shared<M>, footprint: &Footprint) -> Result<()> {
        self.count_claims(shared, footprint)?;
        let locked = shared.locks.acquire(self.owner, footprint, shared.options.lock_timeout);
        if let Err(error @ Error::Conflict) = &locked {
            shared.meters().note_conflict();
            self.roll_back(shared, error.clone())?;
        }
        locked
    }

    /// Executes a command that has this encoding and this footprint.
    fn execute<M: StateMachine>(
        &mut self,
        shared: &Shared<M>,
        command: &M::Command,
        body: &[u8],
        footprint: &Footprint,
    ) -> ExecuteResult<M, M::Reply> {
        self.check()?;
        self.lock(shared, footprint)?;

        let log = shared.log()?;
        log.check_record(body.len())?;
        shared.checkpointer.throttle().throttle()?;
        let block = u64::from(log.identity().block_bytes);
        let first = if self.id.is_none() { ROLLBACK_BLOCKS.saturating_mul(block) } else { 0 };
        let need = Need::record(body.len()).and_rollback(CLR_BYTES.saturating_add(first));
        let (mut core, room) = log.reserve_under(need, || lock_core(shared, log))?;
        self.seen = self.seen.and(shared.watermarks.needed_for(footprint));
        let undo_bytes = shared.options.max_txn_undo_bytes.saturating_sub(self.memory_bytes());
        let id = self.id;
        let head = |lsn: Lsn| {
            let txn = id.unwrap_or(TxnId::from(lsn));
            Record::Update { txn, command: &[] }.head(lsn)
        };
        let applied = apply_and_append(shared, &mut core, room, command, Some(undo_bytes), None, (body, head))?;
        let id = *self.id.get_or_insert(TxnId::from(applied.position.lsn));
        // an effect without an inverse could never be rolled back, so it poisons the engine
        let (inverse, bytes) = applied.undo.ok_or_else(|| shared.core.poison())?;
        core.table.push(id, UndoEntry { lsn: applied.position.lsn, inverse, bytes });
        self.undo_bytes = self.undo_bytes.saturating_add(UndoEntry::<M::Command>::memory_bytes(bytes));
        drop(core);
        applied.rollback.into_iter().for_each(|room| self.keep(room));
        self.wrote.add(footprint);
        Ok(applied.reply)
    }

    fn read<M: StateMachine, T>(
        &mut self,
        shared: &Shared<M>,
        footprint: &Footprint,
        f: impl FnOnce(&M) -> T,
    ) -> Result<T> {
        self.check()?;
        self.lock(shared, footprint)?;
        let core = shared.core.read()?;
        shared.core.check()?;
        self.seen = self.seen.and(shared.watermarks.needed_for(footprint));
        Ok(f(&core.state))
    }

    fn commit<M: StateMachine>(&mut self, shared: &Shared<M>, durability: Durability) -> Result<AnswerBarrier> {
        self.check()?;
        let (Some(id), Some(room)) = (self.id, &self.rollback_room) else {
            self.finish(shared, Error::Closed);
            return Ok(AnswerBarrier { own: None, seen: self.seen });
        };
        let log = shared.log()?;
        if let Err(error) = log.check_latch().and(shared.core.check()) {
            self.roll_back(shared, error.clone())?;
            return Err(error);
        }
        let wall_micros = shared.storage.wall_clock_micros();
        let mut core = shared.core.write()?;
        let head = |lsn| Record::Commit { txn: id, wall_micros }.head(lsn);
        let position = match room.append(Some(durability.into()), head) {
            Ok(position) => position,
            Err(error) => {
                drop(core);
                self.roll_back(shared, error.clone())?;
                return Err(error);
            }
        };
        core.table.end(id);
        shared.watermarks.note_slots(&self.wrote, position.end, durability);
        drop(core);
        self.finish(shared, Error::Closed);
        Ok(AnswerBarrier { own: Some((position, durability)), seen: self.seen })
    }

    /// Undoes effects until the undo list has this length, and logs each step. The room of these
    /// records is given back, because they have been appended.
    fn undo_down_to<M: StateMachine>(&mut self, shared: &Shared<M>, len: usize) -> Result<()> {
        let (Some(id), Some(room)) = (self.id, &mut self.rollback_room) else { return Ok(()) };
        let log = shared.log()?;
        let mut core = shared.core.write()?;
        let before = core.table.undo_list(id).map_or(0, |undo| undo.len());
        let undone = undo_locked(shared, &mut core, log, (id, len), room);
        self.undo_bytes = core.table.undo_list(id).map_or(0, |undo| undo.memory_bytes());
        drop(core);
        undone?;
        room.give_back(CLR_BYTES.saturating_mul(before.saturating_sub(len) as u64));
        Ok(())
    }

    fn roll_back<M: StateMachine>(&mut self, shared: &Shared<M>, reason: Error) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        let mut result = Ok(());
        if let (Some(id), Some(log), Some(room)) = (self.id, shared.log.as_deref(), &self.rollback_room) {
            shared.meters().note_rollback();
            let mut core = shared.core.write()?;
            result = undo_locked(shared, &mut core, log, (id, 0), room);
            if result.is_ok() {
                core.table.end(id);
                if shared.logs_rollbacks(log) {
                    // without this record, recovery finds the transaction open, but with no effect
                    // left to undo
                    let _ = room.append(None, |lsn| Record::Abort { txn: id }.head(lsn));
                }
            }
        }
        self.finish(shared, reason);
        result
    }

    /// Ends the transaction. It returns no error, because a rollback that failed has poisoned the
    /// engine.
    pub(super) fn end_by<M: StateMachine>(&mut self, shared: &Shared<M>, reason: Error) {
        let _ = self.roll_back(shared, reason);
    }

    /// Releases the transaction's locks and its room in the log.
    fn finish<M: StateMachine>(&mut self, shared: &Shared<M>, reason: Error) {
        self.ended = Some(reason);
        self.rollback_room = None;
        self.partial_rollback_room = None;
        shared.locks.release(self.owner);
        shared.open.remove(self.owner);
    }
}

/// Undoes effects of a transaction until its undo list has this length. Logs each step, in the room
/// reserved for it.
fn undo_locked<M: StateMachine>(
    shared: &Shared<M>,
    core: &mut Core<M>,
    log: &Log,
    (id, len): (TxnId, usize),
    room: &RollbackRoom,
) -> Result<()> {
    let Core { state, table, .. } = core;
    let logged = shared.logs_rollbacks(log);
    let undone = guarded(|| {
        let ready = || Ok(());
        roll_back::<M, Error, ()>(state, table, Scope::One(id, len), ready, |txn, undo_next, ()| {
            if !logged {
                return Ok(());
            }
            match room.append(None, |lsn| Record::Clr { txn, undo_next }.head(lsn)) {
                // the log was closed in between, so no record is written any more
                Ok(_) | Err(Error::Closed) => Ok(()),
                Err(error) => Err(error),
            }
        })
    });
    match undone {
        Ok(Ok(_)) => Ok(()),
        // the state changed without a record in the log, or the machine broke its law: the state
        // must not be used any more
        Ok(Err(_)) | Err(_) => Err(shared.core.poison()),
    }
}
