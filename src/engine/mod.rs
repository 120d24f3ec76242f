//! The engine: a state machine whose commits are durable.
//!
//! ```text
//!   command ─▶ locks ─▶ core lock: apply, append ─▶ wait until durable ─▶ reply
//!                              │
//!                       state, active transaction table
//! ```
//!
//! Lock order: the lock of a close, the checkpoint job, a transaction's own lock, the footprint
//! locks, the core lock, then the log's. No fsync happens under the core lock. Of the machine's
//! code, only `apply`, a clone and the closures of reads run under it.

mod answer;
mod backup;
mod commit;
mod encoded_command;
mod execute_result;
mod lifecycle;
mod maintenance;
mod maintenance_status;
#[cfg(test)]
mod memory_tests;
mod open;
mod open_transactions;
mod read;
mod shared;
mod stats;
#[cfg(all(test, not(any(loom, shuttle))))]
mod thread_tests;
mod ticket;
mod transact;
mod transaction;
mod view;

pub use execute_result::{ExecuteError, ExecuteResult};
pub use maintenance::Step;
pub use stats::Stats;
pub use ticket::Ticket;
pub use transaction::{Savepoint, Transaction};
pub use view::View;

use crate::durability::{Durability, ReadLevel};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::io::Storage;
use crate::io::sync::{Arc, Runs, defer, thread};
use crate::io::threads::contained;
use crate::machine::{Access, Footprint, StateMachine};
use crate::options::{Background, Options};
use crate::recovery::{self, Recovered, RecoveryReport};
use maintenance::Threads;
use shared::Shared;
use std::borrow::Borrow;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::time::Duration;

/// A durable state machine, shared by cloning it.
///
/// ```
/// use seawal::{Engine, kv::{Kv, KvCommand}};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::<Kv>::open(dir.path())?;
/// engine.execute(KvCommand::put("", "key", "value"))?; // survives power loss from here on
/// engine.transact(|tx| {
///     tx.execute(KvCommand::put("", "a", "1"))?;
///     tx.execute(KvCommand::delete("", "key"))
/// })?;
/// assert_eq!(engine.get("a")?.as_deref(), Some(&b"1"[..]));
/// engine.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Close and drop
///
/// The drop of the last clone ends the store as a [`close`](Engine::close) without a checkpoint
/// does: everything committed becomes durable, and the end of the log is marked as clean. The next
/// open redoes the log behind the last checkpoint, and rolls back transactions whose handles were
/// left. A drop tells of no failure, so a program that must know calls `close`. Both wait for the
/// device, without a time limit: a disk that hangs lets them hang. While the thread panics, or
/// after the machine has panicked, the end is not marked, and the next open recovers as after a
/// kill.
///
/// # Fork
///
/// A child made by `fork` must not use an engine that it inherited, nor drop or close it: it shares
/// the parent's files and lock, and has none of the threads. Its writes would mix with the
/// parent's, and its waits might not end. Such a child must `exec` or end by `_exit`.
/// [`std::process::Command`] does no harm: every file is closed by `exec`. While such a child
/// lives, the store stays locked, even if the parent has ended without closing or dropping it.
pub struct Engine<M: StateMachine> {
    handle: Arc<Handle<M>>,
}

// A panic of the machine poisons the engine, which then shows no state. Any other code of the
// caller runs where it cannot leave a change half made.
impl<M: StateMachine> UnwindSafe for Engine<M> {}
impl<M: StateMachine> RefUnwindSafe for Engine<M> {}

/// The handle that all clones share. Dropping the last clone stops the threads.
struct Handle<M: StateMachine> {
    shared: Arc<Shared<M>>,
    threads: Threads,
}

impl<M: StateMachine> Clone for Engine<M> {
    fn clone(&self) -> Self {
        Engine { handle: self.handle.clone() }
    }
}

impl<M: StateMachine> fmt::Debug for Engine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("machine", &M::NAME).field("path", &self.shared().storage.path("")).finish()
    }
}

impl<M: StateMachine> Engine<M> {
    /// Opens the store in a directory with default options, recovering it, or creates it.
    ///
    /// When it returns, everything it recovered survives power loss.
    ///
    /// # Errors
    /// [`Error::Locked`] if it is open already, [`Error::Corrupt`] if something durable is damaged,
    /// [`Error::UnsupportedVersion`], [`Error::NotAStore`], [`Error::OtherMachine`] and I/O errors.
    /// After an error the content of the directory is unchanged.
    pub fn open(dir: impl AsRef<Path>) -> Result<Engine<M>> {
        Options::new().open(dir)
    }

