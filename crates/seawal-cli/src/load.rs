//! `load`: applies transaction scripts. A load that was killed can resume exactly where it stopped.
//!
//! Each transaction of the script is one transaction of the store. In a separate table it also
//! writes the number of transactions committed so far and a checksum of the script up to there. So
//! the count is exactly as durable as the transactions that it counts.

use super::count::Count;
use super::failure::{Failure, Status};
use super::script::{self, Operation, Script, ScriptError, ScriptFault, ScriptTransaction, Step};
use super::{Dir, say};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use seawal::kv::{Kv, KvCommand};
use seawal::{Durability, Engine, ExecuteError, Ticket};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The table and the key of the count.
pub(super) const TABLE: &str = "seawal.load";
pub(super) const KEY: &str = "transactions";
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Applies a transaction script, one transaction of the store for each of its transactions.
///
/// The same transactions count themselves in the table "seawal.load". A store with such a count
/// accepts only the same script, only with --resume, and continues after the counted transactions.
/// To load another script, first delete the count, which is the key "transactions" of that table.
///
/// If a line is malformed, the transactions before it are kept, and its own transaction has no
/// effect.
#[derive(Debug, clap::Args)]
#[command(after_help = script::FORMAT)]
pub(super) struct Load {
    #[command(flatten)]
    dir: Dir,
    /// The script, plain or compressed with gzip; "-" means the standard input.
    file: PathBuf,
    /// Continue after the last transaction that an earlier load of this script committed.
    #[arg(long)]
    resume: bool,
    /// The maximum number of commits in flight.
    #[arg(long, value_name = "N", default_value = "256")]
    in_flight: NonZeroUsize,
    /// What a commit survives: power loss at once (sync), power loss after MS milliseconds
    /// (interval=MS), or only a kill of the process (os).
    #[arg(long, value_name = "sync|interval=MS|os", default_value = "sync", value_parser = parse_durability)]
    durability: Durability,
}

pub(super) fn parse_durability(text: &str) -> Result<Durability, String> {
    match (text, text.strip_prefix("interval=").map(str::parse)) {
        ("sync", _) => Ok(Durability::Sync),
        ("os", _) => Ok(Durability::Os),
        (_, Some(Ok(millis))) => Ok(Durability::Interval(Duration::from_millis(millis))),
        _ => Err("expected \"sync\", \"os\", or \"interval=\" with a number of milliseconds".into()),
    }
}

impl Load {
    pub(super) fn run(&self) -> Result<(), Failure> {
        // opened before the store is created, so that a wrong file name creates nothing
        let input = Input::open(&self.file)?;
        let bar = input.bar.clone();
        let store: Engine<Kv> = self.dir.options().durability(self.durability).open(self.dir.path())?;
        crate::warn_of(&store);
        let began = Instant::now();
        let mut loader = Loader { store: &store, name: &input.name, bar: &bar, progress: Progress::default() };
        let mut pending = VecDeque::new();
        let loaded = loader.run(&mut Script::new(input.reader), self, &mut pending);
        // committed transactions are made durable even after a failure
        let hardened = pending.into_iter().try_for_each(|ticket: Ticket<()>| ticket.wait().map_err(Failure::from));
        let progress = loader.progress;
        let took = began.elapsed();
        let closed = store.close().map_err(Failure::from);
        bar.finish_and_clear();
        hardened.and(closed).and(loaded)?;
        say(format_args!("{} in {:.2} s", progress, took.as_secs_f64()))
    }
}

/// The progress of a load.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    skipped: u64,
    transactions: u64,
    operations: u64,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let operations = Count(self.operations, "operation", "operations");
        write!(f, "loaded {} with {operations}", transactions(self.transactions))?;
        if self.skipped > 0 {
            write!(f, " after {} that had been loaded before", self.skipped)?;
        }
        Ok(())
    }
}

fn transactions(number: u64) -> Count {
    Count(number, "transaction", "transactions")
}

struct Loader<'a> {
    store: &'a Engine<Kv>,
    /// The name of the script, for messages.
    name: &'a str,
    bar: &'a ProgressBar,
    progress: Progress,
}

