//! Recovery with damage, other machines, other openers, read-only use, and foreign files.

use crate::common::{Cmd, Rng, Stacks, files, manual, names, open, open_on, scale, state};
use crate::like_stacks::as_the_stacks;
use seawal::io::{Clock, Create};
use seawal::kv::{Kv, KvCommand};
use seawal::machine::{Bulk, BulkMachine, DecodeError, StateMachine};
use seawal::recovery::Verdict;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::LogStep;
use seawal::{Engine, Error, ExecuteError, Options, RecoveryPolicy, Step};

/// Behaves like the stacks, with another name or version.
macro_rules! other_machine {
    ($machine:ident, $name:expr, $version:expr, $supports:expr) => {
        #[derive(Clone, Default)]
        struct $machine(Stacks);
        impl StateMachine for $machine {
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;
            as_the_stacks!(commands apply save load);
            fn decode(bytes: &[u8], version: u32) -> Result<Cmd, DecodeError> {
                assert_eq!(version, 3, "it is told who wrote the record");
                Stacks::decode(bytes, version)
            }
            fn supports(version: u32) -> bool {
                $supports.contains(&version)
            }
        }
    };
}

other_machine!(NewerStacks, "stacks", 4, [4]);
other_machine!(LenientStacks, "stacks", 4, [3, 4]);
other_machine!(Heaps, "heaps", 3, [3]);

/// A store with some log, which was not closed.
fn store(commands: u32) -> (SimDisk, Stacks) {
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    for n in 0..commands {
        engine.execute(Cmd::Push { key: (n % 4) as u8, value: n, pad: 50 }).unwrap();
    }
    let wanted = state(&engine);
    drop(engine);
    (disk.crash(Crash::Nothing), wanted)
}

fn refused(disk: &SimDisk, options: &Options) -> Error {
    disk.write_file("spare-00000077.tmp", b"unfinished");
    let before = files(disk);
    let error = open_on::<Stacks>(disk, options).map(|(_, report)| report).unwrap_err();
    assert_eq!(files(disk), before, "{error:?}");
    let error = open_on::<Stacks>(disk, options).map(|(_, report)| report).unwrap_err();
    assert_eq!(files(disk), before, "{error:?}");
    error
}

/// The offsets of a segment's frames: the blocks after the header that are not empty.
fn blocks_in_use(disk: &SimDisk, name: &str) -> Vec<u64> {
    let bytes = disk.read_file(name).unwrap();
    (1..bytes.len() / 4096)
        .filter(|n| bytes[n * 4096..][..4096].iter().any(|b| *b != 0))
        .map(|n| n as u64 * 4096)
        .collect()
}

#[test]
fn a_flipped_bit_in_a_frame_that_others_follow_is_corruption() {
    let (disk, _) = store(20);
    let mut rng = Rng::new(1);
    for name in names(&disk, ".seg") {
        let blocks = blocks_in_use(&disk, &name);
        for (n, at) in blocks.iter().enumerate() {
            // nothing follows the last two blocks of the last segment, so nothing proves them
            let proven = name != *names(&disk, ".seg").last().unwrap() || n + 2 < blocks.len();
            for offset in [*at, *at + 9, *at + 30, *at + rng.below(4096), *at + 4095] {
                let disk = disk.crash(Crash::Nothing);
                disk.flip_bit(&name, offset, rng.below(8) as u32).unwrap();
                if proven {
                    let error = refused(&disk, &manual());
                    let Error::Corrupt { path, offset: found, lsn, .. } = &error else { panic!("{error:?}") };
                    assert!(path.ends_with(&name), "{error:?}");
                    assert!(*found == Some(*at) && lsn.is_some(), "wanted {at}, {error:?}");
                    let error = refused(&disk, &manual().recovery(RecoveryPolicy::ReadOnly));
                    assert!(error.is_corrupt(), "{error:?}");
                }
            }
        }
    }
}

