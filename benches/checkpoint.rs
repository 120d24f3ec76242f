//! Checkpoints: writing, syncing and reading back a snapshot without pacing, next to the sequential
//! rate of the disk. Also the freeze that a view takes.
//!
//! At the end, the benchmark prints latency percentiles of commits, during a paced checkpoint and
//! without one.
//!
//! `SEAWAL_BENCH_ENTRIES=1000000` sets the largest number of entries.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]
#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

mod common;

use common::{batch, dir, latencies_beside, most_entries, percentiles, sequential};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seawal::kv::Kv;
use seawal::{Engine, Options};
use std::path::Path;
use std::time::{Duration, Instant};

/// The length of the newest snapshot in bytes.
fn snapshot_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file"));
    let snapshots = files.filter(|file| file.path().extension().is_some_and(|e| e == "snap"));
    snapshots.map(|file| file.metadata().expect("a length").len()).max().expect("a snapshot")
}

fn fill(engine: &Engine<Kv>, entries: u64) {
    let tickets: Vec<_> = (0..entries / 100).map(|n| engine.submit(batch(n)).expect("a commit")).collect();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait().expect("durability")));
}

fn checkpoint(c: &mut Criterion) {
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    let most = most_entries(10_000_000);
    for entries in [100_000, 1_000_000, 10_000_000].into_iter().filter(|n| *n <= most) {
        group.throughput(Throughput::Elements(entries));
        let place = dir();
        let engine: Engine<Kv> =
            Options::new().checkpoint_bytes_per_second(None).open(place.path()).expect("a store to measure");
        fill(&engine, entries);
        // so that each of the following benchmarks has a snapshot when it runs alone
        engine.checkpoint().expect("a checkpoint");
        group.bench_function(format!("unpaced, {entries}"), |b| {
            b.iter_custom(|times| {
                let mut taken = Duration::ZERO;
                for n in 0..times {
                    // a new record, because a checkpoint without one does nothing
                    engine.execute(batch(n % 7)).expect("a commit");
                    let began = Instant::now();
                    engine.checkpoint().expect("a checkpoint");
                    taken += began.elapsed();
                }
                taken
            });
        });
        let bytes = snapshot_bytes(place.path());
        println!("    {:.1} MB; the longest freeze took {:?}", bytes as f64 / 1e6, engine.stats().longest_freeze);
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(format!("the disk's own sequential write of that, {entries}"), |b| {
            b.iter_custom(|n| (0..n).map(|_| sequential(place.path(), bytes).write).sum());
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("view of {entries}"), |b| b.iter(|| engine.view().expect("a view")));
    }
    group.finish();
}

/// Prints the latency percentiles of two committing threads, alternately during a paced checkpoint
/// and for as long without one.
fn beside(_: &mut Criterion) {
    let (place, entries) = (dir(), most_entries(1_000_000).min(1_000_000));
    let options = Options::new().first_segment_bytes(64 << 20).checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40);
    let engine: Engine<Kv> = options.open(place.path()).expect("a store to measure");
    fill(&engine, entries);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let began = Instant::now();
        with.extend(latencies_beside(&engine, 2, entries, || engine.checkpoint().map(drop).expect("a checkpoint")));
        let took = began.elapsed();
        without.extend(latencies_beside(&engine, 2, entries, || std::thread::sleep(took)));
    }
    percentiles("latency of sync commits, 2 threads, beside a paced checkpoint", with);
    percentiles("latency of sync commits, 2 threads, without", without);
}

criterion_group!(benches, checkpoint, beside);
criterion_main!(benches);
