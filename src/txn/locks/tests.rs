use super::*;
use crate::io::sync::{AtomicBool, AtomicU64, Ordering, thread};
use Access::{Exclusive, Shared};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Instant;

fn new_locks() -> Locks {
    Locks::new(Arc::new(crate::sim::SimDisk::new(1)))
}

fn owner(id: u64) -> Owner {
    Owner { id, age: id }
}

fn write(key: &str) -> Footprint {
    Footprint::key(Exclusive, key.as_bytes())
}

fn read(key: &str) -> Footprint {
    Footprint::key(Shared, key.as_bytes())
}

fn scan(from: &str, to: &str) -> Footprint {
    Footprint::range(Shared, from..to)
}

/// Runs owners 1, 2, 3, … on one thread. It looks at a wait instead of sleeping. The id of an owner
/// is also its age.
struct Script {
    table: LockTable,
    counters: Arc<LockCounters>,
    slots: BTreeMap<u64, Arc<WaitSlot>>,
}

#[derive(Debug, PartialEq)]
enum State {
    Granted,
    Waiting,
    Conflict,
    Timeout,
    Expired,
    SelfDeadlock,
}
use State::*;

impl Script {
    fn new() -> Self {
        let counters = Arc::new(LockCounters::new());
        Script { table: LockTable::new(Arc::clone(&counters)), counters, slots: BTreeMap::new() }
    }

    fn request(&mut self, id: u64, callers: &[u64], footprint: &Footprint, policy: WaitPolicy) -> State {
        let answer = self.table.request((owner(id), callers), footprint, policy, &mut Wakes::new());
        self.table.check();
        match answer {
            Answer::Granted => Granted,
            Answer::Refused(error) => state_of(Err(error)),
            Answer::Waits(slot) => {
                self.slots.insert(id, slot);
                Waiting
            }
        }
    }

    fn ask(&mut self, id: u64, footprint: Footprint) -> State {
        self.request(id, &[], &footprint, WaitPolicy::Wait)
    }

    /// Asks on the thread that runs the closures of these callers.
    fn ask_within(&mut self, callers: &[u64], id: u64, footprint: Footprint) -> State {
        self.request(id, callers, &footprint, WaitPolicy::Wait)
    }

    fn attempt(&mut self, id: u64, footprint: Footprint) -> State {
        self.request(id, &[], &footprint, WaitPolicy::NoWait)
    }

    fn release(&mut self, id: u64) {
        self.table.release(id, &mut Wakes::new());
        self.table.check();
    }

    fn fail(&mut self, id: u64, error: Error) -> bool {
        let waited = self.table.fail(id, error, &mut Wakes::new());
        self.table.check();
        waited
    }

    /// How the owner's wait ended, or `Waiting`.
    fn state(&self, id: u64) -> State {
        self.slots[&id].outcome().map_or(Waiting, state_of)
    }

    fn is_free(&self, footprint: &Footprint) -> bool {
        footprint.claims().iter().all(|claim| !self.table.held().conflicts(claim, None))
    }
}

fn state_of(outcome: Result<()>) -> State {
    match outcome {
        Ok(()) => Granted,
        Err(Error::Conflict) => Conflict,
        Err(Error::LockTimeout) => Timeout,
        Err(Error::Expired) => Expired,
        Err(Error::SelfDeadlock) => SelfDeadlock,
        Err(error) => panic!("unexpected: {error}"),
    }
}

#[test]
fn shared_locks_go_together() {
    let mut s = Script::new();
    assert_eq!(s.ask(1, read("k")), Granted);
    assert_eq!(s.ask(2, read("k")), Granted);
    assert_eq!(s.ask(3, scan("a", "z")), Granted);
    assert_eq!(s.ask(4, Footprint::everything(Shared)), Granted);
    assert_eq!(s.table.held().owners(), 4);
}

