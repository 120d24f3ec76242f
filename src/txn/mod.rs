//! Transactions: who may touch what, what undoes it, and what an answer must wait for.
//!
//! It knows nothing of segments, files or fsync.

mod active;
mod commit_watermarks;
mod locks;
mod pending_undo;
mod state_core;
mod undo_list;

pub(crate) use active::{ActiveTransactions, Scope, UndoFault, roll_back, undo_last};
pub(crate) use commit_watermarks::{CommitWatermarks, DurabilityBarrier, WrittenSlots};
pub(crate) use locks::{Locks, Owner};
pub(crate) use pending_undo::{PendingUndo, undo_in_memory};
pub(crate) use state_core::{Core, CoreWrite, StateCore};
pub(crate) use undo_list::{UndoEntry, UndoList};

use crate::error::{Error, Result};
use crate::io::threads::contained;

/// Runs the machine's code. A panic in it becomes [`Error::Poisoned`]: what it left behind must not be used.
#[inline]
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T> {
    contained(run).ok_or(Error::Poisoned)
}

/// Spreads keys over the slots of a table. Many keys in one slot cost waits and nothing else.
pub(crate) fn hash(key: &[u8]) -> usize {
    // odd, and without a pattern: wyhash's first
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
