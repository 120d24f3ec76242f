//! The iterator over the entries of a typed table.

use super::definition::Table;
use super::key::Key;
use super::value::Value;
use crate::error::Result;
use crate::kv::KvIter;
use crate::kv::tree::End;
use std::fmt;

/// Entries of a table as they were at one moment, in order and from both ends.
///
/// Returned by [`TableHandle::range`](super::TableHandle::range),
/// [`prefix`](super::TableHandle::prefix) and [`iter`](super::TableHandle::iter). It keeps a frozen
/// copy of the state, which costs nothing but the copying of what is changed meanwhile.
pub struct TableIter<K: ?Sized, V: ?Sized> {
    entries: KvIter,
    table: Table<K, V>,
}

impl<K: Key + ?Sized, V: Value + ?Sized> TableIter<K, V> {
    pub(super) fn new(entries: KvIter, table: Table<K, V>) -> Self {
        TableIter { entries, table }
    }

    fn pop(&mut self, end: End) -> Option<Result<(K::Owned, V::Owned)>> {
        let table = &self.table;
        self.entries.pop_with(end, |key, value| {
            let key = K::decode(key).map_err(|error| table.undecodable_key(&error))?;
            let value = V::decode(value).map_err(|error| table.undecodable_value(&error))?;
            Ok((key, value))
        })
    }
}

impl<K: Key + ?Sized, V: Value + ?Sized> Iterator for TableIter<K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pop(End::Front)
    }
}

impl<K: Key + ?Sized, V: Value + ?Sized> DoubleEndedIterator for TableIter<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.pop(End::Back)
    }
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for TableIter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableIter").field("table", &self.table.name()).finish_non_exhaustive()
    }
}
