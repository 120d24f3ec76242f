//! The memory of leaves: a few sizes, and what lies outside.

use super::{INLINE_KEY, INLINE_VALUE, LARGE_VALUE, LEAF_BYTES, Leaf, WORD, index_of};
use std::sync::Arc;

/// How many sizes leaves come in.
pub(in super::super) const CLASSES: usize = 27;
/// The largest leaf: after a lopsided split one side may be half an entry over the limit, and then gets one more.
const MAX_DATA: usize = (CLASSES - 1) * 256 - 56;
const _: () = assert!(LEAF_BYTES + (INLINE_KEY + INLINE_VALUE + WORD) * 3 / 2 <= MAX_DATA);

const SMALLEST: usize = 72;

impl Leaf {
    /// An empty leaf that holds at least `size` bytes of words and entries.
    ///
    /// The sizes are few, so that the allocator finds a use for what was freed; with header, counts and the
    /// allocator's own word they are multiples of 256.
    pub(in super::super) fn zeroed(size: usize) -> Arc<Leaf> {
        macro_rules! sizes {
            ($($blocks:literal)*) => {
                match class_of(size) {
                    0 => empty::<SMALLEST>(),
                    $($blocks => empty::<{ $blocks * 256 - 56 }>(),)*
                    _ => empty::<MAX_DATA>(),
                }
            };
        }
        sizes!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25)
    }

    /// The size class of its memory.
    pub(in super::super) fn class(&self) -> usize {
        class_of(self.data.len())
    }

    /// How many bytes words, entries and what lies outside take.
    pub(in super::super) fn full_size(&self) -> usize {
        self.size() + self.large.iter().map(|part| part.len()).sum::<usize>()
    }

    /// The same without what lies outside and others hold too.
    pub(in super::super) fn size_alone(&self) -> usize {
        let alone = self.large.iter().filter(|part| Arc::strong_count(part) == 1);
        self.size() + alone.map(|part| part.len()).sum::<usize>()
    }

    /// How many bytes of the value at `at` lie outside, where others hold them too.
    pub(super) fn shared_value(this: &Arc<Leaf>, at: usize) -> usize {
        let word = this.word(at);
        if word.key & LARGE_VALUE == 0 {
            return 0;
        }
        let part = &this.large[index_of(this.parts(at, word).1)];
        if Arc::strong_count(this) > 1 || Arc::strong_count(part) > 1 { part.len() } else { 0 }
    }
}

fn empty<const N: usize>() -> Arc<Leaf> {
    Arc::new(Leaf { large: Vec::new(), prefix: 0, len: 0, used: 0, data: [0; N] })
}

/// A new leaf of at least `size` bytes, filled in by `fill`.
pub(super) fn build(size: usize, with: impl FnOnce(&mut Leaf)) -> Arc<Leaf> {
    fill(Leaf::zeroed(size), with)
}

pub(super) fn fill(mut leaf: Arc<Leaf>, with: impl FnOnce(&mut Leaf)) -> Arc<Leaf> {
    if let Some(leaf) = Arc::get_mut(&mut leaf) {
        with(leaf);
    }
    leaf
}

/// Which size class holds so many bytes.
pub(in super::super) fn class_of(size: usize) -> usize {
    if size <= SMALLEST { 0 } else { (size + 56).div_ceil(256).min(CLASSES - 1) }
}
