//! An in-memory state machine made durable by a write-ahead log.
//!
//! A state lives in memory, as an ordinary Rust value. Commands change it, one after the other; each is written to a log, and
//! answered once it survives power loss. Snapshots keep the log short. After a crash the newest snapshot is loaded, the log behind
//! it is replayed, and what had not been committed is undone.
//!
//! ```
//! use seawal::{Engine, kv::Kv};
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path();
//! let store = Engine::<Kv>::open(path)?; // recovers what is there, or creates it
//! store.insert("apple", "red")?; // survives power loss from here on
//! store.transact(|tx| {
//!     tx.insert("pear", "green")?;
//!     tx.remove("apple")?;
//!     Ok(())
//! })?;
//! drop(store); // a crash would do no harm
//!
//! let store = Engine::<Kv>::open(path)?;
//! assert_eq!(store.get("pear")?.as_deref(), Some(&b"green"[..]));
//! assert_eq!(store.get("apple")?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! - [`Engine`] is an open store: [`execute`](Engine::execute) a command, [`begin`](Engine::begin) a transaction or run one with
//!   [`transact`](Engine::transact), [`read`](Engine::read), take a [`view`](Engine::view), a [`checkpoint`](Engine::checkpoint), a
//!   [backup](Engine::backup_to). [`Options`] says how it is opened, [`Durability`] what a commit survives, and [`RecoveryReport`] what
//!   opening it found.
//! - [`kv::Kv`] is the built-in machine: an ordered map from bytes to bytes, in named tables.
//! - [`StateMachine`] is what to implement for a state of your own; its documentation has the law that it keeps.
//!   With the feature `serde`, `machine::SerdeMachine` derives the encodings.
//! - [`Error`] tells apart what a program may want to tell apart: a conflict to try again, a full disk to go on from, a latched
//!   log to reopen, damage to look at.
//! - [`sim`] is a disk that crashes on demand, to see what your program makes of it; [`sim::explore`] crashes your machine, or the
//!   built-in one, at every operation and checks what is recovered.
//! - [`inspect`] shows and verifies the files of a store, without writing to it.
//! - [`salvage`](mod@salvage) takes what a damaged store still proves into a new one.
//! - [`wal::Log`] is the log alone, for records that are no commands.
//!
//! # What it does not do
//!
//! The state fits into memory, on one machine. Nothing is replicated, and a store is open for writing in one process at a time.
//! It runs on Linux.
//!
//! # Features
//!
//! `serde` for machines with derived encodings, `cli` for the `seawal` program. Neither is on by default.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

// its programs are compiled as a user would write them, which takes serde
#[cfg(all(doctest, feature = "serde"))]
#[doc = include_str!("../README.md")]
struct Readme;

mod engine;
mod error;
mod events;
pub mod format;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod kv;
pub mod machine;
mod options;
mod parallel;
mod recovery;
pub mod salvage;
pub mod sim;
mod snapshot;
pub mod storage;
mod sync;
mod txn;
mod varint;
pub mod wal;

pub use engine::{
    Engine, ExecuteError, ExecuteResult, KvIter, ReadLevel, Savepoint, Stats, Step, Table, Ticket, Transaction, View,
};
pub use error::{Error, Result};
pub use machine::StateMachine;
pub use options::{Durability, Options};
pub use recovery::{Phase, Phases, Progress, RecoveryPolicy, RecoveryReport, Verdict};
pub use wal::Background;
