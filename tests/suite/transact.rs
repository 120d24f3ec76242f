//! Closures that run in a transaction: what commits, what is rolled back, and what runs again.

use crate::common::{manual, open_on};
use seawal::kv::{Kv, KvCommand, KvRejection};
use seawal::sim::{Crash, SimDisk};
use seawal::{Background, Durability, Engine, Error, ExecuteError, Options, Transaction};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// What a program returns.
#[derive(Debug)]
enum Problem {
    NoMoney(u8),
    Store(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Store(error)
    }
}

impl From<ExecuteError<KvRejection>> for Problem {
    fn from(error: ExecuteError<KvRejection>) -> Problem {
        Problem::Store(error.into())
    }
}

fn threaded(disk: &SimDisk) -> Engine<Kv> {
    let options = manual().background(Background::Threads).lock_timeout(Duration::MAX);
    open_on::<Kv>(disk, &options).unwrap().0
}

/// Runs a closure whose transaction loses a deadlock in its first run: it is handed the transaction
/// and whether the transaction is the victim. Returns the number of runs and the outcome.
fn lose_once<T, E: From<Error>>(
    engine: &Engine<Kv>,
    mut run: impl FnMut(&Transaction<Kv>, bool) -> Result<T, E>,
) -> (u32, Result<T, E>) {
    let older = engine.begin().unwrap();
    older.insert("b", "older").unwrap();
    let mut older = Some(older);
    let mut runs = 0;
    thread::scope(|scope| {
        let outcome = engine.transact(|tx| {
            runs += 1;
            let Some(older) = older.take() else { return run(tx, false) };
            tx.insert("a", "victim").unwrap();
            scope.spawn(move || {
                older.insert("a", "older").unwrap();
                older.commit().unwrap();
            });
            while engine.stats().lock_waiters == 0 {
                thread::yield_now();
            }
            assert!(tx.insert("b", "victim").unwrap_err().is_conflict());
            run(tx, true)
        });
        (runs, outcome)
    })
}

#[test]
fn a_conflict_that_the_closure_made_its_own_error_of_runs_again() {
    let engine = threaded(&SimDisk::new(1));
    let (runs, outcome) =
        lose_once(&engine, |tx, lost| if lost { Err(Problem::NoMoney(1)) } else { Ok(tx.insert("b", "second run")?) });
    assert_eq!(outcome.unwrap().as_deref(), Some(&b"older"[..]));
    assert_eq!(runs, 2);
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"older"[..]));
    assert_eq!(engine.get("b").unwrap().as_deref(), Some(&b"second run"[..]));
}

#[test]
fn a_conflict_that_the_closure_ignores_runs_again_and_is_never_committed() {
    let engine = threaded(&SimDisk::new(1));
    let (runs, outcome) = lose_once(&engine, |tx, lost| {
        // what has no transaction is in no transaction
        assert_eq!(tx.insert("c", "after").is_err(), lost);
        Ok::<_, Error>(lost)
    });
    assert!(!outcome.unwrap());
    assert_eq!(runs, 2);
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"older"[..]));
}

#[test]
fn an_error_of_the_users_own_rolls_back_and_is_returned_as_it_is() {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    let outcome = engine.transact(|tx| {
        tx.insert("a", "1")?;
        let stock = tx.get("stock")?.map_or(0, |value| value[0]);
        if stock == 0 { Err(Problem::NoMoney(stock)) } else { Ok(()) }
    });
    assert!(matches!(outcome, Err(Problem::NoMoney(0))), "{outcome:?}");
    assert_eq!((engine.get("a").unwrap(), engine.stats().open_transactions), (None, 0));
    let boxed = engine.transact(|tx| -> Result<(), Box<dyn std::error::Error>> {
        tx.insert("a", "1")?;
        Err("out of stock".into())
    });
    assert_eq!(boxed.unwrap_err().to_string(), "out of stock");
    let rejected = engine.transact(|tx| -> seawal::Result<()> {
        tx.insert("a", "1")?;
        tx.insert_in("no\0table", "a", "1")?;
        Ok(())
    });
    assert!(matches!(&rejected, Err(Error::Rejected { reason }) if reason.contains("table")), "{rejected:?}");
    assert_eq!((engine.get("a").unwrap(), engine.stats().lock_holders), (None, 0));
    // the store's own error arrives in the user's type
    engine.close().unwrap();
    let closed = engine.transact(|_| Ok::<(), Problem>(()));
    assert!(matches!(closed, Err(Problem::Store(Error::Closed))), "{closed:?}");
}

