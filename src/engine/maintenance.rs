//! The engine's background work, as small steps: the maintenance thread runs them, or a caller does.

use crate::engine::lifecycle;
use crate::engine::maintenance_status::KINDS;
use crate::engine::shared::Shared;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::io::sync::{Arc, AtomicBool, Mutex, Ordering, thread};
use crate::io::threads::{is_own, spawn};
use crate::machine::StateMachine;
use crate::wal::{Log, LogStep};
use std::time::Duration;

/// How often the thread looks for work while the log grows: much less than a checkpoint takes.
const POLL: Duration = Duration::from_millis(20);
/// How long it waits after a failure.
const RETRY: Duration = Duration::from_secs(1);

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
    let done = match step {
        Step::Log(step) => shared.log()?.step(step),
        Step::BeginCheckpoint => shared.checkpointer.begin(),
        Step::Checkpoint => shared.checkpointer.step(),
        Step::Digest => shared.checkpointer.digester().step(),
        Step::Expire => Ok(expire(shared)),
    };
    shared.wake_maintenance();
    done
}

/// Frees the space of files that were unlinked. Returns whether there were any.
fn reclaim<M: StateMachine>(shared: &Shared<M>) -> bool {
    shared.log.as_ref().is_some_and(|log| log.deferred_unlinks().reclaim())
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

/// A kind of work of the thread, and what the thread does meanwhile.
struct Task<M: StateMachine> {
    what: &'static str,
    /// Whether it goes on, step by step, while there is something to do.
    repeats: bool,
    run: fn(&Shared<M>) -> Result<bool>,
}

/// All of them. Reclaiming comes last, for a checkpoint unlinks files.
fn tasks<M: StateMachine>() -> [Task<M>; KINDS] {
    let task = |what, repeats, run| Task { what, repeats, run };
    [
        // its failures are kept by the checkpointer; what comes here is a panic of a subscriber
        task("it took a checkpoint", true, |shared| Ok(shared.checkpointer.step().unwrap_or(false))),
        task("it took a digest", true, |shared| shared.checkpointer.digester().step()),
        task("it rolled back an expired transaction", false, |shared| Ok(expire(shared))),
        task("it freed unlinked files", false, |shared| Ok(reclaim(shared))),
    ]
}

/// The work of the maintenance thread, from its start to its end. A panic in the code of users fails
/// the piece of work that met it; the thread goes on.
fn run_thread<M: StateMachine>(shared: &Shared<M>, stop: &AtomicBool) {
    let Some(log) = &shared.log else { return };
    log.growth_alarm().wake_this_thread();
    let stopping = || stop.load(Ordering::Acquire);
    let mut seen = Lsn::ZERO;
    while !stopping() {
        shared.maintenance.note_awake();
        let mut failed = false;
        for (kind, Task { what, repeats, run }) in tasks::<M>().into_iter().enumerate() {
            let mut again = true;
            while again && !stopping() {
                let done = shared.maintenance.errors.run(
                    kind,
                    what,
                    || run(shared),
                    |_error| {
                        // a log that failed has an event of its own
                        if log.check_latch().is_ok() {
                            crate::events::event!(warn, error = %_error, "background work failed; it is tried again");
                        }
                    },
                );
                failed |= done.is_err();
                again = repeats && matches!(done, Ok(true));
                // code of users asked for it within a stage
                lifecycle::close_if_asked(shared);
            }
        }
        let retry = Some(RETRY).filter(|_| failed);
        let wait = next_wait(shared, log, &mut seen, retry);
        let now = shared.storage.monotonic();
        shared.maintenance.note_sleep(wait.map(|wait| now.saturating_add(wait)));
        // a transaction that began before that has woken nobody
        let wait = [wait, next_expiry(shared)].into_iter().flatten().min();
        if stopping() {
            break;
        }
        match wait {
            Some(wait) => thread::park_timeout(wait),
            None => thread::park(),
        }
    }
    if shared.maintenance.takes_over_end() {
        let _ = log.abandon();
    }
}

/// When the oldest transaction expires. One that has expired and was busy is tried again.
fn next_expiry<M: StateMachine>(shared: &Shared<M>) -> Option<Duration> {
    let began = shared.open.oldest()?;
    let expires = began.saturating_add(shared.options.max_txn_age);
    Some(expires.saturating_sub(shared.storage.monotonic()).max(POLL))
}

/// How long the thread may sleep unless it is woken; `None` is without end.
///
/// While the log grows, the thread looks every [`POLL`]. Otherwise it sleeps until the log has grown
/// by an amount that may make something due, until a transaction expires, or until a checkpoint is due by
/// time alone.
fn next_wait<M: StateMachine>(
    shared: &Shared<M>,
    log: &Log,
    seen: &mut Lsn,
    retry: Option<Duration>,
) -> Option<Duration> {
    let expiry = next_expiry(shared);
    if log.check_latch().and(shared.core.check_not_poisoned()).is_err() {
        // no checkpoint and no digest can be taken any more
        return expiry;
    }
    let due = shared.checkpointer.due_in().map(|due| due.max(POLL));
    let wait = [expiry, retry, due].into_iter().flatten().min();
    let (_, end) = log.appended();
    if std::mem::replace(seen, end) != end {
        return Some(wait.map_or(POLL, |wait| wait.min(POLL)));
    }
    let alarm = end.plus(shared.checkpointer.quiet_bytes());
    log.growth_alarm().set(alarm);
    // an append before the alarm was set has rung nothing
    if log.appended().1 >= alarm { Some(POLL) } else { wait }
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
        let handle = spawn("seawal-maint", move || run_thread(&kept, &stopped))
            .map_err(|e| Error::io("start a thread for", shared.storage.path(""), e))?;
        *self.maintenance.lock() = Some((stop, handle));
        Ok(())
    }

    /// Stops the thread and waits for its end. The caller must hold no lock: the thread may be
    /// within a subscriber of its event, and the subscriber may call this too.
    pub(super) fn stop<M: StateMachine>(&self, shared: &Arc<Shared<M>>) {
        let maintenance = {
            let mut maintenance = self.maintenance.lock();
            if let Some((stop, handle)) = &*maintenance {
                stop.store(true, Ordering::Release);
                handle.thread().unpark();
            }
            // a thread of a store joins none; the handle stays for another caller
            if is_own() { None } else { maintenance.take() }
        };
        if let Some((_, handle)) = maintenance {
            // a panic of the machine in that thread has poisoned nothing that is durable
            let _ = handle.join();
        }
        reclaim(shared);
    }
}
