//! File systems that cannot be written or synced, and users that are not the owner.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Stacks, skipped, state};
use crate::mounts::{Mount, privately};
use seawal::inspect::{self, Detail, Soundness};
use seawal::io::{Create, DiskStorage};
use seawal::salvage::{Reach, salvage};
use seawal::{Engine, Options, RecoveryPolicy};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn make_store(dir: &Path) {
    let engine = Engine::<Stacks>::open(dir).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    engine.execute(Cmd::push(1, 2)).unwrap();
    // as after a kill: there is something to redo
    std::mem::forget(engine);
}

/// Reads a store in every way that writes nothing.
fn read_in_every_way(kind: &str, dir: &Path, elsewhere: &Path) {
    let engine = Options::new().recovery(RecoveryPolicy::ReadOnly).open::<Stacks>(dir).unwrap();
    assert_eq!(state(&engine).at(1), [1, 2], "{kind}");
    let warnings = &engine.recovery_report().warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("sync for directories")), "{kind}: {warnings:?}");
    engine.backup_to(elsewhere.join(format!("backup-{kind}"))).unwrap();
    let storage = || inspect::storage(dir).unwrap();
    let report = inspect::verify_machine::<Stacks>(storage()).unwrap();
    assert!(report.soundness() < Soundness::Degraded, "{kind}: {report}");
    inspect::survey(storage()).unwrap();
    inspect::write_text(storage(), Detail::Records, &mut Vec::new()).unwrap();
    let target = DiskStorage::open(elsewhere.join(format!("salvaged-{kind}")), Create::IfMissing).unwrap();
    salvage::<Stacks>(storage(), Arc::new(target), Reach::Proven).unwrap();
    let error = Engine::<Stacks>::open(dir).map(drop).unwrap_err().to_string();
    assert!(error.contains("ead-only"), "{kind}: {error}");
    tell(&format!("read: {kind}"));
}

/// S8: everything that only reads works where nothing can be written.
#[test]
fn a_store_on_read_only_media_can_be_read_in_every_way() {
    if let Some(lines) = privately("read_only_media") {
        assert!(lines.iter().any(|line| line == "read: tmpfs"), "{lines:?}");
    }
}

pub(crate) fn child_read_only_media() {
    let (dir, _) = started();
    let child = |store: &Path| {
        let (status, _) = Running::start(command(&[], "that_is_killed", store, &[])).finish();
        assert!(!status.success());
    };
    let elsewhere = Mount::tmpfs(dir.join("elsewhere"), 40).unwrap();
    let tmpfs = Mount::tmpfs(dir.join("tmpfs"), 20).unwrap();
    child(&tmpfs.at().join("store"));
    child(&elsewhere.at().join("image/store"));
    let at = tmpfs.at().to_str().unwrap();
    assert!(run("mount", &["-o", "remount,ro", at]));
    read_in_every_way("tmpfs", &tmpfs.at().join("store"), elsewhere.at());

    let image = elsewhere.at().join("squashfs");
    let (from, to) = (elsewhere.at().join("image"), dir.join("squashfs"));
    std::fs::create_dir(&to).unwrap();
    if !run("mksquashfs", &[from.to_str().unwrap(), image.to_str().unwrap(), "-quiet"]) {
        return tell("skipped: mksquashfs is not there");
    }
    if !run("mount", &["-o", "loop,ro", "-t", "squashfs", image.to_str().unwrap(), to.to_str().unwrap()]) {
        return tell("skipped: no loop device for squashfs");
    }
    read_in_every_way("squashfs", &to.join("store"), elsewhere.at());
    run("umount", &["-l", to.to_str().unwrap()]);
}

/// Leaves a store behind as a kill does.
pub(crate) fn child_that_is_killed() {
    let (dir, _) = started();
    make_store(&dir);
    std::process::abort();
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

pub(crate) fn child_without_directory_sync() {
    let (dir, numbers) = started();
    let policy = if numbers == [1] { RecoveryPolicy::ReadOnly } else { RecoveryPolicy::Strict };
    let engine = match Options::new().recovery(policy).open::<Stacks>(&dir) {
        Ok(engine) => engine,
        Err(error) => return tell(&format!("refused: {error}")),
    };
    if policy == RecoveryPolicy::Strict {
        engine.execute(Cmd::push(1, 3)).unwrap();
        engine.checkpoint().unwrap();
    }
    let warnings = engine.recovery_report().warnings.join("; ");
    tell(&format!("opened: {warnings}"));
}

/// S8: a directory without sync is warned of. A sync that fails is an error.
#[test]
fn a_directory_that_has_no_sync_is_a_warning_and_one_that_fails_to_sync_is_not() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    drop(Engine::<Stacks>::open(&store).unwrap());
    if !run("strace", &["-o", "/dev/null", "true"]) {
        return skipped("strace does not work here");
    }
    let (above, at) = (root.path().to_str().unwrap(), store.to_str().unwrap());
    for (error, read_only) in [("EINVAL", 0), ("EOPNOTSUPP", 0), ("EBADF", 0), ("EINVAL", 1), ("EIO", 0), ("EIO", 1)] {
        let inject = format!("inject=fsync:error={error}");
        // by the paths of descriptors: files in the directory are not hit
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", above, "-P", at, "-e", &inject];
        let child = command(&strace, "without_directory_sync", &store, &[read_only]);
        let (_, lines) = Running::start(child).finish();
        let line = lines.first().unwrap_or_else(|| panic!("{error}"));
        match error {
            "EIO" => assert!(line.starts_with("refused") && line.contains("os error 5"), "{line}"),
            _ => assert!(line.starts_with("opened") && line.contains("no sync for directories"), "{error}: {line}"),
        }
    }
}

