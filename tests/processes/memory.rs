//! The peak memory of a process that opens and uses a store with [`Options::small_memory`].

use crate::child::{Running, command, started, tell};
use seawal::kv::{Kv, KvCommand};
use seawal::{Durability, Options};
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What the preset promises beside the state.
const BOUND: u64 = 16 * MIB;
/// The state: values of 1 KiB, so that a tree of them takes little more.
const ENTRIES: u64 = 12 << 10;
const VALUE_BYTES: usize = 1 << 10;
/// What the state takes in memory, with the tree's own overhead of a fifth.
const STATE: u64 = ENTRIES * VALUE_BYTES as u64 / 5 * 6;

fn key(n: u64) -> [u8; 8] {
    (n * 7919 % ENTRIES).to_be_bytes()
}

/// A number of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap();
    kib << 10
}

/// The peak of a step, in bytes above the memory that the program itself takes.
fn peak(own: u64, step: impl FnOnce()) -> String {
    // resets the peak to the present memory
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    step();
    status("VmHWM").saturating_sub(own).to_string()
}

/// The child measures an open, commits, and a checkpoint.
pub(crate) fn child_with_little_memory() {
    let (dir, numbers) = started();
    let options = if numbers == [1] { Options::small_memory() } else { Options::new() };
    let own = status("VmRSS");
    let mut store = None;
    tell(&format!("open {}", peak(own, || store = Some(options.open::<Kv>(&dir).unwrap()))));
    let store = store.unwrap();
    let commits = || {
        for n in 0..4 * ENTRIES {
            let durability = Durability::Interval(Duration::from_millis(20));
            store.execute_with(KvCommand::put("", key(n), vec![n as u8; VALUE_BYTES]), durability).unwrap();
        }
    };
    tell(&format!("commits {}", peak(own, commits)));
    tell(&format!("checkpoint {}", peak(own, || store.checkpoint().unwrap())));
    tell(&format!("close {}", peak(own, || store.close().unwrap())));
}

/// The peaks of the child's steps, in bytes.
fn peaks(dir: &Path, is_small: bool) -> Vec<(String, u64)> {
    let child = Running::start(command(&[], "with_little_memory", dir, &[u64::from(is_small)]));
    let (status, lines) = child.finish();
    assert!(status.success(), "{status}: {lines:?}");
    let parsed = |line: &String| {
        let (step, bytes) = line.split_once(' ').unwrap();
        (step.to_owned(), bytes.parse().unwrap())
    };
    lines.iter().map(parsed).collect()
}

/// A store with a snapshot of the whole state and as much log after it, as the default settings
/// write it. Its process ends without a close.
fn store_to_recover(dir: &Path) {
    let store = Options::new().durability(Durability::Os).open::<Kv>(dir).unwrap();
    let fill = || (0..ENTRIES).for_each(|n| drop(store.insert(key(n), vec![n as u8; VALUE_BYTES]).unwrap()));
    fill();
    store.checkpoint().unwrap();
    fill();
    store.sync().unwrap();
    let copy = dir.with_file_name("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "LOCK") {
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_store_with_the_preset_for_small_memory_opens_commits_and_checkpoints_in_16_mib_beside_its_state() {
    let dir = tempfile::tempdir().unwrap();
    store_to_recover(&dir.path().join("store"));
    for is_small in [false, true] {
        let copy = dir.path().join(format!("copy-{is_small}"));
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(dir.path().join("copy")).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let peaks = peaks(&copy, is_small);
        println!("small: {is_small}, state {STATE}: {peaks:?}");
        let within = |(_, bytes): &(String, u64)| *bytes <= STATE + BOUND;
        assert_eq!(peaks.len(), 4);
        // the default settings show that the measurement tells them apart
        assert_eq!(peaks.iter().all(within), is_small, "{peaks:?}");
    }
}
