//! The targets that need a disk: segments, snapshot files, and whole directories.

use crate::codecs::saved;
use crate::directory::{Directory, files_of};
use crate::names::{self, Name};
use seawal::fuzzing::{self, Machine};
use seawal::ids::Lsn;
use seawal::inspect::{self, Depth, Detail, Soundness, VerifyReport};
use seawal::io::{Create, Storage};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::{Crash, SimDisk};
use seawal::wal::{Log, LogOptions};
use seawal::{Background, Engine, Error, Options, RecoveryPolicy, Result};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn storage(disk: &SimDisk) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

/// Options with small segments, no threads and no waiting.
pub(crate) fn options() -> Options {
    Options::new()
        .background(Background::Manual)
        .lock_timeout(Duration::ZERO)
        .first_segment_bytes(16 << 10)
        .segment_bytes(32 << 10)
        .max_log_bytes(1 << 20)
        .checkpoint_log_bytes(1 << 30)
}

/// Asserts that an error is one of those that report damage.
#[track_caller]
pub(crate) fn is_typed(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Corrupt { .. }
                | Error::NotAStore { .. }
                | Error::OtherMachine { .. }
                | Error::UnsupportedVersion { .. }
                | Error::Unreadable { .. }
        ),
        "not an error for damage: {error:?}"
    );
    assert!(!error.to_string().is_empty());
}

/// The segments of a directory, as a log on its own.
pub fn scan(data: &[u8]) {
    let Some(directory) = Directory::read(data) else { return };
    let disk = directory.disk();
    let scan = match fuzzing::scan(storage(&disk), &directory.files) {
        Ok(Some(scan)) => scan,
        Ok(None) => return,
        Err(error) => return is_typed(&error),
    };
    if let Err(error) = &scan.outcome {
        is_typed(error);
    }
    assert_eq!(files_of(&disk), directory.files, "a scan writes nothing");
    if let Some(machine) = scan.machine {
        reopened(&disk, machine, scan.outcome.is_ok());
    }
}

/// Opens a log without an engine, appends to it, loses power, and opens it again.
fn reopened(disk: &SimDisk, machine: Machine, is_whole: bool) {
    let mut options = LogOptions::default();
    (options.name, options.version) = (machine.name, machine.version);
    (options.segment_bytes, options.first_segment_bytes) = (16 << 10, 16 << 10);
    options.background = Background::Manual;
    let before = files_of(disk);
    let log = match Log::open_on(storage(disk), options.clone()) {
        Ok(opened) => opened,
        Err(error) => {
            is_typed(&error);
            assert!(!is_whole || is_at_the_end_of_numbers(&error), "the scan succeeded, but opening failed: {error}");
            assert_eq!(files_of(disk), before, "what does not open is left as it was");
            return;
        }
    };
    let report = log.recovery_report().clone();
    assert!(is_whole, "the scan found damage, but opening succeeded");
    let read = |log: &Log, from: Lsn| log.read_from(from).map(|records| records.collect::<Result<Vec<_>>>());
    let found = match read(&log, report.start).unwrap() {
        Ok(found) => found,
        // the frames are intact, but the records in them are not
        Err(error) => return is_typed(&error),
    };
    log.append(b"one more").unwrap().wait().unwrap();
    drop(log);
    let log = Log::open_on(storage(&disk.crash(Crash::Nothing)), options).unwrap();
    let report = log.recovery_report().clone();
    let again = read(&log, report.start).unwrap().unwrap();
    let (last, rest) = again.split_last().unwrap();
    assert_eq!(rest, found, "what was there stays there");
    assert_eq!(last.1, b"one more");
}

/// Whether a number in the store is so high that it cannot be incremented.
fn is_at_the_end_of_numbers(error: &Error) -> bool {
    error.to_string().ends_with("is impossible")
}

/// Snapshot files, each on its own.
pub fn snapshot(data: &[u8]) {
    let Some(directory) = Directory::read(data) else { return };
    let disk = directory.disk();
    for name in directory.files.keys() {
        if let Name::Snapshot { lsn } = names::parse(name) {
            fuzzing::snapshot(&disk, &SimDisk::new(2), lsn).iter().for_each(is_typed);
        }
    }
    assert_eq!(files_of(&disk), directory.files, "reading writes nothing");
}

