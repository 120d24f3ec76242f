//! The measurements that the feature `metrics` reports: each is right, is documented, and is told
//! under no lock, because a recorder may call the store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder};
use metrics::{SharedString, Unit};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::{Fault, OpKind, Persistence, SimDisk};
use seawal::{Background, Engine, Error, Options, Step};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// How long a test waits for what must happen.
const SOON: Duration = Duration::from_secs(20);

type Call = Arc<dyn Fn() + Send + Sync>;

thread_local! {
    static CALLS: Cell<bool> = const { Cell::new(false) };
}

/// Keeps what it is told, and calls back each time.
#[derive(Clone, Default)]
struct Recording {
    values: Arc<Mutex<BTreeMap<String, Vec<f64>>>>,
    labels: Arc<Mutex<Vec<(String, String)>>>,
    call: Arc<Mutex<Option<Call>>>,
}

impl Recording {
    fn all(&self, name: &str) -> Vec<f64> {
        self.values.lock().unwrap().get(name).unwrap_or_else(|| panic!("{name} is not registered")).clone()
    }

    fn sum(&self, name: &str) -> f64 {
        self.all(name).iter().sum()
    }

    fn last(&self, name: &str) -> f64 {
        *self.all(name).last().unwrap_or_else(|| panic!("{name} was not told"))
    }

    fn instrument(&self, key: &Key) -> Arc<Instrument> {
        self.values.lock().unwrap().entry(key.name().to_owned()).or_default();
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        self.labels.lock().unwrap().extend(labels);
        Arc::new(Instrument { name: key.name().to_owned(), recording: self.clone() })
    }
}

struct Instrument {
    name: String,
    recording: Recording,
}

impl Instrument {
    fn tell(&self, value: f64) {
        self.recording.values.lock().unwrap().get_mut(&self.name).unwrap().push(value);
        // what is told during a call does not call again
        if !CALLS.replace(true) {
            let call = self.recording.call.lock().unwrap().clone();
            call.inspect(|call| call());
            CALLS.set(false);
        }
    }
}

impl CounterFn for Instrument {
    fn increment(&self, value: u64) {
        self.tell(value as f64);
    }
    fn absolute(&self, _: u64) {
        panic!("a store that is opened again begins at zero");
    }
}

impl GaugeFn for Instrument {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }
    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }
    fn set(&self, value: f64) {
        self.tell(value);
    }
}

