//! Crash fuzzing for a state machine: your own, or the built-in one.
//!
//! [`Explore`] runs a workload on a [`SimDisk`] and crashes it in the middle of every storage operation.
//! It recovers from the states that a power loss or a kill can leave of unsynced data, and checks:
//!
//! - Every acknowledged commit is present, no transaction is present in part, and the state is one that
//!   the commits produced in their order.
//! - Everything that a hardened read, a view or a rejection has shown is still true.
//! - Your invariant holds in every state that was recovered or viewed.
//! - Crashes during recovery change none of this. For one in three operations, one state is recovered
//!   with a crash in each operation of the recovery, in two random ways. One in sixteen of those
//!   crashes again during the second recovery.
//! - The machine keeps the law in the documentation of [`StateMachine`].
//!
//! Exploration is deterministic. A failure contains a [`Replay`], the seed and the steps that
//! reproduce it. Everything runs on the calling threads and in simulated time; a state takes some
//! 10 µs to 100 µs.

mod builtin;
mod crashes;
mod diary;
mod explorable;
mod explored;
mod failure;
mod faults;
mod files;
mod invariant;
mod killed;
mod law;
mod limits;
mod oracle;
mod run;
mod settings;
mod slot;
mod start;
mod steps;
mod stop;
#[cfg(test)]
mod tests;
mod transaction_steps;
mod work;

pub use explorable::Explorable;
pub use explored::Explored;
pub use failure::{Failure, Replay};
pub use killed::{KilledStore, kill};
pub use settings::Explore;
pub use work::Look;

#[cfg(doc)]
use super::SimDisk;
#[cfg(doc)]
use crate::machine::StateMachine;
