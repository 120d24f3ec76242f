//! `bench`: measures the engine on the user's own disk, next to the limit of that disk.
//!
//! The floor is that limit: the same work without the engine. Floor and store are measured in
//! alternating short slices of one run, so that a disk whose speed drifts changes both alike and
//! the ratio stays meaningful.

mod checkpoint;
mod commit;
mod floor;
mod latencies;
mod place;
mod read;
mod recover;

use super::failure::{Failure, Status};
use super::load::parse_durability;
use super::say;
use super::upkeep::path_name;
use latencies::Latencies;
use place::Place;
use seawal::io::DiskStorage;
use seawal::kv::KvCommand;
use seawal::{Durability, Options};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The measured figures, in the order in which they are printed.
type Figures = Vec<(&'static str, Value)>;

/// The length of a slice.
const SLICE: Duration = Duration::from_millis(100);
const KEY_BYTES: u64 = 16;
/// The bytes that a record adds to its key and value in a frame: kind, lengths, time.
const RECORD_OVERHEAD_BYTES: u64 = 24;

/// The measurements, each with the floor that it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
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
pub(super) struct Bench {
    /// The measurement.
    #[arg(value_enum)]
    what: What,
    /// A new or empty directory to measure in. The default is a temporary directory in the current
    /// one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The number of threads that commit or read.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// The duration of the measurement, in seconds, without its preparation.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: u64,
    /// The number of entries. The default is 1000000, for commits 100000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    n: Option<u64>,
    /// The size of each value, in bytes. Keys have 16 bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    value: u64,
    /// What a commit survives: power loss at once (sync), power loss after MS milliseconds
    /// (interval=MS), or only a kill of the process (os).
    #[arg(long, value_name = "sync|interval=MS|os", default_value = "sync", value_parser = parse_durability)]
    durability: Durability,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let place = Place::new(self.dir.as_deref())?;
        let measured = self.measure(&place);
        let removed = place.remove();
        let figures = measured.and_then(|figures| removed.map(|()| figures))?;
        if self.json {
            return say(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>());
        }
        say(figures.iter().map(|(name, value)| line(name, value)).collect::<Vec<_>>().join("\n"))
    }

    fn measure(&self, place: &Place) -> Result<Figures, Failure> {
        self.check_room(place)?;
        let mut figures = self.about(place.path())?;
        let more = match self.what {
            What::Commit => commit::measure(self, place),
            What::Recover => recover::measure(self, place),
            What::Read => read::measure(self, place),
            What::Checkpoint => checkpoint::measure(self, place),
        };
        figures.extend(more?);
        Ok(figures)
    }

    fn entries(&self) -> u64 {
        self.n.unwrap_or(if self.what == What::Commit { 100_000 } else { 1_000_000 })
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.secs)
    }

    fn entry_bytes(&self) -> u64 {
        self.value.saturating_add(KEY_BYTES)
    }

    fn record_bytes(&self) -> u64 {
        self.entry_bytes().saturating_add(RECORD_OVERHEAD_BYTES)
    }

    /// A command of the workload. Another seed gives another value.
    fn put(&self, n: u64, seed: u64) -> KvCommand {
        KvCommand::put("", key(n), value(self.value, seed))
    }

    /// The default options, with automatic checkpoints.
    fn durable_options(&self) -> Options {
        Options::new().durability(self.durability)
    }

    /// The number of entries in each batch that fills a store: at most 4 MiB.
    fn batch(&self) -> u64 {
        ((4 << 20) / self.entry_bytes()).clamp(1, 100)
    }

    /// Options without automatic checkpoints, which would disturb the measurement.
    fn options(&self) -> Options {
        self.durable_options().checkpoint_log_bytes(1 << 50).max_log_bytes(1 << 50)
    }

    fn about(&self, dir: &Path) -> Result<Figures, Failure> {
        let disk = open_disk(dir)?;
        let durability = match self.durability {
            Durability::Sync => "sync".into(),
            Durability::Interval(time) => format!("interval={}", time.as_millis()),
            Durability::Os => "os".into(),
        };
        let what = format!("{:?}", self.what).to_lowercase();
        Ok(Vec::from([
            ("what", what.into()),
            ("threads", self.threads.into()),
            ("n", self.entries().into()),
            ("value_bytes", self.value.into()),
            ("durability", durability.into()),
            ("write_path", path_name(disk.write_path()).into()),
            ("warnings", seawal::io::Directory::warnings(&disk).into()),
        ]))
    }

    /// Fails if the disk or the memory is too small for the measurement.
    fn check_room(&self, place: &Place) -> Result<(), Failure> {
        let state = self.entries().saturating_mul(self.entry_bytes().saturating_add(64));
        // on disk the log or two snapshots; in memory the state and the floor's reference
        let needed = state.saturating_mul(3);
        let disk = rustix::fs::statvfs(place.path()).map_err(|e| Failure::io("ask for free space", &e.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let lack = |what: &str, has: u64| {
            let text = format!(
                "{} entries of this size need {needed} bytes of {what}, but only {has} are available; choose a smaller --n or --value",
                self.entries()
            );
            Err(Failure::new(Status::Other, text))
        };
        if needed > free {
            return lack("disk", free);
        }
        match available_memory() {
            Some(memory) if needed > memory => lack("memory", memory),
            _ => Ok(()),
        }
    }
}

/// The memory that is available for programs, in bytes.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn open_disk(dir: &Path) -> Result<DiskStorage, Failure> {
    DiskStorage::open(dir, seawal::io::Create::IfMissing)
        .map_err(|e| Failure::io(format_args!("open {}", dir.display()), &e))
}

/// Mixes a number well (the finalizer of SplitMix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The n-th of a sequence of keys in random order.
fn key(n: u64) -> [u8; KEY_BYTES as usize] {
    ((u128::from(mix(n)) << 64) | u128::from(n)).to_be_bytes()
}

fn value(bytes: u64, seed: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes).unwrap_or(0);
    let mut value = Vec::with_capacity(bytes.saturating_add(8));
    let mut word = seed;
    while value.len() < bytes {
        word = mix(word.wrapping_add(1));
        value.extend_from_slice(&word.to_le_bytes());
    }
    value.truncate(bytes);
    value
}

/// The figures that every measurement has.
fn rates(rate: f64, floor: f64, latencies: &Latencies) -> Figures {
    Vec::from([
        ("rate", rate.into()),
        ("floor", floor.into()),
        ("ratio", ratio(rate, floor).into()),
        ("p50_us", latencies.micros(0.5).into()),
        ("p99_us", latencies.micros(0.99).into()),
        ("p999_us", latencies.micros(0.999).into()),
    ])
}

fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

fn per_second(count: u64, time: Duration) -> f64 {
    ratio(count as f64, time.as_secs_f64())
}

/// The median of some durations.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Whether another turn is due. There is at least one.
fn goes_on(began: Instant, time: Duration, turns: usize) -> bool {
    turns == 0 || began.elapsed() < time
}

/// A figure as a line of text.
fn line(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, |number| match number {
            large if large.abs() >= 1000.0 => format!("{large:.0}"),
            small => format!("{small:.3}"),
        }),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        other => other.to_string(),
    };
    format!("{name:>16}  {text}")
}
