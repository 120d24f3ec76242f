//! Builds stores as a kill of the process leaves them, to measure and test recovery.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::machine::StateMachine;
use crate::options::Options;
use crate::{ExecuteError, Ticket};
use std::collections::VecDeque;
use std::path::Path;

/// The number of outstanding tickets while the store is written, which keeps the log's frames full.
const OUTSTANDING: usize = 4096;

/// Builds a store and leaves it as a kill of the process would, with a given number of records in
/// the log and of open transactions.
///
/// ```
/// use seawal::{Options, kv::{Kv, KvCommand}, sim::explore::KilledStore};
///
/// let dir = tempfile::tempdir()?;
/// KilledStore { records: 1_000, losers: 3, inverses: 10 }.build::<Kv>(
///     dir.path(),
///     &Options::new(),
///     |n| KvCommand::put("", n.to_be_bytes(), "value"),
///     |loser, n| KvCommand::put("losers", [loser.to_be_bytes(), n.to_be_bytes()].concat(), "value"),
/// )?;
/// let engine = Options::new().open::<Kv>(dir.path())?;
/// let report = engine.recovery_report().clone();
/// assert_eq!((report.undone, report.undo_steps), (3, 30));
/// assert_eq!(engine.iter()?.count(), 1_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KilledStore {
    /// The number of committed transactions, of one command each.
    pub records: u64,
    /// The number of open transactions, which recovery undoes.
    pub losers: u64,
    /// The number of commands in each open transaction.
    pub inverses: u64,
}

impl KilledStore {
    /// Builds the store in a directory. `command` returns the n-th command, and `loser` the n-th
    /// command of an open transaction, which must not conflict with any other. The store survives
    /// power loss when this returns.
    ///
    /// # Errors
    /// The engine's errors, and [`Error::InvalidArgument`] if the machine rejects a command.
    pub fn build<M: StateMachine>(
        &self,
        dir: impl AsRef<Path>,
        options: &Options,
        mut command: impl FnMut(u64) -> M::Command,
        mut loser: impl FnMut(u64, u64) -> M::Command,
    ) -> Result<()> {
        let engine: Engine<M> = options.open(dir)?;
        let failed = |error| match error {
            ExecuteError::Rejected(_) => Error::invalid("the machine rejected a command of the workload"),
            ExecuteError::Failed(error) => error,
        };
        let mut open = Vec::new();
        for number in 0..self.losers {
            let tx = engine.begin()?;
            for n in 0..self.inverses {
                tx.execute(loser(number, n)).map_err(failed)?;
            }
            open.push(tx);
        }
        let mut tickets: VecDeque<Ticket<M::Reply>> = VecDeque::new();
        for n in 0..self.records {
            tickets.push_back(engine.submit(command(n)).map_err(failed)?);
            if tickets.len() > OUTSTANDING
                && let Some(ticket) = tickets.pop_front()
            {
                ticket.wait()?;
            }
        }
        for ticket in tickets {
            ticket.wait()?;
        }
        engine.sync()?;
        kill(&engine);
        Ok(())
    }
}

/// Ends an engine, for all of its clones, as a kill of the process would. Nothing more is written,
/// and open transactions are left for the next recovery.
///
/// Requires the feature `sim`. It is for tests and measurements; a program ends an engine with
/// [`Engine::close`] or by dropping it.
pub fn kill<M: StateMachine>(engine: &Engine<M>) {
    engine.kill();
}
