//! Backups of files: copies of a store that are made without its machine, and open with it.

use crate::common::{Cmd, Stacks, crash_choice, files, manual, names, open, open_on, state};
use seawal::inspect::{self, BackupReport, Soundness};
use seawal::io::{Directory, LockMode};
use seawal::recovery::Verdict;
use seawal::sim::{Crash, Fault, Persistence, SimDisk};
use seawal::wal::{Background, Log, LogOptions};
use seawal::{Error, RecoveryPolicy, Result};
use std::sync::Arc;

fn back_up(source: &SimDisk, target: &SimDisk) -> Result<BackupReport> {
    inspect::backup(Arc::new(source.clone()), Arc::new(target.clone()))
}

/// A store that was killed: two snapshots, several segments after them, and an open transaction.
fn killed(disk: SimDisk) -> SimDisk {
    let (engine, _) = open(&disk);
    for n in 0..60u32 {
        let pad = (n * 397 % 3000) as u16;
        engine.execute(Cmd::Push { key: (n % 5) as u8, value: n, pad }).unwrap();
        if n % 15 == 9 && n < 40 {
            engine.checkpoint().unwrap();
        }
    }
    let open = engine.begin().unwrap();
    open.execute(Cmd::push(7, 1)).unwrap();
    engine.execute(Cmd::push(6, 1)).unwrap();
    disk.crash(Crash::KillOnly)
}

/// The state that opening the store leads to. Nothing is written.
fn wanted(disk: &SimDisk) -> Stacks {
    state(&open_on(disk, &manual().recovery(RecoveryPolicy::ReadOnly)).unwrap().0)
}

fn disk(seed: u64, block_bytes: u32) -> SimDisk {
    SimDisk::builder().seed(seed).block_bytes(block_bytes).build()
}

#[test]
fn a_backup_of_files_opens_with_its_machine_and_holds_what_recovery_needs() {
    for (from, to) in [(512, 512), (512, 4096), (4096, 512)] {
        let source = killed(disk(1, from));
        source.write_file("notes.txt", b"mine");
        let before = files(&source);
        let target = disk(2, to);
        let report = back_up(&source, &target).unwrap();
        assert_eq!(files(&source), before, "nothing is written to the original");
        assert!(
            report.snapshot.is_some() && report.warnings == ["notes.txt is not a file of this store"],
            "{report:?}"
        );

        let held = target.file_names();
        assert_eq!((names(&target, ".snap").len(), names(&target, ".tmp").len()), (1, 0), "{held:?}");
        assert!(names(&target, ".seg").len() > 1, "the log spans several segments: {held:?}");
        assert!(!held.iter().any(|name| name.starts_with("spare") || name == "notes.txt"), "{held:?}");
        let verified = inspect::verify_machine::<Stacks>(Arc::new(target.clone())).unwrap();
        assert_eq!(verified.soundness(), Soundness::Clean, "{verified}");
        // power is lost right after the backup
        let target = target.crash(Crash::Nothing);
        let (copy, found) = open(&target);
        assert_eq!((state(&copy), found.end), (wanted(&source), report.end));
        copy.execute(Cmd::push(1, 1000)).unwrap();
        copy.checkpoint().unwrap();
        let (copy, _) = open(&target.crash(Crash::KillOnly));
        assert_eq!(state(&copy).at(1).last(), Some(&1000));
        assert_eq!(state(&open(&source).0).at(1).last(), Some(&56), "the original goes on, too");
    }
}

#[test]
fn a_backup_of_files_interrupted_anywhere_is_no_store_or_the_whole_state() {
    let source = killed(SimDisk::new(3));
    let wanted = wanted(&source);
    let whole = SimDisk::new(4);
    back_up(&source, &whole).unwrap();
    for op in 0..whole.op_count() {
        for seed in 0..6 {
            let target = SimDisk::new(4);
            target.fail_at(op, Fault::Crash, Persistence::ForEver);
            assert!(back_up(&source, &target).is_err());
            let choice = crash_choice(op, seed);
            let target = target.crash(choice);
            match open_on::<Stacks>(&target.crash(Crash::KillOnly), &manual()) {
                Ok((copy, report)) if report.verdict == Verdict::New => assert_eq!(state(&copy), Stacks::default()),
                Ok((copy, _)) => assert_eq!(state(&copy), wanted, "op {op}, {choice:?}"),
                Err(error) => assert!(error.is_corrupt(), "op {op}, {choice:?}: {error:?}"),
            }
            // the next attempt takes the directory over, unless the backup is there already
            match back_up(&source, &target) {
                Ok(_) | Err(Error::InvalidArgument { .. }) => {}
                Err(error) => panic!("op {op}, {choice:?}: {error:?}"),
            }
            assert_eq!(state(&open(&target).0), wanted, "op {op}, {choice:?}");
        }
    }
}

