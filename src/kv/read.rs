//! Reading: composite keys, and the walks over a table.
//!
//! A composite key is the table's name, a zero byte, and the key. As names have no zero byte, the entries of a table
//! lie together, and the tables in the order of their names.

use super::Kv;
use super::command::MAX_TABLE_LEN;
use super::tree::{End, Piece, Range, Tree};
use crate::machine::{Access, Footprint};
use smallvec::SmallVec;
use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};

/// Whether a table may be called so.
pub(super) fn is_table(name: &str) -> bool {
    name.len() <= MAX_TABLE_LEN && !name.as_bytes().contains(&0)
}

/// A composite key, or a bound on such; without an allocation if it is short.
pub(super) type Composite = SmallVec<[u8; 48]>;

/// Hands the composite key to `f`.
#[inline]
pub(super) fn with_composite<R>(table: &str, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
    // each lookup comes by here: an array is filled in fewer instructions than a `Composite`
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
fn behind_table(name: &[u8]) -> Composite {
    let mut behind = Composite::from_slice(name);
    behind.push(1);
    behind
}

pub(super) fn borrowed((start, end): &Bounds) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (start.as_ref().map(|b| &b[..]), end.as_ref().map(|b| &b[..]))
}

/// A part of a table: what is between two composite keys. If there can be no such table, nothing.
#[derive(Clone, Debug)]
pub(crate) struct KvSpan {
    bounds: Bounds,
    /// How much of each composite key is the table; `None` if there is none.
    skip: Option<usize>,
}

/// Entries of a part of a table that were taken out, to be copied one by one.
#[derive(Debug)]
pub(crate) struct KvPiece {
    piece: Piece,
    skip: usize,
}

impl KvSpan {
    pub(crate) fn of_range<K: AsRef<[u8]> + ?Sized>(table: &str, range: &impl RangeBounds<K>) -> Self {
        KvSpan { bounds: range_bounds(table, range), skip: is_table(table).then_some(table.len() + 1) }
    }

    pub(crate) fn of_prefix(table: &str, prefix: &[u8]) -> Self {
        KvSpan { bounds: prefix_bounds(table, prefix), skip: is_table(table).then_some(table.len() + 1) }
    }

    /// What reading it touches.
    pub(crate) fn footprint(&self) -> Footprint {
        Footprint::range::<[u8]>(Access::Shared, borrowed(&self.bounds))
    }

    /// Its entries.
    pub(crate) fn entries<'a>(&self, kv: &'a Kv) -> KvRange<'a> {
        match self.skip {
            Some(skip) => KvRange { range: kv.tree.range(borrowed(&self.bounds)), skip },
            None => KvRange { range: Range::default(), skip: 0 },
        }
    }

    /// Takes as many entries off an end as lie together.
    pub(crate) fn take(&mut self, kv: &Kv, end: End) -> Option<KvPiece> {
        let skip = self.skip?;
        let piece = kv.tree.range(borrowed(&self.bounds)).piece(end)?;
        match end {
            End::Front => self.bounds.0 = Bound::Excluded(Composite::from_slice(piece.key(End::Back)?)),
            End::Back => self.bounds.1 = Bound::Excluded(Composite::from_slice(piece.key(End::Front)?)),
        }
        Some(KvPiece { piece, skip })
    }
}

impl KvPiece {
    /// Takes the entry at an end off, and copies it.
    pub(crate) fn pop(&mut self, end: End) -> Option<(Vec<u8>, Vec<u8>)> {
        let skip = self.skip;
        self.piece.pop(end, |key, value| (key.get(skip..).unwrap_or_default().to_vec(), value.to_vec()))
    }
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

    #[inline]
    fn strip(&self, (key, value): (&'a [u8], &'a [u8])) -> (&'a [u8], &'a [u8]) {
        (key.get(self.skip..).unwrap_or_default(), value)
    }
}

impl<'a> Iterator for KvRange<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
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
    from: Option<Composite>,
}

impl<'a> KvTables<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        KvTables { tree, from: Some(Composite::new()) }
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
