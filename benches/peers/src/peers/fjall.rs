//! fjall: a log-structured merge tree.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

pub fn peer() -> Peer {
    Peer {
        name: "fjall",
        package: "fjall",
        durable: Some("`insert`, then `persist(PersistMode::SyncData)`"),
        buffered: Some("`insert` alone: it goes to the operating system's buffers"),
        note: "`cache_size` 1 GiB, so that all of it fits",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let db = Database::builder(dir).cache_size(1 << 30).open().expect("a store to measure");
    let entries = db.keyspace("entries", KeyspaceCreateOptions::default).expect("a keyspace");
    Box::new(Opened { db, entries, level })
}

struct Opened {
    db: Database,
    entries: Keyspace,
    level: Level,
}

impl Opened {
    fn harden(&self) {
        if self.level == Level::Durable {
            self.sync();
        }
    }
}

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Direct(self))
    }

    fn sync(&self) {
        self.db.persist(PersistMode::SyncData).expect("a sync");
    }
}

struct Direct<'a>(&'a Opened);

impl Session for Direct<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.0.entries.insert(key(n), value(seed)).expect("a commit");
        self.0.harden();
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let mut batch = self.0.db.batch();
        for n in first..first + entries {
            batch.insert(&self.0.entries, key(n), value(n ^ seed));
        }
        batch.commit().expect("a commit");
        self.0.harden();
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        self.0.entries.get(key(n)).expect("a read").map(|value| look(&value))
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let found = self.0.entries.range(key(n)..).take(entries);
        found.map(|guard| guard.into_inner().expect("an entry")).map(|(key, value)| look(&key) + look(&value)).sum()
    }
}
