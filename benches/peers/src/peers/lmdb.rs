//! LMDB, through heed: a copy-on-write B-tree in a memory map.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use std::ops::Bound;
use std::path::Path;

pub fn peer() -> Peer {
    Peer {
        name: "LMDB",
        package: "heed",
        durable: Some("the default: each commit syncs"),
        buffered: Some("`MDB_NOSYNC`; without a sync in time, power loss may damage it, as its documentation says"),
        note: "through heed; a read transaction for each read, as every read of this engine sees the newest state",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

/// One read transaction, held by each thread, which sees nothing newer.
pub fn held() -> Peer {
    Peer {
        name: "LMDB, a transaction held",
        package: "heed",
        durable: None,
        buffered: None,
        note: "one read transaction in each thread, which sees nothing newer",
        reads: true,
        scans: true,
        held: true,
        open,
    }
}

struct Opened {
    env: Env,
    entries: Database<Bytes, Bytes>,
}

fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let mut options = EnvOpenOptions::new();
    options.map_size(16 << 30).max_readers(128);
    if level == Level::Buffered {
        // SAFETY: the flag only weakens durability, which is requested
        unsafe { options.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: the file belongs to this process, and no other maps or changes it
    let env = unsafe { options.open(dir) }.expect("a store to measure");
    let mut tx = env.write_txn().expect("a transaction");
    let entries = env.create_database(&mut tx, None).expect("a table");
    tx.commit().expect("a commit");
    Box::new(Opened { env, entries })
}

impl Opened {
    fn get(&self, tx: &RoTxn, n: u64) -> Option<usize> {
        self.entries.get(tx, &key(n)).expect("a read").map(look)
    }

    fn scan(&self, tx: &RoTxn, n: u64, entries: usize) -> usize {
        let start = key(n);
        let range = (Bound::Included(&start[..]), Bound::Unbounded);
        let found = self.entries.range(tx, &range).expect("a scan").take(entries);
        found.map(|entry| entry.expect("an entry")).map(|(key, value)| look(key) + look(value)).sum()
    }
}

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Direct(self))
    }

    fn held(&self) -> Box<dyn Session + '_> {
        Box::new(Looking { store: self, tx: None })
    }

    fn sync(&self) {
        self.env.force_sync().expect("a sync");
    }
}

struct Direct<'a>(&'a Opened);

impl Session for Direct<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.batch(n, 1, seed);
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let mut tx = self.0.env.write_txn().expect("a transaction");
        for n in first..first + entries {
            self.0.entries.put(&mut tx, &key(n), &value(n ^ seed)).expect("an entry");
        }
        tx.commit().expect("a commit");
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        self.0.get(&self.0.env.read_txn().expect("a transaction"), n)
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        self.0.scan(&self.0.env.read_txn().expect("a transaction"), n, entries)
    }
}

struct Looking<'a> {
    store: &'a Opened,
    tx: Option<RoTxn<'a, WithTls>>,
}

impl<'a> Looking<'a> {
    fn tx(&mut self) -> (&'a Opened, &RoTxn<'a, WithTls>) {
        (self.store, self.tx.get_or_insert_with(|| self.store.env.read_txn().expect("a transaction")))
    }
}

impl Session for Looking<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        Direct(self.store).put(n, seed);
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        Direct(self.store).batch(first, entries, seed);
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        let (store, tx) = self.tx();
        store.get(tx, n)
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let (store, tx) = self.tx();
        store.scan(tx, n, entries)
    }
}
