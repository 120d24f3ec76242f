//! What all handles, transactions and threads of an engine share, and how a command gets through it.

use super::checkpoint::Checkpoints;
use super::digest::Digests;
use super::estimate::Meter;
use super::remains::Remains;
use super::scratch::Scratch;
use super::ticket::Ticket;
use super::transaction::OpenTx;
use super::{ExecuteResult, ReadLevel};
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::bytes::Head;
use crate::format::record::Record;
use crate::machine::{Access, Footprint, StateMachine, bulk};
use crate::options::{Durability, Options};
use crate::recovery::{Owed, Recovered, RecoveryReport};
use crate::storage::Storage;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, RwLock, RwLockWriteGuard, write_soon};
use crate::txn::{Hardening, Locks, Needed, Owner, Table, guarded};
use crate::wal::{Level, Log, Position};
use std::collections::BTreeMap;

/// The state and the transactions in flight: what the core lock guards.
pub(crate) struct Core<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: Table<M::Command>,
    /// What recovery could not log of its undo, on a full disk. It comes before anything else that is appended.
    pub(crate) owed: Option<Owed<M>>,
}

pub(crate) struct Shared<M: StateMachine> {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) core: RwLock<Core<M>>,
    pub(crate) locks: Locks,
    pub(crate) hardening: Hardening,
    /// `None` when the store was opened read-only.
    pub(crate) log: Option<Log>,
    owners: AtomicU64,
    /// The open transactions, so that forgotten ones can be rolled back.
    pub(crate) open: Mutex<BTreeMap<u64, OpenTx>>,
    poisoned: AtomicBool,
    closed: AtomicBool,
    /// The last handle is gone: a checkpoint under way is given up.
    pub(crate) stopping: AtomicBool,
    /// The outcome of closing, once it has been tried; locked meanwhile.
    close_result: Mutex<Option<Result<()>>>,
    pub(crate) checkpoints: Checkpoints<M>,
    pub(super) remains: Remains,
    pub(crate) digests: Digests<M>,
    pub(crate) meter: Meter,
    pub(crate) report: RecoveryReport,
}

/// What an answer must wait for before it may leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MustHarden {
    /// Its own record, and how durable the writer asked for it to be.
    pub(crate) own: Option<(Position, Durability)>,
    /// What it saw of others.
    pub(crate) seen: Needed,
}

/// A command that was carried out and appended, and not yet acknowledged.
pub(crate) struct Committed<M: StateMachine> {
    pub(crate) reply: M::Reply,
    pub(crate) hardening: MustHarden,
}

/// A command that was applied and appended.
pub(crate) struct Applied<M: StateMachine> {
    pub(crate) reply: M::Reply,
    /// The inverse and the length of its encoding, where it is kept.
    pub(crate) undo: Option<(M::Command, u64)>,
    pub(crate) position: Position,
}

/// Locks of a single command, given back when it is done.
struct Held<'a> {
    locks: &'a Locks,
    owner: Owner,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.locks.release(self.owner);
    }
}

impl<M: StateMachine> Shared<M> {
    pub(crate) fn new(storage: Arc<dyn Storage>, options: Options, recovered: Recovered<M>) -> Self {
        let Recovered { state, owed, log, report, snapshots } = recovered;
        Shared {
            checkpoints: Checkpoints::new(snapshots),
            remains: Remains::default(),
            digests: Digests::new(),
            meter: Meter::new(&report),
            storage,
            options,
            core: RwLock::new(Core { state, table: Table::default(), owed }),
            locks: Locks::new(),
            hardening: Hardening::new(),
            log,
            owners: AtomicU64::new(1),
            open: Mutex::new(BTreeMap::new()),
            poisoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            close_result: Mutex::new(None),
            report,
        }
    }