/// A whole directory: surveyed, verified, opened read-only, opened, and written to.
pub fn store(data: &[u8]) {
    if let Some(directory) = Directory::read(data) {
        check_directory(&directory.disk());
    }
}

/// Checks what must hold for any directory.
pub(crate) fn check_directory(disk: &SimDisk) {
    let before = files_of(disk);
    if let Err(error) = inspect::survey(storage(disk)) {
        is_typed(&error);
    }
    if let Err(error) = inspect::write_text(storage(disk), Detail::Records, &mut std::io::sink()) {
        is_typed(&error);
    }
    let verified = inspect::verify(storage(disk));
    let reader = options().recovery(RecoveryPolicy::ReadOnly).open_on::<Kv>(storage(disk));
    assert!(files_of(disk) == before, "inspecting writes nothing");
    agree(&verified, reader.as_ref().err());
    let seen = reader.map(|engine| state_of(&engine));
    match (&seen, options().create(Create::Never).open_on::<Kv>(storage(disk))) {
        (Ok(seen), Ok(engine)) => {
            assert!(state_of(&engine) == *seen, "an owner finds what a reader finds");
            let was_whole = verified.is_ok_and(|report| report.soundness() < Soundness::Degraded);
            goes_on(disk, engine, was_whole);
        }
        (seen, Err(error)) => {
            is_typed(&error);
            assert!(
                seen.is_err() || is_at_the_end_of_numbers(&error),
                "it opens read-only, but not for writing: {error}"
            );
            assert!(files_of(disk) == before, "what does not open is left as it was");
        }
        (Err(error), Ok(_)) => panic!("it opens for writing, but not read-only: {error}"),
    }
}

pub(crate) fn state_of(engine: &Engine<Kv>) -> Vec<u8> {
    engine.read(saved).unwrap()
}

/// Asserts that verifying and opening agree.
pub(crate) fn agree(verified: &Result<VerifyReport>, refused: Option<&Error>) {
    if let Some(error) = refused {
        is_typed(error);
    }
    let report = match verified {
        Ok(report) => report,
        Err(error) => {
            is_typed(error);
            // verifying cannot judge a snapshot of another version, which opening may not need
            let is_other_version = matches!(error, Error::UnsupportedVersion { .. });
            assert!(refused.is_some() || is_other_version, "it opens, but verifying fails: {error}");
            return;
        }
    };
    assert!(!report.to_string().is_empty());
    if report.depth == Depth::Frames {
        // a store of another machine: verifying judges only its frames, and opening refuses it
        return;
    }
    assert_eq!(report.open_error.is_some(), refused.is_some(), "verified: {report}\nopened: {refused:?}");
    let is_damaged = report.soundness() == Soundness::Damaged;
    // a store that opens may be damaged too: its snapshots may lead to different states
    assert!(refused.is_none() || is_damaged, "it does not open, but verifying reports: {report}");
}

/// Commits to an open store, loses power, and checks that the commit survived; then again after a
/// clean close.
fn goes_on(disk: &SimDisk, engine: Engine<Kv>, was_whole: bool) {
    engine.execute(KvCommand::put("", "fuzzing", "goes on")).unwrap();
    let expected = state_of(&engine);
    drop(engine);
    let disk = disk.crash(Crash::Nothing);
    let engine = options().create(Create::Never).open_on::<Kv>(storage(&disk)).unwrap();
    assert!(state_of(&engine) == expected, "what was committed survives");
    engine.checkpoint().unwrap();
    engine.close().unwrap();
    drop(engine);
    let report = inspect::verify(storage(&disk)).unwrap();
    assert!(!was_whole || report.soundness() < Soundness::Degraded, "it was whole: {report}");
    let engine = options().create(Create::Never).open_on::<Kv>(storage(&disk)).unwrap();
    assert!(state_of(&engine) == expected, "what was closed is there");
}
