//! Closures that run in a transaction: what commits, what is rolled back, and what runs again.

use crate::common::{manual, open_on};
use seawal::kv::{Kv, KvRejection};
use seawal::sim::{Crash, SimDisk};
use seawal::{Background, Durability, Engine, Error, ExecuteError, Transaction};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

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
