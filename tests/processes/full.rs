//! File systems that are really full: which operations fail, that the store opens, and that it
//! resumes.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Stacks, state};
use crate::mounts::{Ballast, Mount, make_image, privately};
use crate::workload::{Ended, LOSERS, Model, failed, options, perform};
use seawal::{Engine, Error, Transaction};
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

    // no space for a snapshot, although there is some in the segment
    let ballast = Ballast::load(mount, 0);
    let error = engine.checkpoint().unwrap_err();
    assert!(error.is_out_of_space() && !error.is_latched(), "{error:?}");
    assert!(engine.stats().checkpoint_error.is_some());
    assert!(!store.commit_until_full(&engine, 2), "writes go on after a checkpoint that failed");
    assert!(store.commit_until_full(&engine, 10_000), "then the log has no more");
    store.check(&engine);
    assert!(engine.checkpoint().unwrap_err().is_out_of_space());
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
    let mut tx = engine.begin().unwrap();
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
