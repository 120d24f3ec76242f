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

/// N2: everything worked by the stand-in, and neither the stats nor the report's text said so.
#[test]
fn a_degraded_store_says_so_until_a_checkpoint() {
    for damaged in [".snap", "MANIFEST-0", "MANIFEST-1"] {
        let disk = SimDisk::new(1);
        let (engine, _) = open(&disk);
        for n in 0..2 {
            engine.execute(Cmd::push(1, n)).unwrap();
            engine.checkpoint().unwrap();
        }
        assert!(engine.stats().degraded.is_empty());
        drop(engine);
        let name = crate::common::names(&disk, damaged).pop().unwrap();
        let len = disk.read_file(&name).unwrap().len() as u64;
        let offset = if damaged == ".snap" { len - 1 } else { 0 };
        disk.flip_bit(&name, offset, 1).unwrap();
        let (engine, report) = open(&disk);
        assert!(!report.stand_ins.is_empty(), "{damaged}: {report:?}");
        assert_eq!(engine.stats().degraded, report.stand_ins);
        assert!(report.stand_ins.iter().all(|stand_in| report.to_string().contains(stand_in)), "{report}");
        engine.execute(Cmd::push(1, 2)).unwrap();
        assert!(!engine.stats().degraded.is_empty());
        engine.checkpoint().unwrap();
        assert!(engine.stats().degraded.is_empty());
        drop(engine);
        let (engine, report) = open(&disk);
        assert!(report.stand_ins.is_empty(), "{damaged}: {report:?}");
        assert_eq!(crate::common::state(&engine).at(1), [0, 1, 2]);
    }
}
