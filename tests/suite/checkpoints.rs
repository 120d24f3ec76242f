//! Checkpoints: fuzzy, in stages, bounding the log. Also damage to what they wrote.

use crate::common::{Cmd, Stacks, files, manual, names, open, open_on, state};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::{Error, ExecuteError, Step, Transaction};
use std::time::Duration;

fn push(tx: &Transaction<Stacks>, key: u8, value: u32) {
    tx.execute(Cmd::push(key, value)).unwrap();
}

#[test]
fn transactions_open_at_a_checkpoint_commit_roll_back_or_are_lost_as_ever() {
    // the checkpoint is frozen, and its stages run, at every possible point of the workload
    for stages_before in 0..4 {
        let disk = SimDisk::new(1);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        let commits = engine.begin().unwrap();
        let rolls_back = engine.begin().unwrap();
        let partly = engine.begin().unwrap();
        let lost = engine.begin().unwrap();
        let lost_partly = engine.begin().unwrap();
        for round in 0..3 {
            push(&commits, 10, round);
            push(&rolls_back, 11, round);
            push(&partly, 12, round);
            push(&lost, 13, round);
            push(&lost_partly, 14, round);
        }
        let savepoint = partly.savepoint().unwrap();
        push(&partly, 12, 50);
        let lost_savepoint = lost_partly.savepoint().unwrap();
        push(&lost_partly, 14, 50);
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        for _ in 0..stages_before {
            engine.step(Step::Checkpoint).unwrap();
        }
        push(&commits, 10, 90);
        push(&rolls_back, 11, 90);
        push(&partly, 12, 90);
        push(&lost, 13, 90);
        partly.rollback_to(savepoint).unwrap();
        lost_partly.rollback_to(lost_savepoint).unwrap();
        push(&lost_partly, 14, 91);
        while engine.step(Step::Checkpoint).unwrap() {}
        assert_eq!(engine.stats().checkpoints, 1);
        push(&commits, 10, 99);
        commits.commit().unwrap();
        rolls_back.rollback().unwrap();
        partly.commit().unwrap();
        engine.sync().unwrap();
        std::mem::forget((lost, lost_partly));
        let wanted = Stacks { by_key: [(1, vec![1]), (10, vec![0, 1, 2, 90, 99]), (12, vec![0, 1, 2])].into() };
        for crash in [Crash::Nothing, Crash::Everything, Crash::KillOnly, Crash::Seeded(stages_before)] {
            let after = disk.crash(crash);
            let (engine, report) = open(&after);
            assert_eq!(state(&engine), wanted, "{crash:?}, {report:?}");
            assert!(report.snapshot.is_some());
            assert_eq!(report.undone, 2, "{report:?}");
            drop(engine);
            let (engine, report) = open(&after.crash(Crash::Nothing));
            assert_eq!(state(&engine), wanted, "again: {crash:?}, {report:?}");
            assert_eq!(report.undone, 0, "{report:?}");
            engine.execute(Cmd::push(13, 1)).unwrap();
            engine.checkpoint().unwrap();
        }
    }
}

#[test]
fn the_directory_stays_bounded_over_a_long_run() {
    let disk = SimDisk::new(2);
    let options = manual().checkpoint_log_bytes(64 << 10).max_log_bytes(256 << 10);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    let size = |disk: &SimDisk| files(disk).values().map(Vec::len).sum::<usize>();
    let mut most = 0;
    let (mut done, mut full) = (0, 0);
    for n in 0..3000u32 {
        match engine.execute(Cmd::Push { key: (n % 5) as u8, value: n, pad: 1500 }) {
            Ok(_) => {
                done += 1;
                engine
                    .execute(Cmd::Pop { key: (n % 5) as u8 })
                    .map(|_| ())
                    .or_else(|e| match e {
                        ExecuteError::Failed(e) if e.is_full() => Ok(()),
                        e => Err(e),
                    })
                    .unwrap();
            }
            Err(ExecuteError::Failed(error)) => {
                assert!(error.is_full(), "{error:?}");
                full += 1;
            }
            other => panic!("{other:?}"),
        }
        if n % 2 == 0 {
            engine.step(Step::Checkpoint).unwrap();
        }
        most = most.max(size(&disk));
        assert!(engine.stats().log.unwrap().segment_bytes <= (256 + 64) << 10);
    }
    assert!(done > 2500, "{done} done, {full} refused");
    assert!(most < 1 << 20, "{most}");
    let wanted = state(&engine);
    drop(engine);
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!(state(&engine), wanted);
    assert!(report.log_bytes < 400 << 10, "{report:?}");
}

