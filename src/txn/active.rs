//! The active transaction table, and the only code that undoes effects.
//!
//! Rollback, savepoints, recovery and views all use [`roll_back`]. It undoes effects in descending
//! LSN order, also across transactions. It reports each step to its caller, which logs a
//! compensation record where the undo must be redone after a crash. (Mohan et al., "ARIES", TODS
//! 17(1), 1992: repeating history, CLRs with `undo_next`.)

use crate::ids::{Lsn, TxnId};
use crate::machine::StateMachine;
use crate::txn::undo_list::{UndoEntry, UndoList};
use std::collections::{BTreeMap, BinaryHeap};

/// The transactions that have logged a command and have not ended, with the inverses of their
/// commands.
#[derive(Debug)]
pub(crate) struct ActiveTransactions<C> {
    open: BTreeMap<TxnId, UndoList<C>>,
}

impl<C> Clone for ActiveTransactions<C> {
    fn clone(&self) -> Self {
        ActiveTransactions { open: self.open.clone() }
    }
}

impl<C> Default for ActiveTransactions<C> {
    fn default() -> Self {
        ActiveTransactions { open: BTreeMap::new() }
    }
}

/// Why an undo failed. It cannot fail unless the machine broke its law or the log does not
/// match the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndoFault {
    /// The transaction has no effect that could be undone.
    NothingLeft,
    /// The machine rejected the inverse of one of its own commands.
    Rejected,
}

impl UndoFault {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            UndoFault::NothingLeft => "the record undoes an effect that the transaction does not have",
            UndoFault::Rejected => "the machine rejected the inverse of its own command",
        }
    }
}

/// Which effects to undo.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// The effects of every open transaction.
    All,
    /// The effects of one transaction, the newest first, until its list has this length.
    One(TxnId, usize),
}

impl<C: Clone> ActiveTransactions<C> {
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn ids(&self) -> Vec<TxnId> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TxnId, &UndoList<C>)> {
        self.open.iter().map(|(id, undo)| (*id, undo))
    }

    pub(crate) fn undo_list(&self, id: TxnId) -> Option<&UndoList<C>> {
        self.open.get(&id)
    }

    /// Adds an effect of a transaction. The first effect adds the transaction to the table.
    pub(crate) fn push(&mut self, id: TxnId, entry: UndoEntry<C>) {
        self.open.entry(id).or_default().push(entry);
    }

    /// Inserts a whole transaction, as it was read from a snapshot.
    pub(crate) fn insert(&mut self, id: TxnId, undo: UndoList<C>) {
        self.open.insert(id, undo);
    }

    /// Removes a transaction that has ended. Returns the effects that it had not undone, or `None`
    /// if there is no such transaction.
    pub(crate) fn end(&mut self, id: TxnId) -> Option<UndoList<C>> {
        self.open.remove(&id)
    }

    /// The LSN of the transaction's newest effect that is in scope, if one is left.
    fn newest(&self, id: TxnId, scope: Scope) -> Option<Lsn> {
        let kept = match scope {
            Scope::All => 0,
            Scope::One(_, kept) => kept,
        };
        self.open.get(&id).filter(|undo| undo.len() > kept)?.last_lsn()
    }
}

/// Undoes the newest effect of a transaction. Returns the LSN of the next one to undo.
pub(crate) fn undo_last<M: StateMachine>(
    state: &mut M,
    table: &mut ActiveTransactions<M::Command>,
    id: TxnId,
) -> Result<Option<Lsn>, UndoFault> {
    let undo = table.open.get_mut(&id).ok_or(UndoFault::NothingLeft)?;
    let entry = undo.pop().ok_or(UndoFault::NothingLeft)?;
    state.apply(&entry.inverse).map_err(|_| UndoFault::Rejected)?;
    Ok(undo.last_lsn())
}

/// Undoes everything in scope, the newest effect first. Before each effect, `ready` reserves the
/// room for a compensation record. After each effect, `step` gets the transaction, its `undo_next`
/// and that room. If `ready` fails, the undo stops, and another call continues there. Returns the
/// number of effects undone. The transactions stay in the table: the caller ends them.
pub(crate) fn roll_back<M: StateMachine, E: From<UndoFault>, R>(
    state: &mut M,
    table: &mut ActiveTransactions<M::Command>,
    scope: Scope,
    mut ready: impl FnMut() -> Result<R, E>,
    mut step: impl FnMut(TxnId, Option<Lsn>, R) -> Result<(), E>,
) -> Result<u64, E> {
    let ids = match scope {
        Scope::All => table.ids(),
        Scope::One(id, _) => vec![id],
    };
    let mut newest: BinaryHeap<(Lsn, TxnId)> =
        ids.into_iter().filter_map(|id| table.newest(id, scope).map(|lsn| (lsn, id))).collect();
    let mut undone = 0u64;
    while let Some((_, id)) = newest.pop() {
        let room = ready()?;
        let undo_next = undo_last(state, table, id)?;
        undone = undone.saturating_add(1);
        newest.extend(table.newest(id, scope).map(|lsn| (lsn, id)));
        step(id, undo_next, room)?;
    }
    Ok(undone)
}
