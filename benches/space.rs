//! What an entry takes: of memory, inserted at random; and of the log, in batches. Figures, not times.
//!
//! `SEAWAL_BENCH_ENTRIES=10000000` is for ten million instead of a million.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]
#![allow(clippy::print_stdout, reason = "the figures")]

mod common;

use common::{VALUE, batch, dir, put};
use seawal::kv::Kv;
use seawal::{Durability, Engine, Options};

/// The memory that this process has.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("what Linux says of this process");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}

fn main() {
    let entries: u64 = std::env::var("SEAWAL_BENCH_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let payload = (16 + VALUE.len()) as u64;
    let place = dir();
    let options = Options::new().durability(Durability::Os).checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40);
    let before = resident_bytes();
    let engine: Engine<Kv> = options.open(place.path()).expect("a store to measure");
    (0..entries).for_each(|n| drop(engine.execute(put(n)).expect("a commit")));
    let grown = resident_bytes().saturating_sub(before) as f64 / entries as f64;
    println!("memory of an entry, {entries} inserted at random: {grown:.1} bytes, of which {payload} are data");

    let (batches, place) = (entries / 100, dir());
    let logged: Engine<Kv> = options.open(place.path()).expect("a store to measure");
    let durable = || logged.stats().log.expect("a log").durable.get();
    let start = durable();
    (0..batches).for_each(|n| drop(logged.execute(batch(n)).expect("a commit")));
    logged.sync().expect("a sync");
    let ratio = (durable() - start) as f64 / (batches * 100 * payload) as f64;
    println!("log volume in batches of 100: {ratio:.3} bytes for each byte of payload");
}
