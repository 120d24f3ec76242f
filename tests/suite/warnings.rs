//! The report warns of a storage that may not keep its promises.

use crate::common::{Cmd, manual, open, open_on};
use seawal::kv::Kv;
use seawal::sim::SimDisk;
use seawal::wal::{Log, LogOptions};
use seawal::{Options, RecoveryPolicy};
use std::sync::Arc;

#[test]
fn what_a_storage_may_not_keep_is_in_every_report() {
    let sentence = "this disk forgets";
    let disk = SimDisk::builder().warning(sentence).build();
    let (engine, report) = open(&disk);
    assert_eq!(report.warnings, [sentence]);
    engine.execute(Cmd::push(1, 1)).unwrap();
    drop(engine);
    let (_, report) = open_on::<crate::common::Stacks>(&disk, &manual().recovery(RecoveryPolicy::ReadOnly)).unwrap();
    assert_eq!(report.warnings, [sentence]);
    let log = Log::open_on(Arc::new(SimDisk::builder().warning(sentence).build()), LogOptions::default()).unwrap();
    assert_eq!(log.recovery_report().warnings, [sentence]);
    let (_, report) = open(&SimDisk::new(1));
    assert!(report.warnings.is_empty(), "{report:?}");
}

#[test]
fn a_store_in_memory_is_warned_of_by_its_kind() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return crate::common::skipped("/dev/shm cannot be written");
    };
    let engine = Options::new().open::<Kv>(dir.path()).unwrap();
    let report = engine.recovery_report().clone();
    assert!(report.warnings.iter().any(|w| w.contains("nothing survives power loss")), "{report:?}");
    // a machine under load may be slower than that
    println!("{:?}", report.warnings);
    engine.close().unwrap();
}

#[test]
fn a_store_on_a_disk_is_not_warned_of() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine = Options::new().open::<Kv>(dir.path()).unwrap();
    let report = engine.recovery_report().clone();
    let too_fast = report.warnings.iter().any(|w| w.contains("less than any device"));
    let by_kind = report.warnings.iter().any(|w| w.contains("the store lies on"));
    assert!(by_kind || !too_fast, "{report:?}");
    println!("{:?}", report.warnings);
    engine.close().unwrap();
}
