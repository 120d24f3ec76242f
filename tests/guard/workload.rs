//! The hot paths whose allocations and instructions are counted: a small store with fixed content,
//! and one operation at a time.

#![allow(clippy::expect_used, reason = "a workload that cannot run counts nothing")]

use seawal::kv::{Kv, KvCommand};
use seawal::{Background, Durability, Engine, Options, RecoveryReport, View};
use std::path::Path;

/// The names of the workloads.
pub(crate) const WORKLOADS: [&str; 12] = [
    "batch",
    "checkpoint",
    "execute",
    "get",
    "load",
    "range",
    "replay",
    "submit",
    "sync",
    "transaction",
    "view",
    "view-get",
];
/// Workloads that process the whole store. They run a hundredth as often, so that an operation
/// covers a hundred entries.
const WHOLE: [&str; 3] = ["checkpoint", "load", "replay"];

const ENTRIES: u64 = 10_000;
const BATCH: u64 = 100;

/// A store, and the operation that is repeated on it.
pub(crate) struct Workload {
    engine: Engine<Kv>,
    view: View<Kv>,
    once: fn(&Workload, u64),
    n: u64,
    /// The number of operations that one call does.
    at_once: u64,
    /// A directory with a closed or killed store of the same entries.
    left: tempfile::TempDir,
    /// dropped after the store
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

/// No commit waits for the device, no checkpoint is taken automatically, and no other thread does
/// part of the work.
fn options(segment_bytes: u64) -> Options {
    let options = Options::new().durability(Durability::Os).first_segment_bytes(segment_bytes);
    options.background(Background::Manual).checkpoint_bytes_per_second(None)
}

fn filled(dir: &Path, segment_bytes: u64) -> Engine<Kv> {
    let engine: Engine<Kv> = options(segment_bytes).open(dir).expect("a store");
    (0..ENTRIES / BATCH).for_each(|n| drop(engine.execute(batch(n)).expect("a commit")));
    engine
}

impl Workload {
    /// The workload of that name. `None` if there is none.
    pub(crate) fn new(name: &str) -> Option<Workload> {
        let once: fn(&Workload, u64) = match name {
            "batch" => |w, n| drop(w.engine.execute(batch(n)).expect("a commit")),
            "execute" => |w, n| drop(w.engine.execute(put(n)).expect("a commit")),
            "get" => |w, n| drop(w.engine.get(key(n)).expect("a read")),
            // a kill leaves a log and a close leaves a snapshot, so that there is something to read
            "replay" => |w, _| assert!(w.reopened().records >= ENTRIES / BATCH),
            "load" => |w, _| assert!(w.reopened().snapshot_bytes > ENTRIES * 116),
            "checkpoint" => |w, n| {
                w.engine.execute(put(n)).expect("a commit");
                w.engine.checkpoint().expect("a checkpoint");
            },
            "sync" => |w, n| drop(w.engine.execute_with(put(n), Durability::Sync).expect("a commit")),
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
        let (dir, left) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let engine = filled(dir.path(), 64 << 20);
        let view = engine.view().expect("a view");
        match name {
            "load" => filled(left.path(), 4 << 20).close().expect("a clean close"),
            "replay" => filled(left.path(), 4 << 20).sync().expect("a sync"),
            _ => {}
        }
        let at_once = if WHOLE.contains(&name) { ENTRIES / BATCH } else { 1 };
        Some(Workload { engine, view, once, n: 0, at_once, left, _dir: dir })
    }

    /// Opens a copy of the store, because an open changes its files.
    fn reopened(&self) -> RecoveryReport {
        let copy = tempfile::tempdir().expect("a directory");
        for file in std::fs::read_dir(self.left.path()).expect("a directory").map(|file| file.expect("a file")) {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy");
        }
        options(4 << 20).open::<Kv>(copy.path()).expect("recovery").recovery_report().clone()
    }

    /// Runs the operation `times` times. The instructions of the function of this name are counted.
    #[inline(never)]
    pub(crate) fn run(&mut self, times: u64) {
        for _ in 0..times.div_ceil(self.at_once) {
            (self.once)(self, self.n);
            self.n = self.n.wrapping_add(1);
        }
    }
}
