//! The targets that need a disk: the scan of segments, snapshot files, and whole directories.

use super::codecs::saved;
use super::directory::{Directory, Files, files_of};
use crate::Engine;
use crate::error::{Error, Result};
use crate::format::frame::{self, Place};
use crate::ids::{Lsn, MachineTag};
use crate::inspect::{self, Depth, Detail, Soundness, VerifyReport};
use crate::io::sync::Arc;
use crate::io::{Create, Storage};
use crate::kv::{Kv, KvCommand};
use crate::options::Options;
use crate::options::RecoveryPolicy;
use crate::options::{Background, LogOptions};
use crate::sim::{Crash, SimDisk};
use crate::store::layout as names;
use crate::store::layout::FileName;
use crate::store::open_dir::{Access, StoreDir};
use crate::wal::Log;
use crate::wal::scan::{Scanner, oldest_usable, records_of};
use std::time::Duration;

pub(super) fn storage(disk: &SimDisk) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

/// Small segments, no threads, no waiting.
pub(super) fn options() -> Options {
    Options::new()
        .background(Background::Manual)
        .lock_timeout(Duration::ZERO)
        .first_segment_bytes(16 << 10)
        .segment_bytes(32 << 10)
        .max_log_bytes(1 << 20)
        .checkpoint_log_bytes(1 << 30)
}

/// What damage may be told as: an error that says what is wrong, not one that says only that something went wrong.
#[track_caller]
pub(super) fn is_typed(error: &Error) {
    assert!(
        matches!(error, Error::Corrupt { .. } | Error::NotAStore { .. } | Error::UnsupportedVersion { .. }),
        "not an answer to damage: {error:?}"
    );
    assert!(!error.to_string().is_empty());
}

/// One frame as a scan gives it: where it begins and ends, and its records.
type Scanned = (Lsn, Lsn, Vec<(Lsn, Vec<u8>)>);

fn scanned(store_dir: &StoreDir, start: Lsn) -> Result<(Vec<Scanned>, Lsn)> {
    let mut scanner = Scanner::new(store_dir, start)?;
    let ahead = scanner.bytes_ahead();
    let mut frames = Vec::new();
    let mut read = 0;
    while let Some(chunk) = scanner.next_chunk()? {
        for frame in chunk.frames() {
            let records = frame.records().map_while(|record| record.ok().map(|(lsn, bytes)| (lsn, bytes.to_vec())));
            frames.push((frame.header.lsn, frame.end(), records.collect()));
        }
        let _ = records_of(&chunk).count();
        read += chunk.bytes();
        scanner.reuse(chunk);
    }
    assert!(read <= ahead, "{read} bytes of {ahead}");
    Ok((frames, scanner.take_end()?.end))
}

/// The frames that stand at the front of the only segment of a directory, read without a scanner.
fn read_plainly(files: &Files, store_dir: &StoreDir) -> Vec<(Lsn, Lsn)> {
    let [segment] = store_dir.segments.as_slice() else { return Vec::new() };
    let bytes = &files[&segment.name];
    let (header, checksum) = crate::format::segment::SegmentHeader::decode(bytes).unwrap();
    let mut frames = Vec::new();
    let (mut at, mut previous) = (header.block_bytes as usize, checksum);
    let end = usize::try_from(header.file_bytes).unwrap();
    loop {
        let lsn = header.base.plus(at as u64 - u64::from(header.block_bytes));
        let place = Place { store: header.store, epoch: header.epoch, lsn, block_bytes: header.block_bytes };
        match frame::check(&bytes[at.min(end)..end], &place) {
            Ok(frame) if frame.header.previous_checksum == previous => {
                frames.push((lsn, lsn.plus(frame.total_bytes)));
                previous = frame.checksum;
                at += frame.total_bytes as usize;
            }
            _ => return frames,
        }
    }
}

/// The segments of a directory, as a log on its own.
pub fn scan(data: &[u8]) {
    let Some(directory) = Directory::read(data) else { return };
    let disk = directory.disk();
    let store_dir = match StoreDir::new(storage(&disk), Access::ReadOnly) {
        Ok(store_dir) => store_dir,
        Err(error) => return is_typed(&error),
    };
    let start = match (&store_dir.manifest, oldest_usable(&store_dir)) {
        (Some(manifest), _) => manifest.log_start,
        (None, Ok(Some(oldest))) => oldest.header.base,
        (None, Ok(None)) => return,
        (None, Err(error)) => return is_typed(&error),
    };
    let machine = store_dir.manifest.as_ref().map(|manifest| manifest.machine.clone());
    let machine = machine.or_else(|| oldest_usable(&store_dir).ok().flatten().map(|oldest| oldest.header.machine));
    let first = scanned(&store_dir, start);
    match &first {
        Ok((frames, end)) => {
            for (before, after) in frames.iter().zip(frames.iter().skip(1)) {
                assert!(before.1 <= after.0, "frames follow one another");
            }
            assert!(frames.iter().all(|frame| frame.1 <= *end && frame.0 < frame.1));
            if store_dir.segments.first().is_some_and(|segment| segment.base == start) && store_dir.segments.len() == 1
            {
                let plain = read_plainly(&directory.files, &store_dir);
                assert_eq!(frames.iter().map(|frame| (frame.0, frame.1)).collect::<Vec<_>>(), plain);
            }
        }
        Err(error) => is_typed(error),
    }
    drop(store_dir);
    assert_eq!(files_of(&disk), directory.files, "a scan writes nothing");
    if let Some(machine) = machine {
        reopened(&disk, &machine, first.is_ok());
    }
}

