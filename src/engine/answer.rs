//! Answer barriers: the durability that an answer waits for before it is returned.

use super::ticket::Ticket;
use crate::durability::Durability;
use crate::error::Result;
use crate::txn::DurabilityBarrier;
use crate::wal::{Level, Log, Position};

/// The durability that an answer must wait for before it is returned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerBarrier {
    /// The answer's own record, and the durability that its writer requested.
    pub(crate) own: Option<(Position, Durability)>,
    /// The barrier of other commits whose effects the answer saw.
    pub(crate) seen: DurabilityBarrier,
}

impl AnswerBarrier {
    /// Blocks until the answer may be returned.
    pub(super) fn wait(self, log: &Log) -> Result<()> {
        if let Some((position, durability)) = self.own {
            if let Durability::Interval(within) = durability {
                log.sync_within(position.end, within);
            }
            log.wait(position.end, durability.into())?;
        }
        wait_for(Some(log), self.seen)
    }

    /// Makes sure that the record is flushed, and returns a ticket for the answer.
    pub(super) fn ticket<T>(self, log: &Log, value: T) -> Ticket<T> {
        let mut waits = Vec::with_capacity(1);
        let mut covered = DurabilityBarrier::default();
        if let Some((position, durability)) = self.own {
            if let Durability::Interval(within) = durability {
                log.sync_within(position.end, within);
            }
            waits.push(log.ticket(position.end, durability.into()));
            covered.written = position.end;
            if durability == Durability::Sync {
                covered.durable = position.end;
            }
        }
        if self.seen.durable > covered.durable {
            waits.push(log.ticket(self.seen.durable, Level::Durable));
        }
        if self.seen.written > covered.written {
            waits.push(log.ticket(self.seen.written, Level::Written));
        }
        log.nudge();
        Ticket::new(waits, value)
    }
}

/// Blocks until an answer with this barrier may be returned.
#[inline]
pub(super) fn wait_for(log: Option<&Log>, needed: DurabilityBarrier) -> Result<()> {
    let Some(log) = log.filter(|_| needed != DurabilityBarrier::default()) else { return Ok(()) };
    log.wait(needed.durable, Level::Durable)?;
    log.wait(needed.written, Level::Written)?;
    // after a failure of the log, bytes that are only in the page cache may be lost
    if needed.written > log.durable_lsn() { log.check_latch() } else { Ok(()) }
}
