//! Snapshot files: writing a state and its open transactions in checked chunks, and reading them back.
//!
//! A snapshot gets its name only once it was synced and read back from the device. It knows nothing of when that is
//! done, or of the log.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)
)]

mod chunk_reader;
mod io_pacing;
mod load;
mod write;

pub(crate) use load::{check, load};
pub(crate) use write::{SnapshotThrottle, Unpaced, write};

/// Whether other threads may help: one that reads or writes ahead, and those that decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// All is done by the caller, one thing after the other: the operations on files come in one order.
    None,
    /// Threads for as long as the call takes.
    Threads,
}

impl From<crate::options::Background> for Help {
    fn from(background: crate::options::Background) -> Help {
        match background {
            crate::options::Background::Threads => Help::Threads,
            crate::options::Background::Manual => Help::None,
        }
    }
}
