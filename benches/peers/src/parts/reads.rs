//! Reads of random entries: points, and scans of 100.

use super::Effort;
use crate::figures::{Part, Samples};
use crate::peer::{Level, Peer, Store};
use crate::peers;
use crate::work::{counted, directory, mix, run};
use std::time::Duration;
use tempfile::TempDir;

pub const THREADS: [usize; 2] = [1, 2];

pub fn point_row(threads: usize) -> String {
    format!("points, {}", counted(threads))
}

pub fn scan_row(threads: usize) -> String {
    format!("scans of 100, {}", counted(threads))
}

/// Fills a store in batches, as fast as its durability allows.
pub fn fill(peer: &Peer, store: &dyn Store, entries: u64) {
    // a batch that is synced is to be a large one
    let batch = if peer.supports(Level::Buffered) || peer.durable.is_none() { 100 } else { 10_000 };
    let mut session = store.session();
    for first in (0..entries).step_by(batch) {
        session.batch(first, batch as u64, 0);
    }
    store.sync();
}

/// The durability that a store is filled with.
pub fn fill_level(peer: &Peer) -> Level {
    if peer.durable.is_some() && peer.buffered.is_none() { Level::Durable } else { Level::Buffered }
}

fn filled(peer: Peer, entries: u64) -> (Peer, Box<dyn Store>, TempDir) {
    eprintln!("  filling {}", peer.name);
    let dir = directory();
    let store = (peer.open)(dir.path(), fill_level(&peer));
    fill(&peer, &*store, entries);
    (peer, store, dir)
}

fn reads(store: &dyn Store, entries: u64, threads: usize, time: Duration, scan: bool) -> f64 {
    let work = |thread| {
        let mut session = store.session();
        let mut n = mix(thread + 1);
        let once: Box<dyn FnMut()> = Box::new(move || {
            n = mix(n);
            if scan {
                assert!(session.scan(n % entries, 100) > 0);
            } else {
                assert!(session.get(n % entries).is_some());
            }
        });
        once
    };
    run(threads, time, false, &work).0
}

pub fn measure(effort: &Effort, entries: u64, who: impl Fn(&Peer) -> bool) -> Part {
    let mut samples = Samples::default();
    let able = peers::all().into_iter().filter(|peer| peer.reads && effort.wants(peer.name) && who(peer));
    let stores: Vec<_> = able.map(|peer| filled(peer, entries)).collect();
    for _ in 0..effort.repetitions {
        for threads in THREADS {
            for (peer, store, _) in &stores {
                samples.add(&point_row(threads), peer.name, reads(&**store, entries, threads, effort.time, false));
            }
            for (peer, store, _) in stores.iter().filter(|(peer, ..)| peer.scans) {
                samples.add(&scan_row(threads), peer.name, reads(&**store, entries, threads, effort.time, true));
            }
        }
    }
    samples.into_part()
}
