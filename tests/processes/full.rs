//! File systems that are really full: which operations fail, that the store opens, and that it
//! resumes.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Stacks, state};
use crate::mounts::{Ballast, Mount, make_image, privately};
use crate::workload::{Ended, LOSERS, Model, failed, options, perform};
use seawal::kv::Kv;
use seawal::{Engine, Error, ExecuteError, Options, Transaction};
use std::path::Path;
use std::time::{Duration, Instant};

/// The stacks of transactions that never commit.
const LOST: [u8; 3] = [LOSERS, LOSERS - 10, LOSERS - 11];

#[test]
fn a_full_file_system_refuses_without_harm_opens_again_and_again_and_resumes_when_there_is_space() {
    if let Some(lines) = privately("full") {
        assert!(lines.iter().any(|line| line.starts_with("full: tmpfs")), "{lines:?}");
    }
}

pub(crate) fn child_full() {
    let (dir, _) = started();
    let tmpfs = Mount::tmpfs(dir.join("tmpfs"), 4).unwrap();
    fill_and_resume("tmpfs", tmpfs.at());
    let images = Mount::tmpfs(dir.join("images"), 40).unwrap();
    // ext4 can reserve space, and ext2 cannot
    for kind in ["ext4", "ext2"] {
        let image = images.at().join(kind);
        if !make_image(&image, 12, kind, &[]) {
            tell(&format!("skipped: mkfs.{kind} is not there"));
            continue;
        }
        let Some(mount) = Mount::image(&image, dir.join(kind)) else {
            tell(&format!("skipped: no loop device for {kind}"));
            continue;
        };
        fill_and_resume(kind, mount.at());
        mount.unmount();
    }
}

/// A store and its expected content.
struct Store<'a> {
    dir: &'a Path,
    model: Model,
    next: u32,
    full: u32,
}

impl Store<'_> {
    /// Attempts transactions until one fails without space, at most `attempts`. The others are
    /// committed.
    fn commit_until_full(&mut self, engine: &Engine<Stacks>, attempts: u32) -> bool {
        for _ in 0..attempts {
            let n = self.next;
            self.next += 1;
            let ended = perform(engine, 0, n).and_then(|ended| match ended {
                Ended::Acknowledged => Ok(()),
                Ended::Promised(wait) => wait(),
            });
            match ended {
                Ok(()) => self.model.apply(n),
                Err(error) => {
                    assert!(matches!(error, Error::Full { source: Some(_), .. }), "{error:?}");
                    self.full += 1;
                    return true;
                }
            }
        }
        false
    }

    /// Checks that the state is exactly as expected.
    fn check(&mut self, engine: &Engine<Stacks>) {
        let found = state(engine);
        assert_eq!(self.model.catch_up(&found, &[], 0), 0);
        assert!(LOST.iter().all(|key| found.at(*key).is_empty()));
    }

    fn open(&mut self) -> Engine<Stacks> {
        let engine = options().open::<Stacks>(self.dir).unwrap();
        self.check(&engine);
        engine
    }
}

