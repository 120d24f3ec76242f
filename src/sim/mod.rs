//! The deterministic simulator: a disk that can be crashed, filled up and made to fail.
//!
//! [`SimDisk`] implements [`crate::storage::Storage`], so that production code runs on it unchanged. It
//! keeps what is durable apart from what is only written, and everything it decides comes from one
//! seed. It knows nothing of logs and transactions.

mod content;
mod crash;
mod disk;
mod fault;
mod inode;
mod killed;
mod points;
mod rng;
mod state;
#[cfg(test)]
mod tests;
mod trace;
mod write;

pub use crash::Crash;
pub use disk::{SimDisk, SimDiskBuilder};
pub use fault::{Fault, OpKind, Persistence};
pub use killed::KilledStore;
pub use points::CrashPoint;
