//! One seed gives one trace of operations.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

mod common;

use common::manual;
use common::oracle::{Oracle, run};
use seawal::sim::{Crash, Fault, Persistence, SimDisk};

fn trace(disk_seed: u64, seed: u64) -> (u64, u64) {
    let disk = SimDisk::new(disk_seed);
    let mut oracle = Oracle::default();
    run(&disk, &mut oracle, seed, 300, &manual()).unwrap();
    assert!(oracle.counts.contains_key("submitted") && oracle.counts.contains_key("committed"));
    (disk.trace_hash(), disk.op_count())
}

#[test]
fn one_seed_gives_one_trace_of_interleaved_transactions_tickets_and_checkpoints() {
    for seed in 0..6 {
        let first = trace(seed, seed);
        assert!(first.1 > 100, "{first:?}");
        assert_eq!(first, trace(seed, seed), "seed {seed}");
    }
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(trace(1, 1).0, trace(1, 2).0, "another workload");
    assert_ne!(trace(1, 1).0, trace(2, 1).0, "another disk, and so another store id");
}

#[test]
fn a_crash_and_the_recovery_from_it_give_one_trace() {
    let recovered = |op: u64| {
        let disk = SimDisk::new(4);
        disk.fail_at(op, Fault::Crash, Persistence::ForEver);
        let mut oracle = Oracle::default();
        let _ = run(&disk, &mut oracle, 4, 300, &manual());
        let disk = disk.crash(Crash::Seeded(op));
        oracle.crashed(Crash::Seeded(op));
        run(&disk, &mut oracle, 5, 50, &manual()).unwrap();
        disk.trace_hash()
    };
    for op in [20, 60, 111, 140] {
        assert_eq!(recovered(op), recovered(op), "op {op}");
    }
}
