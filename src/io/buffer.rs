//! Aligned buffers for direct I/O.
//!
//! A large buffer is an anonymous memory map, which begins on a page boundary. A small buffer is on
//! the heap, padded in front to a multiple of 4096: mapping, faulting and unmapping a page would
//! cost more than most uses of it. Neither needs unsafe code.

use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};

/// The alignment of the first byte. No device requires more for direct I/O.
const ALIGN_BYTES: usize = 4096;
/// The maximum size of a buffer on the heap; glibc's allocator maps larger ones (128 KiB) anyway.
const SMALL_BYTES: usize = 64 << 10;
/// The size of a huge page on x86-64 and most ARM64 systems.
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// The minimum size for huge pages, so that rounding up wastes at most a third of the memory.
const LARGE_BYTES: usize = 2 * LARGE_PAGE_BYTES;

/// A growable buffer whose first byte's address is a multiple of 4096.
///
/// ```
/// let mut buf = seawal::io::AlignedBuf::with_capacity(4096)?;
/// buf.extend_from_slice(b"frame")?;
/// buf.resize(4096)?; // zero-filled
/// assert_eq!(&buf[..5], b"frame");
/// assert_eq!(buf.as_ptr() as usize % 4096, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct AlignedBuf(Memory);

#[derive(Debug)]
enum Memory {
    /// The content begins at `start`. The capacity is reserved once, so that the buffer never
    /// moves.
    Heap {
        bytes: Vec<u8>,
        start: usize,
    },
    Map {
        map: MmapMut,
        len: usize,
    },
}

impl Memory {
    fn with_capacity(capacity: usize) -> io::Result<Memory> {
        #[cfg(test)]
        failing::allocate()?;
        if capacity <= SMALL_BYTES {
            let mut bytes = Vec::<u8>::new();
            bytes.try_reserve_exact(capacity + ALIGN_BYTES).map_err(|_| io::ErrorKind::OutOfMemory)?;
            let start = bytes.as_ptr().align_offset(ALIGN_BYTES);
            // `align_offset` may also return `usize::MAX`, if the offset cannot be computed
            if start < ALIGN_BYTES {
                bytes.resize(start, 0);
                return Ok(Memory::Heap { bytes, start });
            }
        }
        Ok(Memory::Map { map: map(capacity)?, len: 0 })
    }
}

