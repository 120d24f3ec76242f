//! The allocations of the hot paths, compared with a baseline, so that no clock is involved.
//! `.ci/instructions` guards the instructions.
//!
//! `SEAWAL_GUARD=record cargo test --test guard` records a new baseline in
//! `tests/guard/allocations.tsv`.
#![allow(clippy::print_stdout, reason = "how the figures compare")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "guard/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use workload::{WORKLOADS, Workload};

/// The repetitions of each workload.
const TIMES: u64 = 1_000;
/// The accepted growth of the total over the baseline, for lists that grow now and then.
const TOLERANCE: f64 = 0.02;

fn baseline_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/guard/allocations.tsv")
}

fn allocations(name: &str) -> u64 {
    let mut workload = Workload::new(name).unwrap();
    // warm up: allocations that happen once, and lists that grow to their size
    workload.run(TIMES);
    allocation_counter::measure(|| workload.run(TIMES)).count_total
}

#[test]
fn the_hot_paths_allocate_no_more_than_their_baseline() {
    let measured: BTreeMap<&str, u64> = WORKLOADS.iter().map(|name| (*name, allocations(name))).collect();
    if std::env::var_os("SEAWAL_GUARD").is_some_and(|what| what == "record") {
        let mut text = format!("# allocations in {TIMES} operations\n");
        measured.iter().for_each(|(name, count)| writeln!(text, "{name}\t{count}").unwrap());
        std::fs::write(baseline_file(), text).unwrap();
        return;
    }
    let text = std::fs::read_to_string(baseline_file()).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let baseline: BTreeMap<&str, u64> = lines.map(|(name, count)| (name, count.parse().unwrap())).collect();
    assert_eq!(
        baseline.keys().collect::<Vec<_>>(),
        measured.keys().collect::<Vec<_>>(),
        "the baseline is of other workloads"
    );
    let mut worse = Vec::new();
    for (name, count) in measured {
        let (before, allowed) = (baseline[name], baseline[name] as f64 * (1.0 + TOLERANCE) + 2.0);
        println!("{name}: {count} allocations in {TIMES} operations, in the baseline {before}");
        if count as f64 > allowed {
            worse.push(format!("{name}: {count} allocations, not {before}"));
        }
    }
    assert!(worse.is_empty(), "{}", worse.join("; "));
}
