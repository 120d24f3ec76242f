//! Page-aligned buffers for direct I/O.
//!
//! An anonymous memory map starts on a page, which satisfies every device's alignment, without unsafe
//! code. It knows nothing of what the bytes mean.

use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};

/// Where large pages begin to pay: twice the size of one.
const LARGE_BYTES: usize = 4 << 20;

/// A growable buffer whose first byte lies on a page boundary.
///
/// ```
/// let mut buf = seawal::storage::AlignedBuf::with_capacity(4096)?;
/// buf.extend_from_slice(b"frame")?;
/// buf.resize(4096)?; // zero-filled
/// assert_eq!(&buf[..5], b"frame");
/// assert_eq!(buf.as_ptr() as usize % 4096, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct AlignedBuf {
    map: MmapMut,
    len: usize,
}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give.
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        Ok(AlignedBuf { map: map(capacity.max(4096))?, len: 0 })
    }

    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        let mut buf = Self::with_capacity(len)?;
        buf.len = len;
        Ok(buf)
    }

    /// How many bytes fit without growing.
    pub fn capacity(&self) -> usize {
        self.map.len()
    }

    /// Empties the buffer, keeping its memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends bytes, growing as needed.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give; nothing is appended then.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> io::Result<()> {
        let start = self.len;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        self.reserve(end)?;
        if let Some(room) = self.map.get_mut(start..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
        Ok(())
    }

    /// Sets the length; new bytes are zero.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give; the length is unchanged then.
    pub fn resize(&mut self, len: usize) -> io::Result<()> {
        self.reserve(len)?;
        if let Some(fresh) = self.map.get_mut(self.len..len) {
            fresh.fill(0);
        }
        self.len = len;
        Ok(())
    }

    /// Makes room for `total` bytes in all.
    ///
    /// # Errors
    /// The operating system's, when it has no memory to give.
    pub fn reserve(&mut self, total: usize) -> io::Result<()> {
        if total <= self.map.len() {
            return Ok(());
        }
        let capacity = total.checked_next_power_of_two().ok_or(io::ErrorKind::OutOfMemory)?;
        let mut map = map(capacity)?;
        if let (Some(to), Some(from)) = (map.get_mut(..self.len), self.map.get(..self.len)) {
            to.copy_from_slice(from);
        }
        self.map = map;
        Ok(())
    }
}

/// Memory that is zero. A large one is asked for in large pages: to take it in small ones costs more than to read into it.
fn map(bytes: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes)?;
    #[cfg(target_os = "linux")]
    if bytes >= LARGE_BYTES {
        // only advice: where it is not taken the pages are small
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Ok(map)
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.map.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.get_mut(..self.len).unwrap_or_default()
    }
}
