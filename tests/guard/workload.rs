//! The hot paths, as what allocations and instructions are counted of: a small store of a fixed content, and one operation at a time.

use seawal::kv::{Kv, KvCommand};
use seawal::{Background, Durability, Engine, Options, View};

/// What there is to be counted.
pub(crate) const WORKLOADS: [&str; 8] =
    ["batch", "execute", "get", "range", "submit", "transaction", "view", "view-get"];

const ENTRIES: u64 = 10_000;
const BATCH: u64 = 100;

/// A store, and what is done with it again and again.
pub(crate) struct Workload {
    engine: Engine<Kv>,
    view: View<Kv>,
    once: fn(&Workload, u64),
    n: u64,
    /// Goes after the store.
    _dir: tempfile::TempDir,
}

fn key(n: u64) -> [u8; 16] {
    let n = n % ENTRIES;
    ((u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64) | u128::from(n)).to_be_bytes()
}

fn put(n: u64) -> KvCommand {
    KvCommand::put("", key(n), [n as u8; 100])
}

fn batch(n: u64) -> KvCommand {
    KvCommand::batch((n * BATCH..(n + 1) * BATCH).map(put))
}

impl Workload {
    /// The one of that name.
    pub(crate) fn new(name: &str) -> Option<Workload> {
        let once: fn(&Workload, u64) = match name {
            "batch" => |w, n| drop(w.engine.execute(batch(n)).expect("a commit")),
            "execute" => |w, n| drop(w.engine.execute(put(n)).expect("a commit")),
            "get" => |w, n| drop(w.engine.get(key(n)).expect("a read")),
            "range" => |w, n| {
                let start = key(n);
                let found = w.engine.range(start.as_slice()..).expect("a scan").take(100).count();
                assert!(found > 0);
            },
            "submit" => |w, n| drop(w.engine.submit(put(n)).expect("a commit").wait().expect("durability")),
            "transaction" => |w, n| {
                w.engine
                    .transact(|tx| {
                        tx.insert(key(n), [n as u8; 100])?;
                        tx.insert(key(n + 1), [n as u8; 100])
                    })
                    .map(drop)
                    .expect("a commit");
            },
            "view" => |w, _| drop(w.engine.view().expect("a view")),
            "view-get" => |w, n| assert!(w.view.get("", key(n)).is_some()),
            _ => return None,
        };
        let dir = tempfile::tempdir().expect("a directory");
        // nobody waits for a device, no checkpoint comes in between, and no other thread does part of the work
        let options = Options::new().durability(Durability::Os).first_segment_bytes(64 << 20);
        let options = options.background(Background::Manual);
        let engine: Engine<Kv> = options.open(dir.path()).expect("a store");
        (0..ENTRIES / BATCH).for_each(|n| drop(engine.execute(batch(n)).expect("a commit")));
        let view = engine.view().expect("a view");
        Some(Workload { engine, view, once, n: 0, _dir: dir })
    }

    /// Does it so often. Under this name its instructions are counted.
    #[inline(never)]
    pub(crate) fn run(&mut self, times: u64) {
        for _ in 0..times {
            (self.once)(self, self.n);
            self.n = self.n.wrapping_add(1);
        }
    }
}
