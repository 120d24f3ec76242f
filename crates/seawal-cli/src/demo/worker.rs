//! The worker process, which the demo kills.

use super::ledger::{ACCOUNTS, GHOSTS, OPEN_EACH, THREADS, TRANSFERS, private, shared};
use super::{random, report, wait_for_the_end_of_input};
use crate::failure::{Failure, Status};
use seawal::kv::Kv;
use seawal::{Engine, ExecuteResult, Options, Transaction};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// The bytes of log after which a checkpoint is taken: few enough that some kills hit a checkpoint.
const CHECKPOINT_BYTES: u64 = 4 << 20;

/// Moves money until it is killed or its parent ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Worker {
    #[arg(long)]
    dir: PathBuf,
}

impl Worker {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let store = Options::new().checkpoint_log_bytes(CHECKPOINT_BYTES).open::<Kv>(&self.dir)?;
        let report = store.recovery_report().clone();
        // an epoch is used only once, so these ids are new
        let prefix = format!("{:06}", report.epoch.get());
        std::thread::spawn(|| {
            wait_for_the_end_of_input();
            // the parent, which would kill this process, is gone
            std::process::exit(Status::Other as i32);
        });
        let (stop, store, prefix) = (&AtomicBool::new(false), &store, prefix.as_str());
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let bank = Bank { store, stop, thread, prefix, count: 0, random: random() };
                    scope.spawn(move || {
                        let result = bank.work();
                        stop.store(true, Ordering::Relaxed);
                        result
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(Failure::new(Status::Other, "a thread of the worker failed")))
            })
        })
    }
}

/// An open transaction in which money has left one account and not yet reached the other.
struct Halfway {
    tx: Transaction<Kv>,
    slot: usize,
    id: String,
    to: String,
    amount: i64,
}

/// One thread of the worker.
struct Bank<'a> {
    store: &'a Engine<Kv>,
    stop: &'a AtomicBool,
    thread: usize,
    prefix: &'a str,
    count: u64,
    random: u64,
}

impl Bank<'_> {
    fn work(mut self) -> Result<(), Failure> {
        let mut open: Vec<Halfway> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            if open.len() < OPEN_EACH {
                let slot = (0..OPEN_EACH).find(|slot| open.iter().all(|half| half.slot != *slot)).unwrap_or(0);
                open.push(self.begin_half(slot)?);
            } else {
                let at = self.draw(open.len() as u64);
                let half = open.swap_remove(usize::try_from(at).unwrap_or(0));
                self.end_half(half)?;
            }
            for _ in 0..2 {
                self.transfer()?;
            }
        }
        Ok(())
    }

    /// A number below a bound (Marsaglia's xorshift).
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.max(1);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    fn next_id(&mut self) -> String {
        self.count = self.count.saturating_add(1);
        format!("{}-{:02}-{:08}", self.prefix, self.thread, self.count)
    }

    /// Begins a transfer between two private accounts and debits the first.
    fn begin_half(&mut self, slot: usize) -> Result<Halfway, Failure> {
        let id = self.next_id();
        let side = usize::from(self.draw(2) == 1);
        let (from, to) = (private(self.thread, slot, side), private(self.thread, slot, 1 - side));
        let amount = 1 + self.draw(50) as i64;
        let tx = self.store.begin()?;
        tx.insert_in(TRANSFERS, id.as_str(), format!("{from} {to} {amount}"))?;
        add(&tx, &from, -amount)?;
        Ok(Halfway { tx, slot, id, to, amount })
    }

    /// Credits the second account and commits, or rolls the transfer back.
    fn end_half(&mut self, half: Halfway) -> Result<(), Failure> {
        let Halfway { tx, id, to, amount, .. } = half;
        if self.draw(4) == 0 {
            return Ok(tx.rollback()?);
        }
        add(&tx, &to, amount)?;
        tx.commit()?;
        self.report(&id)
    }

    /// Moves money between shared accounts. Some transfers also make a wrong posting and roll it
    /// back to a savepoint.
    fn transfer(&mut self) -> Result<(), Failure> {
        let id = self.next_id();
        let (from, step) = (self.draw(1000), 1 + self.draw(40));
        let (from, to, other) = (shared(from), shared(from + step), shared(from + step + 1));
        let amount = 1 + self.draw(100) as i64;
        let (errs, gives_up) = (self.draw(3) == 0, self.draw(10) == 0);
        let run = |tx: &Transaction<Kv>| {
            tx.insert_in(TRANSFERS, id.as_str(), format!("{from} {to} {amount}"))?;
            add(tx, &from, -amount)?;
            if errs {
                let savepoint = tx.savepoint()?;
                tx.insert_in(GHOSTS, id.as_str(), "wrong")?;
                add(tx, &other, amount)?;
                tx.rollback_to(savepoint)?;
            }
            add(tx, &to, amount)
        };
        if gives_up {
            let tx = self.store.begin()?;
            return match run(&tx) {
                Ok(()) => Ok(tx.rollback()?),
                // the transaction was the victim of a deadlock and is rolled back already
                Err(error) if error.is_conflict() => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        self.store.transact(run)?;
        self.report(&id)
    }

    /// Reports a transfer whose commit has returned.
    fn report(&self, id: &str) -> Result<(), Failure> {
        if report(id) { Ok(()) } else { Err(Failure::Quiet) }
    }
}

/// Changes a balance.
fn add(tx: &Transaction<Kv>, account: &str, amount: i64) -> ExecuteResult<Kv, ()> {
    let balance = tx.get_for_update_in(ACCOUNTS, account)?;
    let balance = balance.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse::<i64>().ok());
    let Some(balance) = balance else {
        let reason = format!("account {account} has no balance").into();
        return Err(seawal::Error::InvalidArgument { reason }.into());
    };
    tx.insert_in(ACCOUNTS, account, (balance + amount).to_string()).map(|_| ())
}