#[test]
fn a_backup_of_files_that_fails_leaves_no_store_and_can_be_repeated() {
    let source = killed(SimDisk::new(5));
    let whole = SimDisk::new(6);
    back_up(&source, &whole).unwrap();
    for fault in [Fault::NoSpace, Fault::Eio] {
        for op in 0..whole.op_count() {
            let target = SimDisk::new(6);
            target.fail_at(op, fault, Persistence::Once);
            let failed = back_up(&source, &target);
            if let Err(error) = &failed {
                assert!(error.is_full() || matches!(error, Error::Io { .. }), "{fault:?} at {op}: {error:?}");
            }
            let again = back_up(&source, &target);
            assert!(failed.is_ok() || again.is_ok() || open_on::<Stacks>(&target, &manual()).is_ok(), "{again:?}");
            assert_eq!(state(&open(&target).0), wanted(&source), "{fault:?} at {op}");
        }
    }
}

#[test]
fn a_backup_of_files_uses_what_stands_in_for_damage_and_refuses_what_does_not_open() {
    let source = killed(SimDisk::new(7));
    let state_before = wanted(&source);
    let newest = names(&source, ".snap").pop().unwrap();
    source.flip_bit(&newest, 100, 1).unwrap();
    let target = SimDisk::new(8);
    let report = back_up(&source, &target).unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains(&newest)), "{report:?}");
    assert_eq!(state(&open(&target).0), state_before);

    // no copy of the manifest
    for name in ["MANIFEST-0", "MANIFEST-1"] {
        source.remove_file(name).unwrap();
    }
    let target = SimDisk::new(9);
    let report = back_up(&source, &target).unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("no copy of the manifest is left")), "{report:?}");
    assert_eq!(state(&open(&target).0), state_before);

    // a hole in the log
    let segment = names(&source, ".seg").pop().unwrap();
    source.remove_file(&segment).unwrap();
    let segment = names(&source, ".seg").pop().unwrap();
    source.overwrite(&segment, 0, &[7; 4096]).unwrap();
    let target = SimDisk::new(10);
    let error = back_up(&source, &target).unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    assert!(target.file_names().iter().all(|name| name == "LOCK"), "{:?}", target.file_names());
}

#[test]
fn a_backup_of_files_refuses_stores_in_use_and_targets_that_are_stores() {
    let source = killed(SimDisk::new(11));
    let locked = |result: Result<BackupReport>| assert!(matches!(result, Err(Error::Locked { .. })), "{result:?}");
    let lock = source.lock(LockMode::Exclusive).unwrap();
    locked(back_up(&source, &SimDisk::new(12)));
    drop(lock);
    locked(back_up(&source, &source));
    let target = SimDisk::new(12);
    let lock = target.lock(LockMode::Exclusive).unwrap();
    locked(back_up(&source, &target));
    drop(lock);
    back_up(&source, &target).unwrap();
    let before = files(&target);
    let again = back_up(&source, &target);
    assert!(matches!(again, Err(Error::InvalidArgument { .. })), "{again:?}");
    assert_eq!(files(&target), before);
    let nothing = back_up(&SimDisk::new(13), &SimDisk::new(14));
    assert!(matches!(nothing, Err(Error::NotAStore { .. })), "{nothing:?}");
}

#[test]
fn a_backup_of_files_works_on_a_log_of_its_own() {
    let mut options = LogOptions::default();
    options.background = Background::Manual;
    (options.first_segment_bytes, options.segment_bytes) = (16 << 10, 16 << 10);
    let source = SimDisk::new(15);
    let log = Log::open_on(Arc::new(source.clone()), options.clone()).unwrap();
    let mut middle = Default::default();
    for n in 0..40u8 {
        let ticket = log.append(&[n; 2000]).unwrap();
        let lsn = ticket.end();
        ticket.wait().unwrap();
        if n == 20 {
            middle = lsn;
        }
    }
    log.truncate_before(middle).unwrap();
    log.close().unwrap();
    drop(log);
    let target = SimDisk::new(16);
    back_up(&source, &target).unwrap();
    let read = |disk: &SimDisk| -> Vec<_> {
        let log = Log::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
        log.read_from(middle).unwrap().map(|record| record.unwrap()).collect()
    };
    assert_eq!(read(&target), read(&source));
    assert_eq!(read(&target).len(), 19);
}
