//! Whether commits wait for a new segment. Commits that begin one at each MiB alternate with
//! commits within a large segment. This engine only.

use super::Effort;
use super::checkpoint::unbounded;
use super::commit::commits;
use crate::figures::{Part, Samples};
use crate::peer::{Level, OURS};
use crate::peers::seawal::Opened;
use crate::work::directory;
use seawal::Engine;
use seawal::kv::Kv;
use std::path::Path;
use std::time::Duration;

const SMALL_BYTES: u64 = 1 << 20;
/// larger than any sample fills
const LARGE_BYTES: u64 = 256 << 20;
const THREADS: usize = 8;
pub const ONE: &str = "within one segment";
pub const BEGUN: &str = "segments begun in all samples";
pub const PERCENTILES: [(&str, usize); 4] = [("p50", 500), ("p99", 990), ("p99.9", 999), ("the worst", 1000)];

pub fn row(percentile: &str) -> String {
    format!("commits of {THREADS} threads, each MiB a new segment, {percentile}, µs")
}

/// A store with its preallocated segments, so that the sample has only the steady rate of
/// preallocation.
fn opened(dir: &Path, segment_bytes: u64) -> Opened {
    let options = unbounded(Level::Durable).segment_bytes(segment_bytes).first_segment_bytes(segment_bytes);
    let engine: Engine<Kv> = options.open(dir).expect("a store");
    while engine.stats().log.expect("a log").preallocated_segments < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    Opened(engine)
}

pub fn measure(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let dirs = [directory(), directory()];
    let stores = [(OURS, opened(dirs[0].path(), SMALL_BYTES)), (ONE, opened(dirs[1].path(), LARGE_BYTES))];
    for _ in 0..effort.repetitions {
        for (subject, store) in &stores {
            let (_, latencies) = commits(store, THREADS, effort.time);
            for (name, of_1000) in PERCENTILES {
                samples.add(&row(name), subject, latencies.percentile(of_1000));
            }
        }
    }
    for (subject, Opened(engine)) in &stores {
        samples.add(BEGUN, subject, engine.stats().log.expect("a log").segments as f64);
    }
    samples.into_part()
}
