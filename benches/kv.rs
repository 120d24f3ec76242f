//! The built-in machine alone: the memory cost of the state, without a log.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]

mod common;

use common::{batch, key, put};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use seawal::StateMachine;
use seawal::kv::Kv;
use seawal::machine::BulkMachine;
use std::hint::black_box;

const ENTRIES: u64 = 1_000_000;

fn filled(entries: u64) -> Kv {
    let mut kv = Kv::default();
    for n in 0..entries {
        kv.apply(&put(n)).expect("a put");
    }
    kv
}

/// Batches of 100 entries, encoded as in a log.
fn logged(entries: u64) -> Vec<Vec<u8>> {
    let encoded = |n| {
        let mut bytes = Vec::new();
        Kv::encode(&batch(n), &mut bytes);
        bytes
    };
    (0..entries / 100).map(encoded).collect()
}

fn random(n: &mut u64) -> u64 {
    *n = n.wrapping_add(7_919) % ENTRIES;
    *n
}

fn single(c: &mut Criterion) {
    let mut group = c.benchmark_group("kv");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    let mut kv = filled(ENTRIES);
    let mut n = 0;
    group.bench_function("get", |b| b.iter(|| assert!(kv.get("", key(random(&mut n))).is_some())));
    group.bench_function("scan of 100", |b| {
        b.iter(|| {
            let start = key(random(&mut n));
            kv.range("", &start[..]..)
                .take(100)
                .map(|(key, value)| key[0] ^ value[0])
                .fold(0, |all, byte| black_box(all ^ byte))
        });
    });
    group.bench_function("put over another", |b| b.iter(|| kv.apply(&put(random(&mut n))).expect("a put")));
    group.bench_function("put after a clone", |b| {
        b.iter_batched(
            || kv.clone(),
            |mut clone| clone.apply(&put(random(&mut n))).expect("a put"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("kv, all entries");
    group.throughput(Throughput::Elements(ENTRIES)).sample_size(10);
    group.bench_function("insert", |b| b.iter(|| filled(ENTRIES)));
    let logged = logged(ENTRIES);
    let commands: Vec<&[u8]> = logged.iter().map(Vec::as_slice).collect();
    group.bench_function("redo", |b| {
        b.iter(|| {
            let mut kv = Kv::default();
            commands.chunks(1_000).for_each(|part| kv.redo(part, Kv::VERSION).expect("redo"));
            kv.finish_redo();
            kv
        });
    });
    let mut saved = Vec::new();
    filled(ENTRIES).save(&mut saved).expect("bytes");
    group.bench_function("load", |b| b.iter(|| Kv::load(&mut &saved[..], Kv::VERSION).expect("a state")));
    group.finish();
}

criterion_group!(benches, single, whole);
criterion_main!(benches);