#[test]
fn damage_anywhere_is_refused_or_does_no_harm() {
    let (disk, wanted) = store(25);
    let (engine, _) = open(&disk);
    engine.checkpoint().unwrap();
    for n in 0..10 {
        engine.execute(Cmd::push(5, n)).unwrap();
    }
    engine.step(Step::Log(LogStep::Watermark)).unwrap();
    let wanted = {
        let _ = wanted;
        state(&engine)
    };
    drop(engine);
    let disk = disk.crash(Crash::Nothing);
    let mut rng = Rng::new(2);
    let (mut refusals, mut harmless) = (0, 0);
    for round in 0..600 * scale() {
        let disk = disk.crash(Crash::Nothing);
        let all = names(&disk, "");
        let name = &all[rng.below(all.len() as u64) as usize];
        let len = disk.read_file(name).unwrap().len() as u64;
        if len == 0 {
            continue;
        }
        let what = match rng.below(6) {
            0 => {
                disk.truncate_file(name, rng.below(len)).unwrap();
                "cut short"
            }
            1 => {
                disk.remove_file(name).unwrap();
                "removed"
            }
            2 => {
                let at = rng.below(len) / 4096 * 4096;
                disk.overwrite(name, at, &vec![0; (len - at).min(4096) as usize]).unwrap();
                "a block of zeros"
            }
            3 => {
                let at = rng.below(len);
                let garbage: Vec<u8> = (0..(len - at).min(1 + rng.below(64))).map(|_| rng.next() as u8).collect();
                disk.overwrite(name, at, &garbage).unwrap();
                "garbage"
            }
            4 => {
                // a block of another place
                let from = all[rng.below(all.len() as u64) as usize].clone();
                let source = disk.read_file(&from).unwrap();
                let from_at = rng.below(source.len() as u64) as usize / 4096 * 4096;
                let at = rng.below(len) / 4096 * 4096;
                let block = &source[from_at..][..(source.len() - from_at).min(4096).min((len - at) as usize)];
                disk.overwrite(name, at, block).unwrap();
                "a misdirected write"
            }
            _ => {
                // most of a preallocated segment is empty
                let at = rng.below(len.min(4096));
                disk.flip_bit(name, at, rng.below(8) as u32).unwrap();
                "a flipped bit"
            }
        };
        let before = files(&disk);
        match open_on::<Stacks>(&disk, &manual()) {
            Ok((engine, report)) => {
                harmless += 1;
                assert_eq!(state(&engine), wanted, "round {round}: {what} in {name}: {report:?}");
                engine.execute(Cmd::push(9, 9)).unwrap();
                drop(engine);
                let (engine, _) = open(&disk.crash(Crash::Nothing));
                assert_eq!(state(&engine).at(9), [9], "round {round}: {what} in {name}");
            }
            Err(error) => {
                refusals += 1;
                assert!(
                    matches!(error, Error::Corrupt { .. } | Error::NotAStore { .. } | Error::UnsupportedVersion { .. }),
                    "round {round}: {what} in {name}: {error:?}"
                );
                assert_eq!(files(&disk), before, "round {round}: {what} in {name}: {error:?}");
            }
        }
    }
    assert!(refusals > 20 && harmless > 20, "{refusals} {harmless}");
}

#[test]
fn a_torn_last_frame_is_cut_and_reported() {
    let (disk, _) = store(5);
    let options = manual().segment_bytes(128 << 10).first_segment_bytes(128 << 10);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    // in a new segment with room for more, so that the next durable write is the frame's
    while disk.read_file(names(&disk, ".seg").last().unwrap()).unwrap().len() < 128 << 10 {
        engine.execute(Cmd::Push { key: 1, value: 99, pad: 12_000 }).unwrap();
    }
    while engine.step(Step::Log(LogStep::PrepareSegment)).unwrap() {}
    let wanted = state(&engine);
    let mut seen = 0;
    let segment = names(&disk, ".seg").pop().unwrap();
    let before = blocks_in_use(&disk, &segment).len();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Crash, Persistence::Once);
    assert!(engine.execute(Cmd::Push { key: 1, value: 100, pad: 12_000 }).is_err());
    for seed in 0..200 {
        let after = disk.crash(Crash::Seeded(seed));
        let torn = blocks_in_use(&after, &segment).len() > before;
        let (engine, report) = open(&after);
        if state(&engine) == wanted {
            // the same if the frame's first block was lost
            if torn {
                seen += 1;
                assert_eq!(report.verdict, Verdict::TornTail, "{report:?}");
                let tail = report.tail.as_ref().unwrap();
                assert!(tail.torn && tail.path.ends_with(&segment) && tail.offset % 4096 == 0, "{tail:?}");
            }
        } else {
            assert_eq!(state(&engine).at(1).last(), Some(&100));
        }
        engine.execute(Cmd::push(7, 7)).unwrap();
        // a kill: a drop would end the log cleanly
        std::mem::forget(engine);
        // the bad frame remains in an older segment, and the store opens again
        let (engine, report) = open(&after.crash(Crash::Seeded(seed)));
        assert_eq!(state(&engine).at(7), [7]);
        assert_eq!(report.verdict, Verdict::Interrupted, "{report:?}");
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_loser_is_undone_once_and_is_none_at_the_next_opening() {
    let disk = SimDisk::new(11);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 2)).unwrap();
    tx.execute(Cmd::push(1, 3)).unwrap();
    engine.sync().unwrap();
    std::mem::forget(tx);
    let mut disk = disk.crash(Crash::Nothing);
    for (losers, steps) in [(1, 2), (0, 0), (0, 0)] {
        let (engine, report) = open(&disk);
        assert_eq!((report.undone, report.undo_steps), (losers, steps));
        assert_eq!((state(&engine).at(1), state(&engine).at(2)), (vec![1], vec![]));
        disk = disk.crash(Crash::Nothing);
    }
}

