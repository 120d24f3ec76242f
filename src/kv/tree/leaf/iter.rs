//! Iterating over the entries of a leaf.

use super::{LARGE_KEY, LARGE_VALUE, Leaf, WORD_BYTES, Word, index_of};
use std::ops::Range;
use std::slice;
use std::sync::Arc;

/// An iterator over consecutive entries of a leaf. A step takes few instructions, so the processor
/// gets ahead and has the cache misses of several entries under way.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct LeafIter<'a> {
    words: slice::Iter<'a, [u8; WORD_BYTES]>,
    data: &'a [u8],
    large: &'a [Arc<[u8]>],
    /// The distance of the end of the next entry from the end of the data.
    end: usize,
}

impl<'a> LeafIter<'a> {
    /// How many entries are left.
    pub(in super::super) fn len(&self) -> usize {
        self.words.len()
    }
}

impl<'a> Iterator for LeafIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let word = Word::new(u64::from_le_bytes(*self.words.next()?));
        let start = usize::from(word.from_end);
        let entry = &self.data[self.data.len() - start..self.data.len() - self.end];
        self.end = start;
        let (key, value) = entry.split_at(word.key_len());
        if word.key & (LARGE_KEY | LARGE_VALUE) == 0 {
            return Some((key, value));
        }
        let resolve = |part: &'a [u8], flag| if word.key & flag == 0 { part } else { &self.large[index_of(part)] };
        Some((resolve(key, LARGE_KEY), resolve(value, LARGE_VALUE)))
    }
}

impl Leaf {
    /// Iterates over the entries of a range, in order.
    pub(in super::super) fn iter(&self, range: Range<usize>) -> LeafIter<'_> {
        let end = self.end_of(range.start);
        LeafIter { words: self.words()[range].iter(), data: &self.data, large: &self.large, end }
    }
}
