//! The built-in machine: the cost of its state alone, without a log; and what types cost in a store.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]

mod common;

use common::{batch, key, put};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use seawal::StateMachine;
use seawal::kv::{Kv, KvCommand};
use seawal::machine::BulkMachine;
use seawal::{Durability, Options, Store, Table};
use serde::{Deserialize, Serialize};
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

#[derive(Serialize, Deserialize)]
struct Row {
    id: u64,
    name: String,
    visits: u32,
}

const ROWS: Table<u64, Row> = Table::new("rows");
const BY_HAND: &str = "by hand";
const STORED: u64 = 100_000;

fn row(n: u64) -> Row {
    Row { id: n, name: format!("user number {n}"), visits: n as u32 }
}

/// Each operation through a typed handle, and on bytes with the same encodings by hand.
fn typed(c: &mut Criterion) {
    let mut group = c.benchmark_group("kv, typed");
    group.throughput(Throughput::Elements(1));
    let dir = tempfile::tempdir().expect("a directory");
    let store: Store = Options::new().durability(Durability::Os).open(dir.path()).expect("a store");
    let rows = store.table(ROWS);
    let encoded = |n: u64| postcard::to_stdvec(&row(n)).expect("bytes");
    let put = |n: u64| KvCommand::put(BY_HAND, n.to_be_bytes(), encoded(n));
    for n in 0..STORED {
        rows.put(&n, &row(n)).expect("a put");
        store.execute(put(n)).expect("a put");
    }
    let mut n = 0;
    let mut next = || random(&mut n) % STORED;
    let decode = |bytes: &[u8]| postcard::from_bytes::<Row>(bytes).expect("a row");
    group.bench_function("get", |b| b.iter(|| rows.get(&next()).expect("a read").expect("a row").id));
    let raw = store.raw_table(BY_HAND);
    group.bench_function("get by hand", |b| {
        b.iter(|| raw.with_value(next().to_be_bytes(), decode).expect("a read").expect("a row").id);
    });
    group.bench_function("put", |b| {
        b.iter(|| {
            let n = next();
            rows.put(&n, &row(n)).expect("a put");
        });
    });
    group.bench_function("put by hand", |b| b.iter(|| store.execute(put(next())).expect("a put")));
    group.bench_function("scan of 100", |b| {
        b.iter(|| {
            let from = next();
            rows.range(from..).expect("a read").take(100).map(|row| row.expect("a row").1.id).sum::<u64>()
        });
    });
    group.bench_function("scan of 100 by hand", |b| {
        b.iter(|| {
            let from = next().to_be_bytes();
            raw.range(&from[..]..).expect("a read").take(100).map(|(_, row)| decode(&row).id).sum::<u64>()
        });
    });
    group.bench_function("transaction", |b| {
        b.iter(|| {
            store.transact(|tx| {
                let rows = tx.table(ROWS);
                let n = next();
                let row = rows.get_for_update(&n)?.expect("a row");
                rows.put(&n, &row)
            })
        });
    });
    group.bench_function("transaction by hand", |b| {
        b.iter(|| {
            store.transact(|tx| {
                let key = next().to_be_bytes();
                let row = decode(&tx.get_for_update_in(BY_HAND, key)?.expect("a row"));
                tx.insert_in(BY_HAND, key, postcard::to_stdvec(&row).expect("bytes"))
            })
        });
    });
    group.finish();
}

criterion_group!(benches, single, whole, typed);
criterion_main!(benches);
