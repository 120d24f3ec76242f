//! RocksDB: a log-structured merge tree.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use rocksdb::{BlockBasedOptions, Cache, DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use std::path::Path;

pub fn peer() -> Peer {
    Peer {
        name: "RocksDB",
        package: "librocksdb-sys",
        durable: Some("`WriteOptions::sync = true`"),
        buffered: Some("`WriteOptions::sync = false`, the default"),
        note: "`block_cache` 1 GiB, so that all of it fits",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(1 << 30));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    let db = DB::open(&options, dir).expect("a store to measure");
    Box::new(Opened { db, sync: level == Level::Durable })
}

struct Opened {
    db: DB,
    sync: bool,
}

impl Opened {
    fn writes(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        options
    }
}

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Direct { store: self, writes: self.writes() })
    }

    fn sync(&self) {
        self.db.flush_wal(true).expect("a sync");
    }
}

struct Direct<'a> {
    store: &'a Opened,
    writes: WriteOptions,
}

impl Session for Direct<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.store.db.put_opt(key(n), value(seed), &self.writes).expect("a commit");
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let mut batch = WriteBatch::default();
        (first..first + entries).for_each(|n| batch.put(key(n), value(n ^ seed)));
        self.store.db.write_opt(batch, &self.writes).expect("a commit");
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        self.store.db.get_pinned(key(n)).expect("a read").map(|value| look(&value))
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let start = key(n);
        let found = self.store.db.iterator(IteratorMode::From(&start, Direction::Forward)).take(entries);
        found.map(|entry| entry.expect("an entry")).map(|(key, value)| look(&key) + look(&value)).sum()
    }
}