#[test]
fn another_version_of_the_machine_is_refused_unless_it_says_that_it_can() {
    let (disk, wanted) = store(6);
    let before = files(&disk);
    let error = open_on::<NewerStacks>(&disk, &manual()).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 4, .. }), "{error:?}");
    assert_eq!(files(&disk), before);
    for closed in [false, true] {
        let disk = disk.crash(Crash::Nothing);
        if closed {
            open(&disk).0.close().unwrap();
        }
        let (engine, _) = open_on::<LenientStacks>(&disk, &manual()).unwrap();
        assert_eq!(engine.read(|s| s.0.clone()).unwrap(), wanted);
        engine.close().unwrap();
        drop(engine);
        let error = open_on::<Stacks>(&disk, &manual()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 4, supported: 3, .. }), "{error:?}");
    }
}

#[test]
fn a_record_of_a_version_that_is_not_supported_is_refused_behind_a_newer_manifest() {
    let (disk, _) = store(6);
    drop(open_on::<LenientStacks>(&disk, &manual()).unwrap());
    let disk = disk.crash(Crash::Nothing);
    let error = open_on::<NewerStacks>(&disk, &manual()).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 4, .. }), "{error:?}");
}

#[test]
fn a_log_of_two_versions_tells_decode_who_wrote_each_record() {
    #[derive(Clone, Default)]
    struct Mixed(Stacks);
    thread_local!(static SEEN: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) });
    impl StateMachine for Mixed {
        const NAME: &'static str = "stacks";
        const VERSION: u32 = 4;
        as_the_stacks!(commands apply save load);
        fn decode(bytes: &[u8], version: u32) -> Result<Cmd, DecodeError> {
            SEEN.with_borrow_mut(|seen| seen.push(version));
            Stacks::decode(bytes, version)
        }
        fn supports(version: u32) -> bool {
            version == 3 || version == 4
        }
    }
    let (disk, _) = store(3);
    let (engine, _) = open_on::<Mixed>(&disk, &manual()).unwrap();
    for n in 0..2 {
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    drop(engine);
    SEEN.take();
    open_on::<Mixed>(&disk.crash(Crash::Nothing), &manual()).unwrap();
    assert_eq!(SEEN.take(), [3, 3, 3, 4, 4]);
}

/// S14: The machine is told the bound of the memory for what it puts off.
#[test]
fn what_redo_puts_off_is_carried_out_once_however_long_the_log_is() {
    /// Its other fields count the calls of `finish_redo` and `limit_redo_memory`.
    #[derive(Clone, Default)]
    struct PutsOff(Stacks, u32, u32);
    impl StateMachine for PutsOff {
        const NAME: &'static str = "stacks";
        const VERSION: u32 = 3;
        const BULK: Option<Bulk<Self>> = Some(Bulk::of());
        as_the_stacks!(all);
    }
    impl BulkMachine for PutsOff {
        fn finish_redo(&mut self) {
            self.1 += 1;
        }
        fn limit_redo_memory(&mut self, bytes: u64) {
            assert_eq!(bytes, 12_345);
            self.2 += 1;
        }
    }
    // more than two of the groups in which recovery replays
    let (disk, commands) = (SimDisk::new(1), 600);
    let options = manual()
        .segment_bytes(32 << 20)
        .first_segment_bytes(32 << 20)
        .max_log_bytes(1 << 30)
        .checkpoint_log_bytes(1 << 30)
        .redo_memory_bytes(12_345);
    let (engine, _) = open_on::<PutsOff>(&disk, &options).unwrap();
    for n in 0..commands {
        engine.execute(Cmd::Push { key: 1, value: n, pad: 30_000 }).unwrap();
    }
    drop(engine);
    let (engine, report) = open_on::<PutsOff>(&disk.crash(Crash::Nothing), &options).unwrap();
    assert_eq!((report.redone, engine.read(|s| s.1).unwrap()), (u64::from(commands), 1));
    assert!(engine.read(|s| s.2).unwrap() > 2, "the bound is set before each group");
}

