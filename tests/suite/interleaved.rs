//! Interleaved transactions on the key-value machine, compared with ordered maps. The tests check
//! which operations must wait, what each transaction and view sees, and what remains after every
//! kind of end.

use crate::common::{manual, open_on};
use proptest::prelude::*;
use seawal::kv::{Kv, KvCommand, KvRejection, KvReply};
use seawal::machine::BulkMachine;
use seawal::sim::{Crash, SimDisk};
use seawal::{Engine, Error, ExecuteError, Savepoint, Transaction, View};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

type Key = (String, Vec<u8>);
type Model = BTreeMap<Key, Vec<u8>>;
type Range = (u8, Bound<u8>, Bound<u8>);

#[derive(Clone, Debug)]
enum Change {
    Put(u8, u8, u16),
    Delete(u8, u8),
    Cas(u8, u8, Option<u16>, Option<u16>),
    Batch(Vec<Change>),
}

#[derive(Clone, Debug)]
enum Op {
    /// In the transaction with this number, which begins if there is none.
    Tx(u8, Change),
    Save(u8),
    /// Rolls back to one of its savepoints.
    RollbackTo(u8, u8),
    Commit(u8),
    Rollback(u8),
    Drop(u8),
    TxScan(u8, Range),
    /// A transaction of one command.
    Execute(Change),
    Scan(Range, Vec<bool>),
    View,
    Checkpoint,
    Close,
    Kill,
    PowerLoss(u64),
}

fn table(n: u8) -> String {
    ["", "t", "t2"][usize::from(n % 3)].into()
}

/// A few keys, so that transactions conflict: the empty one, prefixes of each other, the lowest and
/// highest bytes.
fn key(n: u8) -> Vec<u8> {
    [&b""[..], b"\0", b"\0\0", b"a", b"a\0", b"aa", b"\xff", b"\xff\xff"][usize::from(n % 8)].into()
}

/// Empty values, and sometimes one that is longer than half of the first segment.
fn value(n: u16) -> Vec<u8> {
    match n % 16 {
        0 => vec![],
        1 => vec![n as u8; 20_000],
        few => vec![n as u8; usize::from(few)],
    }
}

fn change() -> impl Strategy<Value = Change> {
    let few = || proptest::option::of(0..40u16);
    let single = prop_oneof![
        4 => (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(t, k, v)| Change::Put(t, k, v)),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(t, k)| Change::Delete(t, k)),
        2 => (any::<u8>(), any::<u8>(), few(), few()).prop_map(|(t, k, e, n)| Change::Cas(t, k, e, n)),
    ];
    single.prop_recursive(2, 8, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Change::Batch))
}

fn range() -> impl Strategy<Value = Range> {
    let bound = || {
        prop_oneof![
            any::<u8>().prop_map(Bound::Included),
            any::<u8>().prop_map(Bound::Excluded),
            Just(Bound::Unbounded)
        ]
    };
    (any::<u8>(), bound(), bound())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..3u8, change()).prop_map(|(tx, change)| Op::Tx(tx, change)),
        3 => (0..3u8).prop_map(Op::Save),
        3 => (0..3u8, any::<u8>()).prop_map(|(tx, n)| Op::RollbackTo(tx, n)),
        4 => (0..3u8).prop_map(Op::Commit),
        2 => (0..3u8).prop_map(Op::Rollback),
        1 => (0..3u8).prop_map(Op::Drop),
        3 => (0..3u8, range()).prop_map(|(tx, range)| Op::TxScan(tx, range)),
        4 => change().prop_map(Op::Execute),
        3 => (range(), proptest::collection::vec(any::<bool>(), 0..12)).prop_map(|(r, ends)| Op::Scan(r, ends)),
        2 => Just(Op::View),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::PowerLoss),
    ]
}

