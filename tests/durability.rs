//! Crashes at every operation of workloads with several open transactions, and crashes inside the recoveries from them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

mod common;

use common::oracle::{Oracle, run};
use common::{Rng, manual, scale};
use seawal::sim::{Crash, Fault, Persistence, SimDisk};
use seawal::storage::WritePath;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn disk(seed: u64) -> SimDisk {
    let path = if seed % 3 == 2 { WritePath::BufferedSync } else { WritePath::Direct };
    SimDisk::builder().seed(seed).write_path(path).build()
}

fn crashes(op: u64, rng: &mut Rng) -> Vec<Crash> {
    let mut all = vec![Crash::Seeded(rng.next()), Crash::Seeded(rng.next())];
    match op % 4 {
        0 => all.push(Crash::Nothing),
        1 => all.push(Crash::Everything),
        2 => all.push(Crash::KillOnly),
        _ => all.push(Crash::TornBlock(rng.next())),
    }
    all
}

fn any_crash(rng: &mut Rng) -> Crash {
    match rng.below(8) {
        0 => Crash::Nothing,
        1 => Crash::Everything,
        2 => Crash::KillOnly,
        3 => Crash::TornBlock(rng.next()),
        _ => Crash::Seeded(rng.next()),
    }
}

/// After a crash: crashes again inside recovery, `depth` times, then recovers, works on, crashes and recovers.
fn recover_and_go_on(mut disk: SimDisk, oracle: &mut Oracle, rng: &mut Rng, depth: u64) {
    for _ in 0..depth {
        let op = rng.below(70);
        disk.fail_at(op, Fault::Crash, Persistence::ForEver);
        let result = run(&disk, oracle, rng.next(), 6, &manual());
        if let Err(error) = &result {
            assert!(disk.is_down(), "recovery fails at op {op}: {error:?}\n{}", oracle.tail());
        }
        let crash = any_crash(rng);
        disk = disk.crash(crash);
        oracle.crashed(crash);
    }
    run(&disk, oracle, rng.next(), 25, &manual()).unwrap_or_else(|e| panic!("{e:?}\n{}", oracle.tail()));
    let crash = any_crash(rng);
    disk = disk.crash(crash);
    oracle.crashed(crash);
    run(&disk, oracle, rng.next(), 0, &manual()).unwrap_or_else(|e| panic!("{e:?}\n{}", oracle.tail()));
}

fn explore(seed: u64, actions: u64, stride: u64) -> u64 {
    let whole = disk(seed);
    let mut oracle = Oracle::default();
    run(&whole, &mut oracle, seed, actions, &manual()).unwrap_or_else(|e| panic!("{e:?}\n{}", oracle.tail()));
    let operations = whole.op_count();
    let mut states = 0;
    let mut op = seed % stride;
    while op < operations {
        let mut rng = Rng::new(seed * 1_000_003 + op);
        let before = disk(seed);
        before.fail_at(op, Fault::Crash, Persistence::ForEver);
        let mut oracle = Oracle::default();
        let described = format!("seed {seed}, op {op} of {operations}");
        let stopped = catch_unwind(AssertUnwindSafe(|| run(&before, &mut oracle, seed, actions, &manual())));
        let Ok(stopped) = stopped else { panic!("{described}: before the crash") };
        assert!(stopped.is_err() || before.is_down() || op + 40 > operations, "{described}: not stopped");
        for crash in crashes(op, &mut rng) {
            let mut oracle = oracle.clone();
            oracle.crashed(crash);
            let depth = rng.below(3);
            let after = before.crash(crash);
            let done = catch_unwind(AssertUnwindSafe(|| recover_and_go_on(after, &mut oracle, &mut rng, depth)));
            assert!(done.is_ok(), "{described}, {crash:?}, depth {depth}");
            states += depth + 2;
        }
        op += stride;
    }
    states
}

#[test]
fn the_workload_does_what_it_is_for() {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..20 {
        let disk = disk(seed);
        let mut oracle = Oracle::default();
        run(&disk, &mut oracle, seed, 400, &manual()).unwrap_or_else(|e| panic!("{e:?}\n{}", oracle.tail()));
        for (what, count) in oracle.counts {
            *counts.entry(what).or_insert(0) += count;
        }
    }
    println!("{counts:?}");
    for what in [
        "committed",
        "executed",
        "submitted",
        "rolled back",
        "rollback_to",
        "rejected",
        "checkpoint",
        "reopen",
        "view",
        "expired",
        "snapshot used",
    ] {
        assert!(counts.get(what).is_some_and(|n| *n > 0), "{what}: {counts:?}");
    }
}

#[test]
fn every_crash_leaves_a_prefix_with_all_that_was_acknowledged() {
    let mut states = 0;
    for seed in 0..2 * scale() {
        states += explore(seed, 150, 1);
    }
    println!("{states} states");
}

#[test]
fn crashes_in_long_workloads_leave_a_prefix_too() {
    let mut states = 0;
    for seed in 100..100 + 8 * scale() {
        states += explore(seed, 600, 61);
    }
    println!("{states} states");
}
