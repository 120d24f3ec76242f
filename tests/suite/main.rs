//! Tests of the public API. They are one binary, so that the engine is compiled for them once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]
#![allow(clippy::print_stdout, reason = "how much was explored")]

mod auto_traits;
mod blocks;
mod checkpoints;
mod common;
mod costs;
mod determinism;
mod digests;
mod durability;
mod errors;
mod faults;
mod file_backups;
mod full_disk;
mod handles;
mod interleaved;
mod large_values;
mod leftovers;
mod like_stacks;
mod log;
mod log_reads;
mod lost_writes;
mod model;
mod ownership;
mod panics;
mod pressure;
mod promises;
mod recovery;
mod regressions;
mod rejects;
mod replayed_checkpoints;
mod restarts;
mod salvage;
mod salvage_gaps;
#[cfg(feature = "serde")]
mod serde_machine;
mod serializability;
#[cfg(feature = "serde")]
mod serialized;
mod simulator;
#[cfg(feature = "serde")]
mod tables;
mod threads;
mod transact;
mod transactions;
mod users_code;
mod views;
mod warnings;
