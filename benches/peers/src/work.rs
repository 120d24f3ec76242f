//! The same work for every peer: keys, values, threads that repeat an operation, and statistics.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 100;
pub const PAYLOAD_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// A well mixed number from a number (SplitMix64's finaliser).
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The n-th of a sequence of distinct keys in random order.
pub fn key(n: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// A seed for values that are not in the store yet.
pub fn new_seed() -> u64 {
    static SEEDS: AtomicU64 = AtomicU64::new(1);
    mix(SEEDS.fetch_add(1, Ordering::Relaxed))
}

/// A value of bytes that cannot be compressed.
pub fn value(n: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for (at, chunk) in value.chunks_mut(8).enumerate() {
        let bytes = mix(n.wrapping_add((at as u64) << 40)).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    value
}

/// Applied to every value that was read. It uses both ends, so that the bytes are loaded and
/// nothing is optimized away.
pub fn look(bytes: &[u8]) -> usize {
    bytes.len() + usize::from(bytes.first().copied().unwrap_or(0)) + usize::from(bytes.last().copied().unwrap_or(0))
}

/// The number of threads, in words.
pub fn counted(threads: usize) -> String {
    if threads == 1 { "1 thread".into() } else { format!("{threads} threads") }
}

/// The operation that a thread repeats.
pub type Once<'a> = Box<dyn FnMut() + 'a>;

/// Runs `work` on several threads for `time`. `work` is called once in each thread, and returns the
/// operation to repeat. Returns operations per second, and the latency of each if that is
/// requested.
pub fn run<'a>(
    threads: usize,
    time: Duration,
    timed: bool,
    work: &(dyn Fn(u64) -> Once<'a> + Sync),
) -> (f64, Latencies) {
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(threads + 1);
    let one = |thread| {
        let mut once = work(thread);
        let (mut done, mut taken) = (0u64, Vec::new());
        barrier.wait();
        while !stop.load(Ordering::Relaxed) {
            if timed {
                let before = Instant::now();
                once();
                taken.push(before.elapsed().as_nanos() as u64);
            } else {
                once();
            }
            done += 1;
        }
        (done, taken)
    };
    std::thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = (0..threads as u64).map(|thread| scope.spawn(move || one(thread))).collect();
        barrier.wait();
        let began = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let (mut done, mut taken) = (0, Vec::new());
        for thread in running {
            let (times, nanos) = thread.join().expect("a thread that works");
            done += times;
            taken.extend(nanos);
        }
        (done as f64 / began.elapsed().as_secs_f64(), Latencies::of(taken))
    })
}

/// The median, the minimum and the maximum of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(mut samples: Vec<f64>) -> Spread {
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        let median = if samples.len() % 2 == 1 || samples.is_empty() {
            samples.get(middle).copied().unwrap_or(f64::NAN)
        } else {
            (samples[middle - 1] + samples[middle]) / 2.0
        };
        let (least, most) = (samples.first().copied(), samples.last().copied());
        Spread { median, least: least.unwrap_or(f64::NAN), most: most.unwrap_or(f64::NAN) }
    }
}

/// Latencies in nanoseconds, sorted for percentiles.
#[derive(Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    pub fn of(mut nanos: Vec<u64>) -> Latencies {
        nanos.sort_unstable();
        Latencies(nanos)
    }

    /// A percentile in microseconds.
    pub fn percentile(&self, of_1000: usize) -> f64 {
        let at = (self.0.len() * of_1000 / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1000.0)
    }
}

/// A directory on the measured disk: `TMPDIR`, or next to the build.
pub fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("TMPDIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    // it does not exist yet if the program was built elsewhere
    std::fs::create_dir_all(&base).expect("a directory to measure in");
    tempfile::Builder::new().prefix("peers-").tempdir_in(base).expect("a directory to measure in")
}

/// The resident memory of this process.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// The size of the largest file with this extension in a directory, in bytes.
pub fn bytes_of_kind(dir: &Path, extension: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let files = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|found| found == extension));
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).max().unwrap_or(0)
}

/// The bytes of all files in a directory.
pub fn bytes_under(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_samples_is_their_median() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn percentiles_are_of_the_sorted() {
        let latencies = Latencies::of((0..1000).rev().map(|n| n * 1000).collect());
        assert_eq!((latencies.percentile(500), latencies.percentile(999)), (500.0, 999.0));
    }
}
