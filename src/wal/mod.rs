//! The log: append, group commit, segments. Public on its own as [`Log`].
//!
//! Records are opaque bytes here; the module knows nothing of transactions or machines.
//!
//! ```text
//!   append ──▶ queue ──▶ commit ──▶ writer ──▶ segment files     spares: segments ahead of need
//!             (memory)  (leaders)  (one order)                   root: the manifest's two copies
//!   open:  attach ──▶ segments ──▶ scan ──▶ later ──▶ evidence ──▶ start of a new epoch
//! ```
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub(crate) mod attach;
mod background;
mod commit;
pub(crate) mod evidence;
mod groups;
mod later;
mod log;
#[cfg(all(test, loom))]
mod models;
mod pace;
mod queue;
pub(crate) mod reader;
pub(crate) mod root;
pub(crate) mod scan;
pub(crate) mod segments;
mod spares;
mod start;
mod ticket;
mod waiters;
mod writer;

pub use background::LogStep;
pub use groups::Groups;
pub(crate) use log::Position;
pub use log::{Log, LogOptions, LogStats};
pub use reader::Records;
pub use scan::Tail;
pub use start::LogReport;
pub(crate) use start::{OpenLog, prepare_root};
pub use ticket::LogTicket;

/// What a record has survived once it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Handed to the operating system: survives a kill of the process, not power loss.
    Written,
    /// On stable storage: survives power loss.
    Durable,
}

/// Who carries out the work behind the scenes: flushing tickets, preparing segments, taking checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Threads of the store's own.
    #[default]
    Threads,
    /// Nobody, until asked step by step. One thread then sees one deterministic trace of operations.
    Manual,
}