#[test]
fn a_panic_in_the_closure_rolls_back() {
    let (engine, _) = open_on::<Kv>(&SimDisk::new(1), &manual()).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        engine.transact(|tx| -> seawal::Result<()> {
            tx.insert("a", "1")?;
            panic!("as asked")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((engine.get("a").unwrap(), engine.stats().open_transactions), (None, 0));
    engine.insert("a", "2").unwrap();
}

#[test]
fn each_form_of_transact_waits_for_what_it_promises() {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    let count = |disk: SimDisk| open_on::<Kv>(&disk, &manual()).unwrap().0.iter().unwrap().count();
    engine.transact(|tx| tx.insert("sync", "1")).unwrap();
    assert_eq!(count(disk.crash(Crash::Nothing)), 1);
    engine.transact_with(Durability::Os, |tx| tx.insert("os", "1")).unwrap();
    assert_eq!((count(disk.crash(Crash::Nothing)), count(disk.crash(Crash::KillOnly))), (1, 2));
    let ticket = engine.transact_submit(|tx| tx.insert("ticket", "1").map(|_| 7)).unwrap();
    assert!(!ticket.is_done());
    assert_eq!(count(disk.crash(Crash::Nothing)), 1);
    assert_eq!(engine.view_latest().unwrap().get("", "ticket"), Some(&b"1"[..]));
    assert_eq!(ticket.wait().unwrap(), 7);
    assert_eq!(count(disk.crash(Crash::Nothing)), 3);
    let written = engine.transact_submit_with(Durability::Os, |tx| tx.insert("later", "1")).unwrap();
    assert_eq!(written.wait().unwrap(), None);
    assert_eq!((count(disk.crash(Crash::Nothing)), count(disk.crash(Crash::KillOnly))), (3, 4));
    let failed = engine.transact_submit(|tx| tx.insert("no", "1").and(Err::<(), _>(Error::Expired.into())));
    assert!(failed.is_err());
    assert_eq!(engine.get("no").unwrap(), None);
}

#[test]
fn threads_share_a_transaction_by_reference() {
    let engine = threaded(&SimDisk::new(1));
    engine
        .transact(|tx| {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..4u8).map(|n| scope.spawn(move || tx.insert([n], [n]).map(drop))).collect();
                threads.into_iter().try_for_each(|thread| thread.join().unwrap())
            })
        })
        .unwrap();
    assert_eq!(engine.iter().unwrap().count(), 4);
    let tx = engine.begin().unwrap();
    // the closure of a read holds the transaction
    let inner = tx.read(|_| tx.insert("a", "1").map(drop)).unwrap();
    assert!(matches!(inner, Err(ExecuteError::Failed(Error::Reentrant))), "{inner:?}");
}

/// A store on the disk of this machine, where a wait for a lock takes far longer than the test.
fn slow_locks(dir: &tempfile::TempDir) -> Engine<Kv> {
    Options::new().lock_timeout(Duration::from_secs(40)).open(dir.path()).unwrap()
}

fn waits_for_itself<T, E: Into<Error>>(outcome: Result<T, E>) -> bool {
    outcome.is_err_and(|error| matches!(error.into(), Error::SelfDeadlock))
}

