//! The allocations of the hot paths, compared with a baseline, so that no clock is involved.
//! `.ci/instructions` guards the instructions.
//!
//! `SEAWAL_GUARD=record cargo test --test guard` records a new baseline in
//! `tests/guard/allocations.tsv`.
#![allow(clippy::print_stdout, reason = "how the figures compare")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "guard/workload.rs"]
mod workload;

use seawal::kv::Kv;
use seawal::{Background, Durability, Error, ExecuteError, Options, Transaction};
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

/// U7: the memory of a transaction is within a factor of two of its limit, whatever it consists of:
/// tiny inverses, large ones, locks of reads, or savepoints.
#[test]
fn a_transaction_takes_no_more_memory_than_twice_its_limit() {
    const LIMIT: u64 = 4 << 20;
    const LARGE: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .background(Background::Manual)
        .durability(Durability::Os)
        .segment_bytes(8 << 20)
        .max_pending_bytes(256 << 10)
        .max_txn_undo_bytes(LIMIT);
    let engine = options.open::<Kv>(dir.path()).unwrap();
    let key = |n: u64| n.to_be_bytes();
    (0..60_000).for_each(|n| _ = engine.insert(key(n), "v").unwrap());
    (0..1_000u64).for_each(|n| _ = engine.raw_table("large").insert(key(n), vec![1; LARGE]).unwrap());
    type Act = fn(&Transaction<Kv>, u64) -> seawal::ExecuteResult<Kv, ()>;
    let acts: [(&str, Act); 5] = [
        ("tiny writes", |tx, n| tx.insert(n.to_be_bytes(), "w").map(drop)),
        ("one key again and again", |tx, _| tx.insert(0u64.to_be_bytes(), "w").map(drop)),
        ("large values", |tx, n| tx.insert_in("large", n.to_be_bytes(), vec![2; LARGE]).map(drop)),
        ("reads", |tx, n| Ok(tx.get(n.to_be_bytes()).map(drop)?)),
        ("savepoints", |tx, _| Ok(tx.savepoint().map(drop)?)),
    ];
    let mut wrong = Vec::new();
    for (what, act) in acts {
        let tx = engine.begin().unwrap();
        let mut times = 0;
        let taken = allocation_counter::measure(|| {
            let error = (0..1_000_000).find_map(|n| {
                times = n;
                act(&tx, n).err()
            });
            assert!(
                matches!(error, Some(ExecuteError::Failed(Error::TooLarge { limit: LIMIT, .. }))),
                "{what}: {error:?}"
            );
        });
        println!("{what}: {times} times, {} bytes", taken.bytes_current);
        if !(LIMIT / 2..=LIMIT * 2).contains(&u64::try_from(taken.bytes_current).unwrap()) {
            wrong.push((what, times, taken.bytes_current));
        }
        tx.rollback().unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