#[test]
fn an_exclusive_lock_is_held_alone() {
    let mut s = Script::new();
    assert_eq!(s.ask(1, write("k")), Granted);
    for (id, footprint) in [(2, write("k")), (3, read("k")), (4, scan("a", "z")), (5, Footprint::everything(Shared))] {
        assert_eq!(s.attempt(id, footprint), Timeout);
    }
    assert_eq!(s.attempt(6, write("j")), Granted);
    s.release(1);
    assert_eq!(s.attempt(2, write("k")), Granted);
}

#[test]
fn an_owner_never_conflicts_with_itself() {
    let mut s = Script::new();
    for footprint in [read("k"), write("k"), scan("a", "z"), Footprint::everything(Exclusive), read("k"), write("q")] {
        assert_eq!(s.ask(1, footprint), Granted);
    }
    s.release(1);
    assert!(s.is_free(&Footprint::everything(Exclusive)) && s.counters.is_empty());
}

#[test]
fn a_lone_reader_upgrades_past_those_who_wait_for_it() {
    let mut s = Script::new();
    s.ask(1, read("k"));
    assert_eq!(s.ask(2, write("k")), Waiting);
    assert_eq!(s.ask(3, write("k")), Waiting);
    assert_eq!(s.ask(1, write("k")), Granted);
    s.release(1);
    assert_eq!((s.state(2), s.state(3)), (Granted, Waiting));
}

#[test]
fn of_two_readers_that_upgrade_the_younger_alone_conflicts() {
    for (first, second) in [(1, 2), (2, 1)] {
        let mut s = Script::new();
        s.ask(1, read("k"));
        s.ask(2, read("k"));
        assert_eq!(s.ask(first, write("k")), Waiting);
        let second_state = s.ask(second, write("k"));
        if second == 2 {
            assert_eq!((s.state(1), second_state), (Waiting, Conflict));
        } else {
            assert_eq!((second_state, s.state(2)), (Waiting, Conflict));
        }
        s.release(2);
        assert_eq!(s.state(1), Granted);
    }
}

#[test]
fn a_cycle_of_three_costs_its_youngest_whoever_closes_it() {
    for closer in 0..3 {
        let mut s = Script::new();
        let keys = ["a", "b", "c"];
        for id in 1..=3 {
            s.ask(id, write(keys[id as usize - 1]));
        }
        let order = [0, 1, 2].map(|i| (closer + 1 + i) % 3);
        for at in order {
            let id = at as u64 + 1;
            let state = s.ask(id, write(keys[(at + 1) % 3]));
            assert_eq!(state, if at == closer && id == 3 { Conflict } else { Waiting });
        }
        if closer != 2 {
            assert_eq!(s.state(3), Conflict);
        }
        s.release(3);
        // the second wanted what the third had, and the first wants what the second has
        assert_eq!((s.state(2), s.state(1)), (Granted, Waiting));
        s.release(2);
        assert_eq!(s.state(1), Granted);
    }
}

#[test]
fn one_request_may_close_several_deadlocks() {
    let mut s = Script::new();
    s.ask(1, write("a"));
    for id in [2, 3, 4] {
        s.ask(id, read("b"));
        assert_eq!(s.ask(id, read("a")), Waiting);
    }
    assert_eq!(s.ask(1, write("b")), Waiting);
    assert_eq!([2, 3, 4].map(|id| s.state(id)), [Conflict, Conflict, Conflict]);
}

#[test]
fn a_closure_that_waits_for_its_own_transaction_is_told_at_once() {
    let mut s = Script::new();
    s.ask(1, write("a"));
    assert_eq!(s.ask_within(&[1], 2, write("a")), SelfDeadlock);
    // the caller is the oldest; the request is the victim although the caller is younger, too
    s.ask(9, write("b"));
    assert_eq!(s.ask_within(&[9], 3, read("b")), SelfDeadlock);
    // in nested closures, both callers wait
    assert_eq!(s.ask_within(&[1, 9], 4, read("a")), SelfDeadlock);
    assert_eq!(s.ask_within(&[9], 1, write("b")), SelfDeadlock);
    assert_eq!(s.request(5, &[1], &write("a"), WaitPolicy::NoWait), SelfDeadlock);
    // what is free is granted, and what a third holds is waited for
    assert_eq!(s.ask_within(&[1], 6, write("c")), Granted);
    assert_eq!(s.ask_within(&[1], 7, write("c")), Waiting);
    s.release(6);
    assert_eq!(s.state(7), Granted);
}