#[test]
fn another_machines_store_is_not_taken_for_ones_own() {
    let (disk, _) = store(6);
    for manifests in [true, false] {
        let disk = disk.crash(Crash::Nothing);
        if !manifests {
            disk.remove_file("MANIFEST-0").unwrap();
            disk.remove_file("MANIFEST-1").unwrap();
        }
        let before = files(&disk);
        let error = open_on::<Heaps>(&disk, &manual()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::OtherMachine { .. }), "{error:?}");
        let error = open_on::<Kv>(&disk, &manual()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::OtherMachine { .. }), "{error:?}");
        let error = open_on::<NewerStacks>(&disk, &manual()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { .. }), "{error:?}");
        assert_eq!(files(&disk), before);
    }
    let empty = SimDisk::new(1);
    let error = open_on::<Stacks>(&empty, &manual().create(Create::Never)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::NotAStore { .. }), "{error:?}");
    assert!(empty.file_names().is_empty());
}

#[test]
fn files_of_another_store_are_refused() {
    let (disk, _) = store(40);
    let other = SimDisk::new(77);
    let (engine, _) = open(&other);
    for n in 0..40 {
        engine.execute(Cmd::Push { key: 9, value: n, pad: 50 }).unwrap();
    }
    drop(engine);
    let segments = names(&disk, ".seg");
    assert!(segments.len() > 2);
    let mut same = 0;
    for name in &segments {
        let Ok(bytes) = other.read_file(name) else { continue };
        same += 1;
        let disk = disk.crash(Crash::Nothing);
        disk.write_file(name, &bytes);
        let error = refused(&disk, &manual());
        assert!(error.is_corrupt() || matches!(error, Error::OtherMachine { .. }), "{name}: {error:?}");
    }
    assert!(same > 0);
    // a snapshot of another store under the right name
    let snapshot = |disk: &SimDisk, key| {
        let (engine, _) = open(disk);
        engine.execute(Cmd::push(key, 1)).unwrap();
        engine.checkpoint().unwrap();
        drop(engine);
        names(disk, ".snap").pop().unwrap()
    };
    let (one, two) = (SimDisk::new(5), SimDisk::new(6));
    let (first, second) = (snapshot(&one, 1), snapshot(&two, 2));
    assert_eq!(first, second);
    one.write_file(&first, &two.read_file(&second).unwrap());
    match open_on::<Stacks>(&one, &manual()) {
        Ok((engine, report)) => {
            assert_eq!(state(&engine).at(1), [1], "{report:?}");
            assert!(!report.warnings.is_empty());
        }
        Err(error) => assert!(error.is_corrupt(), "{error:?}"),
    }
}

#[test]
fn a_segment_missing_in_the_middle_or_duplicated_is_corruption() {
    let (disk, _) = store(60);
    let segments = names(&disk, ".seg");
    assert!(segments.len() > 3, "{segments:?}");
    for name in &segments {
        let disk = disk.crash(Crash::Nothing);
        disk.remove_file(name).unwrap();
        let error = refused(&disk, &manual());
        assert!(error.is_corrupt(), "{name}: {error:?}");
    }
    let disk = disk.crash(Crash::Nothing);
    let bytes = disk.read_file(&segments[1]).unwrap();
    let base = segments[2].split_once('-').unwrap().1;
    disk.write_file(&format!("00000099-{base}"), &bytes);
    let error = refused(&disk, &manual());
    assert!(error.is_corrupt(), "{error:?}");
}

/// Removes both copies of the manifest.
fn without_manifests(disk: &SimDisk) -> SimDisk {
    let disk = disk.crash(Crash::Nothing);
    for name in ["MANIFEST-0", "MANIFEST-1"] {
        disk.remove_file(name).unwrap();
    }
    disk
}

