//! Every operation of the storage fails in turn, once and permanently. The result is a typed error
//! or a latch, and nothing acknowledged is lost.

use crate::common::{Cmd, Stacks, manual, open, open_on, scale, stacks, state};
use seawal::machine::{Access, Footprint};
use seawal::sim::explore::{Explore, Explored};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::LogStep;
use seawal::{Durability, Error, ExecuteError, ReadLevel, Step};
use std::collections::HashSet;
use std::sync::Arc;

/// The workload in which the operations fail. The first seed aborts a snapshot and opens the store
/// again, so it includes every kind of operation.
fn workload() -> Explore<Stacks> {
    stacks().steps(70).seed(16)
}

#[test]
fn what_is_made_to_fail_takes_every_kind_of_operation_that_the_engine_has() {
    let disk = SimDisk::new(16);
    disk.record_crash_points(..);
    workload().run_on(&disk).unwrap_or_else(|e| panic!("{e}"));
    let taken: HashSet<_> = disk.take_crash_points().iter().map(|point| point.kind()).collect();
    // the engine never uses `ReadAt` and `SetLen`: it bypasses the page cache, and allocates
    let all = [
        OpKind::Open,
        OpKind::Create,
        OpKind::List,
        OpKind::Rename,
        OpKind::Remove,
        OpKind::SyncDir,
        OpKind::Lock,
        OpKind::ReadDeviceAt,
        OpKind::WriteAt,
        OpKind::WriteDurableAt,
        OpKind::SyncData,
        OpKind::SyncAll,
        OpKind::Len,
        OpKind::Allocate,
    ];
    assert_eq!(taken, HashSet::from(all));
}

#[test]
fn a_failure_of_any_operation_is_an_error_or_a_latch_and_loses_nothing() {
    // the seed before that one closes the store, after a rotation into a recycled segment
    let explored = workload().seed(15).seeds(2 * scale()).fail_each_operation().unwrap_or_else(|e| panic!("{e}"));
    println!("{explored:?}");
    did_everything(&explored);
    assert!(explored.did.contains_key("rotated into a recycled segment"), "{explored:?}");
}

fn did_everything(explored: &Explored) {
    for what in [
        "open failed",
        "latched",
        "gone on after a failure",
        "checkpoint",
        "snapshot loaded",
        "rotated",
        "recycled",
        "closed",
        "reopened",
    ] {
        assert!(explored.did.contains_key(what), "{what}: {explored:?}");
    }
}

#[test]
fn a_failure_of_any_operation_of_the_built_in_machine_loses_nothing() {
    let explore = Explore::kv().seed(153).steps(70).seeds(scale());
    did_everything(&explore.fail_each_operation().unwrap_or_else(|e| panic!("{e}")));
}

#[test]
fn a_sync_that_fails_latches_and_the_unhardened_is_not_shown() {
    let disk = SimDisk::new(9);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let tx = engine.begin().unwrap();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
    let ticket = engine.submit(Cmd::push(2, 2)).unwrap();
    let before = engine.read_within(&Footprint::key(Access::Shared, &[2]), ReadLevel::Latest, |s| s.at(2)).unwrap();
    assert_eq!(before, [2]);
    let error = ticket.wait().unwrap_err();
    assert!(error.is_latched(), "{error:?}");
    let error =
        engine.read_within(&Footprint::key(Access::Shared, &[2]), ReadLevel::Hardened, |s| s.at(2)).unwrap_err();
    assert!(error.is_latched(), "{error:?}");
    assert_eq!(
        engine.read_within(&Footprint::key(Access::Shared, &[1]), ReadLevel::Hardened, |s| s.at(1)).unwrap(),
        [1]
    );
    assert!(engine.view().unwrap_err().is_latched());
    let Err(ExecuteError::Failed(error)) = engine.execute(Cmd::push(3, 3)) else { panic!() };
    assert!(error.is_latched());
    assert!(engine.checkpoint().unwrap_err().is_latched());
    assert!(engine.sync().unwrap_err().is_latched());
    tx.rollback().unwrap();
    assert!(engine.close().is_err());
    drop(engine);
    let (engine, _) = open(&disk.crash(Crash::Nothing));
    assert_eq!(state(&engine).at(1), [1]);
}

