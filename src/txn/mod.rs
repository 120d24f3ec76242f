//! Transactions: who may touch what, what undoes it, and what an answer must wait for.
//!
//! It knows nothing of segments, files or fsync.

mod hardening;
mod locks;
mod table;
mod undo;

pub(crate) use hardening::{Hardening, Needed};
pub(crate) use locks::{Locks, Owner};
pub(crate) use table::{Scope, Table, UndoFault, roll_back, undo_last};
pub(crate) use undo::{UndoEntry, UndoList};

use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the machine's code. A panic in it becomes [`Error::Poisoned`]: what it left behind must not be used.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Error::Poisoned)
}
