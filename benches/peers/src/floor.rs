//! The limits of the device and the scheduler, measured without any store.

#[path = "../../common/wake_ups.rs"]
mod shared;

use crate::work::Latencies;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SPACE: usize = 64 << 20;
const BLOCK: usize = 4096;

/// A file that was written completely before. It is written directly and synchronously.
pub struct Floor {
    file: File,
    buffer: seawal::io::AlignedBuf,
    at: u64,
}

impl Floor {
    pub fn new(dir: &Path) -> Floor {
        let path = dir.join("floor");
        let plain = File::create(&path).expect("a file");
        plain.write_all_at(&vec![1; SPACE], 0).expect("space");
        plain.sync_all().expect("a sync");
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).expect("direct I/O"));
        let buffer = seawal::io::AlignedBuf::zeroed(4 << 20).expect("memory");
        Floor { file, buffer, at: 0 }
    }

    /// Writes `bytes`, rounded up to whole blocks. They survive power loss when it returns.
    pub fn write(&mut self, bytes: usize) {
        let bytes = bytes.next_multiple_of(BLOCK);
        if self.at as usize + bytes > SPACE {
            self.at = 0;
        }
        self.file.write_all_at(&self.buffer[..bytes], self.at).expect("a write");
        self.at += bytes as u64;
    }

    /// Writes ideal groups of `commits`, one in flight. Returns commits per second, and the latency
    /// of each write.
    pub fn commits(&mut self, commits: usize, record_bytes: usize, time: Duration) -> (f64, Latencies) {
        let (mut taken, began) = (Vec::new(), Instant::now());
        while began.elapsed() < time {
            let before = Instant::now();
            self.write(commits * record_bytes);
            taken.push(before.elapsed().as_nanos() as u64);
        }
        ((taken.len() * commits) as f64 / began.elapsed().as_secs_f64(), Latencies::of(taken))
    }
}

/// The number of committers per second that can sleep and be woken without writes. The thread that
/// completes a group wakes each of the others with one `unpark`. A group is all of the threads, or
/// half of them, so that some work while others are woken. The better of the two counts.
pub fn wake_ups(threads: usize, time: Duration) -> f64 {
    let of = |part: usize| {
        let (woken, took) = shared::wake_ups(threads, (threads / part).max(2), |_, took| took > time / 2);
        woken as f64 / took.as_secs_f64()
    };
    of(1).max(of(2))
}

/// The sequential write rate of the disk in bytes per second: a new file of `bytes` in large direct
/// pieces, and a sync.
pub fn new_file(dir: &Path, bytes: u64) -> f64 {
    let path = dir.join("sequential");
    let buffer = seawal::io::AlignedBuf::zeroed(4 << 20).expect("memory");
    let began = Instant::now();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::DIRECT | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = File::from(rustix::fs::open(&path, flags, mode).expect("direct I/O"));
    let mut at = 0;
    while at < bytes {
        file.write_all_at(&buffer, at).expect("a write");
        at += buffer.len() as u64;
    }
    file.sync_all().expect("a sync");
    let rate = at as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path).expect("a file to remove");
    rate
}

/// Reads all files with this extension in a directory from the device, in large pieces. Returns the
/// time and the bytes.
pub fn read_files(dir: &Path, extension: &str) -> (Duration, u64) {
    let mut buffer = seawal::io::AlignedBuf::zeroed(4 << 20).expect("memory");
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    let (began, mut bytes) = (Instant::now(), 0u64);
    for path in paths.iter().filter(|path| path.extension().is_some_and(|found| found == extension)) {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).expect("direct I/O"));
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer, at).expect("a read") as u64;
            at += read;
            if read < buffer.len() as u64 {
                break;
            }
        }
        bytes += at;
    }
    (began.elapsed(), bytes)
}
