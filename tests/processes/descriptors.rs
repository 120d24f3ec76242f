//! What surrounds a process: its limits, its standard streams, and files that are none.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Stacks, skipped, state};
use crate::workload::options;
use seawal::{Engine, RecoveryPolicy, inspect};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FEW_DESCRIPTORS: [&str; 3] = ["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""];

fn open(dir: &Path) -> seawal::Result<Engine<Stacks>> {
    options().open(dir)
}

/// Restarts a store so many times, by drop and by close, with a commit each time, and then waits to
/// be killed.
pub(crate) fn child_restarts() {
    let (dir, numbers) = started();
    let [restarts] = *numbers else { panic!() };
    for n in 0..restarts {
        let engine = open(&dir).unwrap();
        if n % 2 == 0 {
            engine.execute(Cmd::push(1, 7)).unwrap();
        }
        if n % 9 == 8 {
            engine.close().unwrap();
        }
    }
    inspect::verify_machine::<Stacks>(inspect::storage(&dir).unwrap()).unwrap();
    let engine = open(&dir).unwrap();
    engine.execute(Cmd::push(2, 7)).unwrap();
    tell("committed");
    std::thread::park();
}

/// S1: hundreds of restarts under 64 descriptors.
#[test]
fn hundreds_of_restarts_under_64_descriptors_leave_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut killed = 0;
    for restarts in [120, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 120, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
        let child = Running::start(command(&FEW_DESCRIPTORS, "restarts", dir.path(), &[restarts]));
        assert!(child.hears("committed"), "restart by {restarts}, after {killed} kills");
        killed += 1;
        child.kill();
    }
    let files: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap()).collect();
    let bytes: u64 = files.iter().map(|file| file.len()).sum();
    assert!(files.len() <= 90 && bytes <= 8 << 20, "{bytes} bytes in {} files", files.len());
    let engine = open(dir.path()).unwrap();
    assert_eq!((state(&engine).at(1).len(), state(&engine).at(2).len()), (120, killed));
}

/// Prints while a store is open. The outcome goes to a file, for this process has no standard
/// streams.
pub(crate) fn child_without_streams() {
    use std::io::Write;
    let (dir, _) = started();
    let store = dir.join("store");
    let engine = open(&store).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    let links: Vec<PathBuf> = (0..3).filter_map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()).collect();
    for _ in 0..3 {
        let _ = std::io::stdout().write_all(&[b'x'; 4096]);
        let _ = std::io::stdout().flush();
        let _ = std::io::stderr().write_all(&[b'x'; 4096]);
        engine.execute(Cmd::push(1, 2)).unwrap();
    }
    drop(engine);
    std::fs::write(dir.join("links"), format!("{links:?}")).unwrap();
}

/// A store's files never have the descriptors of the standard streams.
///
/// Rust's runtime opens `/dev/null` in place of closed streams, as it learns by `poll`. Other
/// programs that use this crate do not, so strace keeps the runtime from noticing.
#[test]
fn a_store_never_takes_the_descriptors_of_closed_standard_streams() {
    if !Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skipped("strace is not there");
    }
    let dir = tempfile::tempdir().unwrap();
    let closing = "exec \"$0\" \"$@\" <&- >&- 2>&-";
    let wrapper = ["strace", "-f", "-o", "/dev/null", "-e", "trace=poll", "-e", "inject=poll:retval=0:when=1", "sh"];
    let wrapper: Vec<&str> = wrapper.into_iter().chain(["-c", closing]).collect();
    let mut child = command(&wrapper, "without_streams", dir.path(), &[]);
    let status = child.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    let Ok(links) = std::fs::read_to_string(dir.path().join("links")) else {
        return skipped(&format!("strace cannot trace here: {status}"));
    };
    assert!(!links.contains("store"), "standard streams lead into the store: {links}");
    let engine = open(&dir.path().join("store")).unwrap();
    assert_eq!(state(&engine).at(1), [1, 2, 2, 2]);
}

/// A closed store, and one file of each kind of it.
fn closed_store(dir: &Path) -> Vec<String> {
    for n in 0..2 {
        let engine = open(dir).unwrap();
        engine.execute(Cmd::push(1, n)).unwrap();
        engine.close().unwrap();
    }
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let last = |is: &dyn Fn(&str) -> bool| names.iter().rfind(|name| is(name)).unwrap().clone();
    vec![
        last(&|name| name.ends_with(".seg")),
        last(&|name| name.ends_with(".snap")),
        last(&|name| name.starts_with("MANIFEST")),
        last(&|name| name.starts_with("spare")),
    ]
}

/// A symbolic link in place of a file is followed.
#[test]
fn files_of_a_store_that_are_links_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, aside) = (dir.path().join("store"), dir.path().join("aside"));
    std::fs::create_dir(&aside).unwrap();
    for name in closed_store(&store) {
        std::fs::rename(store.join(&name), aside.join(&name)).unwrap();
        std::os::unix::fs::symlink(aside.join(&name), store.join(&name)).unwrap();
    }
    let report = inspect::verify_machine::<Stacks>(inspect::storage(&store).unwrap()).unwrap();
    assert_eq!(report.soundness(), inspect::Soundness::Clean, "{report}");
    let engine = open(&store).unwrap();
    assert_eq!(state(&engine).at(1), [0, 1]);
    engine.execute(Cmd::push(1, 2)).unwrap();
    drop(engine);
    assert_eq!(state(&open(&store).unwrap()).at(1), [0, 1, 2]);
}

/// What is no file under the name of one is named in an error, at once, and is not taken for a file
/// that is missing.
#[test]
fn directories_pipes_sockets_and_broken_links_under_the_names_of_files_are_named() {
    type Make = fn(&Path);
    let kinds: [(&str, Make); 4] = [
        ("a directory", |path| std::fs::create_dir(path).unwrap()),
        ("a FIFO", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a socket", |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("No such file", |path| std::os::unix::fs::symlink("/nothing/here", path).unwrap()),
    ];
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    for name in closed_store(&store) {
        for (kind, make) in kinds {
            let (path, aside) = (store.join(&name), dir.path().join("aside"));
            std::fs::rename(&path, &aside).unwrap();
            make(&path);
            let error = open(&store).err().unwrap_or_else(|| panic!("{name} as {kind}: it opens")).to_string();
            let says = error.contains(kind) || error.to_lowercase().contains("is a directory");
            assert!(error.contains(&name) && says, "{name} as {kind}: {error}");
            // a reader may not need the file; what it must not do is to wait
            let _ = options().recovery(RecoveryPolicy::ReadOnly).open::<Stacks>(&store);
            let _ = inspect::verify(inspect::storage(&store).unwrap());
            if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }.unwrap();
            std::fs::rename(&aside, &path).unwrap();
        }
    }
    assert_eq!(state(&open(&store).unwrap()).at(1), [0, 1]);
}