/// Opens, commits and closes as a user that is not root.
pub(crate) fn child_of_another_user() {
    let (dir, _) = started();
    let engine = Engine::<Stacks>::open(&dir).unwrap();
    engine.execute(Cmd::push(1, 3)).unwrap();
    engine.close().unwrap();
    tell("closed");
}

/// The user, and the group, of another service.
const USER: u32 = 65534;

/// What has another owner than the user of [`USER`], in a directory and below.
fn not_the_users(dir: &Path, found: &mut Vec<String>) {
    for entry in dir.read_dir().unwrap().map(Result::unwrap) {
        let about = entry.metadata().unwrap();
        if (about.uid(), about.gid()) != (USER, USER) {
            found.push(format!("{} of {}:{}", entry.path().display(), about.uid(), about.gid()));
        }
        if about.is_dir() {
            not_the_users(&entry.path(), found);
        }
    }
}

/// S9: root writes stores, backups and salvaged stores below another user's directory, and that
/// user can open them.
#[test]
fn a_store_that_root_creates_below_another_users_directory_is_that_users() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home");
    std::fs::create_dir(&home).unwrap();
    if std::os::unix::fs::chown(&home, Some(USER), Some(USER)).is_err() {
        return skipped("only root can give files away");
    }
    let store = home.join("above/store");
    let engine = Engine::<Stacks>::open(&store).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    engine.backup_to(home.join("backup")).unwrap();
    engine.close().unwrap();
    let target = |name: &str| Arc::new(DiskStorage::open(home.join(name), Create::IfMissing).unwrap());
    inspect::backup(inspect::storage(&store).unwrap(), target("copies/files")).unwrap();
    salvage::<Stacks>(inspect::storage(&store).unwrap(), target("salvaged"), Reach::Proven).unwrap();
    let mut found = Vec::new();
    not_the_users(&home, &mut found);
    assert!(found.is_empty(), "{found:?}");
    let mode = |path: &str| std::fs::metadata(home.join(path)).unwrap().mode() & 0o777;
    std::fs::create_dir(root.path().join("ordinary")).unwrap();
    for (above, store) in [("above", "above/store"), ("copies", "copies/files"), ("../ordinary", "salvaged")] {
        assert_eq!((mode(above), mode(store)), (mode("../ordinary"), 0o700), "{store}");
    }
}

/// S9: what root does to a store of another user leaves every file to that user.
#[test]
fn a_command_of_root_does_not_lock_the_stores_user_out() {
    let root = tempfile::tempdir().unwrap();
    if std::fs::metadata(root.path()).unwrap().uid() != 0 {
        return skipped("only root can give files away");
    }
    let dir = root.path().join("store");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).unwrap();
    if std::os::unix::fs::chown(&dir, Some(USER), Some(USER)).is_err() {
        return skipped("this root cannot give files away");
    }
    let engine = Engine::<Stacks>::open(&dir).unwrap();
    for value in 1..=2 {
        engine.execute(Cmd::push(1, value)).unwrap();
        engine.checkpoint().unwrap();
    }
    engine.close().unwrap();
    let mut names = Vec::new();
    for entry in dir.read_dir().unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (USER, USER, 0o640), "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    assert!(names.iter().any(|name| name == "LOCK") && names.iter().any(|name| name.ends_with(".snap")), "{names:?}");
    // the user runs a copy of this program, which may lie where that user cannot go
    let program = root.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = command(&[], "of_another_user", &dir, &[]);
    let mut copy = Command::new(program);
    copy.args(child.get_args()).envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    child = copy;
    child.uid(USER).gid(USER).current_dir("/");
    let (status, lines) = Running::start(child).finish();
    assert!(status.success() && lines == ["closed"], "{status}, {lines:?}");
    assert_eq!(state(&Engine::open(&dir).unwrap()).at(1), [1, 2, 3]);
}
