//! Histories of whole transactions, judged by an independent linearizability checker (Wing & Gong
//! 1993, with Lowe's memoization).
//!
//! A transaction is one operation on the whole table, so linearizable means strictly serializable.
//! One order of all transactions explains every value that was read, and a transaction that ended
//! before another began comes first in it.
//!
//! Keys hold lists that are appended to, as in Elle's list-append (Kingsbury & Alvaro, VLDB 2020).
//! A value that was read names all the writes before it, so a wrong order is detected.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

pub(crate) type List = Vec<u32>;

/// An operation of a transaction, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    Read {
        key: u8,
        saw: Option<List>,
    },
    Append {
        key: u8,
        value: u32,
    },
    Delete {
        key: u8,
    },
    Scan {
        keys: Range<u8>,
        saw: Vec<(u8, List)>,
    },
    /// Counts the lists in the range that have an even length.
    CountEven {
        keys: Range<u8>,
        saw: usize,
    },
    /// Sets the key to `new` if it held `expected`. Otherwise `saw` is what it held.
    Swap {
        key: u8,
        expected: Option<List>,
        new: List,
        saw: Result<(), Option<List>>,
    },
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    /// It changed nothing, but what it saw must have been true.
    RolledBack,
}

pub(crate) type Txn = (Vec<Did>, End);

/// A table on which transactions run one after another.
struct Serial;

impl Specification for Serial {
    type State = BTreeMap<u8, List>;
    type Operation = Txn;

    fn init() -> Self::State {
        BTreeMap::new()
    }

    fn apply((did, end): &Txn, state: &Self::State) -> (bool, Self::State) {
        let mut next = state.clone();
        let explained = did.iter().all(|did| explains(&mut next, did));
        match end {
            End::Committed => (explained, next),
            End::RolledBack => (explained, state.clone()),
        }
    }
}

fn explains(state: &mut BTreeMap<u8, List>, did: &Did) -> bool {
    match did {
        Did::Read { key, saw } => state.get(key) == saw.as_ref(),
        Did::Append { key, value } => {
            state.entry(*key).or_default().push(*value);
            true
        }
        Did::Delete { key } => {
            state.remove(key);
            true
        }
        Did::Scan { keys, saw } => state.range(keys.clone()).eq(saw.iter().map(|(key, list)| (key, list))),
        Did::CountEven { keys, saw } => {
            state.range(keys.clone()).filter(|(_, list)| list.len() % 2 == 0).count() == *saw
        }
        Did::Swap { key, expected, new, saw } => {
            let held = state.get(key).cloned();
            match saw {
                Ok(()) if held == *expected => {
                    state.insert(*key, new.clone());
                    true
                }
                Ok(()) => false,
                Err(saw) => held == *saw && held != *expected,
            }
        }
    }
}

/// The begins and ends of transactions, in the order in which they happened.
#[derive(Default)]
pub(crate) struct History {
    events: Mutex<Vec<(usize, Option<Txn>)>>,
    begun: AtomicUsize,
}

impl History {
    /// Records that a transaction begins now. One that never [ends](Self::end) had no effect.
    pub(crate) fn begin(&self) -> usize {
        let id = self.begun.fetch_add(1, Ordering::Relaxed);
        self.events.lock().unwrap().push((id, None));
        id
    }

    /// Records that the transaction was acknowledged.
    pub(crate) fn end(&self, id: usize, did: Vec<Did>, end: End) {
        self.events.lock().unwrap().push((id, Some((did, end))));
    }

    pub(crate) fn len(&self) -> usize {
        self.events.lock().unwrap().iter().filter(|(_, txn)| txn.is_some()).count()
    }

    /// Whether some order of the transactions explains all reads and agrees with the order of their
    /// ends and begins.
    pub(crate) fn is_strictly_serializable(&self) -> bool {
        let events = self.events.lock().unwrap();
        let ended = |id| events.iter().any(|(other, txn)| *other == id && txn.is_some());
        let actions: Vec<_> = events
            .iter()
            .filter(|(id, _)| ended(*id))
            .map(|(id, txn)| match txn {
                None => (*id, Action::Call((Vec::new(), End::Committed))),
                Some(txn) => (*id, Action::Response(txn.clone())),
            })
            .collect();
        actions.is_empty() || WGLChecker::<Serial>::is_linearizable(Actions::from_actions(actions))
    }

    /// The history as text, one event per line.
    pub(crate) fn text(&self) -> String {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .map(|(id, txn)| txn.as_ref().map_or(format!("{id} begins\n"), |t| format!("{id} {t:?}\n")))
            .collect()
    }
}
