//! `demo`: kills a process in the middle of concurrent money transfers, recovers its store, and
//! checks the books.
//!
//! A worker process has the store open. Its threads move money between shared accounts, with
//! savepoints and rollbacks. Each thread also keeps several transactions open in which money has
//! left one account and not yet reached another. The worker reports each transfer over a pipe once
//! its commit has returned. The parent process kills the worker at a random moment, recovers the
//! store, and compares it with the reported transfers.

mod ledger;
mod worker;

pub(super) use worker::Worker;

use super::count::Count;
use super::failure::{Failure, Status};
use super::say;
use ledger::Ledger;
use seawal::inspect::{self, Severity};
use seawal::kv::Kv;
use seawal::{Engine, Options, RecoveryReport};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// The bounds of the time after which the worker is killed.
const MIN_RUN: Duration = Duration::from_millis(300);
const MAX_RUN: Duration = Duration::from_millis(1800);
/// The time limit for the first transfer of the worker.
const FIRST_TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);

/// Kills a process in the middle of concurrent money transfers, recovers, and checks the books;
/// repeatedly.
///
/// Each round checks that no acknowledged transfer is lost and that no transfer was applied in
/// part.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// The number of rounds.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The directory of the store: a new one, or that of an earlier demo. The default is a
    /// temporary directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Demo {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let temporary =
            if self.dir.is_none() { Some(Temporary::new_in(&std::env::temp_dir(), "seawal-demo")?) } else { None };
        let dir = match (&self.dir, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temporary)) => temporary.path.clone(),
            (None, None) => return Ok(()),
        };
        let outcome = rounds(&dir, self.rounds);
        let removed = temporary.map_or(Ok(()), Temporary::remove);
        outcome.and(removed)
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn rounds(dir: &Path, rounds: u32) -> Result<(), Failure> {
    let opened = Ledger::open_books(dir)?;
    say(format_args!(
        "{} accounts with {} in all, in {}; {}",
        opened.accounts,
        opened.total,
        dir.display(),
        Count(rounds.into(), "round", "rounds")
    ))?;
    let mut reported = BTreeSet::new();
    let mut sums = Sums::default();
    for round in 1..=rounds {
        let before = reported.len();
        let ran = run_and_kill(dir, &mut reported)?;
        let acknowledged = reported.len() - before;
        say(format_args!(
            "round {round}: killed after {:.2} s; {} had been acknowledged",
            ran.as_secs_f64(),
            Count(acknowledged as u64, "transfer", "transfers")
        ))?;
        let verified = inspect::storage(dir).and_then(inspect::verify)?;
        if let Some(damage) = verified.findings.iter().find(|finding| finding.severity >= Severity::Degraded) {
            return Err(Failure::new(Status::Damage, format!("after the kill {}", damage.text)));
        }
        let began = Instant::now();
        let store: Engine<Kv> = Options::new().open(dir)?;
        let report = store.recovery_report().clone();
        let took = began.elapsed();
        let ledger = Ledger::read(&*store.view()?)?;
        ledger.check(&reported)?;
        let unacknowledged = ledger.transfers.len().saturating_sub(sums.transfers);
        let unacknowledged = unacknowledged.saturating_sub(acknowledged);
        say(format_args!(
            "  recovered in {:.1} ms: {}; {} redone, {} open ones rolled back in {}",
            took.as_secs_f64() * 1e3,
            report.verdict,
            Count(report.redone, "transaction", "transactions"),
            report.undone,
            Count(report.undo_steps, "step", "steps")
        ))?;
        say(format_args!(
            "  none of the {acknowledged} is lost; {unacknowledged} more were durable before the kill cut off their \
             acknowledgement; all balances match the transfers, {} in all",
            ledger.total()
        ))?;
        sums.note(&ledger, &report, acknowledged, took);
        store.close()?;
    }
    say(format_args!(
        "proved: in {} none of {} was lost; {} rolled back completely; the total was always {}; the slowest recovery \
         took {:.1} ms",
        Count(rounds.into(), "kill", "kills"),
        Count(sums.acknowledged as u64, "acknowledged transfer", "acknowledged transfers"),
        Count(sums.undone, "open transaction was", "open transactions were"),
        opened.total,
        sums.slowest.as_secs_f64() * 1e3
    ))
}

#[derive(Default)]
struct Sums {
    transfers: usize,
    acknowledged: usize,
    undone: u64,
    slowest: Duration,
}

