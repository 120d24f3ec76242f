//! Small models of group commit for loom, which runs every interleaving of a few threads up to a
//! number of preemptions. No thread waits for ever. A thread that gets `Ok` has its record on the
//! device. All waiting threads get a failure.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom --lib models
//! ```
//!
//! `SEAWAL_PREEMPTIONS` raises the bound from 3. The queue, the leaders, the waiters and the writer
//! are those of the library; only the storage is paper.

use crate::durability::Durability;
use crate::error::Error;
use crate::format::bytes::Head;
use crate::format::manifest::Manifest;
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId};
use crate::io::sync::{Arc, AtomicU64, Mutex, Ordering, RwLock, thread};
use crate::io::{Clock, Directory, DirectoryLock, File, LockMode, OpenMode, Storage, WritePath};
use crate::machine::{Access, Footprint};
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::PreallocatedSegment;
use crate::store::ownership::Ownership;
use crate::txn::CommitWatermarks;
use crate::wal::Level;
use crate::wal::device_latency::DeviceLatency;
use crate::wal::group_commit::GroupCommit;
use crate::wal::queue::{Bounds, Queue};
use crate::wal::segment_writer::{Identity, SegmentWriter};
use std::io;
use std::path::PathBuf;

use std::sync::Mutex as Plain;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const BLOCK: u32 = 4096;
const BASE: Lsn = Lsn::new(BLOCK as u64);

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let preemptions = std::env::var("SEAWAL_PREEMPTIONS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    let runs = Arc::new(std::sync::atomic::AtomicU64::new(0)); // none of the model's
    let counter = runs.clone();
    builder.check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!("{} interleavings", runs.load(std::sync::atomic::Ordering::Relaxed));
}

/// What became of the bytes, as positions in the one segment.
#[derive(Default)]
struct Device {
    path: Option<WritePath>,
    fails: bool,
    panics: bool,
    /// Ends of writes that only the page cache holds.
    cached: Vec<(u64, u64)>,
    durable: Vec<(u64, u64)>,
    frames: usize,
}

/// A storage that remembers where was written, and not what. Its lock is none of the model's, but
/// operations on the segment are steps: others may run while one has begun and done nothing yet.
#[derive(Clone, Default)]
struct Paper(Arc<Plain<Device>>, Arc<AtomicU64>);

impl Paper {
    fn new(path: WritePath) -> Paper {
        let paper = Paper::default();
        paper.0.lock().unwrap().path = Some(path);
        paper
    }

    fn failing() -> Paper {
        let paper = Paper::new(WritePath::Direct);
        paper.0.lock().unwrap().fails = true;
        paper
    }

    fn frames(&self) -> usize {
        self.0.lock().unwrap().frames
    }

    /// Asserts that nothing is missing below a position.
    fn holds(&self, end: Lsn, level: Level) {
        let device = self.0.lock().unwrap();
        let mut pieces = device.durable.clone();
        if level == Level::Written {
            pieces.extend(&device.cached);
        }
        pieces.sort_unstable();
        let whole =
            pieces.iter().fold(BASE.get(), |upto, (start, end)| if *start <= upto { upto.max(*end) } else { upto });
        assert!(whole >= end.get(), "{end} was reached, and the device holds {whole}");
    }
}

/// A file of it, and whether it is the segment.
struct Sheet(Paper, bool);