#[test]
fn a_call_of_the_engine_that_would_wait_for_its_own_transaction_says_so_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = slow_locks(&dir);
    let put = KvCommand::put("", "a", "engine");
    let began = Instant::now();
    engine
        .transact(|tx| {
            tx.insert("a", "tx")?;
            assert!(waits_for_itself(engine.insert("a", "engine")));
            assert!(waits_for_itself(engine.execute_with(&put, Durability::Os)));
            assert!(waits_for_itself(engine.submit(&put)));
            assert!(waits_for_itself(engine.get("a")) && waits_for_itself(engine.raw_table("").get_latest("a")));
            assert!(waits_for_itself(engine.read(Kv::len)) && waits_for_itself(engine.iter()));
            assert!(waits_for_itself(engine.transact(|inner| inner.insert("a", "inner"))));
            assert!(waits_for_itself(engine.transact_submit(|inner| inner.get("a"))));
            // an interactive transaction of the closure, which goes on
            let other = engine.begin()?;
            assert!(waits_for_itself(other.get("a")));
            other.insert("b", "other")?;
            other.commit()?;
            // what needs none of its locks is no part of it
            engine.insert("c", "engine")?;
            assert_eq!(engine.view()?.get("", "a"), None);
            engine.checkpoint()?;
            tx.insert("d", "tx")
        })
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let keys: Vec<_> = engine.iter().unwrap().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"a", b"b", b"c", b"d"]);
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"tx"[..]));
    assert_eq!((engine.stats().lock_holders, engine.stats().lock_waiters), (0, 0));
}

#[test]
fn nested_closures_wait_for_each_other_on_one_thread_and_are_told() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [one, two] = [0, 1].map(|n| slow_locks(&dirs[n]));
    let outcome = one.transact(|outer| {
        outer.insert("a", "outer")?;
        one.transact(|inner| {
            inner.insert("b", "inner")?;
            assert!(waits_for_itself(inner.get("a")));
            assert!(waits_for_itself(outer.insert("b", "outer")), "it waits for the inner closure");
            inner.insert("c", "inner")
        })?;
        // a panic in an inner closure ends that one alone
        let inner = || one.transact(|_| -> seawal::Result<()> { panic!("as asked") });
        assert!(catch_unwind(AssertUnwindSafe(inner)).is_err());
        assert!(waits_for_itself(one.get("a")));
        // each store has locks of its own
        two.insert("a", "free")?;
        two.transact(|inner| {
            inner.insert("a", "inner")?;
            assert!(waits_for_itself(one.get("a")) && waits_for_itself(two.get("a")));
            Ok::<_, Error>(())
        })?;
        assert_eq!(two.get("a")?.as_deref(), Some(&b"inner"[..]));
        outer.get("b")
    });
    assert_eq!(outcome.unwrap().as_deref(), Some(&b"inner"[..]));
}

#[test]
fn a_call_of_the_engine_that_waits_for_its_own_transaction_through_another_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let engine = slow_locks(&dir);
    let other = engine.begin().unwrap();
    other.insert("b", "other").unwrap();
    let mut other = Some(other);
    thread::scope(|scope| {
        let value = engine.transact(|tx| {
            tx.insert("a", "tx")?;
            let other = other.take().unwrap();
            let waiting = scope.spawn(move || other.insert("a", "other").and_then(|_| Ok(other.commit()?)));
            while engine.stats().lock_waiters == 0 {
                thread::yield_now();
            }
            assert!(waits_for_itself(engine.get("b")));
            assert!(!waiting.is_finished());
            tx.get("a")
        });
        assert_eq!(value.unwrap().as_deref(), Some(&b"tx"[..]));
    });
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"other"[..]));
}

#[test]
fn a_reader_in_the_closure_is_let_past_a_writer_that_waits_for_the_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let engine = slow_locks(&dir);
    engine.insert("a", "old").unwrap();
    thread::scope(|scope| {
        engine
            .transact(|tx| {
                let before = tx.get("a")?;
                scope.spawn(|| engine.insert("a", "new").unwrap());
                while engine.stats().lock_waiters == 0 {
                    thread::yield_now();
                }
                assert_eq!(engine.get("a")?, before);
                Ok::<_, Error>(())
            })
            .unwrap();
    });
    assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"new"[..]));
}
