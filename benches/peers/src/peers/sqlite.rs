//! SQLite, through rusqlite, with its write-ahead log.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

pub fn peer() -> Peer {
    Peer {
        name: "SQLite",
        package: "libsqlite3-sys",
        durable: Some("`journal_mode=WAL`, `synchronous=FULL`"),
        buffered: Some("`journal_mode=WAL`, `synchronous=NORMAL`"),
        note: "one connection writes, behind a mutex, which is faster than its own locks; each thread reads by a connection of its \
               own with `cache_size` 512 MiB; version of the bindings",
        reads: true,
        scans: true,
        held: false,
        open,
    }
}

struct Opened {
    path: PathBuf,
    level: Level,
    writer: Mutex<Connection>,
}

fn connect(path: &Path, level: Level) -> Connection {
    let connection = Connection::open(path).expect("a store to measure");
    let synchronous = if level == Level::Durable { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "journal_mode", "WAL").expect("a log");
    connection.pragma_update(None, "synchronous", synchronous).expect("durability");
    connection.pragma_update(None, "cache_size", -(512 << 10)).expect("a cache");
    connection
}

fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let path = dir.join("sqlite");
    let connection = connect(&path, level);
    let table = "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID";
    connection.execute(table, []).expect("a table");
    Box::new(Opened { path, level, writer: Mutex::new(connection) })
}

impl Opened {
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().expect("a connection that nobody died with")
    }
}

const PUT: &str = "INSERT OR REPLACE INTO entries VALUES (?1, ?2)";

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Direct { store: self, reader: None })
    }

    fn sync(&self) {
        self.writer().query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).expect("a checkpoint");
    }

    fn close(self: Box<Self>) {
        self.writer.into_inner().expect("a connection").close().expect("a clean close");
    }
}

struct Direct<'a> {
    store: &'a Opened,
    reader: Option<Connection>,
}

impl Direct<'_> {
    fn reader(&mut self) -> &Connection {
        self.reader.get_or_insert_with(|| connect(&self.store.path, self.store.level))
    }
}

impl Session for Direct<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        let writer = self.store.writer();
        let mut statement = writer.prepare_cached(PUT).expect("a statement");
        statement.execute(params![key(n), value(seed)]).expect("a commit");
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let mut writer = self.store.writer();
        let tx = writer.transaction().expect("a transaction");
        for n in first..first + entries {
            tx.prepare_cached(PUT).expect("a statement").execute(params![key(n), value(n ^ seed)]).expect("an entry");
        }
        tx.commit().expect("a commit");
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        let mut statement =
            self.reader().prepare_cached("SELECT value FROM entries WHERE key = ?1").expect("a statement");
        let length = |row: &rusqlite::Row| Ok(look(row.get_ref(0)?.as_blob()?));
        statement.query_row([key(n)], length).optional().expect("a read")
    }

    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let query = "SELECT key, value FROM entries WHERE key >= ?1 ORDER BY key LIMIT ?2";
        let mut statement = self.reader().prepare_cached(query).expect("a statement");
        let mut rows = statement.query(params![key(n), entries as i64]).expect("a scan");
        let mut bytes = 0;
        while let Some(row) = rows.next().expect("an entry") {
            let length = |column| look(row.get_ref(column).expect("a column").as_blob().expect("bytes"));
            bytes += length(0) + length(1);
        }
        bytes
    }
}
