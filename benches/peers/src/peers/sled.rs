//! sled: a lock-free tree over a log.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use sled::{Config, Db};
use std::fs::File;
use std::path::Path;

pub fn peer() -> Peer {
    Peer {
        name: "sled",
        package: "sled",
        durable: Some(
            "`insert`, `flush()`, and then an `fdatasync` of its file by us: `flush()` ends in `sync_file_range`, which leaves what it wrote in the device's cache",
        ),
        buffered: None,
        note: "an `insert` alone stays in the process's own buffer for up to `flush_every_ms`, so a kill loses it",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

fn open(dir: &Path, _: Level) -> Box<dyn Store> {
    let db = Config::new().path(dir).open().expect("a store to measure");
    Box::new(Opened { db, file: File::open(dir.join("db")).expect("the file of its log") })
}

struct Opened {
    db: Db,
    file: File,
}

impl Opened {
    fn harden(&self) {
        self.db.flush().expect("a sync");
        self.file.sync_data().expect("a sync");
    }
}

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Direct(self))
    }
}

struct Direct<'a>(&'a Opened);

impl Session for Direct<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.0.db.insert(key(n), &value(seed)[..]).expect("a write");
        self.0.harden();
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let mut batch = sled::Batch::default();
        (first..first + entries).for_each(|n| batch.insert(&key(n)[..], &value(n ^ seed)[..]));
        self.0.db.apply_batch(batch).expect("a commit");
        self.0.harden();
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        self.0.db.get(key(n)).expect("a read").map(|value| look(&value))
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let found = self.0.db.range(key(n)..).take(entries);
        found.map(|entry| entry.expect("an entry")).map(|(key, value)| look(&key) + look(&value)).sum()
    }
}