/// Opens a log on its own, appends to it, loses power, and opens it again.
fn reopened(disk: &SimDisk, machine: &MachineTag, is_whole: bool) {
    let mut options = LogOptions::default();
    (options.name, options.version) = (machine.name.clone(), machine.version);
    (options.segment_bytes, options.first_segment_bytes) = (16 << 10, 16 << 10);
    options.background = Background::Manual;
    let before = files_of(disk);
    let log = match Log::open_on(storage(disk), options.clone()) {
        Ok(opened) => opened,
        Err(error) => {
            is_typed(&error);
            assert!(!is_whole || is_at_the_end_of_numbers(&error), "the scan ended well, opening does not: {error}");
            assert_eq!(files_of(disk), before, "what does not open is left as it was");
            return;
        }
    };
    assert!(is_whole, "the scan found damage, opening does not");
    let read = |log: &Log, from: Lsn| log.read_from(from).map(|records| records.collect::<Result<Vec<_>>>());
    let found = match read(&log, log.recovery_report().start).unwrap() {
        Ok(found) => found,
        // the frames are whole, so they were acknowledged; what is in them does not add up
        Err(error) => return is_typed(&error),
    };
    log.append(b"one more").unwrap().wait().unwrap();
    drop(log);
    let log = Log::open_on(storage(&disk.crash(Crash::Nothing)), options).unwrap();
    let again = read(&log, log.recovery_report().start).unwrap().unwrap();
    let (last, rest) = again.split_last().unwrap();
    assert_eq!(rest, found, "what was there stays there");
    assert_eq!(last.1, b"one more");
}

/// Whether a number was so high already that the next is none.
fn is_at_the_end_of_numbers(error: &Error) -> bool {
    error.to_string().ends_with("is impossible")
}

/// Snapshot files, each on its own.
pub fn snapshot(data: &[u8]) {
    let Some(directory) = Directory::read(data) else { return };
    let disk = directory.disk();
    let lsns = directory.files.keys().filter_map(|name| match names::parse(name) {
        FileName::Snapshot { lsn } => Some(lsn),
        _ => None,
    });
    for lsn in lsns {
        let checked = crate::snapshot::check(&disk, lsn);
        let loaded = crate::snapshot::load::<Kv>(&disk, None, lsn, crate::snapshot::Help::None, &|_, _| {});
        if let Err(error) = &checked {
            is_typed(error);
        }
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                is_typed(&error);
                continue;
            }
        };
        assert!(checked.is_ok(), "what can be loaded is whole: {:?}", checked.err());
        // what was read is written as it was read
        let other = SimDisk::new(2);
        let (state, table) = (saved(&loaded.state), loaded.table.len());
        let (help, pace) = (crate::snapshot::Help::None, &mut crate::snapshot::Unpaced);
        crate::snapshot::write(&other, &loaded.header, loaded.state, &loaded.table, help, pace).unwrap();
        let again = crate::snapshot::load::<Kv>(
            &other,
            Some(loaded.header.store),
            lsn,
            crate::snapshot::Help::None,
            &|_, _| {},
        )
        .unwrap();
        assert_eq!((saved(&again.state), again.table.len()), (state, table));
        assert_eq!(again.header, loaded.header);
    }
    assert_eq!(files_of(&disk), directory.files, "reading writes nothing");
}

/// A whole directory: looked at, verified, opened to read, opened, and gone on with.
pub fn store(data: &[u8]) {
    if let Some(directory) = Directory::read(data) {
        check_directory(&directory.disk());
    }
}

/// What holds for any directory.
pub(super) fn check_directory(disk: &SimDisk) {
    let before = files_of(disk);
    if let Err(error) = inspect::survey(storage(disk)) {
        is_typed(&error);
    }
    if let Err(error) = inspect::write_text(storage(disk), Detail::Records, &mut std::io::sink()) {
        is_typed(&error);
    }
    let verified = inspect::verify(storage(disk));
    let reader = options().recovery(RecoveryPolicy::ReadOnly).open_on::<Kv>(storage(disk));
    assert!(files_of(disk) == before, "looking writes nothing");
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
            assert!(seen.is_err() || is_at_the_end_of_numbers(&error), "a reader opens it, an owner does not: {error}");
            assert!(files_of(disk) == before, "what does not open is left as it was");
        }
        (Err(error), Ok(_)) => panic!("an owner opens it, a reader does not: {error}"),
    }
}

pub(super) fn state_of(engine: &Engine<Kv>) -> Vec<u8> {
    engine.read(saved).unwrap()
}

/// Whether verifying and opening come to the same.
pub(super) fn agree(verified: &Result<VerifyReport>, refused: Option<&Error>) {
    if let Some(error) = refused {
        is_typed(error);
    }
    let report = match verified {
        Ok(report) => report,
        Err(error) => {
            is_typed(error);
            // a snapshot of another version, which opening has no need of, cannot be judged
            let is_other_version = matches!(error, Error::UnsupportedVersion { .. });
            assert!(refused.is_some() || is_other_version, "it opens, and verifying answers {error}");
            return;
        }
    };
    assert!(!report.to_string().is_empty());
    if report.depth == Depth::Frames {
        // another machine's: it was judged by its frames, and refused for whose it is
        return;
    }
    assert_eq!(report.open_error.is_some(), refused.is_some(), "foretold: {report}\nanswered: {refused:?}");
    let is_damaged = report.soundness() == Soundness::Damaged;
    // what opens may be damaged too: two states that lead to different ends
    assert!(refused.is_none() || is_damaged, "it does not open, and verifying finds: {report}");
}

/// Commits to an open store, loses power, and looks whether it is there, twice.
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
