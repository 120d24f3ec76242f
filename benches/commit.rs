//! Commits: durable ones of one record each with 1, 8 and 64 threads, next to the floor of the
//! device. Also batches, 1,024 outstanding tickets, commits that survive only a kill, and the rate
//! of wake-ups without writes.
//!
//! At the end, the benchmark prints latency percentiles: of 8 threads next to the device's own
//! writes, and of commits that begin a new segment at each MiB next to those within one segment.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]
#![allow(clippy::print_stdout, reason = "percentiles")]

mod common;

use common::wake_ups::wake_ups;
use common::{batch, dir, floor, floor_latencies, latencies_beside, open, percentiles, put};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seawal::kv::Kv;
use seawal::{Durability, Engine, Options};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const KEYS: u64 = 100_000;
const OUTSTANDING: usize = 1_024;
/// The length of a latency sample.
const SAMPLE: Duration = Duration::from_millis(500);

/// The time of `commits` commits, divided among threads that each wait for their own.
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

/// The time of batches of a hundred entries, from one thread.
fn batches(engine: &Engine<Kv>, batches: u64) -> Duration {
    let began = Instant::now();
    (0..batches).for_each(|n| drop(engine.execute(batch(n % (KEYS / 100))).expect("a commit")));
    began.elapsed()
}

fn with_tickets(engine: &Engine<Kv>, keys: u64, commits: u64) -> Duration {
    let began = Instant::now();
    let mut tickets = VecDeque::with_capacity(OUTSTANDING + 1);
    for n in 0..commits {
        tickets.push_back(engine.submit(put(n % keys)).expect("a commit"));
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
    for (threads, size) in [(8, 8), (8, 4), (64, 64), (64, 32)] {
        group.bench_function(format!("wake-ups without I/O, {threads} threads in groups of {size}"), |b| {
            b.iter_custom(|n| {
                let (woken, took) = wake_ups(threads, size, |woken, _| woken >= n);
                took.mul_f64(n as f64 / woken as f64)
            });
        });
    }
    for keys in [KEYS, 10 * KEYS] {
        let place = dir();
        let engine = open(place.path());
        let name = format!("sync, 1 thread, 1024 tickets, {keys} keys");
        group.bench_function(name, |b| b.iter_custom(|n| with_tickets(&engine, keys, n)));
    }
    let place = dir();
    let engine: Engine<Kv> = Options::new()
        .first_segment_bytes(64 << 20)
        .durability(Durability::Os)
        .open(place.path())
        .expect("a store to measure");
    group.bench_function("os, 1 thread", |b| b.iter_custom(|n| threaded(&engine, 1, n)));
    group.throughput(Throughput::Elements(100));
    group.bench_function("os, 1 thread, batches of 100", |b| b.iter_custom(|n| batches(&engine, n)));
    let place = dir();
    let engine = open(place.path());
    group.bench_function("sync, 1 thread, batches of 100", |b| b.iter_custom(|n| batches(&engine, n)));
    group.finish();
}

/// Prints latency percentiles, alternately of commits and of device writes that hold as much as
/// eight threads commit at once.
fn latency(_: &mut Criterion) {
    let (place, floor_place) = (dir(), dir());
    let engine = open(place.path());
    let (mut commits, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        writes.extend(floor_latencies(floor_place.path(), 2_000, 4096));
        commits.extend(latencies_beside(&engine, 8, KEYS, || std::thread::sleep(SAMPLE)));
    }
    percentiles("latency of the device, 4 KiB writes, one in flight", writes);
    percentiles("latency of sync commits, 8 threads", commits);
    let groups = engine.stats().log.expect("a log").batch_sizes;
    println!("records a frame: {:.1} on average, {} at the most", groups.mean(), groups.most());
}

/// Prints latency percentiles that show whether commits wait for a new segment, alternately with
/// commits within one.
fn segments(_: &mut Criterion) {
    let of_bytes = |bytes: u64| {
        let place = dir();
        let options = Options::new().segment_bytes(bytes).first_segment_bytes(bytes).checkpoint_log_bytes(1 << 40);
        let engine: Engine<Kv> = options.max_log_bytes(1 << 40).open(place.path()).expect("a store to measure");
        // segments are preallocated first, so that the sample has only the steady rate of
        // preallocation
        while engine.stats().log.expect("a log").preallocated_segments < 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        (engine, place)
    };
    let (small, large) = (of_bytes(1 << 20), of_bytes(256 << 20));
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        many.extend(latencies_beside(&small.0, 8, KEYS, || std::thread::sleep(SAMPLE)));
        one.extend(latencies_beside(&large.0, 8, KEYS, || std::thread::sleep(SAMPLE)));
    }
    percentiles("latency of sync commits, 8 threads, within one segment", one);
    percentiles("latency of sync commits, 8 threads, a new segment each MiB", many);
    println!("segments begun: {}", small.0.stats().log.expect("a log").segments);
}

criterion_group!(benches, commit, latency, segments);
criterion_main!(benches);
