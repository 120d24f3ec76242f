//! Crashes at every operation of workloads with several open transactions, and crashes inside the
//! recoveries from them.

use crate::common::{scale, stacks};
use seawal::StateMachine;
use seawal::sim::explore::{Explorable, Explore, Explored};

fn explored<M: Explorable>(explore: &Explore<M>) -> Explored {
    let explored = explore.run().unwrap_or_else(|failure| panic!("{}: {failure}", M::NAME));
    println!("{}: {explored:?}", <M as StateMachine>::NAME);
    explored
}

#[test]
fn the_workload_does_what_it_is_for() {
    let explored = explored(&stacks().seeds(12).steps(300).one_in(500));
    for what in [
        "committed",
        "executed",
        "submitted",
        "rolled back",
        "rolled back to a savepoint",
        "rejected",
        "checkpoint",
        "reopened",
        "view",
        "expired",
        "losers undone",
        "snapshot loaded",
        "rotated",
        "recycled",
        "rotated into a recycled segment",
        "segment removed",
        "closed",
    ] {
        assert!(explored.did.contains_key(what), "{what}: {explored:?}");
    }
}

#[test]
fn every_crash_leaves_a_prefix_with_all_that_was_acknowledged() {
    let explored = explored(&stacks().seeds(2 * scale()).steps(40));
    assert!(explored.within_recovery > explored.states / 20, "{explored:?}");
}

#[test]
fn every_crash_of_the_built_in_machine_leaves_a_prefix_too() {
    explored(&Explore::kv().seed(1_000).seeds(2 * scale()).steps(40));
}

#[test]
fn crashes_in_long_workloads_with_many_segments_leave_a_prefix_too() {
    explored(&stacks().seed(2_000).seeds(3 * scale()).steps(800).one_in(300));
}

#[test]
fn crashes_around_a_checkpoint_that_recycles_a_segment_and_a_rotation_into_it_leave_a_prefix_too() {
    let explored = explored(&stacks().seed(100).steps(90));
    for what in ["checkpoint", "rotated", "recycled", "rotated into a recycled segment", "closed"] {
        assert!(explored.did.contains_key(what), "{what}: {explored:?}");
    }
}