    pub(crate) fn open_with(storage: Arc<dyn Storage>, options: Options) -> Result<Engine<M>> {
        let span = crate::events::span!("open", machine = M::NAME, dir = %storage.path("").display());
        let _entered = span.enter();
        let recovered = recover_in_span::<M>(&storage, &options)?;
        crate::events::event!(info, machine = M::NAME, report = %recovered.report, "a store was opened");
        for _warning in &recovered.report.warnings {
            crate::events::event!(warn, machine = M::NAME, warning = %_warning, "a store was opened with a warning");
        }
        let background = options.log.background;
        let shared = Arc::new(Shared::new(storage, options, recovered));
        shared.checkpointer.tidy_after_many_opens();
        let threads = Threads::default();
        if background == Background::Threads && shared.log.is_some() {
            threads.start(&shared)?;
        }
        Ok(Engine { handle: Arc::new(Handle { shared, threads }) })
    }

    /// What recovery found and did when this engine was opened.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.shared().report
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<M>> {
        &self.handle.shared
    }

    /// Executes a command as a transaction of its own, with the default durability. It never
    /// returns [`Error::Conflict`].
    ///
    /// The command is passed by value or by reference. By reference, the caller still has it if the
    /// call fails:
    ///
    /// ```
    /// use seawal::{Engine, kv::{Kv, KvCommand}};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::<Kv>::open(dir.path())?;
    /// let command = KvCommand::put("", "key", "value");
    /// let mut tries = 1;
    /// let reply = loop {
    ///     match engine.execute(&command) {
    ///         Err(error) if error.is_retryable() && tries < 3 => tries += 1,
    ///         outcome => break outcome?,
    ///     }
    /// };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// When it returns `Ok`, the command survives what the durability promises. A rejection is
    /// returned once the state that it rests on is as durable. Close to the log's size limit, the
    /// call is throttled by up to 10 ms; it holds no lock meanwhile.
    ///
    /// # Errors
    /// Nothing happened after the machine's rejection, [`Error::LockTimeout`], [`Error::Full`],
    /// [`Error::TooLarge`], [`Error::SelfDeadlock`] and [`Error::Reentrant`]. After `LockTimeout` and
    /// `Full`, the same command may succeed later; [`Error::is_retryable`] is true for them.
    /// [`Error::Delayed`]: the command has taken effect, and becomes durable with the next commit
    /// that does. [`Error::Latched`]: whether it survived is known after the store is reopened.
    pub fn execute(&self, command: impl Borrow<M::Command>) -> ExecuteResult<M, M::Reply> {
        self.execute_with(command, self.shared().options.durability)
    }

