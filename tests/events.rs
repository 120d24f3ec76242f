//! Whatever listens to the store's events may call the store, even close it: an event is told under
//! no lock.
//!
//! This is a binary of its own, for one of its listeners hears the events of all threads.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

use seawal::kv::{Kv, KvCommand};
use seawal::sim::{Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Background, Log, LogOptions};
use seawal::{Engine, Error, Options, Step};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tracing::span;

/// How long a test waits for what must happen.
const SOON: Duration = Duration::from_secs(20);

/// What a listener calls.
type Call = Arc<dyn Fn() + Send + Sync>;

/// Calls back on each event, once it has something to call, and counts the calls that have
/// returned.
#[derive(Clone, Default)]
struct Listener {
    call: Arc<Mutex<Option<Call>>>,
    returned: Arc<AtomicUsize>,
}

impl Listener {
    fn calls(&self, call: impl Fn() + Send + Sync + 'static) {
        *self.call.lock().unwrap() = Some(Arc::new(call));
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        let call = self.call.lock().unwrap().clone();
        if let Some(call) = call {
            call();
            self.returned.fetch_add(1, Ordering::SeqCst);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Runs a call on a thread of its own, so that a deadlock fails the test.
fn ends<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(call())));
    match receiver.recv_timeout(SOON) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the call waits for itself"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

fn open(disk: &SimDisk, background: Background) -> Engine<Kv> {
    Options::new().background(background).open_on(Arc::new(disk.clone())).unwrap()
}

/// Asks the engine what may be asked at any time, and closes it.
fn look_and_close(engine: &Engine<Kv>) {
    engine.stats();
    // the outcome is that of the close which is under way
    let _ = engine.close();
    let _ = engine.get("key");
}

#[test]
fn a_close_from_the_event_of_its_own_checkpoint_ends() {
    let told = ends(|| {
        let engine = open(&SimDisk::new(1), Background::Manual);
        engine.execute(KvCommand::put("", "key", "value")).unwrap();
        let listener = Listener::default();
        let inner = engine.clone();
        listener.calls(move || look_and_close(&inner));
        tracing::subscriber::with_default(listener.clone(), || engine.close().unwrap());
        listener.returned.load(Ordering::SeqCst)
    });
    assert_eq!(told, 1, "the close takes a checkpoint and tells of it");
}

/// A close that gives a checkpoint up is no failure of that checkpoint.
#[test]
fn a_checkpoint_that_a_close_gives_up_is_not_told_as_a_failure() {
    let told = ends(|| {
        let disk = SimDisk::new(1);
        let options = Options::new().background(Background::Manual).checkpoint_on_close(false);
        let engine: Engine<Kv> = options.open_on(Arc::new(disk)).unwrap();
        engine.execute(KvCommand::put("", "key", "value")).unwrap();
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        let listener = Listener::default();
        listener.calls(|| ());
        tracing::subscriber::with_default(listener.clone(), || {
            engine.close().unwrap();
            assert!(matches!(engine.step(Step::Checkpoint), Err(Error::Closed)));
            assert!(matches!(engine.checkpoint(), Err(Error::Closed)));
        });
        assert!(engine.stats().checkpoint_error.is_none());
        listener.returned.load(Ordering::SeqCst)
    });
    assert_eq!(told, 0);
}

/// S18: A recovery budget that cannot be met is told once, under no lock.
#[test]
fn a_recovery_budget_that_cannot_be_met_is_told_once() {
    for (budget, wanted) in [(Duration::from_millis(1), 1), (Duration::from_secs(10), 0)] {
        let told = ends(move || {
            let disk = SimDisk::new(1);
            let options = Options::new().background(Background::Manual).recover_within(budget);
            let engine: Engine<Kv> = options.open_on(Arc::new(disk.clone())).unwrap();
            let listener = Listener::default();
            let inner = engine.clone();
            listener.calls(move || drop(inner.stats()));
            tracing::subscriber::with_default(listener.clone(), || {
                for _ in 0..3 {
                    assert!(!engine.step(Step::Checkpoint).unwrap(), "nothing is new");
                }
            });
            assert_eq!(engine.stats().recovery_budget_cannot_be_met, wanted == 1);
            listener.returned.load(Ordering::SeqCst)
        });
        assert_eq!(told, wanted, "{budget:?}");
    }
}

#[test]
fn a_close_from_the_event_of_a_failure_that_a_close_met_ends() {
    let told = ends(|| {
        let disk = SimDisk::new(1);
        let engine = open(&disk, Background::Manual);
        let _ticket = engine.submit(KvCommand::put("", "key", "value")).unwrap();
        let listener = Listener::default();
        let inner = engine.clone();
        listener.calls(move || look_and_close(&inner));
        disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::ForEver);
        tracing::subscriber::with_default(listener.clone(), || assert!(engine.close().is_err()));
        listener.returned.load(Ordering::SeqCst)
    });
    assert_eq!(told, 2, "the checkpoint and the log have failed");
}

