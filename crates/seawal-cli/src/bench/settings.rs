//! The settings of a measurement, as given on the command line. The commands, their sizes and the
//! options of the store follow from them.

use super::super::load::parse_durability;
use super::data::{KEY_BYTES, key, value};
use seawal::kv::KvCommand;
use seawal::{Durability, Options};
use std::path::PathBuf;
use std::time::Duration;

/// The bytes that a record adds to its key and value in a frame: kind, lengths, time.
const RECORD_OVERHEAD_BYTES: u64 = 24;

/// The measurements, each with the floor that it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum What {
    /// Commits of one record each. Floor: direct synchronous writes, one in flight, of the records
    /// that all threads together can commit at once. With a durability other than sync: writes of
    /// one record to the page cache.
    Commit,
    /// Opening a store of --n entries that was killed, and one that was closed. Floor: only reading
    /// its log from the device. Rates count entries. The figure "records" counts the replayed
    /// records of the log, each of which holds up to 100 entries.
    Recover,
    /// Reads of random entries out of --n. Floor: a binary search in a sorted array of the keys in
    /// memory, and a copy of the value.
    Read,
    /// Unpaced checkpoints of --n entries. Floor: a new file of as many bytes, written in large
    /// pieces and synced. The latencies are those of commits during a checkpoint at the default
    /// pace.
    Checkpoint,
}

/// Measures commits, recovery, reads or checkpoints on your own disk, next to the limit of that
/// disk.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// The measurement.
    #[arg(value_enum)]
    pub(super) what: What,
    /// A new or empty directory to measure in. The default is a temporary directory in the current
    /// one.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// The number of threads that commit or read.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(super) threads: u64,
    /// The duration of the measurement, in seconds, without its preparation.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) secs: u64,
    /// The number of entries. The default is 1000000, for commits 100000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) n: Option<u64>,
    /// The size of each value, in bytes. Keys have 16 bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    pub(super) value: u64,
    /// What a commit survives: power loss at once (sync), power loss after MS milliseconds
    /// (interval=MS), or only a kill of the process (os).
    #[arg(long, value_name = "sync|interval=MS|os", default_value = "sync", value_parser = parse_durability)]
    pub(super) durability: Durability,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

impl Bench {
    pub(super) fn entries(&self) -> u64 {
        self.n.unwrap_or(if self.what == What::Commit { 100_000 } else { 1_000_000 })
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_secs(self.secs)
    }

    pub(super) fn entry_bytes(&self) -> u64 {
        self.value.saturating_add(KEY_BYTES)
    }

    pub(super) fn record_bytes(&self) -> u64 {
        self.entry_bytes().saturating_add(RECORD_OVERHEAD_BYTES)
    }

    /// A command of the workload. Another seed gives another value.
    pub(super) fn put(&self, n: u64, seed: u64) -> KvCommand {
        KvCommand::put("", key(n), value(self.value, seed))
    }

    /// The default options, with automatic checkpoints.
    pub(super) fn durable_options(&self) -> Options {
        Options::new().durability(self.durability)
    }

    /// The number of entries in each batch that fills a store: at most 4 MiB.
    pub(super) fn batch(&self) -> u64 {
        ((4 << 20) / self.entry_bytes()).clamp(1, 100)
    }

    /// Options without automatic checkpoints, which would disturb the measurement.
    pub(super) fn options(&self) -> Options {
        self.durable_options().checkpoint_log_bytes(1 << 50).max_log_bytes(1 << 50)
    }
}
