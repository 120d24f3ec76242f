//! Statistics and reports, serialized with serde.

use crate::common::{manual, open_on};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::{Fault, OpKind, Persistence, SimDisk};
use serde_json::{Value, to_value};

#[test]
fn stats_are_serialized_with_times_in_seconds_and_errors_as_text() {
    let disk = SimDisk::new(1);
    let engine = open_on::<Kv>(&disk, &manual()).unwrap().0;
    engine.execute(KvCommand::put("", "k", "v")).unwrap();
    disk.fail_next(OpKind::SyncAll, Fault::Eio, Persistence::Once);
    assert!(engine.checkpoint().is_err());
    let stats = engine.stats();
    let json = to_value(&stats).unwrap();
    assert_eq!(json["estimated_recovery_seconds"], stats.estimated_recovery.as_secs_f64());
    assert!(json["longest_freeze_seconds"].is_f64() && json.get("longest_freeze").is_none());
    assert_eq!(json["checkpoint_error"], stats.checkpoint_error.as_ref().unwrap().to_string());
    assert_eq!(json["background_error"], Value::Null);
    let log = stats.log.as_ref().unwrap();
    assert_eq!(json["log"]["durable"], log.durable.get());
    assert_eq!(json["log"]["write_path"], "direct");
    let sizes: Vec<_> = log.batch_sizes.by_size().collect();
    assert_eq!(json["log"]["batch_sizes"]["by_size"][0]["records_at_least"], sizes[0].0);
    assert_eq!(json["log"]["batch_sizes"]["by_size"][0]["frames"], sizes[0].1);
    assert_eq!(json["snapshots"], Value::Array(Vec::new()));
}

#[test]
fn a_recovery_report_is_serialized_with_its_verdict_and_times() {
    let disk = SimDisk::new(1);
    drop(open_on::<Kv>(&disk, &manual()).unwrap().0);
    let engine = open_on::<Kv>(&disk, &manual()).unwrap().0;
    let report = engine.recovery_report();
    let json = to_value(report).unwrap();
    assert_eq!((&json["verdict"], &json["epoch"]), (&Value::from("clean"), &Value::from(report.epoch.get())));
    assert_eq!(json["phases"]["redo_seconds"], report.phases.redo.as_secs_f64());
    assert_eq!((&json["tail"], &json["snapshot"]), (&Value::Null, &Value::Null));
}
