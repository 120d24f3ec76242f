//! Key heads: four bytes of a key as an integer, so that most of a search compares integers.
//!
//! A head is taken behind the prefix that all keys of a node share, big-endian, padded with zeroes. Heads
//! never order two keys wrongly, but may tie: then the keys decide. A head is kept in the upper half
//! of a word whose lower half is the owner's.

/// The head of `key` behind `prefix` bytes.
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

/// Finds the words that have the head `wanted`: the first at or above it, and the first above it.
///
/// The last stretch is counted and not halved: its loads do not wait for each other, which counts
/// where each is a cache miss.
#[inline]
pub(super) fn equal_heads<T: Copy>(words: &[T], word: impl Fn(T) -> u64, wanted: u32) -> (usize, usize) {
    const STRETCH: usize = 48;
    let bound = u64::from(wanted) << 32;
    let (mut low, mut rest) = (0, words);
    while rest.len() > STRETCH {
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

/// Looks for `tail` among the keys from `low` to `high`, whose heads are equal.
#[inline]
pub(super) fn search_ties<'a>(
    (mut low, mut high): (usize, usize),
    tail_at: impl Fn(usize) -> &'a [u8],
    tail: &[u8],
) -> Result<usize, usize> {
    while low < high {
        let middle = low + (high - low) / 2;
        match tail_at(middle).cmp(tail) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Ok(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// How many leading bytes the two have in common.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key above `left` and at or below `right`, where `left` is below `right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    right[..(common_prefix(left, right) + 1).min(right.len())].to_vec()
}
