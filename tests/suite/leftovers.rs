//! Unfinished files that a failed attempt could not remove either: the next attempt replaces them.

use crate::common::{Cmd, Stacks, manual, names, open, open_on, state};
use seawal::Step;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::LogStep;

/// Makes the next operation of this kind fail, and the removal of its unfinished file too.
fn fail_and_leave(disk: &SimDisk, kind: OpKind, fault: Fault) {
    disk.fail_next(kind, fault, Persistence::Once);
    disk.fail_next(OpKind::Remove, Fault::Eio, Persistence::Once);
}

fn leftovers(disk: &SimDisk) -> Vec<String> {
    names(disk, ".tmp")
}

#[test]
fn a_snapshot_that_was_left_unfinished_is_written_anew() {
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    fail_and_leave(&disk, OpKind::SyncAll, Fault::Eio);
    engine.checkpoint().unwrap_err();
    let [left] = &leftovers(&disk)[..] else { panic!("{:?}", disk.file_names()) };
    // as if the unfinished file had been longer
    disk.overwrite(left, 0, &[7; 9000]).unwrap();
    engine.checkpoint().unwrap();
    assert!(leftovers(&disk).is_empty(), "{:?}", disk.file_names());
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!((state(&engine).at(1), report.records), (vec![1], 0), "from the snapshot: {report:?}");
    assert!(report.snapshot.is_some());
}

#[test]
fn a_segment_that_was_left_unfinished_is_written_anew() {
    let disk = SimDisk::new(2);
    let (engine, _) = open(&disk);
    let mut wanted = Vec::new();
    for fault in [OpKind::Allocate, OpKind::Rename] {
        // until a segment is used up and the next one is needed
        let mut left = false;
        for n in 0..100 {
            engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).unwrap();
            wanted.push(n);
            fail_and_leave(&disk, fault, Fault::Eio);
            left = engine.step(Step::Log(LogStep::PrepareSegment)).is_err();
            disk.clear_faults();
            if left {
                break;
            }
        }
        assert!(left && leftovers(&disk).len() == 1, "{:?}", disk.file_names());
        assert!(engine.step(Step::Log(LogStep::PrepareSegment)).unwrap());
        assert!(leftovers(&disk).is_empty(), "{:?}", disk.file_names());
    }
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), wanted);
}

#[test]
fn a_copy_of_the_manifest_that_was_left_unfinished_is_written_anew() {
    for missing in ["MANIFEST-0", "MANIFEST-1"] {
        let disk = SimDisk::new(3);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        drop(engine);
        let disk = disk.crash(Crash::Nothing);
        disk.remove_file(missing).unwrap();
        // The copy is the first write of an open. Without space, the open continues with the other
        // copy.
        fail_and_leave(&disk, OpKind::WriteAt, Fault::NoSpace);
        let (engine, _) = open(&disk);
        for n in 2..4 {
            engine.execute(Cmd::push(1, n)).unwrap();
            engine.checkpoint().unwrap();
        }
        assert!(disk.read_file(missing).is_ok() && leftovers(&disk).is_empty(), "{missing}: {:?}", disk.file_names());
        let disk = disk.crash(Crash::Nothing);
        let (engine, report) = open(&disk);
        assert_eq!(state(&engine).at(1), [1, 2, 3], "{report:?}");
        drop(engine);
        // any other failure is returned, and changes nothing
        let disk = disk.crash(Crash::Nothing);
        disk.remove_file(missing).unwrap();
        disk.fail_next(OpKind::WriteAt, Fault::Eio, Persistence::Once);
        let error = open_on::<Stacks>(&disk, &manual()).map(|_| ()).unwrap_err();
        assert!(!error.is_corrupt() && !error.is_full(), "{error:?}");
        assert_eq!(state(&open(&disk).0).at(1), [1, 2, 3]);
    }
}

/// The kernel lists an unlinked file that is still open under its old path, with a suffix.
#[cfg(target_os = "linux")]
#[test]
fn a_removed_snapshot_is_closed_by_the_maintenance_thread_and_by_a_close() {
    use seawal::kv::{Kv, KvCommand};
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};
    let dir = tempfile::tempdir().unwrap();
    let within = dir.path().canonicalize().unwrap();
    // a file may have two descriptors, one of them for direct I/O
    let removed_and_open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        let removed = |path: &PathBuf| path.to_string_lossy().ends_with(".snap (deleted)");
        links.filter(|path| path.starts_with(&within) && removed(path)).collect::<BTreeSet<_>>().len()
    };
    let options = seawal::Options::new().checkpoint_bytes_per_second(None);
    let engine: seawal::Engine<Kv> = options.open(dir.path()).unwrap();
    for n in 0..5u8 {
        engine.execute(KvCommand::put("", [n], [n])).unwrap();
        engine.checkpoint().unwrap();
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
        let snapshots = files.filter(|name| name.to_str().unwrap().ends_with(".snap")).count();
        assert_eq!(snapshots, usize::from(n + 1).min(2));
        assert!(removed_and_open() <= 1);
    }
    let began = Instant::now();
    while removed_and_open() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the maintenance thread closes it");
        std::thread::sleep(Duration::from_millis(5));
    }
    engine.execute(KvCommand::put("", "one", "more")).unwrap();
    engine.checkpoint().unwrap();
    engine.close().unwrap();
    assert_eq!(removed_and_open(), 0, "the engine is still there");
}
