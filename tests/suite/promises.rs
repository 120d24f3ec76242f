//! Smaller promises: clocks do not matter, every limit returns an error, a durable commit covers
//! earlier ones, and no thread waits forever.

use crate::common::{Cmd, Rng, Stacks, manual, open, open_on, scale, state};
use seawal::io::{AlignedBuf, Clock, Directory, DirectoryLock, File, LockMode, OpenMode, Storage, WritePath};
use seawal::machine::{Access, Footprint};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Log, LogOptions, LogStep};
use seawal::{Background, Durability, Error, ExecuteError, Options, ReadLevel, Step};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A disk whose wall clock jumps.
struct Jumping {
    disk: SimDisk,
    at: AtomicU64,
    /// Called at the next reading of the wall clock.
    asked: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Jumping {
    fn new(disk: SimDisk, at: u64) -> Arc<Jumping> {
        Arc::new(Jumping { disk, at: AtomicU64::new(at), asked: Mutex::default() })
    }
}

impl Directory for Jumping {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.disk.open(name, mode)
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

impl Clock for Jumping {
    fn monotonic(&self) -> Duration {
        self.disk.monotonic()
    }

    fn wall_clock_micros(&self) -> u64 {
        let asked = self.asked.lock().unwrap().take();
        asked.into_iter().for_each(|act| act());
        let n = self.at.fetch_add(1, Ordering::Relaxed);
        // sometimes the extremes, otherwise random times, so that the clock goes back as often as
        // forward
        match n % 5 {
            0 => 0,
            1 => u64::MAX,
            _ => Rng::new(n).next(),
        }
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }
}

#[test]
fn a_calendar_that_jumps_back_and_forth_has_no_effect() {
    for seed in 0..4 * scale() {
        let (steady, jumping) = (SimDisk::new(seed), SimDisk::new(seed));
        let jumps = |disk: SimDisk| Jumping::new(disk, seed);
        let mut states = Vec::new();
        for storage in [Arc::new(steady.clone()) as Arc<dyn Storage>, jumps(jumping.clone())] {
            let engine = manual().open_on::<Stacks>(storage).unwrap();
            let mut rng = Rng::new(seed);
            let tx = engine.begin().unwrap();
            for value in 0..60 {
                engine.execute(Cmd::Push { key: rng.below(4) as u8, value, pad: rng.below(900) as u16 }).unwrap();
                tx.execute(Cmd::push(10, value)).unwrap();
                if value % 20 == 19 {
                    engine.checkpoint().unwrap();
                }
            }
            tx.commit().unwrap();
            engine.execute_with(Cmd::push(1, 1), Durability::Interval(Duration::from_millis(5))).unwrap();
            assert_eq!(engine.step(Step::Expire).ok(), Some(false));
            states.push(state(&engine));
        }
        let clock = jumping.crash(Crash::KillOnly);
        let engine = manual().open_on::<Stacks>(jumps(clock.clone())).unwrap();
        assert_eq!(state(&engine), states[1]);
        assert_eq!(states[0], states[1]);
        // The monotonic clock jumps, as after a suspend. Due work is done, and nothing else
        // happens.
        engine.execute_with(Cmd::push(2, 2), Durability::Interval(Duration::from_secs(1 << 32))).unwrap();
        clock.advance(Duration::from_secs(1 << 33));
        engine.step(Step::Log(LogStep::SyncDue)).unwrap();
        assert_eq!(state(&open(&clock.crash(Crash::Nothing)).0), state(&engine));
    }
}

fn failed<T: std::fmt::Debug>(result: Result<T, ExecuteError<crate::common::Empty>>) -> Error {
    match result.unwrap_err() {
        ExecuteError::Failed(error) => error,
        ExecuteError::Rejected(empty) => panic!("{empty}"),
    }
}

#[test]
fn locks_are_kept_until_the_record_of_the_commit_is_in_the_log() {
    let storage = Jumping::new(SimDisk::new(2), 0);
    let engine = manual().open_on::<Stacks>(storage.clone()).unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(1, 1)).unwrap();
    let other = engine.clone();
    // a commit reads the clock before it appends its record
    *storage.asked.lock().unwrap() = Some(Box::new(move || {
        assert!(matches!(failed(other.execute(Cmd::push(1, 2))), Error::LockTimeout));
    }));
    tx.commit().unwrap();
    assert!(storage.asked.lock().unwrap().is_none());
    assert_eq!(state(&engine).at(1), [1]);
}

#[test]
fn every_bound_answers_and_the_engine_goes_on() {
    let disk = SimDisk::new(1);
    let options = manual().max_log_bytes(256 << 10).max_txn_undo_bytes(1000).max_txn_age(Duration::from_secs(1));
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    let ballast = |value| Cmd::Push { key: 1, value, pad: 4000 };
    // the bound of the log; nothing takes checkpoints here
    let mut n = 0;
    let error = loop {
        match engine.execute(ballast(n)) {
            Ok(_) => n += 1,
            error => break failed(error),
        }
        assert!(n < 1000);
    };
    assert!(error.is_full(), "{error:?}");
    // the log exceeds its bound by at most a segment, which is as large as the reserve with small
    // segments
    let log = engine.stats().log.unwrap();
    assert!(log.segment_bytes <= (256 + 80) << 10, "{log:?}");
    engine.checkpoint().unwrap();
    engine.checkpoint().unwrap();
    engine.execute(ballast(n)).unwrap();
    // the limits of a record, of a transaction's inverses, of a lock wait, and of a transaction's
    // age
    assert!(matches!(failed(engine.execute(Cmd::Push { key: 1, value: 0, pad: 40_000 })), Error::TooLarge { .. }));
    let tx = engine.begin().unwrap();
    let error = (0..1000).find_map(|n| tx.execute(Cmd::push(2, n)).err()).unwrap();
    assert!(matches!(error, ExecuteError::Failed(Error::TooLarge { limit: 1000, .. })), "{error:?}");
    assert!(matches!(failed(engine.execute(Cmd::push(2, 1))), Error::LockTimeout));
    disk.advance(Duration::from_secs(2));
    assert!(engine.step(Step::Expire).unwrap());
    assert!(matches!(failed(tx.execute(Cmd::push(3, 1))), Error::Expired));
    drop(tx);
    engine.execute(Cmd::push(2, 1)).unwrap();
    assert_eq!(state(&engine).at(2), [1]);
}

#[test]
fn what_waits_in_memory_stays_below_its_bound_though_nobody_waits_for_it() {
    let disk = SimDisk::new(2);
    let bound = 20 << 10;
    let options = manual().max_pending_bytes(bound).first_segment_bytes(1 << 20).segment_bytes(1 << 20);
    let (engine, _) = open_on::<Stacks>(&disk, &options.max_log_bytes(8 << 20)).unwrap();
    let mut appended = 0;
    for value in 0..100 {
        std::mem::drop(engine.submit_with(Cmd::Push { key: 1, value, pad: 3000 }, Durability::Os).unwrap());
        appended += 3000;
        let log = engine.stats().log.unwrap();
        assert!(appended <= (log.frames + 1) * (bound + 4000), "{appended} bytes, {log:?}");
    }
    assert!(engine.stats().log.unwrap().frames >= 100 * 3000 / (2 * bound));
}

#[test]
fn memory_that_cannot_be_had_is_an_error_and_no_abort() {
    assert!(AlignedBuf::with_capacity(usize::MAX / 2).is_err());
    assert!(AlignedBuf::zeroed(usize::MAX / 2).is_err());
    let mut buf = AlignedBuf::zeroed(100).unwrap();
    buf[99] = 7;
    assert!(buf.resize(usize::MAX / 2).is_err());
    assert_eq!((buf.len(), buf[99]), (100, 7));
}

#[test]
fn a_frame_that_finds_no_space_all_the_same_latches() {
    // after bytes that were only written, a frame goes through the page cache
    for (over_os, kind) in [(false, OpKind::WriteDurableAt), (true, OpKind::WriteAt), (true, OpKind::SyncData)] {
        let disk = SimDisk::new(3);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        if over_os {
            engine.execute_with(Cmd::push(2, 2), Durability::Os).unwrap();
        }
        disk.fail_next(kind, Fault::NoSpace, Persistence::Once);
        let error = failed(engine.execute(Cmd::push(1, 2)));
        assert!(error.is_latched() && error.is_out_of_space() && !error.is_full(), "{kind:?}: {error:?}");
        assert!(failed(engine.execute(Cmd::push(1, 3))).is_latched());
        let key = Footprint::key(Access::Shared, &[3]);
        assert!(engine.read_within(&key, ReadLevel::Hardened, |s| s.at(3)).unwrap().is_empty());
        drop(engine);
        let (engine, _) = open(&disk.crash(Crash::Nothing));
        assert_eq!(state(&engine).at(1)[0], 1);
    }
}

#[test]
fn a_sync_commit_covers_os_commits_before_it_also_in_other_segments() {
    for path in [WritePath::Direct, WritePath::BufferedSync] {
        for seed in 0..30 * scale() {
            let disk = SimDisk::builder().seed(seed).write_path(path).build();
            let (engine, _) = open(&disk);
            for value in 0..20 {
                engine.execute_with(Cmd::Push { key: 1, value, pad: 3000 }, Durability::Os).unwrap();
            }
            assert!(crate::common::names(&disk, ".seg").len() > 1);
            engine.execute(Cmd::push(2, 1)).unwrap();
            let wanted = state(&engine);
            engine.execute_with(Cmd::push(3, 1), Durability::Os).unwrap();
            std::mem::forget(engine);
            let crash = if seed % 2 == 0 { Crash::TornBlock(seed) } else { Crash::Seeded(seed) };
            let found = state(&open(&disk.crash(crash)).0);
            assert_eq!((found.at(1), found.at(2)), (wanted.at(1), wanted.at(2)), "{path:?}, {seed}");
        }
    }
}

#[test]
fn a_reader_flushes_what_nobody_waits_for_and_does_not_wait_for_what_nobody_will_sync() {
    let disk = SimDisk::new(4);
    let (engine, _) = open(&disk);
    let read = |key| engine.read_within(&Footprint::key(Access::Shared, &[key]), ReadLevel::Hardened, |s| s.at(key));
    // a ticket that is dropped at once
    drop(engine.submit(Cmd::push(1, 1)).unwrap());
    let before = engine.stats().log.unwrap().durable;
    assert_eq!(read(1).unwrap(), [1]);
    assert!(engine.stats().log.unwrap().durable > before);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1]);
    // a ticket that is leaked: the flusher's step syncs it
    std::mem::forget(engine.submit(Cmd::push(2, 2)).unwrap());
    assert!(engine.step(Step::Log(LogStep::Flush)).unwrap());
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(2), [2]);
    // no thread will sync this one; a reader does not wait for it, and does not sync it
    engine.execute_with(Cmd::push(3, 3), Durability::Os).unwrap();
    let log = engine.stats().log.unwrap();
    assert_eq!(read(3).unwrap(), [3]);
    assert_eq!(engine.stats().log.unwrap().durable, log.durable);
    assert!(state(&open(&disk.crash(Crash::Nothing)).0).at(3).is_empty());
}

#[test]
fn a_ticket_that_nobody_waits_for_is_flushed_by_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().background(Background::Threads);
    let engine = options.open::<Stacks>(dir.path()).unwrap();
    std::mem::forget(engine.submit(Cmd::push(1, 1)).unwrap());
    let log = Log::open_on(Arc::new(SimDisk::new(5)), LogOptions::default()).unwrap();
    std::mem::forget(log.append(b"record").unwrap());
    let end = engine.stats().log.unwrap().durable;
    for _ in 0..2000 {
        let durable = engine.stats().log.unwrap().durable > end || engine.stats().log.unwrap().frames > 0;
        if durable && log.stats().frames > 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("nobody flushes them");
}
