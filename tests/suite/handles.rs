//! Handles that are leaked, dropped or opened twice, tickets that nobody waits for, and groups
//! whose leader fails.

use crate::common::{Cmd, Stacks, manual, open, open_on, state};
use seawal::io::{Clock, Directory, DirectoryLock, File, LockMode, OpenMode, WritePath};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::{Background, Durability, Engine, Error, ExecuteError, Options};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Wake};
use std::thread;
use std::time::Duration;

fn crashes() -> impl Iterator<Item = Crash> {
    let seeded = (0..20).flat_map(|seed| [Crash::Seeded(seed), Crash::TornBlock(seed)]);
    [Crash::Nothing, Crash::Everything, Crash::KillOnly].into_iter().chain(seeded)
}

#[test]
fn a_second_handle_in_one_process_is_refused_until_every_clone_of_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::<Stacks>::open(dir.path()).unwrap();
    let is_locked = || matches!(Engine::<Stacks>::open(dir.path()), Err(Error::Locked { .. }));
    assert!(is_locked());
    engine.execute(Cmd::push(1, 1)).unwrap();
    let clone = engine.clone();
    drop(engine);
    assert!(is_locked());
    clone.execute(Cmd::push(1, 2)).unwrap();
    drop(clone);
    let engine = Engine::<Stacks>::open(dir.path()).unwrap();
    assert_eq!(state(&engine).at(1), [1, 2]);
    engine.close().unwrap();
    // a close is enough, even while handles are left
    assert_eq!(state(&Engine::<Stacks>::open(dir.path()).unwrap()).at(1), [1, 2]);
}

#[test]
fn leaked_handles_tickets_and_transactions_take_nothing_that_was_acknowledged_with_them() {
    let disk = SimDisk::new(7);
    let (engine, _) = open(&disk);
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 1)).unwrap();
    for n in 0..5 {
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    for n in 5..10 {
        std::mem::forget(engine.submit(Cmd::push(1, n)).unwrap());
    }
    tx.execute(Cmd::push(2, 2)).unwrap();
    std::mem::forget((tx, engine));
    for crash in crashes() {
        let (engine, report) = open(&disk.crash(crash));
        let left = state(&engine);
        let expected: Vec<u32> = (0..10).collect();
        assert!(left.at(1).len() >= 5 && expected.starts_with(&left.at(1)), "{crash:?}: {left:?}, {report:?}");
        assert!(left.at(2).is_empty(), "{crash:?}: {left:?}, {report:?}");
    }
}

/// The body of the process that the next test starts.
fn end_with_tickets_outstanding(dir: &Path) -> ! {
    let engine = Engine::<Stacks>::open(dir).unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 1)).unwrap();
    for n in 0..5 {
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    let tickets: Vec<_> = (5..50).map(|n| engine.submit(Cmd::push(1, n)).unwrap()).collect();
    std::mem::forget((tx, tickets, engine));
    std::process::exit(0);
}