#[test]
fn a_long_transaction_does_not_hold_truncation_back() {
    let disk = SimDisk::new(3);
    let (engine, _) = open(&disk);
    let long = engine.begin().unwrap();
    push(&long, 1, 1);
    for n in 0..300 {
        engine.execute(Cmd::Push { key: 2, value: n, pad: 3000 }).unwrap();
        if n % 30 == 29 {
            engine.checkpoint().unwrap();
            push(&long, 1, n);
        }
    }
    let stats = engine.stats();
    assert!(stats.log.as_ref().unwrap().segment_bytes < 600 << 10, "{stats:?}");
    engine.sync().unwrap();
    let (lost, _) = open(&disk.crash(Crash::Nothing));
    assert_eq!(state(&lost).at(1), Vec::<u32>::new());
    long.rollback().unwrap();
    engine.sync().unwrap();
    assert_eq!(state(&engine).at(1), Vec::<u32>::new());
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!(state(&engine).at(2).len(), 300);
    assert_eq!((state(&engine).at(1), report.undone), (vec![], 0));
}

#[test]
fn a_reader_of_a_clean_store_finds_no_log_to_redo() {
    let disk = SimDisk::new(4);
    let (engine, report) = open(&disk);
    assert_eq!(report.verdict, seawal::recovery::Verdict::New);
    for n in 0..20 {
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    engine.close().unwrap();
    engine.close().unwrap();
    drop(engine);
    for _ in 0..3 {
        let (engine, report) = open(&disk.crash(Crash::Nothing));
        assert_eq!(report.verdict, seawal::recovery::Verdict::Clean, "{report:?}");
        assert_eq!((report.records, report.redone, report.undone), (0, 0, 0));
        assert_eq!(state(&engine).at(1).len(), 20);
        engine.close().unwrap();
    }
}

/// A store with two snapshots, and a log after each.
fn two_snapshots() -> (SimDisk, Stacks) {
    let disk = SimDisk::new(5);
    let (engine, _) = open(&disk);
    for n in 0..60 {
        engine.execute(Cmd::Push { key: (n % 3) as u8, value: n, pad: 1500 }).unwrap();
        if n % 20 == 15 {
            engine.checkpoint().unwrap();
        }
    }
    let wanted = state(&engine);
    drop(engine);
    let disk = disk.crash(Crash::Nothing);
    assert_eq!(names(&disk, ".snap").len(), 2);
    (disk, wanted)
}

#[test]
fn a_damaged_newest_snapshot_is_replaced_by_the_older_one_and_reported() {
    let (disk, wanted) = two_snapshots();
    let newest = names(&disk, ".snap").pop().unwrap();
    let len = disk.read_file(&newest).unwrap().len() as u64;
    let damages: [&dyn Fn(&SimDisk); 5] = [
        &|disk| disk.flip_bit(&newest, 9, 3).unwrap(),
        &|disk| disk.flip_bit(&newest, len / 2, 3).unwrap(),
        &|disk| disk.flip_bit(&newest, len - 1, 0).unwrap(),
        &|disk| disk.truncate_file(&newest, len - 20).unwrap(),
        &|disk| disk.remove_file(&newest).unwrap(),
    ];
    for (n, damage) in damages.iter().enumerate() {
        let disk = disk.crash(Crash::Nothing);
        damage(&disk);
        let (engine, report) = open(&disk);
        assert_eq!(state(&engine), wanted, "damage {n}: {report:?}");
        assert!(report.warnings.iter().any(|w| w.contains(&newest)), "damage {n}: {report:?}");
        // later checkpoints replace the damaged snapshot
        engine.execute(Cmd::push(9, 9)).unwrap();
        engine.checkpoint().unwrap();
        engine.execute(Cmd::push(9, 10)).unwrap();
        engine.checkpoint().unwrap();
        let wanted = state(&engine);
        drop(engine);
        let (engine, report) = open(&disk.crash(Crash::Seeded(1)));
        assert_eq!(state(&engine), wanted, "damage {n}: {report:?}");
        assert!(report.warnings.is_empty(), "damage {n}: {report:?}");
    }
}

#[test]
fn a_checkpoint_makes_the_log_before_it_durable_so_that_the_older_snapshot_can_stand_in() {
    let disk = SimDisk::new(8);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    engine.execute_with(Cmd::push(1, 2), seawal::Durability::Os).unwrap();
    let _ticket = engine.submit(Cmd::push(1, 3)).unwrap();
    engine.checkpoint().unwrap();
    let disk = disk.crash(Crash::Nothing);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1, 2, 3]);
    disk.flip_bit(names(&disk, ".snap").last().unwrap(), 100, 1).unwrap();
    assert_eq!(state(&open(&disk).0).at(1), [1, 2, 3]);
}