    /// As [`Engine::execute`], with this durability.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub fn execute_with(&self, command: impl Borrow<M::Command>, durability: Durability) -> ExecuteResult<M, M::Reply> {
        let shared = self.shared();
        let began = shared.meters().begin(&*shared.storage);
        let committed = commit::execute(shared, command.borrow(), durability)?;
        committed.barrier.wait(shared.log()?)?;
        shared.note_committed(Some(began));
        Ok(committed.reply)
    }

    /// Executes a command and returns a ticket for its reply, without waiting for the device. When
    /// it returns, the command has taken effect and later commands see it, but nothing of it
    /// survives power loss until the ticket is done. The record is flushed whether or not the
    /// ticket is waited for.
    ///
    /// # Errors
    /// As [`Engine::execute`]; a rejection is waited for here.
    pub fn submit(&self, command: impl Borrow<M::Command>) -> ExecuteResult<M, Ticket<M::Reply>> {
        self.submit_with(command, self.shared().options.durability)
    }

    /// As [`Engine::submit`], with this durability.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_with(
        &self,
        command: impl Borrow<M::Command>,
        durability: Durability,
    ) -> ExecuteResult<M, Ticket<M::Reply>> {
        let shared = self.shared();
        let committed = commit::execute(shared, command.borrow(), durability)?;
        let ticket = committed.barrier.ticket(shared.log()?, committed.reply);
        shared.note_committed(None);
        Ok(ticket)
    }

    /// Begins an interactive transaction. Dropping it rolls it back.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Poisoned`], [`Error::Latched`], [`Error::ReadOnly`].
    pub fn begin(&self) -> Result<Transaction<M>> {
        let age = self.shared().next_owner_id();
        self.begin_aged(age)
    }

    fn begin_aged(&self, age: u64) -> Result<Transaction<M>> {
        Transaction::begin(self.shared().clone(), age)
    }

    /// Reads the whole committed state. It waits for transactions that hold any part of it
    /// exclusively, and then until everything that it read is as durable as its writer requested.
    ///
    /// The closure runs under a lock that writers wait for. A call of this engine from within it
    /// could wait for itself, so it fails with [`Error::Reentrant`] at once, whether it writes or
    /// reads. A transaction that is dropped within the closure is rolled back when the closure has
    /// returned.
    ///
    /// # Errors
    /// [`Error::LockTimeout`]; [`Error::Latched`] if a crash may take back what it saw.
    pub fn read<T>(&self, f: impl FnOnce(&M) -> T) -> Result<T> {
        self.read_within(&Footprint::everything(Access::Shared), ReadLevel::Hardened, f)
    }

    /// Reads a part of the committed state. The closure must read nothing outside `footprint`, and
    /// must not call the engine, as in [`Engine::read`].
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn read_within<T>(&self, footprint: &Footprint, level: ReadLevel, f: impl FnOnce(&M) -> T) -> Result<T> {
        read::within(self.shared(), footprint, level, f)
    }

    /// Reads the state at one key. It is the same as a read within a footprint of that key, but
    /// makes none.
    pub(crate) fn read_key<T>(
        &self,
        key: &[u8],
        level: ReadLevel,
        runs: Runs,
        read: impl FnOnce(&M) -> T,
    ) -> Result<T> {
        read::key(self.shared(), key, level, runs, read)
    }

    /// Reads the state as it is, without waiting for any lock. It may show what a transaction has
    /// not committed. `read` learns whether no transaction holds this key exclusively.
    pub(crate) fn peek_key<T>(&self, key: &[u8], read: impl FnOnce(&M, bool) -> T) -> Result<T> {
        read::peek(self.shared(), key, read)
    }

    /// Reads the state within a footprint, which is made only if a conflicting lock may be held.
    pub(crate) fn read_span<T>(
        &self,
        footprint: impl FnOnce() -> Footprint,
        level: ReadLevel,
        runs: Runs,
        read: impl FnOnce(&M) -> T,
    ) -> Result<T> {
        read::span(self.shared(), footprint, level, runs, read)
    }

    /// Returns a consistent copy of the committed state of this moment. It waits for no transaction
    /// and blocks none. It waits until everything that it shows is as durable as its writer
    /// requested. It costs one clone of the machine, and undoes the open transactions on that
    /// clone.
    ///
    /// All commits wait for the clone. [`Kv`](crate::kv::Kv) is cloned in microseconds, whatever
    /// its size. A machine that copies its elements takes time in proportion to the state: seconds
    /// for millions of entries. The view takes the memory of a second state while it lives, also if
    /// the machine has [`SnapshotSource::Replay`](crate::machine::SnapshotSource::Replay). For such
    /// a machine, [`Engine::read`] a part, or take a backup.
    ///
    /// # Errors
    /// [`Error::Latched`] if a crash may take back what it would show.
    pub fn view(&self) -> Result<View<M>> {
        View::take_hardened(self.shared())
    }

    /// As [`Engine::view`], but returns at once: a crash may take back what it shows.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn view_latest(&self) -> Result<View<M>> {
        View::take(self.shared()).map(|(view, _)| view)
    }

    /// Takes a checkpoint now and waits for it, while commits continue. What it costs depends on
    /// the machine's [`SnapshotSource`](crate::machine::SnapshotSource).
    ///
    /// When it returns `Ok`, the snapshot survives power loss, recovery starts from it, and the log
    /// that no snapshot needs is deleted. The space of a deleted snapshot may be freed a little
    /// later, in the background; an operation that runs out of space waits for that.
    ///
    /// # Errors
    /// [`Error::Full`] and I/O errors. The store continues without the checkpoint. On a full disk, it
    /// is also [`Error::Full`] if a snapshot was taken, but the log still has no space for another
    /// record. If the state is replayed, also the errors of an open, such as [`Error::Diverged`].
    /// [`Error::Reentrant`] if code of the machine, such as a `Drop`, calls it within a checkpoint.
    pub fn checkpoint(&self) -> Result<()> {
        // a checkpoint that waits for this thread may hold the checkpoint job
        self.shared().core.check_not_held()?;
        let result = self.shared().checkpointer.checkpoint();
        lifecycle::close_if_asked(self.shared());
        // the thread reclaims the files that the checkpoint unlinked, and retries a failed
        // checkpoint
        self.shared().wake_maintenance();
        result
    }

    /// Writes a consistent committed state as a new store into a directory, while this engine stays
    /// in use. When it returns `Ok`, the new store is complete and survives power loss. It waits up
    /// to [`lock_wait`](Options::lock_wait) while the directory is in use.
    ///
    /// If the machine has [`SnapshotSource::Replay`](crate::machine::SnapshotSource::Replay), no
    /// commit waits for the backup, and it takes the memory of a second state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is a store already; [`Error::Full`] and I/O errors. If the
    /// state is replayed, also the errors of an open, and [`Error::Closed`] if the store is closed
    /// meanwhile.
    pub fn backup_to(&self, dir: impl AsRef<Path>) -> Result<()> {
        backup::to_dir(self.shared(), dir.as_ref())
    }

    /// As [`Engine::backup_to`], onto a storage of your own.
    ///
    /// # Errors
    /// As [`Engine::backup_to`].
    pub fn backup_to_storage(&self, storage: Arc<dyn Storage>) -> Result<()> {
        backup::to_storage(self.shared(), storage)
    }

    /// Makes everything committed so far survive power loss, whatever durability it asked for.
    ///
    /// # Errors
    /// [`Error::Latched`].
    pub fn sync(&self) -> Result<()> {
        self.shared().log()?.sync()
    }

    /// Estimates how long opening this store would take now, from rates that the engine measures.
    pub fn estimated_recovery(&self) -> Duration {
        self.shared().checkpointer.monitor().estimated_recovery()
    }

    /// Returns counters and sizes. It waits for no I/O.
    pub fn stats(&self) -> Stats {
        stats::collect(self.shared())
    }

    /// Runs one step of background work, for [`Background::Manual`]. Returns whether there was
    /// anything to do.
    ///
    /// # Errors
    /// Those of the step.
    pub fn step(&self, step: Step) -> Result<bool> {
        let done = maintenance::run(self.shared(), step);
        lifecycle::close_if_asked(self.shared());
        done
    }

    /// Ends the engine as a kill of the process would: nothing more is written, nothing is rolled
    /// back on disk.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn kill(&self) {
        self.shared().checkpointer.stop();
        self.handle.threads.stop(self.shared());
        if let Some(log) = &self.shared().log {
            log.kill();
        }
    }

    /// Closes the store, for all clones: rolls open transactions back, makes everything durable,
    /// and marks the store clean.
    ///
    /// It costs about what has changed. It takes a checkpoint if that writes no more than the log
    /// has grown by since the last one, or at most 1 MiB; see [`Options::checkpoint_on_close`].
    /// Opening the store then redoes no more log than the size of the snapshot that it loads,
    /// unless the option forbids the checkpoint. It needs no undo, unless the disk was full at the
    /// close. After
    /// [`Engine::checkpoint`] there is nothing to redo either.
    ///
    /// It may be called in a waker or by a thread of the store, which may outlive the call for a
    /// moment.
    ///
    /// # Errors
    /// The error of the rollback, the checkpoint or the log. Every acknowledged commit keeps its
    /// durability. [`Error::InvalidArgument`] if code of the machine, such as a `Drop`, calls it
    /// within a checkpoint: the store is then closed once that stage of the checkpoint has ended.
    pub fn close(&self) -> Result<()> {
        self.shared().core.check_not_held()?;
        let result = lifecycle::close(self.shared());
        self.handle.threads.stop(self.shared());
        result
    }
}

