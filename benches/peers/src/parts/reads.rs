//! Reads of random entries: points, and scans of 100.

use super::Effort;
use crate::figures::{Part, Samples};
use crate::peer::{Level, Peer, Store};
use crate::peers;
use crate::work::{counted, directory, mix, run};
use std::rc::Rc;
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
    // large batches if each is synced, or if there are millions of entries: LMDB copies all pages
    // that a batch changes
    let buffered = peer.supports(Level::Buffered) || peer.durable.is_none();
    let batch = if buffered && entries <= 1_000_000 { 100 } else { 10_000 };
    let mut session = store.session();
    for first in (0..entries).step_by(batch) {
        session.batch(first, batch as u64, 0);
    }
    store.sync();
}

/// The durability with which a store is filled.
pub fn fill_level(peer: &Peer) -> Level {
    if peer.durable.is_some() && peer.buffered.is_none() { Level::Durable } else { Level::Buffered }
}

/// A store and its directory.
struct Filled(Box<dyn Store>, #[expect(dead_code, reason = "it is removed after the store")] TempDir);

/// The peers and their stores. A peer with `held` reads the store of the peer before it, if that
/// has the same package.
fn filled(peers: impl Iterator<Item = Peer>, entries: u64) -> Vec<(Peer, Rc<Filled>)> {
    let mut all: Vec<(Peer, Rc<Filled>)> = Vec::new();
    for peer in peers {
        let shared = all.last().filter(|(other, _)| peer.held && other.package == peer.package);
        let shared = shared.map(|(_, store)| Rc::clone(store));
        let store = shared.unwrap_or_else(|| {
            eprintln!("  filling {}", peer.name);
            let dir = directory();
            let store = (peer.open)(dir.path(), fill_level(&peer));
            fill(&peer, &*store, entries);
            Rc::new(Filled(store, dir))
        });
        all.push((peer, store));
    }
    all
}

fn reads(peer: &Peer, store: &Filled, entries: u64, threads: usize, time: Duration, scan: bool) -> f64 {
    let store = &*store.0;
    let held = peer.held;
    let work = |thread| {
        let mut session = if held { store.held() } else { store.session() };
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
    let stores = filled(able, entries);
    for _ in 0..effort.repetitions {
        for threads in THREADS {
            for (peer, store) in &stores {
                samples.add(&point_row(threads), peer.name, reads(peer, store, entries, threads, effort.time, false));
            }
            for (peer, store) in stores.iter().filter(|(peer, _)| peer.scans) {
                samples.add(&scan_row(threads), peer.name, reads(peer, store, entries, threads, effort.time, true));
            }
        }
    }
    samples.into_part()
}
