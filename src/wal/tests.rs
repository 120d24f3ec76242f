//! Faults of the log that only a storage which blocks at a chosen operation can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::error::Error;
use crate::ids::Lsn;
use crate::io::sync::Arc;
#[cfg(feature = "tracing")]
use crate::io::sync::Ordering;
use crate::io::{Clock, Directory, DirectoryLock, File, LockMode, OpenMode, WritePath, failing};
use crate::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
#[cfg(feature = "tracing")]
use crate::wal::LogStep;
use crate::wal::{Background, Log, LogOptions, Need};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// How long a test waits for what must happen, and for what must not.
const SOON: Duration = Duration::from_secs(20);
const MEANWHILE: Duration = Duration::from_millis(100);

/// Stops threads at a chosen operation until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed_for: Option<OpKind>,
    stopped: usize,
}

impl Gate {
    fn pass(&self, operation: OpKind) {
        let mut state = self.state.lock().unwrap();
        while state.closed_for == Some(operation) {
            state.stopped += 1;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap();
            state.stopped -= 1;
        }
    }

    fn close(&self, operation: OpKind) {
        self.state.lock().unwrap().closed_for = Some(operation);
    }

    fn open(&self) {
        self.state.lock().unwrap().closed_for = None;
        self.changed.notify_all();
    }

    fn wait_until_one_is_stopped(&self) {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, SOON, |state| state.stopped == 0).unwrap();
        assert!(state.stopped > 0, "no thread has come to the gate");
    }
}

/// A simulated disk behind a gate.
#[derive(Clone)]
struct Gated {
    disk: SimDisk,
    gate: Arc<Gate>,
}

impl Gated {
    fn new(disk: SimDisk) -> Gated {
        Gated { disk, gate: Arc::default() }
    }

    fn open(&self) -> Log {
        Log::open_on(Arc::new(self.clone()), options()).unwrap()
    }
}

impl Directory for Gated {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(GatedFile { file: self.disk.open(name, mode)?, gate: self.gate.clone() }))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        self.disk.lock(mode)
    }
    fn block_bytes(&self) -> u32 {
        self.disk.block_bytes()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

impl Clock for Gated {
    fn monotonic(&self) -> Duration {
        self.disk.monotonic()
    }
    fn wall_clock_micros(&self) -> u64 {
        self.disk.wall_clock_micros()
    }
    fn random(&self) -> u64 {
        self.disk.random()
    }
}

struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_device_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.gate.pass(OpKind::WriteDurableAt);
        self.file.write_durable_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass(OpKind::SyncData);
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.gate.pass(OpKind::SyncAll);
        self.file.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn write_path(&self) -> WritePath {
        self.file.write_path()
    }
}

fn options() -> LogOptions {
    LogOptions {
        background: Background::Manual,
        first_segment_bytes: 32 << 10,
        segment_bytes: 32 << 10,
        ..LogOptions::default()
    }
}

/// Runs a call on a thread of its own and says what it returned, if it has.
fn on_a_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(call())));
    receiver
}

/// U12: a second close was told `Ok` while the first one was syncing, or had failed.
#[test]
fn a_second_close_waits_for_the_first_and_both_get_its_outcome() {
    let storage = Gated::new(SimDisk::new(1));
    let log = Arc::new(storage.open());
    let _ticket = log.append(b"record").unwrap();
    storage.gate.close(OpKind::WriteDurableAt);
    let first = on_a_thread({
        let log = log.clone();
        move || log.close()
    });
    storage.gate.wait_until_one_is_stopped();
    let second = on_a_thread({
        let log = log.clone();
        move || log.close()
    });
    assert!(second.recv_timeout(MEANWHILE).is_err(), "nothing is durable yet");
    storage.gate.open();
    first.recv_timeout(SOON).unwrap().unwrap();
    second.recv_timeout(SOON).unwrap().unwrap();
    log.close().unwrap();
}