/// Recovers a store within a span that tells what was found.
fn recover_in_span<M: StateMachine>(storage: &Arc<dyn Storage>, options: &Options) -> Result<Recovered<M>> {
    let span = crate::events::span!(
        "recovery",
        verdict = tracing::field::Empty,
        snapshot_bytes = tracing::field::Empty,
        log_bytes = tracing::field::Empty,
        records = tracing::field::Empty,
        redone = tracing::field::Empty,
        undone = tracing::field::Empty,
        error = tracing::field::Empty
    );
    let _entered = span.enter();
    let recovered = recovery::recover::<M>(storage.clone(), options).inspect_err(|e| span.record_text("error", e))?;
    let report = &recovered.report;
    span.record_text("verdict", &report.verdict);
    for (field, value) in [
        ("snapshot_bytes", report.snapshot_bytes),
        ("log_bytes", report.log_bytes),
        ("records", report.records),
        ("redone", report.redone),
        ("undone", report.undone),
    ] {
        span.record(field, value);
    }
    Ok(recovered)
}

impl<M: StateMachine> Drop for Handle<M> {
    fn drop(&mut self) {
        let (shared, threads) = (self.shared.clone(), std::mem::take(&mut self.threads));
        shared.checkpointer.stop();
        let is_panicking = thread::panicking();
        let is_held = shared.core.is_held();
        let end = move || {
            threads.stop(&shared);
            if !is_panicking {
                // code of users, such as a waker, may panic; the drop of the log then does the rest
                let _ = contained(|| lifecycle::end_dropped(&shared));
            }
        };
        // In the closure of a transaction's read this thread holds the core lock, which the
        // maintenance thread may wait for.
        if is_held { defer(Box::new(end)) } else { end() }
    }
}
