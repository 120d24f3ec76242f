//! The built-in machine's engine, with the ergonomics of a shared ordered map.

use crate::durability::ReadLevel;
use crate::engine::{Engine, Transaction};
use crate::error::Result;
use crate::io::sync::Runs;
use crate::kv::range::{KvPiece, KvSpan};
use crate::kv::tree::End;
use crate::kv::{Kv, KvCommand, KvRange, KvRejection, KvReply};
use crate::machine::{Access, Footprint};
use std::fmt;
use std::ops::RangeBounds;

/// A result of the key-value engine.
type KvResult<T> = crate::engine::ExecuteResult<Kv, T>;

pub(super) fn previous(reply: KvReply) -> Option<Vec<u8>> {
    match reply {
        KvReply::Previous(value) => value,
        KvReply::Batch(_) => None,
    }
}

/// Reads and writes of the default table; [`Engine::raw_table`] gives the others.
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
/// let fruit = store.raw_table("fruit");
/// fruit.insert("fig", "purple")?;
/// assert!(!store.contains_key("fig")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Engine<Kv> {
    /// A table of bytes. [`table`](Self::table) opens one with types. It exists exactly while it holds
    /// a key.
    pub fn raw_table(&self, name: impl Into<String>) -> RawTable {
        RawTable { engine: self.clone(), name: name.into() }
    }

    /// The value of a key, once what it shows has hardened.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        get_in(self, Kv::DEFAULT_TABLE, key.as_ref(), ReadLevel::Hardened)
    }

    /// Hands the value of a key to `f`, where it lies: nothing is copied. What `f` returns leaves
    /// once what it saw has hardened.
    ///
    /// Commits wait for `f`, which must not use the engine, as in [`Engine::read`].
    ///
    /// # Errors
    /// As [`Engine::read`].
    ///
    /// ```
    /// # use seawal::{Engine, kv::Kv};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Engine::<Kv>::open(dir.path())?;
    /// store.insert("pear", "green")?;
    /// assert_eq!(store.with_value("pear", |value| value.len())?, Some(5));
    /// assert_eq!(store.with_value("plum", |value| value.len())?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_value<T>(&self, key: impl AsRef<[u8]>, f: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        with_value(self, Kv::DEFAULT_TABLE, key.as_ref(), f)
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
        frozen_in(self, KvSpan::of_range(Kv::DEFAULT_TABLE, &range))
    }

    /// The entries whose keys start with `prefix`, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<KvIter> {
        frozen_in(self, KvSpan::of_prefix(Kv::DEFAULT_TABLE, prefix.as_ref()))
    }

    /// Hands the entries of a range of keys to `f`, in order, where they lie: nothing is copied.
    /// They are as at one moment, and what `f` returns leaves once what it saw has hardened.
    ///
    /// Commits wait for `f`, which must not use the engine, as in [`Engine::read`]. Long walks are
    /// for [`range`](Self::range), or for a
    /// [view](Engine::view).
    ///
    /// # Errors
    /// As [`Engine::read`].
    ///
    /// ```
    /// # use seawal::{Engine, kv::Kv};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Engine::<Kv>::open(dir.path())?;
    /// for (fruit, weight) in [("apple", [90]), ("pear", [120]), ("plum", [30])] {
    ///     store.insert(fruit, weight)?;
    /// }
    /// let weight = |(_, value): (&[u8], &[u8])| u32::from(value[0]);
    /// assert_eq!(store.with_range("b".., |entries| entries.take(100).map(weight).sum::<u32>())?, 150);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_range<K: AsRef<[u8]> + ?Sized, T>(
        &self,
        range: impl RangeBounds<K>,
        f: impl FnOnce(KvRange<'_>) -> T,
    ) -> Result<T> {
        with_entries(self, &KvSpan::of_range(Kv::DEFAULT_TABLE, &range), f)
    }

    /// The same for the entries whose keys start with `prefix`.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn with_prefix<T>(&self, prefix: impl AsRef<[u8]>, f: impl FnOnce(KvRange<'_>) -> T) -> Result<T> {
        with_entries(self, &KvSpan::of_prefix(Kv::DEFAULT_TABLE, prefix.as_ref()), f)
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

/// A named table of bytes, cheap to clone.
#[derive(Clone, Debug)]
pub struct RawTable {
    engine: Engine<Kv>,
    name: String,
}

impl RawTable {
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

