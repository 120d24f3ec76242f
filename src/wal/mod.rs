//! The log: append, group commit, segments. Public on its own as [`Log`].
//!
//! Records are opaque bytes here. The module does not depend on transactions or machines.
//!
//! ```text
//!   append ──▶ queue ──▶ group commit ──▶ segment writer ──▶ segment files ◀── segment pool
//!             (memory)    (leaders)      (order of frames)                    (preallocated)
//!                └─▶ frames in flight ──▶ waiters
//!   open: store directory ──▶ segments ──▶ scan ──▶ tail scan ──▶ evidence ──▶ a new epoch
//! ```
//!
//! `log` is the public face. It uses `open`, `lifecycle`, `ticket` and `flusher`, and all of them work on the
//! state in `shared`. `reservation` adds the reservation of room for records. `read` reads records
//! back by their LSNs, for a log that keeps a `frame_index`: one on its own.
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

mod batch_sizes;
mod deferred_wakes;
mod device_latency;
mod flusher;
mod frame_builder;
mod frame_index;
mod group_commit;
mod growth_alarm;
mod in_flight;
mod lifecycle;
mod log;
#[cfg(all(test, loom))]
mod models;
mod open;
mod queue;
mod read;
mod reader_holds;
mod reservation;
mod room;
pub(crate) mod scan;
mod segment_pool;
mod segment_writer;
mod shared;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod ticket;
mod waiters;

pub use crate::options::{Background, LogOptions};
pub use batch_sizes::BatchSizes;
pub(crate) use deferred_wakes::DeferredWakes;
pub use flusher::LogStep;
pub use log::{Log, LogStats};
pub use open::LogReport;
pub(crate) use open::OpenLog;
pub use read::Records;
pub(crate) use reader_holds::HeldSegments;
pub(crate) use reservation::{Need, Position, Reservation, RollbackRoom, SpaceAside};
pub use scan::Tail;
pub use ticket::LogTicket;

use crate::durability::Durability;

/// How durable a record is. A reader chooses by it what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// The record is in the page cache: it survives a kill of the process, but not power loss.
    Written,
    /// The record is on stable storage: it survives power loss.
    Durable,
}

/// The level that a record with this durability reaches before its answer is returned.
impl From<Durability> for Level {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Sync => Level::Durable,
            Durability::Interval(_) | Durability::Os => Level::Written,
        }
    }
}
