//! Key heads: four bytes of a key as an integer, so that most of a search compares integers.
//!
//! A head is taken after the prefix that all keys of a node share, big-endian, padded with zeros.
//! The order of two heads never contradicts the order of their keys. Equal heads are ties, which
//! the keys decide. A head is the upper half of a 64-bit word; the lower half belongs to the node.

use std::cmp::Ordering;

/// The head of `key` after `prefix` bytes.
#[inline]
pub(super) fn head(key: &[u8], prefix: usize) -> u32 {
    let tail = key.get(prefix..).unwrap_or_default();
    match tail.first_chunk::<4>() {
        Some(first) => u32::from_be_bytes(*first),
        None => {
            let mut padded = [0; 4];
            padded[..tail.len()].copy_from_slice(tail);
            u32::from_be_bytes(padded)
        }
    }
}

/// Finds the words with the head `wanted`. Returns the index of the first word at or above it, and
/// of the first word above it.
#[inline]
pub(super) fn equal_heads<T: Copy>(words: &[T], word: impl Fn(T) -> u64, wanted: u32) -> (usize, usize) {
    /// A binary search of so few words is replaced by a linear count, whose loads do not wait for
    /// each other. It is a whole leaf of 100-byte entries, so such a leaf is never bisected.
    const LINEAR_WORDS: usize = 48;
    let bound = u64::from(wanted) << 32;
    let (mut low, mut rest) = (0, words);
    while rest.len() > LINEAR_WORDS {
        let (left, right) = rest.split_at(rest.len() / 2);
        if left.last().is_some_and(|&w| word(w) < bound) {
            low += left.len();
            rest = right;
        } else {
            rest = left;
        }
    }
    low += rest.iter().filter(|&&w| word(w) < bound).count();
    let equal = |at: usize| words.get(at).is_some_and(|&w| (word(w) >> 32) as u32 == wanted);
    if !equal(low) {
        (low, low)
    } else if !equal(low + 1) {
        (low, low + 1)
    } else {
        (low, low + words[low..].partition_point(|&w| (word(w) >> 32) as u32 == wanted))
    }
}

/// Searches the keys from `low` to `high`, whose heads are equal, for the one that ends in `tail`.
/// Returns its index, or that at which it would be inserted.
#[inline]
pub(super) fn search_ties<'a>(
    (mut low, mut high): (usize, usize),
    tail_at: impl Fn(usize) -> &'a [u8],
    tail: &[u8],
) -> Result<usize, usize> {
    while low < high {
        let middle = low + (high - low) / 2;
        match tail_at(middle).cmp(tail) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// The length of the longest common prefix of two keys.
pub(in crate::kv) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key above `left` and at or below `right`, where `left` is below `right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    right[..(common_prefix(left, right) + 1).min(right.len())].to_vec()
}
