//! Checkpoints: writing, syncing and reading back a snapshot without pacing, next to the sequential
//! rate of the disk. Also the freeze that a view takes.
//!
//! At the end, the benchmark prints latency percentiles of commits, during a paced checkpoint and
//! without one: of `Kv`, and of a `BTreeMap` that is cloned or replayed for it.
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

/// A machine of ordinary values, whose clone takes time in proportion to the state.
#[cfg(feature = "serde")]
mod ordinary {
    use super::common::{dir, key, most_entries, percentiles};
    use seawal::machine::{SerdeMachine, SnapshotSource};
    use seawal::{Durability, Engine, Options};
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Map<const REPLAYED: bool>(BTreeMap<[u8; 16], Option<String>>);

    impl<const REPLAYED: bool> SerdeMachine for Map<REPLAYED> {
        const NAME: &'static str = "map";
        const VERSION: u32 = 1;
        const SNAPSHOT_SOURCE: SnapshotSource = if REPLAYED { SnapshotSource::Replay } else { SnapshotSource::Clone };
        /// Keys and their new values.
        type Command = Vec<([u8; 16], Option<String>)>;
        type Reply = ();
        type Rejection = ();

        fn apply(&mut self, command: &Self::Command) -> Result<((), Self::Command), ()> {
            let put = |(key, value): &([u8; 16], Option<String>)| (*key, self.0.insert(*key, value.clone()).flatten());
            Ok(((), command.iter().map(put).collect()))
        }
    }

    fn put(n: u64) -> ([u8; 16], Option<String>) {
        (key(n), Some(n.to_string().repeat(4)))
    }

    /// Prints the latencies of a thread that commits while a checkpoint is taken, and without one.
    fn beside<const REPLAYED: bool>(name: &str) {
        let (place, entries) = (dir(), most_entries(3_000_000).min(3_000_000));
        let options = Options::new().first_segment_bytes(64 << 20).checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40);
        let engine: Engine<Map<REPLAYED>> = options.open(place.path()).expect("a store to measure");
        for first in (0..entries).step_by(1000) {
            drop(engine.submit((first..first + 1000).map(put).collect::<Vec<_>>()).map_err(|_| ()).expect("a commit"));
        }
        engine.checkpoint().expect("a checkpoint");
        let latencies = |durability, work: &dyn Fn()| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let commits = scope.spawn(|| {
                    let (mut taken, mut n) = (Vec::new(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        let before = Instant::now();
                        engine.execute_with(vec![put(n % entries)], durability).map_err(|_| ()).expect("a commit");
                        taken.push(before.elapsed());
                        n += 1;
                    }
                    taken
                });
                work();
                stop.store(true, Ordering::Relaxed);
                commits.join().expect("a thread that commits")
            })
        };
        // those of the second kind wait for no device
        for durability in [Durability::Sync, Durability::Os].into_iter().cycle().take(6) {
            let began = Instant::now();
            let with = latencies(durability, &|| engine.checkpoint().expect("a checkpoint"));
            let took = began.elapsed();
            let without = latencies(durability, &|| std::thread::sleep(took));
            let name = format!("{name}, {durability:?} commits");
            percentiles(&format!("{name}, beside a checkpoint of {entries} entries, which took {took:.1?}"), with);
            percentiles(&format!("{name}, without"), without);
        }
        println!("{name}: the core lock was held for {:?}", engine.stats().longest_freeze);
    }

    pub(super) fn measure(_: &mut super::Criterion) {
        beside::<false>("map, cloned");
        beside::<true>("map, replayed");
    }
}

#[cfg(not(feature = "serde"))]
mod ordinary {
    pub(super) fn measure(_: &mut super::Criterion) {}
}

criterion_group!(benches, checkpoint, beside, ordinary::measure);
criterion_main!(benches);
