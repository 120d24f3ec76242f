//! raft-engine: the log of TiKV's Raft groups, with a memory table.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use raft_engine::{Config, Engine, LogBatch};
use std::path::Path;

const REGION: u64 = 1;

pub fn peer() -> Peer {
    Peer {
        name: "raft-engine",
        package: "raft-engine",
        durable: Some("`write(.., sync = true)`"),
        buffered: Some("`write(.., sync = false)`"),
        note: "default configuration; it never purges here, so it keeps all it was given",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let config = Config { dir: dir.to_str().expect("a UTF-8 path").into(), ..Config::default() };
    Box::new(Opened { engine: Engine::open(config).expect("a store to measure"), sync: level == Level::Durable })
}

struct Opened {
    engine: Engine,
    sync: bool,
}

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Writing { store: self, batch: LogBatch::with_capacity(100) })
    }

    fn sync(&self) {
        self.engine.sync().expect("a sync");
    }
}

struct Writing<'a> {
    store: &'a Opened,
    batch: LogBatch,
}

impl Session for Writing<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.batch(n, 1, seed);
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        for n in first..first + entries {
            self.batch.put(REGION, key(n).to_vec(), value(n ^ seed).to_vec()).expect("an entry");
        }
        self.store.engine.write(&mut self.batch, self.store.sync).expect("a commit");
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        self.store.engine.get(REGION, &key(n)).map(|value| look(&value))
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let (mut left, mut bytes) = (entries, 0);
        let each = |key: &[u8], value: &[u8]| {
            bytes += look(key) + look(value);
            left -= 1;
            left > 0
        };
        self.store.engine.scan_raw_messages(REGION, Some(&key(n)), None, false, each).expect("a scan");
        bytes
    }
}
