//! Tickets of the engine: an answer that may leave once it has hardened.

use crate::error::Result;
use crate::wal::LogTicket;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An answer that rests on something not yet hardened. [`wait`](Ticket::wait) blocks for it; as a future it needs no runtime,
/// and polling does no I/O. It is flushed whether it is waited for or not.
#[must_use = "a ticket says when the commit is durable"]
pub struct Ticket<T> {
    waits: Vec<LogTicket>,
    value: Option<T>,
}

impl<T> Ticket<T> {
    pub(super) fn new(waits: Vec<LogTicket>, value: T) -> Self {
        Ticket { waits, value: Some(value) }
    }

    /// Blocks until the answer may leave, and returns it.
    ///
    /// # Errors
    /// [`crate::Error::Latched`] if a write failed: then whether the commit survived is known after the store is reopened.
    pub fn wait(mut self) -> Result<T> {
        for ticket in &self.waits {
            ticket.wait()?;
        }
        self.value.take().ok_or(crate::Error::Closed)
    }

    /// Whether the wait would return at once, with an error too.
    pub fn is_done(&self) -> bool {
        self.waits.iter().all(LogTicket::is_done)
    }
}

impl<T: Unpin> Future for Ticket<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(ticket) = self.waits.last_mut() {
            match Pin::new(ticket).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    self.waits.pop();
                }
            }
        }
        Poll::Ready(self.value.take().ok_or(crate::Error::Closed))
    }
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("done", &self.is_done()).finish()
    }
}
