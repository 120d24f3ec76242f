//! Tickets: a caller waits for one to know that its records are durable.

use super::Level;
use super::shared::Shared;
use super::waiters::WaitKey;
use crate::error::Result;
use crate::ids::Lsn;
use crate::io::sync::Arc;
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Represents records that were appended. They become durable whether or not the ticket is waited
/// for. Dropping it, also as a future that was polled, takes nothing back.
///
/// [`wait`](LogTicket::wait) blocks the thread. As a future, the ticket needs no particular
/// runtime, and polling it does no I/O.
#[must_use = "a ticket says when the records are durable"]
pub struct LogTicket {
    shared: Arc<Shared>,
    lsn: Lsn,
    end: Lsn,
    level: Level,
    /// The registration of the waker of an earlier poll.
    registration: Option<WaitKey>,
}

// as for the log
impl UnwindSafe for LogTicket {}
impl RefUnwindSafe for LogTicket {}

impl LogTicket {
    pub(super) fn new(shared: Arc<Shared>, lsn: Lsn, end: Lsn, level: Level) -> Self {
        LogTicket { shared, lsn, end, level, registration: None }
    }

    /// The LSN of the record, or of the first record of a group. [`Log::read_at`](super::Log::read_at)
    /// reads it back.
    ///
    /// ```
    /// use seawal::wal::{Level, Log, LogOptions};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), LogOptions::default())?;
    /// let ticket = log.append(b"one")?;
    /// assert_eq!(log.read_at(ticket.lsn(), Level::Written)?.as_deref(), Some(&b"one"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Blocks until the records are as durable as their append requested: with
    /// [`Durability::Sync`](crate::Durability), they survive power loss when this returns `Ok`.
    /// With the other levels they survive a kill of the process.
    ///
    /// # Errors
    /// [`crate::Error::Latched`] if a write failed: only reopening the log then tells whether the
    /// records survived. [`crate::Error::Full`] if there was no memory to write them; waiting again
    /// may succeed.
    pub fn wait(&self) -> Result<()> {
        self.shared.commit.wait(self.end, self.level)
    }

    /// Whether [`wait`](Self::wait) would return at once, with success or with an error.
    pub fn is_done(&self) -> bool {
        let commit = &self.shared.commit;
        commit.progress.reached(self.end, self.level) || commit.is_latched()
    }

    /// The LSN past the last record: what the durable LSN must reach.
    pub fn end(&self) -> Lsn {
        self.end
    }
}

impl Future for LogTicket {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = &mut *self;
        ticket.shared.commit.poll(ticket.end, ticket.level, cx, &mut ticket.registration)
    }
}

impl Drop for LogTicket {
    fn drop(&mut self) {
        if let Some(key) = self.registration {
            let forgotten = self.shared.commit.queue.lock().waiters.remove_task(key);
            // a waker is foreign code: it is dropped without the lock
            drop(forgotten);
        }
    }
}

impl fmt::Debug for LogTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTicket")
            .field("lsn", &self.lsn)
            .field("end", &self.end)
            .field("done", &self.is_done())
            .finish()
    }
}