#[test]
fn a_close_after_one_that_failed_gets_the_same_error() {
    let disk = SimDisk::new(1);
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    let _ticket = log.append(b"record").unwrap();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
    let first = log.close().unwrap_err();
    let second = log.close().expect_err("nothing was made durable");
    assert_eq!(first.to_string(), second.to_string());
}

/// S12: `stats` waited behind a sync.
#[test]
fn figures_are_had_while_a_sync_is_under_way() {
    let storage = Gated::new(SimDisk::builder().seed(1).write_path(WritePath::BufferedSync).build());
    let log = Arc::new(storage.open());
    let ticket = log.append(b"record").unwrap();
    storage.gate.close(OpKind::SyncData);
    let waiting = on_a_thread(move || ticket.wait());
    storage.gate.wait_until_one_is_stopped();
    let figures = on_a_thread({
        let log = log.clone();
        move || (log.stats(), log.has_entered())
    });
    let (stats, has_entered) = figures.recv_timeout(SOON).expect("the figures wait for the device");
    assert!(stats.write_path == Some(WritePath::BufferedSync) && has_entered);
    storage.gate.open();
    waiting.recv_timeout(SOON).unwrap().unwrap();
}

/// S3: a refused allocation latched the log, though nothing was written.
#[test]
fn memory_that_cannot_be_had_before_a_frame_is_taken_refuses_one_record_and_the_log_goes_on() {
    let disk = SimDisk::new(1);
    // no segment has to be preallocated for these records, for that takes memory too
    let mut roomy = options();
    (roomy.first_segment_bytes, roomy.segment_bytes) = (128 << 10, 128 << 10);
    let log = Log::open_on(Arc::new(disk.clone()), roomy).unwrap();
    failing::at(0);
    let refused = log.append(b"one").and_then(|ticket| ticket.wait());
    assert!(failing::stop(), "nothing was allocated");
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    log.append(b"two").unwrap().wait().unwrap();
    log.close().unwrap();
}

/// A frame that only the page cache holds ends inside a block. Before that is synced, a frame
/// without records fills the block.
#[test]
fn memory_that_cannot_be_had_to_fill_a_block_does_not_stop_the_log() {
    for nth in 0..4 {
        let disk = SimDisk::new(1);
        let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
        let head = |_| crate::format::bytes::Head::default();
        let ((), room) = log.reserve_under(Need::record(3), || Ok(())).unwrap();
        let end = room.append(b"one", None, head).unwrap().0.end;
        log.wait(end, crate::wal::Level::Written).unwrap();
        failing::at(nth);
        let refused = log.seal().and_then(|end| log.wait(end, crate::wal::Level::Durable));
        failing::stop();
        assert!(!refused.is_err_and(|error| error.is_latched()));
        log.append(b"two").unwrap().wait().unwrap();
        let read: Vec<_> = log.read_from(Lsn::ZERO).unwrap().map(|r| r.unwrap().1).collect();
        assert_eq!(read, [b"one".to_vec(), b"two".to_vec()]);
        drop(log);
        let log = Log::open_on(Arc::new(disk.crash(Crash::Nothing)), options()).unwrap();
        assert_eq!(log.read_from(Lsn::ZERO).unwrap().count(), 2);
    }
}

/// Appends records that fill some segments, and returns where each one ends.
fn fill(log: &Log) -> Vec<Lsn> {
    let record = |n: u8| {
        log.append(&[n; 3000]).unwrap().wait().unwrap();
        log.durable_lsn()
    };
    (0..60).map(record).collect()
}

/// U16: recycling waited for the preallocator, which pauses between its pieces.
#[test]
fn recycling_does_not_wait_for_a_segment_that_is_written_ahead_of_need() {
    let storage = Gated::new(SimDisk::new(1));
    let log = Arc::new(storage.open());
    let ends = fill(&log);
    storage.gate.close(OpKind::WriteDurableAt);
    let shared = log.shared.clone();
    let preparing = on_a_thread(move || shared.segment_pool.prepare_ahead(&shared.commit, &|| false));
    storage.gate.wait_until_one_is_stopped();
    let recycled = on_a_thread({
        let log = log.clone();
        move || log.recycle_below(ends[40])
    });
    let count = recycled.recv_timeout(SOON).expect("recycling waits for the preallocator").unwrap();
    assert!(count > 0);
    storage.gate.open();
    assert!(preparing.recv_timeout(SOON).unwrap().unwrap());
    let names = storage.disk.file_names();
    let on_disk = names.iter().filter(|name| name.contains("spare")).count();
    assert_eq!(on_disk, log.stats().preallocated_segments, "{names:?}");
}