fn command(change: &Change) -> KvCommand {
    match change {
        Change::Put(t, k, v) => KvCommand::put(table(*t), key(*k), value(*v)),
        Change::Delete(t, k) => KvCommand::delete(table(*t), key(*k)),
        Change::Cas(t, k, e, n) => KvCommand::compare_and_set(table(*t), key(*k), e.map(value), n.map(value)),
        Change::Batch(changes) => KvCommand::batch(changes.iter().map(command)),
    }
}

fn keys(change: &Change, all: &mut BTreeSet<Key>) {
    match change {
        Change::Put(t, k, _) | Change::Delete(t, k) | Change::Cas(t, k, ..) => {
            all.insert((table(*t), key(*k)));
        }
        Change::Batch(changes) => changes.iter().for_each(|change| keys(change, all)),
    }
}

fn apply(model: &mut Model, change: &Change) -> Result<KvReply, KvRejection> {
    match change {
        Change::Put(t, k, v) => Ok(KvReply::Previous(model.insert((table(*t), key(*k)), value(*v)))),
        Change::Delete(t, k) => Ok(KvReply::Previous(model.remove(&(table(*t), key(*k))))),
        Change::Cas(t, k, expected, new) => {
            let at = (table(*t), key(*k));
            let actual = model.get(&at).cloned();
            if actual != expected.map(value) {
                return Err(KvRejection::Mismatch { actual });
            }
            match new {
                Some(new) => model.insert(at, value(*new)),
                None => model.remove(&at),
            };
            Ok(KvReply::Previous(actual))
        }
        Change::Batch(changes) => {
            let mut next = model.clone();
            let mut replies = vec![];
            for (index, change) in changes.iter().enumerate() {
                let reply = apply(&mut next, change);
                replies.push(reply.map_err(|r| KvRejection::InBatch { index, rejection: Box::new(r) })?);
            }
            *model = next;
            Ok(KvReply::Batch(replies))
        }
    }
}

fn is_in((t, from, to): &Range, (name, k): &Key) -> bool {
    let after = match from {
        Bound::Included(n) => *k >= key(*n),
        Bound::Excluded(n) => *k > key(*n),
        Bound::Unbounded => true,
    };
    let before = match to {
        Bound::Included(n) => *k <= key(*n),
        Bound::Excluded(n) => *k < key(*n),
        Bound::Unbounded => true,
    };
    *name == table(*t) && after && before
}

fn entries(model: &Model, range: &Range) -> Vec<(Vec<u8>, Vec<u8>)> {
    model.iter().filter(|(at, _)| is_in(range, at)).map(|((_, k), v)| (k.clone(), v.clone())).collect()
}

fn bounds((_, from, to): &Range) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (from.map(key), to.map(key))
}

/// A transaction: its writes and scans, and its remaining changes, which are applied to the
/// committed state again.
struct Open {
    tx: Transaction<Kv>,
    changes: Vec<Change>,
    written: BTreeSet<Key>,
    scanned: Vec<Range>,
    savepoints: Vec<(Savepoint, usize)>,
}

struct World {
    disk: SimDisk,
    engine: Engine<Kv>,
    committed: Model,
    open: [Option<Open>; 3],
    views: Vec<(View<Kv>, Model)>,
}

fn shows(view: &Kv, model: &Model) {
    let tables: BTreeSet<String> = view.tables().map(|t| t.to_string()).collect();
    assert_eq!(tables, model.keys().map(|(t, _)| t.clone()).collect(), "a table is there while it holds a key");
    let mut found = Model::new();
    for t in &tables {
        found.extend(view.range::<[u8]>(t, ..).map(|(k, v)| ((t.clone(), k.to_vec()), v.to_vec())));
    }
    assert_eq!(&found, model);
    assert_eq!(view.len(), model.len());
}

