//! What checkpoints cost: one is due by what it would write.

use crate::common::manual;
use seawal::kv::{Kv, KvCommand};
use seawal::sim::SimDisk;
use seawal::{Durability, Engine, Options, Step};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn options() -> Options {
    manual().segment_bytes(MIB).first_segment_bytes(MIB).checkpoint_log_bytes(256 << 10).max_log_bytes(64 * MIB)
}

fn open(disk: &SimDisk, options: &Options) -> Engine<Kv> {
    options.open_on(Arc::new(disk.clone())).unwrap()
}

fn put(key: u64, value_bytes: usize) -> KvCommand {
    KvCommand::put("", format!("{key:08}"), vec![key as u8; value_bytes])
}

/// A store of about 2 MiB, with a snapshot of all of it.
fn two_mib(options: &Options) -> (SimDisk, Engine<Kv>) {
    let disk = SimDisk::new(1);
    let engine = open(&disk, options);
    (0..2048).for_each(|key| drop(engine.execute_with(put(key, 1024), Durability::Os).unwrap()));
    engine.checkpoint().unwrap();
    (disk, engine)
}

/// The number and the bytes of the snapshots.
fn snapshots(disk: &SimDisk) -> (usize, usize) {
    let names = crate::common::names(disk, ".snap");
    (names.len(), names.iter().map(|name| disk.read_file(name).unwrap().len()).sum())
}

/// S17: A checkpoint is due once the log has grown by what it would write, not before, however low
/// `checkpoint_log_bytes` is.
#[test]
fn checkpoints_write_no_more_than_the_log() {
    let (disk, engine) = two_mib(&options());
    let snapshot = snapshots(&disk).1 as u64;
    assert!(snapshot > 2 * MIB, "{snapshot}");
    let mut taken = engine.stats().checkpoints;
    for n in 0..2000 {
        engine.execute(put(n % 2048, 1024)).unwrap();
        let before = engine.stats();
        assert!((snapshot..snapshot + snapshot / 8).contains(&before.checkpoint_due_bytes), "{before:?}");
        while engine.step(Step::Checkpoint).unwrap() {}
        let after = engine.stats();
        let is_due = before.log_bytes_since_snapshot >= before.checkpoint_due_bytes;
        assert_eq!(after.checkpoints > taken, is_due, "commit {n}: {before:?}");
        taken = after.checkpoints;
    }
    // 2000 durable commits take a block each
    assert_eq!(taken - 1, 2000 * 4096 / snapshot.next_multiple_of(4096), "{:?}", engine.stats());
}
