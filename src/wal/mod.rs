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

mod batch_sizes;
mod device_latency;
mod flusher;
mod group_commit;
mod log;
mod open;
mod queue;
pub(crate) mod scan;
mod segment_pool;
mod segment_writer;
mod ticket;
mod waiters;

pub use crate::options::{Background, LogOptions};
pub use batch_sizes::BatchSizes;
pub use flusher::LogStep;
pub(crate) use log::Position;
pub use log::{Log, LogStats};
pub use open::LogReport;
pub(crate) use open::OpenLog;
pub use scan::{Records, Tail};
pub use ticket::LogTicket;

/// What a record has survived once it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Handed to the operating system: survives a kill of the process, not power loss.
    Written,
    /// On stable storage: survives power loss.
    Durable,
}