/// Whether the operation would have to wait. The timeout is zero, so such an operation fails
/// instead.
fn must_wait(error: &Error) -> bool {
    matches!(error, Error::LockTimeout | Error::Conflict)
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimDisk::new(seed);
        let engine = open_on::<Kv>(&disk, &manual()).unwrap().0;
        World { disk, engine, committed: Model::new(), open: [None, None, None], views: vec![] }
    }

    /// The committed state with the changes of one transaction. Locks hide those of the others.
    fn seen_by(&self, at: u8) -> Model {
        let mut model = self.committed.clone();
        if let Some(open) = &self.open[usize::from(at)] {
            open.changes.iter().for_each(|change| drop(apply(&mut model, change).unwrap()));
        }
        model
    }

    fn others(&self, me: Option<u8>) -> impl Iterator<Item = &Open> {
        let all = self.open.iter().enumerate().filter(move |(at, _)| me.map(usize::from) != Some(*at));
        all.filter_map(|(_, open)| open.as_ref())
    }

    fn may_write(&self, me: Option<u8>, keys: &BTreeSet<Key>) -> bool {
        !self.others(me).any(|other| {
            keys.iter().any(|k| other.written.contains(k) || other.scanned.iter().any(|range| is_in(range, k)))
        })
    }

    fn may_scan(&self, me: Option<u8>, range: &Range) -> bool {
        !self.others(me).any(|other| other.written.iter().any(|k| is_in(range, k)))
    }

    fn begin(&mut self, at: u8) {
        let slot = &mut self.open[usize::from(at)];
        if slot.is_none() {
            let tx = self.engine.begin().unwrap();
            let (changes, written, scanned, savepoints) = Default::default();
            *slot = Some(Open { tx, changes, written, scanned, savepoints });
        }
    }

    /// Checks that a lock was rightly refused. A deadlock victim is rolled back completely.
    fn refused(&mut self, at: u8, error: &Error, allowed: bool, op: &Op) {
        assert!(!allowed && must_wait(error), "{op:?}: {error}");
        if error.is_conflict() {
            self.open[usize::from(at)] = None;
        }
    }

    fn tx_execute(&mut self, at: u8, change: &Change, op: &Op) {
        self.begin(at);
        let mut touched = BTreeSet::new();
        keys(change, &mut touched);
        let allowed = self.may_write(Some(at), &touched);
        let wanted = apply(&mut self.seen_by(at), change);
        let open = self.open[usize::from(at)].as_mut().unwrap();
        match open.tx.execute(command(change)) {
            Err(ExecuteError::Failed(error)) => return self.refused(at, &error, allowed, op),
            Ok(reply) => {
                assert_eq!(Ok(reply), wanted, "{op:?}");
                open.changes.push(change.clone());
            }
            Err(ExecuteError::Rejected(rejection)) => assert_eq!(Err(rejection), wanted, "{op:?}"),
        }
        open.written.extend(touched);
        assert!(allowed, "{op:?} got past another transaction's lock");
    }

    fn tx_scan(&mut self, at: u8, range: &Range, op: &Op) {
        self.begin(at);
        let allowed = self.may_scan(Some(at), range);
        let wanted = entries(&self.seen_by(at), range);
        let open = self.open[usize::from(at)].as_mut().unwrap();
        match open.tx.range_in::<Vec<u8>>(&table(range.0), bounds(range)) {
            Err(error) => self.refused(at, &error, allowed, op),
            Ok(found) => {
                assert!(allowed, "{op:?} saw what is not committed");
                assert_eq!(found.collect::<Vec<_>>(), wanted, "{op:?}");
                open.scanned.push(*range);
            }
        }
    }

    fn execute(&mut self, change: &Change, op: &Op) {
        let mut touched = BTreeSet::new();
        keys(change, &mut touched);
        let allowed = self.may_write(None, &touched);
        match self.engine.execute(command(change)) {
            Err(ExecuteError::Failed(error)) => assert!(!allowed && must_wait(&error), "{op:?}: {error}"),
            other => {
                assert!(allowed, "{op:?} got past a transaction's lock");
                let got = other.map_err(|e| if let ExecuteError::Rejected(r) = e { r } else { unreachable!() });
                assert_eq!(got, apply(&mut self.committed, change), "{op:?}");
            }
        }
    }

    fn scan(&mut self, range: &Range, ends: &[bool], op: &Op) {
        let allowed = self.may_scan(None, range);
        match self.engine.raw_table(table(range.0)).range::<Vec<u8>>(bounds(range)) {
            Err(error) => assert!(!allowed && must_wait(&error), "{op:?}: {error}"),
            Ok(mut found) => {
                assert!(allowed, "{op:?} saw what is not committed");
                let mut wanted = entries(&self.committed, range).into_iter();
                for front in ends {
                    let (found, wanted) =
                        if *front { (found.next(), wanted.next()) } else { (found.next_back(), wanted.next_back()) };
                    assert_eq!(found, wanted, "{op:?}");
                }
                assert_eq!(found.collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{op:?}");
            }
        }
    }

    fn end(&mut self, at: u8, op: &Op) {
        let next = self.seen_by(at);
        let Some(open) = self.open[usize::from(at)].take() else { return };
        match op {
            Op::Commit(_) => {
                open.tx.commit().unwrap();
                self.committed = next;
            }
            Op::Rollback(_) => open.tx.rollback().unwrap(),
            _ => drop(open),
        }
    }

    fn roll_back_to(&mut self, at: u8, n: u8) {
        let Some(open) = self.open[usize::from(at)].as_mut() else { return };
        let Some(nth) = usize::from(n).checked_rem(open.savepoints.len()) else { return };
        let (savepoint, length) = open.savepoints[nth];
        open.tx.rollback_to(savepoint).unwrap();
        open.changes.truncate(length);
        // the savepoint itself remains; later ones are gone
        open.savepoints.truncate(nth + 1);
    }

    /// Ends the engine in one of the possible ways, and opens the store again.
    fn reopen(&mut self, op: &Op) {
        match op {
            Op::Close => self.engine.close().unwrap(),
            Op::PowerLoss(seed) => self.disk = self.disk.crash(Crash::Seeded(*seed)),
            _ => self.disk = self.disk.crash(Crash::KillOnly),
        }
        // the old engine's remaining operations affect only the old disk
        self.open = [None, None, None];
        self.engine = match open_on::<Kv>(&self.disk, &manual()) {
            Ok((engine, _)) => engine,
            Err(error) => panic!("{op:?}: {error}"),
        };
        shows(&self.engine.view().unwrap(), &self.committed);
    }

    fn step(&mut self, op: &Op) {
        if let Op::Tx(_, change) | Op::Execute(change) = op
            && Kv::encoded_len(&command(change)) > 24_000
        {
            // a change larger than a segment is refused, and this test is not about that
            return;
        }
        match op {
            Op::Tx(at, change) => self.tx_execute(*at, change, op),
            Op::Save(at) => {
                if let Some(open) = self.open[usize::from(*at)].as_mut() {
                    open.savepoints.push((open.tx.savepoint().unwrap(), open.changes.len()));
                }
            }
            Op::RollbackTo(at, n) => self.roll_back_to(*at, *n),
            Op::Commit(at) | Op::Rollback(at) | Op::Drop(at) => self.end(*at, op),
            Op::TxScan(at, range) => self.tx_scan(*at, range, op),
            Op::Execute(change) => self.execute(change, op),
            Op::Scan(range, ends) => self.scan(range, ends, op),
            Op::View => self.views.push((self.engine.view().unwrap(), self.committed.clone())),
            Op::Checkpoint => self.engine.checkpoint().unwrap(),
            Op::Close | Op::Kill | Op::PowerLoss(_) => self.reopen(op),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200 * crate::common::scale() as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn interleaved_transactions_do_what_ordered_maps_and_their_locks_say(
        ops in proptest::collection::vec(op(), 1..80),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(seed);
        for op in &ops {
            world.step(op);
        }
        shows(&world.engine.view().unwrap(), &world.committed);
        for (view, then) in &world.views {
            shows(view, then);
        }
    }
}
