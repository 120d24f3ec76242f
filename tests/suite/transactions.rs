//! Transactions: isolation, conflicts, savepoints, limits, rejections, panics and tickets.

use crate::common::{Cmd, Empty, Rng, Stacks, block_on, manual, open, open_on, state};
use seawal::kv::{Kv, KvCommand, KvRejection};
use seawal::machine::{Access, Footprint};
use seawal::sim::{Crash, SimDisk};
use seawal::wal::LogStep;
use seawal::{Engine, Error, ExecuteError, Options, ReadLevel, Step};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

fn kv() -> (SimDisk, Engine<Kv>) {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    (disk, engine)
}

fn failed<T: std::fmt::Debug, R: std::fmt::Debug>(result: Result<T, ExecuteError<R>>) -> Error {
    match result {
        Err(ExecuteError::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_reads_what_is_not_committed() {
    let (_, engine) = kv();
    engine.insert("a", "old").unwrap();
    let tx = engine.begin().unwrap();
    tx.insert("a", "new").unwrap();
    assert!(matches!(engine.get("a"), Err(Error::LockTimeout)));
    assert!(matches!(engine.raw_table("").get_latest("a"), Err(Error::LockTimeout)));
    assert!(matches!(engine.iter(), Err(Error::LockTimeout)));
    assert_eq!(engine.view().unwrap().get("", "a"), Some(&b"old"[..]));
    assert!(matches!(engine.begin().unwrap().get("a"), Err(Error::LockTimeout)));
    assert_eq!(tx.get("a").unwrap().as_deref(), Some(&b"new"[..]));
    tx.rollback().unwrap();
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"old"[..]));
}

#[test]
fn no_key_appears_in_a_range_or_prefix_that_was_read() {
    let (_, engine) = kv();
    engine.insert("b", "1").unwrap();
    let tx = engine.begin().unwrap();
    assert_eq!(tx.range_in("", "a".."c").unwrap().count(), 1);
    assert_eq!(tx.prefix_in("t", "x/").unwrap().count(), 0);
    assert!(matches!(failed(engine.insert("bb", "2")), Error::LockTimeout));
    assert!(matches!(failed(engine.insert("a", "2")), Error::LockTimeout));
    assert!(matches!(failed(engine.remove("b")), Error::LockTimeout));
    assert!(matches!(failed(engine.raw_table("t").insert("x/1", "2")), Error::LockTimeout));
    engine.insert("c", "outside").unwrap();
    engine.raw_table("t").insert("x0", "outside").unwrap();
    engine.raw_table("u").insert("b", "outside").unwrap();
    assert!(matches!(failed(engine.begin().unwrap().insert("bb", "2")), Error::LockTimeout));
    assert_eq!(tx.range_in("", "a".."c").unwrap().count(), 1);
    tx.commit().unwrap();
    engine.insert("bb", "2").unwrap();
}

#[test]
fn locks_of_a_partial_rollback_are_kept_to_the_end() {
    let (_, engine) = kv();
    let tx = engine.begin().unwrap();
    let start = tx.savepoint().unwrap();
    tx.insert("a", "1").unwrap();
    tx.rollback_to(start).unwrap();
    // before any other operation that would take the lock again
    assert!(matches!(failed(engine.insert("a", "2")), Error::LockTimeout));
    assert_eq!(tx.get("a").unwrap(), None);
    tx.commit().unwrap();
    engine.insert("a", "2").unwrap();
}

#[test]
fn savepoints_nest_and_die_when_rolled_past() {
    let (_, engine) = kv();
    let tx = engine.begin().unwrap();
    let first = tx.savepoint().unwrap();
    tx.insert("a", "1").unwrap();
    let second = tx.savepoint().unwrap();
    tx.insert("a", "2").unwrap();
    let third = tx.savepoint().unwrap();
    tx.insert("a", "3").unwrap();
    tx.rollback_to(second).unwrap();
    assert_eq!(tx.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(matches!(tx.rollback_to(third), Err(Error::UnknownSavepoint)));
    tx.insert("a", "4").unwrap();
    tx.rollback_to(second).unwrap();
    tx.rollback_to(second).unwrap();
    assert_eq!(tx.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    let again = tx.savepoint().unwrap();
    assert_ne!(again, third);
    assert!(matches!(tx.rollback_to(third), Err(Error::UnknownSavepoint)));
    tx.rollback_to(first).unwrap();
    assert_eq!(tx.get("a").unwrap(), None);
    let other = engine.begin().unwrap();
    let foreign = other.savepoint().unwrap();
    assert!(matches!(tx.rollback_to(foreign), Err(Error::UnknownSavepoint)));
    assert!(matches!(other.rollback_to(first), Err(Error::UnknownSavepoint)));
    tx.insert("z", "1").unwrap();
    tx.commit().unwrap();
    assert_eq!(engine.iter().unwrap().count(), 1);
}

#[test]
fn a_rejected_command_changes_nothing_and_keeps_its_lock() {
    let (disk, engine) = kv();
    engine.insert("a", "1").unwrap();
    let tx = engine.begin().unwrap();
    tx.insert("b", "1").unwrap();
    let cas = KvCommand::compare_and_set("", "a", Some("2"), Some("3"));
    let rejection = KvRejection::Mismatch { actual: Some(b"1".to_vec()) };
    assert!(matches!(tx.execute(cas.clone()), Err(ExecuteError::Rejected(r)) if r == rejection));
    assert!(matches!(failed(engine.insert("a", "9")), Error::LockTimeout));
    let batch = KvCommand::batch([KvCommand::put("", "c", "1"), cas]);
    assert!(matches!(tx.execute(batch), Err(ExecuteError::Rejected(KvRejection::InBatch { index: 1, .. }))));
    assert_eq!(tx.get("c").unwrap(), None);
    tx.insert("a", "2").unwrap();
    tx.commit().unwrap();
    let all: Vec<_> = engine.iter().unwrap().collect();
    assert_eq!(all, [(b"a".to_vec(), b"2".to_vec()), (b"b".to_vec(), b"1".to_vec())]);
    drop(engine);
    // it left no record either, which replay would reject
    let (engine, _) = open_on::<Kv>(&disk.crash(Crash::Nothing), &manual()).unwrap();
    assert_eq!(engine.iter().unwrap().collect::<Vec<_>>(), all);
}

#[test]
fn dropping_a_transaction_or_a_closure_that_fails_rolls_back() {
    let (disk, engine) = kv();
    drop(engine.begin().map(|tx| tx.insert("a", "1").map(|_| tx)).unwrap());
    assert_eq!(engine.get("a").unwrap(), None);
    let result = engine.transact(|tx| {
        tx.insert("a", "1")?;
        Err::<(), _>(KvRejection::BatchTooDeep.into())
    });
    assert!(matches!(result, Err(ExecuteError::Rejected(KvRejection::BatchTooDeep))));
    assert_eq!(engine.get("a").unwrap(), None);
    engine.sync().unwrap();
    drop(engine);
    let (engine, report) = open_on::<Kv>(&disk.crash(Crash::Nothing), &manual()).unwrap();
    assert_eq!(engine.iter().unwrap().count(), 0, "{report:?}");
    assert_eq!(report.undone, 0, "they were ended in the log: {report:?}");
}

#[test]
fn inverses_beyond_the_limit_are_refused_and_the_transaction_goes_on() {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Kv>(&disk, &manual().max_txn_undo_bytes(2500)).unwrap();
    engine.insert("big", vec![7; 900]).unwrap();
    engine.insert("other", vec![8; 900]).unwrap();
    let tx = engine.begin().unwrap();
    tx.insert("small", "1").unwrap();
    tx.insert("big", "1").unwrap();
    let error = failed(tx.insert("other", "1"));
    // H6: the error names the total that passes the limit, and the option
    assert!(matches!(error, Error::TooLarge { limit: 2500, size: 2501.., .. }), "{error:?}");
    assert!(error.to_string().contains("max_txn_undo_bytes"), "{error}");
    assert_eq!(tx.get("other").unwrap(), Some(vec![8; 900]));
    tx.insert("small2", "1").unwrap();
    tx.commit().unwrap();
    assert_eq!(engine.get("other").unwrap(), Some(vec![8; 900]));
    assert_eq!(engine.get("big").unwrap().as_deref(), Some(&b"1"[..]));
    // a single command keeps no inverse
    engine.insert("other", "1").unwrap();
    drop(engine);
    let (engine, _) = open_on::<Kv>(&disk.crash(Crash::Nothing), &manual()).unwrap();
    assert_eq!(engine.iter().unwrap().count(), 4);
}

#[test]
fn a_record_larger_than_a_segment_is_refused_and_the_largest_that_fits_is_not() {
    let (disk, engine) = kv();
    let mut largest = 0;
    for len in (20_000..40_000).step_by(97) {
        if len % 20 == 0 {
            engine.checkpoint().unwrap();
        }
        match engine.insert("k", vec![1; len]) {
            Ok(_) => {
                assert_eq!(largest + usize::from(largest == 0) * len, if largest == 0 { len } else { len - 97 });
                largest = len;
            }
            Err(error) => {
                assert!(matches!(error, ExecuteError::Failed(Error::TooLarge { .. })), "{len}: {error:?}");
            }
        }
    }
    assert!(largest > 24 << 10, "{largest}");
    let tx = engine.begin().unwrap();
    assert!(matches!(failed(tx.insert("k", vec![1; 40_000])), Error::TooLarge { .. }));
    tx.insert("l", vec![2; largest]).unwrap();
    tx.commit().unwrap();
    drop(engine);
    let (engine, _) = open_on::<Kv>(&disk.crash(Crash::Nothing), &manual()).unwrap();
    assert_eq!(engine.get("k").unwrap(), Some(vec![1; largest]));
    assert_eq!(engine.get("l").unwrap(), Some(vec![2; largest]));
}

#[test]
fn a_machine_that_panics_poisons_and_reopening_recovers() {
    let disk = SimDisk::new(2);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 2)).unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = engine.execute(Cmd::Panic);
    std::panic::set_hook(hook);
    assert!(matches!(failed(result), Error::Poisoned));
    assert!(matches!(engine.read(Stacks::clone), Err(Error::Poisoned)));
    assert!(matches!(failed(engine.execute(Cmd::push(1, 2))), Error::Poisoned));
    assert!(matches!(engine.begin(), Err(Error::Poisoned)));
    assert!(matches!(engine.view(), Err(Error::Poisoned)));
    assert!(matches!(engine.view_latest(), Err(Error::Poisoned)));
    assert!(matches!(engine.checkpoint(), Err(Error::Poisoned)));
    assert!(tx.commit().is_err());
    assert!(engine.close().is_err());
    drop(engine);
    let (engine, _) = open(&disk);
    assert_eq!(state(&engine).at(1), [1]);
    assert_eq!(state(&engine).at(2), Vec::<u32>::new());
    engine.execute(Cmd::push(1, 2)).unwrap();
}

#[test]
fn a_forgotten_transaction_expires_and_gives_its_locks_back() {
    let (disk, engine) = kv();
    let tx = engine.begin().unwrap();
    tx.insert("a", "1").unwrap();
    disk.advance(Duration::from_secs(59));
    assert!(!engine.step(Step::Expire).unwrap());
    disk.advance(Duration::from_secs(2));
    assert!(engine.step(Step::Expire).unwrap());
    engine.insert("a", "2").unwrap();
    assert!(matches!(failed(tx.insert("b", "1")), Error::Expired));
    assert!(matches!(tx.savepoint(), Err(Error::Expired)));
    assert!(matches!(tx.commit(), Err(Error::Expired)));
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn no_wait_is_longer_than_the_lock_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Options::new().lock_timeout(Duration::from_millis(100)).open::<Kv>(dir.path()).unwrap();
    let tx = engine.begin().unwrap();
    tx.insert("a", "1").unwrap();
    let began = Instant::now();
    assert!(matches!(failed(engine.insert("a", "2")), Error::LockTimeout));
    assert!(matches!(engine.get("a"), Err(Error::LockTimeout)));
    assert!(matches!(engine.read(Kv::len), Err(Error::LockTimeout)));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(3), "{took:?}");
    tx.commit().unwrap();
    engine.insert("a", "2").unwrap();
}

