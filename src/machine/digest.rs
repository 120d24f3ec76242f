//! A digest of a stream of bytes: a 64-bit name for a state.
//!
//! Digests are logged, so they are equal on every processor and in every version of this crate.
//! They detect accidents and are not cryptographic: an attacker who chooses the bytes can make two
//! states collide.

use std::io;

/// The initial state and the multiplier: odd numbers without a pattern (the golden ratio, and the
/// first of wyhash).
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX: u64 = 0xa076_1d64_78bd_642f;
const WORD: usize = 8;

/// A writer that digests what is written to it. It is not a cryptographic hash.
///
/// The bytes are read as little-endian words of eight bytes, the last one padded with zeros,
/// followed by their count as one more word. Each word is mixed in by a multiplication to 128 bits,
/// whose halves are folded together (Wang Yi, "wyhash"). How the stream is cut into writes makes no
/// difference.
///
/// ```
/// use seawal::machine::Digest;
/// use std::io::Write;
///
/// let (mut a, mut b) = (Digest::new(), Digest::new());
/// a.write_all(b"one state")?;
/// b.write_all(b"one ")?;
/// b.write_all(b"state")?;
/// assert_eq!(a.finish(), b.finish());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Digest {
    sum: u64,
    /// The bytes of an incomplete word, the first one lowest.
    rest: u64,
    /// The number of bytes.
    bytes: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Digest {
    /// The digest of no bytes.
    pub fn new() -> Self {
        Digest { sum: SEED, rest: 0, bytes: 0 }
    }

    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !self.bytes.is_multiple_of(WORD as u64) {
            let Some((first, left)) = bytes.split_first() else { return };
            self.add_to_rest(*first);
            bytes = left;
        }
        let (words, left) = bytes.as_chunks::<WORD>();
        for word in words {
            self.sum = fold(self.sum ^ u64::from_le_bytes(*word));
        }
        self.bytes = self.bytes.wrapping_add((words.len() * WORD) as u64);
        left.iter().for_each(|byte| self.add_to_rest(*byte));
    }

    fn add_to_rest(&mut self, byte: u8) {
        let at = self.bytes % WORD as u64;
        self.rest |= u64::from(byte) << (8 * at);
        self.bytes = self.bytes.wrapping_add(1);
        if at == WORD as u64 - 1 {
            self.sum = fold(self.sum ^ self.rest);
            self.rest = 0;
        }
    }

    /// Returns the digest of all bytes so far.
    pub fn finish(&self) -> u64 {
        let whole = self.bytes.is_multiple_of(WORD as u64);
        let sum = if whole { self.sum } else { fold(self.sum ^ self.rest) };
        fold(sum ^ self.bytes)
    }
}

fn fold(word: u64) -> u64 {
    let product = u128::from(word) * u128::from(MIX);
    // the low half of a product depends little on the high bits of its factors, and the high half
    // on the low bits
    ((product >> 64) as u64 ^ product as u64).wrapping_add(SEED)
}

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(bytes: &[u8]) -> u64 {
        let mut digest = Digest::new();
        digest.update(bytes);
        digest.finish()
    }

    #[test]
    fn the_digest_of_given_bytes_never_changes() {
        // computed by another program
        assert_eq!(digest(b""), 0x053c_a1ac_05d0_a87e);
        assert_eq!(digest(b"a"), 0x5399_aa35_68bd_7ce7);
        assert_eq!(digest(b"in memory and durable"), 0x7c4b_9fc3_a931_fc54);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(pieces in any::<Vec<Vec<u8>>>()) {
            let mut one = Digest::new();
            pieces.iter().for_each(|piece| one.update(piece));
            prop_assert_eq!(one.finish(), digest(&pieces.concat()));
        }

        #[test]
        fn a_flipped_bit_a_byte_more_and_a_byte_less_are_noticed(bytes in proptest::collection::vec(any::<u8>(), 1..64), at in any::<usize>()) {
            let whole = digest(&bytes);
            let mut flipped = bytes.clone();
            flipped[at / 8 % bytes.len()] ^= 1 << (at % 8);
            prop_assert_ne!(digest(&flipped), whole);
            prop_assert_ne!(digest(&bytes[1..]), whole);
            prop_assert_ne!(digest(&[&bytes[..], &[0]].concat()), whole);
        }
    }
}