/// H5: the first publication of a fresh store took the slot of the only whole copy.
#[test]
fn a_publication_never_overwrites_the_only_whole_copy_of_the_manifest() {
    let (engine, _) = open(&SimDisk::new(11));
    engine.execute(Cmd::push(1, 1)).unwrap();
    let backup = SimDisk::new(12);
    engine.backup_to_storage(Arc::new(backup.clone())).unwrap();
    for damaged in ["MANIFEST-0", "MANIFEST-1"] {
        let disk = backup.crash(Crash::Nothing);
        disk.flip_bit(damaged, 20, 0).unwrap();
        let operations = {
            let whole = disk.crash(Crash::Nothing);
            drop(open(&whole));
            whole.op_count()
        };
        for op in 0..operations {
            let stopped = disk.crash(Crash::Nothing);
            stopped.fail_at(op, Fault::Crash, Persistence::ForEver);
            let _ = manual().open_on::<Stacks>(Arc::new(stopped.clone()));
            for crash in [Crash::Nothing, Crash::TornBlock(op), Crash::Seeded(op)] {
                let (engine, _) = open(&stopped.crash(crash));
                assert_eq!(state(&engine).at(1), [1], "{damaged}, operation {op}, {crash:?}");
            }
        }
    }
}

#[test]
fn a_failed_checkpoint_is_reported_and_writes_go_on() {
    let disk = SimDisk::new(10);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    disk.fail_next(OpKind::WriteAt, Fault::NoSpace, Persistence::Once);
    disk.fail_next(OpKind::Allocate, Fault::NoSpace, Persistence::Once);
    let failed = engine.checkpoint();
    disk.clear_faults();
    let error = failed.unwrap_err();
    assert!(error.is_out_of_space() && !error.is_latched(), "{error:?}");
    assert!(engine.stats().checkpoint_error.is_some());
    engine.execute(Cmd::push(1, 2)).unwrap();
    engine.checkpoint().unwrap();
    assert!(engine.stats().checkpoint_error.is_none());
    drop(engine);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1, 2]);
}

#[test]
fn an_error_of_reading_in_recovery_is_not_the_end_of_the_log() {
    let disk = SimDisk::new(11);
    let (engine, _) = open(&disk);
    for n in 0..30 {
        engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).unwrap();
    }
    let wanted = state(&engine);
    drop(engine);
    let after = disk.crash(Crash::Nothing);
    let (engine, _) = open(&after);
    let operations = after.op_count();
    drop(engine);
    let mut failed = 0;
    for op in 0..operations {
        let after = disk.crash(Crash::Nothing);
        after.fail_at(op, Fault::Eio, Persistence::Once);
        match open_on::<Stacks>(&after, &manual()) {
            Ok((engine, _)) => assert_eq!(state(&engine), wanted, "op {op}"),
            Err(error) => {
                failed += 1;
                assert!(matches!(error, Error::Io { .. } | Error::Latched { .. }), "op {op}: {error:?}");
            }
        }
        let (engine, _) = open(&after.crash(Crash::Seeded(op)));
        assert_eq!(state(&engine), wanted, "op {op}");
    }
    assert!(failed > 5, "{failed}");
}

#[test]
fn full_disks_refuse_commits_without_harm_and_the_engine_resumes_by_itself() {
    let explored = stacks().full_disks().seed(20).seeds(4 * scale()).one_in(20).run().unwrap_or_else(|e| panic!("{e}"));
    println!("{explored:?}");
    assert!(explored.did.contains_key("full"), "{explored:?}");
}

