//! Reads of committed entries: points and scans of 100, with 1 and 2 threads. They read the engine,
//! with a copy and in place, and a view.
//!
//! `SEAWAL_BENCH_ENTRIES=10000000` reads ten million entries instead of a million.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]

mod common;

use common::{batch, dir, key, most_entries, open};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seawal::Engine;
use seawal::kv::{Kv, KvRange};
use std::ops::Bound;
use std::time::{Duration, Instant};

fn threaded(threads: u64, reads: u64, read: impl Fn(u64) + Sync) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let read = &read;
            scope.spawn(move || (0..reads.div_ceil(threads)).for_each(|n| read(n * threads + thread)));
        }
    });
    began.elapsed()
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(3));
    let place = dir();
    let engine: Engine<Kv> = open(place.path());
    let entries = most_entries(1_000_000);
    let tickets: Vec<_> = (0..entries / 100).map(|n| engine.submit(batch(n)).expect("a commit")).collect();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait().expect("durability")));
    let random = |n: u64| key(n.wrapping_mul(7_919) % entries);
    let view = engine.view().expect("a view");
    for threads in [1, 2] {
        group.bench_function(format!("point, {threads} threads"), |b| {
            b.iter_custom(|n| threaded(threads, n, |n| assert!(engine.get(random(n)).expect("a read").is_some())));
        });
        group.bench_function(format!("point of a view, {threads} threads"), |b| {
            b.iter_custom(|n| threaded(threads, n, |n| assert!(view.get("", random(n)).is_some())));
        });
        group.bench_function(format!("scan of 100 of a view, {threads} threads"), |b| {
            b.iter_custom(|n| {
                threaded(threads, n, |n| {
                    let from = (Bound::Included(random(n)), Bound::Unbounded);
                    let found = view.range::<[u8; 16]>("", from).take(100).map(|(_, value)| value.len());
                    assert!(found.sum::<usize>() > 0);
                })
            });
        });
        group.bench_function(format!("point in place, {threads} threads"), |b| {
            b.iter_custom(|n| {
                threaded(threads, n, |n| {
                    let last = engine.with_value(random(n), |value| value.last().copied()).expect("a read");
                    assert!(last.is_some());
                })
            });
        });
        group.bench_function(format!("scan of 100 in place, {threads} threads"), |b| {
            b.iter_custom(|n| {
                threaded(threads, n, |n| {
                    let start = random(n);
                    let first = |(key, value): (&[u8], &[u8])| u64::from(key[0]) + u64::from(value[0]);
                    let look = |entries: KvRange<'_>| entries.take(100).map(first).sum();
                    let sum: u64 = engine.with_range(&start[..].., look).expect("a scan");
                    assert!(sum > 0);
                })
            });
        });
        group.bench_function(format!("scan of 100, {threads} threads"), |b| {
            b.iter_custom(|n| {
                threaded(threads, n, |n| {
                    let start = random(n);
                    let entries = engine.range(&start[..]..).expect("a scan").take(100).count();
                    assert!(entries > 0);
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
