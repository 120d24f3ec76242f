//! Reads and writes integers in byte slices. Nothing here can panic.
//!
//! A varint is unsigned LEB128: seven bits a byte, lowest first, with the top bit set in all but the last
//! byte. It has at most ten bytes, and never more than needed.

use byteorder::{ByteOrder, LittleEndian};

/// The longest varint, in bytes.
pub(crate) const MAX_VARINT_BYTES: usize = 10;

/// Whether all bytes are zero. It tests 64 bytes at a time, at the speed of memory.
pub(crate) fn are_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    let none = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    chunks.iter().all(|chunk| none(chunk)) && none(rest)
}

/// Reads integers from the front of a slice. `None` if too few bytes are left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(LittleEndian::read_u16)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(LittleEndian::read_u32)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(LittleEndian::read_u64)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().enumerate().take(MAX_VARINT_BYTES) {
            let shift = u32::try_from(i).ok()?.checked_mul(7)?;
            let bits = u64::from(byte & 0x7f);
            // the tenth byte holds one bit only
            if bits.checked_shl(shift)?.checked_shr(shift)? != bits {
                return None;
            }
            value |= bits.checked_shl(shift)?;
            if byte & 0x80 == 0 {
                let overlong = i > 0 && byte == 0;
                self.0 = self.0.get(i.checked_add(1)?..)?;
                return if overlong { None } else { Some(value) };
            }
        }
        None
    }
}

/// Writes integers to the front of a slice. `None` if it is too short.
#[derive(Debug)]
pub(crate) struct Put<'a>(pub(crate) &'a mut [u8]);

impl<'a> Put<'a> {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.room(bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    fn room(&mut self, len: usize) -> Option<&'a mut [u8]> {
        let (room, rest) = std::mem::take(&mut self.0).split_at_mut_checked(len)?;
        self.0 = rest;
        Some(room)
    }

    pub(crate) fn u8(&mut self, v: u8) -> Option<()> {
        self.bytes(&[v])
    }

    pub(crate) fn u16(&mut self, v: u16) -> Option<()> {
        LittleEndian::write_u16(self.room(2)?, v);
        Some(())
    }

    pub(crate) fn u32(&mut self, v: u32) -> Option<()> {
        LittleEndian::write_u32(self.room(4)?, v);
        Some(())
    }

    pub(crate) fn u64(&mut self, v: u64) -> Option<()> {
        LittleEndian::write_u64(self.room(8)?, v);
        Some(())
    }
}

/// A few bytes on the stack: the head of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    bytes: [u8; Head::CAPACITY],
    len: usize,
}

impl Head {
    /// A tag and three varints fit.
    pub(crate) const CAPACITY: usize = 31;

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Appends one byte. Callers never exceed the capacity.
    pub(crate) fn push(&mut self, byte: u8) {
        debug_assert!(self.len < Self::CAPACITY);
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len = self.len.saturating_add(1);
        }
    }

    pub(crate) fn varint(&mut self, value: u64) {
        each_varint_byte(value, |byte| self.push(byte));
    }
}

fn each_varint_byte(mut value: u64, mut push: impl FnMut(u8)) {
    while value >= 0x80 {
        push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    push(value as u8);
}

/// Appends a varint.
pub(crate) fn put_varint(value: u64, out: &mut Vec<u8>) {
    each_varint_byte(value, |byte| out.push(byte));
}

/// The length of a varint in bytes.
pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = 64u32.saturating_sub((value | 1).leading_zeros());
    bits.div_ceil(7) as usize
}

/// Rounds `n` up to a multiple of `block`, a power of two. It saturates.
pub(crate) const fn round_up(n: u64, block: u64) -> u64 {
    let mask = block.saturating_sub(1);
    n.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_single_byte_anywhere_is_seen_not_to_be_zero() {
        for len in 0..200 {
            let mut bytes = vec![0; len];
            assert!(are_zero(&bytes));
            for at in 0..len {
                bytes[at] = 1 << (at % 8);
                assert!(!are_zero(&bytes), "{at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    proptest! {
        #[test]
        fn a_varint_comes_back_and_has_the_length_foretold(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(value, &mut out);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut take = Take(&out);
            prop_assert_eq!(take.varint(), Some(value));
            prop_assert!(take.0.is_empty());
            for cut in 0..out.len() {
                prop_assert_eq!(Take(&out[..cut]).varint(), None);
            }
        }
    }

    #[test]
    fn overlong_and_overflowing_varints_are_refused() {
        assert_eq!(Take(&[0x80, 0x00]).varint(), None);
        assert_eq!(Take(&[0xff; 11]).varint(), None);
        assert_eq!(Take(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).varint(), None);
        assert_eq!(Take(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).varint(), Some(u64::MAX));
    }
}
