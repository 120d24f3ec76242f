//! The codecs of everything on disk. They do no I/O and read no clock.
//!
//! All integers are little-endian. Every checksum is CRC-32 (IEEE) over raw bytes. Each length is
//! checked against the available bytes before it is used. Each file shows its byte layout above its
//! codec; `docs/format.md` lists the files.
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

pub(crate) mod bytes;
pub(crate) mod frame;
mod limits;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod snapshot;

#[cfg(any(test, feature = "salvage"))]
pub(crate) use limits::MIN_BLOCK_BYTES;
pub(crate) use limits::{FORMAT_VERSION, HeaderFault, MAX_BLOCK_BYTES};
