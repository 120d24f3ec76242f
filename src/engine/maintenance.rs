//! The engine's work behind the scenes, as small steps: threads run them, or a caller does.

use crate::engine::shared::Shared;
use crate::error::{Error, Result};
use crate::io::sync::{Arc, AtomicBool, Ordering, thread};
use crate::machine::StateMachine;
use crate::wal::LogStep;
use std::time::Duration;

/// How often triggers are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// One kind of work behind the scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A step of the log.
    Log(LogStep),
    /// Freeze the state for a checkpoint, due or not.
    BeginCheckpoint,
    /// Run the next stage of the checkpoint under way, or begin one that is due.
    Checkpoint,
    /// Freeze the state for a digest that is due, or put the digest of what was frozen into the log.
    Digest,
    /// Roll back transactions that have been open for too long.
    Expire,
}

impl<M: StateMachine> Shared<M> {
    pub(super) fn step(&self, step: Step) -> Result<bool> {
        match step {
            Step::Log(step) => self.log()?.step(step),
            Step::BeginCheckpoint => self.begin_checkpoint(),
            Step::Checkpoint => self.checkpoint_step(),
            Step::Digest => self.digest_step(),
            Step::Expire => Ok(self.expire()),
        }
    }

    /// Frees the space of files that were unlinked.
    fn reclaim(&self) {
        if let Some(log) = &self.log {
            log.deferred_unlinks().reclaim();
        }
    }

    /// Rolls back forgotten transactions, also those that wait for a lock. One that is just doing something else is left for the
    /// next time.
    fn expire(&self) -> bool {
        let limit = self.options.max_txn_age;
        let now = self.storage.monotonic();
        let open: Vec<_> = self.open.lock().values().cloned().collect();
        let mut expired = false;
        for tx in open {
            if now.saturating_sub(tx.began) <= limit {
                continue;
            }
            self.locks.cancel(tx.owner, Error::Expired);
            if let Some(mut tx) = tx.tx.try_lock() {
                tx.end_by(self, Error::Expired);
                expired = true;
            }
        }
        expired
    }
}

/// The thread that looks after checkpoints, digests and forgotten transactions.
#[derive(Default)]
pub(super) struct Threads {
    keeper: Option<(Arc<AtomicBool>, thread::JoinHandle<()>)>,
}

impl Threads {
    pub(super) fn start<M: StateMachine>(&mut self, shared: &Arc<Shared<M>>) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, kept) = (stop.clone(), shared.clone());
        let run = move || {
            while !stopped.load(Ordering::Acquire) {
                kept.reclaim();
                kept.expire();
                // what fails is kept in the stats and tried again; commits go on
                while matches!(kept.checkpoint_step(), Ok(true)) && !stopped.load(Ordering::Acquire) {}
                while matches!(kept.digest_step(), Ok(true)) && !stopped.load(Ordering::Acquire) {}
                thread::park_timeout(LOOK);
            }
        };
        let handle = thread::Builder::new()
            .name("seawal-keeper".into())
            .spawn(run)
            .map_err(|e| Error::io("start a thread for", shared.storage.path(""), e))?;
        self.keeper = Some((stop, handle));
        Ok(())
    }

    pub(super) fn stop<M: StateMachine>(&mut self, shared: &Arc<Shared<M>>) {
        if let Some((stop, handle)) = self.keeper.take() {
            stop.store(true, Ordering::Release);
            handle.thread().unpark();
            // a panic of the machine in that thread has poisoned nothing that is durable
            let _ = handle.join();
        }
        shared.reclaim();
    }
}