    /// Hands the value of a key to `f`, where it lies: nothing is copied. What `f` returns leaves
    /// once what it saw has hardened.
    ///
    /// Commits wait for `f`, which must not use the engine, as in [`Engine::read`].
    ///
    /// # Errors
    /// As [`Engine::read`].
    ///
    /// ```
    /// # use seawal::{Engine, kv::Kv};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Engine::<Kv>::open(dir.path())?.raw_table("fruit");
    /// store.insert("pear", "green")?;
    /// assert_eq!(store.with_value("pear", |value| value.len())?, Some(5));
    /// assert_eq!(store.with_value("plum", |value| value.len())?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_value<T>(&self, key: impl AsRef<[u8]>, f: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        with_value(&self.engine, &self.name, key.as_ref(), f)
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
        frozen_in(&self.engine, KvSpan::of_range(&self.name, &range))
    }

    /// The entries whose keys start with `prefix`, in order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<KvIter> {
        frozen_in(&self.engine, KvSpan::of_prefix(&self.name, prefix.as_ref()))
    }

    /// Hands the entries of a range of keys to `f`, in order, where they lie: nothing is copied.
    /// They are as at one moment, and what `f` returns leaves once what it saw has hardened.
    ///
    /// Commits wait for `f`, which must not use the engine, as in [`Engine::read`]. Long walks are
    /// for [`range`](Self::range), or for a
    /// [view](Engine::view).
    ///
    /// # Errors
    /// As [`Engine::read`].
    ///
    /// ```
    /// # use seawal::{Engine, kv::Kv};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Engine::<Kv>::open(dir.path())?.raw_table("fruit");
    /// for (fruit, weight) in [("apple", [90]), ("pear", [120]), ("plum", [30])] {
    ///     store.insert(fruit, weight)?;
    /// }
    /// let weight = |(_, value): (&[u8], &[u8])| u32::from(value[0]);
    /// assert_eq!(store.with_range("b".., |entries| entries.take(100).map(weight).sum::<u32>())?, 150);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_range<K: AsRef<[u8]> + ?Sized, T>(
        &self,
        range: impl RangeBounds<K>,
        f: impl FnOnce(KvRange<'_>) -> T,
    ) -> Result<T> {
        with_entries(&self.engine, &KvSpan::of_range(&self.name, &range), f)
    }

    /// The same for the entries whose keys start with `prefix`.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn with_prefix<T>(&self, prefix: impl AsRef<[u8]>, f: impl FnOnce(KvRange<'_>) -> T) -> Result<T> {
        with_entries(&self.engine, &KvSpan::of_prefix(&self.name, prefix.as_ref()), f)
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
    value_in(engine, table, key, (level, Runs::OwnCode), <[u8]>::to_vec)
}

fn with_value<T>(engine: &Engine<Kv>, table: &str, key: &[u8], f: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
    value_in(engine, table, key, (ReadLevel::Hardened, Runs::UserCode), f)
}

fn value_in<T>(
    engine: &Engine<Kv>,
    table: &str,
    key: &[u8],
    (level, runs): (ReadLevel, Runs),
    f: impl FnOnce(&[u8]) -> T,
) -> Result<Option<T>> {
    let read = Kv::with_lock_key(table, key, |composite| {
        engine.read_key(composite, level, runs, |kv| kv.at_lock_key(composite).map(f))
    });
    read.unwrap_or(Ok(None))
}

fn contains_in(engine: &Engine<Kv>, table: &str, key: &[u8]) -> Result<bool> {
    let read = Kv::with_lock_key(table, key, |composite| {
        engine.read_key(composite, ReadLevel::Hardened, Runs::OwnCode, |kv| kv.at_lock_key(composite).is_some())
    });
    read.unwrap_or(Ok(false))
}

fn with_entries<T>(engine: &Engine<Kv>, span: &KvSpan, f: impl FnOnce(KvRange<'_>) -> T) -> Result<T> {
    engine.read_span(|| span.footprint(Access::Shared), ReadLevel::Hardened, Runs::UserCode, |kv| f(kv.entries(span)))
}

fn frozen_in(engine: &Engine<Kv>, span: KvSpan) -> Result<KvIter> {
    let frozen = engine.read_span(|| span.footprint(Access::Shared), ReadLevel::Hardened, Runs::OwnCode, Kv::clone)?;
    Ok(KvIter::new(frozen, span))
}

/// Entries of a table, keys and values, as they were at one moment; from both ends.
///
/// It keeps a frozen copy of the state, which costs nothing but the copying of what is changed
/// meanwhile.
pub struct KvIter {
    frozen: Kv,
    /// What neither end has taken out yet.
    rest: KvSpan,
    /// Entries taken out, each end's own.
    front: Option<KvPiece>,
    back: Option<KvPiece>,
}

impl KvIter {
    pub(super) fn new(frozen: Kv, rest: KvSpan) -> Self {
        KvIter { frozen, rest, front: None, back: None }
    }

    fn pop(&mut self, end: End) -> Option<(Vec<u8>, Vec<u8>)> {
        self.pop_with(end, |key, value| (key.to_vec(), value.to_vec()))
    }

    /// Removes the entry at one end and returns what `f` makes of it.
    pub(super) fn pop_with<R>(&mut self, end: End, f: impl Fn(&[u8], &[u8]) -> R) -> Option<R> {
        let (own, other) = match end {
            End::Front => (&mut self.front, &mut self.back),
            End::Back => (&mut self.back, &mut self.front),
        };
        if let Some(entry) = own.as_mut().and_then(|piece| piece.pop(end, &f)) {
            return Some(entry);
        }
        *own = self.frozen.take_piece(&mut self.rest, end);
        // what the other end took out is what is left
        let piece = if own.is_some() { own } else { other };
        piece.as_mut()?.pop(end, &f)
    }
}

impl Iterator for KvIter {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        self.pop(End::Front)
    }
}

