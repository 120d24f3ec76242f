//! Tests of the checker: it rejects every named anomaly, and accepts a history that differs from it
//! in one point. The names follow Adya, "Weak Consistency" (MIT 1999).

use super::history::{Did, End, History, List};
use Did::{Append, CountEven, Delete, Read, Scan, Swap};

const X: u8 = b'x';
const Y: u8 = b'y';

fn saw(key: u8, list: &[u32]) -> Did {
    Read { key, saw: (!list.is_empty()).then(|| list.to_vec()) }
}

fn append(key: u8, value: u32) -> Did {
    Append { key, value }
}

fn scan(saw: &[(u8, &[u32])]) -> Did {
    Scan { keys: 0..255, saw: saw.iter().map(|(key, list)| (*key, List::from(*list))).collect() }
}

/// Whether these transactions may all have run at the same time and committed.
fn together<const N: usize>(txns: [Vec<Did>; N]) -> bool {
    ended(txns.map(|did| (did, End::Committed)))
}

fn ended<const N: usize>(txns: [(Vec<Did>, End); N]) -> bool {
    let history = History::default();
    let ids = txns.clone().map(|_| history.begin());
    for (id, (did, end)) in ids.into_iter().zip(txns) {
        history.end(id, did, end);
    }
    history.is_strictly_serializable()
}

/// Whether these transactions may have run one after another.
fn in_turn<const N: usize>(txns: [Vec<Did>; N]) -> bool {
    let history = History::default();
    for did in txns {
        let id = history.begin();
        history.end(id, did, End::Committed);
    }
    history.is_strictly_serializable()
}

#[test]
fn g0_writes_in_two_orders_are_rejected() {
    let writers = |a, b| [vec![append(X, a), append(Y, a)], vec![append(X, b), append(Y, b)]];
    let [one, two] = writers(1, 2);
    assert!(!together([one.clone(), two.clone(), vec![saw(X, &[1, 2]), saw(Y, &[2, 1])]]));
    assert!(together([one, two, vec![saw(X, &[2, 1]), saw(Y, &[2, 1])]]));
}

#[test]
fn g1a_a_value_of_what_was_rolled_back_is_rejected() {
    let writer = |end| (vec![append(X, 1), saw(X, &[1])], end);
    assert!(!ended([writer(End::RolledBack), (vec![saw(X, &[1])], End::Committed)]));
    assert!(ended([writer(End::RolledBack), (vec![saw(X, &[])], End::Committed)]));
    assert!(ended([writer(End::Committed), (vec![saw(X, &[1])], End::Committed)]));
}

#[test]
fn g1b_a_value_from_the_middle_of_a_transaction_is_rejected() {
    let writer = vec![append(X, 1), append(X, 2)];
    assert!(!together([writer.clone(), vec![saw(X, &[1])]]));
    assert!(together([writer, vec![saw(X, &[1, 2])]]));
}

#[test]
fn g1c_two_that_see_each_other_are_rejected() {
    let first = vec![append(X, 1), saw(Y, &[2])];
    assert!(!together([first.clone(), vec![append(Y, 2), saw(X, &[1])]]));
    assert!(together([first, vec![append(Y, 2), saw(X, &[])]]));
}

#[test]
fn g_single_half_of_another_transaction_is_rejected() {
    let writer = vec![append(X, 1), append(Y, 1)];
    assert!(!together([writer.clone(), vec![saw(X, &[]), saw(Y, &[1])]]));
    assert!(together([writer, vec![saw(X, &[1]), saw(Y, &[1])]]));
}

#[test]
fn g2_write_skew_is_rejected() {
    let first = vec![saw(X, &[]), append(Y, 1)];
    assert!(!together([first.clone(), vec![saw(Y, &[]), append(X, 1)]]));
    assert!(together([first, vec![saw(Y, &[1]), append(X, 1)]]));
}

#[test]
fn a_lost_update_is_rejected() {
    let first = vec![saw(X, &[]), append(X, 1)];
    assert!(!together([first.clone(), vec![saw(X, &[]), append(X, 2)]]));
    assert!(together([first, vec![saw(X, &[1]), append(X, 2)]]));
}

#[test]
fn phantoms_are_rejected() {
    let first = vec![scan(&[]), append(X, 1)];
    assert!(!together([first.clone(), vec![scan(&[]), append(Y, 1)]]));
    assert!(together([first, vec![scan(&[(X, &[1])]), append(Y, 1)]]));
    // the same range scanned twice, with a new key the second time
    assert!(!together([vec![append(X, 1)], vec![scan(&[]), scan(&[(X, &[1])])]]));
    // a key that is deleted between the append and the scan
    assert!(!in_turn([vec![append(X, 1)], vec![Delete { key: X }], vec![scan(&[(X, &[1])])]]));
}

#[test]
fn a_predicate_that_no_longer_holds_is_rejected() {
    let even = |saw| CountEven { keys: 0..255, saw };
    let taker = |key, count| vec![even(count), append(key, 9)];
    let begin = vec![append(X, 1), append(X, 2), append(Y, 1), append(Y, 2)];
    assert!(!together([begin.clone(), taker(X, 2), taker(Y, 2)]));
    assert!(together([begin, taker(X, 2), taker(Y, 1)]));
}

#[test]
fn a_swap_that_could_not_be_is_rejected() {
    let swap = |new: &[u32], saw: Result<(), Option<List>>| Swap { key: X, expected: None, new: new.to_vec(), saw };
    assert!(!together([vec![swap(&[1], Ok(()))], vec![swap(&[2], Ok(()))]]));
    assert!(together([vec![swap(&[1], Ok(()))], vec![swap(&[2], Err(Some(vec![1])))]]));
    assert!(!together([vec![swap(&[2], Err(None))]]));
}

#[test]
fn what_had_returned_comes_before_what_then_began() {
    assert!(!in_turn([vec![append(X, 1)], vec![saw(X, &[])]]));
    assert!(in_turn([vec![append(X, 1)], vec![saw(X, &[1])]]));
    assert!(together([vec![append(X, 1)], vec![saw(X, &[])]]), "at the same time it may come first");
}
