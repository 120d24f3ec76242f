//! The built-in machine's engine, with the ergonomics of a shared ordered map.

use super::{Engine, ReadLevel, Transaction};
use crate::error::Result;
use crate::kv::{Kv, KvCommand, KvRejection, KvReply};
use crate::machine::{Access, Footprint};
use std::fmt;
use std::ops::{Bound, RangeBounds};

/// How many entries an iterator takes out of its frozen state at once.
const ENTRIES_AHEAD: usize = 128;

/// A result of the key-value engine.
type KvResult<T> = super::ExecuteResult<Kv, T>;

fn previous(reply: KvReply) -> Option<Vec<u8>> {
    match reply {
        KvReply::Previous(value) => value,
        KvReply::Batch(_) => None,
    }
}

/// Reads and writes of the default table; [`Engine::table`] gives the others.
///
/// Writes survive power loss when they return, unless the store was opened with another durability.
///
/// ```
/// use seawal::{Engine, kv::Kv};
///
/// let dir = tempfile::tempdir()?;
/// let store = Engine::<Kv>::open(dir.path())?;
/// assert_eq!(store.insert("pear", "green")?, None);
/// store.insert("apple", "red")?;
/// assert_eq!(store.get("apple")?.as_deref(), Some(&b"red"[..]));
/// let keys: Vec<_> = store.range("b"..)?.map(|(key, _)| key).collect();
/// assert_eq!(keys, [b"pear".to_vec()]);
/// assert_eq!(store.remove("apple")?.as_deref(), Some(&b"red"[..]));
///
/// let fruit = store.table("fruit");
/// fruit.insert("fig", "purple")?;
/// assert!(!store.contains_key("fig")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Engine<Kv> {
    /// A table of the store. It exists exactly while it holds a key.
    pub fn table(&self, name: impl Into<String>) -> Table {
        Table { engine: self.clone(), name: name.into() }
    }

    /// The value of a key, once what it shows has hardened.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        get_in(self, Kv::DEFAULT_TABLE, key.as_ref(), ReadLevel::Hardened)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        contains_in(self, Kv::DEFAULT_TABLE, key.as_ref())
    }

    /// Sets a key. Returns its previous value.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub fn insert(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.execute(KvCommand::put(Kv::DEFAULT_TABLE, key, value)).map(previous)
    }

    /// Removes a key. Returns its previous value.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub fn remove(&self, key: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.execute(KvCommand::delete(Kv::DEFAULT_TABLE, key)).map(previous)
    }

    /// The entries of a range of keys, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Result<KvIter> {
        range_in(self, Kv::DEFAULT_TABLE, range)
    }

    /// The entries whose keys start with `prefix`, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<KvIter> {
        prefix_in(self, Kv::DEFAULT_TABLE, prefix.as_ref())
    }

    /// All entries, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn iter(&self) -> Result<KvIter> {
        self.range::<[u8]>(..)
    }

    /// Carries out several commands as one: all of them or none.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub fn batch(&self, commands: impl IntoIterator<Item = KvCommand>) -> KvResult<Vec<KvReply>> {
        match self.execute(KvCommand::batch(commands))? {
            KvReply::Batch(replies) => Ok(replies),
            reply => Ok(vec![reply]),
        }
    }
}

/// A named table of a key-value store, cheap to clone.
#[derive(Clone, Debug)]
pub struct Table {
    engine: Engine<Kv>,
    name: String,
}

