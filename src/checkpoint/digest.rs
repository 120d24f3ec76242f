//! Digests of the state in the log, so that a replay which comes to another state is found out.
//!
//! A digest takes two records, and nothing waits for the time between them. The first marks a point, with the state frozen under the
//! core lock. The second, once the frozen copy has been digested in the background, names the point and the digest. Replay keeps a
//! copy at the point and compares when it comes to the second. Where a crash left the second out, nothing is compared.
//! Nothing waits for either record, nor is room made for them: without room, the digest is left for later.

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::ids::Lsn;
use crate::io::Storage;
use crate::io::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::machine::{StateMachine, bulk};
use crate::txn::{Core, StateCore, guarded};
use crate::wal::{Log, Need, Reservation};
use std::io;

/// Takes digests.
pub(crate) struct Digester<M: StateMachine> {
    core: Arc<StateCore<M>>,
    log: Option<Arc<Log>>,
    storage: Arc<dyn Storage>,
    /// A digest is due after so many records; `None` takes none.
    every: Option<u64>,
    /// Locked while a step runs; before the core lock.
    job: Mutex<Job<M>>,
    taken: AtomicU64,
}

struct Job<M: StateMachine> {
    /// The state at a point whose digest is not in the log yet.
    frozen: Option<(Lsn, M)>,
    /// How many records the log had taken in behind the last point, and digest.
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

    /// How many digests were put into the log.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Freezes the state for a digest that is due, or puts the digest of the frozen state into the log. Returns whether there was
    /// anything to do.
    ///
    /// # Errors
    /// Those of the log; a digest that the machine cannot take.
    pub(crate) fn step(&self) -> Result<bool> {
        let Some(every) = self.every else { return Ok(false) };
        let log = self.log.as_deref().ok_or(Error::ReadOnly)?;
        let mut job = self.job.lock();
        if let Some((point, state)) = job.frozen.take() {
            let digest = self.digest_of(&state)?;
            drop(state);
            if self.note_digest(log, point, digest)? {
                job.mark = job.mark.saturating_add(1);
            }
            return Ok(true);
        }
        if log.appended().0.saturating_sub(job.mark) < every {
            return Ok(false);
        }
        let core = self.core.write();
        let Some(point) = self.note_point(&core, log)? else { return Ok(false) };
        job.mark = log.appended().0;
        let state = guarded(|| core.state.clone())?;
        drop(core);
        job.frozen = Some((point, state));
        Ok(true)
    }

    /// Marks a point, if digests are wanted and there is room for the record. The caller freezes the state before it lets go of the
    /// core lock.
    pub(super) fn note_point(&self, core: &Core<M>, log: &Log) -> Result<Option<Lsn>> {
        if self.every.is_none() {
            return Ok(None);
        }
        let Some(room) = self.room_for_note(core, log)? else { return Ok(None) };
        room.append(&[], None, |lsn| Record::Point.head(lsn)).map(|(position, _)| Some(position.lsn))
    }

    /// Puts the digest of the state at a point into the log, if there is room for it.
    pub(super) fn note_digest(&self, log: &Log, point: Lsn, digest: u64) -> Result<bool> {
        let core = self.core.write();
        let Some(room) = self.room_for_note(&core, log)? else { return Ok(false) };
        room.append(&[], None, |lsn| Record::Digest { point, digest }.head(lsn))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn room_for_note<'a>(&self, core: &Core<M>, log: &'a Log) -> Result<Option<Reservation<'a>>> {
        self.core.check_not_poisoned()?;
        // the pending undo comes first in the log
        if core.pending_undo.is_some() { Ok(None) } else { log.try_reserve(Need::record(0)) }
    }

    /// The digest of a frozen state: a panic of the machine fails this digest, and nothing else.
    pub(super) fn digest_of(&self, state: &M) -> Result<u64> {
        let digest = guarded(|| bulk::digest(state))
            .unwrap_or_else(|_| Err(io::Error::other("the machine panicked while its state was digested")));
        digest.map_err(|e| Error::io("digest the state of", self.storage.path(""), e))
    }
}
