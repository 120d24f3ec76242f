//! Processes that are killed, that end with outstanding promises, and that compete for one store.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Rng, Stacks, scale, state};
use crate::workload::{Ended, LOSERS, Model, is_sync, options, perform};
use seawal::{Durability, Engine, Error};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const THREADS: u8 = 4;
/// The number of transactions that a thread may have begun and not acknowledged.
const OUTSTANDING: usize = 6;

/// The transactions of each thread: which are certain, and which it may have committed beyond
/// those.
pub(crate) struct Committers {
    models: Vec<Model>,
    /// The number of each thread's next transaction, according to the last recovered state.
    next: Vec<u32>,
    /// How many transactions after that were acknowledged.
    acknowledged: Vec<usize>,
    /// How many of those survive power loss.
    synced: Vec<usize>,
}

impl Committers {
    pub(crate) fn new() -> Committers {
        let each = usize::from(THREADS);
        let models = (0..THREADS).map(Model::new).collect();
        Committers { models, next: vec![0; each], acknowledged: vec![0; each], synced: vec![0; each] }
    }

    /// Starts a child that commits on all threads, beginning after the current state.
    pub(crate) fn start(&self, dir: &Path) -> Running {
        let numbers: Vec<u64> = self.next.iter().map(|n| u64::from(*n)).collect();
        Running::start(command(&[], "committers", dir, &numbers))
    }

    /// Notes a line of the child. Returns whether it acknowledged a transaction.
    pub(crate) fn hear(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix("done ") else { return false };
        let (thread, n) = rest.split_once(' ').unwrap();
        let (thread, n): (usize, u32) = (thread.parse().unwrap(), n.parse().unwrap());
        let count = (n + 1 - self.next[thread]) as usize;
        assert_eq!(count, self.acknowledged[thread] + 1, "they are acknowledged in order");
        self.acknowledged[thread] = count;
        if is_sync(n) {
            self.synced[thread] = count;
        }
        true
    }

    /// Compares with a state recovered after a kill: everything acknowledged, and a prefix for each
    /// thread.
    pub(crate) fn check(&mut self, found: &Stacks) {
        assert!(found.at(LOSERS).is_empty(), "they never commit");
        for thread in 0..usize::from(THREADS) {
            let next = self.next[thread];
            let may: Vec<u32> = (next..).take(self.acknowledged[thread] + OUTSTANDING).collect();
            let done = self.models[thread].catch_up(found, &may, self.acknowledged[thread]);
            self.next[thread] = next + done as u32;
            self.acknowledged[thread] = 0;
            self.synced[thread] = 0;
        }
    }

    /// The same after power loss: only commits with `Sync`, and those before them, must be there.
    pub(crate) fn check_after_power_loss(&self, found: &Stacks) {
        assert!(found.at(LOSERS).is_empty(), "they never commit");
        for thread in 0..usize::from(THREADS) {
            let may: Vec<u32> = (self.next[thread]..).take(self.acknowledged[thread] + OUTSTANDING).collect();
            self.models[thread].clone().catch_up(found, &may, self.synced[thread]);
        }
    }
}

pub(crate) fn child_committers() {
    let (dir, next) = started();
    tell("opening");
    let engine: Engine<Stacks> = options().open(dir).unwrap();
    tell("open");
    std::thread::scope(|scope| {
        for (thread, next) in (0..THREADS).zip(&next) {
            let engine = &engine;
            scope.spawn(move || commit_for_ever(engine, thread, *next as u32));
        }
        scope.spawn(|| {
            for n in 0.. {
                let tx = engine.begin().unwrap();
                for _ in 0..1 + n % 5 {
                    tx.execute(Cmd::Push { key: LOSERS, value: n, pad: 500 }).unwrap();
                }
                std::thread::sleep(Duration::from_millis(u64::from(n) % 7));
            }
        });
    });
}

fn commit_for_ever(engine: &Engine<Stacks>, thread: u8, next: u32) {
    let mut outstanding = VecDeque::new();
    for n in next.. {
        let ended = perform(engine, thread, n).unwrap();
        outstanding.push_back((n, ended));
        // an acknowledgement that may be sent waits, so that a thread's are sent in order
        let keep = if n % 11 == 0 { 0 } else { 3 };
        while outstanding.len() > keep {
            let (n, ended) = outstanding.pop_front().unwrap();
            if let Ended::Promised(wait) = ended {
                wait().unwrap();
            }
            tell(&format!("done {thread} {n}"));
        }
        if n % 90 == 50 && thread == 0 {
            engine.checkpoint().unwrap();
        }
    }
}

