//! What all codecs share: the version, the limits of numbers, and the faults of headers.

use crate::ids::Lsn;

/// The version that every file of this crate carries.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// The largest valid LSN, epoch, counter or segment id. Centuries of writing do not reach it, and
/// arithmetic on numbers up to it cannot overflow.
const HIGHEST_NUMBER: u64 = 1 << 62;

/// The smallest block size in bytes. Block sizes are powers of two.
pub(crate) const MIN_BLOCK_BYTES: u32 = 512;
/// The largest block size in bytes.
pub(crate) const MAX_BLOCK_BYTES: u32 = 1 << 20;

/// Frames start and end at multiples of this many bytes.
pub(crate) const ALIGN_BYTES: u32 = 64;

/// Whether a store can have blocks of this size.
pub(super) fn is_block_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES).contains(&bytes)
}

/// Whether a frame can start or end at this LSN.
pub(super) fn is_boundary(lsn: Lsn) -> bool {
    is_reachable(lsn.get()) && lsn.get().is_multiple_of(u64::from(ALIGN_BYTES))
}

/// Whether a store can ever reach this number.
pub(super) fn is_reachable(number: u64) -> bool {
    number <= HIGHEST_NUMBER
}

/// Why a header (of a segment, a manifest copy, a snapshot) is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// The bytes are not such a header, or they are damaged.
    Bad(&'static str),
    /// The bytes are whole, but of another format version or with an unknown flag.
    Version(u32),
}
