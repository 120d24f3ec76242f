//! Reading: composite keys, and the walks over a table.
//!
//! A composite key is the table's name, a zero byte, and the key. As names have no zero byte, the entries of a table
//! lie together, and the tables in the order of their names.

use super::command::MAX_TABLE_LEN;
use super::tree::{Range, Tree};
use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};

/// Whether a table may be called so.
pub(super) fn is_table(name: &str) -> bool {
    name.len() <= MAX_TABLE_LEN && !name.as_bytes().contains(&0)
}

/// Hands the composite key to `f`, made on the stack if it is short.
#[inline]
pub(super) fn with_composite<R>(table: &str, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
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
pub(super) fn composite(table: &str, key: &[u8]) -> Vec<u8> {
    let mut composite = Vec::with_capacity(table.len() + 1 + key.len());
    composite.extend_from_slice(table.as_bytes());
    composite.push(0);
    composite.extend_from_slice(key);
    composite
}

/// Bounds on composite keys.
pub(super) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

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
    // The first string behind all that start so. The zero byte behind the name can always be raised.
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (Bound::Included(start), Bound::Excluded(end))
}

/// The first string behind every composite key of a table.
fn behind_table(name: &[u8]) -> Vec<u8> {
    [name, &[1]].concat()
}

pub(super) fn borrowed((start, end): &Bounds) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (start.as_ref().map(|b| &b[..]), end.as_ref().map(|b| &b[..]))
}

/// The entries of a part of a table, in order: keys (without the table) and values.
///
/// Made by [`Kv::range`](super::Kv::range) and [`Kv::prefix`](super::Kv::prefix).
#[derive(Clone, Debug)]
pub struct KvRange<'a> {
    range: Range<'a>,
    /// How much of each composite key is the table.
    skip: usize,
}

impl<'a> KvRange<'a> {
    pub(super) fn new(tree: &'a Tree, table: &str, bounds: &Bounds) -> Self {
        let range = if is_table(table) { tree.range(borrowed(bounds)) } else { Range::default() };
        KvRange { range, skip: table.len() + 1 }
    }

    fn strip(&self, (key, value): (&'a [u8], &'a [u8])) -> (&'a [u8], &'a [u8]) {
        (key.get(self.skip..).unwrap_or_default(), value)
    }
}

impl<'a> Iterator for KvRange<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.range.next().map(|item| self.strip(item))
    }
}

impl DoubleEndedIterator for KvRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.range.next_back().map(|item| self.strip(item))
    }
}

impl FusedIterator for KvRange<'_> {}

/// The names of the tables that hold a key, in order. Made by [`Kv::tables`](super::Kv::tables).
#[derive(Clone, Debug)]
pub struct KvTables<'a> {
    tree: &'a Tree,
    /// Where the next table may start; nothing at the end.
    from: Option<Vec<u8>>,
}

impl<'a> KvTables<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        KvTables { tree, from: Some(Vec::new()) }
    }
}

impl<'a> Iterator for KvTables<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let from = self.from.take()?;
        let (key, _) = self.tree.range((Bound::Included(&from), Bound::Unbounded)).next()?;
        let name = key.split(|&b| b == 0).next()?;
        self.from = Some(behind_table(name));
        std::str::from_utf8(name).ok()
    }
}

impl FusedIterator for KvTables<'_> {}