pub(crate) fn child_opener() {
    let (dir, _) = started();
    tell("opening");
    match options().open::<Stacks>(dir) {
        Ok(engine) => {
            tell("open");
            std::thread::sleep(Duration::from_secs(60));
            drop(engine);
        }
        Err(error) => {
            assert!(error.is_locked(), "{error:?}");
            tell("locked");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_partial_however_often_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(std::process::id().into());
    let mut committers = Committers::new();
    let (mut acknowledged, mut recoveries, mut undone, mut torn) = (0, 0, 0, 0);
    let until = Instant::now() + Duration::from_secs(6 * scale());
    let mut round = 0;
    while round < 15 * scale() || Instant::now() < until {
        round += 1;
        let child = committers.start(dir.path());
        if round % 5 == 0 {
            child.hears("opening");
            std::thread::sleep(Duration::from_micros(rng.below(15_000)));
        } else {
            let wanted = 1 + rng.below(if round % 3 == 0 { 600 } else { 60 });
            let mut heard = 0;
            while heard < wanted {
                let line = child.line().expect("it commits until it is killed");
                heard += u64::from(committers.hear(&line));
            }
            std::thread::sleep(Duration::from_micros(rng.below(3_000)));
            acknowledged += heard;
        }
        acknowledged += child.kill().iter().map(|line| u64::from(committers.hear(line))).sum::<u64>();
        // then kills inside the recovery from that kill
        for _ in 0..rng.below(3) {
            let child = Running::start(command(&[], "opener", dir.path(), &[]));
            child.hears("opening");
            std::thread::sleep(Duration::from_micros(rng.below(12_000)));
            recoveries += u64::from(!child.kill().iter().any(|line| line == "open"));
        }
        let engine = options().open::<Stacks>(dir.path()).unwrap();
        let report = engine.recovery_report().clone();
        undone += report.undone;
        torn += u64::from(report.tail.is_some());
        committers.check(&state(&engine));
        if rng.one_in(3) {
            engine.close().unwrap();
        }
    }
    println!(
        "{round} rounds, {acknowledged} acknowledged, {recoveries} killed in recovery, {undone} undone, {torn} torn tails"
    );
    assert!(acknowledged > 200 && recoveries > 2 && undone > 2, "{acknowledged} {recoveries} {undone}");
}

pub(crate) fn child_that_leaves() {
    let (dir, numbers) = started();
    let engine: Engine<Stacks> = options().open(dir).unwrap();
    for n in 0..20 {
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    let tickets: Vec<_> = (20..200).map(|n| engine.submit(Cmd::Push { key: 1, value: n, pad: 900 }).unwrap()).collect();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(LOSERS, 1)).unwrap();
    match *numbers {
        [0] => std::process::exit(0),
        [1] => std::mem::forget((engine, tickets, tx)),
        [2] => {
            std::mem::forget((tickets, tx));
            drop(engine);
        }
        [3] => drop((tx, engine, tickets)),
        _ => std::process::abort(),
    }
}

#[test]
fn a_process_that_ends_with_tickets_outstanding_and_no_close_leaves_a_store_that_opens() {
    for how in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        Running::start(command(&[], "that_leaves", dir.path(), &[how])).finish();
        let engine: Engine<Stacks> = options().open(dir.path()).unwrap();
        let found = state(&engine);
        let pushed = found.at(1);
        assert!(pushed.len() >= 20, "{how}: {pushed:?}");
        assert!(pushed.iter().copied().eq(0..pushed.len() as u32), "{how}: {pushed:?}");
        assert!(found.at(LOSERS).is_empty(), "{how}");
        engine.execute(Cmd::push(1, 7)).unwrap();
        engine.close().unwrap();
    }
}

#[test]
fn a_leaked_engine_keeps_its_lock_and_its_tickets_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let engine: Engine<Stacks> = options().open(dir.path()).unwrap();
    let ticket = engine.submit(Cmd::push(1, 1)).unwrap();
    std::mem::forget(engine);
    ticket.wait().unwrap();
    let error = Engine::<Stacks>::open(dir.path()).unwrap_err();
    let this = format!("process {} (this one)", std::process::id());
    assert!(matches!(&error, Error::Locked { holder: Some(holder), .. } if *holder == this), "{error:?}");
}

#[test]
fn a_second_process_is_refused_with_the_first_ones_id_until_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let child = Running::start(command(&[], "opener", dir.path(), &[]));
    assert!(child.hears("open"));
    let before = listing(dir.path());
    let error = options().open::<Stacks>(dir.path()).unwrap_err();
    let holder = format!("process {}", child.id());
    assert!(matches!(&error, Error::Locked { holder: Some(text), .. } if *text == holder), "{error:?}");
    assert!(error.to_string().contains(&holder), "{error}");
    assert_eq!(listing(dir.path()), before, "the one that was refused changes nothing");
    child.kill();
    let engine: Engine<Stacks> = options().open(dir.path()).unwrap();
    engine.execute_with(Cmd::push(1, 1), Durability::Os).unwrap();
    // the child is refused too
    let child = Running::start(command(&[], "opener", dir.path(), &[]));
    assert!(child.hears("locked"), "it has an owner");
    engine.close().unwrap();
    assert!(Running::start(command(&[], "opener", dir.path(), &[])).hears("open"));
}

/// The names of the files, with their sizes.
fn listing(dir: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    // the owner preallocates segments in the background
    let entries = entries.filter(|e| !e.file_name().to_string_lossy().starts_with("spare-"));
    let mut all: Vec<_> =
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.metadata().unwrap().len())).collect();
    all.sort();
    all
}
