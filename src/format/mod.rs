//! Pure codecs of everything that lies on disk. No I/O, no clock.
//!
//! All integers are little-endian, every checksum is CRC-32 (IEEE) over raw bytes, and every length is
//! bounded by what is there before it is believed. Each file has its diagram above its codec; `docs/format.md` is the map to them.
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
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod snapshot;

use crate::ids::Lsn;

/// The version that every file of this crate carries.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// No LSN, epoch, counter or segment number is higher: writing for centuries does not get there, and arithmetic on what a
/// header says stays exact.
pub(crate) const HIGHEST_NUMBER: u64 = 1 << 62;

/// The blocks that a store can be made of, in bytes: powers of two from here.
pub(crate) const MIN_BLOCK_BYTES: u32 = 512;
/// To here.
pub(crate) const MAX_BLOCK_BYTES: u32 = 1 << 20;

/// Whether a store can be made of such blocks, a frame can start or end at each of these positions, and none of these numbers is
/// higher than any that is reached.
pub(crate) fn makes_sense(block_bytes: u32, boundaries: &[Lsn], numbers: &[u64]) -> bool {
    let is_block = block_bytes.is_power_of_two() && (MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES).contains(&block_bytes);
    let on_boundary =
        |lsn: &Lsn| lsn.get() <= HIGHEST_NUMBER && lsn.get().is_multiple_of(u64::from(frame::ALIGN_BYTES));
    is_block && boundaries.iter().all(on_boundary) && numbers.iter().all(|number| *number <= HIGHEST_NUMBER)
}

/// Why a header (of a segment, a manifest copy, a snapshot) is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// The bytes are not such a header, or not what was written.
    Bad(&'static str),
    /// The bytes are whole, but of another format version or with a flag that is not known.
    Version(u32),
}