impl Sheet {
    fn begin(&self) {
        if self.1 {
            self.0.1.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Directory for Paper {
    fn open(&self, name: &str, _mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Sheet(self.clone(), name.contains("spare"))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn block_bytes(&self) -> u32 {
        BLOCK
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl Clock for Paper {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall_clock_micros(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        1
    }
}

impl File for Sheet {
    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn read_device_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.begin();
        let mut device = self.0.0.lock().unwrap();
        if self.1 {
            device.frames += 1;
            device.cached.push((offset, offset + buf.len() as u64));
        }
        Ok(buf.len())
    }
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.begin();
        let mut device = self.0.0.lock().unwrap();
        // the header of the segment is no frame
        if self.1 && offset > 0 {
            if device.panics {
                drop(device);
                // says nothing, as a hook would each time
                std::panic::resume_unwind(Box::new("as asked"));
            }
            if device.fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
            device.frames += 1;
            device.durable.push((offset, offset + buf.len() as u64));
        }
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.begin();
        let mut device = self.0.0.lock().unwrap();
        if device.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let cached = std::mem::take(&mut device.cached);
        device.durable.extend(cached);
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_path(&self) -> WritePath {
        self.0.0.lock().unwrap().path.unwrap_or(WritePath::Direct)
    }
}

/// The pipeline on that storage, in a segment whose first frame stands at [`BASE`].
fn pipeline(paper: &Paper, max_in_flight: usize) -> Arc<GroupCommit> {
    let storage: Arc<dyn Storage> = Arc::new(paper.clone());
    let machine = MachineTag { name: "model".into(), version: 1 };
    let manifest = Manifest {
        counter: 0,
        store: StoreId::new(1),
        epoch: Epoch::new(1),
        log_start: BASE,
        watermark: Lsn::ZERO,
        clean_end: Lsn::ZERO,
        segment: SegmentId::new(0),
        origin: BASE,
        block_bytes: BLOCK,
        machine: machine.clone(),
        snapshots: Vec::new(),
        shape: Vec::new(),
    };
    let root = Arc::new(Mutex::new(ManifestFile::create(storage.clone(), manifest).unwrap()));
    let identity = Identity { store: StoreId::new(1), epoch: Epoch::new(1), block_bytes: BLOCK, machine };
    let bounds = Bounds {
        segment_bytes: 1 << 20,
        block_bytes: BLOCK,
        max_frame_bytes: 1 << 16,
        max_pending_bytes: 1 << 20,
        max_in_flight: Some(max_in_flight),
    };
    let spare = PreallocatedSegment { name: "1.spare".into(), number: 1, file_bytes: 1 << 20, file: None };
    let queue = Queue::new(bounds, BASE, BASE, vec![spare]).unwrap();
    let ownership = Arc::new(Ownership::new(storage.clone(), None));
    let writer = SegmentWriter::new((storage, ownership), identity, root, BASE, 0, SegmentId::new(0));
    let pace = DeviceLatency::new(Arc::new(paper.clone()), Duration::from_secs(1));
    let commit = GroupCommit::new(queue, writer, Vec::new(), BASE, pace);
    commit.enter_first(BASE).unwrap();
    Arc::new(commit)
}

fn append(commit: &GroupCommit, level: Level) -> Lsn {
    commit.append(b"record", Some(level), |_| Head::default()).unwrap().1
}

/// Appends, waits, and looks whether what was promised is so.
fn commit_one(commit: &GroupCommit, paper: &Paper, level: Level) {
    let end = append(commit, level);
    commit.wait(end, level).unwrap();
    paper.holds(end, level);
}

fn spawn(
    commit: &Arc<GroupCommit>,
    paper: &Paper,
    run: impl FnOnce(&GroupCommit, &Paper) + Send + 'static,
) -> thread::JoinHandle<()> {
    let (commit, paper) = (commit.clone(), paper.clone());
    thread::Builder::new().spawn(move || run(&commit, &paper)).unwrap()
}

/// Wakes a thread of the model.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls to the end on this thread, as an executor would.
fn block_on(commit: &GroupCommit, end: Lsn, level: Level) -> crate::error::Result<()> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut registration = None;
    loop {
        match commit.poll(end, level, &mut Context::from_waker(&waker), &mut registration) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}

/// Looks after what nobody leads, as the flusher does, until so many records are durable.
fn flush_until(commit: &GroupCommit, records: u64) {
    loop {
        commit.lead_if_needed().unwrap();
        let (appended, end, needed) = {
            let queue = commit.queue.lock();
            (queue.frames.records(), queue.frames.appended_end(), queue.needs_flusher())
        };
        if appended == records && commit.progress.reached(end, Level::Durable) {
            return;
        }
        // with a limit the sleep may end at any moment; without one, only a wake-up ends it
        commit.park_flusher(needed.then_some(Duration::ZERO));
    }
}

#[test]
fn committers_are_answered_when_what_they_wrote_is_durable() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let others = [0, 1].map(|_| spawn(&commit, &paper, |commit, paper| commit_one(commit, paper, Level::Durable)));
        commit_one(&commit, &paper, Level::Durable);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn committers_with_two_frames_in_flight_are_answered_for_the_contiguous_part_only() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 2);
        let other = spawn(&commit, &paper, |commit, paper| {
            commit_one(commit, paper, Level::Durable);
            commit_one(commit, paper, Level::Durable);
        });
        commit_one(&commit, &paper, Level::Durable);
        other.join().unwrap();
    });
}

#[test]
fn a_durable_commit_covers_those_that_only_the_page_cache_holds() {
    for path in [WritePath::BufferedSync, WritePath::Direct] {
        explore(move || {
            let paper = Paper::new(path);
            let commit = pipeline(&paper, 2);
            let other = spawn(&commit, &paper, |commit, paper| commit_one(commit, paper, Level::Written));
            commit_one(&commit, &paper, Level::Durable);
            other.join().unwrap();
        });
    }
}

#[test]
fn tickets_nobody_waits_for_are_flushed_by_a_flusher_that_sleeps_without_a_limit() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let others = [0, 1].map(|_| {
            spawn(&commit, &paper, |commit, _| {
                append(commit, Level::Durable);
                commit.nudge();
            })
        });
        flush_until(&commit, 2);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn a_flusher_does_not_sleep_through_a_frame_that_wants_a_watermark() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let other = spawn(&commit, &paper, |commit, paper| commit_one(commit, paper, Level::Durable));
        let needed = commit.queue.lock().needs_flusher();
        if !needed {
            commit.park_flusher(None);
        }
        other.join().unwrap();
    });
}

#[test]
fn a_future_is_woken_by_whoever_leads() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let future = spawn(&commit, &paper, |commit, paper| {
            let end = append(commit, Level::Durable);
            block_on(commit, end, Level::Durable).unwrap();
            paper.holds(end, Level::Durable);
        });
        let committer = spawn(&commit, &paper, |commit, paper| commit_one(commit, paper, Level::Durable));
        flush_until(&commit, 2);
        future.join().unwrap();
        committer.join().unwrap();
    });
}

