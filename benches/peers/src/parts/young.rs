//! Latency of commits from the first moment of a new store, at the default options. The log grows,
//! so its segments are preallocated beside the commits.

use super::Effort;
use super::commit::{PERCENTILES, commits};
use crate::figures::{Part, Samples};
use crate::peer::{Level, OURS, Store};
use crate::peers;
use crate::peers::seawal::Opened;
use crate::work::{counted, directory};
use seawal::Options;
use std::path::Path;

pub const THREADS: [usize; 2] = [1, 8];
/// The logs. The other peers keep their data in other structures.
const PEERS: [&str; 2] = ["okaywal", "raft-engine"];

pub fn row(threads: usize, percentile: &str) -> String {
    format!("{} of a new store, {percentile}, µs", counted(threads))
}

pub fn rate_row(threads: usize) -> String {
    format!("{} of a new store, per second", counted(threads))
}

fn by_default(dir: &Path) -> Box<dyn Store> {
    Box::new(Opened(Options::new().open(dir).expect("a store to measure")))
}

pub fn measure(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let others = peers::all().into_iter().filter(|peer| PEERS.contains(&peer.name) && effort.wants(peer.name));
    let others: Vec<_> = others.collect();
    for _ in 0..effort.repetitions {
        for threads in THREADS {
            let mut sample = |name: &str, open: &dyn Fn(&Path) -> Box<dyn Store>| {
                let dir = directory();
                let store = open(dir.path());
                let (rate, latencies) = commits(&*store, threads, effort.time);
                samples.add(&rate_row(threads), name, rate);
                for (percentile, of_1000) in PERCENTILES {
                    samples.add(&row(threads, percentile), name, latencies.percentile(of_1000));
                }
            };
            if effort.wants(OURS) {
                sample(OURS, &by_default);
            }
            for peer in &others {
                sample(peer.name, &|dir| (peer.open)(dir, Level::Durable));
            }
        }
    }
    samples.into_part()
}
