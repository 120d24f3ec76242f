//! The growth of this engine's recovery, checkpoints and reads with the number of entries; also the
//! replay of single commits.

use super::Effort;
use super::checkpoint::{checkpoint, unbounded};
use crate::figures::{Part, Samples};
use crate::floor::read_files;
use crate::peer::{Level, OURS};
use crate::peers::seawal::put;
use crate::work::{directory, mix, run};
use seawal::Engine;
use seawal::kv::{Kv, KvCommand};
use seawal::sim::explore::KilledStore;
use std::path::Path;
use std::time::{Duration, Instant};

pub const SIZES: [u64; 4] = [100_000, 1_000_000, 10_000_000, 20_000_000];
pub const SINGLES: u64 = 200_000;
pub const DEVICE: &str = "the device";

pub fn replay_row(entries: u64) -> String {
    format!("log replay, {entries} entries, a second")
}

pub fn load_row(entries: u64) -> String {
    format!("snapshot load, {entries} entries, a second")
}

pub fn checkpoint_row(entries: u64) -> String {
    format!("checkpoint, {entries} entries, a second")
}

pub fn points_row(entries: u64) -> String {
    format!("points of {entries}, a second")
}

pub const SINGLES_ROW: &str = "replay of single durable commits, bytes a second";

/// Opens a store, and leaves it as a later kill would: with a preallocated segment, because the
/// next open begins one. Returns the seconds that the open took.
fn open(dir: &Path) -> f64 {
    let began = Instant::now();
    let engine: Engine<Kv> = unbounded(Level::Buffered).open(dir).expect("recovery");
    let took = began.elapsed().as_secs_f64();
    while began.elapsed().as_secs_f64() < took + 5.0 && !has_spare(dir) {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(engine);
    took
}

fn has_spare(dir: &Path) -> bool {
    let mut files = std::fs::read_dir(dir).expect("a directory").flatten();
    files.any(|file| file.file_name().to_string_lossy().starts_with("spare-"))
}

pub fn measure(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let most = match effort {
        Effort { large: false, .. } => 1_000_000,
        Effort { quick: true, .. } => 10_000_000,
        _ => 20_000_000,
    };
    for entries in SIZES.into_iter().filter(|entries| *entries <= most) {
        of_size(effort, entries, &mut samples);
    }
    singles(effort, &mut samples);
    samples.into_part()
}

fn of_size(effort: &Effort, entries: u64, samples: &mut Samples) {
    let dir = directory();
    let repetitions = if entries > 1_000_000 { effort.repetitions.min(3) } else { effort.repetitions };
    let killed = KilledStore { records: entries / 100, losers: 0, inverses: 0 };
    let batch = |n: u64| KvCommand::batch((n * 100..n * 100 + 100).map(|n| put(n, n)));
    let none = |_, _| KvCommand::delete("", "nothing");
    killed.build::<Kv>(dir.path(), &unbounded(Level::Durable), batch, none).expect("a killed store");
    for _ in 0..repetitions {
        samples.add(&replay_row(entries), OURS, entries as f64 / open(dir.path()));
        let (took, _) = read_files(dir.path(), "seg");
        samples.add(&replay_row(entries), DEVICE, entries as f64 / took.as_secs_f64());
    }
    let options = unbounded(Level::Buffered).checkpoint_bytes_per_second(None);
    let engine: Engine<Kv> = options.open(dir.path()).expect("recovery");
    for _ in 0..repetitions {
        samples.add(&checkpoint_row(entries), OURS, entries as f64 / checkpoint(&engine, dir.path()).0.as_secs_f64());
        let work = |thread| {
            let (engine, mut n) = (&engine, mix(thread + 1));
            let once: Box<dyn FnMut()> = Box::new(move || {
                n = mix(n);
                assert!(engine.get(crate::work::key(n % entries)).expect("a read").is_some());
            });
            once
        };
        samples.add(&points_row(entries), OURS, run(1, effort.time, false, &work).0);
    }
    engine.close().expect("a clean close");
    drop(engine);
    for _ in 0..repetitions {
        samples.add(&load_row(entries), OURS, entries as f64 / open(dir.path()));
        let (took, _) = read_files(dir.path(), "snap");
        samples.add(&load_row(entries), DEVICE, entries as f64 / took.as_secs_f64());
    }
}

/// A log of commits that each have their own block.
fn singles(effort: &Effort, samples: &mut Samples) {
    let dir = directory();
    let engine: Engine<Kv> = unbounded(Level::Durable).open(dir.path()).expect("a store");
    (0..SINGLES).for_each(|n| drop(engine.execute(put(n, n)).expect("a commit")));
    let bytes = engine.stats().log.expect("a log").durable.get();
    drop(engine);
    for _ in 0..effort.repetitions {
        samples.add(SINGLES_ROW, OURS, bytes as f64 / open(dir.path()));
        let (took, bytes) = read_files(dir.path(), "seg");
        samples.add(SINGLES_ROW, DEVICE, bytes as f64 / took.as_secs_f64());
    }
}
