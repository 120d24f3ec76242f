//! The store's own threads: whatever one of them meets, it goes on, and says so.

use crate::common::{Cmd, Stacks, state};
use seawal::machine::{DecodeError, StateMachine};
use seawal::recovery::Verdict;
use seawal::sim::SimDisk;
use seawal::wal::{Log, LogOptions, LogStep};
use seawal::{Background, Engine, Options, Step};
use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake};
use std::time::{Duration, Instant};

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(60), "it never happens: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_own_thread() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("seawal"))
}

/// A sum. Dropping a copy of it on a thread of the store panics, on demand.
#[derive(Clone, Default)]
struct Sum {
    sum: u64,
    _touchy: Touchy,
}

#[derive(Clone, Default)]
struct Touchy;

static PANICS: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicU64 = AtomicU64::new(0);

impl Drop for Touchy {
    fn drop(&mut self) {
        if is_own_thread() && !std::thread::panicking() && PANICS.load(Ordering::Relaxed) {
            PANICKED.fetch_add(1, Ordering::Relaxed);
            panic!("as asked");
        }
    }
}

impl StateMachine for Sum {
    const NAME: &'static str = "sum";
    const VERSION: u32 = 1;
    type Command = u64;
    type Reply = u64;
    type Rejection = std::convert::Infallible;

    fn apply(&mut self, command: &u64) -> Result<(u64, u64), Self::Rejection> {
        self.sum = self.sum.wrapping_add(*command);
        Ok((self.sum, command.wrapping_neg()))
    }

    fn encode(command: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&command.to_le_bytes());
    }

    fn decode(bytes: &[u8], _version: u32) -> Result<u64, DecodeError> {
        bytes.try_into().map(u64::from_le_bytes).map_err(|_| DecodeError::new("a number has eight bytes"))
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.sum.to_le_bytes())
    }

    fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        Ok(Sum { sum: u64::from_le_bytes(bytes), ..Sum::default() })
    }
}

/// S4: a panic in a user's `Drop` ended the maintenance thread, and no checkpoint ever followed.
#[test]
fn a_panic_in_a_drop_on_the_maintenance_thread_is_shown_and_the_thread_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().digest_every(20).checkpoint_log_bytes(64 << 10);
    let engine = options.open::<Sum>(dir.path()).unwrap();
    PANICS.store(true, Ordering::Relaxed);
    let commit = || (0..100).for_each(|_| drop(engine.submit(1).unwrap()));
    until("the drop panics", || {
        commit();
        PANICKED.load(Ordering::Relaxed) > 0
    });
    until("it is shown", || engine.stats().background_error.is_some() || engine.stats().checkpoint_error.is_some());
    PANICS.store(false, Ordering::Relaxed);
    let digests = engine.stats().digests;
    until("it goes on", || {
        commit();
        engine.stats().digests > digests && engine.stats().checkpoints > 0
    });
    until("it is over", || engine.stats().background_error.is_none() && engine.stats().checkpoint_error.is_none());
    engine.close().unwrap();
}

/// Runs a call on a thread of its own, so that a deadlock fails the test.
fn ends<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(call())));
    match receiver.recv_timeout(Duration::from_secs(30)) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the call waits for itself"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Calls once when it is woken.
struct Once(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Once {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        if let Some(call) = call {
            call();
        }
    }
}

/// Polls a future, which is pending, with a waker that makes this call.
fn on_wake<F: Future + Unpin>(mut future: F, call: impl FnOnce() + Send + 'static) -> F {
    let waker = Arc::new(Once(Mutex::new(Some(Box::new(call))))).into();
    assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
    future
}

fn open_stacks(disk: &SimDisk, background: Background) -> Engine<Stacks> {
    Options::new().background(background).open_on(Arc::new(disk.clone())).unwrap()
}

/// H3: a thread that closed the store or took a checkpoint ran wakers under its locks, and a waker
/// that closed the store waited for itself.
#[test]
fn a_waker_may_close_the_store_whoever_runs_it() {
    let runners: [fn(&Engine<Stacks>); 4] = [
        |engine| engine.close().unwrap(),
        |engine| drop(engine.checkpoint()),
        |engine| drop(engine.step(Step::Log(LogStep::Flush))),
        |engine| _ = engine.execute(Cmd::push(1, 2)),
    ];
    for run in runners {
        ends(move || {
            let disk = SimDisk::new(1);
            let engine = open_stacks(&disk, Background::Manual);
            let (clone, (sender, closed)) = (engine.clone(), mpsc::channel());
            let ticket = on_wake(engine.submit(Cmd::push(1, 1)).unwrap(), move || sender.send(clone.close()).unwrap());
            run(&engine);
            assert!(closed.recv().unwrap().is_ok());
            drop((ticket, engine));
            assert_eq!(state(&open_stacks(&disk, Background::Manual)).at(1)[0], 1);
        });
    }
}

/// H3: the same for a log of its own.
#[test]
fn a_waker_may_close_the_log_that_is_being_closed() {
    ends(|| {
        let disk = SimDisk::new(1);
        let mut options = LogOptions::default();
        options.background = Background::Manual;
        let log = Arc::new(Log::open_on(Arc::new(disk.clone()), options).unwrap());
        let (clone, (sender, closed)) = (log.clone(), mpsc::channel());
        let ticket = on_wake(log.append(b"one").unwrap(), move || sender.send(clone.close()).unwrap());
        log.close().unwrap();
        assert!(closed.recv().unwrap().is_ok());
        drop(ticket);
    });
}