    pub(crate) fn next_owner_id(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn poison(&self) -> Error {
        self.poisoned.store(true, Ordering::Release);
        Error::Poisoned
    }

    /// The log, for those who change something.
    pub(crate) fn log(&self) -> Result<&Log> {
        self.log.as_ref().ok_or(Error::ReadOnly)
    }

    /// Whether the engine still answers at all.
    pub(crate) fn check(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Locks the core for appending a record of `len` bytes and promising `promise` bytes for its rollback. With the lock held there is
    /// room for both, and the promise is given.
    pub(crate) fn enter(&self, len: usize, promise: u64) -> Result<(RwLockWriteGuard<'_, Core<M>>, &Log)> {
        let log = self.log()?;
        log.check_record(len)?;
        self.hold_back(log)?;
        loop {
            let core = write_soon(&self.core);
            self.check()?;
            if core.owed.is_some() {
                drop(core);
                self.pay_owed(log)?;
                continue;
            }
            if let Some(lack) = log.lacks_room(len)? {
                drop(core);
                self.remains.unless_given_back(log.make_room(lack, len))?;
                continue;
            }
            if promise == 0 {
                return Ok((core, log));
            }
            match log.try_promise(promise) {
                Ok(()) => return Ok((core, log)),
                Err(lack) => {
                    drop(core);
                    self.remains.unless_given_back(log.make_promise_room(lack, promise))?;
                }
            }
        }
    }

    /// Logs what recovery could not log of its undo, and makes that durable. No lock may be held.
    ///
    /// # Errors
    /// [`Error::Full`] while the disk has no space for it.
    pub(crate) fn pay_owed(&self, log: &Log) -> Result<()> {
        loop {
            let mut lack = None;
            {
                let mut core = self.core.write();
                self.check_not_poisoned()?;
                let Some(owed) = &mut core.owed else { return Ok(()) };
                let ready = || match log.lacks_room(0)? {
                    None => Ok(()),
                    Some(found) => {
                        lack = Some(found);
                        Err(Error::Full { what: "the undo of what was open", source: None })
                    }
                };
                match owed.pay(log, ready, |_| {}) {
                    Ok(()) => core.owed = None,
                    Err(error) if lack.is_some() && error.is_full() => {}
                    Err(Error::Poisoned) => return Err(self.poison()),
                    Err(error) => return Err(error),
                }
            }
            match lack {
                Some(lack) => self.remains.unless_given_back(log.make_room(lack, 0))?,
                None => return log.wait(log.seal()?, Level::Durable),
            }
        }
    }

    /// Applies a command in place and appends its record. On any failure the state is as before.
    pub(crate) fn apply_and_append(
        &self,
        core: &mut Core<M>,
        log: &Log,
        command: &M::Command,
        undo_room: Option<u64>,
        wanted: Option<Level>,
        (body, head): (&[u8], impl FnOnce(Lsn) -> Head),
    ) -> ExecuteResult<M, Applied<M>> {
        let timed = self.meter.start(&*self.storage);
        let outcome = guarded(|| match undo_room {
            Some(_) => core.state.apply(command).map(|(reply, inverse)| (reply, Some(inverse))),
            None => bulk::apply_without_inverse(&mut core.state, command),
        });
        let outcome = outcome.map_err(|_| self.poison())?;
        self.meter.stop(timed, &*self.storage);
        let (reply, inverse) = outcome.map_err(super::ExecuteError::Rejected)?;
        let mut bytes = 0;
        if let (Some(room), Some(inverse)) = (undo_room, &inverse) {
            // from here on the state has changed: a panic must not leave that behind unlogged
            bytes = guarded(|| bulk::encoded_len::<M>(inverse)).map_err(|_| self.poison())? as u64;
            if bytes > room {
                self.take_back(core, command, &reply, Some(inverse))?;
                let (size, limit) = (bytes, self.options.max_txn_undo_bytes);
                return Err(Error::TooLarge { what: "a transaction's inverses", size, limit }.into());
            }
        }
        match log.append_record(body, wanted, head) {
            Ok(position) => {
                Ok(Applied { reply, undo: undo_room.and(inverse).map(|inverse| (inverse, bytes)), position })
            }
            Err(error) => {
                self.take_back(core, command, &reply, inverse.as_ref())?;
                Err(error.into())
            }
        }
    }

    /// Undoes a command that was never logged.
    fn take_back(
        &self,
        core: &mut Core<M>,
        command: &M::Command,
        reply: &M::Reply,
        inverse: Option<&M::Command>,
    ) -> Result<()> {
        let mut undo = |inverse: &M::Command| core.state.apply(inverse).is_ok();
        let undone = guarded(|| match inverse {
            Some(inverse) => undo(inverse),
            None => bulk::inverse_of::<M>(command, reply).is_some_and(|inverse| undo(&inverse)),
        });
        match undone {
            Ok(true) => Ok(()),
            // an inverse that is not there or rejects breaks the machine's law: the state is not to be trusted any more
            _ => Err(self.poison()),
        }
    }

    /// Carries out a command as a transaction of its own, and appends it.
    pub(crate) fn execute(&self, command: &M::Command, durability: Durability) -> ExecuteResult<M, Committed<M>> {
        let mut scratch = Scratch::of::<M>(command)?;
        let mut held: Option<Held<'_>> = None;
        loop {
            // asked for without the lock under which it is looked at
            if held.is_none() && !self.locks.are_free() {
                scratch.make_footprint::<M>(command)?;
            }
            let (mut core, log) = self.enter(scratch.body().len(), 0)?;
            if held.is_none() && !self.locks.are_free() {
                match scratch.footprint() {
                    Some(footprint) if self.locks.is_free(footprint, None) => {}
                    Some(footprint) => {
                        drop(core);
                        held = Some(self.wait_for_locks(footprint)?);
                        continue;
                    }
                    None => continue,
                }
            }
            let seen = scratch.needed(&self.hardening);
            let wall_micros = self.storage.wall_clock_micros();
            let head = |lsn| Record::Execute { wall_micros, command: &[] }.head(lsn);
            let wanted = Some(level_of(durability));
            let applied = self.apply_and_append(&mut core, log, command, None, wanted, (scratch.body(), head));
            let applied = match applied {
                Ok(applied) => applied,
                Err(error) => {
                    drop(core);
                    drop(held);
                    if let super::ExecuteError::Rejected(_) = &error {
                        self.wait_for(seen)?;
                    }
                    return Err(error);
                }
            };
            scratch.note(&self.hardening, applied.position.end, durability);
            drop(core);
            drop(held);
            let hardening = MustHarden { own: Some((applied.position, durability)), seen };
            return Ok(Committed { reply: applied.reply, hardening });
        }
    }

    fn wait_for_locks(&self, footprint: &Footprint) -> Result<Held<'_>> {
        let id = self.next_owner_id();
        let owner = Owner { id, age: id };
        self.locks.acquire(owner, footprint, self.options.lock_timeout)?;
        Ok(Held { locks: &self.locks, owner })
    }

    /// Blocks until an answer may leave.
    pub(crate) fn harden(&self, must: MustHarden) -> Result<()> {
        if let Some((position, durability)) = must.own {
            let log = self.log()?;
            if let Durability::Interval(within) = durability {
                log.sync_within(position.end, within);
            }
            log.wait(position.end, level_of(durability))?;
        }
        self.wait_for(must.seen)
    }

    /// Sees to it that the record gets flushed, and gives a ticket for the answer.
    pub(crate) fn ticket<T>(&self, must: MustHarden, value: T) -> Result<Ticket<T>> {
        let log = self.log()?;
        let mut waits = Vec::with_capacity(1);
        let mut covered = Needed::default();
        if let Some((position, durability)) = must.own {
            if let Durability::Interval(within) = durability {
                log.sync_within(position.end, within);
            }
            waits.push(log.ticket(position.end, level_of(durability)));
            covered.written = position.end;
            if durability == Durability::Sync {
                covered.durable = position.end;
            }
        }
        if must.seen.durable > covered.durable {
            waits.push(log.ticket(must.seen.durable, Level::Durable));
        }
        if must.seen.written > covered.written {
            waits.push(log.ticket(must.seen.written, Level::Written));
        }
        log.nudge();
        Ok(Ticket::new(waits, value))
    }

    /// Blocks until an answer that rests on this may leave.
    pub(crate) fn wait_for(&self, needed: Needed) -> Result<()> {
        let Some(log) = self.log.as_ref().filter(|_| needed != Needed::default()) else { return Ok(()) };
        log.wait(needed.durable, Level::Durable)?;
        log.wait(needed.written, Level::Written)?;
        // after a failure what the operating system took in may be gone all the same
        if needed.written > log.durable_lsn() { log.check_latch() } else { Ok(()) }
    }

    /// Looks at the state while nobody holds the footprint exclusively.
    pub(crate) fn read<T>(&self, footprint: &Footprint, level: ReadLevel, look: impl FnOnce(&M) -> T) -> Result<T> {
        let mut held = None;
        let (value, needed) = loop {
            let core = self.core.read();
            self.check()?;
            if held.is_some() || self.locks.is_free(footprint, None) {
                let needed = self.hardening.needed_for(footprint);
                break (look(&core.state), needed);
            }
            drop(core);
            held = Some(self.wait_for_locks(footprint)?);
        };
        drop(held);
        if level == ReadLevel::Hardened {
            self.wait_for(needed)?;
        }
        Ok(value)
    }

    /// Looks at the state at one key; the same as a footprint of that key, without making one.
    pub(crate) fn read_key<T>(&self, key: &[u8], level: ReadLevel, look: impl FnOnce(&M) -> T) -> Result<T> {
        let (value, needed) = {
            let core = self.core.read();
            self.check()?;
            if !self.locks.key_is_free(Access::Shared, key, None) {
                drop(core);
                return self.read(&Footprint::key(Access::Shared, key), level, look);
            }
            (look(&core.state), self.hardening.needed_for_key(key))
        };
        if level == ReadLevel::Hardened {
            self.wait_for(needed)?;
        }
        Ok(value)
    }

    /// Looks at the state within a footprint, which is made only where somebody holds a lock that may be in the way.
    pub(crate) fn read_span<T>(
        &self,
        footprint: impl FnOnce() -> Footprint,
        level: ReadLevel,
        look: impl FnOnce(&M) -> T,
    ) -> Result<T> {
        let (value, needed) = {
            let core = self.core.read();
            self.check()?;
            if !self.locks.is_free_to_read() {
                drop(core);
                return self.read(&footprint(), level, look);
            }
            (look(&core.state), self.hardening.needed_for_all())
        };
        if level == ReadLevel::Hardened {
            self.wait_for(needed)?;
        }
        Ok(value)
    }

    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// Closes the engine: nothing begins any more, what is open is rolled back, a checkpoint is taken, the log is marked clean.
    /// Whoever closes it again gets the same answer.
    pub(crate) fn close(&self) -> Result<()> {
        let mut outcome = self.close_result.lock();
        if let Some(outcome) = &*outcome {
            return outcome.clone();
        }
        let result = self.close_once();
        *outcome = Some(result.clone());
        result
    }

    fn close_once(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        // one that began just before is in the list now, and one that begins now sees the mark
        loop {
            let open: Vec<_> = self.open.lock().values().cloned().collect();
            if open.is_empty() {
                break;
            }
            open.iter().for_each(|tx| tx.end_by(self, Error::Closed));
        }
        let Some(log) = &self.log else { return Ok(()) };
        let poisoned = self.check_not_poisoned();
        let checkpoint = match &poisoned {
            Ok(()) if self.anything_since_snapshot() => self.checkpoint_now(),
            _ => Ok(()),
        };
        // no stage of another checkpoint may run on once the store can have another owner
        let _job = self.checkpoints.between_stages();
        let closed = if poisoned.is_ok() { log.close() } else { log.abandon() };
        poisoned.and(checkpoint).and(closed)
    }

    /// Whether records of a rollback are of any use: not on a state that is not to be trusted, nor in a log that takes no more.
    pub(crate) fn logs_rollbacks(&self, log: &Log) -> bool {
        self.check_not_poisoned().is_ok() && log.check_latch().is_ok()
    }
}

pub(crate) fn level_of(durability: Durability) -> Level {
    match durability {
        Durability::Sync => Level::Durable,
        Durability::Interval(_) | Durability::Os => Level::Written,
    }
}
