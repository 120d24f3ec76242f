//! The key-value engine against an ordered map, with random operations and reopens.

use crate::common::{manual, open_on};
use proptest::prelude::*;
use seawal::kv::{Kv, KvCommand, KvRejection, KvReply};
use seawal::sim::{Crash, SimDisk};
use seawal::{Engine, ExecuteError, Savepoint};
use std::collections::BTreeMap;
use std::ops::Bound;

type Model = BTreeMap<(String, Vec<u8>), Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8, u16),
    Delete(u8, u8),
    Cas(u8, u8, Option<u16>, Option<u16>),
    Batch(Vec<Op>),
    Transaction(Vec<Op>, bool),
    Partly(Vec<Op>, Vec<Op>, Vec<Op>),
    Range(u8, Bound<u8>, Bound<u8>, Vec<bool>),
    Prefix(u8, u8, Vec<bool>),
    Checkpoint,
    Reopen(bool),
    Crash(u64),
}

fn table(n: u8) -> String {
    ["", "t", "t2", "zz"][usize::from(n % 4)].into()
}

fn key(n: u8) -> Vec<u8> {
    // prefixes of each other, high bytes, and the empty key
    match n % 16 {
        0 => vec![],
        1 => vec![0],
        2 => vec![0, 0],
        3 => vec![255],
        4 => vec![255, 255],
        5 => vec![255, 255, 1],
        n @ 6..=9 => vec![b'a'; usize::from(n - 5)],
        n => vec![b'b', n],
    }
}

fn value(n: u16) -> Vec<u8> {
    let mut value = n.to_le_bytes().to_vec();
    value.resize(2 + usize::from(n % 7) * 150, 9);
    value
}

fn single() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(t, k, v)| Op::Put(t, k, v)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(t, k)| Op::Delete(t, k)),
        2 => (any::<u8>(), any::<u8>(), proptest::option::of(0..3u16), proptest::option::of(0..3u16))
            .prop_map(|(t, k, e, n)| Op::Cas(t, k, e, n)),
    ]
}

