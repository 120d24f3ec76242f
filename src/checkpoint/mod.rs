//! Checkpoints: when they are taken, how they are written, what they allow to delete, and how
//! commits are throttled for them.
//!
//! This folder does not use the engine: the core lock, the log, the storage and the options are
//! passed in.

mod digest;
mod job;
mod monitor;
mod pending_undo;
mod policy;
mod recovery_time;
mod retention;
mod span;
mod throttle;

pub(crate) use job::{CheckpointEnds, Checkpointer};
pub(crate) use monitor::RecoveredSizes;
pub(crate) use pending_undo::log_pending_undo;
pub(crate) use recovery_time::{MeasuredRecovery, RecoveryCostModel};