#[test]
fn a_deadlock_costs_one_of_two_a_conflict_and_transact_completes_both() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::<Kv>::open(dir.path()).unwrap();
    for _ in 0..10 {
        let barrier = Arc::new(Barrier::new(2));
        let conflicts = Arc::new(AtomicUsize::new(0));
        let threads = [("a", "b"), ("b", "a")].map(|(first, second)| {
            let (engine, barrier, conflicts) = (engine.clone(), barrier.clone(), conflicts.clone());
            std::thread::spawn(move || {
                let tx = engine.begin().unwrap();
                tx.insert(first, "1").unwrap();
                barrier.wait();
                match tx.insert(second, "2") {
                    Ok(_) => tx.commit().unwrap(),
                    Err(error) => {
                        assert!(error.is_conflict(), "{error:?}");
                        conflicts.fetch_add(1, Ordering::SeqCst);
                        assert!(matches!(tx.commit(), Err(Error::Conflict)));
                    }
                }
            })
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(conflicts.load(Ordering::SeqCst), 1);
    }
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let (engine, rounds) = (&engine, &rounds);
            scope.spawn(move || {
                for _ in 0..50 {
                    engine
                        .transact(|tx| {
                            rounds.fetch_add(1, Ordering::SeqCst);
                            let n: u64 = tx.get("n").map(|v| v.map_or(0, |v| v.len() as u64))?;
                            tx.insert(first, "1")?;
                            tx.insert(second, "2")?;
                            tx.insert("n", vec![0; n as usize + 1])
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(engine.get("n").unwrap().unwrap().len(), 100, "no increment was lost");
}

#[test]
fn money_moved_by_eight_threads_is_conserved_in_every_view_and_after_reopening() {
    const ACCOUNTS: u64 = 12;
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .first_segment_bytes(64 << 10)
        .segment_bytes(256 << 10)
        .max_log_bytes(8 << 20)
        .checkpoint_log_bytes(512 << 10)
        .max_frames_in_flight(3);
    let engine = options.open::<Kv>(dir.path()).unwrap();
    let key = |n: u64| format!("account/{n:02}");
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    engine.batch((0..ACCOUNTS).map(|n| KvCommand::put("", key(n), 1000u64.to_le_bytes()))).unwrap();
    let total = |kv: &Kv| kv.prefix("", "account/").map(|(_, v)| number(v)).sum::<u64>();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|thread| {
                let engine = &engine;
                scope.spawn(move || {
                    let mut rng = Rng::new(thread);
                    for round in 0..60 {
                        let (from, to) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
                        let moved = rng.below(50);
                        let result = engine.transact(|tx| {
                            let held = number(&tx.get(key(from))?.unwrap());
                            if held < moved || from == to {
                                return Err(KvRejection::BatchTooDeep.into());
                            }
                            tx.insert(key(from), (held - moved).to_le_bytes())?;
                            let savepoint = tx.savepoint()?;
                            tx.insert(key(from), "nonsense")?;
                            tx.rollback_to(savepoint)?;
                            let other = number(&tx.get(key(to))?.unwrap());
                            tx.insert(key(to), (other + moved).to_le_bytes())?;
                            Ok(())
                        });
                        match result {
                            Ok(()) | Err(ExecuteError::Rejected(_)) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                        if round % 20 == 7 {
                            let tx = engine.begin().unwrap();
                            let _ = tx.insert(key(to), "nonsense");
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                assert_eq!(total(&engine.view().unwrap()), ACCOUNTS * 1000);
                assert_eq!(total(&engine.view_latest().unwrap()), ACCOUNTS * 1000);
                assert_eq!(engine.read(total).unwrap(), ACCOUNTS * 1000);
                let sum: u64 = engine.prefix("account/").unwrap().map(|(_, v)| number(&v)).sum();
                assert_eq!(sum, ACCOUNTS * 1000);
            }
        });
        let panicked: Vec<_> = writers.into_iter().filter_map(|w| w.join().err()).collect();
        done.store(true, Ordering::Release);
        assert!(panicked.is_empty());
    });
    let last = engine.view().unwrap().into_inner();
    drop(engine);
    let engine = options.open::<Kv>(dir.path()).unwrap();
    let found: Vec<_> = engine.iter().unwrap().collect();
    let wanted: Vec<_> = last.range::<[u8]>("", ..).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    assert_eq!(found, wanted);
    engine.close().unwrap();
}

#[test]
fn a_ticket_is_a_future_and_is_flushed_without_being_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::<Stacks>::open(dir.path()).unwrap();
    assert_eq!(block_on(engine.submit(Cmd::push(1, 1)).unwrap()).unwrap(), 1);
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(1, 2)).unwrap();
    block_on(tx.submit().unwrap()).unwrap();
    let ticket = engine.submit(Cmd::push(1, 3)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ticket.is_done() {
        assert!(Instant::now() < deadline, "nobody flushed it");
        std::thread::sleep(Duration::from_millis(1));
    }
    let many: Vec<_> = (0..100).map(|n| engine.submit(Cmd::push(2, n)).unwrap()).collect();
    let last = many.into_iter().next_back().unwrap();
    assert_eq!(block_on(last).unwrap(), 100);
    assert!(matches!(engine.submit(Cmd::Pop { key: 9 }), Err(ExecuteError::Rejected(Empty(9)))));
}

#[test]
fn a_dropped_ticket_is_flushed_by_a_step_or_by_the_drop_of_the_engine() {
    let disk = SimDisk::new(3);
    let (engine, _) = open(&disk);
    drop(engine.submit(Cmd::push(1, 1)).unwrap());
    assert!(engine.step(Step::Log(LogStep::Flush)).unwrap());
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1]);
    drop(engine.submit(Cmd::push(1, 2)).unwrap());
    drop(engine);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1, 2]);
}

#[test]
fn a_strict_read_makes_what_it_shows_durable_and_a_latest_one_does_not() {
    let disk = SimDisk::new(4);
    let (engine, _) = open(&disk);
    let _ticket = engine.submit(Cmd::push(1, 1)).unwrap();
    let footprint = Footprint::key(Access::Shared, &[1]);
    assert_eq!(engine.read_within(&footprint, ReadLevel::Latest, |s| s.at(1)).unwrap(), [1]);
    assert_eq!(state(&open(&disk.crash(Crash::Everything)).0).at(1), Vec::<u32>::new());
    assert_eq!(engine.read_within(&footprint, ReadLevel::Hardened, |s| s.at(1)).unwrap(), [1]);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1]);
    let _ticket = engine.submit(Cmd::push(1, 2)).unwrap();
    let tx = engine.begin().unwrap();
    assert_eq!(tx.read_within(&footprint, |s| s.at(1)).unwrap(), [1, 2]);
    tx.commit().unwrap();
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1, 2], "a commit of reads rests on what it read");
    let _ticket = engine.submit(Cmd::Pop { key: 1 }).unwrap();
    let _ticket = engine.submit(Cmd::Pop { key: 1 }).unwrap();
    assert!(matches!(engine.execute(Cmd::Pop { key: 1 }), Err(ExecuteError::Rejected(Empty(1)))));
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), Vec::<u32>::new(), "so does a rejection");
}