#[test]
fn a_closure_that_waits_for_one_that_waits_for_its_transaction_is_told() {
    // whichever comes last
    for second_waits_first in [true, false] {
        let mut s = Script::new();
        s.ask(1, write("a"));
        s.ask(2, write("b"));
        if second_waits_first {
            assert_eq!(s.ask(2, write("a")), Waiting);
            assert_eq!(s.ask_within(&[1], 3, write("b")), SelfDeadlock);
        } else {
            assert_eq!(s.ask_within(&[1], 3, write("b")), Waiting);
            assert_eq!(s.ask(2, write("a")), Waiting);
            assert_eq!(s.state(3), SelfDeadlock);
        }
        s.release(1);
        assert_eq!(s.state(2), Granted);
    }
}

#[test]
fn a_closure_is_let_past_one_that_queues_for_its_transaction() {
    let mut s = Script::new();
    s.ask(1, read("k"));
    assert_eq!(s.ask(2, write("k")), Waiting);
    assert_eq!(s.ask(3, read("k")), Waiting);
    // another reader queues behind the writer, which waits for the closure
    assert_eq!(s.ask_within(&[1], 4, read("k")), Granted);
    s.release(4);
    s.release(1);
    assert_eq!((s.state(2), s.state(3)), (Granted, Waiting));
}

#[test]
fn a_grant_to_a_transaction_whose_closure_waits_elsewhere_closes_a_deadlock() {
    let mut s = Script::new();
    s.ask(1, write("h"));
    s.ask(2, write("b"));
    s.ask(5, read("k"));
    assert_eq!(s.ask(2, write("k")), Waiting);
    // the closure of 1 waits for 2, and another of its threads queues behind 2
    assert_eq!(s.ask_within(&[1], 9, write("b")), Waiting);
    assert_eq!(s.ask(1, read("k")), Waiting);
    // 1 is let past 2, which waits for it from now on
    assert_eq!(s.ask(5, write("h")), Waiting);
    assert_eq!((s.state(1), s.state(9), s.state(2)), (Granted, SelfDeadlock, Waiting));
    s.release(1);
    s.release(5);
    assert_eq!(s.state(2), Granted);
}

#[test]
fn queueing_alone_is_no_deadlock() {
    let mut s = Script::new();
    s.ask(1, write("a"));
    s.ask(2, write("h"));
    // 3 waits for 1, and 2 queues behind 3
    assert_eq!(s.ask(3, write("a").and_key(Exclusive, b"b")), Waiting);
    assert_eq!(s.ask(2, write("b")), Waiting);
    // 1 would wait for 2, which only queues, so 2 goes first
    assert_eq!(s.ask(1, write("h")), Waiting);
    assert_eq!(s.state(2), Granted);
    s.release(2);
    assert_eq!((s.state(1), s.state(3)), (Granted, Waiting));
    s.release(1);
    assert_eq!(s.state(3), Granted);
}

#[test]
fn who_holds_nothing_never_conflicts() {
    let mut s = Script::new();
    s.ask(1, write("a"));
    s.ask(2, write("b"));
    assert_eq!(s.ask(9, write("a").and(write("b"))), Waiting);
    assert_eq!(s.ask(1, write("b")), Waiting);
    assert_eq!(s.ask(2, write("a")), Conflict);
    assert_eq!(s.state(9), Waiting);
}

