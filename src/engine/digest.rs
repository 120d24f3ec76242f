//! Digests of the state in the log, so that replay which comes to another state is found out.
//!
//! A digest takes two records, and the time between them nobody waits for: the first marks a point, with the state frozen under the
//! core lock; the second, once the frozen copy has been digested behind the scenes, names the point and the digest. Replay keeps a
//! copy at the point and compares when it comes to the second. Where a crash left the second out, nothing is compared.
//! Neither record is waited for, nor does either make room for itself: where there is none, the digest is left for later.

use super::shared::{Core, Shared};
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::record::Record;
use crate::machine::{StateMachine, bulk};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::txn::guarded;
use crate::wal::Log;
use std::io;

/// What is known of digests.
pub(crate) struct Digests<M: StateMachine> {
    job: Mutex<Job<M>>,
    taken: AtomicU64,
}

struct Job<M: StateMachine> {
    /// The state at a point whose digest is still owed.
    frozen: Option<(Lsn, M)>,
    /// How many records the log had taken in behind the last point, and digest.
    mark: u64,
}

impl<M: StateMachine> Digests<M> {
    pub(super) fn new() -> Self {
        Digests { job: Mutex::new(Job { frozen: None, mark: 0 }), taken: AtomicU64::new(0) }
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl<M: StateMachine> Shared<M> {
    /// Freezes the state for a digest that is due, or puts the digest of what was frozen into the log. Returns whether there was
    /// anything to do.
    pub(super) fn digest_step(&self) -> Result<bool> {
        let Some(every) = self.options.digest_every else { return Ok(false) };
        let log = self.log()?;
        let mut job = self.digests.job.lock();
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
        if self.options.digest_every.is_none() || !self.takes_notes(core, log)? {
            return Ok(None);
        }
        log.append_record(&[], None, |lsn| Record::Point.head(lsn)).map(|position| Some(position.lsn))
    }

    /// Puts the digest of the state at a point into the log, if there is room for it.
    pub(super) fn note_digest(&self, log: &Log, point: Lsn, digest: u64) -> Result<bool> {
        let core = self.core.write();
        let noted = self.takes_notes(&core, log)?;
        if noted {
            log.append_record(&[], None, |lsn| Record::Digest { point, digest }.head(lsn))?;
            self.digests.taken.fetch_add(1, Ordering::Relaxed);
        }
        Ok(noted)
    }

    fn takes_notes(&self, core: &Core<M>, log: &Log) -> Result<bool> {
        self.check_not_poisoned()?;
        // what is owed to the log comes first
        Ok(core.owed.is_none() && log.lacks_room(0)?.is_none())
    }

    /// The digest of a frozen state: a panic of the machine fails this digest, and nothing else.
    pub(super) fn digest_of(&self, state: &M) -> Result<u64> {
        let digest = guarded(|| bulk::digest(state))
            .unwrap_or_else(|_| Err(io::Error::other("the machine panicked while its state was digested")));
        digest.map_err(|e| Error::io("digest the state of", self.storage.path(""), e))
    }
}
