//! Typed tables: one vocabulary for the store, its transactions and its views.
//!
//! A [`Table`] is a constant that names a table and its types. [`TableHandle`] reads and writes it
//! through a store, a transaction or a state.
//!
//! | file | contents |
//! | --- | --- |
//! | `definition` | [`Table`] |
//! | `key`, `key_parts`, `key_range` | [`Key`] and its encodings; keys of several parts; ranges of keys |
//! | `value`, `serde_value` | [`Value`]; values that derive serde's traits |
//! | `types` | the record of a table's types, and its comparison with those of a handle |
//! | `type_check` | what a handle knows about that record |
//! | `open` | how a store, a transaction or a state opens a table |
//! | `source` | what handles read and write through |
//! | `handle`, `writes`, `iter` | [`TableHandle`]: reads, writes; its iterator |
//! | `listing` | the tables of a store with their types |

mod definition;
mod handle;
mod iter;
mod key;
mod key_parts;
mod key_range;
#[cfg(test)]
mod key_tests;
mod listing;
mod open;
#[cfg(feature = "serde")]
mod serde_name;
#[cfg(feature = "serde")]
mod serde_value;
mod source;
mod type_check;
mod types;
mod value;
mod writes;

pub use definition::Table;
pub use handle::TableHandle;
pub use iter::TableIter;
pub use key::Key;
pub use key_range::{KeyPrefix, KeyRange};
pub use listing::TableInfo;
pub use source::{ReadSource, WriteSource};
pub use value::Value;