impl Sums {
    fn note(&mut self, ledger: &Ledger, report: &RecoveryReport, acknowledged: usize, took: Duration) {
        self.transfers = ledger.transfers.len();
        self.acknowledged = self.acknowledged.saturating_add(acknowledged);
        self.undone = self.undone.saturating_add(report.undone);
        self.slowest = self.slowest.max(took);
    }
}

/// This program with a hidden command. It runs in a process group of its own, so that an interrupt
/// from the terminal reaches only the parent. It exits when its standard input is closed.
fn helper(command: &str, dir: &Path) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::io("find this program", &e))?;
    let mut helper = Command::new(program);
    helper.arg(command).arg("--dir").arg(dir).stdin(Stdio::piped()).process_group(0);
    Ok(helper)
}

/// Runs a worker, kills it at a random moment, and collects the transfers it reported. Returns how
/// long the worker ran.
fn run_and_kill(dir: &Path, reported: &mut BTreeSet<String>) -> Result<Duration, Failure> {
    let mut command = helper("demo-worker", dir)?;
    let mut worker = Killed(command.stdout(Stdio::piped()).spawn().map_err(|e| Failure::io("start a process", &e))?);
    let Some(pipe) = worker.0.stdout.take() else {
        return Err(Failure::new(Status::Other, "the worker has no pipe"));
    };
    let began = Instant::now();
    let (first, begun) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut ids = Vec::new();
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // a line that the kill cut off is not counted
        while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) && line.pop() == Some(b'\n') {
            ids.push(String::from_utf8_lossy(&line).into_owned());
            line.clear();
            let _ = first.try_send(());
        }
        ids
    });
    let waited = begun.recv_timeout(FIRST_TRANSFER_TIMEOUT);
    let span = u64::try_from((MAX_RUN - MIN_RUN).as_micros()).unwrap_or(1);
    if waited.is_ok() {
        std::thread::sleep(MIN_RUN + Duration::from_micros(random() % span));
    }
    worker.0.kill().map_err(|e| Failure::io("kill the worker", &e))?;
    let ran = began.elapsed();
    let status = worker.0.wait().map_err(|e| Failure::io("wait for the worker", &e))?;
    let ids = reader.join().map_err(|_| Failure::new(Status::Other, "reading from the worker failed"))?;
    if waited.is_err() || status.signal().is_none() {
        return Err(Failure::new(Status::Other, "the worker exited by itself; its error is above"));
    }
    reported.extend(ids);
    Ok(ran)
}

/// Kills a process when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary directory. A helper process removes it, however this process ends.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    sweeper: Child,
    /// The standard input of the helper. It is closed when this process ends, at the latest.
    hold: ChildStdin,
}

impl Temporary {
    pub(super) fn new_in(base: &Path, name: &str) -> Result<Temporary, Failure> {
        let path = base.join(format!("{name}-{:016x}", random()));
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).create(&path).map_err(|e| Failure::io(format_args!("create {}", path.display()), &e))?;
        let started = helper("demo-sweeper", &path).and_then(|mut command| {
            command.stdout(Stdio::null()).spawn().map_err(|e| Failure::io("start a process", &e))
        });
        let started = started.map(|mut sweeper| (sweeper.stdin.take(), sweeper));
        match started {
            Ok((Some(hold), sweeper)) => Ok(Temporary { path, sweeper, hold }),
            other => {
                let _ = std::fs::remove_dir_all(&path);
                other.and(Err(Failure::new(Status::Other, "the helper has no pipe")))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn remove(mut self) -> Result<(), Failure> {
        drop(self.hold);
        let removed = self.sweeper.wait().is_ok_and(|status| status.success());
        if removed {
            return Ok(());
        }
        Err(Failure::new(Status::Other, format!("{} could not be removed", self.path.display())))
    }
}

/// Waits for the parent process to end, and removes the directory of a [`Temporary`].
#[derive(Debug, clap::Args)]
pub(super) struct Sweeper {
    #[arg(long)]
    dir: PathBuf,
}

impl Sweeper {
    pub(super) fn run(&self) -> Result<(), Failure> {
        wait_for_the_end_of_input();
        let mut result = Ok(());
        // a worker that has just noticed the end of its parent may still be creating files
        for _ in 0..50 {
            result = std::fs::remove_dir_all(&self.dir);
            if !self.dir.exists() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        result.map_err(|e| Failure::io(format_args!("remove {}", self.dir.display()), &e))
    }
}

/// Returns once the parent has closed the pipe, or has ended.
fn wait_for_the_end_of_input() {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|len| len > 0) {}
}

/// Sends the parent one line. Returns whether the parent still reads.
fn report(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_ok()
}