impl Loader<'_> {
    fn run<R: BufRead>(
        &mut self,
        script: &mut Script<R>,
        load: &Load,
        pending: &mut VecDeque<Ticket<()>>,
    ) -> Result<(), Failure> {
        let count = self.store.raw_table(TABLE).get(KEY)?;
        let count = count.map(|value| LoadCount::read(&value)).transpose()?;
        if let Some(count) = count {
            if !load.resume {
                let text = format!(
                    "the store has already loaded {} of a script; use --resume to continue with the same script, or load \
                     into another directory",
                    transactions(count.transactions)
                );
                return Err(Failure::new(Status::Script, text));
            }
            self.skip(script, count)?;
        }
        while let Some(transaction) = script.next_transaction().map_err(|e| self.failure(e))? {
            if pending.len() >= load.in_flight.get()
                && let Some(oldest) = pending.pop_front()
            {
                oldest.wait()?;
            }
            pending.push_back(self.commit(transaction)?);
            self.bar.tick();
        }
        Ok(())
    }

    /// Skips the transactions that were committed before, and checks that they are those of this
    /// script.
    fn skip<R: BufRead>(&mut self, script: &mut Script<R>, count: LoadCount) -> Result<(), Failure> {
        let mut digest = None;
        while self.progress.skipped < count.transactions {
            let Some(transaction) = script.next_transaction().map_err(|e| self.failure(e))? else {
                let text = format!(
                    "{} has {}, but the store has loaded {}; load the same script",
                    self.name,
                    transactions(self.progress.skipped),
                    count.transactions
                );
                return Err(Failure::new(Status::Script, text));
            };
            digest = Some(transaction.digest);
            self.progress.skipped = self.progress.skipped.saturating_add(1);
        }
        if digest.is_some_and(|digest| digest != count.digest) {
            let text = format!(
                "{} does not begin with the {} that the store has loaded; load the same script",
                self.name,
                transactions(count.transactions)
            );
            return Err(Failure::new(Status::Script, text));
        }
        Ok(())
    }

    fn commit(&mut self, transaction: ScriptTransaction) -> Result<Ticket<()>, Failure> {
        let ScriptTransaction { steps, commit_line, digest } = transaction;
        let operations = steps.len() as u64;
        let tx = self.store.begin()?;
        let done = self.progress.skipped.saturating_add(self.progress.transactions).saturating_add(1);
        let count = LoadCount { transactions: done, digest };
        if let Some(step) = steps.iter().find(|step| step.table.as_ref() == TABLE && key_of(step) == KEY.as_bytes()) {
            let text = format!(
                "{}, line {}: the key \"{KEY}\" of the table \"{TABLE}\" is where a load counts its transactions",
                self.name, step.line
            );
            return Err(Failure::new(Status::Script, text));
        }
        let commands = steps.into_iter().map(|step| (step.line, command(step)));
        let counting = std::iter::once((commit_line, KvCommand::put(TABLE, KEY, count.to_string())));
        for (line, command) in commands.chain(counting) {
            tx.execute(command).map_err(|error| match error {
                ExecuteError::Rejected(rejection) => {
                    Failure::new(Status::Script, format!("{}, line {line}: {rejection}", self.name))
                }
                ExecuteError::Failed(error) => {
                    let status = super::failure::status_of(&error);
                    Failure::new(status, format!("{}, line {line}: {error}", self.name))
                }
            })?;
        }
        let ticket = tx.submit()?;
        self.progress.transactions = self.progress.transactions.saturating_add(1);
        self.progress.operations = self.progress.operations.saturating_add(operations);
        Ok(ticket)
    }

    fn failure(&self, error: ScriptError) -> Failure {
        let status = match error.fault {
            ScriptFault::Input(_) => Status::Other,
            ScriptFault::Malformed(_) | ScriptFault::Unfinished => Status::Script,
        };
        Failure::new(status, format!("{}, {error}", self.name))
    }
}

fn key_of(step: &Step) -> &[u8] {
    match &step.operation {
        Operation::Put { key, .. } | Operation::Delete { key } => key,
    }
}

fn command(Step { table, operation, .. }: Step) -> KvCommand {
    match operation {
        Operation::Put { key, value } => KvCommand::put(&*table, key, value),
        Operation::Delete { key } => KvCommand::delete(&*table, key),
    }
}

/// The number of transactions of a script that the store holds, and their checksum.
#[derive(Clone, Copy, Debug)]
struct LoadCount {
    transactions: u64,
    digest: u32,
}

impl LoadCount {
    fn read(value: &[u8]) -> Result<LoadCount, Failure> {
        let text = std::str::from_utf8(value).ok().and_then(|text| text.split_once(' '));
        let count = text.and_then(|(transactions, digest)| {
            Some(LoadCount { transactions: transactions.parse().ok()?, digest: u32::from_str_radix(digest, 16).ok()? })
        });
        count.ok_or_else(|| {
            let text = format!("the count in the table \"{TABLE}\" was not written by a load");
            Failure::new(Status::Script, text)
        })
    }
}

impl std::fmt::Display for LoadCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:08x}", self.transactions, self.digest)
    }
}

/// The bytes of a script.
struct Input {
    name: String,
    reader: Box<dyn BufRead>,
    bar: ProgressBar,
}

impl Input {
    fn open(path: &Path) -> Result<Input, Failure> {
        let (name, source, bytes): (_, Box<dyn Read>, _) = if path.as_os_str() == "-" {
            ("the standard input".to_owned(), Box::new(io::stdin().lock()), None)
        } else {
            let name = path.display().to_string();
            let failure = |e| Failure::io(format_args!("open {name}"), &e);
            let file = File::open(path).map_err(failure)?;
            let metadata = file.metadata().map_err(failure)?;
            if metadata.is_dir() {
                return Err(Failure::new(Status::Other, format!("cannot read {name}: it is a directory")));
            }
            (name, Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let bar = progress_bar(bytes);
        let mut source = Counted { source, bar: bar.clone() };
        // the first read of a pipe may return a single byte
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        (&mut source)
            .take(GZIP_MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .map_err(|e| Failure::io(format_args!("read {name}"), &e))?;
        let is_gzip = magic == GZIP_MAGIC;
        let whole = BufReader::with_capacity(256 << 10, io::Cursor::new(magic).chain(source));
        let reader: Box<dyn BufRead> = if is_gzip {
            Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(whole)))
        } else {
            Box::new(whole)
        };
        Ok(Input { name, reader, bar })
    }
}

fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes} {eta}"),
        None => (ProgressBar::no_length(), "{spinner} {bytes} {elapsed}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Advances the progress bar with each read.
struct Counted {
    source: Box<dyn Read>,
    bar: ProgressBar,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buf)?;
        self.bar.inc(len as u64);
        Ok(len)
    }
}
