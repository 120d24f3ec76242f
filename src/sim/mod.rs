//! A deterministic simulator: a disk in memory that crashes, fills up and fails on demand.
//!
//! [`SimDisk`] implements [`Storage`](crate::io::Storage), so production code runs on it unchanged. It
//! tracks which bytes are durable and which are only written. All of its decisions come from one
//! seed, so a run can be repeated exactly. [`explore`] uses it to crash a whole store at every
//! operation.
//!
//! Requires the feature `sim`.
//!
//! A simulated disk can do the following:
//! - **Crash** at any operation, into any state that unsynced sectors, lengths and names allow
//!   ([`SimDisk::crash`], [`SimDisk::crash_choices`]). [`SimDisk::record_crash_points`] runs a workload
//!   once and keeps a crash state for each operation. [`Crash::TornBlock`] destroys a physical block.
//! - **Fail** ([`Fault`]): I/O errors, a full disk, short and interrupted transfers, and failed syncs
//!   that succeed when they are retried although the data is lost.
//! - **Misbehave**: acknowledge writes that are lost or misdirected, and flip bits
//!   ([`SimDisk::flip_bit`]).
//! - **Be slow**: complete the durable writes of several threads in any order
//!   ([`SimDisk::hold_writes`]).
//!
//! Tests compare states that ext4, xfs and btrfs leave with [`SimDisk::can_leave`]; all of them are
//! among the simulated ones. Not simulated are several directories, sparse files that run out of
//! space in a sync, and devices that lose data after a sync (except by lost writes).

mod content;
mod crash;
mod crashed_disk;
mod disk;
pub mod explore;
mod fault;
mod held_writes;
mod image;
mod inode;
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
pub use points::CrashPoint;
pub use rng::Rng;