fn bound() -> impl Strategy<Value = Bound<u8>> {
    prop_oneof![any::<u8>().prop_map(Bound::Included), any::<u8>().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

fn op() -> impl Strategy<Value = Op> {
    let few = || proptest::collection::vec(single(), 0..5);
    let ends = || proptest::collection::vec(any::<bool>(), 0..30);
    prop_oneof![
        10 => single(),
        2 => few().prop_map(Op::Batch),
        2 => (few(), any::<bool>()).prop_map(|(ops, commit)| Op::Transaction(ops, commit)),
        2 => (few(), few(), few()).prop_map(|(a, b, c)| Op::Partly(a, b, c)),
        3 => (any::<u8>(), bound(), bound(), ends()).prop_map(|(t, s, e, ends)| Op::Range(t, s, e, ends)),
        3 => (any::<u8>(), any::<u8>(), ends()).prop_map(|(t, k, ends)| Op::Prefix(t, k, ends)),
        1 => Just(Op::Checkpoint),
        1 => any::<bool>().prop_map(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
    ]
}

fn command(op: &Op) -> KvCommand {
    match op {
        Op::Put(t, k, v) => KvCommand::put(table(*t), key(*k), value(*v)),
        Op::Delete(t, k) => KvCommand::delete(table(*t), key(*k)),
        Op::Cas(t, k, e, n) => KvCommand::compare_and_set(table(*t), key(*k), e.map(value), n.map(value)),
        Op::Batch(ops) => KvCommand::batch(ops.iter().map(command)),
        other => unreachable!("{other:?}"),
    }
}

/// Applies a command to the model.
fn apply(model: &mut Model, op: &Op) -> Result<KvReply, KvRejection> {
    match op {
        Op::Put(t, k, v) => Ok(KvReply::Previous(model.insert((table(*t), key(*k)), value(*v)))),
        Op::Delete(t, k) => Ok(KvReply::Previous(model.remove(&(table(*t), key(*k))))),
        Op::Cas(t, k, e, n) => {
            let at = (table(*t), key(*k));
            let actual = model.get(&at).cloned();
            if actual != e.map(value) {
                return Err(KvRejection::Mismatch { actual });
            }
            match n {
                Some(n) => model.insert(at, value(*n)),
                None => model.remove(&at),
            };
            Ok(KvReply::Previous(actual))
        }
        Op::Batch(ops) => {
            let mut next = model.clone();
            let mut replies = vec![];
            for (index, op) in ops.iter().enumerate() {
                match apply(&mut next, op) {
                    Ok(reply) => replies.push(reply),
                    Err(rejection) => return Err(KvRejection::InBatch { index, rejection: Box::new(rejection) }),
                }
            }
            *model = next;
            Ok(KvReply::Batch(replies))
        }
        other => unreachable!("{other:?}"),
    }
}

fn same<T: std::fmt::Debug>(
    got: Result<KvReply, ExecuteError<KvRejection>>,
    wanted: Result<KvReply, KvRejection>,
    what: T,
) {
    let got = match got {
        Ok(reply) => Ok(reply),
        Err(ExecuteError::Rejected(rejection)) => Err(rejection),
        Err(ExecuteError::Failed(error)) => panic!("{what:?}: {error:?}"),
    };
    assert_eq!(got, wanted, "{what:?}");
}

/// Takes entries from both ends, in the order given by `ends`, and then the rest.
fn from_both_ends<T>(mut iter: impl DoubleEndedIterator<Item = T>, ends: &[bool]) -> Vec<(bool, T)> {
    let mut taken = vec![];
    for front in ends {
        let next = if *front { iter.next() } else { iter.next_back() };
        let Some(next) = next else { break };
        taken.push((*front, next));
    }
    taken.extend(iter.map(|entry| (true, entry)));
    taken
}

fn entries(model: &Model, t: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    model.iter().filter(|((name, k), _)| name == t && wanted(k)).map(|((_, k), v)| (k.clone(), v.clone())).collect()
}

fn check(engine: &Engine<Kv>, model: &Model) {
    let view = engine.view().unwrap();
    let mut found = Model::new();
    for t in view.tables() {
        found.extend(view.range::<[u8]>(t, ..).map(|(k, v)| ((t.to_string(), k.to_vec()), v.to_vec())));
    }
    assert_eq!(&found, model);
    assert_eq!(view.len(), model.len());
}

fn run(ops: &[Op], seed: u64) {
    let mut disk = SimDisk::new(seed);
    let mut model = Model::new();
    let (mut engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    for op in ops {
        match op {
            Op::Put(..) | Op::Delete(..) | Op::Cas(..) | Op::Batch(_) => {
                let wanted = apply(&mut model, op);
                same(engine.execute(command(op)), wanted, op);
            }
            Op::Transaction(ops, commit) => {
                let before = model.clone();
                let tx = engine.begin().unwrap();
                for op in ops {
                    same(tx.execute(command(op)), apply(&mut model, op), op);
                }
                for t in 0..4 {
                    let found: Vec<_> = tx.prefix_in(&table(t), "").unwrap().collect();
                    assert_eq!(found, entries(&model, &table(t), |_| true));
                }
                if *commit {
                    tx.commit().unwrap();
                } else {
                    tx.rollback().unwrap();
                    model = before;
                }
            }
            Op::Partly(first, undone, last) => {
                let tx = engine.begin().unwrap();
                for op in first {
                    same(tx.execute(command(op)), apply(&mut model, op), op);
                }
                let savepoint: Savepoint = tx.savepoint().unwrap();
                let kept = model.clone();
                for op in undone {
                    same(tx.execute(command(op)), apply(&mut model, op), op);
                }
                tx.rollback_to(savepoint).unwrap();
                model = kept;
                for op in last {
                    same(tx.execute(command(op)), apply(&mut model, op), op);
                }
                tx.commit().unwrap();
            }
            Op::Range(t, start, end, ends) => {
                let (start, end) = (start.map(key), end.map(key));
                let iter = engine.raw_table(table(*t)).range::<Vec<u8>>((start.clone(), end.clone())).unwrap();
                let inside = |k: &[u8]| {
                    let after = match &start {
                        Bound::Included(s) => k >= &s[..],
                        Bound::Excluded(s) => k > &s[..],
                        Bound::Unbounded => true,
                    };
                    let before = match &end {
                        Bound::Included(e) => k <= &e[..],
                        Bound::Excluded(e) => k < &e[..],
                        Bound::Unbounded => true,
                    };
                    after && before
                };
                let wanted = entries(&model, &table(*t), inside);
                assert_eq!(from_both_ends(iter, ends), from_both_ends(wanted.into_iter(), ends), "{op:?}");
            }
            Op::Prefix(t, prefix, ends) => {
                let prefix = key(*prefix);
                let iter = engine.raw_table(table(*t)).prefix(&prefix).unwrap();
                let wanted = entries(&model, &table(*t), |k| k.starts_with(&prefix));
                assert_eq!(from_both_ends(iter, ends), from_both_ends(wanted.into_iter(), ends), "{op:?}");
            }
            Op::Checkpoint => engine.checkpoint().unwrap(),
            Op::Reopen(close) => {
                if *close {
                    engine.close().unwrap();
                }
                drop(engine);
                engine = open_on::<Kv>(&disk, &manual()).unwrap().0;
                check(&engine, &model);
            }
            Op::Crash(seed) => {
                disk = disk.crash(Crash::Seeded(*seed));
                engine = open_on::<Kv>(&disk, &manual()).unwrap().0;
                check(&engine, &model);
            }
        }
    }
    check(&engine, &model);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150 * crate::common::scale() as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_engine_does_what_an_ordered_map_does(ops in proptest::collection::vec(op(), 1..60), seed in any::<u64>()) {
        run(&ops, seed);
    }
}

#[test]
fn iterators_over_many_entries_meet_in_the_middle() {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    for n in 0..1000u32 {
        drop(engine.submit(KvCommand::put("t", n.to_be_bytes(), n.to_le_bytes())).unwrap());
        if n % 100 == 0 {
            engine.checkpoint().unwrap();
        }
    }
    let all: Vec<_> = (0..1000u32).map(|n| (n.to_be_bytes().to_vec(), n.to_le_bytes().to_vec())).collect();
    let mut rng = crate::common::Rng::new(3);
    for _ in 0..30 {
        let bias = 1 + rng.below(9);
        let ends: Vec<bool> = (0..rng.below(1200)).map(|_| rng.below(10) < bias).collect();
        let iter = engine.raw_table("t").iter().unwrap();
        let found = from_both_ends(iter, &ends);
        assert_eq!(found, from_both_ends(all.clone().into_iter(), &ends));
    }
}