#[test]
fn a_snapshot_that_the_device_did_not_write_is_not_published_and_the_log_is_kept() {
    for persistence in [Persistence::Once, Persistence::ForEver] {
        let disk = SimDisk::new(8);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        engine.checkpoint().unwrap();
        engine.execute(Cmd::push(1, 2)).unwrap();
        let before = names(&disk, ".snap");
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        disk.fail_next(OpKind::WriteAt, Fault::LostWrite, persistence);
        let error = engine.step(Step::Checkpoint).unwrap_err();
        assert!(error.is_corrupt(), "{error:?}");
        disk.clear_faults();
        assert_eq!(names(&disk, ".snap"), before);
        let (engine, report) = open(&disk.crash(Crash::Nothing));
        assert_eq!((state(&engine).at(1), report.warnings), (vec![1, 2], vec![]));
    }
}

#[test]
fn what_a_damaged_snapshot_stands_for_is_not_given_up_where_the_log_is_crowded() {
    let disk = SimDisk::new(9);
    let options = manual().max_log_bytes(384 << 10).checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    for value in 0..60 {
        engine.execute(Cmd::Push { key: 1, value, pad: 3000 }).unwrap();
    }
    engine.checkpoint().unwrap();
    let wanted = state(&engine);
    let snapshot = names(&disk, ".snap").pop().unwrap();
    disk.flip_bit(&snapshot, 100, 0).unwrap();
    // without new records, a checkpoint only deletes what the newest snapshot makes unnecessary
    let error = engine.checkpoint().unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!(state(&engine), wanted);
    assert!(report.warnings.iter().any(|warning| warning.contains(&snapshot)), "{report}");
}

#[test]
fn a_crash_at_any_operation_of_a_later_checkpoint_leaves_what_it_takes_to_open() {
    let disk = SimDisk::new(10);
    let (engine, _) = open(&disk);
    let fill = |from: u32| {
        for value in from..from + 10 {
            engine.execute(Cmd::Push { key: 1, value, pad: 3000 }).unwrap();
        }
    };
    // by now the log no longer reaches back to its beginning, which the first manifest names
    for round in 0..4 {
        fill(round * 10);
        engine.checkpoint().unwrap();
    }
    fill(40);
    disk.record_crash_points(disk.op_count()..);
    engine.checkpoint().unwrap();
    let wanted = state(&engine);
    for point in disk.take_crash_points() {
        for crash in point.crash_choices(point.op()) {
            let at = format!("op {}, {:?}, crash {crash:?}", point.op(), point.kind());
            let opened = open_on::<Stacks>(&point.crash(crash), &manual());
            let (engine, _) = opened.unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(state(&engine), wanted, "{at}");
        }
    }
}

#[test]
fn two_damaged_snapshots_are_corruption_and_nothing_is_changed() {
    let (disk, _) = two_snapshots();
    for name in names(&disk, ".snap") {
        disk.flip_bit(&name, 40, 1).unwrap();
    }
    let before = files(&disk);
    let error = open_on::<Stacks>(&disk, &manual()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if path.to_string_lossy().ends_with(".snap")), "{error:?}");
    assert_eq!(files(&disk), before);
}

#[test]
fn one_damaged_manifest_is_replaced_by_the_other_and_reported() {
    let (disk, wanted) = two_snapshots();
    for copy in ["MANIFEST-0", "MANIFEST-1"] {
        for damage in 0..3 {
            let disk = disk.crash(Crash::Nothing);
            match damage {
                0 => disk.flip_bit(copy, 30, 1).unwrap(),
                1 => disk.truncate_file(copy, 0).unwrap(),
                _ => disk.remove_file(copy).unwrap(),
            }
            let (engine, report) = open(&disk);
            assert_eq!(state(&engine), wanted, "{copy}, damage {damage}: {report:?}");
            assert!(damage > 0 || !report.warnings.is_empty(), "{copy}, damage {damage}: {report:?}");
            engine.execute(Cmd::push(9, 9)).unwrap();
            let wanted = state(&engine);
            drop(engine);
            let disk = disk.crash(Crash::Nothing);
            let (engine, _) = open(&disk);
            assert_eq!(state(&engine), wanted);
        }
    }
}