#[test]
fn a_close_of_a_log_from_the_event_of_a_failure_that_a_close_met_ends() {
    let told = ends(|| {
        let disk = SimDisk::new(1);
        let mut options = LogOptions::default();
        options.background = Background::Manual;
        let log = Arc::new(Log::open_on(Arc::new(disk.clone()), options).unwrap());
        let _ticket = log.append(b"record").unwrap();
        let listener = Listener::default();
        let inner = log.clone();
        listener.calls(move || {
            inner.stats();
            assert!(inner.close().is_err());
        });
        disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
        tracing::subscriber::with_default(listener.clone(), || assert!(log.close().is_err()));
        listener.returned.load(Ordering::SeqCst)
    });
    assert_eq!(told, 1);
}

/// A transaction is locked while its command waits for the log, and a close locks each open
/// transaction.
#[test]
fn a_failure_that_a_transaction_meets_is_told_when_it_holds_no_lock() {
    let told = ends(|| {
        let disk = SimDisk::new(1);
        let options = Options::new().background(Background::Manual).max_pending_bytes(1);
        let engine: Engine<Kv> = options.open_on(Arc::new(disk.clone())).unwrap();
        let listener = Listener::default();
        let inner = engine.clone();
        listener.calls(move || look_and_close(&inner));
        disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::ForEver);
        disk.fail_next(OpKind::WriteAt, Fault::Eio, Persistence::ForEver);
        tracing::subscriber::with_default(listener.clone(), || {
            let tx = engine.begin().unwrap();
            let failed = (0..100).find_map(|n| tx.execute(KvCommand::put("", format!("{n}"), "value")).err());
            assert!(failed.is_some(), "the log has to write before it takes so much");
            drop(tx);
            assert!(engine.step(Step::Log(seawal::wal::LogStep::Flush)).is_err());
        });
        listener.returned.load(Ordering::SeqCst)
    });
    assert!(told > 0);
}

/// The threads of a store tell events too. A close waits for their end, and so may not wait for the
/// one it runs on.
#[test]
fn a_close_from_an_event_on_a_thread_of_the_store_ends() {
    let listener = Listener::default();
    tracing::subscriber::set_global_default(listener.clone()).unwrap();
    for failing in [false, true] {
        let before = listener.returned.load(Ordering::SeqCst);
        let (disk, listening) = (SimDisk::new(1), listener.clone());
        ends(move || {
            let engine = open(&disk, Background::Threads);
            engine.execute(KvCommand::put("", "key", "value")).unwrap();
            let (sender, closed) = mpsc::channel();
            let inner = engine.clone();
            listening.calls(move || {
                look_and_close(&inner);
                let _ = sender.send(());
            });
            if failing {
                disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::ForEver);
                assert!(engine.execute(KvCommand::put("", "key", "other")).is_err());
            } else {
                // the thread of checkpoints takes the one that is begun here to its end
                engine.step(Step::BeginCheckpoint).unwrap();
            }
            closed.recv().unwrap();
            let _ = engine.close();
            *listening.call.lock().unwrap() = None;
        });
        assert!(listener.returned.load(Ordering::SeqCst) > before);
    }
}

/// The spans that a subscriber saw, with their fields, in the order in which they were made.
#[derive(Clone, Default)]
struct SpanListener {
    spans: Arc<Mutex<Vec<(&'static str, String)>>>,
    closed: Arc<AtomicUsize>,
    call: Arc<Mutex<Option<Call>>>,
}

/// Appends the fields of a span as text.
struct FieldText<'a>(&'a mut String);

