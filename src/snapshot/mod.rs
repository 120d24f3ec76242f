//! Snapshot files: writes a state and its open transactions in checked chunks, and reads them back.
//!
//! A snapshot gets its name only after it was synced and read back from the device. The layers
//! above decide when a snapshot is due, and which part of the log can be deleted then.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)
)]

mod chunk_reader;
mod help;
mod io_pacing;
mod load;
mod new_store;
mod write;

pub(crate) use help::Help;
pub(crate) use load::{check, load, rehearse};
pub(crate) use new_store::write_as_store;
#[cfg(feature = "fuzzing")]
pub(crate) use write::Unpaced;
pub(crate) use write::{SnapshotThrottle, write};
