//! Checkpoints: writing, syncing and reading back a snapshot, unpaced; and the freeze that a view takes.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]

mod common;

use common::{batch, dir};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seawal::kv::Kv;
use seawal::{Engine, Options};
use std::time::{Duration, Instant};

fn checkpoint(c: &mut Criterion) {
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    for entries in [100_000, 1_000_000] {
        group.throughput(Throughput::Elements(entries));
        let place = dir();
        let engine: Engine<Kv> =
            Options::new().checkpoint_bytes_per_second(None).open(place.path()).expect("a store to measure");
        let tickets: Vec<_> = (0..entries / 100).map(|n| engine.submit(batch(n)).expect("a commit")).collect();
        tickets.into_iter().for_each(|ticket| drop(ticket.wait().expect("durability")));
        group.bench_function(format!("unpaced, {entries}"), |b| {
            b.iter_custom(|times| {
                let mut taken = Duration::ZERO;
                for n in 0..times {
                    // something new, or there would be nothing to do
                    engine.execute(batch(n % 7)).expect("a commit");
                    let began = Instant::now();
                    engine.checkpoint().expect("a checkpoint");
                    taken += began.elapsed();
                }
                taken
            });
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("view of {entries}"), |b| b.iter(|| engine.view().expect("a view")));
    }
    group.finish();
}

criterion_group!(benches, checkpoint);
criterion_main!(benches);
