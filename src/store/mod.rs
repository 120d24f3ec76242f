//! One store directory: its file names, its lock, its manifest, and how it is opened.
//!
//! This layer knows file names and the manifest. The content of segments and snapshots belongs to
//! `wal` and `snapshot`.
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

pub(crate) mod create;
pub(crate) mod layout;
pub(crate) mod manifest_file;
pub(crate) mod open_dir;
pub(crate) mod ownership;
