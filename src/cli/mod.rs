//! The `seawal` program: stores of the built-in machine, from a shell.
//!
//! One file for each group of commands. Commands that only read open the store read-only and write nothing. Errors are one
//! sentence on the standard error, with an exit status; nothing that a directory holds makes it panic. What
//! looks at files rather than at entries belongs to [`crate::inspect`].

mod bench;
mod demo;
mod entries;
mod failure;
mod files;
mod load;
pub mod script;
mod torture;
mod upkeep;

use crate::error::Result as StoreResult;
use crate::io::Create;
use crate::kv::Kv;
use crate::options::Options;
use crate::options::RecoveryPolicy;
use crate::{Engine, RecoveryReport};
use clap::{Args, Parser, Subcommand};
use failure::{Failure, STATUSES, Status};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// An ordered key-value store, made durable by a write-ahead log.
#[derive(Debug, Parser)]
#[command(name = "seawal", version, after_help = STATUSES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(load::Load),
    Dump(entries::Dump),
    Get(entries::Get),
    Put(entries::Put),
    Del(entries::Del),
    Scan(entries::Scan),
    Stat(upkeep::Stat),
    Checkpoint(upkeep::Checkpoint),
    Backup(upkeep::Backup),
    Inspect(files::Inspect),
    Verify(files::Verify),
    Salvage(upkeep::Salvage),
    Bench(bench::Bench),
    Demo(demo::Demo),
    Torture(torture::Torture),
    #[command(hide = true)]
    DemoWorker(demo::Worker),
    #[command(hide = true)]
    DemoSweeper(demo::Sweeper),
}

/// Where the store is.
#[derive(Debug, Args)]
struct Dir {
    /// The store's directory.
    #[arg(long = "dir", value_name = "DIR")]
    path: PathBuf,
}

impl Dir {
    fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the store to look at it: nothing is written.
    fn open_to_read(&self) -> StoreResult<(Engine<Kv>, RecoveryReport)> {
        let store = Options::new().recovery(RecoveryPolicy::ReadOnly).open(&self.path)?;
        let report = Engine::recovery_report(&store).clone();
        Ok((store, report))
    }

    fn open_to_write(&self, create: Create) -> StoreResult<Engine<Kv>> {
        Options::new().create(create).open(&self.path)
    }
}

/// Which table.
#[derive(Debug, Args)]
struct InTable {
    /// The table; the one without a name unless given.
    #[arg(long, value_name = "TABLE", default_value = Kv::DEFAULT_TABLE, hide_default_value = true)]
    table: OsString,
}

impl InTable {
    fn name(&self) -> Result<String, Failure> {
        String::from_utf8(plain("the table's name", &self.table)?)
            .map_err(|_| Failure::new(Status::Usage, "the table's name is not UTF-8"))
    }
}

/// The bytes that an argument with escapes stands for.
fn plain(what: &str, argument: &OsString) -> Result<Vec<u8>, Failure> {
    script::unescape(argument.as_bytes()).map_err(|reason| Failure::new(Status::Usage, format!("{what}: {reason}")))
}

/// Runs the program with the arguments of its process. It never panics.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let status = if usage.use_stderr() { Status::Usage as u8 } else { 0 };
            // nobody is there to be told otherwise
            let _ = usage.print();
            return ExitCode::from(status);
        }
    };
    // a panic is told as an error like any other, in one sentence
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&cli.command))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure::new(Status::Other, format!("the program failed, which is a fault in it: {text}")))
    });
    match outcome {
        Ok(()) | Err(Failure::Quiet) => ExitCode::SUCCESS,
        Err(Failure::Shown(status)) => ExitCode::from(status as u8),
        Err(Failure::Told { status, text }) => {
            let _ = writeln!(io::stderr(), "seawal: {text}");
            ExitCode::from(status as u8)
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Load(load) => load.run(),
        Command::Dump(dump) => dump.run(),
        Command::Get(get) => get.run(),
        Command::Put(put) => put.run(),
        Command::Del(del) => del.run(),
        Command::Scan(scan) => scan.run(),
        Command::Stat(stat) => stat.run(),
        Command::Checkpoint(checkpoint) => checkpoint.run(),
        Command::Backup(backup) => backup.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Verify(verify) => verify.run(),
        Command::Salvage(salvage) => salvage.run(),
        Command::Bench(bench) => bench.run(),
        Command::Demo(demo) => demo.run(),
        Command::Torture(torture) => torture.run(),
        Command::DemoWorker(worker) => worker.run(),
        Command::DemoSweeper(sweeper) => sweeper.run(),
    }
}

/// The standard output, gathered into large writes.
fn output() -> io::BufWriter<io::StdoutLock<'static>> {
    io::BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Says one line on the standard output.
fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = output();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::output)
}
