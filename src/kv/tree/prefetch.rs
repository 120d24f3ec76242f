//! Software prefetching with ordinary loads: there is no safe prefetch instruction.
//!
//! Each function reads bytes that the caller needs soon and discards them. The loads do not depend
//! on each other, so the processor has many cache misses under way at once instead of one after the
//! other. Each use names what it gained; measure before you add one.

use std::hint::black_box;

/// The size of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// Loads each cache line of a slice.
#[inline]
pub(super) fn prefetch_lines(bytes: &[u8]) {
    let read = bytes.as_chunks::<LINE_BYTES>().0.iter().fold(0, |all, line| all | line[0]);
    black_box(read | bytes.last().copied().unwrap_or_default());
}

/// Loads the last byte of a slice.
#[inline]
pub(super) fn prefetch_last(bytes: &[u8]) {
    black_box(bytes.last().copied());
}

/// Loads the first bytes of many slices: three cache lines of each, if it is that long.
#[inline]
pub(super) fn prefetch_fronts<'a>(slices: impl Iterator<Item = &'a [u8]>) {
    let read = slices.map(|bytes| {
        let load = |at: usize| bytes.get(at).copied().unwrap_or_default();
        load(0) ^ load(LINE_BYTES) ^ load(2 * LINE_BYTES)
    });
    black_box(read.fold(0, |all, byte| all ^ byte));
}

/// Loads something of an array element whose value does not matter.
#[inline]
pub(super) fn prefetch_value<T>(value: T) {
    black_box(value);
}