#[test]
fn without_any_manifest_the_store_opens_from_the_rest_or_says_why_not() {
    let (disk, wanted) = two_snapshots();
    for damage in 0..3 {
        let disk = disk.crash(Crash::Nothing);
        for copy in ["MANIFEST-0", "MANIFEST-1"] {
            match damage {
                0 => disk.flip_bit(copy, 30, 1).unwrap(),
                1 => disk.truncate_file(copy, 0).unwrap(),
                _ => disk.remove_file(copy).unwrap(),
            }
        }
        let before = files(&disk);
        match open_on::<Stacks>(&disk, &manual()) {
            Ok((engine, report)) => {
                assert_eq!(state(&engine), wanted, "damage {damage}: {report:?}");
                assert!(!report.warnings.is_empty(), "damage {damage}: {report:?}");
                assert!(!report.warnings.iter().any(|w| w.contains("the other copy")), "damage {damage}: {report:?}");
                engine.execute(Cmd::push(9, 9)).unwrap();
                drop(engine);
                assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(9), [9]);
            }
            Err(error) => {
                assert!(matches!(error, Error::Corrupt { .. } | Error::NotAStore { .. }), "{error:?}");
                assert_eq!(files(&disk), before);
            }
        }
    }
}

#[test]
fn a_recovery_budget_takes_checkpoints_before_it_is_passed() {
    let disk = SimDisk::new(6);
    let options =
        manual().checkpoint_log_bytes(1 << 30).max_log_bytes(64 << 20).recover_within(Duration::from_millis(45));
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    let mut taken = 0;
    for n in 0..4000u32 {
        engine.execute(Cmd::Push { key: 1, value: n, pad: 2000 }).unwrap();
        engine.execute(Cmd::Pop { key: 1 }).unwrap();
        disk.advance(Duration::from_millis(1));
        while engine.step(Step::Checkpoint).unwrap() {}
        taken = engine.stats().checkpoints;
        if taken >= 2 {
            break;
        }
    }
    assert!(taken >= 2, "{:?}", engine.stats());
    assert!(engine.estimated_recovery() <= Duration::from_millis(45), "{:?}", engine.estimated_recovery());
}

#[test]
fn a_budget_that_cannot_be_met_is_reported_and_checkpoints_stay_rare() {
    let disk = SimDisk::new(7);
    let options =
        manual().checkpoint_log_bytes(1 << 30).max_log_bytes(64 << 20).recover_within(Duration::from_nanos(1));
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    for n in 0..200u32 {
        engine.execute(Cmd::push(1, n)).unwrap();
        while engine.step(Step::Checkpoint).unwrap() {}
    }
    let stats = engine.stats();
    assert!(stats.recovery_budget_cannot_be_met, "{stats:?}");
    assert!(stats.checkpoints < 50, "{stats:?}");
}

#[test]
fn the_newer_copy_of_the_manifest_counts_whichever_of_the_two_it_is() {
    let counter = |disk: &SimDisk, name: &str| -> u64 {
        u64::from_le_bytes(disk.read_file(name).unwrap()[16..24].try_into().unwrap())
    };
    let store = SimDisk::new(1);
    open(&store).0.close().unwrap();
    let mut newer = [0, 0];
    // Opening and closing publish twice each. Only a crash between the two makes the other copy the
    // newer.
    for operation in 0.. {
        let disk = store.crash(Crash::Everything);
        disk.fail_at(disk.op_count() + operation, Fault::Crash, Persistence::Once);
        if open_on::<Stacks>(&disk, &manual()).is_ok() {
            break;
        }
        let disk = disk.crash(Crash::Everything);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        engine.close().unwrap();
        drop(engine);
        newer[usize::from(counter(&disk, "MANIFEST-1") > counter(&disk, "MANIFEST-0"))] += 1;
        let (engine, report) = open(&disk);
        assert_eq!(
            (report.verdict, report.records),
            (seawal::recovery::Verdict::Clean, 0),
            "operation {operation}: {report:?}"
        );
        assert_eq!(state(&engine).at(1), [1]);
    }
    assert!(newer[0] > 0 && newer[1] > 0, "{newer:?}");
}

/// To fill a new segment with zeros writes the log twice. Ten million entries took 12.4 bytes on
/// the device for each byte of payload when recycling kept six segments of the sixteen.
#[test]
fn all_segments_that_a_checkpoint_frees_are_recycled() {
    let disk = SimDisk::new(30);
    let options = manual()
        .first_segment_bytes(16 << 10)
        .segment_bytes(16 << 10)
        .checkpoint_log_bytes(1 << 20)
        .max_log_bytes(8 << 20);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    let spares = || disk.file_names().iter().filter(|name| name.starts_with("spare-")).count();
    for key in 0..3 {
        for value in 0..200 {
            engine.execute(Cmd::push(key, value)).unwrap();
        }
        engine.checkpoint().unwrap();
    }
    // a commit alone takes a block of 4 KiB, so the segments between two checkpoints are over 50
    assert!(spares() > 50, "{} segments are kept", spares());
}
