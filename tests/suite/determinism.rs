//! One seed always gives the same trace of operations, and the same exploration.

use crate::common::stacks;
use seawal::sim::SimDisk;

#[test]
fn one_seed_gives_one_trace_of_interleaved_transactions_tickets_and_checkpoints() {
    let trace = |seed| {
        let disk = SimDisk::new(1);
        let did = stacks().seed(seed).steps(300).run_on(&disk).unwrap_or_else(|e| panic!("{e}")).did;
        (disk.trace_hash(), did)
    };
    for seed in 0..6 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
        assert_ne!(trace(seed), trace(seed + 1), "seed {seed}");
    }
}

#[test]
fn crashes_and_the_recoveries_from_them_are_the_same_each_time() {
    let explore = stacks().seed(5).steps(30).one_in(10);
    let once = explore.run().unwrap();
    assert!(once.within_recovery > 0, "{once:?}");
    assert_eq!(once, explore.run().unwrap());
}
