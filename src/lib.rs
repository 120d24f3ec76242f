//! An in-memory state machine made durable by a write-ahead log.
//!
//! The state is an ordinary Rust value in memory. Commands change it one after the other. Each
//! command is written to a log, and returns once it survives power loss. Snapshots keep the log
//! short. After a crash, recovery loads the newest snapshot, replays the log after it, and undoes
//! open transactions.
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
//!     tx.remove("apple")
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
//! - [`Engine`] is an open store. It can [`execute`](Engine::execute) a command,
//!   [`begin`](Engine::begin) a transaction or [`transact`](Engine::transact) one,
//!   [`read`](Engine::read), take a [`view`](Engine::view), a [`checkpoint`](Engine::checkpoint) or a
//!   [backup](Engine::backup_to).
//! - [`Options`] configures how a store is opened, [`Durability`] chooses what a commit survives, and
//!   [`RecoveryReport`] says what recovery found.
//! - [`Store`] is the store of the built-in machine, [`kv::Kv`]: an ordered map from bytes to bytes,
//!   in named tables. [`Table`] gives a table types, and [`kv::TableHandle`] has its methods.
//! - [`StateMachine`] is the trait to implement for a state of your own. Its documentation has the law
//!   that implementations keep. With the feature `serde`, `machine::SerdeMachine` derives the encodings.
//! - [`Error`] distinguishes what programs handle differently: a conflict to retry, a full disk, a store
//!   to reopen, damage to repair.
//! - [`sim`] is a disk that crashes on demand, to test your program. [`sim::explore`] crashes your
//!   machine, or the built-in one, at every operation and checks what recovery restores.
//! - [`inspect`] shows and verifies the files of a store, without writing to it.
//! - [`salvage`](mod@salvage) copies what is intact in a damaged store into a new store.
//! - [`wal::Log`] is the log on its own, for records of any kind.
//!
//! # What it does not do
//!
//! The state must fit into the memory of one computer. Nothing is replicated. One process at a time
//! can open a store for writing. The crate runs on Linux.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `serde` | values of a [`Table`] and machines ([`machine::SerdeMachine`]) that derive serde's traits; [`Stats`], [`wal::LogStats`] and [`RecoveryReport`] can be serialized |
//! | `tracing` | events of recovery, checkpoints and failures, and spans of opens and checkpoints; a subscriber may call the store, even close it |
//! | `metrics` | counters, gauges and histograms through the facade `metrics`; `docs/operations.md` lists them |
//! | `sim` | [`sim`]: the simulated disk, and the exploration of every crash point of a machine |
//! | `inspect` | [`inspect`]: reading and verifying the files of a store without opening it |
//! | `salvage` | [`salvage`](mod@salvage): copying what a damaged store still proves into a new one; implies `inspect` |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// its programs are compiled as a user would write them, which takes serde
#[cfg(all(doctest, feature = "serde"))]
#[doc = include_str!("../README.md")]
struct Readme;

mod checkpoint;
mod count;
mod durability;
mod engine;
mod error;
mod events;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(any(loom, shuttle))))]
mod golden;
pub mod ids;
#[cfg(any(test, feature = "inspect"))]
pub mod inspect;
pub mod io;
pub mod kv;
pub mod machine;
mod meters;
mod options;
pub mod recovery;
#[cfg(any(test, feature = "salvage"))]
pub mod salvage;
#[cfg(feature = "serde")]
mod serialize;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod snapshot;
mod store;
mod txn;
mod varint;
pub mod wal;

pub use durability::{Durability, ReadLevel};
pub use engine::{Engine, ExecuteError, ExecuteResult, Savepoint, Stats, Step, Ticket, Transaction, View};
pub use error::{Error, Result};
pub use ids::Lsn;
pub use kv::Table;
pub use machine::StateMachine;
pub use options::{Background, Options, RecoveryPolicy};
pub use recovery::RecoveryReport;

/// A store of the built-in machine: tables with types, or of bytes. See [`Table`].
pub type Store = Engine<kv::Kv>;
