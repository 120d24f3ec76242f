//! Users' code around the engine: executors with many tickets, closures that call the engine, and
//! options at their extremes.

use crate::common::{Cmd, Empty, Stacks, manual, open_on};
use crate::like_stacks::as_the_stacks;
use seawal::kv::{Kv, KvCommand};
use seawal::machine::{Access, Footprint, StateMachine};
use seawal::sim::{Crash, SimDisk};
use seawal::wal::LogStep;
use seawal::{Background, Durability, Engine, Error, ExecuteError, Step, Ticket};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Runs a test that would wait for ever if it failed.
fn within_a_minute(run: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let test = thread::spawn(move || {
        run();
        let _ = done.send(());
    });
    if let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(Duration::from_secs(60)) {
        panic!("it waits for ever");
    }
    test.join().unwrap();
}

/// An engine with threads, whose waits for locks never time out.
fn patient<M: StateMachine>(disk: &SimDisk) -> Engine<M> {
    let options = manual().background(Background::Threads).lock_timeout(Duration::MAX);
    open_on::<M>(disk, &options).unwrap().0
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<T: Unpin>(ticket: &mut Ticket<T>, waker: &Waker) -> Poll<seawal::Result<T>> {
    Pin::new(ticket).poll(&mut Context::from_waker(waker))
}

/// U4: tens of thousands of tickets, polled and dropped or awaited, take time in proportion.
#[test]
fn fifty_thousand_tickets_are_polled_dropped_and_awaited_in_little_time() {
    const TICKETS: usize = 50_000;
    let (engine, _): (Engine<Kv>, _) =
        open_on(&SimDisk::new(1), &manual().segment_bytes(64 << 20).max_log_bytes(1 << 30)).unwrap();
    let submit = || engine.submit(KvCommand::put("", "key", "value")).unwrap();
    let began = Instant::now();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut dropped: Vec<_> = (0..TICKETS).map(|_| submit()).collect();
    let mut awaited: Vec<_> = (0..TICKETS).map(|_| submit()).collect();
    let pending = dropped.iter_mut().chain(&mut awaited).filter_map(|t| poll(t, &waker).is_pending().then_some(()));
    assert!(pending.count() > TICKETS, "nothing flushes them by itself");
    // an executor polls again for whatever reason
    let pending = awaited.iter_mut().filter_map(|t| poll(t, &waker).is_pending().then_some(())).count();
    drop(dropped);
    engine.sync().unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), pending, "each that is left is woken, and once");
    assert!(awaited.iter_mut().all(|ticket| matches!(poll(ticket, &waker), Poll::Ready(Ok(_)))));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

fn is_reentrant<T, R>(outcome: Result<T, ExecuteError<R>>) -> bool {
    matches!(outcome, Err(ExecuteError::Failed(Error::Reentrant)))
}

/// Everything that needs the state is refused.
fn call_from_within(engine: &Engine<Kv>, open: Vec<seawal::Transaction<Kv>>) {
    let put = |key: &str| KvCommand::put("", key, "inner");
    let refused = |outcome: seawal::Result<()>| matches!(outcome, Err(Error::Reentrant));
    assert!(is_reentrant(engine.execute(put("a"))) && is_reentrant(engine.submit(put("a"))));
    assert!(is_reentrant(engine.insert("a", "inner")) && is_reentrant(engine.batch([put("a")])));
    assert!(is_reentrant(engine.transact(|tx| tx.insert("a", "inner"))));
    assert!(refused(engine.close()) && refused(engine.checkpoint()));
    assert!(matches!(engine.step(Step::Checkpoint), Err(Error::Reentrant)));
    let mut open = open.into_iter();
    let tx = open.next().unwrap();
    assert!(is_reentrant(tx.insert("b", "inner")));
    assert!(refused(tx.get("b").map(drop)) && refused(tx.savepoint().map(drop)));
    assert!(refused(tx.commit()));
    assert!(refused(open.next().unwrap().rollback()));
    assert!(!format!("{open:?}").is_empty());
    drop(open);
    assert!(refused(engine.get("a").map(drop)) && refused(engine.iter().map(drop)));
    assert!(refused(engine.read_within(&Footprint::none(), seawal::ReadLevel::Latest, |_| ())));
    assert!(refused(engine.view().map(drop)) && refused(engine.view_latest().map(drop)));
    let backup = SimDisk::new(2);
    assert!(refused(engine.backup_to_storage(Arc::new(backup.clone()))));
    assert!(backup.file_names().is_empty());
    // what needs no state
    engine.sync().unwrap();
    assert!(engine.stats().log.is_some());
    // another store is none of this one's business
    let other: Engine<Kv> = patient(&SimDisk::new(3));
    other.read(|_| assert!(is_reentrant(engine.insert("a", "inner")))).unwrap();
    other.insert("a", "b").unwrap();
}

