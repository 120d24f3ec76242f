//! Recovery time: replay of a log in batches of 100 and of one of single synchronous commits,
//! loading a snapshot, and the undo of losers. It covers up to ten million entries, next to the
//! sequential read rate of the disk.
//!
//! `SEAWAL_BENCH_ENTRIES=1000000` sets the largest number of entries. Below each figure, the phases
//! of one more open are printed.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]
#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

mod common;

use common::{batch, dir, most_entries, put, sequential};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::explore::KilledStore;
use seawal::{Engine, Options};
use std::path::Path;
use std::time::{Duration, Instant};

/// Options without automatic checkpoints, so that the log keeps every record.
fn options() -> Options {
    Options::new().checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40)
}

fn loser(number: u64, n: u64) -> KvCommand {
    KvCommand::put("losers", [number.to_be_bytes(), n.to_be_bytes()].concat(), common::VALUE)
}

/// The time to open the store `times` times. It is never closed, so that each open finds the same
/// log.
fn opens(dir: &Path, times: u64) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..times {
        let began = Instant::now();
        let engine: Engine<Kv> = options().open(dir).expect("recovery");
        taken += began.elapsed();
        drop(engine);
    }
    taken
}

/// Opens the store once more and prints the phases, with the rates of the measured one.
fn tell_phases(dir: &Path, entries: u64) {
    let engine = options().open::<Kv>(dir).expect("recovery");
    let report = engine.recovery_report().clone();
    drop(engine);
    let phases = report.phases;
    let (phase, bytes) = match report.log_bytes > report.snapshot_bytes {
        true => (phases.redo, report.log_bytes),
        false => (phases.snapshot, report.snapshot_bytes),
    };
    let rate = |n: u64| n as f64 / phase.as_secs_f64() / 1e6;
    println!(
        "    attach {:.1?}, snapshot {:.1?}, redo {:.1?}, cut {:.1?}, undo {:.1?};",
        phases.open_dir, phases.snapshot, phases.redo, phases.cut, phases.undo
    );
    println!("    {:.2} million entries/s and {:.0} MB/s in that phase", rate(entries), rate(bytes));
}

fn sizes() -> Vec<u64> {
    let most = most_entries(10_000_000);
    [100_000, 1_000_000, 10_000_000].into_iter().filter(|n| *n <= most).collect()
}

fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    for entries in sizes() {
        group.throughput(Throughput::Elements(entries));
        let place = dir();
        let killed = KilledStore { records: entries / 100, losers: 0, inverses: 0 };
        killed.build::<Kv>(place.path(), &options(), batch, loser).expect("a killed store");
        group.bench_function(format!("log replay, {entries}"), |b| b.iter_custom(|n| opens(place.path(), n)));
        tell_phases(place.path(), entries);
        let engine: Engine<Kv> = options().open(place.path()).expect("recovery");
        engine.close().expect("a clean close");
        group.bench_function(format!("snapshot load, {entries}"), |b| b.iter_custom(|n| opens(place.path(), n)));
        tell_phases(place.path(), entries);
    }
    group.finish();
}

/// Shows whether a log in which each commit has its own block is read at the rate of the disk.
fn single_commits(c: &mut Criterion) {
    const COMMITS: u64 = 50_000;
    let mut group = c.benchmark_group("recovery of single synchronous commits");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    let place = dir();
    let engine: Engine<Kv> = options().open(place.path()).expect("a store to measure");
    (0..COMMITS).for_each(|n| drop(engine.execute(put(n)).expect("a commit")));
    drop(engine);
    let engine = options().open::<Kv>(place.path()).expect("recovery");
    let report = engine.recovery_report().clone();
    drop(engine);
    group.throughput(Throughput::Bytes(report.log_bytes));
    group.bench_function(format!("log replay, {COMMITS}"), |b| b.iter_custom(|n| opens(place.path(), n)));
    tell_phases(place.path(), COMMITS);
    let place = dir();
    group.bench_function("the disk's sequential read rate", |b| {
        b.iter_custom(|n| (0..n).map(|_| sequential(place.path(), report.log_bytes).read).sum());
    });
    group.finish();
}

/// Measures the undo. It is durable once done, so each open needs its own store.
fn losers(c: &mut Criterion) {
    let mut group = c.benchmark_group("recovery with losers");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    for (records, losers, inverses) in [(10_000, 1, 10_000), (10_000, 100, 100), (10_000, 1_000, 100)] {
        group.throughput(Throughput::Elements(losers * inverses));
        let name = format!("{records} records, {losers} losers with {inverses} inverses each");
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let mut taken = Duration::ZERO;
                for _ in 0..times {
                    let place = dir();
                    let killed = KilledStore { records, losers, inverses };
                    killed.build::<Kv>(place.path(), &options(), put, loser).expect("a killed store");
                    taken += opens(place.path(), 1);
                }
                taken
            });
        });
    }
    group.finish();
}

criterion_group!(benches, recovery, single_commits, losers);
criterion_main!(benches);
