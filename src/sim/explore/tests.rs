//! Whether explorations find what they are for: machines that break their law in one way each,
//! invariants that do not hold, and states that are none; and whether what they find can be seen
//! again.

use super::oracle::{Judge, Lost};
use super::{Explore, Failure, Look, Replay};
use crate::machine::{Access, Applied, Bulk, BulkMachine, DecodeError, Footprint, StateMachine};
use crate::sim::{Rng, SimDisk};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One way to break the law; by default nothing is broken.
trait Flaw: Clone + Default + Send + Sync + 'static {
    /// What an addition really adds: the second number changes with each call of `apply` in the
    /// process.
    fn added(by: i64, _calls: u64) -> i64 {
        by
    }
    /// The inverse of an addition that led from `before`.
    fn inverse(key: u8, by: i64, _before: i64) -> Op {
        Op::Add { key, by: -by }
    }
    /// Whether an addition is refused.
    fn refuses(key: u8, by: i64, _sums: &BTreeMap<u8, i64>) -> bool {
        let _ = key;
        by == 7
    }
    /// What a refusal does all the same.
    fn spoil(_sums: &mut BTreeMap<u8, i64>) {}
    fn loaded(_sums: &mut BTreeMap<u8, i64>) {}
    fn redone(by: i64) -> i64 {
        by
    }
    /// Which key an addition shows when it is asked for its keys alone.
    fn shown(key: u8) -> u8 {
        key
    }
    /// The inverse that is told afterwards.
    fn told(by: i64) -> i64 {
        -by
    }
    const EXTRA_LEN: usize = 0;
    const SHARES: bool = false;
    const COUNTS_AMONG_ALL: bool = false;
}

#[derive(Clone, Debug, PartialEq)]
enum Op {
    Add { key: u8, by: i64 },
}

/// Sums by key; those that are zero are left out.
#[derive(Clone, Default)]
struct Sums<F> {
    sums: BTreeMap<u8, i64>,
    shared: Arc<AtomicU64>,
    flaw: PhantomData<F>,
}

static CALLS: AtomicU64 = AtomicU64::new(0);

impl<F: Flaw> Sums<F> {
    fn add(&mut self, key: u8, by: i64) -> i64 {
        let sum = self.sums.entry(key).or_default();
        *sum += by;
        let now = *sum;
        if now == 0 {
            self.sums.remove(&key);
        }
        now
    }
}

impl<F: Flaw> StateMachine for Sums<F> {
    const NAME: &'static str = "sums";
    const VERSION: u32 = 1;
    const BULK: Option<Bulk<Self>> = Some(Bulk::of());
    type Command = Op;
    type Reply = i64;
    type Rejection = u8;

    fn apply(&mut self, command: &Op) -> Result<(i64, Op), u8> {
        let Op::Add { key, by } = *command;
        if F::refuses(key, by, &self.sums) {
            F::spoil(&mut self.sums);
            return Err(key);
        }
        let before = self.sums.get(&key).copied().unwrap_or(0);
        let mut now = self.add(key, F::added(by, CALLS.fetch_add(1, Ordering::Relaxed)));
        if F::SHARES {
            now = self.shared.fetch_add(1, Ordering::Relaxed) as i64;
        }
        if F::COUNTS_AMONG_ALL {
            now = self.sums.len() as i64;
        }
        Ok((now, F::inverse(key, by, before)))
    }

    fn footprint(command: &Op) -> Footprint {
        let Op::Add { key, .. } = command;
        Footprint::key(Access::Exclusive, &[*key])
    }

    fn encode(command: &Op, out: &mut Vec<u8>) {
        let Op::Add { key, by } = command;
        out.push(*key);
        out.extend_from_slice(&by.to_le_bytes());
    }

    fn decode(bytes: &[u8], _version: u32) -> Result<Op, DecodeError> {
        let (key, by) = bytes.split_first().ok_or_else(|| DecodeError::new("nothing"))?;
        let by = by.try_into().map_err(|_| DecodeError::new("nine bytes"))?;
        Ok(Op::Add { key: *key, by: i64::from_le_bytes(by) })
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        for (key, sum) in &self.sums {
            out.write_all(&[*key])?;
            out.write_all(&sum.to_le_bytes())?;
        }
        Ok(())
    }

    fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut loaded = Self::default();
        while !input.fill_buf()?.is_empty() {
            let (mut key, mut sum) = ([0], [0; 8]);
            input.read_exact(&mut key)?;
            input.read_exact(&mut sum)?;
            loaded.sums.insert(key[0], i64::from_le_bytes(sum));
        }
        F::loaded(&mut loaded.sums);
        Ok(loaded)
    }
}

impl<F: Flaw> BulkMachine for Sums<F> {
    fn apply_without_inverse(&mut self, command: &Op) -> Applied<Self> {
        self.apply(command).map(|(now, _)| (now, None))
    }

    fn inverse_of(command: &Op, _now: &i64) -> Option<Op> {
        let Op::Add { key, by } = *command;
        Some(if F::told(by) == -by { F::inverse(key, by, 0) } else { Op::Add { key, by: F::told(by) } })
    }

    fn visit_keys(command: &Op, visit: &mut dyn FnMut(&[u8])) -> bool {
        let Op::Add { key, .. } = command;
        visit(&[F::shown(*key)]);
        true
    }

    fn encoded_len(_command: &Op) -> usize {
        9 + F::EXTRA_LEN
    }

    fn redo(&mut self, commands: &[&[u8]], version: u32) -> Result<(), crate::machine::RedoFault> {
        for bytes in commands {
            if let Ok(Op::Add { key, by }) = Self::decode(bytes, version) {
                self.add(key, F::redone(by));
            }
        }
        Ok(())
    }
}

macro_rules! flaw {
    ($name:ident { $($item:item)* }) => {
        #[derive(Clone, Default)]
        struct $name;
        impl Flaw for $name { $($item)* }
    };
}

flaw!(Lawful {});
flaw!(NotDeterministic { fn added(by: i64, calls: u64) -> i64 { by + (calls % 2) as i64 } });
flaw!(NotUndone { fn inverse(key: u8, by: i64, _: i64) -> Op { Op::Add { key, by: by.abs().min(3) - by } } });
flaw!(LeavesItsFootprint { fn inverse(key: u8, by: i64, _: i64) -> Op { Op::Add { key: key ^ 1, by: -by } } });
flaw!(InverseRejects { fn refuses(_: u8, by: i64, _: &BTreeMap<u8, i64>) -> bool { by == -3 } });
flaw!(ReadsBeyond {
    fn refuses(key: u8, _: i64, sums: &BTreeMap<u8, i64>) -> bool {
        key == 0 && sums.get(&1).is_some_and(|sum| sum % 2 != 0)
    }
});
flaw!(ShowsOthers { const COUNTS_AMONG_ALL: bool = true; });
flaw!(SharesInClones { const SHARES: bool = true; });
flaw!(LosesInLoad { fn loaded(sums: &mut BTreeMap<u8, i64>) { sums.remove(&2); } });
flaw!(RedoesOtherwise { fn redone(by: i64) -> i64 { if by == 5 { 6 } else { by } } });
flaw!(MiscountsItsBytes { const EXTRA_LEN: usize = 1; });
flaw!(RejectsWithATrace { fn spoil(sums: &mut BTreeMap<u8, i64>) { *sums.entry(9).or_default() += 1; } });
flaw!(ShowsAnotherKey { fn shown(key: u8) -> u8 { key & 1 } });
flaw!(TellsAnotherInverse { fn told(by: i64) -> i64 { if by == 4 { 4 } else { -by } } });
flaw!(Panics { fn added(by: i64, _: u64) -> i64 { assert!(by != 4, "four is too much"); by } });

fn op(rng: &mut Rng) -> Op {
    Op::Add { key: rng.below(4) as u8, by: rng.below(14) as i64 - 6 }
}

fn sums<F: Flaw>() -> Explore<Sums<F>> {
    Explore::commands(op).steps(25)
}

