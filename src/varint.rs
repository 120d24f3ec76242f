//! Variable-length integers (LEB128), used by the file formats and by the key-value machine.
//!
//! Each byte carries seven bits, the lowest first. The top bit is set on all bytes but the last.
//! Only the shortest form is valid, so a number has exactly one encoding of at most ten bytes.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Bytes that do not begin with a valid varint: it is too long, or not in its shortest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidVarint;

/// Splits a varint off the front. Returns its value and the bytes behind it, or `None` if the bytes
/// end within it.
#[inline]
pub(crate) fn split_varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, InvalidVarint> {
    let mut value = 0u64;
    let mut rest = bytes;
    for shift in (0..u64::BITS).step_by(7) {
        let Some((&byte, behind)) = rest.split_first() else { return Ok(None) };
        rest = behind;
        // the tenth byte holds one bit, and a zero at the end adds nothing
        if (shift == 63 && byte > 1) || (byte == 0 && shift > 0) {
            return Err(InvalidVarint);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(Some((value, rest)));
        }
    }
    Err(InvalidVarint)
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(value: u64, out: &mut Vec<u8>) {
    each_varint_byte(value, |byte| out.push(byte));
}

/// Passes the bytes of a varint to `push`.
#[inline]
pub(crate) fn each_varint_byte(mut value: u64, mut push: impl FnMut(u8)) {
    while value >= 0x80 {
        push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    push(value as u8);
}

/// The number of bytes that a varint takes.
pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = 64u32.saturating_sub((value | 1).leading_zeros());
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_comes_back_and_has_the_length_foretold(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(value, &mut out);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(split_varint(&out), Ok(Some((value, &[][..]))));
            for cut in 0..out.len() {
                prop_assert_eq!(split_varint(&out[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn overlong_and_overflowing_varints_are_refused() {
        assert_eq!(split_varint(&[0x80, 0x00]), Err(InvalidVarint));
        assert_eq!(split_varint(&[0xff; 11]), Err(InvalidVarint));
        let mut ten = [0xff; 10];
        ten[9] = 2;
        assert_eq!(split_varint(&ten), Err(InvalidVarint));
        ten[9] = 1;
        assert_eq!(split_varint(&ten), Ok(Some((u64::MAX, &[][..]))));
    }
}
