//! Composite keys: the name of the table, a zero byte, and the key.
//!
//! Table names have no zero byte, so the entries of a table are contiguous in the tree, and the
//! tables are in the order of their names.

use super::command::MAX_TABLE_LEN;
use smallvec::SmallVec;
use std::ops::{Bound, RangeBounds};

/// Whether this is a valid table name.
pub(super) fn is_table(name: &str) -> bool {
    name.len() <= MAX_TABLE_LEN && !name.as_bytes().contains(&0)
}

/// The table of the records of the types of tables. It is the store's own, and not listed.
pub(super) const TYPES_TABLE: &str = "\u{1}types";

/// Whether the store keeps this name for tables of its own.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with('\u{1}')
}

/// A composite key or a bound on composite keys. It is not allocated if it is short.
pub(super) type Composite = SmallVec<[u8; 48]>;

/// Passes the composite key to `f`.
#[inline]
pub(super) fn with_composite<R>(table: &str, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
    // every lookup runs this, and filling an array takes fewer instructions than filling a
    // `Composite`
    let mut short = [0; 128];
    let len = table.len() + 1 + key.len();
    match short.get_mut(..len) {
        Some(short) => {
            short[..table.len()].copy_from_slice(table.as_bytes());
            short[table.len() + 1..].copy_from_slice(key);
            f(short)
        }
        None => f(&composite(table, key)),
    }
}

/// The composite key.
#[inline]
pub(super) fn composite(table: &str, key: &[u8]) -> Composite {
    let mut composite = Composite::with_capacity(table.len() + 1 + key.len());
    composite.extend_from_slice(table.as_bytes());
    composite.push(0);
    composite.extend_from_slice(key);
    composite
}

/// Bounds on composite keys.
pub(super) type Bounds = (Bound<Composite>, Bound<Composite>);

/// The composite bounds of a range within a table.
pub(super) fn range_bounds<K: AsRef<[u8]> + ?Sized>(table: &str, range: &impl RangeBounds<K>) -> Bounds {
    let within = |bound: Bound<&K>| bound.map(|key| composite(table, key.as_ref()));
    let start = match within(range.start_bound()) {
        Bound::Unbounded => Bound::Included(composite(table, b"")),
        bound => bound,
    };
    let end = match within(range.end_bound()) {
        Bound::Unbounded => Bound::Excluded(behind_table(table.as_bytes())),
        bound => bound,
    };
    (start, end)
}

/// The composite bounds of the keys in a table that start with `prefix`.
pub(super) fn prefix_bounds(table: &str, prefix: &[u8]) -> Bounds {
    let start = composite(table, prefix);
    let mut end = start.clone();
    // The least string above all with this prefix. The zero byte after the name can always be
    // incremented.
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (Bound::Included(start), Bound::Excluded(end))
}

/// The least string above all composite keys of a table.
pub(super) fn behind_table(name: &[u8]) -> Composite {
    let mut behind = Composite::from_slice(name);
    behind.push(1);
    behind
}

/// The bounds as slices.
pub(super) fn borrowed((start, end): &Bounds) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (start.as_ref().map(|b| &b[..]), end.as_ref().map(|b| &b[..]))
}
