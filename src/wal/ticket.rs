//! Tickets: the promise of durability, to be waited for later.

use super::Level;
use super::log::Inner;
use crate::error::Result;
use crate::ids::Lsn;
use crate::io::sync::Arc;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Stands for records that were appended and will become durable, waited for or not.
///
/// [`wait`](LogTicket::wait) blocks; as a future it needs no runtime, and polling does no I/O.
#[must_use = "a ticket says when the records are durable"]
pub struct LogTicket {
    inner: Arc<Inner>,
    end: Lsn,
    level: Level,
    /// The waker that an earlier poll left.
    registration: Option<u64>,
}

impl LogTicket {
    pub(super) fn new(inner: Arc<Inner>, end: Lsn, level: Level) -> Self {
        LogTicket { inner, end, level, registration: None }
    }

    /// Blocks until the records are as durable as was asked for.
    ///
    /// # Errors
    /// [`crate::Error::Latched`] if a write failed: then whether they survived is known only after the log is reopened.
    pub fn wait(&self) -> Result<()> {
        self.inner.commit.wait(self.end, self.level)
    }

    /// Whether the wait would return at once, with an error too.
    pub fn is_done(&self) -> bool {
        let commit = &self.inner.commit;
        commit.progress.reached(self.end, self.level) || commit.is_latched()
    }

    /// The position that must be reached.
    pub fn end(&self) -> Lsn {
        self.end
    }
}

impl Future for LogTicket {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = &mut *self;
        ticket.inner.commit.poll(ticket.end, ticket.level, cx, &mut ticket.registration)
    }
}

impl Drop for LogTicket {
    fn drop(&mut self) {
        if let Some(id) = self.registration {
            let forgotten = self.inner.commit.queue.lock().waiters.remove(id);
            // a waker is a stranger's code
            drop(forgotten);
        }
    }
}

impl fmt::Debug for LogTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTicket").field("end", &self.end).field("done", &self.is_done()).finish()
    }
}
