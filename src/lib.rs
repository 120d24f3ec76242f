//! An in-memory state machine made durable by a write-ahead log.

mod error;
pub mod format;
pub mod kv;
pub mod machine;
pub mod sim;
pub mod storage;
mod sync;
mod txn;
pub mod wal;

pub use error::{Error, Result};
