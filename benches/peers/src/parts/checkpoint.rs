//! Checkpoints of a million entries, their effect on commits, and views; also the freeze of ten
//! million. This engine only.

use super::Effort;
use crate::figures::{Part, Samples};
use crate::floor::new_file;
use crate::peer::{Level, OURS};
use crate::peers::seawal::{options, put};
use crate::work::{Latencies, bytes_of_kind, directory, new_seed};
use seawal::kv::{Kv, KvCommand};
use seawal::{Engine, Options};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const ENTRIES: u64 = 1_000_000;
pub const LARGE: u64 = 10_000_000;
pub const RATE: &str = "unpaced checkpoint, bytes a second";
pub const VIEW: &str = "a view, ns";

pub fn latency_row(percentile: &str) -> String {
    format!("commits beside a paced checkpoint, {percentile}, µs")
}

pub fn freeze_row(entries: u64) -> String {
    format!("the lock is held for, of {entries} entries, µs")
}

pub const QUIET: &str = "without a checkpoint";

pub fn fill(engine: &Engine<Kv>, entries: u64) {
    for first in (0..entries).step_by(100) {
        engine.execute(KvCommand::batch((first..first + 100).map(|n| put(n, n)))).expect("a commit");
    }
    engine.sync().expect("a sync");
}

/// The default options without automatic checkpoints.
pub fn unbounded(level: Level) -> Options {
    options(level).first_segment_bytes(1 << 20).checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40)
}

/// One unpaced checkpoint: its time, and the bytes that it wrote.
pub fn checkpoint(engine: &Engine<Kv>, dir: &Path) -> (Duration, u64) {
    // a new record, because a checkpoint without one does nothing
    engine.execute(put(0, new_seed())).expect("a commit");
    let began = Instant::now();
    engine.checkpoint().expect("a checkpoint");
    (began.elapsed(), bytes_of_kind(dir, "snap"))
}

pub fn measure(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let (dir, place) = (directory(), directory());
    let engine: Engine<Kv> =
        unbounded(Level::Buffered).checkpoint_bytes_per_second(None).open(dir.path()).expect("a store");
    fill(&engine, ENTRIES);
    for _ in 0..effort.repetitions {
        let (took, bytes) = checkpoint(&engine, dir.path());
        // the space of the older snapshot is freed in the background, and the device writes more
        // slowly meanwhile
        std::thread::sleep(took * 2);
        samples.add(RATE, OURS, bytes as f64 / took.as_secs_f64());
        samples.add(RATE, super::commit::FLOOR, new_file(place.path(), bytes));
        const VIEWS: u32 = 100_000;
        let began = Instant::now();
        (0..VIEWS).for_each(|_| drop(engine.view().expect("a view")));
        samples.add(VIEW, OURS, began.elapsed().as_nanos() as f64 / f64::from(VIEWS));
    }
    engine.close().expect("a clean close");
    drop(engine);
    let engine: Engine<Kv> = unbounded(Level::Durable).open(dir.path()).expect("a store");
    for _ in 0..effort.repetitions {
        let (beside, took) = beside(&engine, || {
            let began = Instant::now();
            engine.checkpoint().expect("a checkpoint");
            began.elapsed()
        });
        let (quiet, ()) = self::beside(&engine, || std::thread::sleep(took));
        for (name, of_1000) in super::commit::PERCENTILES {
            samples.add(&latency_row(name), OURS, beside.percentile(of_1000));
            samples.add(&latency_row(name), QUIET, quiet.percentile(of_1000));
        }
    }
    samples.add(&freeze_row(ENTRIES), OURS, longest_freeze_micros(&engine));
    engine.close().expect("a clean close");
    if effort.large {
        samples.add(&freeze_row(LARGE), OURS, large_freeze(effort));
    }
    samples.into_part()
}

fn longest_freeze_micros(engine: &Engine<Kv>) -> f64 {
    engine.stats().longest_freeze.as_secs_f64() * 1e6
}

/// The longest freeze of ten million entries, in microseconds, in unpaced checkpoints with
/// concurrent commits.
fn large_freeze(effort: &Effort) -> f64 {
    let dir = directory();
    let engine: Engine<Kv> =
        unbounded(Level::Buffered).checkpoint_bytes_per_second(None).open(dir.path()).expect("a store");
    fill(&engine, LARGE);
    for _ in 0..effort.repetitions.min(3) {
        beside(&engine, || engine.checkpoint().expect("a checkpoint"));
    }
    longest_freeze_micros(&engine)
}

/// The latencies of durable commits by two threads while `work` runs.
fn beside<T>(engine: &Engine<Kv>, work: impl FnOnce() -> T) -> (Latencies, T) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let threads = [0, 1].map(|thread| {
            scope.spawn(move || {
                let (mut taken, mut n, seed) = (Vec::new(), thread, new_seed());
                while !stop.load(Ordering::Relaxed) {
                    let command = put(n % ENTRIES, seed ^ n);
                    let before = Instant::now();
                    engine.execute(command).expect("a commit");
                    taken.push(before.elapsed().as_nanos() as u64);
                    n += 2;
                }
                taken
            })
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let taken = threads.into_iter().flat_map(|thread| thread.join().expect("a thread that commits")).collect();
        (Latencies::of(taken), done)
    })
}
