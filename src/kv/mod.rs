//! The built-in ordered key-value machine.
//!
//! [`Kv`] is an ordered map from bytes to bytes, in named tables. All tables lie in one
//! copy-on-write tree, so a clone costs nothing, and so do the snapshots and views that rest on
//! clones. A table exists exactly while it holds a key. No command creates or drops a table, so no
//! inverse can drop rows of another transaction.
//!
//! The machine knows nothing of logs, locks or transactions. It uses several threads to merge and
//! save large states.
//!
//! | file | contents |
//! | --- | --- |
//! | `machine` | [`Kv`]: its reads, and its implementation of the machine's traits |
//! | `command`, `codec`, `limits` | commands and replies, their encoding, and what is too long |
//! | `keys`, `range` | how tables and keys are named in the state; reading ranges and tables |
//! | `tree` | the copy-on-write tree that holds the state |
//! | `snapshot`, `parallel_save` | the encoding of a whole state, with one thread or several |
//! | `redo_buffer` | redoing many commands at once |
//! | `typed` | tables with types, in a store, a transaction or a state |
//! | `store` | tables of bytes, on top of the engine |

mod codec;
mod command;
mod keys;
mod limits;
mod machine;
mod parallel_save;
mod range;
mod redo_buffer;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod typed;

pub use command::{KvCommand, KvRejection, KvReply, MAX_BATCH_DEPTH, MAX_KEY_LEN, MAX_TABLE_LEN, MAX_VALUE_LEN};
pub use machine::Kv;
pub use range::{KvRange, KvTables};
pub use store::{KvIter, RawTable};
pub use typed::{Key, KeyPrefix, KeyRange, ReadSource, Table, TableHandle, TableInfo, TableIter, Value, WriteSource};
