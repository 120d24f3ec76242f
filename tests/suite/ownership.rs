//! Owners of a directory: a second one is refused, and the first one notices that it has lost it.

use crate::common::{Cmd, Stacks, files, manual, open, state};
use seawal::io::{Create, Directory, DiskStorage, LockMode, OpenMode};
use seawal::sim::{Crash, SimDisk};
use seawal::wal::{Log, LogOptions};
use seawal::{Background, Durability, Engine, Error, ExecuteError, Options, RecoveryPolicy};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than an owner may go on acknowledging after it has lost its directory.
const BOUND: Duration = Duration::from_secs(5);

/// Commits until that fails. Returns the error, and how long it took.
fn until_refused(engine: &Engine<Stacks>, durability: Durability) -> (Error, Duration) {
    let began = Instant::now();
    loop {
        match engine.execute_with(Cmd::push(1, 1), durability) {
            Ok(_) => assert!(began.elapsed() < 4 * BOUND, "commits are still acknowledged"),
            Err(ExecuteError::Failed(error)) => return (error, began.elapsed()),
            Err(ExecuteError::Rejected(empty)) => panic!("{empty}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// S6: a clean-up that removes `LOCK` neither lets a second owner in nor stops the first one.
#[test]
fn a_removed_lock_file_lets_no_second_owner_in() {
    let root = tempfile::tempdir().unwrap();
    let (dir, link) = (root.path().join("store"), root.path().join("link"));
    let engine = Engine::<Stacks>::open(&dir).unwrap();
    symlink(&dir, &link).unwrap();
    fs::remove_file(dir.join("LOCK")).unwrap();
    for path in [&dir, &link] {
        assert!(Engine::<Stacks>::open(path).map(drop).unwrap_err().is_locked());
        let reader = Options::new().recovery(RecoveryPolicy::ReadOnly).open::<Stacks>(path);
        assert!(reader.map(drop).unwrap_err().is_locked());
    }
    engine.execute(Cmd::push(1, 1)).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    engine.execute(Cmd::push(1, 2)).unwrap();
    engine.checkpoint().unwrap();
    engine.close().unwrap();
    assert_eq!(state(&Engine::open(&link).unwrap()).at(1), [1, 2]);
}

/// S6: an owner that has lost its directory stops within a bounded time, at each durability, and
/// says why.
#[test]
fn an_owner_that_lost_its_directory_stops_acknowledging() {
    type Loss = fn(&Path, &Path);
    let losses: [(&str, Loss); 6] = [
        ("LOCK was replaced", |dir, _| {
            fs::remove_file(dir.join("LOCK")).unwrap();
            fs::write(dir.join("LOCK"), "").unwrap();
        }),
        ("LOCK was replaced", |dir, aside| {
            fs::remove_file(dir.join("LOCK")).unwrap();
            symlink(aside, dir.join("LOCK")).unwrap();
        }),
        ("another directory has taken its place", |dir, aside| {
            fs::rename(dir, aside).unwrap();
            fs::create_dir(dir).unwrap();
        }),
        ("another directory has taken its place", |dir, aside| {
            fs::rename(dir, aside).unwrap();
            drop(Engine::<Stacks>::open(dir).unwrap());
        }),
        ("the directory was removed", |dir, _| fs::remove_dir_all(dir).unwrap()),
        ("another program removed it", |dir, _| {
            for entry in dir.read_dir().unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }),
    ];
    let durability = [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_millis(5))];
    std::thread::scope(|scope| {
        for (n, (reason, lose)) in losses.into_iter().enumerate() {
            scope.spawn(move || {
                let root = tempfile::tempdir().unwrap();
                let (dir, aside) = (root.path().join("store"), root.path().join("aside"));
                let engine = Engine::<Stacks>::open(&dir).unwrap();
                engine.execute(Cmd::push(1, 1)).unwrap();
                lose(&dir, &aside);
                let (error, took) = until_refused(&engine, durability[n % durability.len()]);
                assert!(error.is_latched() && error.to_string().contains(reason), "{error}");
                assert!(took < BOUND, "{took:?}");
                assert!(engine.close().unwrap_err().is_latched());
            });
        }
    });
}

/// S6: nothing that would harm the next owner waits for the next regular check.
#[test]
fn an_owner_checks_before_it_rotates_checkpoints_or_closes() {
    for act in ["checkpoint", "rotate", "close"] {
        let disk = SimDisk::new(1);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        disk.void_locks();
        engine.execute(Cmd::push(1, 2)).unwrap();
        let before = files(&disk);
        let error = match act {
            "checkpoint" => engine.checkpoint().unwrap_err(),
            "rotate" => until_refused(&engine, Durability::Sync).0,
            _ => engine.close().unwrap_err(),
        };
        assert!(error.is_latched() && error.to_string().contains("replaced"), "{act}: {error}");
        let kept = |name: &str| name.starts_with("MANIFEST") || name.ends_with(".snap");
        let kept = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
            files.iter().filter(|(name, _)| kept(name)).map(|(n, b)| (n.clone(), b.clone())).collect::<Vec<_>>()
        };
        assert_eq!(kept(&files(&disk)), kept(&before), "{act}");
        drop(engine);
        let (next, _) = open(&disk.crash(Crash::Nothing));
        assert!(state(&next).at(1).starts_with(&[1, 2]), "{act}");
    }
}

/// S6: the bound holds by the storage's clock, and an owner that has lost nothing goes on.
#[test]
fn commits_check_the_ownership_once_per_second() {
    let disk = SimDisk::new(1);
    let engine = manual().open_on::<Stacks>(Arc::new(disk.clone())).unwrap();
    for n in 0..10 {
        disk.advance(Duration::from_secs(1));
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    disk.void_locks();
    disk.advance(Duration::from_secs(1));
    let (error, _) = until_refused(&engine, Durability::Sync);
    assert!(error.is_latched(), "{error}");
    assert_eq!(state(&open(&disk.crash(Crash::Everything)).0).at(1).len(), 10, "none that was refused");
}

/// S7: an open waits for as long as it may, and not longer.
#[test]
fn an_open_waits_for_the_owner_or_the_readers_to_end() {
    let dir = tempfile::tempdir().unwrap();
    for wait in [Duration::ZERO, Duration::from_millis(50)] {
        let owner = Engine::<Stacks>::open(dir.path()).unwrap();
        let began = Instant::now();
        let error = Options::new().lock_wait(wait).open::<Stacks>(dir.path()).map(drop).unwrap_err();
        assert!(error.is_locked() && began.elapsed() >= wait, "{error}");
        assert!(error.to_string().contains("lock_wait") && error.to_string().contains("this one"), "{error}");
        owner.close().unwrap();
    }
    for mode in [LockMode::Exclusive, LockMode::Shared] {
        let disk = DiskStorage::open(dir.path(), Create::Never).unwrap();
        let held = disk.lock(mode).unwrap();
        let (policy, background) = (RecoveryPolicy::Strict, Background::Manual);
        let options = Options::new().recovery(policy).background(background).lock_wait(Duration::from_secs(60));
        let path = dir.path().to_owned();
        let waiting = std::thread::spawn(move || options.open::<Stacks>(path).unwrap().close().unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        drop(held);
        waiting.join().unwrap();
    }
}

/// S7: the wait is measured by the storage's clock, and a log on its own waits too.
#[test]
fn a_wait_for_the_lock_ends_by_the_clock_of_the_storage() {
    let disk = SimDisk::new(1);
    let held = disk.lock(LockMode::Exclusive).unwrap();
    let (clock, opened) = (disk.clone(), disk.clone());
    let jump = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        clock.advance(Duration::from_secs(3600));
    });
    let mut options = LogOptions::default();
    options.background = Background::Manual;
    options.lock_wait = Duration::from_secs(3600);
    let error = Log::open_on(Arc::new(opened.clone()), options.clone()).map(drop).unwrap_err();
    assert!(error.is_locked(), "{error}");
    jump.join().unwrap();
    let waiting = std::thread::spawn(move || Log::open_on(Arc::new(opened), options).map(drop));
    std::thread::sleep(Duration::from_millis(50));
    drop(held);
    waiting.join().unwrap().unwrap();
}

/// S6: a publication counts only in the files that the next open reads, on either disk.
#[test]
fn a_manifest_that_was_moved_away_or_replaced_stops_its_owner() {
    for name in ["MANIFEST-0", "MANIFEST-1"] {
        for replaced in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("store");
            let engine = Engine::<Stacks>::open(&dir).unwrap();
            engine.execute(Cmd::push(1, 1)).unwrap();
            fs::rename(dir.join(name), root.path().join("aside")).unwrap();
            if replaced {
                fs::copy(root.path().join("aside"), dir.join(name)).unwrap();
            }
            let error = engine.checkpoint().unwrap_err();
            assert!(error.is_latched() && error.to_string().contains(name), "{error}");
            assert!(engine.close().unwrap_err().is_latched());
            drop(engine);
            assert_eq!(state(&Engine::open(&dir).unwrap()).at(1), [1], "{name}, {replaced}");

            let disk = SimDisk::new(1);
            let (engine, _) = open(&disk);
            engine.execute(Cmd::push(1, 1)).unwrap();
            let held = disk.read_file(name).unwrap();
            disk.remove(name).unwrap();
            if replaced {
                let other = disk.open(name, OpenMode::CreateNew).unwrap();
                other.write_at(&held, 0).unwrap();
            }
            let error = until_refused(&engine, Durability::Sync).0;
            assert!(error.is_latched() && error.to_string().contains(name), "a rotation: {error}");
        }
    }
}
