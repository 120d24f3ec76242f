//! What is measured, in parts that run one at a time.

pub mod checkpoint;
pub mod commit;
pub mod growth;
pub mod reads;
pub mod recovery;
pub mod space;

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
    /// Points and scans of a million entries.
    Reads,
    /// The same of ten million, this engine and LMDB; only with --large.
    ReadsLarge,
    /// Opening a million entries after a kill and after a close.
    Recovery,
    /// Checkpoints, commits beside them, and views.
    Checkpoint,
    /// Memory of an entry, and bytes of log.
    Space,
    /// How recovery, checkpoints and reads grow with the entries.
    Growth,
}

impl Which {
    pub const ALL: [Which; 8] = [
        Which::Commit,
        Which::Buffered,
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
            Which::Reads => "reads",
            Which::ReadsLarge => "reads-large",
            Which::Recovery => "recovery",
            Which::Checkpoint => "checkpoint",
            Which::Space => "space",
            Which::Growth => "growth",
        }
    }

    /// Whether a run that names no parts has this one.
    pub fn is_in(self, effort: &Effort) -> bool {
        self != Which::ReadsLarge || effort.large
    }

    pub fn measure(self, effort: &Effort) -> Part {
        match self {
            Which::Commit => commit::durable(effort),
            Which::Buffered => commit::buffered(effort),
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
}

/// How long everything takes.
#[derive(Clone, Debug)]
pub struct Effort {
    pub repetitions: usize,
    /// For one sample.
    pub time: Duration,
    /// Only these, if any are named.
    pub peers: Vec<String>,
    /// Ten million entries too.
    pub large: bool,
}

impl Effort {
    pub fn wants(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| name.to_lowercase().starts_with(&peer.to_lowercase()))
    }
}