#[test]
fn a_failure_is_told_to_all_who_wait_in_whatever_way() {
    explore(|| {
        let paper = Paper::failing();
        let commit = pipeline(&paper, 1);
        let future = spawn(&commit, &paper, |commit, _| {
            let end = append(commit, Level::Durable);
            assert!(block_on(commit, end, Level::Durable).unwrap_err().is_latched());
        });
        let other = spawn(&commit, &paper, |commit, _| {
            let end = append(commit, Level::Durable);
            assert!(commit.wait(end, Level::Durable).unwrap_err().is_latched());
        });
        let end = append(&commit, Level::Durable);
        assert!(commit.wait(end, Level::Durable).unwrap_err().is_latched());
        future.join().unwrap();
        other.join().unwrap();
        assert_eq!(commit.durable(), BASE);
    });
}

#[test]
fn a_leader_that_panics_leaves_nobody_waiting() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        paper.0.lock().unwrap().panics = true;
        let commit = pipeline(&paper, 1);
        let attempt = |commit: &GroupCommit| {
            let end = append(commit, Level::Durable);
            let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commit.wait(end, Level::Durable)));
            assert!(waited.map_or(true, |answer| answer.unwrap_err().is_latched()));
        };
        let other = spawn(&commit, &paper, move |commit, _| attempt(commit));
        attempt(&commit);
        other.join().unwrap();
    });
}

/// Takes a lock of its own when it is called.
struct Foreign(Arc<Mutex<()>>);

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock());
    }
}

#[test]
fn a_waker_may_take_a_lock_under_which_others_ask_the_log() {
    explore(|| {
        let paper = Paper::failing();
        let commit = pipeline(&paper, 1);
        let foreign = Arc::new(Mutex::new(()));
        let end = append(&commit, Level::Durable);
        let waker = Waker::from(Arc::new(Foreign(foreign.clone())));
        assert!(commit.poll(end, Level::Durable, &mut Context::from_waker(&waker), &mut None).is_pending());
        let other = spawn(&commit, &paper, move |commit, _| {
            let held = foreign.lock();
            commit.write_path();
            drop(held);
        });
        assert!(commit.wait(end, Level::Durable).unwrap_err().is_latched());
        other.join().unwrap();
    });
}

#[test]
fn nothing_is_written_once_the_log_was_stopped() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let other = spawn(&commit, &paper, |commit, paper| {
            let end = append(commit, Level::Durable);
            match commit.wait(end, Level::Durable) {
                Ok(()) => paper.holds(end, Level::Durable),
                Err(error) => assert!(matches!(error, Error::Closed), "{error:?}"),
            }
        });
        commit.stop();
        let frames = paper.frames();
        other.join().unwrap();
        assert_eq!(paper.frames(), frames);
    });
}

#[test]
fn closing_flushes_what_was_appended_also_while_another_leads() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let end = append(&commit, Level::Durable);
        let other = spawn(&commit, &paper, |commit, paper| {
            match commit.append(b"", Some(Level::Durable), |_| Head::default()) {
                Ok((_, end)) => {
                    commit.wait(end, Level::Durable).unwrap();
                    paper.holds(end, Level::Durable);
                }
                Err(error) => assert!(matches!(error, Error::Closed), "{error:?}"),
            }
        });
        commit.queue.lock().close();
        commit.flush_wanted().unwrap();
        paper.holds(end, Level::Durable);
        other.join().unwrap();
    });
}

#[test]
fn closing_waits_for_a_leader_that_begins_beside_it() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let end = append(&commit, Level::Durable);
        // the flusher, of a ticket that no thread waits for
        let other = spawn(&commit, &paper, |commit, _| drop(commit.lead_if_needed()));
        commit.queue.lock().close();
        commit.flush_wanted().unwrap();
        commit.stop();
        paper.holds(end, Level::Durable);
        other.join().unwrap();
    });
}

#[test]
fn a_hardened_read_shows_nothing_that_is_not_durable() {
    explore(|| {
        let paper = Paper::new(WritePath::Direct);
        let commit = pipeline(&paper, 1);
        let core = Arc::new(RwLock::new(None::<Lsn>));
        let hardening = Arc::new(CommitWatermarks::new());
        let other = {
            let (core, hardening) = (core.clone(), hardening.clone());
            spawn(&commit, &paper, move |commit, _| {
                let mut state = core.write();
                let end = append(commit, Level::Durable);
                *state = Some(end);
                hardening.note(&Footprint::key(Access::Exclusive, b"k"), end, Durability::Sync);
                drop(state);
                commit.wait(end, Level::Durable).unwrap();
            })
        };
        let (shown, needed) = {
            let state = core.read();
            (*state, hardening.needed_for_key(b"k"))
        };
        commit.wait(needed.durable, Level::Durable).unwrap();
        if let Some(end) = shown {
            paper.holds(end, Level::Durable);
        }
        other.join().unwrap();
    });
}
