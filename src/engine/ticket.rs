//! Tickets of the engine: a reply that waits until its record is durable.

use crate::error::Result;
use crate::wal::LogTicket;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A reply whose record is not durable yet. [`wait`](Ticket::wait) blocks until it is; the ticket
/// is also a future.
///
/// The future needs no runtime, and polling does no I/O. It is safe to cancel: dropping it, before
/// or after a poll, ends the wait and nothing else. The record is flushed whether or not the ticket
/// is waited for.
#[must_use = "a ticket says when the commit is durable"]
pub struct Ticket<T> {
    waits: Vec<LogTicket>,
    value: Option<T>,
}

impl<T> Ticket<T> {
    pub(super) fn new(waits: Vec<LogTicket>, value: T) -> Self {
        Ticket { waits, value: Some(value) }
    }

    /// Blocks until the record is as durable as requested, and returns the reply.
    ///
    /// # Errors
    /// [`crate::Error::Latched`] if a write failed: only reopening the store tells whether the
    /// commit survived.
    pub fn wait(mut self) -> Result<T> {
        for ticket in &self.waits {
            ticket.wait()?;
        }
        self.value.take().ok_or(crate::Error::Closed)
    }

    /// Whether [`wait`](Ticket::wait) would return at once, with the reply or an error.
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
