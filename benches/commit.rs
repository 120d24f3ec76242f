//! Durable commits: one record each, at 1, 8 and 64 threads, and from one thread with 1,024 tickets outstanding; beside the floor.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]

mod common;

use common::{dir, floor, open, put};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seawal::kv::Kv;
use seawal::{Durability, Engine, Options};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const KEYS: u64 = 100_000;
const OUTSTANDING: usize = 1_024;

/// The time that `commits` commits take, spread over threads, each waiting for its own.
fn threaded(engine: &Engine<Kv>, threads: u64, commits: u64) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for n in 0..commits.div_ceil(threads) {
                    engine.execute(put((n * threads + thread) % KEYS)).expect("a commit");
                }
            });
        }
    });
    began.elapsed()
}

fn with_tickets(engine: &Engine<Kv>, commits: u64) -> Duration {
    let began = Instant::now();
    let mut tickets = VecDeque::with_capacity(OUTSTANDING + 1);
    for n in 0..commits {
        tickets.push_back(engine.submit(put(n % KEYS)).expect("a commit"));
        if tickets.len() > OUTSTANDING
            && let Some(ticket) = tickets.pop_front()
        {
            ticket.wait().expect("durability");
        }
    }
    for ticket in tickets {
        ticket.wait().expect("durability");
    }
    began.elapsed()
}

fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(3));
    let place = dir();
    group.bench_function("floor, 4 KiB writes, one in flight", |b| b.iter_custom(|n| floor(place.path(), n, 4096)));
    for threads in [1, 8, 64] {
        let place = dir();
        let engine = open(place.path());
        group.bench_function(format!("sync, {threads} threads"), |b| b.iter_custom(|n| threaded(&engine, threads, n)));
    }
    let place = dir();
    let engine = open(place.path());
    group.bench_function("sync, 1 thread, 1024 tickets", |b| b.iter_custom(|n| with_tickets(&engine, n)));
    let place = dir();
    let engine: Engine<Kv> = Options::new()
        .first_segment_bytes(64 << 20)
        .durability(Durability::Os)
        .open(place.path())
        .expect("a store to measure");
    group.bench_function("os, 1 thread", |b| b.iter_custom(|n| threaded(&engine, 1, n)));
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
