//! The engine's background work, in small steps. The maintenance thread runs the steps, or the
//! caller does.

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

/// How often the thread looks for work while the log grows. It is much shorter than a checkpoint.
const POLL: Duration = Duration::from_millis(20);
/// How long the thread waits after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// One kind of background work, for [`Engine::step`](crate::Engine::step).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A step of the log.
    Log(LogStep),
    /// Freeze the state for a checkpoint, even if none is due; or choose the LSN that the state is
    /// replayed to.
    BeginCheckpoint,
    /// Run the next stage of the checkpoint under way, or begin one that is due.
    Checkpoint,
    /// Freeze the state for a digest that is due, or write the digest of the frozen state to the
    /// log.
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

/// Reclaims the space of unlinked files. Returns whether there were any.
fn reclaim<M: StateMachine>(shared: &Shared<M>) -> bool {
    shared.log.as_ref().is_some_and(|log| log.deferred_unlinks().reclaim())
}

/// Rolls back expired transactions, also those that wait for a lock. A transaction that is busy
/// otherwise is left for the next call.
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

/// One kind of the thread's work.
struct Task<M: StateMachine> {
    what: &'static str,
    /// Whether it is repeated as long as it finds work.
    repeats: bool,
    run: fn(&Shared<M>) -> Result<bool>,
}

/// All kinds of work. Reclaiming comes last, because a checkpoint unlinks files.
fn tasks<M: StateMachine>() -> [Task<M>; KINDS] {
    let task = |what, repeats, run| Task { what, repeats, run };
    [
        // the checkpointer keeps its own failures, so only a panic of an event subscriber is seen
        // here
        task("it took a checkpoint", true, |shared| Ok(shared.checkpointer.step().unwrap_or(false))),
        task("it took a digest", true, |shared| shared.checkpointer.digester().step()),
        task("it rolled back an expired transaction", false, |shared| Ok(expire(shared))),
        task("it freed unlinked files", false, |shared| Ok(reclaim(shared))),
    ]
}

/// The main loop of the maintenance thread. A panic in user code fails only the piece of work that
/// ran the code, and the thread continues.
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
                        // a log that failed reports its own event
                        if log.check_latch().is_ok() {
                            crate::events::event!(warn, error = %_error, "background work failed; it is tried again");
                        }
                    },
                );
                failed |= done.is_err();
                again = repeats && matches!(done, Ok(true));
                // user code may have called `close` within a stage
                lifecycle::close_if_asked(shared);
            }
        }
        let retry = Some(RETRY).filter(|_| failed);
        let wait = next_wait(shared, log, &mut seen, retry);
        let now = shared.storage.monotonic();
        shared.maintenance.note_sleep(wait.map(|wait| now.saturating_add(wait)));
        // a transaction that began before that did not wake this thread
        let wait = [wait, next_expiry(shared)].into_iter().flatten().min();
        if stopping() {
            break;
        }
        match wait {
            Some(wait) => thread::park_timeout(wait),
            None => thread::park(),
        }
    }
    lifecycle::end_if_left(shared);
}

/// The time until the oldest transaction expires. A transaction that has expired but was busy is
/// tried again.
fn next_expiry<M: StateMachine>(shared: &Shared<M>) -> Option<Duration> {
    let began = shared.open.oldest()?;
    let expires = began.saturating_add(shared.options.max_txn_age);
    Some(expires.saturating_sub(shared.storage.monotonic()).max(POLL))
}

/// How long the thread may sleep unless it is woken; `None` means without limit.
///
/// While the log grows, the thread polls every [`POLL`]. Otherwise it sleeps until one of three
/// events: the log has grown by an amount that may make work due, a transaction expires, or a
/// checkpoint is due by time alone.
fn next_wait<M: StateMachine>(
    shared: &Shared<M>,
    log: &Log,
    seen: &mut Lsn,
    retry: Option<Duration>,
) -> Option<Duration> {
    let expiry = next_expiry(shared);
    if log.check_latch().and(shared.core.check_not_poisoned()).is_err() {
        // neither a checkpoint nor a digest can be taken any more
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
    // an append before the alarm was set did not ring it
    if log.appended().1 >= alarm { Some(POLL) } else { wait }
}

/// The maintenance thread. It takes checkpoints and digests, rolls back expired transactions and
/// reclaims unlinked files.
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
    /// running an event subscriber, and the subscriber may call this too.
    pub(super) fn stop<M: StateMachine>(&self, shared: &Arc<Shared<M>>) {
        let maintenance = {
            let mut maintenance = self.maintenance.lock();
            if let Some((stop, handle)) = &*maintenance {
                stop.store(true, Ordering::Release);
                handle.thread().unpark();
            }
            // A thread of a store joins no other, and neither does the machine's code in a stage of
            // a checkpoint, for which the thread may wait. The handle is left for another caller.
            if is_own() || shared.checkpointer.is_in_stage() { None } else { maintenance.take() }
        };
        if let Some((_, handle)) = maintenance {
            // a panic of the machine in that thread has damaged no durable data
            let _ = handle.join();
        }
        reclaim(shared);
    }
}
