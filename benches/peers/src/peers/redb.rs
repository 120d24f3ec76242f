//! redb: a copy-on-write B-tree in a file.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use redb::{Database, ReadableDatabase, TableDefinition};
use std::path::Path;

const ENTRIES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("entries");

pub fn peer() -> Peer {
    Peer {
        name: "redb",
        package: "redb",
        durable: Some("`Durability::Immediate`, the default"),
        buffered: None,
        note: "a write that survives a kill but needs no sync is not to be had: `Durability::None` is lost with the process; \
               a read transaction for each read",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

fn open(dir: &Path, _: Level) -> Box<dyn Store> {
    let db = Database::create(dir.join("redb")).expect("a store to measure");
    let tx = db.begin_write().expect("a transaction");
    tx.open_table(ENTRIES).expect("a table");
    tx.commit().expect("a commit");
    Box::new(Opened(db))
}

struct Opened(Database);

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Direct(&self.0))
    }
}

struct Direct<'a>(&'a Database);

impl Session for Direct<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.batch(n, 1, seed);
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let tx = self.0.begin_write().expect("a transaction");
        {
            let mut table = tx.open_table(ENTRIES).expect("a table");
            for n in first..first + entries {
                table.insert(&key(n)[..], &value(n ^ seed)[..]).expect("an entry");
            }
        }
        tx.commit().expect("a commit");
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        let table = self.0.begin_read().expect("a transaction").open_table(ENTRIES).expect("a table");
        table.get(&key(n)[..]).expect("a read").map(|value| look(value.value()))
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let table = self.0.begin_read().expect("a transaction").open_table(ENTRIES).expect("a table");
        let start = key(n);
        let found = table.range::<&[u8]>(&start[..]..).expect("a scan").take(entries);
        found.map(|entry| entry.expect("an entry")).map(|(key, value)| look(key.value()) + look(value.value())).sum()
    }
}
