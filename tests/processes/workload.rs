//! Transactions that are determined by a thread's number and their own, and their expected effects.

use crate::common::{Cmd, Rng, Stacks};
use seawal::io::{Create, DiskStorage, WritePath};
use seawal::{Durability, Engine, Error, ExecuteError, Options, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The stack that all threads push to. It shows the commit order.
const SHARED: u8 = 250;
/// The stack of transactions that never commit.
pub(crate) const LOSERS: u8 = 251;
/// A stack with one durable push, which is read repeatedly.
pub(crate) const WITNESS: u8 = 252;

/// Options with segments so small that every few commits need another.
pub(crate) fn options() -> Options {
    Options::new()
        .first_segment_bytes(16 << 10)
        .segment_bytes(64 << 10)
        .max_log_bytes(2 << 20)
        .checkpoint_log_bytes(192 << 10)
        .lock_timeout(Duration::from_secs(10))
}

/// Opens a store with this path for durable writes.
pub(crate) fn open_with(options: &Options, dir: &Path, path: WritePath) -> Result<Engine<Stacks>, Error> {
    let refused = |e| Error::Io { operation: "open", path: dir.into(), offset: None, source: Arc::new(e) };
    let storage = DiskStorage::open(dir, Create::IfMissing).map_err(refused)?.with_write_path(path);
    options.open_on(Arc::new(storage))
}

/// How transaction `n` of a thread is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Alone(Durability),
    Ticket,
    Interactive(Durability),
    InteractiveTicket,
    RolledBack,
}

fn shape(n: u32) -> Shape {
    match n % 7 {
        0 => Shape::Alone(Durability::Sync),
        1 => Shape::Ticket,
        2 => Shape::Interactive(Durability::Os),
        3 => Shape::RolledBack,
        4 => Shape::Alone(Durability::Interval(Duration::from_millis(3))),
        5 => Shape::InteractiveTicket,
        _ => Shape::Interactive(Durability::Sync),
    }
}

/// Whether an acknowledgement of transaction `n` promises that it survives power loss.
pub(crate) fn is_sync(n: u32) -> bool {
    match shape(n) {
        Shape::Alone(durability) | Shape::Interactive(durability) => durability == Durability::Sync,
        Shape::Ticket | Shape::InteractiveTicket => true,
        Shape::RolledBack => false,
    }
}

fn keys(thread: u8) -> (u8, u8) {
    (thread * 2, thread * 2 + 1)
}

/// The effects of transaction `n` of a thread. The result differs if any of them is applied twice,
/// left out, or out of order.
fn effects(thread: u8, n: u32) -> Vec<Cmd> {
    let (a, b) = keys(thread);
    let mut rng = Rng::new(u64::from(thread) << 32 | u64::from(n));
    let push = |key, pad| Cmd::Push { key, value: n << 8 | u32::from(thread), pad };
    let pad = rng.below(3000) as u16;
    match shape(n) {
        Shape::Alone(_) | Shape::Ticket => vec![push(a, pad)],
        Shape::Interactive(_) => {
            vec![push(a, pad), push(b, 1), Cmd::Move { from: a, to: b }, Cmd::Pop { key: b }, push(SHARED, 0)]
        }
        Shape::InteractiveTicket => vec![push(b, 0), push(a, pad), Cmd::Move { from: b, to: a }, push(SHARED, 0)],
        Shape::RolledBack => vec![],
    }
}

/// The end of a transaction.
pub(crate) enum Ended {
    /// It is acknowledged.
    Acknowledged,
    /// It is acknowledged when this returns.
    Promised(Box<dyn FnOnce() -> Result<(), Error> + Send>),
}