impl HistogramFn for Instrument {
    fn record(&self, value: f64) {
        self.tell(value);
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.instrument(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.instrument(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.instrument(key))
    }
}

fn open(disk: &SimDisk, recording: &Recording) -> Engine<Kv> {
    let options = Options::new().background(Background::Manual);
    metrics::with_local_recorder(recording, || options.open_on(Arc::new(disk.clone())).unwrap())
}

fn put(key: &str) -> KvCommand {
    KvCommand::put("", key, "value")
}

/// Runs a call on a thread of its own, so that a deadlock fails the test.
fn ends(call: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        call();
        let _ = sender.send(());
    });
    match receiver.recv_timeout(SOON) {
        Ok(()) => {}
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the call waits for itself"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Two transactions that wait for each other; the younger one loses.
fn lose_a_deadlock(engine: &Engine<Kv>) {
    let (older, younger) = (engine.begin().unwrap(), engine.begin().unwrap());
    older.execute(put("a")).unwrap();
    younger.execute(put("b")).unwrap();
    let waits = thread::spawn(move || {
        older.execute(put("b")).unwrap();
        older.commit().unwrap();
    });
    while engine.stats().lock_waiters == 0 {
        thread::yield_now();
    }
    assert!(younger.execute(put("a")).unwrap_err().is_conflict());
    assert!(matches!(younger.commit(), Err(Error::Conflict)), "an error that is told again is no other conflict");
    waits.join().unwrap();
}

#[test]
fn commits_conflicts_and_rollbacks_are_counted() {
    let (disk, told) = (SimDisk::new(1), Recording::default());
    let engine = open(&disk, &told);
    engine.execute(put("k")).unwrap();
    engine.submit(put("k")).unwrap().wait().unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(put("k")).unwrap();
    tx.commit().unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(put("k")).unwrap();
    tx.submit().unwrap().wait().unwrap();
    assert_eq!((told.sum("seawal_commits_total"), told.all("seawal_commit_seconds").len()), (4.0, 2));

    // these leave no record
    engine.begin().unwrap().commit().unwrap();
    engine.begin().unwrap().rollback().unwrap();
    assert_eq!((told.sum("seawal_commits_total"), told.sum("seawal_rollbacks_total")), (4.0, 0.0));
    for dropped in [false, true] {
        let tx = engine.begin().unwrap();
        tx.execute(put("gone")).unwrap();
        if dropped { drop(tx) } else { tx.rollback().unwrap() }
    }
    assert_eq!((told.sum("seawal_rollbacks_total"), told.sum("seawal_conflicts_total")), (2.0, 0.0));
    lose_a_deadlock(&engine);
    assert_eq!((told.sum("seawal_rollbacks_total"), told.sum("seawal_conflicts_total")), (3.0, 1.0));
    assert_eq!(told.sum("seawal_commits_total"), 5.0);
    let labels = told.labels.lock().unwrap().clone();
    assert!(labels.contains(&("machine".into(), <Kv as seawal::StateMachine>::NAME.into())));
    assert!(labels.iter().any(|(name, _)| name == "dir"));
}

#[test]
fn figures_of_the_log_agree_with_the_stats_and_are_read_once_a_second() {
    let (disk, told) = (SimDisk::new(1), Recording::default());
    let engine = open(&disk, &told);
    engine.execute(put("k")).unwrap();
    let before = told.all("seawal_log_segment_bytes").len();
    for _ in 0..10 {
        engine.execute(put("k")).unwrap();
    }
    assert!(told.all("seawal_log_segment_bytes").len() <= before + 1, "each commit reads them");
    disk.advance(Duration::from_secs(2));
    engine.execute(put("k")).unwrap();
    let stats = engine.stats();
    let log = stats.log.as_ref().unwrap();
    assert_eq!(told.last("seawal_log_segment_bytes"), log.segment_bytes as f64);
    assert_eq!(told.last("seawal_log_since_snapshot_bytes"), stats.log_bytes_since_snapshot as f64);
    assert_eq!(told.sum("seawal_log_appended_bytes_total"), stats.log_bytes_since_snapshot as f64);
    assert_eq!(told.last("seawal_estimated_recovery_seconds"), stats.estimated_recovery.as_secs_f64());
    assert_eq!(told.all("seawal_group_records").len() as u64, log.batch_sizes.frames());
    assert_eq!(told.sum("seawal_group_records"), 12.0, "each commit was a group of its own");
    assert!(told.all("seawal_commit_seconds").iter().all(|seconds| (0.0..3.0).contains(seconds)));
}

#[test]
fn checkpoints_are_counted_with_their_sizes_and_failures() {
    let (disk, told) = (SimDisk::new(1), Recording::default());
    let engine = open(&disk, &told);
    engine.execute(put("k")).unwrap();
    disk.fail_next(OpKind::SyncAll, Fault::Eio, Persistence::Once);
    assert!(engine.checkpoint().is_err());
    assert_eq!((told.sum("seawal_checkpoints_total"), told.sum("seawal_checkpoint_failures_total")), (0.0, 1.0));
    engine.checkpoint().unwrap();
    engine.execute(put("l")).unwrap();
    assert!(engine.step(Step::BeginCheckpoint).unwrap());
    while engine.step(Step::Checkpoint).unwrap() {}
    assert_eq!((told.sum("seawal_checkpoints_total"), told.all("seawal_checkpoint_seconds").len()), (2.0, 2));
    let bytes = told.all("seawal_checkpoint_bytes");
    assert!(bytes.len() == 2 && bytes.iter().all(|bytes| *bytes > 100.0), "{bytes:?}");
    assert_eq!(told.last("seawal_log_since_snapshot_bytes"), engine.stats().log_bytes_since_snapshot as f64);
    // nothing is new, so nothing is written
    engine.checkpoint().unwrap();
    assert_eq!((told.sum("seawal_checkpoints_total"), told.all("seawal_checkpoint_bytes").len()), (3.0, 2));
    engine.close().unwrap();
}

/// The counters of a store that is opened again go on.
#[test]
fn a_store_that_is_opened_again_adds_to_its_counters() {
    let (disk, told) = (SimDisk::new(1), Recording::default());
    for round in 1..=3 {
        let engine = open(&disk, &told);
        let before = told.sum("seawal_log_appended_bytes_total");
        engine.execute(put("k")).unwrap();
        engine.close().unwrap();
        assert_eq!(told.sum("seawal_commits_total"), f64::from(round));
        assert!(told.sum("seawal_log_appended_bytes_total") > before, "a close reads the figures");
    }
}

/// A recorder is foreign code, like the subscriber of an event.
#[test]
fn a_recorder_may_call_the_store_even_close_it() {
    for closes in [false, true] {
        ends(move || {
            let (disk, told) = (SimDisk::new(1), Recording::default());
            let engine = open(&disk, &told);
            let inner = engine.clone();
            let call: Call = Arc::new(move || {
                let _ = inner.stats();
                let _ = inner.get("k");
                if closes {
                    let _ = inner.close();
                }
            });
            *told.call.lock().unwrap() = Some(call);
            let _ = engine.execute(put("k"));
            if let Ok(tx) = engine.begin() {
                let _ = tx.execute(put("l"));
                let _ = tx.rollback();
            }
            let _ = engine.checkpoint();
            disk.advance(Duration::from_secs(2));
            let _ = engine.submit(put("m"));
            let _ = engine.close();
            *told.call.lock().unwrap() = None;
            assert!(told.sum("seawal_commits_total") >= 1.0);
        });
    }
}

#[test]
fn the_operations_page_lists_every_measurement_and_no_other() {
    let told = Recording::default();
    drop(open(&SimDisk::new(1), &told));
    let registered: Vec<String> = told.values.lock().unwrap().keys().cloned().collect();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let names = page.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let mut listed: Vec<&str> =
        names.flat_map(|cell| cell.split('`')).filter(|name| name.starts_with("seawal_")).collect();
    listed.sort_unstable();
    assert_eq!(listed, registered);
}
