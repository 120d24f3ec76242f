//! Aligned buffers for direct I/O.
//!
//! A large one is an anonymous memory map, which starts on a page. A small one lies within the heap, behind as many bytes as bring it to
//! a multiple of 4096: mapping, faulting in and unmapping a page cost more than most uses of it. Neither takes unsafe code. It knows
//! nothing of what the bytes mean.

use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};

/// What the first byte's address is a multiple of: no device asks for more.
const ALIGN_BYTES: usize = 4096;
/// Up to here a buffer lies within the heap.
const SMALL_BYTES: usize = 64 << 10;
/// The size of a large page on the most common processors.
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// Where large pages begin to pay for those who do not ask for one.
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
    /// The buffer is what lies behind `start`. All of its capacity was reserved at once, so that it never moves.
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
            // the only other answer that is allowed says that it cannot be known
            if start < ALIGN_BYTES {
                bytes.resize(start, 0);
                return Ok(Memory::Heap { bytes, start });
            }
        }
        Ok(Memory::Map { map: map(capacity)?, len: 0 })
    }
}

/// Memory that is zero. A large one is asked for in large pages, and in whole ones, for only then the kernel aligns it to them: to fault
/// it in by small ones costs more than to read into it, and a device reads into them in fewer pieces.
fn map(bytes: usize) -> io::Result<MmapMut> {
    let large = bytes >= LARGE_BYTES || bytes == LARGE_PAGE_BYTES;
    let whole = if large { bytes.checked_next_multiple_of(LARGE_PAGE_BYTES) } else { Some(bytes) };
    let map = MmapMut::map_anon(whole.ok_or(io::ErrorKind::OutOfMemory)?)?;
    #[cfg(target_os = "linux")]
    if large {
        // only advice: where it is not taken the pages are small
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Ok(map)
}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give.
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        Memory::with_capacity(capacity.max(ALIGN_BYTES)).map(AlignedBuf)
    }

    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        let mut buf = Self::with_capacity(len)?;
        match &mut buf.0 {
            Memory::Heap { bytes, start } => bytes.resize(*start + len, 0),
            // a fresh map is zero already
            Memory::Map { len: of_map, .. } => *of_map = len,
        }
        Ok(buf)
    }

    /// How many bytes fit without growing.
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
    /// The operating system's, when it has no memory to give; nothing is appended then.
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
    /// The operating system's, when it has no memory to give; the length is unchanged then.
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

    /// Makes room for `total` bytes in all.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give.
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

    /// Lengths around every place where the memory changes, up and down: content, zeros and alignment hold.
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

/// For tests of what happens where there is no memory: one buffer of this thread is not to be had.
#[cfg(test)]
pub(crate) mod failing {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static COMING: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Fails the buffer behind so many others.
    pub(crate) fn at(nth: u64) {
        COMING.set(Some(nth));
    }

    /// Whether it has failed. None fails from now on.
    pub(crate) fn stop() -> bool {
        COMING.take().is_none()
    }

    pub(super) fn allocate() -> io::Result<()> {
        let coming = COMING.get();
        COMING.set(coming.and_then(|left| left.checked_sub(1)));
        if coming == Some(0) { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
}
