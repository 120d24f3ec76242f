//! Defects that were found by reading, each with the shortest history that shows it.

use crate::common::{Cmd, Stacks, manual, open, open_on, state};
use seawal::io::WritePath;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Log, LogOptions, LogStep};
use seawal::{Durability, Error, Step};
use std::sync::Arc;
use std::time::Duration;

fn log_options() -> LogOptions {
    let mut options = LogOptions::default();
    options.first_segment_bytes = 64 << 10;
    options.segment_bytes = 64 << 10;
    options
}

#[test]
fn a_failed_sync_is_never_tried_again_however_many_wait_for_it() {
    for round in 0..30 {
        let disk = SimDisk::builder().seed(round).write_path(WritePath::BufferedSync).build();
        let log = Log::open_on(Arc::new(disk.clone()), log_options()).unwrap();
        log.append(b"before").unwrap().wait().unwrap();
        disk.fail_next(OpKind::SyncData, Fault::Eio, Persistence::Once);
        let acknowledged: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..50).filter(|_| log.append(b"x").is_ok_and(|t| t.wait().is_ok())).count()))
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        drop(log);
        let disk = disk.crash(Crash::Nothing);
        let log = Log::open_on(Arc::new(disk), log_options()).unwrap();
        let found = log.read_from(log.recovery_report().start).unwrap().count();
        assert!(found > acknowledged, "round {round}: {acknowledged} acknowledged and the one before, {found} found");
    }
}

#[test]
fn a_log_closed_under_its_writers_opens_again() {
    for round in 0..30 {
        let disk = SimDisk::new(round);
        let log = Log::open_on(Arc::new(disk.clone()), log_options()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while log.append(b"record").is_ok() {});
            }
            std::thread::sleep(Duration::from_micros(200 * round));
            log.close().unwrap();
        });
        drop(log);
        Log::open_on(Arc::new(disk.crash(Crash::Nothing)), log_options()).unwrap();
    }
}

#[test]
fn an_idle_transaction_does_not_keep_the_last_commit_unproven() {
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 2)).unwrap();
    while engine.step(Step::Log(LogStep::Watermark)).unwrap() {}
    let frame = engine.stats().log.unwrap();
    assert!(frame.frames >= 2, "a frame must follow the one that was acknowledged: {frame:?}");
    std::mem::forget(tx);
    // the acknowledged frame is the first of the newest segment
    let disk = disk.crash(Crash::Nothing);
    let segment = disk.file_names().into_iter().rfind(|name| name.ends_with(".seg")).unwrap();
    disk.flip_bit(&segment, 4096 + 60, 0).unwrap();
    let error = open_on::<Stacks>(&disk, &manual()).map(|_| ()).unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
}

#[test]
fn an_interval_commit_is_synced_when_the_engine_is_dropped() {
    let disk = SimDisk::new(3);
    let (engine, _) = open(&disk);
    engine.execute_with(Cmd::push(1, 7), Durability::Interval(Duration::from_secs(60))).unwrap();
    drop(engine);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [7]);
}

#[test]
fn a_log_at_its_bound_recovers_once_checkpoints_work_again() {
    let disk = SimDisk::new(4);
    let options = manual().max_log_bytes(256 << 10).segment_bytes(64 << 10).checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    let mut full = false;
    for n in 0..2_000u32 {
        match engine.execute(Cmd::Push { key: 1, value: n, pad: 2_000 }) {
            Ok(_) => {}
            Err(seawal::ExecuteError::Failed(Error::Full { .. })) => {
                full = true;
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(full);
    for _ in 0..3 {
        engine.checkpoint().unwrap();
    }
    engine.execute(Cmd::push(2, 2)).unwrap();
    let wanted = state(&engine);
    drop(engine);
    assert_eq!(state(&open_on::<Stacks>(&disk.crash(Crash::Nothing), &options).unwrap().0), wanted);
}

#[test]
fn a_long_undo_that_is_cut_off_again_and_again_comes_to_its_end() {
    let disk = SimDisk::new(5);
    let options = manual().segment_bytes(32 << 10).first_segment_bytes(16 << 10);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    engine.execute(Cmd::push(9, 9)).unwrap();
    let wanted = state(&engine);
    let tx = engine.begin().unwrap();
    for n in 0..20_000 {
        tx.execute(Cmd::push(1, n)).unwrap();
    }
    engine.sync().unwrap();
    let mut disk = disk.crash(Crash::Nothing);
    std::mem::forget(tx);
    for round in 0..6 {
        disk.fail_at(disk.op_count() + 40 + 8 * round, Fault::Crash, Persistence::ForEver);
        let _ = open_on::<Stacks>(&disk, &options);
        disk = disk.crash(Crash::Seeded(round));
    }
    assert_eq!(state(&open_on::<Stacks>(&disk, &options).unwrap().0), wanted);
}

#[test]
fn closing_twice_gives_one_answer_and_a_transaction_cannot_begin_behind_it() {
    let disk = SimDisk::new(6);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| engine.close().unwrap());
        }
    });
    assert!(matches!(engine.begin().map(|_| ()), Err(Error::Closed)));
    drop(engine);
    let (_, report) = open(&disk);
    assert_eq!(report.records, 0);
}
