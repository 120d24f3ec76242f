//! The engine's background work, as small steps: the maintenance thread runs them, or a caller does.

use crate::engine::shared::Shared;
use crate::error::{Error, Result};
use crate::io::sync::{Arc, AtomicBool, Mutex, Ordering, thread};
use crate::machine::StateMachine;
use crate::wal::LogStep;
use std::time::Duration;

/// How often the thread checks whether a checkpoint, a digest or an expiry is due: much less than a
/// checkpoint takes.
const POLL: Duration = Duration::from_millis(20);

/// One kind of background work, for [`Engine::step`](crate::Engine::step).
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
    /// Roll back transactions that have been open for longer than `max_txn_age`.
    Expire,
}

/// Runs one step. Returns whether there was anything to do.
pub(super) fn run<M: StateMachine>(shared: &Shared<M>, step: Step) -> Result<bool> {
    shared.core.check_not_held()?;
    match step {
        Step::Log(step) => shared.log()?.step(step),
        Step::BeginCheckpoint => shared.checkpointer.begin(),
        Step::Checkpoint => shared.checkpointer.step(),
        Step::Digest => shared.checkpointer.digester().step(),
        Step::Expire => Ok(expire(shared)),
    }
}

/// Frees the space of files that were unlinked.
fn reclaim<M: StateMachine>(shared: &Shared<M>) {
    if let Some(log) = &shared.log {
        log.deferred_unlinks().reclaim();
    }
}

/// Rolls back forgotten transactions, also those that wait for a lock. One that is doing something
/// else right now is left for the next time.
fn expire<M: StateMachine>(shared: &Shared<M>) -> bool {
    let limit = shared.options.max_txn_age;
    let now = shared.storage.monotonic();
    let mut expired = false;
    for open in shared.open.all() {
        if now.saturating_sub(open.began) <= limit {
            continue;
        }
        shared.locks.cancel(open.owner, Error::Expired);
        if let Some(mut tx) = open.tx.try_lock() {
            tx.end_by(shared, Error::Expired);
            expired = true;
        }
    }
    expired
}

/// The maintenance thread: it takes checkpoints and digests, expires transactions and frees unlinked files.
#[derive(Default)]
pub(super) struct Threads {
    maintenance: Mutex<Option<(Arc<AtomicBool>, thread::JoinHandle<()>)>>,
}

impl Threads {
    pub(super) fn start<M: StateMachine>(&self, shared: &Arc<Shared<M>>) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, kept) = (stop.clone(), shared.clone());
        let run = move || {
            while !stopped.load(Ordering::Acquire) {
                reclaim(&kept);
                expire(&kept);
                // what fails is kept in the stats and tried again; commits go on
                while matches!(kept.checkpointer.step(), Ok(true)) && !stopped.load(Ordering::Acquire) {}
                while matches!(kept.checkpointer.digester().step(), Ok(true)) && !stopped.load(Ordering::Acquire) {}
                thread::park_timeout(POLL);
            }
        };
        let handle = thread::Builder::new()
            .name("seawal-maint".into())
            .spawn(run)
            .map_err(|e| Error::io("start a thread for", shared.storage.path(""), e))?;
        *self.maintenance.lock() = Some((stop, handle));
        Ok(())
    }

    /// Stops the thread and waits for its end. The caller must hold no lock: the thread may be
    /// within a subscriber of its event, and the subscriber may call this too.
    pub(super) fn stop<M: StateMachine>(&self, shared: &Arc<Shared<M>>) {
        let maintenance = self.maintenance.lock().take();
        if let Some((stop, handle)) = maintenance {
            stop.store(true, Ordering::Release);
            handle.thread().unpark();
            if handle.thread().id() != thread::current().id() {
                // a panic of the machine in that thread has poisoned nothing that is durable
                let _ = handle.join();
            }
        }
        reclaim(shared);
    }
}