/// Transactions that have written, and hold locks on keys of their own.
fn open_transactions(engine: &Engine<Kv>) -> Vec<seawal::Transaction<Kv>> {
    let begin = |n: u8| {
        let tx = engine.begin().unwrap();
        tx.insert([b'x', n], "inner").unwrap();
        tx
    };
    (0..4).map(begin).collect()
}

/// U1: a write, a transaction, a checkpoint or a close within the closure of a read would wait for
/// itself, for ever, and so would a read if a writer waits for the outer one. It is refused at
/// once.
#[test]
fn a_call_from_within_a_read_is_refused_at_once() {
    within_a_minute(|| {
        let engine: Engine<Kv> = patient(&SimDisk::new(1));
        engine.insert("a", "outer").unwrap();
        let nested = |open| {
            let writer = {
                let engine = engine.clone();
                thread::spawn(move || engine.insert("w", "w").map(drop))
            };
            // the writer waits for this read by then
            thread::sleep(Duration::from_millis(50));
            call_from_within(&engine, open);
            writer
        };
        // the transactions hold keys, so these reads are of other keys
        let key = Footprint::none();
        let open = open_transactions(&engine);
        let writer = engine.read_within(&key, seawal::ReadLevel::Latest, |_| nested(open)).unwrap();
        writer.join().unwrap().unwrap();
        let open = open_transactions(&engine);
        engine.with_value("a", |_| nested(open)).unwrap().unwrap().join().unwrap().unwrap();
        let tx = engine.begin().unwrap();
        let open = open_transactions(&engine);
        tx.read_within(&key, |_| nested(open)).unwrap().join().unwrap().unwrap();
        tx.commit().unwrap();
        // whatever was dropped within is rolled back, and holds no lock any more
        assert_eq!((engine.stats().open_transactions, engine.stats().lock_holders), (0, 0));
        assert_eq!(engine.iter().unwrap().count(), 2);
        engine.with_range::<[u8], _>(.., |_| assert!(is_reentrant(engine.insert("a", "inner")))).unwrap();
        engine.insert("a", "b").unwrap();
        engine.close().unwrap();
    });
}

/// U1: the last handle is dropped within the closure of a transaction's read.
#[test]
fn the_last_handle_may_be_dropped_within_a_read() {
    within_a_minute(|| {
        let disk = SimDisk::new(1);
        for _ in 0..10 {
            let engine: Engine<Kv> = patient(&disk);
            engine.insert("a", "b").unwrap();
            let tx = engine.begin().unwrap();
            tx.read_within(&Footprint::key(Access::Shared, b"k"), |_| {
                // the maintenance thread may freeze the state meanwhile
                drop(engine);
                thread::sleep(Duration::from_millis(5));
            })
            .unwrap();
            drop(tx);
        }
    });
}

static CALLEE: Mutex<Option<Engine<Caller>>> = Mutex::new(None);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Stacks that use the engine while they are changed.
#[derive(Clone, Default)]
struct Caller(Stacks);

impl StateMachine for Caller {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 1;
    as_the_stacks!(commands decode save load);
    fn apply(&mut self, command: &Cmd) -> Result<(u32, Cmd), Empty> {
        let callee = CALLEE.lock().unwrap().clone();
        if let Some(engine) = callee {
            assert!(is_reentrant(engine.execute(Cmd::push(1, 1))));
            assert!(matches!(engine.read(|_| ()), Err(Error::Reentrant)));
            assert!(matches!(engine.view(), Err(Error::Reentrant)));
            assert!(matches!(engine.close(), Err(Error::Reentrant)));
            REFUSED.fetch_add(1, Ordering::SeqCst);
        }
        self.0.apply(command)
    }
}

