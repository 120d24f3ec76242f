//! The parts of the measurement, which run one at a time.

pub mod checkpoint;
pub mod commit;
pub mod growth;
pub mod reads;
pub mod recovery;
pub mod segments;
pub mod space;
pub mod young;

use crate::figures::Part;
use crate::peer::OURS;
use clap::ValueEnum;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Durable commits, their latency, tickets.
    Commit,
    /// Commits that survive a kill of the process.
    Buffered,
    /// Latency of commits that begin many segments.
    Segments,
    /// Latency of commits from the first moment of a new store.
    Young,
    /// Points and scans of a million entries.
    Reads,
    /// The same with ten million, for this engine and LMDB; only with --large.
    ReadsLarge,
    /// Opening a million entries after a kill and after a close.
    Recovery,
    /// Checkpoints, concurrent commits, and views.
    Checkpoint,
    /// Memory and bytes of log per entry.
    Space,
    /// Growth of recovery, checkpoints and reads with the number of entries.
    Growth,
}

impl Which {
    pub const ALL: [Which; 10] = [
        Which::Commit,
        Which::Buffered,
        Which::Segments,
        Which::Young,
        Which::Reads,
        Which::ReadsLarge,
        Which::Recovery,
        Which::Checkpoint,
        Which::Space,
        Which::Growth,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Which::Commit => "commit",
            Which::Buffered => "buffered",
            Which::Segments => "segments",
            Which::Young => "young",
            Which::Reads => "reads",
            Which::ReadsLarge => "reads-large",
            Which::Recovery => "recovery",
            Which::Checkpoint => "checkpoint",
            Which::Space => "space",
            Which::Growth => "growth",
        }
    }

    /// Whether a run without `--only` includes this part.
    pub fn is_in(self, effort: &Effort) -> bool {
        self != Which::ReadsLarge || effort.large
    }

    pub fn measure(self, effort: &Effort) -> Part {
        match self {
            Which::Commit => commit::durable(effort),
            Which::Buffered => commit::buffered(effort),
            Which::Segments => segments::measure(effort),
            Which::Young => young::measure(effort),
            Which::Reads => reads::measure(effort, 1_000_000, |_| true),
            Which::ReadsLarge => {
                reads::measure(effort, 10_000_000, |peer| peer.name.starts_with(OURS) || peer.name.starts_with("LMDB"))
            }
            Which::Recovery => recovery::measure(effort),
            Which::Checkpoint => checkpoint::measure(effort),
            Which::Space => space::measure(effort),
            Which::Growth => growth::measure(effort),
        }
    }

    /// The repetitions and the length of a sample, in words.
    pub fn taken(self, effort: &Effort) -> String {
        let (times, secs) = (effort.repetitions, effort.time.as_secs_f64());
        match self {
            Which::Recovery => format!("medians of {times} opens each, taken in turn"),
            Which::Checkpoint => format!("medians of {times} checkpoints, and the longest freeze of all"),
            Which::Space => "each measured once".into(),
            Which::Growth => format!(
                "medians of {times} opens, checkpoints and samples of {secs} s; of {} from ten million on",
                times.min(3)
            ),
            _ => format!("medians of {times} samples of {secs} s each, taken in turn"),
        }
    }
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    pub repetitions: usize,
    /// The length of one sample.
    pub time: Duration,
    /// Only these peers, if any are named.
    pub peers: Vec<String>,
    /// Only what takes at most a minute.
    pub quick: bool,
    /// Also ten million entries and more.
    pub large: bool,
}

impl Effort {
    pub fn wants(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| name.to_lowercase().starts_with(&peer.to_lowercase()))
    }
}
