//! The handle of a table: its reads.

use super::definition::Table;
use super::iter::TableIter;
use super::key::Key;
use super::key_range::{KeyPrefix, KeyRange, span_of};
use super::source::ReadSource;
use super::source::sealed::{How, Span};
use super::type_check::TypeCheck;
use super::value::Value;
use crate::engine::{Engine, Transaction};
use crate::error::{Error, Result};
use crate::kv::range::KvSpan;
use crate::kv::tree::End;
use crate::kv::{Kv, KvIter, KvRange};
use crate::machine::DecodeError;
use std::fmt;

/// A longer value is copied where it lies, and decoded when commits no longer wait for that.
const MAX_BYTES_DECODED_IN_PLACE: usize = 4 << 10;

/// A table of a store, a transaction or a state, with the types of its keys and values.
///
/// [`Engine::table`], [`Transaction::table`] and [`Kv::table`] open one. All methods take `&self`.
///
/// # Durability
///
/// A write through the handle of a store survives power loss when it returns, unless the store was
/// opened with another durability. A read returns once what it shows has hardened. In a transaction,
/// nothing survives before the commit. Reads in a transaction lock what they read, whether it
/// exists or not, to the end of the transaction.
///
/// # Errors
///
/// Beside those that a method names, each can return:
///
/// - [`Error::OtherTypes`] if the table has other types;
/// - [`Error::InvalidArgument`] if its name is not valid;
/// - [`Error::Undecodable`] if a key or a value cannot be decoded;
/// - those of [`Engine::read`] and [`Engine::execute`], or those of [`Transaction::execute`].
///
/// # The first write
///
/// As long as a table has no record of its types, writes to it in different transactions wait for
/// each other.
///
/// ```
/// use seawal::{Store, Table};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct User {
///     name: String,
///     visits: u32,
/// }
///
/// const USERS: Table<u64, User> = Table::new("users");
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let store = Store::open(path)?;
/// let users = store.table(USERS);
/// users.insert(&7, &User { name: "ann".into(), visits: 0 })?;
/// users.update(&7, |user| user.map(|user| User { visits: user.visits + 1, ..user }))?;
/// for entry in store.view()?.table(USERS).range(..100)? {
///     let (id, user) = entry?;
///     println!("{id}: {} came {} times", user.name, user.visits);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TableHandle<S, K: ?Sized, V: ?Sized> {
    pub(super) source: S,
    pub(super) table: Table<K, V>,
    pub(super) types: TypeCheck,
}

impl<S: Clone, K: ?Sized, V: ?Sized> Clone for TableHandle<S, K, V> {
    fn clone(&self) -> Self {
        TableHandle { source: self.source.clone(), table: self.table.clone(), types: self.types.clone() }
    }
}

impl<S, K: ?Sized, V: ?Sized> fmt::Debug for TableHandle<S, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableHandle").field("table", &self.table.name()).finish_non_exhaustive()
    }
}

/// A value that a read has found.
enum FoundValue<T> {
    Decoded(Result<T, DecodeError>),
    /// A long value, to be decoded.
    Copied(Vec<u8>),
}

impl<S: ReadSource, K: Key + ?Sized, V: Value + ?Sized> TableHandle<S, K, V> {
    pub(super) fn new(source: S, table: Table<K, V>) -> Self {
        let types = TypeCheck::begin::<S, K, V>(&source, table.name());
        TableHandle { source, table, types }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.table.name()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    #[inline]
    pub fn get(&self, key: &K) -> Result<Option<V::Owned>> {
        self.get_as(key, How::SHARED)
    }

    #[inline]
    pub(super) fn get_as(&self, key: &K, how: How) -> Result<Option<V::Owned>> {
        let found = self.read_key(key, how, |value| {
            value.map(|bytes| {
                if bytes.len() <= MAX_BYTES_DECODED_IN_PLACE {
                    FoundValue::Decoded(V::decode(bytes))
                } else {
                    FoundValue::Copied(bytes.to_vec())
                }
            })
        })?;
        let Some(found) = found else { return Ok(None) };
        let decoded = match found {
            FoundValue::Decoded(value) => value,
            FoundValue::Copied(bytes) => V::decode_vec(bytes),
        };
        decoded.map(Some).map_err(|error| self.table.undecodable_value(&error))
    }

    /// Reads the bytes of the value of a key.
    #[inline]
    pub(super) fn read_key<T>(&self, key: &K, how: How, read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        let encoded = key.encode();
        self.types.read::<S, K, V, T>(&self.source, self.name(), || {
            // the check refuses names that have no composite keys
            Kv::with_lock_key(self.name(), encoded.as_ref(), |composite| {
                self.source.read_key(composite, how, |kv| read(kv.at_lock_key(composite)))
            })
            .unwrap_or(Err(Error::Closed))
        })
    }

    /// Hands the encoded value of a key to `f`, where it lies: nothing is copied or decoded.
    /// Returns `None` if the key does not exist.
    ///
    /// Commits wait for `f`, which must not use the store, as in [`Engine::read`].
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const PAGES: Table<str, [u8]> = Table::new("pages");
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// store.table(PAGES).put("home", b"<html>")?;
    /// assert_eq!(store.table(PAGES).with("home", |bytes| bytes.len())?, Some(6));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with<T>(&self, key: &K, f: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        self.read_key(key, How::SHARED, |value| value.map(f))
    }

