//! The memory of leaves: size classes, and the parts that lie outside.

use super::{INDEX_BYTES, INLINE_KEY_BYTES, INLINE_VALUE_BYTES, LARGE_VALUE, LEAF_BYTES, Leaf, WORD_BYTES, index_of};
use std::sync::Arc;

/// The number of size classes. The largest bounds the largest leaf: after a lopsided split, one
/// side may exceed the limit by half an entry and then get one more entry.
pub(in super::super) const SIZE_CLASSES: usize = 27;
/// The step between size classes, in bytes.
const CLASS_BYTES: usize = 256;
/// What a leaf takes in addition to its data: its header, the counts of the `Arc`, and the
/// allocator's word.
const OVERHEAD_BYTES: usize = 56;
const MAX_DATA_BYTES: usize = (SIZE_CLASSES - 1) * CLASS_BYTES - OVERHEAD_BYTES;
const _: () = assert!(LEAF_BYTES + (INLINE_KEY_BYTES + INLINE_VALUE_BYTES + WORD_BYTES) * 3 / 2 <= MAX_DATA_BYTES);

/// The data of the smallest class: a tree of one small entry takes 128 bytes.
const MIN_DATA_BYTES: usize = 72;

impl Leaf {
    /// An empty leaf with room for at least `size` bytes of words and entries.
    ///
    /// There are few sizes, so that freed memory fits later leaves. With their overhead they are
    /// multiples of 256 bytes.
    pub(in super::super) fn zeroed(size: usize) -> Arc<Leaf> {
        macro_rules! sizes {
            ($($class:literal)*) => {
                match class_of(size) {
                    0 => empty::<MIN_DATA_BYTES>(),
                    $($class => empty::<{ $class * CLASS_BYTES - OVERHEAD_BYTES }>(),)*
                    _ => empty::<MAX_DATA_BYTES>(),
                }
            };
        }
        sizes!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25)
    }

    /// The size class of the leaf's memory.
    pub(in super::super) fn class(&self) -> usize {
        class_of(self.data.len())
    }

    /// How many bytes the words, the keys and the values take, including those outside.
    pub(in super::super) fn full_size(&self) -> usize {
        self.with_outside(self.large.iter())
    }

    /// The same, without values outside that other leaves hold too.
    pub(in super::super) fn unshared_size(&self) -> usize {
        self.with_outside(self.large.iter().filter(|part| Arc::strong_count(part) == 1))
    }

    fn with_outside<'a>(&'a self, parts: impl Iterator<Item = &'a Arc<[u8]>>) -> usize {
        self.size() - self.large.len() * INDEX_BYTES + parts.map(|part| part.len()).sum::<usize>()
    }

    /// How many bytes the value at `at` takes outside, if others hold it too.
    pub(in super::super) fn shared_value_bytes(this: &Arc<Leaf>, at: usize) -> usize {
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

/// The smallest size class that holds `size` bytes of data.
pub(in super::super) fn class_of(size: usize) -> usize {
    if size <= MIN_DATA_BYTES { 0 } else { (size + OVERHEAD_BYTES).div_ceil(CLASS_BYTES).min(SIZE_CLASSES - 1) }
}