#[test]
fn a_strict_read_of_one_key_makes_it_durable_and_a_latest_one_does_not() {
    let disk = SimDisk::new(4);
    let kept = |crash| open_on::<Kv>(&disk.crash(crash), &manual()).unwrap().0.get("a").unwrap();
    let (engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    let _ticket = engine.submit(KvCommand::put("", "a", "1")).unwrap();
    assert_eq!(engine.raw_table("").get_latest("a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(kept(Crash::Everything), None);
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(kept(Crash::Nothing).as_deref(), Some(&b"1"[..]));
}

#[test]
fn nothing_is_written_for_an_engine_that_was_closed_or_dropped() {
    let disk = SimDisk::new(5);
    let (engine, _) = open(&disk);
    let left = engine.begin().unwrap();
    left.execute(Cmd::push(1, 1)).unwrap();
    let late = engine.submit(Cmd::push(2, 2)).unwrap();
    engine.step(Step::BeginCheckpoint).unwrap();
    let clone = engine.clone();
    clone.close().unwrap();
    late.wait().unwrap();
    let before = crate::common::files(&disk);
    assert!(engine.checkpoint().is_err());
    for step in LogStep::ALL.map(Step::Log).into_iter().chain([Step::BeginCheckpoint, Step::Checkpoint, Step::Expire]) {
        let _ = engine.step(step);
    }
    assert!(matches!(failed(engine.execute(Cmd::push(1, 1))), Error::Closed));
    assert!(matches!(engine.read(Stacks::clone), Err(Error::Closed)));
    assert!(left.commit().is_err());
    assert_eq!(crate::common::files(&disk), before);
    drop((engine, clone));
    let (engine, _) = open(&disk);
    let left = engine.begin().unwrap();
    left.execute(Cmd::push(1, 1)).unwrap();
    let ticket = engine.submit_with(Cmd::push(2, 3), seawal::Durability::Os).unwrap();
    drop(engine);
    let before = crate::common::files(&disk);
    assert!(left.commit().is_err());
    let _ = ticket.wait();
    assert_eq!(crate::common::files(&disk), before);
    let (engine, _) = open(&disk);
    assert_eq!(state(&engine).at(1), Vec::<u32>::new());
    assert_eq!(state(&engine).at(2), [2, 3]);
}
