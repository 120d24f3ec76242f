//! This engine.

use crate::peer::{Level, OURS, Peer, Session, Store};
use crate::work::{key, look, value};
use seawal::kv::{Kv, KvCommand, KvRange};
use seawal::{Durability, Engine, Options, View};
use std::ops::Bound;
use std::path::Path;

pub fn peer() -> Peer {
    Peer {
        name: OURS,
        package: "seawal",
        durable: Some("`Durability::Sync`, the default"),
        buffered: Some("`Durability::Os`"),
        note: "`first_segment_bytes` 64 MiB, where the default is 1 and grows to that, so that a short run is what a long one is, in `cargo bench` too; \
               1 TiB of `checkpoint_log_bytes` and `max_log_bytes`, so that nothing is checkpointed by itself, where checkpoints, segments or \
               growth are measured",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

/// Reads of a view, which is taken once and sees no later commits.
pub fn view() -> Peer {
    Peer {
        name: "seawal, a view held",
        package: "seawal",
        durable: None,
        buffered: None,
        note: "reads of one `view()`: as LMDB with one transaction held",
        reads: true,
        scans: true,
        held: true,
        open,
    }
}

pub fn options(level: Level) -> Options {
    let durability = match level {
        Level::Durable => Durability::Sync,
        Level::Buffered => Durability::Os,
    };
    Options::new().first_segment_bytes(64 << 20).durability(durability)
}

fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    Box::new(Opened(options(level).open(dir).expect("a store to measure")))
}

pub struct Opened(pub Engine<Kv>);

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Direct(&self.0))
    }

    fn held(&self) -> Box<dyn Session + '_> {
        Box::new(Looking { engine: &self.0, view: None })
    }

    fn sync(&self) {
        self.0.sync().expect("a sync");
    }

    fn close(self: Box<Self>) {
        self.0.close().expect("a clean close");
    }
}

struct Direct<'a>(&'a Engine<Kv>);

pub fn put(n: u64, seed: u64) -> KvCommand {
    KvCommand::put("", key(n), value(seed))
}

impl Session for Direct<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.0.execute(put(n, seed)).expect("a commit");
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        self.0.execute(KvCommand::batch((first..first + entries).map(|n| put(n, n ^ seed)))).expect("a commit");
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        self.0.with_value(key(n), look).expect("a read")
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let all = |found: KvRange<'_>| found.take(entries).map(|(key, value)| look(key) + look(value)).sum();
        self.0.with_range(&key(n)[..].., all).expect("a scan")
    }
}

struct Looking<'a> {
    engine: &'a Engine<Kv>,
    view: Option<View<Kv>>,
}

impl Looking<'_> {
    fn view(&mut self) -> &View<Kv> {
        self.view.get_or_insert_with(|| self.engine.view().expect("a view"))
    }
}

impl Session for Looking<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        Direct(self.engine).put(n, seed);
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        Direct(self.engine).batch(first, entries, seed);
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        self.view().get("", key(n)).map(look)
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let from = (Bound::Included(key(n)), Bound::Unbounded);
        self.view().range::<[u8; 16]>("", from).take(entries).map(|(key, value)| look(key) + look(value)).sum()
    }
}