fn fill_and_resume(kind: &str, mount: &Path) {
    let dir = mount.join("store");
    let mut store = Store { dir: &dir, model: Model::new(0), next: 0, full: 0 };
    let engine = store.open();
    assert!(!store.commit_until_full(&engine, 60));
    engine.checkpoint().unwrap();
    assert!(!store.commit_until_full(&engine, 8));

    // others take what a checkpoint frees, until it cannot free any more
    let ballast = Ballast::load(mount, 0);
    let since = Instant::now();
    let error = loop {
        assert!(since.elapsed() < Duration::from_secs(60), "then the log has no more");
        if store.commit_until_full(&engine, 100)
            && let Err(error) = engine.checkpoint()
        {
            break error;
        }
        ballast.take_more();
    };
    assert!(error.is_out_of_space() && !error.is_latched(), "{error:?}");
    assert!(engine.stats().checkpoint_error.is_some());
    ballast.take_more();
    store.check(&engine);
    let loser = lose(&engine, LOSERS);
    store.check_beside_losers(&engine);
    drop(engine);
    drop(loser);

    for round in 0..3 {
        let engine = store.open();
        store.commit_until_full(&engine, 3);
        store.check(&engine);
        if round == 1 {
            let _ = engine.close();
        }
        drop(engine);
        let child = Running::start(command(&[], "losing", &dir, &[]));
        assert!(child.hears("losing"), "it opens");
        child.kill();
    }

    // space becomes free while the engine runs
    let engine = store.open();
    store.commit_until_full(&engine, 10_000);
    drop(ballast);
    let since = Instant::now();
    while store.commit_until_full(&engine, 1) {
        assert!(since.elapsed() < Duration::from_secs(5), "it resumes by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!store.commit_until_full(&engine, 60));
    engine.checkpoint().unwrap();
    store.check(&engine);
    engine.close().unwrap();
    drop(engine);
    store.open().close().unwrap();
    tell(&format!("full: {kind}, refused {}, committed {} in all", store.full, store.next - store.full));
}

impl Store<'_> {
    /// The same check while open transactions lock some of the keys.
    fn check_beside_losers(&mut self, engine: &Engine<Stacks>) {
        let found = engine.view().unwrap().into_inner();
        assert_eq!(self.model.catch_up(&found, &[], 0), 0);
        assert!(LOST.iter().all(|key| found.at(*key).is_empty()));
    }
}

/// Begins a transaction, fills it as far as there is room, and makes its records durable.
fn lose(engine: &Engine<Stacks>, key: u8) -> Transaction<Stacks> {
    let tx = engine.begin().unwrap();
    for n in 0..6 {
        match tx.execute(Cmd::Push { key, value: n, pad: 700 }).map_err(failed) {
            Ok(_) => {}
            Err(error) => assert!(error.is_full(), "{error:?}"),
        }
    }
    engine.sync().unwrap();
    tx
}

pub(crate) fn child_losing() {
    let (dir, _) = started();
    let engine: Engine<Stacks> = options().open(dir).unwrap();
    let _losers = LOST.map(|key| lose(&engine, key));
    tell("losing");
    std::thread::sleep(Duration::from_secs(60));
}

/// N1: a log without space made no checkpoint due, and no checkpoint gave up the log before the
/// first snapshot.
#[test]
fn a_full_file_system_heals_without_a_new_open_where_a_checkpoint_frees_space() {
    if let Some(lines) = privately("that_heals") {
        assert!(lines.iter().any(|line| line == "healed: tmpfs"), "{lines:?}");
    }
}

pub(crate) fn child_that_heals() {
    let (dir, _) = started();
    let tmpfs = Mount::tmpfs(dir.join("tmpfs"), 48).unwrap();
    heal("tmpfs", tmpfs.at());
    let images = Mount::tmpfs(dir.join("images"), 60).unwrap();
    let image = images.at().join("ext4");
    if !make_image(&image, 48, "ext4", &[]) {
        return tell("skipped: mkfs.ext4 is not there");
    }
    match Mount::image(&image, dir.join("ext4")) {
        Some(mount) => heal("ext4", mount.at()),
        None => tell("skipped: no loop device for ext4"),
    }
}

/// Overwrites 1 MB of data until the disk is full, and far beyond that.
fn heal(kind: &str, mount: &Path) {
    let options = Options::new().checkpoint_log_bytes(1 << 30);
    let engine: Engine<Kv> = options.open(mount.join("store")).unwrap();
    let (since, mut refused, mut ballast) = (Instant::now(), 0, None);
    let mut n = 0u32;
    while n < 8000 {
        match engine.insert(format!("{}", n % 100), vec![(n % 251) as u8; 10_000]) {
            Ok(_) => n += 1,
            Err(ExecuteError::Failed(error)) => {
                assert!(error.is_full(), "{error:?}");
                assert!(since.elapsed() < Duration::from_secs(60), "it heals: {n}, {refused}, {:?}", engine.stats());
                refused += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(ExecuteError::Rejected(rejection)) => panic!("{rejection}"),
        }
        if n == 2300 && ballast.is_none() {
            ballast = Some(Ballast::load(mount, 0));
        }
    }
    assert!(refused > 0 && engine.stats().checkpoints > 0, "the disk was full");
    drop(engine);
    let engine: Engine<Kv> = options.open(mount.join("store")).unwrap();
    assert_eq!(engine.read(Kv::len).unwrap(), 100);
    assert_eq!(engine.get("99").unwrap().as_deref(), Some(&[(7999 % 251) as u8; 10_000][..]));
    tell(&format!("healed: {kind}"));
}

/// S5: a limit of file sizes ended the process by a signal, or failed commits that smaller segments
/// could take.
#[test]
fn under_a_limit_of_file_sizes_a_store_keeps_its_files_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let options = Options::new().first_segment_bytes(4 << 20);
    let engine: Engine<Kv> = options.open(&store).unwrap();
    engine.insert("old", "1").unwrap();
    engine.close().unwrap();
    drop(engine);
    // in units of 512 bytes
    let wrapper = ["sh", "-c", "ulimit -f 600; exec \"$@\"", "sh"];
    let (status, lines) = Running::start(command(&wrapper, "with_small_files", &store, &[])).finish();
    assert!(status.success() && lines.iter().any(|line| line == "done"), "{status}: {lines:?}");
    let engine: Engine<Kv> = options.open(&store).unwrap();
    assert_eq!(engine.get("key").unwrap().as_deref(), Some(&b"goes on"[..]));
    assert_eq!(engine.read(Kv::len).unwrap(), 6);
    engine.checkpoint().unwrap();
}

pub(crate) fn child_with_small_files() {
    let (dir, _) = started();
    let engine: Engine<Kv> = Options::new().open(dir).unwrap();
    for n in 0..60 {
        engine.insert("key", vec![n; 30_000]).unwrap();
    }
    engine.checkpoint().unwrap();
    let error = engine.insert("key", vec![0; 400_000]).unwrap_err();
    assert!(matches!(error, ExecuteError::Failed(Error::TooLarge { .. })), "{error:?}");
    for n in 0..4 {
        engine.insert(format!("{n}"), vec![n; 90_000]).unwrap();
    }
    // the snapshot would be too large, and nothing that could be removed would help
    let before = engine.stats().log.unwrap().preallocated_bytes;
    let error = engine.checkpoint().unwrap_err();
    assert!(error.is_full() && error.to_string().contains("snapshot"), "{error:?}");
    assert!(engine.stats().log.unwrap().preallocated_bytes >= before);
    engine.insert("key", "goes on").unwrap();
    tell("done");
}
