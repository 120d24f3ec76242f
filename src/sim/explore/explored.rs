//! The amount of work that an exploration did.

use std::collections::BTreeMap;

/// The amount of work that an exploration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explored {
    /// The number of workloads.
    pub seeds: u64,
    /// The number of storage operations, in workloads and recoveries, that were interrupted by a
    /// crash.
    pub operations: u64,
    /// The number of states after a crash that were recovered and checked.
    pub states: u64,
    /// The number of those states that a crash during recovery left.
    pub within_recovery: u64,
    /// The number of runs in which an operation failed on purpose.
    pub failures: u64,
    /// How often the workloads and recoveries did what, by name.
    pub did: BTreeMap<&'static str, u64>,
}

impl Explored {
    /// Adds the numbers of another exploration.
    pub fn add(&mut self, other: Explored) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.states += other.states;
        self.within_recovery += other.within_recovery;
        self.failures += other.failures;
        for (what, count) in other.did {
            *self.did.entry(what).or_default() += count;
        }
    }
}