fn flaw_of<F: Flaw>() -> String {
    let failure = sums::<F>().run().unwrap_err();
    assert!(failure.history().len() <= 8, "not made small: {failure}");
    let again = sums::<F>().replay(failure.replay()).unwrap_err();
    assert_eq!(again.replay(), failure.replay());
    // a state at a time is all that the law needs: nothing was run
    let by_failures = sums::<F>().fail_each_operation().unwrap_err();
    assert!(by_failures.what().starts_with("the machine breaks its law"), "{by_failures}");
    failure.what().strip_prefix("the machine breaks its law: ").unwrap_or_else(|| panic!("{failure}")).to_owned()
}

#[test]
fn each_way_to_break_the_law_is_found_and_named() {
    let found = [
        (flaw_of::<NotDeterministic>(), "is not deterministic"),
        (flaw_of::<NotUndone>(), "leave something that"),
        (flaw_of::<LeavesItsFootprint>(), "leaves its footprint"),
        (flaw_of::<InverseRejects>(), "is rejected after"),
        (flaw_of::<ShowsOthers>(), "depends on"),
        (flaw_of::<SharesInClones>(), "is not deterministic"),
        (flaw_of::<LosesInLoad>(), "after load of save"),
        (flaw_of::<RedoesOtherwise>(), "redo gives another state"),
        (flaw_of::<MiscountsItsBytes>(), "encoded_len"),
        (flaw_of::<RejectsWithATrace>(), "was rejected and changed the state"),
        (flaw_of::<ShowsAnotherKey>(), "visits other keys than its footprint names"),
        (flaw_of::<TellsAnotherInverse>(), "apply_without_inverse"),
        (flaw_of::<Panics>(), "four is too much"),
    ];
    // seen from one side, or from the other
    let beyond = flaw_of::<ReadsBeyond>();
    assert!(beyond.contains("depends on") || beyond.contains("is rejected after"), "{beyond}");
    for (what, wanted) in found {
        assert!(what.contains(wanted), "{what:?} does not say {wanted:?}");
    }
}

#[test]
fn a_lawful_machine_passes_and_one_seed_gives_one_exploration() {
    let explore = || sums::<Lawful>().seed(3).seeds(2).steps(15).one_in(6);
    let once = explore().run().unwrap();
    assert_eq!(once.seeds, 2);
    assert_eq!(once, explore().run().unwrap());
    assert_eq!(once, explore().threads(2).run().unwrap());
    let few = sums::<Lawful>().states(100).run().unwrap();
    assert!((100..120).contains(&few.states), "{few:?}");
}

/// Finds it, sees that it is small, and finds it again from the text of its replay.
fn found_again(explore: &Explore<Sums<Lawful>>, failure: &Failure) {
    let replay: Replay = failure.replay().to_string().parse().unwrap();
    let again = explore.replay(&replay).unwrap_err();
    assert_eq!((again.what(), again.history()), (failure.what(), failure.history()));
    let line = format!("explore.replay(&\"{replay}\".parse().unwrap()).unwrap();");
    assert!(failure.to_string().ends_with(&line), "{failure}");
}

fn no_sum_above(most: i64) -> impl Fn(&Sums<Lawful>) -> Result<(), String> + Send + Sync + 'static {
    move |m| match m.sums.values().find(|sum| **sum > most) {
        Some(sum) => Err(format!("{sum} is more than {most}")),
        None => Ok(()),
    }
}

#[test]
fn an_invariant_that_does_not_hold_is_found_made_small_and_found_again() {
    let explore = sums().invariant(no_sum_above(5)).steps(60);
    let failure = explore.run().unwrap_err();
    assert!(failure.what().contains("is more than 5"), "{failure}");
    assert!(failure.history().iter().any(|line| line.contains("Add")), "{failure}");
    // what follows a recovery may be enough
    assert!(failure.replay().steps().unwrap().len() <= 4, "{failure}");
    found_again(&explore, &failure);
    // a replay needs no telling how many steps were drawn
    assert!(sums().invariant(no_sum_above(5)).steps(0).replay(failure.replay()).is_err());

    let explore = sums().invariant(no_sum_above(0)).steps(20);
    let failure = explore.fail_each_operation().unwrap_err();
    assert!(failure.to_string().contains("replay(&\"f"), "{failure}");
    found_again(&explore, &failure);
}

