//! Commits of one record each, durable and buffered, from one thread and from many.

use super::Effort;
use crate::figures::{Part, Samples};
use crate::floor::{Floor, wake_ups};
use crate::peer::{Level, OURS, Peer, Store};
use crate::peers;
use crate::work::{Latencies, counted, directory, new_seed, run};
use seawal::Engine;
use seawal::kv::Kv;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const THREADS: [usize; 3] = [1, 8, 64];
pub const FLOOR: &str = "floor";
pub const WAKE_UPS: &str = "wake-ups without I/O";
const KEYS: u64 = 100_000;
/// The size of a record in a frame of this engine: payload, tag, lengths, time. An ideal group
/// consists of these.
const RECORD_BYTES: usize = 140;
const OUTSTANDING: usize = 1_024;

pub fn row(threads: usize) -> String {
    format!("durable, {}", counted(threads))
}

pub fn latency_row(percentile: &str) -> String {
    format!("latency at 8 threads, {percentile}")
}

pub fn tickets_row(keys: u64) -> String {
    format!("{OUTSTANDING} tickets over {keys} keys")
}

pub const PERCENTILES: [(&str, usize); 3] = [("p50", 500), ("p99", 990), ("p99.9", 999)];

struct Opened {
    peer: Peer,
    store: Box<dyn Store>,
    /// dropped after the store
    _dir: TempDir,
}

fn opened(effort: &Effort, level: Level) -> Vec<Opened> {
    let able = peers::all().into_iter().filter(|peer| peer.supports(level) && effort.wants(peer.name));
    able.map(|peer| {
        let dir = directory();
        let store = (peer.open)(dir.path(), level);
        Opened { peer, store, _dir: dir }
    })
    .collect()
}

/// Commits of one record each. Threads take keys in turn, so that no two write the same key at
/// once.
pub fn commits(store: &dyn Store, threads: usize, time: Duration) -> (f64, Latencies) {
    run(threads, time, true, &|thread| {
        let mut session = store.session();
        let (mut n, seed) = (thread, new_seed());
        Box::new(move || {
            session.put(n % KEYS, seed ^ n);
            n += threads as u64;
        })
    })
}

fn batches(store: &dyn Store, time: Duration) -> f64 {
    const BATCH: u64 = 100;
    let (rate, _) = run(1, time, false, &|_| {
        let mut session = store.session();
        let (mut n, seed) = (0, new_seed());
        Box::new(move || {
            session.batch(n % KEYS, BATCH, seed ^ n);
            n += BATCH;
        })
    });
    rate * BATCH as f64
}

fn add_latencies(samples: &mut Samples, subject: &str, latencies: &Latencies) {
    for (name, of_1000) in PERCENTILES {
        samples.add(&latency_row(name), subject, latencies.percentile(of_1000));
    }
}

pub fn durable(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let dir = directory();
    let mut floor = Floor::new(dir.path());
    let stores = opened(effort, Level::Durable);
    let small = tickets_store();
    let large = tickets_store();
    for _ in 0..effort.repetitions {
        for threads in THREADS {
            let (rate, latencies) = floor.commits(threads, RECORD_BYTES, effort.time);
            samples.add(&row(threads), FLOOR, rate);
            if threads == 8 {
                add_latencies(&mut samples, FLOOR, &latencies);
            }
            if threads > 1 {
                samples.add(&row(threads), WAKE_UPS, wake_ups(threads, effort.time));
            }
            for Opened { peer, store, .. } in &stores {
                let (rate, latencies) = commits(&**store, threads, effort.time);
                samples.add(&row(threads), peer.name, rate);
                if threads == 8 {
                    add_latencies(&mut samples, peer.name, &latencies);
                }
            }
        }
        if effort.wants(OURS) {
            samples.add(&tickets_row(100_000), OURS, with_tickets(&small.0, 100_000, effort.time));
            samples.add(&tickets_row(1_000_000), OURS, with_tickets(&large.0, 1_000_000, effort.time));
        }
    }
    samples.into_part()
}

fn tickets_store() -> (Engine<Kv>, TempDir) {
    let dir = directory();
    (peers::seawal::options(Level::Durable).open(dir.path()).expect("a store to measure"), dir)
}

/// One thread that keeps many commits outstanding and waits for the oldest.
fn with_tickets(engine: &Engine<Kv>, keys: u64, time: Duration) -> f64 {
    let (mut done, seed, began) = (0u64, new_seed(), Instant::now());
    let mut tickets = VecDeque::with_capacity(OUTSTANDING + 1);
    while began.elapsed() < time {
        for _ in 0..100 {
            tickets.push_back(engine.submit(peers::seawal::put(done % keys, seed ^ done)).expect("a commit"));
            done += 1;
            if tickets.len() > OUTSTANDING
                && let Some(ticket) = tickets.pop_front()
            {
                ticket.wait().expect("durability");
            }
        }
    }
    for ticket in tickets {
        ticket.wait().expect("durability");
    }
    done as f64 / began.elapsed().as_secs_f64()
}

pub const SINGLE: &str = "one by one";
pub const BATCHED: &str = "in batches of 100";

pub fn buffered(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let stores = opened(effort, Level::Buffered);
    for _ in 0..effort.repetitions {
        for Opened { peer, store, .. } in &stores {
            samples.add(SINGLE, peer.name, commits(&**store, 1, effort.time).0);
        }
        for Opened { peer, store, .. } in &stores {
            samples.add(BATCHED, peer.name, batches(&**store, effort.time));
        }
    }
    samples.into_part()
}