impl DoubleEndedIterator for KvIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.pop(End::Back)
    }
}

impl fmt::Debug for KvIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvIter").field("rest", &self.rest).finish_non_exhaustive()
    }
}

/// Reads and writes of a transaction, in the default table and, with `_in`, in others.
impl Transaction<Kv> {
    /// The value of a key as this transaction sees it. Locks the key, shared, to the end.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_in(Kv::DEFAULT_TABLE, key)
    }

    /// The value of a key of a table.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn get_in(&self, table: &str, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_locked(Access::Shared, table, key.as_ref())
    }

    /// The value of a key as this transaction sees it, for a change that depends on it. Locks the
    /// key, exclusively, to the end.
    ///
    /// If two transactions [`get`](Self::get) a key and then write it, each waits for the other to
    /// end its read: always a deadlock, and one of them runs again. With this read the second one
    /// waits.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    ///
    /// ```
    /// # use seawal::{Engine, kv::Kv};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Engine::<Kv>::open(dir.path())?;
    /// store.transact(|tx| {
    ///     let visits = tx.get_for_update("visits")?.map_or(0, |value| value[0]);
    ///     tx.insert("visits", [visits + 1])
    /// })?;
    /// assert_eq!(store.get("visits")?.as_deref(), Some(&[1][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_for_update_in(Kv::DEFAULT_TABLE, key)
    }

    /// The value of a key of a table, for a change that depends on it; see
    /// [`get_for_update`](Self::get_for_update).
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn get_for_update_in(&self, table: &str, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_locked(Access::Exclusive, table, key.as_ref())
    }

    fn get_locked(&self, access: Access, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let footprint = Kv::with_lock_key(table, key, |composite| Footprint::key(access, composite));
        let Some(footprint) = footprint else { return Ok(None) };
        self.read_within(&footprint, |kv| kv.get(table, key).map(<[u8]>::to_vec))
    }

    /// Sets a key. Returns its previous value.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn insert(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.insert_in(Kv::DEFAULT_TABLE, key, value)
    }

    /// Sets a key of a table. Returns its previous value.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn insert_in(
        &self,
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
    pub fn remove(&self, key: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.remove_in(Kv::DEFAULT_TABLE, key)
    }

    /// Removes a key of a table. Returns its previous value.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn remove_in(&self, table: &str, key: impl Into<Vec<u8>>) -> KvResult<Option<Vec<u8>>> {
        self.execute(KvCommand::delete(table, key)).map(previous)
    }

    /// The entries of a range of keys of a table as this transaction sees them. Locks the range,
    /// shared, to the end: no key appears in it that was not there.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn range_in<K: AsRef<[u8]> + ?Sized>(&self, table: &str, range: impl RangeBounds<K>) -> Result<KvIter> {
        self.frozen_in(KvSpan::of_range(table, &range))
    }

    /// The entries of a table whose keys start with `prefix`, as this transaction sees them. Locks
    /// them, present or not, shared, to the end.
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn prefix_in(&self, table: &str, prefix: impl AsRef<[u8]>) -> Result<KvIter> {
        self.frozen_in(KvSpan::of_prefix(table, prefix.as_ref()))
    }

    fn frozen_in(&self, span: KvSpan) -> Result<KvIter> {
        let frozen = self.read_within(&span.footprint(Access::Shared), Kv::clone)?;
        Ok(KvIter::new(frozen, span))
    }
}

impl From<KvRejection> for crate::engine::ExecuteError<KvRejection> {
    fn from(rejection: KvRejection) -> Self {
        crate::engine::ExecuteError::Rejected(rejection)
    }
}
