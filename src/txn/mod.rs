//! Transactions: footprint locks, undo lists, the active transaction table, and commit watermarks.
//!
//! This layer does not depend on segments, files or fsync.

mod active;
mod commit_watermarks;
mod locks;
mod pending_undo;
mod state_core;
mod undo_list;

pub(crate) use active::{ActiveTransactions, Scope, UndoFault, roll_back, undo_last};
pub(crate) use commit_watermarks::{CommitWatermarks, DurabilityBarrier, WrittenSlots};
pub(crate) use locks::{Locks, Owner, RunningClosure};
pub(crate) use pending_undo::{PendingUndo, undo_in_memory};
pub(crate) use state_core::{Core, CoreWrite, StateCore};
pub(crate) use undo_list::{UndoEntry, UndoList};

use crate::error::{Error, Result};
use crate::io::threads::contained;

/// Runs code of the machine. A panic in it becomes [`Error::Poisoned`], because the state may be
/// half-changed and must not be used.
#[inline]
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T> {
    contained(run).ok_or(Error::Poisoned)
}

/// The hash of a key, which selects its slot in a table. Keys that share a slot cost unnecessary
/// waits and nothing else.
pub(crate) fn hash(key: &[u8]) -> usize {
    // the first secret constant of wyhash: odd, and without a pattern in its bits
    const MIX: u64 = 0xa076_1d64_78bd_642f;
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(MIX);
        (product >> 64) as u64 ^ product as u64
    };
    let (words, rest) = key.as_chunks();
    let hash = words.iter().fold(key.len() as u64 ^ MIX, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let rest = rest.iter().fold(0, |rest, byte| rest << 8 | u64::from(*byte));
    mix(hash, rest) as usize
}
