//! Recovery time: replay of a log written in batches of 100, loading a snapshot, and the undo of losers; up to ten million entries.
//!
//! `SEAWAL_BENCH_ENTRIES=1000000` sets the largest number of entries.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]

mod common;

use common::{batch, dir, put};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::KilledStore;
use seawal::{Engine, Options};
use std::path::Path;
use std::time::{Duration, Instant};

/// Nothing is checkpointed away while the store is built.
fn options() -> Options {
    Options::new().checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40)
}

fn loser(number: u64, n: u64) -> KvCommand {
    KvCommand::put("losers", [number.to_be_bytes(), n.to_be_bytes()].concat(), common::VALUE)
}

/// Opens the store so many times. It is left without being closed, so that each open finds the same log.
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

fn sizes() -> Vec<u64> {
    let most = std::env::var("SEAWAL_BENCH_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
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
        let engine: Engine<Kv> = options().open(place.path()).expect("recovery");
        engine.close().expect("a clean close");
        group.bench_function(format!("snapshot load, {entries}"), |b| b.iter_custom(|n| opens(place.path(), n)));
    }
    group.finish();
}

/// Undo is durable once done, so each open needs a store of its own.
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

criterion_group!(benches, recovery, losers);
criterion_main!(benches);