#[test]
fn a_scan_admits_no_phantom() {
    let mut s = Script::new();
    s.ask(1, scan("b", "d"));
    assert_eq!(s.ask(2, write("c")), Waiting);
    assert_eq!(s.ask(3, write("d")), Granted);
    assert_eq!(s.ask(4, write("a")), Granted);
    assert_eq!(s.attempt(5, Footprint::range(Exclusive, "c".."c5")), Timeout);
    s.release(1);
    assert_eq!(s.state(2), Granted);
    assert_eq!(s.attempt(5, scan("b", "d")), Timeout);
    assert_eq!(s.attempt(5, scan("c1", "d")), Granted);
}

#[test]
fn a_range_that_is_empty_or_reversed_is_harmless() {
    let mut s = Script::new();
    s.ask(1, write("c"));
    assert_eq!(s.attempt(2, scan("c", "c")), Granted);
    assert_eq!(s.attempt(2, scan("d", "a")), Granted);
    let no_key = (Bound::Excluded("c"), Bound::Excluded("c"));
    assert_eq!(s.attempt(2, Footprint::range::<str>(Exclusive, no_key)), Granted);
}

#[test]
fn everything_includes_each_key() {
    let mut s = Script::new();
    s.ask(1, write("k"));
    s.ask(2, read("j"));
    assert_eq!(s.attempt(3, Footprint::everything(Shared)), Timeout);
    s.release(1);
    assert_eq!(s.attempt(3, Footprint::everything(Exclusive)), Timeout);
    assert_eq!(s.attempt(3, Footprint::everything(Shared)), Granted);
    assert_eq!(s.attempt(4, read("new")), Granted);
    assert_eq!(s.attempt(4, write("new")), Timeout);
}

#[test]
fn readers_that_come_later_do_not_overtake_a_writer() {
    let mut s = Script::new();
    s.ask(1, read("k"));
    assert_eq!(s.ask(2, write("k")), Waiting);
    assert_eq!(s.ask(3, read("k")), Waiting);
    assert_eq!(s.attempt(4, read("k")), Timeout);
    assert_eq!(s.attempt(4, read("other")), Granted);
    s.release(1);
    assert_eq!((s.state(2), s.state(3)), (Granted, Waiting));
    s.release(2);
    assert_eq!(s.state(3), Granted);
}

#[test]
fn a_holder_reads_again_what_a_writer_waits_for() {
    let mut s = Script::new();
    s.ask(1, read("k"));
    assert_eq!(s.ask(2, write("k").and(write("j"))), Waiting);
    assert_eq!(s.ask(1, read("k")), Granted);
    assert_eq!(s.attempt(1, read("j")), Granted);
    assert_eq!(s.attempt(3, read("j")), Timeout);
}

#[test]
fn a_release_grants_exactly_what_became_free() {
    let mut s = Script::new();
    s.ask(1, write("a").and(write("b")));
    s.ask(2, write("c"));
    assert_eq!(s.ask(3, read("a")), Waiting);
    assert_eq!(s.ask(4, read("a").and(read("c"))), Waiting);
    assert_eq!(s.ask(5, read("a")), Waiting);
    assert_eq!(s.ask(6, write("b")), Waiting);
    assert_eq!(s.ask(7, write("b")), Waiting);
    let mut wakes = Wakes::new();
    s.table.release(1, &mut wakes);
    assert_eq!([3, 4, 5, 6, 7].map(|id| s.state(id)), [Granted, Waiting, Granted, Granted, Waiting]);
    assert_eq!(wakes.len(), 3);
}

#[test]
fn a_wait_that_ends_in_an_error_lets_those_behind_it_go_on() {
    let mut s = Script::new();
    s.ask(1, read("k"));
    s.ask(2, read("j"));
    assert_eq!(s.ask(2, write("k")), Waiting);
    assert_eq!(s.ask(3, read("k")), Waiting);
    assert_eq!(s.ask(4, write("j")), Waiting);
    assert!(s.fail(2, Error::Expired));
    assert!(!s.fail(2, Error::Expired));
    // the third queued behind the second, and the fourth waits for what the second holds
    assert_eq!([2, 3, 4].map(|id| s.state(id)), [Expired, Granted, Waiting]);
}