/// Maps zeroed memory. A large map uses whole huge pages, because the kernel aligns only such a map
/// to them. Faulting it in by small pages costs more than reading into it, and a device transfers
/// huge pages in fewer pieces.
fn map(bytes: usize) -> io::Result<MmapMut> {
    let large = bytes >= LARGE_BYTES || bytes == LARGE_PAGE_BYTES;
    let whole = if large { bytes.checked_next_multiple_of(LARGE_PAGE_BYTES) } else { Some(bytes) };
    let map = MmapMut::map_anon(whole.ok_or(io::ErrorKind::OutOfMemory)?)?;
    #[cfg(target_os = "linux")]
    if large {
        // if this fails, the map has small pages
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Ok(map)
}

impl AlignedBuf {
    /// An empty buffer with a capacity of at least `capacity` bytes.
    ///
    /// # Errors
    /// The operating system's, when memory runs out.
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        Memory::with_capacity(capacity.max(ALIGN_BYTES)).map(AlignedBuf)
    }

    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// The operating system's, when memory runs out.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        let mut buf = Self::with_capacity(len)?;
        match &mut buf.0 {
            Memory::Heap { bytes, start } => bytes.resize(*start + len, 0),
            // a fresh map is zero already
            Memory::Map { len: of_map, .. } => *of_map = len,
        }
        Ok(buf)
    }

    /// The number of bytes that fit without growing.
    pub fn capacity(&self) -> usize {
        match &self.0 {
            Memory::Heap { bytes, start } => bytes.capacity() - start,
            Memory::Map { map, .. } => map.len(),
        }
    }

    /// Empties the buffer, keeping its memory.
    pub fn clear(&mut self) {
        match &mut self.0 {
            Memory::Heap { bytes, start } => bytes.truncate(*start),
            Memory::Map { len, .. } => *len = 0,
        }
    }

    /// Appends bytes, growing as needed.
    ///
    /// # Errors
    /// The operating system's, when memory runs out; the buffer is unchanged then.
    pub fn extend_from_slice(&mut self, more: &[u8]) -> io::Result<()> {
        let end = self.len().checked_add(more.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        self.reserve(end)?;
        match &mut self.0 {
            Memory::Heap { bytes, .. } => bytes.extend_from_slice(more),
            Memory::Map { map, len } => {
                map[*len..end].copy_from_slice(more);
                *len = end;
            }
        }
        Ok(())
    }

    /// Sets the length; new bytes are zero.
    ///
    /// # Errors
    /// The operating system's, when memory runs out; the length is unchanged then.
    pub fn resize(&mut self, to: usize) -> io::Result<()> {
        self.reserve(to)?;
        match &mut self.0 {
            Memory::Heap { bytes, start } => bytes.resize(*start + to, 0),
            Memory::Map { map, len } => {
                if let Some(fresh) = map.get_mut(*len..to) {
                    fresh.fill(0);
                }
                *len = to;
            }
        }
        Ok(())
    }

    /// Grows the capacity to at least `total` bytes.
    ///
    /// # Errors
    /// The operating system's, when memory runs out.
    pub fn reserve(&mut self, total: usize) -> io::Result<()> {
        if total <= self.capacity() {
            return Ok(());
        }
        let capacity = total.checked_next_power_of_two().ok_or(io::ErrorKind::OutOfMemory)?;
        let mut larger = Self::with_capacity(capacity)?;
        larger.extend_from_slice(self)?;
        *self = larger;
        Ok(())
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Heap { bytes, start } => &bytes[*start..],
            Memory::Map { map, len } => &map[..*len],
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Heap { bytes, start } => &mut bytes[*start..],
            Memory::Map { map, len } => &mut map[..*len],
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure is the test's")]
    use super::*;

    /// Lengths around every place where the memory changes, up and down: content, zeros and
    /// alignment hold.
    #[test]
    fn a_buffer_that_grows_and_shrinks_keeps_what_it_holds_and_is_aligned_and_zero_elsewhere() {
        let lengths =
            [0, 1, ALIGN_BYTES, ALIGN_BYTES + 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 4 * SMALL_BYTES];
        for first in lengths {
            for second in lengths {
                let mut buf = AlignedBuf::zeroed(first).unwrap();
                assert!(buf.len() == first && buf.iter().all(|b| *b == 0));
                buf.fill(7);
                buf.resize(second).unwrap();
                let kept = first.min(second);
                assert!(buf[..kept].iter().all(|b| *b == 7) && buf[kept..].iter().all(|b| *b == 0));
                assert!(buf.len() == second && buf.as_ptr().addr().is_multiple_of(ALIGN_BYTES));
                let room = buf.capacity();
                assert!(room >= second);
                buf.clear();
                buf.extend_from_slice(&vec![9; first]).unwrap();
                assert!(buf.len() == first && buf.iter().all(|b| *b == 9));
                buf.resize(room).unwrap();
                assert!(buf[first..].iter().all(|b| *b == 0));
                assert!(buf.capacity() >= room && buf.as_ptr().addr().is_multiple_of(ALIGN_BYTES));
            }
        }
        assert!(
            AlignedBuf::with_capacity(usize::MAX).is_err()
                && AlignedBuf::zeroed(0).unwrap().reserve(usize::MAX).is_err()
        );
    }
}

/// Makes one allocation of this thread fail, for tests of what happens without memory.
#[cfg(test)]
pub(crate) mod failing {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static COMING: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Fails the allocation after `nth` others.
    pub(crate) fn at(nth: u64) {
        COMING.set(Some(nth));
    }

    /// Stops failing. Returns true if the allocation has failed.
    pub(crate) fn stop() -> bool {
        COMING.take().is_none()
    }

    pub(super) fn allocate() -> io::Result<()> {
        let coming = COMING.get();
        COMING.set(coming.and_then(|left| left.checked_sub(1)));
        if coming == Some(0) { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
}
