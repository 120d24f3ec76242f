//! The `seawal` program: key-value stores from a shell.
//!
//! Each file holds one group of commands. Commands that only read open the store read-only and
//! write nothing. An error is one sentence on the standard error and an exit status. No content of
//! a directory makes the program panic.
//!
//! The library target exists for the fuzz targets and carries no promise of stability.

mod bench;
mod count;
mod demo;
mod entries;
mod failure;
mod files;
mod load;
#[doc(hidden)]
pub mod script;
mod torture;
mod upkeep;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use failure::{ESCAPES, Failure, STATUSES, Status};
use seawal::Options;
use seawal::RecoveryPolicy;
use seawal::Result as StoreResult;
use seawal::inspect;
use seawal::io::{Create, DiskStorage, Storage};
use seawal::kv::Kv;
use seawal::{Engine, RecoveryReport};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Works with ordered key-value stores that a write-ahead log makes durable.
#[derive(Debug, Parser)]
#[command(name = "seawal", version, after_help = format!("{STATUSES}\n\n{ESCAPES}"))]
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

/// The store that a command works on.
#[derive(Debug, Args)]
struct Dir {
    /// The store's directory.
    #[arg(long = "dir", value_name = "DIR")]
    path: PathBuf,
    /// How long to wait while another process has the store open, or the directory of --to.
    #[arg(long, value_name = "SECONDS", default_value = "0", hide_default_value = true, value_parser = parse_seconds)]
    wait: Duration,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

impl Dir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn options(&self) -> Options {
        Options::new().lock_wait(self.wait)
    }

    /// The files of the store, for inspection.
    fn storage(&self) -> StoreResult<Arc<dyn Storage>> {
        inspect::storage_within(&self.path, self.wait)
    }

    /// Refuses a new store in the directory of the store itself, by whatever path. Its lock would
    /// only say that a reader has it.
    fn check_target(&self, dir: &Path) -> Result<(), Failure> {
        let identity = |path: &Path| path.metadata().ok().map(|about| (about.dev(), about.ino()));
        if identity(dir).is_some_and(|target| Some(target) == identity(&self.path)) {
            let text = format!("{} is the directory of --dir; --to takes another directory", dir.display());
            return Err(Failure::new(Status::Usage, text));
        }
        Ok(())
    }

    /// The directory of a new store that the command writes, created if it is missing. Its lock
    /// waits as long as that of the store.
    fn target(&self, dir: &Path) -> Result<Arc<dyn Storage>, Failure> {
        let target = DiskStorage::open(dir, Create::IfMissing)
            .map_err(|e| Failure::io(format_args!("open {}", dir.display()), &e))?;
        Ok(Arc::new(target.with_lock_wait(self.wait)))
    }

    /// Opens the store read-only. Nothing is written.
    fn open_to_read(&self) -> StoreResult<(Engine<Kv>, RecoveryReport)> {
        let store: Engine<Kv> = self.options().recovery(RecoveryPolicy::ReadOnly).open(&self.path)?;
        warn_of(&store);
        let report = store.recovery_report().clone();
        Ok((store, report))
    }

    fn open_to_write(&self, create: Create) -> StoreResult<Engine<Kv>> {
        let store = self.options().create(create).open(&self.path)?;
        warn_of(&store);
        Ok(store)
    }
}

/// Prints the warnings of recovery to stderr, so that they do not disturb the output.
fn warn_of(store: &Engine<Kv>) {
    store.recovery_report().warnings.iter().for_each(|warning| warn(warning));
}

fn warn(warning: &str) {
    // without a stderr there is no place to print a warning
    let _ = writeln!(io::stderr(), "seawal: warning: {warning}");
}

/// The table that a command works on.
#[derive(Debug, Args)]
struct InTable {
    /// The name of the table. The default table has no name.
    #[arg(long, value_name = "TABLE", default_value = Kv::DEFAULT_TABLE, hide_default_value = true)]
    table: OsString,
}

impl InTable {
    fn name(&self) -> Result<String, Failure> {
        table_name(&self.table)
    }
}

/// The name of a table in an argument.
fn table_name(argument: &OsString) -> Result<String, Failure> {
    String::from_utf8(plain("the table's name", argument)?)
        .map_err(|_| Failure::new(Status::Usage, "the table's name is not UTF-8"))
}

/// The bytes of an argument, its escapes replaced.
fn plain(what: &str, argument: &OsString) -> Result<Vec<u8>, Failure> {
    script::unescape(argument.as_bytes()).map_err(|reason| Failure::new(Status::Usage, format!("{what}: {reason}")))
}

/// The arguments that the program takes. The help of each command lists the exit statuses.
fn command_line() -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        let help = match command.get_after_help() {
            Some(own) => format!("{own}\n\n{STATUSES}"),
            None => format!("{STATUSES}\n\n{ESCAPES}"),
        };
        command.after_help(help)
    })
}

/// Runs the program with the arguments of its process. It never panics.
pub fn main() -> ExitCode {
    let cli = match command_line().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(usage) => {
            let status = if usage.use_stderr() { Status::Usage as u8 } else { 0 };
            // the output is closed, and there is no other place to report that
            let _ = usage.print();
            return ExitCode::from(status);
        }
    };
    // a panic is reported like any other error, in one sentence
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&cli.command))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure::new(Status::Other, format!("internal error, please report it: {text}")))
    });
    match outcome {
        Ok(()) | Err(Failure::Quiet) => ExitCode::SUCCESS,
        Err(Failure::Shown(status)) => ExitCode::from(status as u8),
        Err(Failure::Reported { status, text }) => {
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
        Command::Bench(bench) => bench::run(bench),
        Command::Demo(demo) => demo.run(),
        Command::Torture(torture) => torture.run(),
        Command::DemoWorker(worker) => worker.run(),
        Command::DemoSweeper(sweeper) => sweeper.run(),
    }
}

/// The standard output, buffered.
fn output() -> io::BufWriter<io::StdoutLock<'static>> {
    io::BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Prints one line on the standard output.
fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = output();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::output)
}