/// U5: the thread that ran the waker joined itself, and the store stayed locked.
#[test]
fn the_last_handle_may_go_in_a_waker_on_a_thread_of_the_store() {
    for _ in 0..20 {
        let disk = SimDisk::new(1);
        let engine = open_stacks(&disk, Background::Threads);
        let clone = Arc::new(Mutex::new(Some(engine.clone())));
        let last = clone.clone();
        let waker = Arc::new(Once(Mutex::new(Some(Box::new(move || drop(last.lock().unwrap().take())))))).into();
        let mut ticket = engine.submit(Cmd::push(1, 1)).unwrap();
        // it may be done before it is polled
        let is_pending = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)).is_pending();
        drop(engine);
        if is_pending {
            until("the waker runs", || clone.lock().unwrap().is_none());
        }
        // a waker that was never registered never runs
        drop(clone.lock().unwrap().take());
        let reopen = || Options::new().background(Background::Manual).open_on::<Stacks>(Arc::new(disk.clone()));
        let reopened = Mutex::new(None);
        until("the lock is released", || {
            *reopened.lock().unwrap() = reopen().ok();
            reopened.lock().unwrap().is_some()
        });
        let engine = reopened.into_inner().unwrap().unwrap();
        assert_eq!(engine.recovery_report().verdict, Verdict::Clean);
        assert_eq!(state(&engine).at(1), [1]);
    }
}

/// A unit whose copies make a call when they are dropped by a checkpoint.
#[derive(Clone, Default)]
struct Caller;

/// Held by a test, because any engine of this type takes the call.
static DROP_CALL_TEST: Mutex<()> = Mutex::new(());
static DROP_CALL: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

thread_local! {
    static SAVE_CALL: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

impl Drop for Caller {
    fn drop(&mut self) {
        if is_own_thread() {
            let call = DROP_CALL.lock().unwrap().take();
            if let Some(call) = call {
                call();
            }
        }
    }
}

impl StateMachine for Caller {
    const NAME: &'static str = "caller";
    const VERSION: u32 = 1;
    type Command = ();
    type Reply = ();
    type Rejection = std::convert::Infallible;

    fn apply(&mut self, _command: &()) -> Result<((), ()), Self::Rejection> {
        Ok(((), ()))
    }

    fn encode(_command: &(), _out: &mut Vec<u8>) {}

    fn decode(_bytes: &[u8], _version: u32) -> Result<(), DecodeError> {
        Ok(())
    }

    fn save(&self, _out: &mut dyn Write) -> io::Result<()> {
        let call = SAVE_CALL.take();
        if let Some(call) = call {
            call();
        }
        Ok(())
    }

    fn load(_input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
        Ok(Caller)
    }
}

/// H3: the maintenance thread waited for the checkpoint that it was taking itself.
#[test]
fn a_drop_within_a_checkpoint_may_close_the_store_or_drop_its_last_handle() {
    let _alone = DROP_CALL_TEST.lock();
    for closes in [true, false] {
        ends(move || {
            let dir = tempfile::tempdir().unwrap();
            let engine = Options::new().checkpoint_log_bytes(4096).open::<Caller>(dir.path()).unwrap();
            let (last, (sender, called)) = (engine.clone(), mpsc::channel());
            let (go, may_go) = mpsc::channel::<()>();
            *DROP_CALL.lock().unwrap() = Some(Box::new(move || {
                may_go.recv().unwrap();
                let closed = if closes { Some(last.close()) } else { None };
                drop(last);
                sender.send(closed).unwrap();
            }));
            while DROP_CALL.lock().unwrap().is_some() {
                engine.execute(()).unwrap();
            }
            drop(engine);
            go.send(()).unwrap();
            assert!(!matches!(called.recv().unwrap(), Some(Ok(()))), "the close follows the stage");
            until("the lock is released", || Engine::<Caller>::open(dir.path()).is_ok());
        });
    }
}

/// H3: the same on a thread of the user, for which the maintenance thread waited meanwhile.
#[test]
fn a_machine_may_close_the_store_within_a_checkpoint_that_the_user_takes() {
    let _alone = DROP_CALL_TEST.lock();
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let engine = Options::new().checkpoint_log_bytes(64 << 10).open::<Caller>(dir.path()).unwrap();
        let (inner, (sender, called)) = (engine.clone(), mpsc::channel());
        SAVE_CALL.set(Some(Box::new(move || {
            // the growth of the log wakes the maintenance thread, which waits for this stage
            std::thread::scope(|scope| {
                scope.spawn(|| (0..40).for_each(|_| inner.execute(()).unwrap()));
            });
            std::thread::sleep(Duration::from_millis(300));
            sender.send(inner.close()).unwrap();
        })));
        engine.execute(()).unwrap();
        engine.checkpoint().unwrap();
        assert!(called.recv().unwrap().is_err(), "the close follows the stage");
        drop(engine);
        until("the lock is released", || Engine::<Caller>::open(dir.path()).is_ok());
    });
}