#[test]
fn a_snapshot_of_what_was_cut_does_not_count_without_a_manifest() {
    let mut at_a_base = 0;
    for (lost, older) in (1..7).flat_map(|lost| [(lost, false), (lost, true)]) {
        let disk = SimDisk::new(1);
        let (engine, _) = open(&disk);
        for n in 0..2 {
            engine.execute(Cmd::push(1, n)).unwrap();
        }
        if older {
            engine.checkpoint().unwrap();
        }
        let cut = disk.crash(Crash::Nothing);
        for n in 0..lost {
            engine.execute(Cmd::push(2, n)).unwrap();
        }
        engine.checkpoint().unwrap();
        drop(engine);
        // The snapshot has its name but was not published. The end of the log did not reach the
        // device.
        let snapshot = names(&disk, ".snap").pop().unwrap();
        cut.write_file(&snapshot, &disk.read_file(&snapshot).unwrap());
        for more in 0..2 {
            let cut = cut.crash(Crash::Nothing);
            let (engine, report) = open(&cut);
            for n in 0..more {
                engine.execute(Cmd::push(3, n)).unwrap();
            }
            let wanted = state(&engine);
            assert_eq!((wanted.at(1).len(), wanted.at(2).len()), (2, 0), "{report:?}");
            drop(engine);
            let base = snapshot.replace(".snap", ".seg");
            at_a_base += names(&cut, &format!("-{base}")).len();
            let cut = without_manifests(&cut);
            let (engine, report) = open_on::<Stacks>(&cut, &manual())
                .unwrap_or_else(|e| panic!("{lost} lost, {older}, {more} more: {e:?}"));
            assert_eq!(state(&engine), wanted, "{lost} lost, {older}, {more} more: {report:?}");
            // a published snapshot is used
            engine.checkpoint().unwrap();
            drop(engine);
            let (engine, report) = open(&without_manifests(&cut));
            assert_eq!(state(&engine), wanted, "{report:?}");
            assert!(report.snapshot.is_some() && report.records == 0, "{report:?}");
        }
    }
    assert!(at_a_base > 0);
}

#[test]
fn garbage_below_the_log_is_no_hindrance_without_a_manifest() {
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    let mut old = files(&disk);
    for n in 0..90 {
        engine.execute(Cmd::Push { key: (n % 4) as u8, value: n, pad: 50 }).unwrap();
        if n % 20 == 19 {
            old.extend(files(&disk));
            engine.checkpoint().unwrap();
        }
    }
    let wanted = state(&engine);
    drop(engine);
    let disk = without_manifests(&disk);
    let kept = names(&disk, ".seg");
    old.retain(|name, _| name.ends_with(".seg") && *name < kept[0]);
    let garbage: Vec<_> = old.into_iter().collect();
    assert!(garbage.len() > 2 && kept.len() > 1, "{garbage:?} {kept:?}");
    let first = garbage.first().unwrap();
    let last = garbage.last().unwrap();
    // an old segment followed by a gap, an empty one, one without its end, and one of zeros
    let cases = [
        (&first.0, first.1.clone()),
        (&last.0, Vec::new()),
        (&last.0, last.1[..8192].to_vec()),
        (&last.0, vec![0; last.1.len()]),
        (&last.0, last.1.clone()),
    ];
    for (name, bytes) in cases {
        let disk = disk.crash(Crash::Nothing);
        disk.write_file(name, &bytes);
        let (engine, report) = open_on::<Stacks>(&disk, &manual()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(state(&engine), wanted, "{name}: {report:?}");
        engine.execute(Cmd::push(9, 9)).unwrap();
        drop(engine);
        let (engine, _) = open(&disk.crash(Crash::Nothing));
        assert_eq!(state(&engine).at(9), [9]);
    }
    // a needed segment that is missing is detected
    for name in &kept {
        let disk = disk.crash(Crash::Nothing);
        disk.remove_file(name).unwrap();
        if let Ok((engine, report)) = open_on::<Stacks>(&disk, &manual()) {
            // unless recovery begins with a later snapshot, or only the manifest would name the
            // missing end
            assert!(state(&engine) == wanted || name == kept.last().unwrap(), "{name}: {report:?}");
        }
    }
}

#[test]
fn a_store_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::<Kv>::open(dir.path()).unwrap();
    let error = Engine::<Kv>::open(dir.path()).unwrap_err();
    assert!(error.is_locked(), "{error:?}");
    let error = Options::new().recovery(RecoveryPolicy::ReadOnly).open::<Kv>(dir.path()).unwrap_err();
    assert!(error.is_locked(), "{error:?}");
    engine.close().unwrap();
    let second = Engine::<Kv>::open(dir.path()).unwrap();
    second.insert("a", "1").unwrap();
    drop(second);
    let reader = Options::new().recovery(RecoveryPolicy::ReadOnly).open::<Kv>(dir.path()).unwrap();
    let another = Options::new().recovery(RecoveryPolicy::ReadOnly).open::<Kv>(dir.path()).unwrap();
    assert_eq!(reader.get("a").unwrap(), another.get("a").unwrap());
    drop((reader, another, engine));
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    assert!(open_on::<Stacks>(&disk, &manual()).unwrap_err().is_locked());
    drop(engine);
    open(&disk);
}