/// N8: a planted bug is told by commands and states, and by a line that finds it again.
#[test]
fn a_broken_invariant_is_told_in_the_machines_own_terms() {
    let explore = sums().invariant(no_sum_above(5)).show_state(|m: &Sums<Lawful>| format!("{:?}", m.sums));
    let failure = explore.run().unwrap_err();
    let text = failure.to_string();
    assert!(
        failure.what().starts_with("the invariant does not hold after these commands, without any crash"),
        "{text}"
    );
    let (after, before) = failure.history().split_last().unwrap();
    assert!(after.starts_with("the state after: {"), "{text}");
    let states = before.iter().filter(|line| line.starts_with("the state before: {")).count();
    let commands = before.iter().filter(|line| line.starts_with("Add { key: ")).count();
    assert!(states == 1 && (1..=3).contains(&commands) && before.len() == states + commands, "{text}");
    assert!(text.contains(&format!("; {commands} of 25 steps ")), "{text}");
    found_again(&explore, &failure);
    // without a way to show a state, its bytes are shown
    let failure = sums().invariant(no_sum_above(5)).run().unwrap_err();
    assert!(failure.history().iter().any(|line| line.starts_with("the state before: b\"")), "{failure}");
}

/// N8: what a crash alone breaks is not told as "0 of 60 steps are enough".
#[test]
fn a_failure_counts_the_steps_that_it_needs_in_words_that_make_sense() {
    let told = |left| {
        let wrong = super::failure::Wrong { what: "it is wrong".into(), lines: Vec::new(), steps_done: 0 };
        wrong.into_failure(60, left, Replay::of_seed(3)).to_string()
    };
    assert!(told(0).contains("none of its 60 steps is needed") && !told(0).contains("0 of 60"), "{}", told(0));
    assert!(told(1).contains("1 of 60 steps is enough"), "{}", told(1));
    assert!(told(2).contains("2 of 60 steps are enough"), "{}", told(2));
}

#[test]
fn the_invariant_of_the_empty_state_is_looked_at_too() {
    let failure = sums::<Lawful>().invariant(|m| (!m.sums.is_empty()).then_some(()).ok_or("empty".into())).run();
    assert!(failure.unwrap_err().what().contains("the empty state: empty"));
}

/// What is put into one key is taken out of another.
fn transfer(rng: &mut Rng) -> Vec<Op> {
    let (from, by) = (rng.below(4) as u8, 1 + rng.below(5) as i64);
    vec![Op::Add { key: from, by: -by }, Op::Add { key: (from + 1) % 4, by }]
}

fn balanced(m: &Sums<Lawful>) -> Result<(), String> {
    let sum: i64 = m.sums.values().sum();
    if sum == 0 { Ok(()) } else { Err(format!("{sum} too much")) }
}

#[test]
fn transactions_are_kept_whole() {
    let explored = Explore::transactions(transfer).invariant(balanced).steps(150).seeds(2).one_in(40).run().unwrap();
    for what in ["committed", "rolled back", "losers undone"] {
        assert!(explored.did.contains_key(what), "{what}: {explored:?}");
    }
    // the same commands by themselves are no such thing
    let parts = Explore::<Sums<Lawful>>::commands(|rng| transfer(rng).remove(0)).invariant(balanced).run();
    assert!(parts.unwrap_err().what().contains("too much"));
    let explored = Explore::transactions(transfer).invariant(balanced).steps(25).fail_each_operation().unwrap();
    assert!(explored.did.contains_key("latched"), "{explored:?}");
}

#[test]
fn a_listed_workload_is_played_out_in_its_order() {
    let list: Vec<Vec<Op>> = (0..9).map(|n| vec![Op::Add { key: 0, by: 0 }, Op::Add { key: n, by: 1 }]).collect();
    let once = |m: &Sums<Lawful>| {
        if m.sums.values().all(|sum| *sum == 1) { Ok(()) } else { Err(format!("not once: {:?}", m.sums)) }
    };
    let explore = Explore::<Sums<Lawful>>::workload(list.clone()).steps(0).seeds(2).one_in(40).invariant(once);
    explore.run().unwrap_or_else(|e| panic!("{e}"));
    let disk = SimDisk::new(1);
    explore.run_on(&disk).unwrap_or_else(|e| panic!("{e}"));
    let engine = crate::Options::new().open_on::<Sums<Lawful>>(Arc::new(disk)).unwrap();
    assert!(engine.read(|m| m.sums.keys().copied().eq(0..9)).unwrap());
    let failure = Explore::<Sums<Lawful>>::workload(list)
        .one_in(20)
        .invariant(|m| if m.sums.contains_key(&5) { Err("five is there".into()) } else { Ok(()) });
    let found = failure.run().unwrap_err();
    assert!(found.what().contains("five is there"), "{found}");
    found_again(&failure, &found);
}

