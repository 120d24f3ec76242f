//! Ranges of keys and prefixes of keys, as arguments.

use super::key::Key;
use crate::kv::range::KvSpan;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A range of keys: any range of the standard library, over keys or over references to keys.
///
/// So `..100` is a range of a `Table<u64, _>`, and `"a".."c"` is one of a `Table<str, _>`. A range
/// whose end is before its start is empty.
///
/// ```
/// use seawal::{Store, Table};
///
/// const SQUARES: Table<u64, u64> = Table::new("squares");
/// const FRUIT: Table<str, str> = Table::new("fruit");
///
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::open(dir.path())?;
/// let squares = store.table(SQUARES);
/// for n in 0..10 {
///     squares.put(&n, &(n * n))?;
/// }
/// assert_eq!(squares.range(..3)?.count(), 3);
/// assert_eq!(squares.range(4..=6)?.next_back().unwrap()?, (6, 36));
///
/// let fruit = store.table(FRUIT);
/// fruit.put("apple", "red")?;
/// fruit.put("pear", "green")?;
/// assert_eq!(fruit.range("a".."c")?.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait KeyRange<K: ?Sized> {
    /// Returns both bounds.
    fn bounds(&self) -> (Bound<&K>, Bound<&K>);
}

impl<K: ?Sized> KeyRange<K> for RangeFull {
    fn bounds(&self) -> (Bound<&K>, Bound<&K>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

macro_rules! ranges {
    ($($range:ident |$it:ident| $bounds:expr, $borrowed:expr;)*) => {$(
        impl<K> KeyRange<K> for $range<K> {
            fn bounds(&self) -> (Bound<&K>, Bound<&K>) {
                let $it = self;
                $bounds
            }
        }

        impl<K: ?Sized> KeyRange<K> for $range<&K> {
            fn bounds(&self) -> (Bound<&K>, Bound<&K>) {
                let $it = self;
                $borrowed
            }
        }
    )*};
}

ranges! {
    Range |range| (Bound::Included(&range.start), Bound::Excluded(&range.end)),
        (Bound::Included(range.start), Bound::Excluded(range.end));
    RangeFrom |range| (Bound::Included(&range.start), Bound::Unbounded),
        (Bound::Included(range.start), Bound::Unbounded);
    RangeTo |range| (Bound::Unbounded, Bound::Excluded(&range.end)),
        (Bound::Unbounded, Bound::Excluded(range.end));
    RangeInclusive |range| (Bound::Included(range.start()), Bound::Included(range.end())),
        (Bound::Included(*range.start()), Bound::Included(*range.end()));
    RangeToInclusive |range| (Bound::Unbounded, Bound::Included(&range.end)),
        (Bound::Unbounded, Bound::Included(range.end));
}

impl<K> KeyRange<K> for (Bound<K>, Bound<K>) {
    fn bounds(&self) -> (Bound<&K>, Bound<&K>) {
        (self.0.as_ref(), self.1.as_ref())
    }
}

impl<K: ?Sized> KeyRange<K> for (Bound<&K>, Bound<&K>) {
    fn bounds(&self) -> (Bound<&K>, Bound<&K>) {
        *self
    }
}

/// The span of a table that a range of keys covers.
pub(super) fn span_of<K: Key + ?Sized>(table: &str, range: &impl KeyRange<K>) -> KvSpan {
    let (start, end) = range.bounds();
    let (start, end) = (start.map(Key::encode), end.map(Key::encode));
    let bounds = (start.as_ref().map(AsRef::as_ref), end.as_ref().map(AsRef::as_ref));
    KvSpan::of_range::<[u8]>(table, &bounds)
}

/// What the encodings of some keys `K` begin with.
///
/// It is a part of a text or of bytes, or the leading parts of a tuple:
///
/// ```
/// use seawal::{Store, Table};
///
/// /// Visits by page and time.
/// const VISITS: Table<(String, u64), u32> = Table::new("visits");
///
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::open(dir.path())?;
/// let visits = store.table(VISITS);
/// for (page, time) in [("home", 1), ("home", 2), ("home page", 3)] {
///     visits.put(&(page.to_owned(), time), &1)?;
/// }
/// assert_eq!(visits.prefix(&("home".to_owned(),))?.count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait KeyPrefix<K: ?Sized> {
    /// Returns the bytes.
    fn encode_prefix(&self) -> Vec<u8>;
}

macro_rules! prefixes {
    ($($prefix:ty => $($key:ty),*;)*) => {$($(
        impl KeyPrefix<$key> for $prefix {
            fn encode_prefix(&self) -> Vec<u8> {
                Key::encode(self).to_vec()
            }
        }
    )*)*};
}

prefixes! {
    str => str, String;
    String => str, String;
    [u8] => [u8], Vec<u8>;
    Vec<u8> => [u8], Vec<u8>;
}

impl<const N: usize> KeyPrefix<[u8]> for [u8; N] {
    fn encode_prefix(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl<const N: usize> KeyPrefix<[u8; N]> for [u8] {
    fn encode_prefix(&self) -> Vec<u8> {
        self.to_vec()
    }
}
