//! Reading ranges and tables.

use super::keys::{Bounds, Composite, TYPES_TABLE, behind_table, borrowed, is_table, prefix_bounds, range_bounds};
use super::tree::{End, Piece, Range, Tree};
use crate::machine::{Access, Footprint};
use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};

/// A range of keys of a table. If the table name is invalid, the range is empty.
#[derive(Clone, Debug)]
pub(crate) struct KvSpan {
    bounds: Bounds,
    /// How many bytes of each composite key are the table; `None` if its name is invalid.
    skip: Option<usize>,
}

/// Entries at one end of a range, to be copied one by one. It holds their leaf and not the state.
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

    /// The footprint of accessing the range.
    pub(crate) fn footprint(&self, access: Access) -> Footprint {
        Footprint::range::<[u8]>(access, borrowed(&self.bounds))
    }

    /// Its entries.
    pub(super) fn entries<'a>(&self, tree: &'a Tree) -> KvRange<'a> {
        match self.skip {
            Some(skip) => KvRange { range: tree.range(borrowed(&self.bounds)), skip },
            None => KvRange { range: Range::default(), skip: 0 },
        }
    }

    /// Removes from one end the entries that lie in one leaf, and returns them.
    pub(super) fn take(&mut self, tree: &Tree, end: End) -> Option<KvPiece> {
        let skip = self.skip?;
        let piece = tree.range(borrowed(&self.bounds)).piece(end)?;
        match end {
            End::Front => self.bounds.0 = Bound::Excluded(Composite::from_slice(piece.key(End::Back)?)),
            End::Back => self.bounds.1 = Bound::Excluded(Composite::from_slice(piece.key(End::Front)?)),
        }
        Some(KvPiece { piece, skip })
    }
}

impl KvPiece {
    /// Removes the entry at one end and returns what `f` makes of its key and value.
    pub(crate) fn pop<R>(&mut self, end: End, f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let skip = self.skip;
        self.piece.pop(end, |key, value| f(key.get(skip..).unwrap_or_default(), value))
    }
}

/// An iterator over entries of a table, in order and from both ends: keys (without the table) and
/// values.
///
/// Returned by [`Kv::range`](super::Kv::range) and [`Kv::prefix`](super::Kv::prefix).
#[derive(Clone, Debug)]
pub struct KvRange<'a> {
    range: Range<'a>,
    /// How many bytes of each composite key are the table.
    skip: usize,
}

impl<'a> KvRange<'a> {
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

    fn count(self) -> usize {
        self.range.count()
    }
}

impl DoubleEndedIterator for KvRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.range.next_back().map(|item| self.strip(item))
    }
}

impl FusedIterator for KvRange<'_> {}

/// An iterator over the names of the tables that hold a key, in order. Returned by
/// [`Kv::tables`](super::Kv::tables).
#[derive(Clone, Debug)]
pub struct KvTables<'a> {
    tree: &'a Tree,
    /// The lower bound of the next table; `None` at the end.
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
        match std::str::from_utf8(name).ok()? {
            // the store's own
            TYPES_TABLE => self.next(),
            name => Some(name),
        }
    }
}

impl FusedIterator for KvTables<'_> {}
