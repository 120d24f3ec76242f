//! Snapshot files: writing a state and its open transactions in checked chunks, and reading them back.
//!
//! A snapshot gets its name only once it was synced and read back from the device. It knows nothing of when that is
//! done, or of the log.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)
)]

mod read;
mod source;
mod strokes;
mod write;

pub(crate) use read::{check, load};
pub(crate) use write::{Pace, Unpaced, write};

/// Whether other threads may help: one that reads or writes ahead, and those that decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// All is done by the caller, one thing after the other: the operations on files come in one order.
    None,
    /// Threads for as long as the call takes.
    Threads,
}

impl From<crate::wal::Background> for Help {
    fn from(background: crate::wal::Background) -> Help {
        match background {
            crate::wal::Background::Threads => Help::Threads,
            crate::wal::Background::Manual => Help::None,
        }
    }
}
