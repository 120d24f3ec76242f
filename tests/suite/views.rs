//! Views and backups: a committed state of one moment, which stays the same while commits continue.

use crate::common::{Cmd, Rng, Stacks, files, manual, names, open, open_on, state};
use seawal::kv::Kv;
use seawal::recovery::Verdict;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::{Engine, Error, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_view_leaves_out_what_is_in_flight_and_stays_as_it_is() {
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.execute(Cmd::push(2, 1)).unwrap();
    let mut open_txs: Vec<_> = (0..4).map(|_| engine.begin().unwrap()).collect();
    // interleaved, so that the undo must alternate between them
    for round in 0..5 {
        for (n, tx) in open_txs.iter_mut().enumerate() {
            tx.execute(Cmd::push(1 + n as u8, 100 + round)).unwrap();
        }
    }
    let view = engine.view().unwrap();
    let latest = engine.view_latest().unwrap();
    let wanted = Stacks { by_key: [(1, vec![1]), (2, vec![1])].into() };
    assert_eq!(*view, wanted);
    assert_eq!(*latest, wanted);
    for (n, tx) in open_txs.into_iter().enumerate() {
        if n % 2 == 0 { tx.commit().unwrap() } else { tx.rollback().unwrap() }
    }
    engine.execute(Cmd::push(9, 9)).unwrap();
    assert_eq!(*view, wanted);
    let now = engine.view().unwrap();
    assert_eq!((now.at(1).len(), now.at(2).len(), now.at(3).len(), now.at(4).len()), (6, 1, 5, 0));
    engine.close().unwrap();
    assert_eq!(view.into_inner(), wanted, "it outlives the engine");
}

#[test]
fn a_view_waits_until_what_it_shows_is_durable() {
    let disk = SimDisk::new(2);
    let (engine, _) = open(&disk);
    let _ticket = engine.submit(Cmd::push(1, 1)).unwrap();
    assert_eq!(engine.view_latest().unwrap().at(1), [1]);
    assert_eq!(state(&open(&disk.crash(Crash::Everything)).0).at(1), Vec::<u32>::new());
    assert_eq!(engine.view().unwrap().at(1), [1]);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1]);
}

#[test]
fn a_backup_is_a_store_of_its_own_with_the_state_of_a_view() {
    let (disk, target) = (SimDisk::new(3), SimDisk::new(4));
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 2)).unwrap();
    engine.backup_to_storage(Arc::new(target.clone())).unwrap();
    assert!(engine.backup_to_storage(Arc::new(target.clone())).is_err(), "there is a store already");
    tx.commit().unwrap();
    let target = target.crash(Crash::Nothing);
    let (copy, report) = open(&target);
    assert_eq!(state(&copy), Stacks { by_key: [(1, vec![1])].into() }, "{report:?}");
    assert_eq!(report.verdict, Verdict::Clean, "{report:?}");
    for n in 0..40 {
        copy.execute(Cmd::Push { key: 5, value: n, pad: 3000 }).unwrap();
        if n == 20 {
            copy.checkpoint().unwrap();
        }
    }
    let wanted = state(&copy);
    drop(copy);
    let (copy, _) = open(&target.crash(Crash::Nothing));
    assert_eq!(state(&copy), wanted);
    copy.close().unwrap();
    assert_eq!(state(&engine).at(5), Vec::<u32>::new());
}