/// Executes transaction `n` of a thread.
pub(crate) fn perform(engine: &Engine<Stacks>, thread: u8, n: u32) -> Result<Ended, Error> {
    let commands = effects(thread, n);
    match shape(n) {
        Shape::Alone(durability) => {
            for command in commands {
                engine.execute_with(command, durability).map_err(failed)?;
            }
            Ok(Ended::Acknowledged)
        }
        Shape::Ticket => {
            let tickets = commands.into_iter().map(|command| engine.submit(command).map_err(failed));
            let tickets = tickets.collect::<Result<Vec<_>, _>>()?;
            Ok(Ended::Promised(Box::new(|| tickets.into_iter().try_for_each(|ticket| ticket.wait().map(drop)))))
        }
        Shape::Interactive(durability) => {
            let tx = fill(engine, thread, commands)?;
            tx.commit_with(durability).map(|()| Ended::Acknowledged)
        }
        Shape::InteractiveTicket => {
            let ticket = fill(engine, thread, commands)?.submit()?;
            Ok(Ended::Promised(Box::new(|| ticket.wait())))
        }
        Shape::RolledBack => {
            let (a, b) = keys(thread);
            let tx = fill(engine, thread, vec![Cmd::push(a, 1), Cmd::Move { from: a, to: b }])?;
            tx.rollback().map(|()| Ended::Acknowledged)
        }
    }
}

/// A transaction with these commands, and with others that were rolled back to a savepoint.
fn fill(engine: &Engine<Stacks>, thread: u8, commands: Vec<Cmd>) -> Result<Transaction<Stacks>, Error> {
    loop {
        let tx = engine.begin()?;
        match fill_once(&tx, thread, &commands) {
            Err(error) if error.is_conflict() => {}
            other => return other.map(|()| tx),
        }
    }
}

fn fill_once(tx: &Transaction<Stacks>, thread: u8, commands: &[Cmd]) -> Result<(), Error> {
    let (a, b) = keys(thread);
    for (at, command) in commands.iter().enumerate() {
        if at == 1 {
            let savepoint = tx.savepoint()?;
            tx.execute(Cmd::push(b, u32::MAX)).map_err(failed)?;
            tx.execute(Cmd::Move { from: b, to: a }).map_err(failed)?;
            tx.rollback_to(savepoint)?;
        }
        tx.execute(command.clone()).map_err(failed)?;
    }
    Ok(())
}

pub(crate) fn failed(error: ExecuteError<crate::common::Empty>) -> Error {
    match error {
        ExecuteError::Failed(error) => error,
        ExecuteError::Rejected(rejection) => panic!("{rejection}"),
    }
}

/// The known effects of one thread on the state.
#[derive(Clone)]
pub(crate) struct Model {
    thread: u8,
    state: Stacks,
}

impl Model {
    pub(crate) fn new(thread: u8) -> Model {
        Model { thread, state: Stacks::default() }
    }

    pub(crate) fn apply(&mut self, n: u32) {
        use seawal::StateMachine;
        for command in effects(self.thread, n) {
            self.state.apply(&command).unwrap();
        }
    }

    /// Whether a recovered state has exactly these effects of this thread.
    fn is(&self, found: &Stacks) -> bool {
        let (a, b) = keys(self.thread);
        let by_thread = |value: &&u32| **value & 0xff == u32::from(self.thread);
        let shared: Vec<u32> = found.at(SHARED).iter().filter(by_thread).copied().collect();
        self.state.at(a) == found.at(a) && self.state.at(b) == found.at(b) && self.state.at(SHARED) == shared
    }

    /// Applies transactions until the model equals `found`. The first `acknowledged` are certain.
    /// Returns the number of applied transactions.
    ///
    /// Panics if `found` is not a prefix of at least that length.
    pub(crate) fn catch_up(&mut self, found: &Stacks, transactions: &[u32], acknowledged: usize) -> usize {
        for done in 0..=transactions.len() {
            if done >= acknowledged && self.is(found) {
                return done;
            }
            if let Some(n) = transactions.get(done) {
                self.apply(*n);
            }
        }
        let (a, b) = keys(self.thread);
        let (thread, found) = (self.thread, (found.at(a), found.at(b)));
        panic!("thread {thread}: {acknowledged} of {transactions:?} were acknowledged, and this was found: {found:?}");
    }
}
