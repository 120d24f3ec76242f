//! What the fuzzers begin with: inputs made of real stores, and of what is hostile in them.

use crate::directory::{Directory, Flags, files_of, write};
use crate::names::{self, Name};
use crate::store::{check_directory, options, storage};
use seawal::fuzzing::{self, Files};
use seawal::kv::{Kv, KvCommand};
use seawal::machine::StateMachine;
use seawal::sim::{Crash, SimDisk};
use seawal::wal::{Log, LogOptions};
use seawal::{Background, Engine};
use std::path::Path;

fn put(engine: &Engine<Kv>, number: u32, len: usize) {
    engine.execute(KvCommand::put("t", number.to_be_bytes(), vec![number as u8; len])).unwrap();
}

fn open(disk: &SimDisk) -> Engine<Kv> {
    options().open_on::<Kv>(storage(disk)).unwrap()
}

fn new_disk(block_bytes: u32) -> SimDisk {
    SimDisk::builder().seed(u64::from(block_bytes)).block_bytes(block_bytes).build()
}

/// A disk with every kind of record, losers, two epochs, snapshots with open transactions, and
/// several segments.
fn eventful(block_bytes: u32) -> SimDisk {
    let disk = new_disk(block_bytes);
    let engine = open(&disk);
    put(&engine, 1, 10);
    engine
        .execute(KvCommand::batch([
            KvCommand::put("", "a", "b"),
            KvCommand::compare_and_set("", "a", Some("b"), None::<&str>),
            KvCommand::delete("t", 1u32.to_be_bytes()),
        ]))
        .unwrap();
    let tx = engine.begin().unwrap();
    tx.insert("x", "1").unwrap();
    let savepoint = tx.savepoint().unwrap();
    tx.insert("y", "2").unwrap();
    tx.rollback_to(savepoint).unwrap();
    engine.checkpoint().unwrap();
    tx.insert("z", "3").unwrap();
    put(&engine, 2, 100);
    let disk = disk.crash(Crash::Everything);
    let engine = open(&disk);
    let tx = engine.begin().unwrap();
    tx.insert("u", "v").unwrap();
    engine.checkpoint().unwrap();
    let committed = engine.begin().unwrap();
    committed.insert("w", "1").unwrap();
    committed.insert("w", "2").unwrap();
    committed.commit().unwrap();
    put(&engine, 3, 1000);
    disk.crash(Crash::Everything)
}

fn without(mut files: Files, unwanted: impl Fn(&Name) -> bool) -> Files {
    files.retain(|name, _| !unwanted(&names::parse(name)));
    files
}

fn no_spares(disk: &SimDisk) -> Files {
    without(files_of(disk), |name| matches!(name, Name::Spare { .. } | Name::Lock))
}

/// Directories of stores: new, closed, killed, torn, and with parts missing.
fn directories() -> Vec<(String, Flags, Files)> {
    let mut all = Vec::new();
    for (block_bytes, flag) in [(512, 0), (4096, Flags::LARGE_BLOCKS)] {
        let mut add = |name: &str, files: Files| {
            let repaired = if name == "torn" { 0 } else { Flags::CHECKSUMS | Flags::CHAINS };
            let flags = Flags(flag | repaired);
            all.push((format!("{name}-{block_bytes}"), flags, files));
        };
        let disk = new_disk(block_bytes);
        let engine = open(&disk);
        add("new", files_of(&disk));
        put(&engine, 1, 40);
        add("one", no_spares(&disk.crash(Crash::Everything)));
        engine.close().unwrap();
        drop(engine);
        add("closed", no_spares(&disk));

        let disk = eventful(block_bytes);
        let files = no_spares(&disk);
        add("eventful", files.clone());
        add("no-manifest", without(files.clone(), |name| matches!(name, Name::Manifest(_))));
        add("no-snapshots", without(files.clone(), |name| matches!(name, Name::Snapshot { .. })));
        drop(open(&disk));
        add("recovered", no_spares(&disk));
        let newest = files.keys().rfind(|name| name.ends_with(".seg")).unwrap().clone();
        let mut torn = files.clone();
        let bytes = torn.get_mut(&newest).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last / 512 * 512..][..512].fill(0);
        add("torn", torn);
    }
    all
}

/// The segments of logs without an engine.
fn logs() -> Vec<(String, Files)> {
    let mut options = LogOptions::default();
    (options.segment_bytes, options.first_segment_bytes) = (16 << 10, 16 << 10);
    options.background = Background::Manual;
    let mut all = Vec::new();
    for (name, records, len) in [("few", 3, 20), ("long", 2, 3000), ("segments", 30, 600)] {
        let disk = new_disk(512);
        let log = Log::open_on(storage(&disk), options.clone()).unwrap();
        for number in 0..records {
            log.append(&vec![number; len]).unwrap().wait().unwrap();
        }
        let files = no_spares(&disk.crash(Crash::Everything));
        all.push((name.to_owned(), files.clone()));
        all.push((format!("{name}-alone"), without(files, |name| matches!(name, Name::Manifest(_)))));
    }
    all
}

fn frames(files: &Files) -> Vec<&[u8]> {
    let mut all = Vec::new();
    for bytes in files.iter().filter(|(name, _)| name.ends_with(".seg")).map(|(_, bytes)| bytes) {
        let mut at = 512;
        while let Some(total) = bytes.get(at..).and_then(fuzzing::frame_bytes) {
            let frame = &bytes[at..at + total as usize];
            let used = frame.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            all.push(&frame[..used]);
            at += total as usize;
        }
    }
    all
}