impl tracing::field::Visit for FieldText<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl SpanListener {
    fn call(&self) {
        let call = self.call.lock().unwrap().clone();
        call.inspect(|call| call());
    }

    fn names(&self) -> Vec<&'static str> {
        self.spans.lock().unwrap().iter().map(|(name, _)| *name).collect()
    }

    fn fields(&self, name: &str) -> String {
        self.spans.lock().unwrap().iter().find(|(of, _)| *of == name).unwrap().1.clone()
    }
}

impl tracing::Subscriber for SpanListener {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut fields = String::new();
        span.record(&mut FieldText(&mut fields));
        let id = {
            let mut spans = self.spans.lock().unwrap();
            spans.push((span.metadata().name(), fields));
            spans.len() as u64
        };
        self.call();
        span::Id::from_u64(id)
    }
    fn record(&self, span: &span::Id, values: &span::Record<'_>) {
        values.record(&mut FieldText(&mut self.spans.lock().unwrap()[span.into_u64() as usize - 1].1));
        self.call();
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {
        self.call();
    }
    fn exit(&self, _: &span::Id) {
        self.call();
    }
    fn try_close(&self, _: span::Id) -> bool {
        self.closed.fetch_add(1, Ordering::SeqCst);
        self.call();
        true
    }
}

#[test]
fn opens_recoveries_and_checkpoints_have_spans_and_commits_have_none() {
    let listener = SpanListener::default();
    tracing::subscriber::with_default(listener.clone(), || {
        let disk = SimDisk::new(1);
        let engine = open(&disk, Background::Manual);
        assert_eq!(listener.names(), ["open", "recovery"]);
        assert!(listener.fields("open").contains("machine=\"kv\""), "{}", listener.fields("open"));
        let recovery = listener.fields("recovery");
        assert!(recovery.contains("verdict=new") && recovery.contains("records=0"), "{recovery}");
        engine.execute(KvCommand::put("", "key", "value")).unwrap();
        engine.submit(KvCommand::put("", "key", "value")).unwrap().wait().unwrap();
        engine.transact(|tx| tx.execute(KvCommand::put("", "key", "value"))).unwrap();
        assert!(!engine.step(Step::Checkpoint).unwrap(), "nothing is due");
        assert_eq!(listener.names().len(), 2);
        // one span for all calls that advance a checkpoint
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        while engine.step(Step::Checkpoint).unwrap() {}
        assert_eq!((listener.names()[2..].len(), listener.names()[2]), (1, "checkpoint"));
        assert!(listener.fields("checkpoint").contains("bytes="), "{}", listener.fields("checkpoint"));
        disk.fail_next(OpKind::SyncAll, Fault::Eio, Persistence::Once);
        engine.execute(KvCommand::put("", "key", "value")).unwrap();
        assert!(engine.checkpoint().is_err());
        let failed = listener.spans.lock().unwrap()[3].clone();
        assert!(failed.0 == "checkpoint" && failed.1.contains("error="), "{failed:?}");
        assert_eq!(listener.closed.load(Ordering::SeqCst), 4, "every span has ended");
    });
}

#[test]
fn a_subscriber_may_call_the_store_from_its_spans() {
    for closes in [false, true] {
        ends(move || {
            let listener = SpanListener::default();
            let engine = open(&SimDisk::new(1), Background::Manual);
            engine.execute(KvCommand::put("", "key", "value")).unwrap();
            let inner = engine.clone();
            *listener.call.lock().unwrap() = Some(Arc::new(move || {
                inner.stats();
                let _ = inner.get("key");
                if closes {
                    let _ = inner.close();
                }
            }));
            tracing::subscriber::with_default(listener.clone(), || {
                let _ = engine.step(Step::BeginCheckpoint);
                while engine.step(Step::Checkpoint).is_ok_and(|more| more) {}
                let _ = engine.checkpoint();
            });
            *listener.call.lock().unwrap() = None;
            assert!(listener.names().contains(&"checkpoint"));
        });
    }
}