    /// Whether a key exists.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn contains(&self, key: &K) -> Result<bool> {
        self.read_key(key, How::SHARED, |value| value.is_some())
    }

    /// The first entry.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn first(&self) -> Result<Option<(K::Owned, V::Owned)>> {
        self.at_end(End::Front)
    }

    /// The last entry.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn last(&self) -> Result<Option<(K::Owned, V::Owned)>> {
        self.at_end(End::Back)
    }

    fn at_end(&self, end: End) -> Result<Option<(K::Owned, V::Owned)>> {
        match self.entry_at(end, How::SHARED)? {
            Some((key, value)) => self.decode_entry(&key, value).map(Some),
            None => Ok(None),
        }
    }

    /// The encoded entry at one end of the table.
    pub(super) fn entry_at(&self, end: End, how: How) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let span = self.whole();
        self.read_span(&span, how.own_code(), |kv| {
            let mut entries = kv.entries(&span);
            let entry = match end {
                End::Front => entries.next(),
                End::Back => entries.next_back(),
            };
            entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
        })
    }

    /// How many entries there are. It counts them, which takes time in proportion to the table, but
    /// commits go on meanwhile.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn len(&self) -> Result<usize> {
        let span = self.whole();
        let frozen = self.read_span(&span, How::SHARED.own_code(), Kv::clone)?;
        Ok(frozen.entries(&span).count())
    }

    /// Whether there is no entry.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn is_empty(&self) -> Result<bool> {
        let span = self.whole();
        self.read_span(&span, How::SHARED.own_code(), |kv| kv.entries(&span).next().is_none())
    }

    /// The entries of a range of keys, in order and from both ends, as they were at one moment.
    ///
    /// The iterator holds a frozen copy of the state, which costs nothing but the copying of what is
    /// changed meanwhile. In a transaction the range is locked: no key appears in it that was not
    /// there.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors). Each item is a result too: an entry that cannot
    /// be decoded is [`Error::Undecodable`], and the next ones follow it.
    pub fn range(&self, range: impl KeyRange<K>) -> Result<TableIter<K, V>> {
        self.frozen(span_of(self.name(), &range))
    }

    /// The entries whose keys start with `prefix`, in order and from both ends, as they were at one
    /// moment. See [`KeyPrefix`] for what a prefix is.
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: &(impl KeyPrefix<K> + ?Sized)) -> Result<TableIter<K, V>> {
        self.frozen(KvSpan::of_prefix(self.name(), &prefix.encode_prefix()))
    }

    /// All entries, in order and from both ends, as they were at one moment.
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn iter(&self) -> Result<TableIter<K, V>> {
        self.frozen(self.whole())
    }

    fn frozen(&self, span: KvSpan) -> Result<TableIter<K, V>> {
        let frozen = self.read_span(&span, How::SHARED.own_code(), Kv::clone)?;
        Ok(TableIter::new(KvIter::new(frozen, span), self.table.clone()))
    }

    /// Hands the encoded entries of a range of keys to `f`, in order and from both ends, where they
    /// lie: nothing is copied or decoded.
    ///
    /// Commits wait for `f`, which must not use the store, as in [`Engine::read`]. Long walks are
    /// for [`range`](Self::range).
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const PAGES: Table<str, [u8]> = Table::new("pages");
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// let pages = store.table(PAGES);
    /// pages.put("home", b"<html>")?;
    /// pages.put("news", b"<html><body>")?;
    /// let bytes = pages.with_range("a".., |entries| entries.map(|(_, page)| page.len()).sum::<usize>())?;
    /// assert_eq!(bytes, 18);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_range<T>(&self, range: impl KeyRange<K>, f: impl FnOnce(KvRange<'_>) -> T) -> Result<T> {
        let span = span_of(self.name(), &range);
        self.read_span(&span, How::SHARED, |kv| f(kv.entries(&span)))
    }

    pub(super) fn whole(&self) -> KvSpan {
        KvSpan::of_prefix(self.name(), &[])
    }

    fn read_span<T>(&self, span: &KvSpan, how: How, read: impl FnOnce(&Kv) -> T) -> Result<T> {
        self.types.read::<S, K, V, T>(&self.source, self.name(), || self.source.read_span(Span(span), how, read))
    }

    pub(super) fn decode_entry(&self, key: &[u8], value: Vec<u8>) -> Result<(K::Owned, V::Owned)> {
        let key = K::decode(key).map_err(|error| self.table.undecodable_key(&error))?;
        Ok((key, self.decode_value(value)?))
    }

    pub(super) fn decode_value(&self, bytes: Vec<u8>) -> Result<V::Owned> {
        V::decode_vec(bytes).map_err(|error| self.table.undecodable_value(&error))
    }
}

/// Only the store's handle has these.
impl<K: Key + ?Sized, V: Value + ?Sized> TableHandle<Engine<Kv>, K, V> {
    /// The value of a key, at once, though a crash may take it back.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn get_latest(&self, key: &K) -> Result<Option<V::Owned>> {
        self.get_as(key, How::LATEST)
    }
}

/// Only the handle of a transaction has these.
impl<K: Key + ?Sized, V: Value + ?Sized> TableHandle<&Transaction<Kv>, K, V> {
    /// The value of a key, for a change that depends on it. Locks the key, exclusively, to the end.
    ///
    /// If two transactions [`get`](Self::get) a key and then write it, each waits for the other to
    /// end its read: always a deadlock, and one of them runs again. With this read the second one
    /// waits.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn get_for_update(&self, key: &K) -> Result<Option<V::Owned>> {
        self.get_as(key, How::EXCLUSIVE)
    }
}
