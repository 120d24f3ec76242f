//! okaywal: a log alone.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{KEY_BYTES, PAYLOAD_BYTES, key, value};
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use std::io;
use std::path::Path;

pub fn peer() -> Peer {
    Peer {
        name: "okaywal",
        package: "okaywal",
        durable: Some("`commit()` of an entry, which always syncs"),
        buffered: None,
        note: "a log without a state; `preallocate_bytes` 64 MiB and `checkpoint_after_bytes` 48 MiB, for its defaults of 1 MiB \
               would make it checkpoint all the time",
        reads: false,
        scans: false,
        held: false,
        open,
    }
}

/// Keeps no state.
#[derive(Debug)]
struct Nothing;

impl LogManager for Nothing {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        entry.read_all_chunks().map(|_| ())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

fn open(dir: &Path, _: Level) -> Box<dyn Store> {
    let config = Configuration::default_for(dir).preallocate_bytes(64 << 20).checkpoint_after_bytes(48 << 20);
    Box::new(Opened(config.open(Nothing).expect("a log to measure")))
}

struct Opened(WriteAheadLog);

impl Store for Opened {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Writing(&self.0))
    }

    fn close(self: Box<Self>) {
        self.0.shutdown().expect("a clean end");
    }
}

struct Writing<'a>(&'a WriteAheadLog);

impl Session for Writing<'_> {
    fn put(&mut self, n: u64, seed: u64) {
        self.batch(n, 1, seed);
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let mut entry = self.0.begin_entry().expect("an entry");
        for n in first..first + entries {
            let mut payload = [0; PAYLOAD_BYTES as usize];
            payload[..KEY_BYTES].copy_from_slice(&key(n));
            payload[KEY_BYTES..].copy_from_slice(&value(n ^ seed));
            entry.write_chunk(&payload).expect("a chunk");
        }
        entry.commit().expect("a commit");
    }
}