#[test]
fn a_backup_interrupted_anywhere_is_no_store_or_the_whole_state() {
    let disk = SimDisk::new(5);
    let (engine, _) = open(&disk);
    for n in 0..200 {
        engine.submit(Cmd::push((n % 7) as u8, n)).unwrap().wait().unwrap();
    }
    let wanted = state(&engine);
    let whole = SimDisk::new(6);
    engine.backup_to_storage(Arc::new(whole.clone())).unwrap();
    for op in 0..whole.op_count() {
        for seed in 0..6 {
            let target = SimDisk::new(6);
            target.fail_at(op, Fault::Crash, Persistence::ForEver);
            assert!(engine.backup_to_storage(Arc::new(target.clone())).is_err());
            let crash = [
                Crash::Nothing,
                Crash::Everything,
                Crash::KillOnly,
                Crash::Seeded(op),
                Crash::Seeded(op + 999),
                Crash::TornBlock(op),
            ];
            let target = target.crash(crash[seed]);
            // The next attempt succeeds, even after one that was interrupted too. Otherwise there
            // is a backup already.
            let again = target.crash(Crash::Nothing);
            again.fail_at(op / 2 + seed as u64, Fault::Crash, Persistence::ForEver);
            let _ = engine.backup_to_storage(Arc::new(again.clone()));
            for again in [target.crash(Crash::Nothing), again.crash(crash[seed])] {
                match engine.backup_to_storage(Arc::new(again.clone())) {
                    Ok(()) | Err(Error::InvalidArgument { .. }) => {}
                    Err(error) => panic!("op {op}, {:?}: {error:?}", crash[seed]),
                }
                let (copy, _) = open(&again.crash(Crash::Nothing));
                assert_eq!(state(&copy), wanted, "op {op}, {:?}", crash[seed]);
            }
            match open_on::<Stacks>(&target, &manual()) {
                Ok((copy, report)) if report.verdict == Verdict::New => assert_eq!(state(&copy), Stacks::default()),
                Ok((copy, _)) => assert_eq!(state(&copy), wanted, "op {op}, {:?}", crash[seed]),
                // a partial snapshot or manifest is refused, and not taken for an empty store
                Err(error) => {
                    assert!(matches!(error, Error::NotAStore { .. } | Error::Corrupt { .. }), "op {op}: {error:?}")
                }
            }
        }
    }
    for kind in [OpKind::WriteAt, OpKind::SyncAll, OpKind::SyncDir, OpKind::Rename] {
        let target = SimDisk::new(6);
        target.fail_next(kind, Fault::NoSpace, Persistence::Once);
        let _ = engine.backup_to_storage(Arc::new(target));
        engine.execute(Cmd::push(1, 1)).unwrap();
    }
}

#[test]
fn a_backup_does_not_write_over_what_is_left_of_a_store() {
    let (disk, target) = (SimDisk::new(9), SimDisk::new(10));
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.backup_to_storage(Arc::new(target.clone())).unwrap();
    assert!(names(&target, ".tmp").is_empty());
    for name in ["MANIFEST-0", "MANIFEST-1"] {
        target.remove_file(name).unwrap();
    }
    target.write_file("MANIFEST-0.tmp", b"unfinished");
    let before = files(&target);
    let error = engine.backup_to_storage(Arc::new(target.clone())).unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    assert_eq!(files(&target), before);
}

#[test]
fn a_backup_without_its_manifests_is_never_taken_for_an_empty_store() {
    let (disk, target) = (SimDisk::new(7), SimDisk::new(8));
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.backup_to_storage(Arc::new(target.clone())).unwrap();
    let (copy, _) = open(&target);
    copy.execute(Cmd::push(2, 2)).unwrap();
    let wanted = state(&copy);
    drop(copy);
    let target = target.crash(Crash::Nothing);
    for name in ["MANIFEST-0", "MANIFEST-1"] {
        target.remove_file(name).unwrap();
    }
    let snapshot = names(&target, ".snap").pop().unwrap();
    let rotten = target.crash(Crash::Nothing);
    rotten.flip_bit(&snapshot, 530, 0).unwrap();
    let error = open_on::<Stacks>(&rotten, &manual()).map(|(_, report)| report).unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    // nor later, through the manifest that replaced the lost one
    let (copy, report) = open(&target);
    assert_eq!(state(&copy), wanted, "{report:?}");
    drop(copy);
    let rotten = target.crash(Crash::Nothing);
    rotten.flip_bit(&snapshot, 530, 0).unwrap();
    let error = open_on::<Stacks>(&rotten, &manual()).map(|(_, report)| report).unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
}

#[test]
fn a_backup_while_writers_run_is_consistent_on_a_real_disk() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = Options::new().first_segment_bytes(64 << 10).segment_bytes(1 << 20).open::<Kv>(dir.path()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (engine, done) = (&engine, &done);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                while !done.load(Ordering::Acquire) {
                    let n = rng.below(5);
                    // both keys always change together
                    let result = engine.transact(|tx| {
                        let value = rng.next().to_le_bytes();
                        tx.insert(format!("left/{n}"), value)?;
                        tx.insert_in("right", format!("{n}"), value)
                    });
                    result.unwrap();
                }
            });
        }
        for copy in 0..4 {
            let path = copies.path().join(copy.to_string());
            engine.backup_to(&path).unwrap();
            let copied = Engine::<Kv>::open(&path).unwrap();
            for n in 0..5 {
                let left = copied.get(format!("left/{n}")).unwrap();
                assert_eq!(left, copied.raw_table("right").get(n.to_string()).unwrap());
            }
            copied.insert("goes", "on").unwrap();
            copied.close().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let error = engine.backup_to(copies.path().join("0")).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
}