/// All seeds: target, name, input.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = Vec::new();
    let repaired = Flags::CHECKSUMS | Flags::CHAINS;
    for (name, flags, files) in directories() {
        all.push(("store", name.clone(), write(flags, &files)));
        let snapshots = without(files.clone(), |name| !matches!(name, Name::Snapshot { .. }));
        if name.contains("eventful") {
            all.push(("snapshot", name.clone(), write(flags, &snapshots)));
            all.push(("snapshot", format!("{name}-raw"), write(Flags(flags.0 & Flags::LARGE_BLOCKS), &snapshots)));
        }
        for (file, bytes) in files.iter().filter(|(file, _)| !file.starts_with("spare")) {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if name == "eventful-512" && file.starts_with("MANIFEST") {
                all.push(("manifest", file.to_lowercase(), [&[repaired][..], &bytes[..used]].concat()));
                all.push(("manifest", format!("{}-raw", file.to_lowercase()), [&[0][..], bytes].concat()));
            } else if name == "eventful-512" {
                all.push(("manifest", file.clone(), [&[repaired][..], &bytes[..used.min(512)]].concat()));
            }
        }
    }
    for (name, files) in logs() {
        all.push(("scan", name.clone(), write(Flags(repaired), &files)));
    }
    let files = no_spares(&eventful(512));
    all.push(("scan", "eventful".to_owned(), write(Flags(repaired), &files)));
    for (number, frame) in frames(&files).into_iter().enumerate() {
        all.push(("frame", format!("{number:02}"), [&[Flags::CHECKSUMS][..], frame].concat()));
        let records = &frame[fuzzing::FRAME_HEADER_BYTES..];
        if let Some((_, record)) = records.split_first() {
            let lsn = 8192u64.to_le_bytes();
            all.push(("record", format!("{number:02}"), [&lsn[..], record].concat()));
        }
    }
    for (number, command) in [
        KvCommand::put("table", "key", "value"),
        KvCommand::compare_and_set("", "k", Some("old"), None::<&str>),
        KvCommand::batch([KvCommand::batch([KvCommand::delete("t", "")]), KvCommand::put("", "", "")]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut bytes = [&8192u64.to_le_bytes()[..], &[5, 1]].concat();
        Kv::encode(&command, &mut bytes);
        all.push(("record", format!("command-{number}"), bytes));
    }
    for (name, script) in [
        ("plain", &b"put\ta\tb\ndel\ta\ncommit\tlabel\nput\tk\tv\ncommit\n"[..]),
        ("escapes", b"put\t\\x00\\t\\n\\\\\t\xff\xc3\xbc\ncommit"),
        ("unfinished", b"put\ta\tb\ncommit\ndel\ta\n"),
    ] {
        all.push(("script", name.to_owned(), script.to_vec()));
    }
    let mut state = 1u64;
    for number in 0..24u32 {
        let mut bytes = Vec::new();
        while bytes.len() < 64 << (number % 5) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push((state >> 56) as u8);
        }
        all.push(("history", format!("random-{number:02}"), bytes));
    }
    all
}

#[test]
#[ignore = "writes the seeds into fuzz/corpus; run it after a format has changed"]
fn write_the_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, name, input) in seeds() {
        let dir = root.join(target);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("seed-{name}")), input).unwrap();
    }
}

#[test]
fn a_directory_comes_back_from_its_input() {
    for (name, flags, files) in directories() {
        let raw = Flags(flags.0 & Flags::LARGE_BLOCKS);
        assert!(Directory::read(&write(raw, &files)).unwrap().files == files, "{name}");
        // repairing does not change what is intact
        let repaired = Directory::read(&write(flags, &files)).unwrap().files;
        for (file, bytes) in &files {
            let at = bytes.iter().zip(&repaired[file]).position(|(a, b)| a != b);
            let is_stale = name.starts_with("recovered") && at.is_some_and(|at| at >= 8192);
            assert!(name.starts_with("torn") || is_stale || at.is_none(), "{name}: {file} is changed at {at:?}");
        }
    }
}

/// Sets every number in every header to its extremes, under correct checksums.
#[test]
fn numbers_at_their_extremes_are_refused_or_lived_with() {
    let mut failed = Vec::new();
    let extremes = [0, 511, 1 << 40, u64::MAX - 511];
    for (name, flags, files) in directories().into_iter().filter(|(name, ..)| name.ends_with("-512")) {
        if !["eventful-512", "no-manifest-512"].contains(&&name[..]) {
            continue;
        }
        for (file, bytes) in &files {
            let places: Vec<usize> = match names::parse(file) {
                Name::Manifest(_) => (16..=88).step_by(8).collect(),
                Name::Segment { .. } => (16..=80).step_by(8).chain((512 + 16..=512 + 56).step_by(8)).collect(),
                Name::Snapshot { .. } => (16..=48).step_by(8).chain((512..=512 + 32).step_by(8)).collect(),
                _ => continue,
            };
            for at in places {
                for extreme in extremes {
                    let mut files = files.clone();
                    if let Some(room) = bytes.len().checked_sub(at).map(|room| room.min(8)) {
                        files.get_mut(file).unwrap()[at..at + room].copy_from_slice(&extreme.to_le_bytes()[..room]);
                    }
                    let directory = Directory::read(&write(flags, &files)).unwrap();
                    let checked = std::panic::catch_unwind(|| check_directory(&directory.disk()));
                    if checked.is_err() {
                        failed.push(format!("{name}: {file} with {extreme:#x} at {at}"));
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