#[test]
fn segments_whose_new_names_could_not_be_synced_enter_the_pool_with_the_next_sync() {
    let disk = SimDisk::new(1);
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    let ends = fill(&log);
    disk.fail_next(OpKind::SyncDir, Fault::Eio, Persistence::Once);
    assert!(log.recycle_below(ends[40]).is_err());
    log.recycle_below(ends[40]).unwrap();
    let on_disk = disk.file_names().iter().filter(|name| name.contains("spare")).count();
    assert_eq!(on_disk, log.stats().preallocated_segments);
    fill(&log);
    log.close().unwrap();
}

/// U13: a reader beside `truncate_before` reported a healthy log as damaged.
#[test]
fn a_reader_keeps_the_segments_it_has_yet_to_read() {
    let disk = SimDisk::new(1);
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log);
    let mut reading = log.read_from(Lsn::ZERO).unwrap();
    let first = reading.next().unwrap().unwrap();
    let before = log.stats().segments;
    log.truncate_before(log.durable_lsn()).unwrap();
    // what is given up is used again at once
    fill(&log);
    let read: Vec<u8> = std::iter::once(Ok(first)).chain(reading).map(|r| r.unwrap().1[0]).collect();
    assert_eq!(read, (0..60).collect::<Vec<u8>>());
    // what the reader has held back goes with the next truncation
    log.truncate_before(log.durable_lsn()).unwrap();
    assert!(log.stats().segments < before, "{} of {before}", log.stats().segments);
}

#[test]
fn a_reader_holds_back_only_what_it_has_not_passed() {
    let disk = SimDisk::new(1);
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    let ends = fill(&log);
    let mut reading = log.read_from(Lsn::ZERO).unwrap();
    for _ in 0..50 {
        reading.next().unwrap().unwrap();
    }
    let before = log.stats().segments;
    log.truncate_before(log.durable_lsn()).unwrap();
    assert!(log.stats().segments < before);
    assert_eq!(reading.map(|r| r.unwrap().1[0]).collect::<Vec<_>>(), (50..60).collect::<Vec<u8>>());
    // a reader from further on holds back nothing below
    let late = log.read_from(ends[55]).unwrap();
    log.truncate_before(ends[55]).unwrap();
    assert!(late.count() > 0);
}

/// Whatever listens to events must not find the writer's lock taken, for it may ask the log
/// something itself.
#[cfg(feature = "tracing")]
/// U14: a subscriber ran under the writer lock.
#[test]
fn an_event_is_told_under_no_lock() {
    use std::sync::atomic::AtomicUsize;
    struct Listener {
        log: Mutex<Option<Arc<crate::wal::shared::Shared>>>,
        free: Arc<AtomicUsize>,
        taken: Arc<AtomicUsize>,
    }
    impl tracing::Subscriber for Listener {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            if let Some(log) = &*self.log.lock().unwrap() {
                let free = log.commit.is_unlocked();
                let count = if free { &self.free } else { &self.taken };
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let disk = SimDisk::builder().seed(1).write_path(WritePath::BufferedSync).build();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    let (free, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let listener = Listener { log: Mutex::new(Some(log.shared.clone())), free: free.clone(), taken: taken.clone() };
    tracing::subscriber::with_default(listener, || {
        let ticket = log.append(b"record").unwrap();
        disk.fail_next(OpKind::SyncData, Fault::Eio, Persistence::Once);
        assert!(ticket.wait().unwrap_err().is_latched());
        assert!(log.step(LogStep::Flush).is_err());
    });
    assert_eq!((free.load(Ordering::SeqCst), taken.load(Ordering::SeqCst)), (1, 0));
}