#[test]
fn looks_are_taken_and_one_that_looks_beyond_its_footprint_is_found() {
    let looked = Arc::new(AtomicU64::new(0));
    let count = looked.clone();
    let looks = move |rng: &mut Rng| {
        let (key, count) = (rng.below(4) as u8, count.clone());
        Look::new(&Footprint::key(Access::Shared, &[key]), move |m: &Sums<Lawful>| {
            count.fetch_add(1, Ordering::Relaxed);
            m.sums.get(&key).map(|sum| sum.to_le_bytes().to_vec()).unwrap_or_default()
        })
    };
    sums().looks(looks).steps(40).one_in(5).run().unwrap();
    assert!(looked.load(Ordering::Relaxed) > 10);
    let all = |_: &mut Rng| {
        Look::new(&Footprint::key(Access::Shared, &[0]), |m: &Sums<Lawful>| format!("{:?}", m.sums).into_bytes())
    };
    let failure = sums().looks(all).steps(100).one_in(1000).seeds(10).run().unwrap_err();
    assert!(failure.what().contains("a read shows something else than what is committed"), "{failure}");
}

#[test]
fn full_disks_are_met_and_gone_on_from() {
    let explored = sums::<Lawful>().full_disks().steps(200).seeds(12).one_in(200).run().unwrap();
    assert!(explored.did.contains_key("full"), "{explored:?}");
}

#[test]
fn a_workload_ends_with_its_disk_and_goes_on_with_a_store_that_is_there() {
    use crate::sim::{Crash, Fault, Persistence};
    let disk = SimDisk::new(1);
    disk.fail_at(120, Fault::Crash, Persistence::ForEver);
    let explored = sums::<Lawful>().seed(4).steps(100).run_on(&disk).unwrap();
    assert!(disk.is_down() && explored.did["opened"] >= 1, "{explored:?}");
    let left = move |_| disk.crash(Crash::Seeded(3));
    let explored = sums::<Lawful>().disks(left).steps(5).seeds(2).one_in(8).run().unwrap();
    assert!(explored.did.contains_key("opened") && explored.states > 100, "{explored:?}");
    let failure = sums().invariant(no_sum_above(0)).steps(100).run_on(&SimDisk::new(2)).unwrap_err();
    assert!(failure.what().contains("is more than 0") && !failure.history().is_empty(), "{failure}");
}

#[test]
fn the_judge_takes_a_prefix_with_all_that_was_acknowledged_and_nothing_else() {
    let judge = Judge::of(vec![1, 2, 3, 4], 1, 2);
    let takes = |lost| (0..6).filter(|found| judge.check(*found, lost).is_ok()).collect::<Vec<u64>>();
    assert_eq!(takes(Lost::Power), [2, 3, 4]);
    assert_eq!(takes(Lost::Process), [3, 4]);
    let why = judge.check(1, Lost::Power).unwrap_err();
    assert_eq!(why, "0 commits are there, of 1 acknowledged and 3 made");
}

#[test]
fn a_replay_is_read_as_it_is_written_and_nothing_else_is_one() {
    for text in ["17", "f0", "c3:1,4", "17:", "17:4", "17:0,3-5,9", "f18446744073709551615:0-100"] {
        assert_eq!(text.parse::<Replay>().unwrap().to_string(), text);
    }
    for text in ["", "f", ":", ":3", "x", "-1", "+1", "1:x", "1:3-", "1:5-3", "1:3,3", "1:4,3", "1:1,,2", "1:99999999"]
    {
        let error = text.parse::<Replay>().unwrap_err();
        assert!(error.contains("as in 17:0,3-5"), "{text}: {error}");
    }
}
