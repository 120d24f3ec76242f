//! The interface between the engine and the state machine that it makes durable.
//!
//! [`StateMachine`] is the trait that a user implements: five methods and a few constants and
//! types. [`BulkMachine`] adds optional fast paths for machines that move a lot of data. A command
//! applied to a state gives a reply and the inverse of the command, or a rejection that changed
//! nothing. Rollback, savepoints, recovery, views and checkpoints all rest on that. This module
//! knows nothing of LSNs, disks or transactions.

pub(crate) mod bulk;
mod digest;
mod error;
mod footprint;
pub(crate) mod parts;
mod recovery_rates;
#[cfg(feature = "serde")]
mod serde;
#[cfg(feature = "serde")]
mod shape;
mod state_machine;

pub use self::bulk::BulkMachine;
pub use self::digest::Digest;
pub use self::error::{DecodeError, RedoFault};
pub use self::footprint::{Access, Claim, Extent, Footprint};
pub use self::parts::{PartWriter, Parts};
pub(crate) use self::recovery_rates::RecoveryRates;
#[cfg(feature = "serde")]
pub use self::serde::SerdeMachine;
#[cfg(feature = "serde")]
pub(crate) use self::serde::{decode_value, encode_value};
#[cfg(feature = "serde")]
pub(crate) use self::shape::shape_of_value;
pub use self::state_machine::{Applied, Bulk, SnapshotSource, StateMachine};