#[test]
fn a_full_disk_opens_with_losers_to_undo_again_and_again() {
    for seed in 0..10 * scale() {
        let disk = SimDisk::new(seed);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        disk.set_free_bytes(Some((seed * 16) << 10));
        // until the disk is full
        for n in 0..2000 {
            match engine.execute(Cmd::Push { key: 2, value: n, pad: 2500 }) {
                Ok(_) => {}
                Err(ExecuteError::Failed(error)) => {
                    assert!(error.is_full(), "{error:?}");
                    break;
                }
                other => panic!("{other:?}"),
            }
            if n % 50 == 49 {
                let _ = engine.checkpoint();
            }
        }
        let mut losers: Vec<_> = (0..4).map(|_| engine.begin().unwrap()).collect();
        for (n, tx) in losers.iter_mut().enumerate() {
            for _ in 0..5 {
                let _ = tx.execute(Cmd::push(10 + n as u8, 7));
            }
        }
        let wanted = engine.view().unwrap().into_inner();
        engine.sync().unwrap();
        std::mem::forget(losers);
        std::mem::forget(engine);
        disk.set_free_bytes(Some(0));
        let mut disk = disk;
        for round in 0..6 {
            let crash = if round % 2 == 0 { Crash::Seeded(seed + round) } else { Crash::KillOnly };
            disk = disk.crash(crash);
            let (engine, report) =
                open_on::<Stacks>(&disk, &manual()).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e:?}"));
            assert_eq!(state(&engine), wanted, "seed {seed}, round {round}: {report:?}");
            match engine.execute(Cmd::push(1, 1)) {
                Ok(_) => engine.execute(Cmd::Pop { key: 1 }).map(|_| ()).unwrap_or_else(|e| panic!("{e:?}")),
                Err(ExecuteError::Failed(error)) => assert!(error.is_full(), "{error:?}"),
                other => panic!("{other:?}"),
            }
            // more losers for the next recovery, as far as there is room
            let tx = engine.begin().unwrap();
            let _ = tx.execute(Cmd::push(40, 1));
            let _ = engine.sync();
            std::mem::forget(tx);
            std::mem::forget(engine);
        }
        disk.set_free_bytes(None);
        let disk = disk.crash(Crash::Everything);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 2)).unwrap();
        engine.checkpoint().unwrap();
        engine.close().unwrap();
    }
}

#[test]
fn due_interval_commits_survive_power_loss_and_others_need_not() {
    let disk = SimDisk::new(12);
    let (engine, _) = open(&disk);
    let within = std::time::Duration::from_millis(20);
    engine.execute_with(Cmd::push(1, 1), Durability::Interval(within)).unwrap();
    engine.execute_with(Cmd::push(2, 2), Durability::Os).unwrap();
    assert_eq!(state(&open(&disk.crash(Crash::KillOnly)).0).at(2), [2]);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0), Stacks::default());
    disk.advance(within);
    assert!(engine.step(Step::Log(LogStep::SyncDue)).unwrap());
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1]);
    engine.execute(Cmd::push(3, 3)).unwrap();
    let after = open(&disk.crash(Crash::Nothing)).0;
    assert_eq!((state(&after).at(1), state(&after).at(2), state(&after).at(3)), (vec![1], vec![2], vec![3]));
}

#[test]
fn space_that_could_not_be_given_back_is_given_back_by_the_next_checkpoint() {
    for kind in [OpKind::Rename, OpKind::Remove, OpKind::SyncDir] {
        for nth in 0..6 {
            let disk = SimDisk::new(13);
            let (engine, _) = open(&disk);
            let fill = |from: u32| {
                for n in from..from + 60 {
                    engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).unwrap();
                    engine.execute(Cmd::Pop { key: 1 }).unwrap();
                }
            };
            fill(0);
            engine.checkpoint().unwrap();
            fill(100);
            // only the last stage, which recycles, is still to run
            assert!(engine.step(Step::BeginCheckpoint).unwrap());
            engine.step(Step::Checkpoint).unwrap();
            engine.step(Step::Checkpoint).unwrap();
            if nth < 5 {
                disk.fail_at(disk.op_count() + nth, Fault::Eio, Persistence::Once);
            } else {
                disk.fail_next(kind, Fault::Eio, Persistence::Once);
            }
            let _ = engine.step(Step::Checkpoint);
            disk.clear_faults();
            engine.execute(Cmd::push(2, 1)).unwrap();
            engine.checkpoint().unwrap();
            engine.execute(Cmd::push(2, 2)).unwrap();
            engine.checkpoint().unwrap();
            let log = engine.stats().log.unwrap();
            let on_disk: u64 =
                crate::common::names(&disk, ".seg").iter().map(|name| disk.read_file(name).unwrap().len() as u64).sum();
            assert_eq!(log.segment_bytes, on_disk, "{kind:?} {nth}");
            assert!(on_disk <= 96 << 10, "{kind:?} {nth}: {on_disk}");
        }
    }
}
