//! How a store, a transaction or a state opens a table.

use super::definition::Table;
use super::handle::TableHandle;
use super::key::Key;
use super::value::Value;
use crate::engine::{Engine, Transaction};
use crate::kv::Kv;

impl Engine<Kv> {
    /// Opens a table. The handle is cheap to clone and may be shared between threads.
    ///
    /// It looks the types of the table up, and waits for nothing. Its first operation fails if the
    /// table has other types.
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const AGES: Table<str, u32> = Table::new("ages");
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = Store::open(dir.path())?;
    /// let ages = store.table(AGES);
    /// ages.insert("ann", &42)?; // survives power loss from here on
    /// assert_eq!(ages.get("ann")?, Some(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn table<K: Key + ?Sized, V: Value + ?Sized>(&self, table: Table<K, V>) -> TableHandle<Engine<Kv>, K, V> {
        TableHandle::new(self.clone(), table)
    }
}

impl Transaction<Kv> {
    /// Opens a table within this transaction.
    ///
    /// Reads lock what they read, shared, to the end of the transaction, and writes lock what they
    /// write, exclusively.
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const VISITS: Table<str, u64> = Table::new("visits");
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// store.transact(|tx| {
    ///     let visits = tx.table(VISITS);
    ///     let count = visits.get_for_update("home")?.unwrap_or(0);
    ///     visits.put("home", &(count + 1))
    /// })?;
    /// assert_eq!(store.table(VISITS).get("home")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn table<K: Key + ?Sized, V: Value + ?Sized>(&self, table: Table<K, V>) -> TableHandle<&Self, K, V> {
        TableHandle::new(self, table)
    }
}

impl Kv {
    /// Opens a table of this state, for reading. That of a [`View`](crate::View) is a state too.
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const AGES: Table<str, u32> = Table::new("ages");
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// store.table(AGES).insert("ann", &42)?;
    /// let view = store.view()?;
    /// store.table(AGES).insert("ann", &43)?;
    /// assert_eq!(view.table(AGES).get("ann")?, Some(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn table<K: Key + ?Sized, V: Value + ?Sized>(&self, table: Table<K, V>) -> TableHandle<&Self, K, V> {
        TableHandle::new(self, table)
    }
}
