//! What an answer waits for before it may leave.

use super::ticket::Ticket;
use crate::durability::Durability;
use crate::error::Result;
use crate::txn::DurabilityBarrier;
use crate::wal::{Level, Log, Position};

/// What an answer must wait for before it may leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerBarrier {
    /// Its own record, and how durable the writer asked for it to be.
    pub(crate) own: Option<(Position, Durability)>,
    /// What it saw of others.
    pub(crate) seen: DurabilityBarrier,
}

impl AnswerBarrier {
    /// Blocks until the answer may leave.
    pub(super) fn wait(self, log: &Log) -> Result<()> {
        if let Some((position, durability)) = self.own {
            if let Durability::Interval(within) = durability {
                log.sync_within(position.end, within);
            }
            log.wait(position.end, level_of(durability))?;
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
            waits.push(log.ticket(position.end, level_of(durability)));
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

/// Blocks until an answer that rests on this may leave.
#[inline]
pub(super) fn wait_for(log: Option<&Log>, needed: DurabilityBarrier) -> Result<()> {
    let Some(log) = log.filter(|_| needed != DurabilityBarrier::default()) else { return Ok(()) };
    log.wait(needed.durable, Level::Durable)?;
    log.wait(needed.written, Level::Written)?;
    // after a failure, data that only the operating system has may be lost
    if needed.written > log.durable_lsn() { log.check_latch() } else { Ok(()) }
}

/// What a durability asks of the log before the answer leaves.
pub(super) fn level_of(durability: Durability) -> Level {
    match durability {
        Durability::Sync => Level::Durable,
        Durability::Interval(_) | Durability::Os => Level::Written,
    }
}
