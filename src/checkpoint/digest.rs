//! Digests of the state in the log, so that a replay that reaches another state is detected.
//!
//! A digest takes two records. The first marks a point; the state is frozen there under the core
//! lock. The frozen copy is digested in the background. The second record then names the point and
//! the digest. A machine that is expensive to clone is digested at the point itself.
//!
//! Replay keeps a copy of the state at the point, and compares digests at the second record. If a
//! crash left the second record out, nothing is compared.
//!
//! Nothing waits for either record, and no checkpoint makes room for them. Without room, the digest
//! is postponed.

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::ids::Lsn;
use crate::io::Storage;
use crate::io::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::machine::StateMachine;
use crate::machine::bulk::{self, KeptForDigest};
use crate::txn::{Core, StateCore, guarded};
use crate::wal::{Log, Need, Reservation};
use std::io;

/// Takes digests.
pub(crate) struct Digester<M: StateMachine> {
    core: Arc<StateCore<M>>,
    log: Option<Arc<Log>>,
    storage: Arc<dyn Storage>,
    /// The number of records between digests. `None` disables them.
    every: Option<u64>,
    /// Held while a step runs. Taken before the core lock.
    job: Mutex<Job<M>>,
    taken: AtomicU64,
}

struct Job<M: StateMachine> {
    /// The state at a point whose digest is not in the log yet.
    frozen: Option<(Lsn, KeptForDigest<M>)>,
    /// The number of records in the log at the last point, plus one once its digest is logged.
    mark: u64,
}

impl<M: StateMachine> Digester<M> {
    pub(super) fn new(
        core: Arc<StateCore<M>>,
        log: Option<Arc<Log>>,
        storage: Arc<dyn Storage>,
        every: Option<u64>,
    ) -> Self {
        let job = Mutex::new(Job { frozen: None, mark: 0 });
        Digester { core, log, storage, every, job, taken: AtomicU64::new(0) }
    }

    /// The number of digests written to the log.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How far the log may grow before a digest may be due.
    pub(super) fn quiet_bytes(&self) -> u64 {
        let (Some(every), Some(log)) = (self.every, &self.log) else { return u64::MAX };
        // a record takes more than one byte
        every.saturating_sub(log.appended().0.saturating_sub(self.job.lock().mark)).max(1)
    }

    /// Freezes the state for a digest that is due, or writes the digest of the frozen state to the
    /// log. Returns `false` if there was nothing to do, or if a step is running.
    ///
    /// # Errors
    /// Those of the log, and [`Error::Io`] if the machine cannot be digested.
    pub(crate) fn step(&self) -> Result<bool> {
        let Some(every) = self.every else { return Ok(false) };
        let log = self.log.as_deref().ok_or(Error::ReadOnly)?;
        // the machine's code runs in a step, and may call this
        let Some(mut job) = self.job.try_lock() else { return Ok(false) };
        if let Some((point, state)) = job.frozen.take() {
            let digest = self.contained(|| state.digest())?;
            if self.note_digest(log, point, digest)? {
                job.mark = job.mark.saturating_add(1);
            }
            return Ok(true);
        }
        if log.appended().0.saturating_sub(job.mark) < every {
            return Ok(false);
        }
        let core = self.core.write()?;
        let Some(point) = self.note_point(&core, log)? else { return Ok(false) };
        job.mark = log.appended().0;
        let state = guarded(|| KeptForDigest::of(&core.state))?;
        drop(core);
        job.frozen = Some((point, state));
        Ok(true)
    }

    /// Marks a point in the log, if digests are enabled and there is room for the record. The
    /// caller freezes the state before it releases the core lock.
    pub(super) fn note_point(&self, core: &Core<M>, log: &Log) -> Result<Option<Lsn>> {
        if self.every.is_none() {
            return Ok(None);
        }
        let Some(room) = self.room_for_note(core, log)? else { return Ok(None) };
        room.append(&[], None, |lsn| Record::Point.head(lsn)).map(|(position, _)| Some(position.lsn))
    }

    /// Writes the digest of the state at a point to the log, if there is room for it. Returns
    /// whether it did.
    pub(super) fn note_digest(&self, log: &Log, point: Lsn, digest: u64) -> Result<bool> {
        let core = self.core.write()?;
        let Some(room) = self.room_for_note(&core, log)? else { return Ok(false) };
        room.append(&[], None, |lsn| Record::Digest { point, digest }.head(lsn))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn room_for_note<'a>(&self, core: &Core<M>, log: &'a Log) -> Result<Option<Reservation<'a>>> {
        self.core.check_not_poisoned()?;
        // the log holds the pending undo before any such record
        if core.pending_undo.is_some() { Ok(None) } else { log.try_reserve(Need::record(0)) }
    }

    /// The digest of a frozen state. A panic of the machine fails only this digest.
    pub(super) fn digest_of(&self, state: &M) -> Result<u64> {
        self.contained(|| bulk::digest(state))
    }

    fn contained(&self, digest: impl FnOnce() -> io::Result<u64>) -> Result<u64> {
        let digest = guarded(digest)
            .unwrap_or_else(|_| Err(io::Error::other("the machine panicked while its state was digested")));
        digest.map_err(|e| Error::io("digest the state of", self.storage.path(""), e))
    }
}