#[test]
fn of_two_that_become_free_at_once_the_earlier_goes_first() {
    let mut s = Script::new();
    s.ask(1, write("o"));
    s.ask(4, write("b"));
    assert_eq!(s.ask(2, write("b").and(write("x"))), Waiting);
    assert_eq!(s.ask(3, write("x").and(write("o"))), Waiting);
    // the fourth is let past the third, which waits for the second, which waits for the fourth
    assert_eq!(s.ask(4, write("o")), Waiting);
    // without the second, the fourth is not let past the third
    s.fail(2, Error::LockTimeout);
    s.release(1);
    assert_eq!((s.state(3), s.state(4)), (Granted, Waiting));
}

#[test]
fn an_attempt_leaves_no_trace() {
    let mut s = Script::new();
    s.ask(1, write("a"));
    s.ask(2, write("b"));
    assert_eq!(s.ask(1, write("b")), Waiting);
    // waiting would be a deadlock, and the younger of the two asks
    assert_eq!(s.attempt(2, write("a").and(write("c"))), Conflict);
    assert_eq!(s.attempt(3, write("c")), Granted);
    // if the older one asks without waiting, the younger does not become a victim
    let mut s = Script::new();
    s.ask(1, write("a"));
    s.ask(2, write("b"));
    assert_eq!(s.ask(2, write("a")), Waiting);
    assert_eq!(s.attempt(1, write("b")), Timeout);
    assert_eq!(s.state(2), Waiting);
}

#[test]
fn the_counters_admit_what_is_surely_free_and_nothing_that_is_not() {
    let mut s = Script::new();
    s.ask(1, read("k"));
    assert!(s.counters.admits_key(Shared, b"k") && !s.counters.admits_key(Exclusive, b"k"));
    assert!(s.counters.admits_key(Exclusive, b"j"));
    s.ask(1, write("k"));
    assert!(!s.counters.admits_key(Shared, b"k"));
    s.ask(1, scan("a", "b"));
    assert!(s.counters.admits_key(Shared, b"j") && !s.counters.admits_key(Exclusive, b"j"));
    s.release(1);
    assert!(s.counters.is_empty());
}

#[test]
fn a_clock_that_jumps_ends_a_wait() {
    let disk = crate::sim::SimDisk::new(1);
    let locks = Arc::new(Locks::new(Arc::new(disk.clone())));
    locks.acquire(owner(1), &write("a"), Duration::ZERO).unwrap();
    let waiter = {
        let locks = Arc::clone(&locks);
        std::thread::spawn(move || locks.acquire(owner(2), &write("a"), Duration::from_secs(3600)))
    };
    while !waiter.is_finished() {
        disk.advance(Duration::from_secs(3600));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(waiter.join().unwrap(), Err(Error::LockTimeout)));
}

#[test]
fn a_timeout_leaves_what_was_held_before() {
    let locks = new_locks();
    locks.acquire(owner(1), &write("a"), Duration::ZERO).unwrap();
    locks.acquire(owner(2), &write("b"), Duration::ZERO).unwrap();
    let both = write("a").and(write("c"));
    let error = locks.acquire(owner(2), &both, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, Error::LockTimeout));
    assert!(!locks.key_is_free(Shared, b"b", None));
    assert!(locks.key_is_free(Exclusive, b"c", None));
    assert!(locks.is_free(&write("b"), Some(owner(2))));
    assert!(!locks.is_free(&write("b"), Some(owner(1))));
    assert_eq!((locks.holders(), locks.waiters()), (2, 0));
}

fn until(condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < limit, "it does not come to pass");
        thread::yield_now();
    }
}

#[test]
fn a_release_wakes_the_waiting_thread() {
    let locks = new_locks();
    assert!(locks.try_acquire(owner(1), &write("k")));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| locks.acquire(owner(2), &write("k"), Duration::MAX));
        until(|| locks.waiters() == 1);
        assert!(locks.is_free(&write("k"), Some(owner(1))), "waiters don't count");
        locks.release(owner(1));
        waiter.join().unwrap().unwrap();
    });
    assert!(!locks.key_is_free(Shared, b"k", None));
    locks.release(owner(2));
    assert_eq!(locks.holders(), 0);
}

