//! The space of an entry: in memory when inserted at random, when recovered, and in a checkpoint
//! under full write load; in the log, in batches; and in the directory, while the entries are
//! overwritten at the default settings. Memory is measured in separate processes.
//!
//! `SEAWAL_BENCH_ENTRIES=10000000` measures ten million entries instead of a million, and
//! `SEAWAL_BENCH_SECONDS=60` overwrites for a minute instead of ten seconds.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]
#![allow(clippy::print_stdout, reason = "the figures")]

mod common;

use common::{VALUE, batch, dir, most_entries, put};
use seawal::kv::Kv;
use seawal::{Durability, Engine, Options};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PAYLOAD: u64 = 16 + VALUE.len() as u64;

/// The resident memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("what Linux says of this process");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}

/// A store without automatic checkpoints.
fn open(place: &Path) -> Engine<Kv> {
    let options = Options::new().durability(Durability::Os).checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40);
    options.open(place).expect("a store to measure")
}

fn inserted(place: &Path, entries: u64) -> Engine<Kv> {
    let engine = open(place);
    (0..entries).for_each(|n| drop(engine.execute(put(n)).expect("a commit")));
    engine.sync().expect("a sync");
    engine
}

fn tell_grown(what: &str, entries: u64, before: u64) {
    let grown = resident_bytes().saturating_sub(before) as f64 / entries as f64;
    println!("memory of an entry, {entries} {what}: {grown:.1} bytes, of which {PAYLOAD} are data");
}

/// The peak memory while all entries are overwritten during a paced checkpoint, as a share of the
/// memory before.
fn checkpoint(engine: &Engine<Kv>, entries: u64) {
    let before = resident_bytes();
    let (stop, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..entries).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                engine.execute(put(n)).expect("a commit");
                if n % 1_000 == 0 {
                    most.fetch_max(resident_bytes(), Ordering::Relaxed);
                }
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        engine.checkpoint().expect("a checkpoint");
        stop.store(true, Ordering::Relaxed);
    });
    let ratio = most.into_inner() as f64 / before as f64;
    println!("memory in a checkpoint of {entries} under full write load: {ratio:.2} of that before");
}

fn log_volume(place: &Path, batches: u64) {
    let logged = open(place);
    let durable = || logged.stats().log.expect("a log").durable.get();
    let start = durable();
    (0..batches).for_each(|n| drop(logged.execute(batch(n)).expect("a commit")));
    logged.sync().expect("a sync");
    let ratio = (durable() - start) as f64 / (batches * 100 * PAYLOAD) as f64;
    println!("log volume in batches of 100: {ratio:.3} bytes for each byte of payload");
}

/// The size of all files of a directory, in bytes.
fn directory_bytes(place: &Path) -> u64 {
    let files = std::fs::read_dir(place).expect("a directory").flatten();
    // a file may be removed while it is counted
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum()
}

/// The peak size of a store's directory at the default settings, while one thread overwrites the
/// entries and waits for each commit.
fn directory(place: &Path, entries: u64) {
    let seconds = std::env::var("SEAWAL_BENCH_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let engine = Options::new().open::<Kv>(place).expect("a store to measure");
    (0..entries / 100).for_each(|n| drop(engine.execute_with(batch(n), Durability::Os).expect("a commit")));
    engine.checkpoint().expect("a checkpoint");
    let (stop, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let (began, mut commits) = (Instant::now(), 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(directory_bytes(place), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        while began.elapsed() < Duration::from_secs(seconds) {
            engine.execute(put(commits % entries)).expect("a commit");
            commits += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    let rate = commits as f64 / began.elapsed().as_secs_f64();
    let mib = |bytes| bytes as f64 / f64::from(1 << 20);
    let (data, most, last) = (mib(entries * PAYLOAD), mib(most.into_inner()), mib(directory_bytes(place)));
    println!(
        "directory of {entries} entries ({data:.1} MiB of data): at most {most:.0} MiB, {last:.0} MiB at the end, \
         {rate:.0} commits per second"
    );
}

fn main() {
    let entries = most_entries(1_000_000);
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let before = resident_bytes();
    let (Some(task), Some(place)) = (arguments.next(), arguments.next()) else {
        let (first, second, third) = (dir(), dir(), dir());
        for (task, place) in [("inserted", &first), ("recovered", &first), ("checkpoint", &second), ("log", &third)] {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            let ended = command.arg(task).arg(place.path()).status().expect("a process");
            assert!(ended.success(), "{task} failed");
        }
        for entries in [10, 10_000, entries] {
            directory(dir().path(), entries);
        }
        return;
    };
    let place = Path::new(&place);
    match task.as_str() {
        "inserted" => {
            let _store = inserted(place, entries);
            tell_grown("inserted at random", entries, before);
        }
        "recovered" => {
            let _store = open(place);
            tell_grown("recovered", entries, before);
        }
        "directory" => directory(place, entries),
        "checkpoint" => checkpoint(&inserted(place, entries), entries),
        _ => log_volume(place, entries / 100),
    }
}
