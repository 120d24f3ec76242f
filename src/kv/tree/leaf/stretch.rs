//! Walking the entries of a leaf.

use super::{LARGE_KEY, LARGE_VALUE, Leaf, WORD, Word, index_of};
use std::ops::Range;
use std::slice;
use std::sync::Arc;

/// Entries that follow one another. Taking the next costs little, so that the processor runs ahead of what memory is slow to give.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Stretch<'a> {
    words: slice::Iter<'a, [u8; WORD]>,
    data: &'a [u8],
    large: &'a [Arc<[u8]>],
    /// Distance of the end of the next entry from the end of the data.
    end: usize,
}

impl<'a> Stretch<'a> {
    /// How many are left.
    pub(in super::super) fn len(&self) -> usize {
        self.words.len()
    }

    /// The next entry.
    #[inline]
    pub(in super::super) fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
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
    /// The entries of a range, in order.
    pub(in super::super) fn stretch(&self, range: Range<usize>) -> Stretch<'_> {
        let end = self.end_of(range.start);
        Stretch { words: self.words()[range].iter(), data: &self.data, large: &self.large, end }
    }
}