#[test]
fn a_read_only_opening_writes_nothing_and_refuses_writes() {
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    engine.execute(Cmd::push(1, 2)).unwrap();
    let loser = engine.begin().unwrap();
    loser.execute(Cmd::push(1, 3)).unwrap();
    loser.execute(Cmd::push(2, 3)).unwrap();
    engine.sync().unwrap();
    std::mem::forget((loser, engine));
    for crash in [Crash::Nothing, Crash::KillOnly] {
        let disk = disk.crash(crash);
        disk.write_file("00000000deadbeef.snap.tmp", b"unfinished");
        let before = files(&disk);
        let options = manual().recovery(RecoveryPolicy::ReadOnly);
        let (engine, report) = open_on::<Stacks>(&disk, &options).unwrap();
        assert_eq!(state(&engine), Stacks { by_key: [(1, vec![1, 2])].into() }, "{report:?}");
        assert_eq!(report.undone, 1);
        assert_eq!(engine.view().unwrap().at(1), [1, 2]);
        assert!(matches!(engine.execute(Cmd::push(1, 1)), Err(ExecuteError::Failed(Error::ReadOnly))));
        assert!(matches!(engine.submit(Cmd::push(1, 1)), Err(ExecuteError::Failed(Error::ReadOnly))));
        assert!(matches!(engine.begin(), Err(Error::ReadOnly)));
        assert!(matches!(engine.checkpoint(), Err(Error::ReadOnly)));
        for step in [Step::BeginCheckpoint, Step::Checkpoint, Step::Log(LogStep::PrepareSegment)] {
            assert!(!matches!(engine.step(step), Ok(true)));
        }
        let _ = engine.stats();
        engine.close().unwrap();
        drop(engine);
        assert_eq!(files(&disk), before);
        let empty = SimDisk::new(2);
        assert!(matches!(open_on::<Stacks>(&empty, &options), Err(Error::NotAStore { .. })));
        assert!(empty.file_names().is_empty());
    }
}

#[test]
fn foreign_and_unfinished_files_are_no_hindrance() {
    let (disk, wanted) = store(10);
    disk.write_file("notes.txt", b"mine");
    disk.write_file("notes.txt.tmp", b"mine too");
    disk.write_file("1-0.seg", b"nearly a segment");
    disk.write_file("spare-00000007.tmp", b"unfinished");
    disk.write_file("00000000000f4000.snap.tmp", b"unfinished");
    disk.write_file("MANIFEST-0.tmp", b"unfinished");
    disk.write_file("spare-00000009", b"too short to be of use");
    disk.write_file("00000000ffff0000.snap", b"a snapshot that nothing vouches for");
    let (engine, report) = open(&disk);
    assert_eq!(state(&engine), wanted);
    for name in ["notes.txt", "notes.txt.tmp", "1-0.seg"] {
        assert!(disk.read_file(name).is_ok());
        assert!(report.warnings.iter().any(|w| w.contains(name)), "{report:?}");
    }
    assert!(disk.file_names().iter().all(|n| !n.ends_with(".tmp") || n.starts_with("notes")));
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    engine.close().unwrap();
    drop(engine);
    open(&disk);
}

#[test]
fn the_clock_may_jump() {
    let (disk, wanted) = store(10);
    disk.advance(std::time::Duration::from_secs(1 << 40));
    let (engine, _) = open(&disk);
    assert_eq!(state(&engine), wanted);
    assert!(disk.wall_clock_micros() > 0);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let _ = KvCommand::put("", "", "");
}
