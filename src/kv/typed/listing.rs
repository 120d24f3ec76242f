//! The tables of a store, with their types.

use super::types::TypeRecord;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::kv::keys::TYPES_TABLE;

/// A table of a store. Returned by [`Engine::tables`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// The names of the types of its keys and values; `None` if no handle has written it.
    pub types: Option<(String, String)>,
}

impl Engine<Kv> {
    /// Lists the tables that hold a key, in the order of their names, with their types.
    ///
    /// # Errors
    /// As [`Engine::view`]; [`Error::Undecodable`] if a newer program has recorded the types.
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const AGES: Table<str, u32> = Table::new("ages");
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// store.table(AGES).put("ann", &42)?;
    /// let tables = store.tables()?;
    /// assert_eq!(tables[0].name, "ages");
    /// assert_eq!(tables[0].types, Some(("str".into(), "u32".into())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        let view = self.view()?;
        let describe = |name: &str| {
            let record = view.get(TYPES_TABLE, name).map(TypeRecord::decode).transpose();
            let record = record.map_err(|error| Error::undecodable(name, "record of the types", "", &error))?;
            Ok(TableInfo { name: name.to_owned(), types: record.map(|record| (record.key, record.value)) })
        };
        view.tables().map(describe).collect()
    }
}
