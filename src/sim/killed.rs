//! Stores as a kill of the process leaves them, for measuring and testing recovery.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::machine::StateMachine;
use crate::options::Options;
use crate::{ExecuteError, Ticket};
use std::collections::VecDeque;
use std::path::Path;

/// How many tickets are outstanding while the store is being written.
const OUTSTANDING: usize = 4096;

/// Builds a store and leaves it as a kill of the process would: so many records in the log, and so many transactions that
/// had not ended.
///
/// ```
/// use seawal::{Options, kv::{Kv, KvCommand}, sim::KilledStore};
///
/// let dir = tempfile::tempdir()?;
/// KilledStore { records: 1_000, losers: 3, inverses: 10 }.build::<Kv>(
///     dir.path(),
///     &Options::new(),
///     |n| KvCommand::put("", n.to_be_bytes(), "value"),
///     |loser, n| KvCommand::put("losers", [loser.to_be_bytes(), n.to_be_bytes()].concat(), "value"),
/// )?;
/// let (engine, report) = Options::new().open_reporting::<Kv>(dir.path())?;
/// assert_eq!((report.undone, report.undo_steps), (3, 30));
/// assert_eq!(engine.iter()?.count(), 1_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KilledStore {
    /// Transactions of one command each that committed.
    pub records: u64,
    /// Transactions that had not ended.
    pub losers: u64,
    /// How many effects each of those has, to be undone.
    pub inverses: u64,
}

impl KilledStore {
    /// Builds the store in a directory. `command` gives the n-th command, `loser` the n-th command of a transaction that will not
    /// end; the latter must not conflict with anything else. All of it survives power loss when this returns.
    ///
    /// # Errors
    /// Those of the engine; [`Error::InvalidArgument`] if the machine rejects a command.
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
            let mut tx = engine.begin()?;
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

/// Ends an engine, for all of its clones, as a kill of the process would. Nothing more is written, and open transactions are
/// left for the next recovery.
///
/// Requires the feature `sim`. It is for tests and measurements; a program ends an engine with [`Engine::close`] or by dropping it.
pub fn kill<M: StateMachine>(engine: &Engine<M>) {
    engine.kill();
}
