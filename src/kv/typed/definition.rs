//! The definition of a table: its name and its types.

use super::key::Key;
use super::value::Value;
use crate::error::Error;
use crate::machine::DecodeError;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// The name of a table and the types of its keys and values.
///
/// Make it a constant, and open it with [`Engine::table`](crate::Engine::table),
/// [`Transaction::table`](crate::Transaction::table) or [`Kv::table`](crate::kv::Kv::table). A table
/// needs no creation: it exists exactly while it holds a key.
///
/// `K` implements [`Key`](super::Key), and `V` implements [`Value`](super::Value).
///
/// # Names
///
/// A name has at most [`MAX_TABLE_LEN`](crate::kv::MAX_TABLE_LEN) bytes and no NUL, and does not begin
/// with the character U+0001, which the store reserves. The empty name is the default table of
/// [`Kv`](crate::kv::Kv). Other names are refused by the first operation.
///
/// # Types
///
/// The first write through a handle records the names of the types in the store, and the shape of
/// values that derive serde's traits. A handle with other types is refused by its first operation,
/// with [`Error::OtherTypes`](crate::Error::OtherTypes). The record stays when the table is emptied.
///
/// ```
/// use seawal::{Store, Table};
///
/// const AGES: Table<str, u64> = Table::new("ages");
///
/// let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path())?;
/// store.table(AGES).insert("ann", &42)?;
/// assert_eq!(store.table(AGES).get("ann")?, Some(42));
///
/// const NAMES: Table<u64, str> = Table::new("ages");
/// let error = store.table(NAMES).get(&42).unwrap_err();
/// assert!(error.is_other_types());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Table<K: ?Sized, V: ?Sized> {
    name: Cow<'static, str>,
    types: PhantomData<fn(&K) -> &V>,
}

impl<K: ?Sized, V: ?Sized> Table<K, V> {
    /// A table with a constant name.
    pub const fn new(name: &'static str) -> Self {
        Table { name: Cow::Borrowed(name), types: PhantomData }
    }

    /// A table with a name that is made at run time.
    ///
    /// ```
    /// use seawal::Table;
    /// let tenant: Table<u64, str> = Table::named(format!("tenant/{}", 7));
    /// assert_eq!(tenant.name(), "tenant/7");
    /// ```
    pub fn named(name: impl Into<String>) -> Self {
        Table { name: Cow::Owned(name.into()), types: PhantomData }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<K: Key + ?Sized, V: Value + ?Sized> Table<K, V> {
    #[cold]
    pub(super) fn undecodable_key(&self, error: &DecodeError) -> Error {
        Error::undecodable(&self.name, "key", &K::type_name(), error)
    }

    #[cold]
    pub(super) fn undecodable_value(&self, error: &DecodeError) -> Error {
        Error::undecodable(&self.name, "value", &V::type_name(), error)
    }
}

impl<K: ?Sized, V: ?Sized> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Table { name: self.name.clone(), types: PhantomData }
    }
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}