/// U1: the machine's own code calls the engine.
#[test]
fn a_call_from_within_the_machine_is_refused() {
    within_a_minute(|| {
        let engine: Engine<Caller> = patient(&SimDisk::new(1));
        *CALLEE.lock().unwrap() = Some(engine.clone());
        engine.execute(Cmd::push(1, 7)).unwrap();
        engine.transact(|tx| tx.execute(Cmd::push(1, 8))).unwrap();
        CALLEE.lock().unwrap().take();
        assert_eq!(REFUSED.load(Ordering::SeqCst), 2);
        assert_eq!(engine.read(|state| state.0.at(1)).unwrap(), [7, 8]);
        engine.close().unwrap();
    });
}

static SAVER_CALLS: Mutex<Option<Engine<Saver>>> = Mutex::new(None);
static SAVER_ANSWERS: Mutex<Vec<Result<bool, Error>>> = Mutex::new(Vec::new());

/// Stacks that take checkpoints while they are saved, and while a copy of them is dropped.
#[derive(Clone, Default)]
struct Saver(Stacks);

fn call_as_it_saves() {
    // whatever these calls run in turn finds no engine here
    let Some(engine) = SAVER_CALLS.lock().unwrap().take() else { return };
    for step in [Step::BeginCheckpoint, Step::Checkpoint, Step::Digest] {
        SAVER_ANSWERS.lock().unwrap().push(engine.step(step));
    }
    SAVER_ANSWERS.lock().unwrap().push(engine.checkpoint().map(|()| true));
    *SAVER_CALLS.lock().unwrap() = Some(engine);
}

impl Drop for Saver {
    fn drop(&mut self) {
        call_as_it_saves();
    }
}

impl StateMachine for Saver {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 1;
    as_the_stacks!(commands apply decode load);
    fn save(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        call_as_it_saves();
        self.0.save(out)
    }
}

/// U1: the machine's own code in a checkpoint asks for a checkpoint, which would wait for itself.
#[test]
fn a_checkpoint_from_within_a_checkpoint_is_refused_and_a_digest_within_a_digest_too() {
    within_a_minute(|| {
        let options = manual().digest_every(1);
        let (engine, _) = open_on::<Saver>(&SimDisk::new(1), &options).unwrap();
        engine.execute(Cmd::push(1, 7)).unwrap();
        *SAVER_CALLS.lock().unwrap() = Some(engine.clone());
        engine.checkpoint().unwrap();
        SAVER_CALLS.lock().unwrap().take();
        let answers = std::mem::take(&mut *SAVER_ANSWERS.lock().unwrap());
        let refused = answers.iter().filter(|answer| matches!(answer, Err(Error::Reentrant))).count();
        assert!(answers.len() >= 8 && refused == answers.len() / 4 * 3, "{answers:?}");
        engine.execute(Cmd::push(1, 8)).unwrap();
        assert!(engine.step(Step::Digest).unwrap(), "the state is frozen");
        *SAVER_CALLS.lock().unwrap() = Some(engine.clone());
        assert!(engine.step(Step::Digest).unwrap(), "the digest is logged");
        SAVER_CALLS.lock().unwrap().take();
        let answers = std::mem::take(&mut *SAVER_ANSWERS.lock().unwrap());
        assert!(matches!(answers[2], Ok(false)), "{answers:?}");
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(engine.read(|state| state.0.at(1)).unwrap(), [7, 8]);
        engine.close().unwrap();
    });
}