#[test]
fn a_grant_that_meets_the_timeout_stands() {
    let locks = new_locks();
    assert!(locks.try_acquire(owner(1), &write("k")));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| locks.acquire(owner(2), &write("k"), Duration::from_millis(30)));
        until(|| locks.waiters() == 1);
        // the request is granted, but the thread is not woken before its time is over
        locks.table.lock().release(1, &mut Wakes::new());
        waiter.join().unwrap().unwrap();
    });
    assert!(!locks.key_is_free(Shared, b"k", None));
}

#[test]
fn a_cancelled_wait_ends_with_the_error_given() {
    let locks = new_locks();
    assert!(locks.try_acquire(owner(1), &write("k")));
    assert!(locks.try_acquire(owner(2), &write("j")));
    assert!(!locks.cancel(owner(2), Error::Expired));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| locks.acquire(owner(2), &write("k"), Duration::from_secs(60)));
        until(|| locks.waiters() == 1);
        assert!(locks.cancel(owner(2), Error::Closed));
        assert!(matches!(waiter.join().unwrap(), Err(Error::Closed)));
    });
    assert_eq!(locks.holders(), 2);
}

#[test]
fn a_victim_is_woken_and_the_other_goes_on() {
    let locks = new_locks();
    assert!(locks.try_acquire(owner(1), &write("a")));
    assert!(locks.try_acquire(owner(2), &write("b")));
    thread::scope(|scope| {
        let younger = scope.spawn(|| {
            let outcome = locks.acquire(owner(2), &write("a"), Duration::from_secs(60));
            locks.release(owner(2));
            outcome
        });
        until(|| locks.waiters() == 1);
        locks.acquire(owner(1), &write("b"), Duration::from_secs(60)).unwrap();
        assert!(younger.join().unwrap().unwrap_err().is_conflict());
    });
}

/// A small generator, so that each thread's choices come from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn many_threads_lose_no_update_and_all_transactions_end() {
    const KEYS: u64 = 10;
    const THREADS: u64 = 8;
    const TRANSACTIONS: u64 = 2000;
    let locks = new_locks();
    let ids = AtomicU64::new(1);
    let ages = AtomicU64::new(1);
    let counters: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let (writes, conflicts) = (AtomicU64::new(0), AtomicU64::new(0));
    let sloppy = AtomicBool::new(false);

    // one step: a read of a range, or an increment that would lose an update beside another writer
    let step = |me: Owner, random: &mut Random| -> Result<u64> {
        let first = random.below(KEYS);
        let last = first + random.below(3).min(KEYS - 1 - first);
        let key = |i: u64| [b'0' + i as u8];
        let timeout = Duration::from_secs(30);
        match random.below(20) {
            0 => {
                locks.acquire(me, &Footprint::everything(Shared), timeout)?;
                Ok(0)
            }
            1..6 => {
                locks.acquire(me, &Footprint::range(Shared, key(first)..=key(last)), timeout)?;
                let sum = || (first..=last).map(|i| counters[i as usize].load(Ordering::Relaxed)).sum::<u64>();
                let before = sum();
                thread::yield_now();
                sloppy.fetch_or(before != sum(), Ordering::Relaxed);
                Ok(0)
            }
            6..10 => {
                locks.acquire(me, &Footprint::key(Shared, &key(first)), timeout)?;
                Ok(0)
            }
            _ => {
                let both = Footprint::key(Exclusive, &key(first)).and_key(Exclusive, &key(last));
                locks.acquire(me, &both, timeout)?;
                let counter = &counters[first as usize];
                let value = counter.load(Ordering::Relaxed);
                if random.below(4) == 0 {
                    thread::yield_now();
                }
                counter.store(value + 1, Ordering::Relaxed);
                Ok(1)
            }
        }
    };
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (locks, ids, ages, writes, conflicts, step) = (&locks, &ids, &ages, &writes, &conflicts, &step);
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                for _ in 0..TRANSACTIONS {
                    let age = ages.fetch_add(1, Ordering::Relaxed);
                    loop {
                        let me = Owner { id: ids.fetch_add(1, Ordering::Relaxed), age };
                        let outcome = (0..1 + random.below(3)).try_for_each(|_| {
                            writes.fetch_add(step(me, &mut random)?, Ordering::Relaxed);
                            Ok(())
                        });
                        locks.release(me);
                        match outcome {
                            Ok(()) => break,
                            Err(Error::Conflict) => conflicts.fetch_add(1, Ordering::Relaxed),
                            Err(error) => panic!("seed {seed}: {error}"),
                        };
                    }
                }
            });
        }
    });
    assert!(!sloppy.into_inner(), "a reader saw a counter change");
    assert_eq!(
        counters.iter().map(|c| c.load(Ordering::Relaxed)).sum::<u64>(),
        writes.into_inner(),
        "an update is lost"
    );
    assert_ne!(conflicts.into_inner(), 0, "no deadlock came up, so none was tested");
    assert_eq!((locks.holders(), locks.waiters()), (0, 0));
    assert!(locks.counters.is_empty());
}

