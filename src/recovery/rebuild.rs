//! A second state, rebuilt from the snapshot and the log of a store that is open.
//!
//! A checkpoint or a backup of a machine that is expensive to clone saves such a state. It is
//! recovery without the parts that write: the same snapshot is loaded, and the same redo runs over
//! the log. So commits need not wait, and what is saved is what recovery would have come to.

use super::redo::Redo;
use super::report::{ProgressReporter, new_report};
use super::{Base, load_base};
use crate::error::{Error, Result};
use crate::format::manifest::SnapshotEntry;
use crate::ids::Lsn;
use crate::machine::StateMachine;
use crate::snapshot::Help;
use crate::txn::{ActiveTransactions, undo_in_memory};
use crate::wal::scan::Scanner;
use crate::wal::{HeldSegments, Log};

/// The state that the log describes at an LSN.
pub(crate) struct Rebuilt<M: StateMachine> {
    /// With the effects of transactions that have not ended.
    pub(crate) state: M,
    /// These transactions, with their inverses.
    pub(crate) table: ActiveTransactions<M::Command>,
    /// The snapshots that are whole as far as this is known: one that was found damaged is left
    /// out.
    pub(crate) snapshots: Vec<SnapshotEntry>,
}

/// Rebuilds the state at an LSN, a frame boundary below which everything is durable. The segments
/// that it reads are held meanwhile; the caller keeps the snapshots from being deleted. `check`
/// says whether to go on; it is called after each part of the work.
///
/// # Errors
/// Those of `check`, and those of an open: [`Error::Diverged`] if a digest in the log differs;
/// [`Error::Corrupt`]; [`Error::Internal`] if the machine panics.
pub(crate) fn rebuild<M: StateMachine>(
    log: &Log,
    upto: Lsn,
    (help, redo_memory_bytes): (Help, u64),
    check: &(dyn Fn() -> Result<()> + Sync),
) -> Result<Rebuilt<M>> {
    rebuild_held(&log.hold_segments(), upto, (help, redo_memory_bytes), check).map_err(not_poisoned)
}

/// As [`rebuild`], without the effects of transactions that had not ended there.
///
/// # Errors
/// As [`rebuild`].
pub(crate) fn rebuild_committed<M: StateMachine>(
    log: &Log,
    upto: Lsn,
    (help, redo_memory_bytes): (Help, u64),
    check: &(dyn Fn() -> Result<()> + Sync),
) -> Result<M> {
    let Rebuilt { mut state, mut table, .. } = rebuild(log, upto, (help, redo_memory_bytes), check)?;
    undo_in_memory(&mut state, &mut table).map_err(not_poisoned)?;
    Ok(state)
}

/// A panic of the machine here says nothing about the live state.
fn not_poisoned(error: Error) -> Error {
    match error {
        Error::Poisoned => Error::Internal { what: "it rebuilt the state" },
        other => other,
    }
}

fn rebuild_held<M: StateMachine>(
    held: &HeldSegments,
    upto: Lsn,
    (help, redo_memory_bytes): (Help, u64),
    check: &(dyn Fn() -> Result<()> + Sync),
) -> Result<Rebuilt<M>> {
    debug_assert!(upto <= held.upto, "what is replayed is durable");
    let (mut report, reporter) = (new_report(&held.store_dir), ProgressReporter::Check(check));
    // an error of the machine, such as too little memory, says nothing about the snapshot
    let base = load_base::<M>(&held.store_dir, &mut report, &reporter, (help, Error::is_corrupt))?;
    let Base { mut replay, start, snapshots, .. } = base;
    replay.redo_memory_bytes = redo_memory_bytes;
    held.advance(start);
    let scanner = Scanner::new(&held.store_dir, start)?.stop_at(upto);
    let end = Redo { replay: &mut replay, report: &mut report, reporter: &reporter }.run(scanner, help)?;
    debug_assert_eq!(end.end.min(upto), upto, "the log was read up to there");
    Ok(Rebuilt { state: replay.state, table: replay.table, snapshots })
}
