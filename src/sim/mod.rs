//! The deterministic simulator: a disk that can be crashed, filled up and made to fail.
//!
//! [`SimDisk`] implements [`crate::storage::Storage`], so that production code runs on it unchanged. It
//! keeps what is durable apart from what is only written, and everything it decides comes from one
//! seed. It knows nothing of logs and transactions.
//!
//! Requires the feature `sim`.
//!
//! What it can be made to do:
//! - **Crash**, at any operation and into any state that unsynced sectors, lengths and names allow: [`SimDisk::crash`],
//!   [`SimDisk::crash_choices`]. [`SimDisk::record_crash_points`] keeps the disk as it would be for a crash at
//!   each operation of a workload that runs once. Whole physical blocks can be destroyed ([`Crash::TornBlock`]).
//! - **Fail** ([`Fault`]): errors, a full disk, short and interrupted transfers, syncs whose failure a retry hides.
//! - **Lie**: writes that are lost or land elsewhere and are reported as done; bits that flip ([`SimDisk::flip_bit`]).
//! - **Be slow**: durable writes of several threads complete in any order ([`SimDisk::hold_writes`]).
//!
//! What a device does in reality is a subset of that, so far as tests can tell: states left by ext4, xfs and btrfs are compared with
//! [`SimDisk::can_leave`]. Not simulated: several directories, sparse files that run out of space when their holes are
//! filled by a sync, and devices that forget what a sync had promised, but for lost writes.

mod content;
mod crash;
mod disk;
pub mod explore;
mod fault;
mod inode;
mod killed;
mod points;
mod possible;
mod rng;
mod state;
#[cfg(test)]
mod tests;
mod trace;
mod write;

pub use crash::Crash;
pub use disk::{SimDisk, SimDiskBuilder};
pub use fault::{Fault, OpKind, Persistence};
pub use killed::{KilledStore, kill};

pub use points::CrashPoint;
pub use rng::Rng;
