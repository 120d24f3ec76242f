//! One store directory: the names of its files, its lock, its manifest, and how it is opened.
//!
//! Everything that recovery reads is synced first and then read around the page cache, so that the
//! result rests on what the device holds. It knows nothing of frames, records or machines.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub(crate) mod layout;
pub(crate) mod manifest_file;
pub(crate) mod open_dir;