#[test]
fn a_process_that_ends_with_tickets_outstanding_leaves_a_whole_store() {
    const DIR: &str = "SEAWAL_TEST_ENDS_IN";
    if let Some(dir) = std::env::var_os(DIR) {
        end_with_tickets_outstanding(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "handles::a_process_that_ends_with_tickets_outstanding_leaves_a_whole_store"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let engine = Options::new().open::<Stacks>(dir.path()).unwrap();
    let report = engine.recovery_report().clone();
    let left = state(&engine);
    let expected: Vec<u32> = (0..50).collect();
    assert!(left.at(1).len() >= 5 && expected.starts_with(&left.at(1)), "{left:?}, {report:?}");
    assert!(left.at(2).is_empty(), "{left:?}, {report:?}");
}

#[test]
fn a_reader_flushes_what_it_saw_where_the_ticket_for_it_is_gone() {
    let disk = SimDisk::new(3);
    let (engine, _) = open(&disk);
    drop(engine.submit(Cmd::push(1, 7)).unwrap());
    assert_eq!(state(&engine).at(1), [7]);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [7]);
}

#[test]
fn a_reader_of_what_nobody_will_sync_does_not_wait_for_that() {
    let disk = SimDisk::new(3);
    let (engine, _) = open(&disk);
    drop(engine.submit_with(Cmd::push(1, 7), Durability::Os).unwrap());
    for sync in [OpKind::SyncData, OpKind::SyncAll, OpKind::WriteDurableAt] {
        disk.fail_next(sync, Fault::Eio, Persistence::ForEver);
    }
    assert_eq!(state(&engine).at(1), [7]);
    assert_eq!(engine.view().unwrap().at(1), [7]);
    disk.clear_faults();
    assert_eq!(state(&open(&disk.crash(Crash::KillOnly)).0).at(1), [7]);
}

#[test]
fn a_ticket_of_a_log_that_failed_is_done() {
    let disk = SimDisk::new(3);
    let (engine, _) = open(&disk);
    let first = engine.submit(Cmd::push(1, 1)).unwrap();
    let second = engine.submit(Cmd::push(1, 2)).unwrap();
    assert!(!first.is_done() && !second.is_done());
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
    assert!(first.wait().unwrap_err().is_latched());
    assert!(second.is_done());
    assert!(second.wait().unwrap_err().is_latched());
}

/// A waker that reads the log's stats on another thread. Waking it under a lock of the log would
/// deadlock.
struct Asker {
    engine: Engine<Stacks>,
    answered: mpsc::Sender<bool>,
}

impl Wake for Asker {
    fn wake(self: Arc<Self>) {
        let (done, is_done) = mpsc::channel();
        let engine = self.engine.clone();
        thread::spawn(move || {
            engine.stats();
            let _ = done.send(());
        });
        let _ = self.answered.send(is_done.recv_timeout(Duration::from_secs(5)).is_ok());
    }
}

#[test]
fn a_waker_that_is_told_of_a_failure_runs_under_no_lock_of_the_log() {
    let disk = SimDisk::builder().seed(3).write_path(WritePath::BufferedSync).build();
    let (engine, _) = open(&disk);
    let (answered, answer) = mpsc::channel();
    let waker = Arc::new(Asker { engine: engine.clone(), answered }).into();
    // a commit with `Os` first, so that the next one is synced under the writer's lock
    engine.execute_with(Cmd::push(1, 0), Durability::Os).unwrap();
    let mut ticket = Box::pin(engine.submit(Cmd::push(1, 1)).unwrap());
    assert!(ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    disk.fail_next(OpKind::SyncData, Fault::Eio, Persistence::Once);
    let result = engine.execute(Cmd::push(1, 2));
    assert!(matches!(result, Err(ExecuteError::Failed(error)) if error.is_latched()));
    assert!(answer.recv().unwrap(), "the figures could not be had while it ran");
}

/// A disk on which a durable write panics once the flag is set.
#[derive(Clone)]
struct Explosive(SimDisk, Arc<AtomicBool>);

struct ExplosiveFile(Arc<dyn File>, Arc<AtomicBool>);

impl Directory for Explosive {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(ExplosiveFile(self.0.open(name, mode)?, self.1.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        self.0.lock(mode)
    }

    fn block_bytes(&self) -> u32 {
        self.0.block_bytes()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

impl Clock for Explosive {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn wall_clock_micros(&self) -> u64 {
        self.0.wall_clock_micros()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }
}

impl File for ExplosiveFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_device_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buf, offset)
    }
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        assert!(!self.1.load(Ordering::Acquire), "as asked");
        self.0.write_durable_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn write_path(&self) -> WritePath {
        self.0.write_path()
    }
}

#[test]
fn a_leader_that_dies_in_the_middle_leaves_nobody_of_its_group_waiting() {
    let disk = Explosive(SimDisk::new(5), Arc::default());
    let options = manual().background(Background::Threads).lock_timeout(Duration::from_secs(5));
    let engine = options.open_on::<Stacks>(Arc::new(disk.clone())).unwrap();
    let start = Barrier::new(9);
    let acknowledged: usize = thread::scope(|scope| {
        let committers: Vec<_> = (0..8u8)
            .map(|key| {
                let (engine, start) = (&engine, &start);
                scope.spawn(move || {
                    start.wait();
                    let acknowledged = |n| {
                        // the leader panics; the panic is caught here, as a server would do
                        let commit = || engine.execute(Cmd::push(key, n));
                        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(commit)) {
                            Ok(Ok(_)) => true,
                            Ok(Err(ExecuteError::Failed(error))) if error.is_latched() => false,
                            Ok(Err(error)) => panic!("{error}"),
                            Err(_) => false,
                        }
                    };
                    (0..10_000).take_while(|n| acknowledged(*n)).count()
                })
            })
            .collect();
        start.wait();
        thread::sleep(Duration::from_millis(20));
        disk.1.store(true, Ordering::Release);
        let counts: Vec<_> = committers.into_iter().map(|committer| committer.join().unwrap()).collect();
        disk.1.store(false, Ordering::Release);
        let (after, report) = open_on::<Stacks>(&disk.0.crash(Crash::Nothing), &manual()).unwrap();
        for (key, count) in (0..8).zip(&counts) {
            assert!(state(&after).at(key).len() >= *count, "{report:?}");
        }
        counts.iter().sum()
    });
    assert!(acknowledged > 0);
}