impl Table {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a key, once what it shows has hardened.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        get_in(&self.engine, &self.name, key.as_ref(), ReadLevel::Hardened)
    }

    /// The value of a key, at once, though it may not have hardened.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn get_latest(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        get_in(&self.engine, &self.name, key.as_ref(), ReadLevel::Latest)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        contains_in(&self.engine, &self.name, key.as_ref())
    }

    /// Sets a key. Returns its previous value.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub fn insert(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.engine.execute(KvCommand::put(&*self.name, key, value)).map(previous)
    }

    /// Removes a key. Returns its previous value.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub fn remove(&self, key: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.engine.execute(KvCommand::delete(&*self.name, key)).map(previous)
    }

    /// Sets a key to `new`, or removes it where that is `None`, if it holds `expected` now.
    ///
    /// # Errors
    /// [`KvRejection::Mismatch`] with what it holds; as [`Engine::execute`].
    pub fn compare_and_set(
        &self,
        key: impl Into<Vec<u8>>,
        expected: Option<Vec<u8>>,
        new: Option<Vec<u8>>,
    ) -> KvResult<()> {
        let command = KvCommand::CompareAndSet { table: self.name.clone(), key: key.into(), expected, new };
        self.engine.execute(command).map(|_| ())
    }

    /// The entries of a range of keys, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Result<KvIter> {
        range_in(&self.engine, &self.name, range)
    }

    /// The entries whose keys start with `prefix`, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<KvIter> {
        prefix_in(&self.engine, &self.name, prefix.as_ref())
    }

    /// All entries, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn iter(&self) -> Result<KvIter> {
        self.range::<[u8]>(..)
    }
}

fn get_in(engine: &Engine<Kv>, table: &str, key: &[u8], level: ReadLevel) -> Result<Option<Vec<u8>>> {
    let read = Kv::with_lock_key(table, key, |composite| {
        engine.shared().read_key(composite, level, |kv| kv.at_lock_key(composite).map(<[u8]>::to_vec))
    });
    read.unwrap_or(Ok(None))
}

fn contains_in(engine: &Engine<Kv>, table: &str, key: &[u8]) -> Result<bool> {
    let read = Kv::with_lock_key(table, key, |composite| {
        engine.shared().read_key(composite, ReadLevel::Hardened, |kv| kv.at_lock_key(composite).is_some())
    });
    read.unwrap_or(Ok(false))
}

fn range_in<K: AsRef<[u8]> + ?Sized>(engine: &Engine<Kv>, table: &str, range: impl RangeBounds<K>) -> Result<KvIter> {
    let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
    let bounds = (owned(range.start_bound()), owned(range.end_bound()));
    let footprint = Kv::range_footprint(table, range);
    let frozen = engine.read_within(&footprint, ReadLevel::Hardened, Kv::clone)?;
    Ok(KvIter::new(frozen, table, bounds))
}

fn prefix_in(engine: &Engine<Kv>, table: &str, prefix: &[u8]) -> Result<KvIter> {
    let footprint = Kv::prefix_footprint(table, prefix);
    let frozen = engine.read_within(&footprint, ReadLevel::Hardened, Kv::clone)?;
    Ok(KvIter::new(frozen, table, prefix_bounds(prefix)))
}

type KeyBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The bounds of all keys that start with `prefix`.
fn prefix_bounds(prefix: &[u8]) -> KeyBounds {
    let mut behind = prefix.to_vec();
    while behind.last() == Some(&u8::MAX) {
        behind.pop();
    }
    let end = match behind.last_mut() {
        Some(last) => {
            *last = last.saturating_add(1);
            Bound::Excluded(behind)
        }
        None => Bound::Unbounded,
    };
    (Bound::Included(prefix.to_vec()), end)
}

/// Entries of a table, keys and values, as they were at one moment; from both ends.
///
/// It keeps a frozen copy of the state, which costs nothing but the copying of what is changed meanwhile.
pub struct KvIter {
    frozen: Kv,
    table: String,
    bounds: KeyBounds,
    /// Entries taken out ahead: from the front in reverse, from the back in order, so that both are popped.
    front: Vec<(Vec<u8>, Vec<u8>)>,
    back: Vec<(Vec<u8>, Vec<u8>)>,
}

impl KvIter {
    fn new(frozen: Kv, table: &str, bounds: KeyBounds) -> Self {
        KvIter { frozen, table: table.into(), bounds, front: Vec::new(), back: Vec::new() }
    }

    fn is_void(&self) -> bool {
        match (&self.bounds.0, &self.bounds.1) {
            (Bound::Included(s), Bound::Included(e)) => s > e,
            (Bound::Included(s) | Bound::Excluded(s), Bound::Excluded(e))
            | (Bound::Excluded(s), Bound::Included(e)) => s >= e,
            _ => false,
        }
    }
}

