//! An in-memory state machine made durable by a write-ahead log.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod engine;
mod error;
pub mod format;
pub mod inspect;
pub mod kv;
pub mod machine;
mod options;
mod recovery;
pub mod sim;
mod snapshot;
pub mod storage;
mod sync;
mod txn;
pub mod wal;

pub use engine::{
    Engine, ExecuteError, ExecuteResult, KvIter, ReadLevel, Savepoint, Stats, Step, Table, Ticket, Transaction, View,
};
pub use error::{Error, Result};
pub use machine::StateMachine;
pub use options::{Durability, Options};
pub use recovery::{Phase, Phases, Progress, RecoveryPolicy, RecoveryReport, Verdict};
pub use wal::Background;