fn bound() -> impl Strategy<Value = Bound<String>> {
    prop_oneof![Just(Bound::Unbounded), "[a-e]{0,2}".prop_map(Bound::Included), "[a-e]{0,2}".prop_map(Bound::Excluded)]
}

fn footprint() -> impl Strategy<Value = Footprint> {
    let access = || prop_oneof![Just(Shared), Just(Exclusive)];
    let claim = prop_oneof![
        6 => (access(), "[a-e]{0,2}").prop_map(|(access, key)| Footprint::key(access, key.as_bytes())),
        2 => (access(), bound(), bound()).prop_map(|(access, from, to)| Footprint::range::<String>(access, (from, to))),
        1 => access().prop_map(Footprint::everything),
    ];
    prop::collection::vec(claim, 0..4).prop_map(|all| all.into_iter().fold(Footprint::none(), Footprint::and))
}

#[derive(Clone, Debug)]
enum Act {
    Ask(u64, Footprint),
    AskWithin(Vec<u64>, u64, Footprint),
    Attempt(u64, Footprint),
    Release(u64),
    Fail(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let id = || 1..7u64;
    prop_oneof![
        6 => (id(), footprint()).prop_map(|(id, footprint)| Act::Ask(id, footprint)),
        3 => (prop::collection::vec(id(), 1..3), id(), footprint()).prop_map(|(mut callers, id, footprint)| {
            callers.retain(|caller| *caller != id);
            Act::AskWithin(callers, id, footprint)
        }),
        2 => (id(), footprint()).prop_map(|(id, footprint)| Act::Attempt(id, footprint)),
        2 => id().prop_map(Act::Release),
        1 => id().prop_map(Act::Fail),
    ]
}

proptest! {
    #[test]
    fn without_waiting_it_does_what_a_list_of_footprints_does(
        acts in prop::collection::vec((1..5u64, prop::option::weighted(0.8, footprint())), 0..40)
    ) {
        let locks = new_locks();
        let mut model: Vec<(u64, Footprint)> = Vec::new();
        for (id, footprint) in acts {
            let Some(footprint) = footprint else {
                locks.release(owner(id));
                model.retain(|(holder, _)| *holder != id);
                continue;
            };
            let free_but_for = |except: Option<u64>| {
                model.iter().all(|(holder, held)| Some(*holder) == except || !held.conflicts_with(&footprint))
            };
            prop_assert_eq!(locks.is_free(&footprint, None), free_but_for(None));
            prop_assert_eq!(locks.is_free(&footprint, Some(owner(id))), free_but_for(Some(id)));
            for claim in footprint.claims() {
                if let Some(key) = claim.key() {
                    let single = Footprint::key(claim.access, key);
                    prop_assert_eq!(locks.key_is_free(claim.access, key, None), locks.is_free(&single, None));
                }
            }
            let free = free_but_for(Some(id));
            prop_assert_eq!(locks.try_acquire(owner(id), &footprint), free);
            if free && !footprint.claims().is_empty() {
                model.push((id, footprint));
            }
            let mut holders: Vec<u64> = model.iter().map(|(holder, _)| *holder).collect();
            holders.sort_unstable();
            holders.dedup();
            prop_assert_eq!(locks.holders(), holders.len());
        }
    }

    #[test]
    fn grants_never_conflict_victims_are_never_the_oldest_and_everyone_ends(
        acts in prop::collection::vec(act(), 0..60)
    ) {
        let mut s = Script::new();
        let mut held: BTreeMap<u64, Footprint> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, Footprint> = BTreeMap::new();
        // at the end each owner that does not wait releases; then no owner may be left waiting
        let ending = (0..7).flat_map(|_| (1..7).map(Act::Release));
        let last = acts.len();
        for (at, act) in acts.into_iter().chain(ending).enumerate() {
            match act {
                Act::Ask(id, _) | Act::AskWithin(_, id, _) | Act::Attempt(id, _) if waiting.contains_key(&id) => {}
                Act::AskWithin(callers, id, footprint) => match s.ask_within(&callers, id, footprint.clone()) {
                    Granted => { held.insert(id, held_with(&held, id, footprint)); }
                    Waiting => { waiting.insert(id, footprint); }
                    Conflict => prop_assert!(held.keys().min() < Some(&id), "{id} is a victim"),
                    SelfDeadlock => prop_assert!(!callers.is_empty()),
                    state => prop_assert!(false, "{state:?}"),
                },
                Act::Ask(id, footprint) => match s.ask(id, footprint.clone()) {
                    Granted => { held.insert(id, held_with(&held, id, footprint)); }
                    Waiting => { waiting.insert(id, footprint); }
                    Conflict => prop_assert!(held.keys().min() < Some(&id), "{id} is a victim"),
                    state => prop_assert!(false, "{state:?}"),
                },
                Act::Attempt(id, footprint) => {
                    let free = held.iter().all(|(other, held)| *other == id || !held.conflicts_with(&footprint));
                    match s.attempt(id, footprint.clone()) {
                        Granted => {
                            prop_assert!(free);
                            held.insert(id, held_with(&held, id, footprint));
                        }
                        Conflict => prop_assert!(held.keys().min() < Some(&id), "{id} is a victim"),
                        Timeout => prop_assert!(!free || !waiting.is_empty()),
                        state => prop_assert!(false, "{state:?}"),
                    }
                }
                Act::Release(id) if at >= last && waiting.contains_key(&id) => {}
                Act::Release(id) => {
                    s.release(id);
                    held.remove(&id);
                }
                Act::Fail(id) => prop_assert_eq!(s.fail(id, Error::LockTimeout), waiting.contains_key(&id)),
            }
            for id in waiting.keys().copied().collect::<Vec<_>>() {
                match s.state(id) {
                    Waiting => continue,
                    Granted => {
                        let all = held_with(&held, id, waiting[&id].clone());
                        held.insert(id, all);
                    }
                    Conflict => prop_assert!(held.contains_key(&id) && held.keys().min() < Some(&id), "{id} is a victim"),
                    Timeout | Expired | SelfDeadlock => {}
                }
                waiting.remove(&id);
            }
            for (a, first) in &held {
                for (b, second) in &held {
                    prop_assert!(a == b || !first.conflicts_with(second), "{a} and {b} hold what conflicts");
                }
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} wait without a blocker");
        prop_assert!(s.counters.is_empty());
    }
}

fn held_with(held: &BTreeMap<u64, Footprint>, id: u64, more: Footprint) -> Footprint {
    held.get(&id).cloned().unwrap_or_default().and(more)
}