/// U11: a read that locks exclusively at once, so that two read-modify-writes never deadlock.
#[test]
fn read_modify_writes_with_get_for_update_never_run_twice() {
    within_a_minute(|| {
        let engine: Engine<Kv> = patient(&SimDisk::new(1));
        let runs = AtomicUsize::new(0);
        let add = |table: &str| {
            let added = engine.transact(|tx| {
                runs.fetch_add(1, Ordering::SeqCst);
                let sum = match table {
                    "" => tx.get_for_update("sum")?,
                    table => tx.get_for_update_in(table, "sum")?,
                };
                // the others get here meanwhile
                thread::yield_now();
                let sum = sum.map_or(0, |sum| u32::from_le_bytes(sum.try_into().unwrap()));
                tx.insert_in(table, "sum", (sum + 1).to_le_bytes())
            });
            added.unwrap();
        };
        thread::scope(|scope| {
            for table in ["", "sums", "", "sums"] {
                let add = &add;
                scope.spawn(move || (0..50).for_each(|_| add(table)));
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 200, "no transaction runs twice");
        assert_eq!(engine.get("sum").unwrap(), Some(100u32.to_le_bytes().into()));
        assert_eq!(engine.raw_table("sums").get("sum").unwrap(), Some(100u32.to_le_bytes().into()));
    });
}

/// How long [`Slow`] takes for a footprint, in microseconds.
static PAUSE: AtomicUsize = AtomicUsize::new(0);

/// Stacks whose commands take a while before they ask for their locks.
#[derive(Clone, Default)]
struct Slow(Stacks);

impl StateMachine for Slow {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 1;
    type Command = Cmd;
    type Reply = u32;
    type Rejection = Empty;
    as_the_stacks!(apply decode save load);
    fn footprint(command: &Cmd) -> Footprint {
        thread::sleep(Duration::from_micros(PAUSE.load(Ordering::SeqCst) as u64));
        Stacks::footprint(command)
    }
    fn encode(command: &Cmd, out: &mut Vec<u8>) {
        Stacks::encode(command, out);
    }
}

/// H2: a close ends every wait for locks, also one that begins while it closes.
#[test]
fn a_close_does_not_wait_for_commands_that_begin_to_wait_for_locks() {
    within_a_minute(|| {
        for round in 0..60 {
            PAUSE.store(0, Ordering::SeqCst);
            let engine: Engine<Slow> = patient(&SimDisk::new(1));
            let older = engine.begin().unwrap();
            let holder = engine.begin().unwrap();
            holder.execute(Cmd::push(1, 1)).unwrap();
            PAUSE.store(round * 100, Ordering::SeqCst);
            let transaction = thread::spawn(move || older.execute(Cmd::push(1, 2)));
            let commit = {
                let engine = engine.clone();
                thread::spawn(move || engine.execute(Cmd::push(1, 3)).map(drop))
            };
            thread::sleep(Duration::from_millis(2));
            engine.close().unwrap();
            assert!(matches!(transaction.join().unwrap(), Err(ExecuteError::Failed(Error::Closed))));
            assert!(matches!(commit.join().unwrap(), Err(ExecuteError::Failed(Error::Closed))));
            drop(holder);
        }
    });
}

/// H4: the longest duration means no limit, whatever it limits.
#[test]
fn the_longest_duration_is_no_limit_anywhere() {
    within_a_minute(|| {
        let disk = SimDisk::new(1);
        let options = manual()
            .lock_timeout(Duration::MAX)
            .max_txn_age(Duration::MAX)
            .recover_within(Duration::MAX)
            .commit_spin(Duration::MAX)
            .durability(Durability::Interval(Duration::MAX));
        // by hand: the clock is turned on by years
        let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
        let tx = engine.begin().unwrap();
        tx.insert("old", "1").unwrap();
        engine.insert("a", "1").unwrap();
        disk.advance(Duration::from_secs(1 << 40));
        assert!(!engine.step(Step::Expire).unwrap(), "max_txn_age");
        assert!(!engine.step(Step::Log(LogStep::SyncDue)).unwrap(), "Durability::Interval");
        assert!(!engine.step(Step::Checkpoint).unwrap(), "recover_within");
        assert!(!engine.stats().recovery_budget_cannot_be_met);
        tx.commit().unwrap();
        // with threads, and a clock that has little left
        drop(engine);
        let disk = disk.crash(Crash::KillOnly);
        disk.advance(Duration::MAX - Duration::from_secs(1 << 42));
        let (engine, _) = open_on::<Kv>(&disk, &options.background(Background::Threads)).unwrap();
        let holder = engine.begin().unwrap();
        holder.insert("a", "2").unwrap();
        let waiting = {
            let engine = engine.clone();
            thread::spawn(move || engine.insert("a", "3").unwrap())
        };
        while engine.stats().lock_waiters == 0 {
            thread::yield_now();
        }
        disk.advance(Duration::from_secs(1 << 40));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(
            (engine.stats().open_transactions, engine.stats().lock_waiters),
            (1, 1),
            "lock_timeout, max_txn_age"
        );
        holder.commit().unwrap();
        assert_eq!(waiting.join().unwrap().as_deref(), Some(&b"2"[..]));
        // many committers, so that they spin
        thread::scope(|scope| {
            for n in 0..8u8 {
                let engine = &engine;
                scope.spawn(move || {
                    (0..20).for_each(|_| _ = engine.raw_table("t").insert([n], "v").unwrap());
                    engine.execute_with(KvCommand::put("", [n], "v"), Durability::Sync).unwrap();
                });
            }
        });
        engine.close().unwrap();
    });
}
