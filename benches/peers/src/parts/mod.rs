//! What is measured, in parts that run one at a time.

pub mod commit;
pub mod reads;

use crate::figures::Part;
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
}

impl Which {
    pub const ALL: &'static [Which] = &[Which::Commit, Which::Buffered, Which::Reads];

    pub fn name(self) -> &'static str {
        match self {
            Which::Commit => "commit",
            Which::Buffered => "buffered",
            Which::Reads => "reads",
        }
    }

    pub fn measure(self, effort: &Effort) -> Part {
        match self {
            Which::Commit => commit::durable(effort),
            Which::Buffered => commit::buffered(effort),
            Which::Reads => reads::measure(effort, 1_000_000, |_| true),
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
}

impl Effort {
    pub fn wants(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| name.to_lowercase().starts_with(&peer.to_lowercase()))
    }
}
