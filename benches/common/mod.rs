//! Shared by the benchmarks: keys, stores, and the floor of the device.
#![allow(dead_code, reason = "each benchmark uses its own part")]
#![allow(clippy::print_stdout, reason = "figures that are no rates")]

pub(crate) mod wake_ups;

use seawal::io::{AlignedBuf, Create, Directory, DiskStorage, OpenMode};
use seawal::kv::{Kv, KvCommand};
use seawal::{Engine, Options};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const VALUE: [u8; 100] = [7; 100];

/// The n-th of a sequence of distinct keys in random order, 16 bytes each.
pub(crate) fn key(n: u64) -> [u8; 16] {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

pub(crate) fn put(n: u64) -> KvCommand {
    KvCommand::put("", key(n), VALUE)
}

/// A hundred entries as one command.
pub(crate) fn batch(n: u64) -> KvCommand {
    KvCommand::batch((n * 100..n * 100 + 100).map(put))
}

/// A directory next to the build, which is on the measured disk and not in a memory file system.
pub(crate) fn dir() -> tempfile::TempDir {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(base).expect("a directory to measure in")
}

/// A store whose first segment is large, so that no rotation is measured.
pub(crate) fn open(dir: &Path) -> Engine<Kv> {
    Options::new().first_segment_bytes(64 << 20).open(dir).expect("a store to measure")
}

/// Writes directly to the device, one block at a time and one write in flight, into space that was
/// written before. It is the best possible rate of a single committer. Returns the time of `writes`
/// writes.
pub(crate) fn floor(dir: &Path, writes: u64, bytes: usize) -> Duration {
    floor_latencies(dir, writes, bytes).iter().sum()
}

/// The latency of each of these writes.
pub(crate) fn floor_latencies(dir: &Path, writes: u64, bytes: usize) -> Vec<Duration> {
    const SPACE: u64 = 32 << 20;
    let storage = DiskStorage::open(dir.join("floor"), Create::IfMissing).expect("a directory");
    let _ = storage.remove("file");
    let file = storage.open("file", OpenMode::CreateNew).expect("a file");
    let zeros = AlignedBuf::zeroed(SPACE as usize).expect("memory");
    let mut at = 0;
    while at < SPACE {
        at += file.write_at(&zeros[at as usize..], at).expect("space") as u64;
    }
    file.sync_all().expect("a sync");
    let block = AlignedBuf::zeroed(bytes).expect("memory");
    let timed = |n| {
        let before = Instant::now();
        file.write_durable_at(&block, (n * bytes as u64) % SPACE).expect("a write");
        before.elapsed()
    };
    (0..writes).map(timed).collect()
}

/// The time to write and to read a number of bytes.
pub(crate) struct Sequential {
    pub(crate) write: Duration,
    pub(crate) read: Duration,
}

/// Writes a new file sequentially in pieces of 8 MiB around the page cache, syncs it, and reads it
/// back in pieces of 4 MiB. It is the best possible rate of the disk with one request at a time.
pub(crate) fn sequential(dir: &Path, bytes: u64) -> Sequential {
    let storage = DiskStorage::open(dir.join("sequential"), Create::IfMissing).expect("a directory");
    let _ = storage.remove("file");
    let file = storage.open("file", OpenMode::CreateNew).expect("a file");
    let mut piece = AlignedBuf::zeroed(8 << 20).expect("memory");
    // not zeros, which a disk may store without writing them
    piece.iter_mut().enumerate().for_each(|(n, byte)| *byte = ((n * n) >> 8) as u8);
    let began = Instant::now();
    for at in (0..bytes).step_by(8 << 20) {
        file.write_durable_at(&piece, at).expect("a write");
    }
    file.sync_all().expect("a sync");
    let write = began.elapsed();
    let began = Instant::now();
    for at in (0..bytes).step_by(4 << 20) {
        file.read_device_at(&mut piece[..4 << 20], at).expect("a read");
    }
    let read = began.elapsed();
    storage.remove("file").expect("a removal");
    Sequential { write, read }
}

/// The largest number of entries: `SEAWAL_BENCH_ENTRIES`, or `usual`.
pub(crate) fn most_entries(usual: u64) -> u64 {
    std::env::var("SEAWAL_BENCH_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// The latencies of commits by `threads` threads while `work` runs. Each thread waits for its own
/// commit.
pub(crate) fn latencies_beside(engine: &Engine<Kv>, threads: u64, keys: u64, work: impl FnOnce()) -> Vec<Duration> {
    let stop = AtomicBool::new(false);
    let one = |thread| {
        let (mut taken, mut n) = (Vec::new(), thread);
        while !stop.load(Ordering::Relaxed) {
            let before = Instant::now();
            engine.execute(put(n % keys)).expect("a commit");
            taken.push(before.elapsed());
            n += threads;
        }
        taken
    };
    std::thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        work();
        stop.store(true, Ordering::Relaxed);
        running.into_iter().flat_map(|thread| thread.join().expect("a thread that commits")).collect()
    })
}

/// Prints the percentiles of latencies.
pub(crate) fn percentiles(name: &str, mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |of_1000: usize| taken[(taken.len() * of_1000 / 1000).min(taken.len() - 1)];
    println!("{name}: p50 {:?}, p99 {:?}, p99.9 {:?}, the worst {:?}", at(500), at(990), at(999), at(1000));
}
