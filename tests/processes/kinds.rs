//! What is no plain file under each name that a store uses: links, directories, FIFOs, sockets and
//! device nodes. A call follows it or names it in an error. It never waits for it, never takes it
//! for a missing file, and never deletes it.

use crate::common::{Cmd, Stacks, state};
use crate::workload::options;
use seawal::inspect::{self, Detail};
use seawal::io::{Create, DiskStorage};
use seawal::salvage::{Reach, salvage};
use seawal::{Background, Engine, Error, Options, RecoveryPolicy};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// The longest that one call may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Directory,
    FullDirectory,
    /// A link to the file that had the name, or to a file of the user.
    Link,
    Dangling,
    Loop,
    LinkToDirectory,
    LinkToFifo,
    Fifo,
    Socket,
    Device,
}

const KINDS: [Kind; 10] = [
    Kind::Directory,
    Kind::FullDirectory,
    Kind::Link,
    Kind::Dangling,
    Kind::Loop,
    Kind::LinkToDirectory,
    Kind::LinkToFifo,
    Kind::Fifo,
    Kind::Socket,
    Kind::Device,
];

impl Kind {
    /// Puts one there. `aside` is where another file may be. `None` if this user may not make one.
    fn make(self, path: &Path, aside: &Path) -> Option<()> {
        match self {
            Kind::Directory => fs::create_dir(path).unwrap(),
            Kind::FullDirectory => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("mine"), "mine").unwrap();
            }
            Kind::Link => {
                if !aside.exists() {
                    fs::write(aside, "mine").unwrap();
                }
                symlink(aside, path).unwrap();
            }
            Kind::Dangling => symlink("/nothing/here", path).unwrap(),
            Kind::Loop => symlink(path, path).unwrap(),
            Kind::LinkToDirectory => {
                fs::create_dir(aside.with_extension("dir")).unwrap();
                symlink(aside.with_extension("dir"), path).unwrap();
            }
            Kind::LinkToFifo => {
                fifo(&aside.with_extension("fifo"));
                symlink(aside.with_extension("fifo"), path).unwrap();
            }
            Kind::Fifo => fifo(path),
            Kind::Socket => drop(UnixListener::bind(path).unwrap()),
            Kind::Device => {
                let made = Command::new("mknod").arg(path).args(["c", "1", "3"]).status().unwrap();
                return made.success().then_some(());
            }
        }
        Some(())
    }

    /// Whether it stands for a file that a store may use.
    fn is_followed(self) -> bool {
        self == Kind::Link
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Identifies what has a name, and not what it leads to.
fn identity(path: &Path) -> Option<(u64, u32, bool)> {
    let about = fs::symlink_metadata(path).ok()?;
    Some((about.ino(), about.mode(), about.file_type().is_fifo()))
}

/// A store that was closed, with two snapshots, and open-ended options that make no threads.
fn template(dir: &Path) {
    for n in 0..3 {
        let engine = options().open::<Stacks>(dir).unwrap();
        engine.execute(Cmd::push(1, n)).unwrap();
        engine.checkpoint().unwrap();
        engine.execute(Cmd::push(2, n)).unwrap();
        engine.close().unwrap();
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

fn manual() -> Options {
    options().background(Background::Manual)
}

type Call = fn(&Path, &Path) -> seawal::Result<()>;

fn expected(engine: &Engine<Stacks>) {
    let state = state(engine);
    assert_eq!((state.at(1), state.at(2)), (vec![0, 1, 2], vec![0, 1, 2]));
}

/// Each call gets the store's directory, and one where it may put something.
const CALLS: [(&str, Call); 10] = [
    ("open read-only", |dir, _| {
        let engine = options().recovery(RecoveryPolicy::ReadOnly).open::<Stacks>(dir)?;
        expected(&engine);
        engine.close()
    }),
    ("back up the state", |dir, to| {
        let engine = options().recovery(RecoveryPolicy::ReadOnly).open::<Stacks>(dir)?;
        engine.backup_to(to)
    }),
    ("verify", |dir, _| {
        let report = inspect::verify(inspect::storage(dir)?)?;
        report.open_error.map_or(Ok(()), Err)
    }),
    ("verify by replay", |dir, _| {
        let report = inspect::verify_machine::<Stacks>(inspect::storage(dir)?)?;
        report.open_error.map_or(Ok(()), Err)
    }),
    ("inspect", |dir, _| {
        let damage = inspect::write_text(inspect::storage(dir)?, Detail::Records, &mut Vec::new())?;
        damage.map_or(Ok(()), Err)
    }),
    ("survey", |dir, _| inspect::survey(inspect::storage(dir)?).map(drop)),
    ("back up the files", |dir, to| {
        inspect::backup(inspect::storage(dir)?, Arc::new(DiskStorage::open(to, Create::IfMissing).unwrap()))?;
        expected(&options().open::<Stacks>(to)?);
        Ok(())
    }),
    ("salvage", |dir, to| {
        let target = Arc::new(DiskStorage::open(to, Create::IfMissing).unwrap());
        salvage::<Stacks>(inspect::storage(dir)?, target, Reach::Proven).map(drop)
    }),
    ("open", |dir, _| {
        let engine = options().open::<Stacks>(dir)?;
        expected(&engine);
        engine.execute(Cmd::push(3, 1)).unwrap();
        engine.close()
    }),
    ("open and checkpoint", |dir, _| {
        let engine = manual().open::<Stacks>(dir)?;
        expected(&engine);
        engine.execute(Cmd::push(3, 1)).unwrap();
        engine.checkpoint()?;
        engine.close()
    }),
];

/// The calls that write to the store's directory.
const WRITERS: [&str; 2] = ["open", "open and checkpoint"];

/// A copy of a store in which something else has the name of a file.
struct Placed {
    place: PathBuf,
    dir: PathBuf,
    /// Where the file is that had the name.
    aside: PathBuf,
    before: Option<(u64, u32, bool)>,
}

impl Placed {
    fn make(whole: &Path, root: &Path, number: usize, name: &str, kind: Kind) -> Option<Placed> {
        let place = root.join(number.to_string());
        fs::create_dir(&place).unwrap();
        let (dir, aside) = (place.join("store"), place.join("aside"));
        copy(whole, &dir);
        let path = dir.join(name);
        if path.exists() {
            fs::rename(&path, &aside).unwrap();
        }
        kind.make(&path, &aside)?;
        let before = identity(&path);
        Some(Placed { place, dir, aside, before })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// The outcome of a call that ends in time and without a panic.
fn run(what: &str, call: impl FnOnce() -> seawal::Result<()> + Send + 'static) -> Result<(), Error> {
    let (done, outcome) = channel();
    thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        let _ = done.send(result.map_err(|_| ()));
    });
    let outcome = outcome.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: it hangs"));
    outcome.unwrap_or_else(|()| panic!("{what}: it panics"))
}

/// Checks an error: it names the file, and does not say that there is nothing.
fn check_error(what: &str, name: &str, error: &Error, failures: &mut Vec<String>) {
    let text = error.to_string();
    if matches!(error, Error::NotAStore { .. } | Error::Poisoned | Error::Internal { .. }) || !text.contains(name) {
        failures.push(format!("{what}: {text}"));
    }
}

#[test]
fn what_is_no_file_under_the_name_of_one_is_followed_or_named_by_every_call() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("template");
    template(&whole);
    let present = names(&whole);
    let last = |end: &str| present.iter().rfind(|name| name.ends_with(end)).unwrap().clone();
    let first = |end: &str| present.iter().find(|name| name.ends_with(end)).unwrap().clone();
    let spare = present.iter().find(|name| name.starts_with("spare")).unwrap().clone();
    let temporary = |name: &str| format!("{name}.tmp");
    let all = [
        "LOCK".to_owned(),
        "MANIFEST-0".to_owned(),
        "MANIFEST-1".to_owned(),
        last(".seg"),
        first(".seg"),
        last(".snap"),
        first(".snap"),
        spare,
        "spare-00000099".to_owned(),
        temporary("MANIFEST-0"),
        temporary("MANIFEST-1"),
        temporary("spare-00000099"),
        temporary(&last(".seg")),
        temporary(&last(".snap")),
    ];
    let mut failures = Vec::new();
    let mut number = 0;
    for name in &all {
        for kind in KINDS {
            // the calls that only read share a directory
            let mut shared = None;
            for (call_name, call) in CALLS {
                number += 1;
                let reads = !WRITERS.contains(&call_name);
                let made =
                    shared.take().filter(|_| reads).or_else(|| Placed::make(&whole, root.path(), number, name, kind));
                let Some(placed) = made else { continue };
                let what = format!("{name} as {kind:?}: {call_name}");
                let Placed { place, dir, aside, before, .. } = &placed;
                let (path, to, users) = (dir.join(name), place.join(call_name), fs::read(aside).ok());
                let outcome = run(&what, {
                    let dir = dir.clone();
                    move || call(&dir, &to)
                });
                if let Err(error) = &outcome {
                    check_error(&what, name, error, &mut failures);
                    if kind.is_followed() && !name.ends_with(".tmp") && present.contains(name) {
                        failures.push(format!("{what}: it is not followed: {error}"));
                    }
                }
                // the next owner of the directory puts a lock file in the place of anything else
                let may_go = !reads && (name == "LOCK" || kind.is_followed());
                if identity(&path) != *before && !may_go {
                    failures.push(format!("{what}: it was replaced or removed; {outcome:?}"));
                }
                let is_users = !present.contains(name) || name == "LOCK";
                if is_users && fs::read(aside).ok() != users {
                    failures.push(format!("{what}: the file that it leads to was changed"));
                }
                shared = reads.then_some(placed);
            }
        }
    }
    assert!(failures.is_empty(), "{} of {number}:\n{}", failures.len(), failures.join("\n"));
}

/// Commits, takes a checkpoint and closes.
fn work(engine: &Engine<Stacks>) -> Vec<seawal::Result<()>> {
    let mut outcomes = Vec::new();
    for n in 0..2 {
        let pushed = engine.execute(Cmd::Push { key: 4, value: n, pad: 40_000 });
        outcomes.push(pushed.map(drop).map_err(|error| match error {
            seawal::ExecuteError::Failed(error) => error,
            seawal::ExecuteError::Rejected(_) => panic!("{error:?}"),
        }));
        outcomes.push(engine.checkpoint());
    }
    outcomes.push(engine.close());
    outcomes
}

#[test]
fn what_is_no_file_under_a_name_that_an_open_store_takes_next_is_named_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("template");
    template(&whole);
    let open = |dir: &Path| manual().open::<Stacks>(dir).unwrap();
    // the names that the same work takes in a copy
    let trial = root.path().join("trial");
    copy(&whole, &trial);
    let engine = open(&trial);
    let before = names(&trial);
    let mut taken = BTreeSet::new();
    for outcome in work(&engine) {
        outcome.unwrap();
    }
    drop(engine);
    taken.extend(names(&trial).difference(&before).cloned());
    assert!(taken.iter().any(|name| name.ends_with(".snap")) && taken.iter().any(|name| name.ends_with(".seg")));
    let temporary: Vec<_> = taken.iter().map(|name| format!("{name}.tmp")).collect();
    taken.extend(temporary);
    let mut failures = Vec::new();
    for (number, name) in taken.iter().enumerate() {
        for kind in KINDS {
            let place = root.path().join(format!("{number} {kind:?}"));
            fs::create_dir(&place).unwrap();
            let (dir, aside): (PathBuf, PathBuf) = (place.join("store"), place.join("aside"));
            copy(&whole, &dir);
            let engine = open(&dir);
            let path = dir.join(name);
            if kind.make(&path, &aside).is_none() {
                continue;
            }
            let before = identity(&path);
            let what = format!("{name} as {kind:?}");
            let (sent, outcomes) = channel();
            let ran = run(&what, move || {
                sent.send(work(&engine)).unwrap();
                Ok(())
            });
            ran.unwrap();
            for error in outcomes.recv().unwrap().iter().filter_map(|outcome| outcome.as_ref().err()) {
                check_error(&what, name, error, &mut failures);
            }
            if identity(&path) != before && !kind.is_followed() {
                failures.push(format!("{what}: it was replaced or removed"));
            }
            if kind.is_followed() && fs::read(&aside).unwrap() != b"mine" {
                failures.push(format!("{what}: the file that it leads to was changed"));
            }
            fs::remove_dir_all(&place).unwrap();
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_is_no_directory_in_the_place_of_a_store_is_named_by_every_call() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("template");
    template(&whole);
    let mut failures = Vec::new();
    let mut number = 0;
    let others = [Kind::Dangling, Kind::Loop, Kind::LinkToFifo, Kind::Fifo, Kind::Socket, Kind::Device, Kind::Link];
    for kind in others {
        for (call_name, call) in CALLS {
            number += 1;
            let place = root.path().join(number.to_string());
            fs::create_dir(&place).unwrap();
            let (dir, aside, to) = (place.join("named"), place.join("aside"), place.join("to"));
            if kind.make(&dir, &aside).is_none() {
                continue;
            }
            let before = identity(&dir);
            let what = format!("the directory as {kind:?}: {call_name}");
            let ran = run(&what, {
                let (dir, to) = (dir.clone(), to.clone());
                move || call(&dir, &to)
            });
            match ran {
                Err(error) if error.to_string().contains("named") && !matches!(error, Error::NotAStore { .. }) => {}
                other => failures.push(format!("{what}: {other:?}")),
            }
            if identity(&dir) != before {
                failures.push(format!("{what}: it was replaced or removed"));
            }
        }
    }
    for (call_name, call) in CALLS {
        let place = root.path().join(call_name);
        fs::create_dir(&place).unwrap();
        copy(&whole, &place.join("store"));
        symlink(place.join("store"), place.join("link")).unwrap();
        run(call_name, move || call(&place.join("link"), &place.join("to"))).unwrap();
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}