impl Iterator for KvIter {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.front.is_empty() && !self.is_void() {
            let entries = self.frozen.range::<Vec<u8>>(&self.table, self.bounds.clone()).take(ENTRIES_AHEAD);
            self.front.extend(entries.map(|(key, value)| (key.to_vec(), value.to_vec())));
            if let Some((last, _)) = self.front.last() {
                self.bounds.0 = Bound::Excluded(last.clone());
            }
            self.front.reverse();
        }
        match self.front.pop() {
            Some(entry) => Some(entry),
            // what the other end took out ahead is what is left
            None if self.back.is_empty() => None,
            None => Some(self.back.remove(0)),
        }
    }
}

impl DoubleEndedIterator for KvIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.is_empty() && !self.is_void() {
            let entries = self.frozen.range::<Vec<u8>>(&self.table, self.bounds.clone()).rev().take(ENTRIES_AHEAD);
            self.back.extend(entries.map(|(key, value)| (key.to_vec(), value.to_vec())));
            if let Some((first, _)) = self.back.last() {
                self.bounds.1 = Bound::Excluded(first.clone());
            }
            self.back.reverse();
        }
        match self.back.pop() {
            Some(entry) => Some(entry),
            None if self.front.is_empty() => None,
            None => Some(self.front.remove(0)),
        }
    }
}

impl fmt::Debug for KvIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvIter").field("table", &self.table).field("bounds", &self.bounds).finish()
    }
}

/// Reads and writes of a transaction, in the default table and, with `_in`, in others.
impl Transaction<Kv> {
    /// The value of a key as this transaction sees it. Locks the key, shared, to the end.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_in(Kv::DEFAULT_TABLE, key)
    }

    /// The value of a key of a table.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn get_in(&mut self, table: &str, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let key = key.as_ref();
        let footprint = Kv::with_lock_key(table, key, |composite| Footprint::key(Access::Shared, composite));
        let Some(footprint) = footprint else { return Ok(None) };
        self.read_within(&footprint, |kv| kv.get(table, key).map(<[u8]>::to_vec))
    }

    /// Sets a key. Returns its previous value.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn insert(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.insert_in(Kv::DEFAULT_TABLE, key, value)
    }

    /// Sets a key of a table. Returns its previous value.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn insert_in(
        &mut self,
        table: &str,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> KvResult<Option<Vec<u8>>> {
        self.execute(KvCommand::put(table, key, value)).map(previous)
    }

    /// Removes a key. Returns its previous value.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.remove_in(Kv::DEFAULT_TABLE, key)
    }

    /// Removes a key of a table. Returns its previous value.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn remove_in(&mut self, table: &str, key: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.execute(KvCommand::delete(table, key)).map(previous)
    }

    /// The entries of a range of keys of a table as this transaction sees them. Locks the range, shared, to the end: no key appears
    /// in it that was not there.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn range_in<K: AsRef<[u8]> + ?Sized>(&mut self, table: &str, range: impl RangeBounds<K>) -> Result<KvIter> {
        let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let bounds = (owned(range.start_bound()), owned(range.end_bound()));
        let footprint = Kv::range_footprint(table, range);
        let frozen = self.read_within(&footprint, Kv::clone)?;
        Ok(KvIter::new(frozen, table, bounds))
    }

    /// The entries of a table whose keys start with `prefix`, as this transaction sees them. Locks them, present or not, shared, to the
    /// end.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn prefix_in(&mut self, table: &str, prefix: impl AsRef<[u8]>) -> Result<KvIter> {
        let prefix = prefix.as_ref();
        let frozen = self.read_within(&Kv::prefix_footprint(table, prefix), Kv::clone)?;
        Ok(KvIter::new(frozen, table, prefix_bounds(prefix)))
    }
}

impl From<KvRejection> for super::ExecuteError<KvRejection> {
    fn from(rejection: KvRejection) -> Self {
        super::ExecuteError::Rejected(rejection)
    }
}
