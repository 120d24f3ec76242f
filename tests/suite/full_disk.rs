//! Disks that are full, stay full, or become full at any moment: a store always opens, and resumes
//! once there is space.

use crate::common::{Cmd, Rng, Stacks, manual, names, open, open_on, scale, state};
use seawal::kv::Kv;
use seawal::recovery::Verdict;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Background, LogStep};
use seawal::{Engine, Error, ExecuteError, Options, Step};
use std::time::{Duration, Instant};

fn is_full(result: Result<u32, ExecuteError<crate::common::Empty>>) -> bool {
    match result {
        Ok(_) => false,
        Err(ExecuteError::Failed(error)) if error.is_full() => true,
        other => panic!("{other:?}"),
    }
}

/// A full disk with four open transactions, and the committed state.
fn full_with_losers(seed: u64) -> (SimDisk, Stacks) {
    let disk = SimDisk::new(seed);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let mut losers: Vec<_> = (0..4).map(|_| engine.begin().unwrap()).collect();
    for n in 0..8 {
        for (at, tx) in losers.iter_mut().enumerate() {
            tx.execute(Cmd::Push { key: 10 + at as u8, value: n, pad: (seed % 4 * 700) as u16 }).unwrap();
        }
    }
    if seed % 2 == 1 {
        engine.checkpoint().unwrap();
    }
    disk.set_free_bytes(Some((seed % 5 * 20) << 10));
    let mut n = 0;
    while !is_full(engine.execute(Cmd::Push { key: 2, value: n, pad: 2500 })) {
        n += 1;
    }
    disk.set_free_bytes(Some(0));
    engine.sync().unwrap();
    let wanted = engine.view().unwrap().into_inner();
    std::mem::forget(losers);
    std::mem::forget(engine);
    (disk, wanted)
}

fn any_crash(rng: &mut Rng) -> Crash {
    match rng.below(5) {
        0 => Crash::Nothing,
        1 => Crash::KillOnly,
        2 => Crash::TornBlock(rng.next()),
        _ => Crash::Seeded(rng.next()),
    }
}

/// Checks that commits succeed at once, and that the committed state is there.
fn resumes(disk: &SimDisk, engine: Engine<Stacks>, mut wanted: Stacks) {
    disk.set_free_bytes(None);
    for value in 0..20 {
        engine.execute(Cmd::Push { key: 10, value, pad: 3000 }).unwrap();
        wanted.by_key.entry(10).or_default().push(value);
    }
    assert_eq!(state(&engine), wanted);
    drop(engine);
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!((state(&engine), report.undone), (wanted.clone(), 0), "{report:?}");
    engine.checkpoint().unwrap();
    engine.close().unwrap();
    drop(engine);
}

/// Whether there is room for a command. The command reaches the machine, which rejects it, so the
/// state does not change.
fn has_room(engine: &Engine<Stacks>) -> bool {
    match engine.execute(Cmd::Pop { key: 99 }) {
        Err(ExecuteError::Rejected(_)) => true,
        other => !is_full(other),
    }
}

/// The last operation of an open that writes into a segment, or the last one of all.
fn last_write(traced: &SimDisk) -> u64 {
    let trace = traced.trace();
    let write = trace.iter().rfind(|line| line.contains(".seg") && line.contains("Write"));
    let op = write.and_then(|line| line.split(' ').next()).and_then(|op| op.parse().ok());
    op.unwrap_or_else(|| traced.op_count() - 1)
}

#[test]
fn a_disk_that_stays_full_opens_a_hundred_times_and_more_with_losers_to_undo() {
    let (mut opened, mut cut_off, mut in_memory, mut refused) = (0, 0, 0, 0);
    for seed in 0..6 * scale() {
        let (mut disk, wanted) = full_with_losers(seed);
        let mut rng = Rng::new(seed);
        for round in 0..120 {
            disk = disk.crash(any_crash(&mut rng));
            if round == 8 && seed % 3 > 0 {
                // an open replaces the segment of one that was cut off, and uses its space again
                names(&disk, "").iter().filter(|n| n.starts_with("spare-")).for_each(|n| disk.remove_file(n).unwrap());
            }
            // somebody else takes what became free
            disk.set_free_bytes(Some(0));
            if round < 8 || rng.one_in(2) {
                // The first ones crash near the end of recovery: they have taken a preallocated
                // segment, and have not logged their undo.
                let probe = disk.crash(Crash::Nothing);
                probe.enable_trace();
                let opened = open(&probe);
                let op = if round < 8 { last_write(&probe) - rng.below(2) } else { rng.below(probe.op_count()) };
                drop(opened);
                disk.fail_at(op, Fault::Crash, Persistence::ForEver);
            }
            let (engine, report) = match open_on::<Stacks>(&disk, &manual()) {
                Ok(opened) => opened,
                Err(error) => {
                    assert!(disk.is_down(), "seed {seed}, round {round}: {error:?}");
                    cut_off += 1;
                    if round < 8 {
                        disk = disk.crash(Crash::Nothing);
                    }
                    continue;
                }
            };
            opened += 1;
            in_memory += u64::from(report.warnings.iter().any(|warning| warning.contains("in memory")));
            assert_eq!(state(&engine), wanted, "seed {seed}, round {round}: {report:?}");
            assert_eq!(*engine.view().unwrap(), wanted);
            if !disk.is_down() {
                // this open may have had fewer operations than the one that was counted
                disk.clear_faults();
                refused += u64::from(!has_room(&engine));
                let _ = engine.checkpoint();
                if rng.one_in(4) {
                    let _ = engine.close();
                }
                assert_eq!(state_if_open(&engine).unwrap_or_else(|| wanted.clone()), wanted);
            }
        }
        let disk = disk.crash(Crash::Nothing);
        let (engine, _) = open(&disk);
        resumes(&disk, engine, wanted);
    }
    println!("{opened} opened, {cut_off} cut off, {in_memory} with the undo in memory, {refused} refused commits");
    assert!(opened > 300 && cut_off > 100 && in_memory > 100 && refused > 100);
}

/// Kills a store with an open transaction of 6,000 commands. The disk is then full, except for one
/// small preallocated segment.
pub(crate) fn full_with_room_for_a_part_of_the_undo(disk: &SimDisk, engine: Engine<Stacks>) -> SimDisk {
    let tx = engine.begin().unwrap();
    for n in 0..6000 {
        tx.execute(Cmd::push(2, n)).unwrap();
    }
    engine.sync().unwrap();
    std::mem::forget(tx);
    std::mem::forget(engine);
    let disk = disk.crash(Crash::Nothing);
    let spares: Vec<_> = disk.file_names().into_iter().filter(|name| name.starts_with("spare-")).collect();
    disk.truncate_file(&spares[0], 16 << 10).unwrap();
    spares[1..].iter().for_each(|name| disk.remove_file(name).unwrap());
    disk.set_free_bytes(Some(0));
    disk
}

#[test]
fn a_snapshot_taken_while_the_undo_is_owed_to_the_log_is_of_what_the_log_tells() {
    for reopened in [false, true] {
        let disk = SimDisk::new(1);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        let wanted = state(&engine);
        let disk = full_with_room_for_a_part_of_the_undo(&disk, engine);
        // a reserve of 64 KiB is then one segment
        let (engine, report) = open_on::<Stacks>(&disk, &manual().segment_bytes(128 << 10)).unwrap();
        assert_eq!((state(&engine), report.undone, report.undo_steps), (wanted.clone(), 1, 6000), "{report:?}");
        assert!(report.warnings.iter().any(|warning| warning.contains("in memory")), "{report:?}");
        assert!(!has_room(&engine));
        // enough for a snapshot, but not for a segment
        disk.set_free_bytes(Some(60 << 10));
        assert!(engine.checkpoint().unwrap_err().is_full(), "it says that it does not help");
        assert_eq!(engine.stats().checkpoints, 1);
        assert!(!has_room(&engine));
        if reopened {
            drop(engine);
            let disk = disk.crash(Crash::Nothing);
            let (engine, report) = open(&disk);
            assert!(report.undone == 1 && report.undo_steps < 6000, "{report:?}");
            assert_eq!(state(&engine), wanted, "{report:?}");
            resumes(&disk, engine, wanted);
        } else {
            resumes(&disk, engine, wanted);
        }
    }
}

#[test]
fn a_missing_copy_of_the_manifest_does_not_keep_a_full_disk_from_opening() {
    for missing in [&["MANIFEST-0"][..], &["MANIFEST-1"], &["MANIFEST-0", "MANIFEST-1"]] {
        let (disk, wanted) = full_with_losers(2);
        let mut disk = disk.crash(Crash::Nothing);
        for name in missing {
            disk.remove_file(name).unwrap();
        }
        disk.set_free_bytes(Some(0));
        for round in 0..10 {
            disk = disk.crash(Crash::Seeded(round));
            let (engine, report) = open(&disk);
            assert_eq!((state(&engine), report.undone), (wanted.clone(), 4), "{missing:?}, {round}: {report:?}");
            assert!(!has_room(&engine));
            if round % 3 == 0 {
                assert!(engine.close().unwrap_err().is_full());
            }
            drop(engine);
            assert_eq!(missing.iter().filter(|name| disk.read_file(name).is_ok()).count(), 0);
        }
        let (engine, _) = open(&disk);
        resumes(&disk, engine, wanted);
        assert!(missing.iter().all(|name| disk.read_file(name).is_ok()));
    }
}

/// A store that was opened on a full disk, so that the manifest could not record that. Only that
/// open proves the last frame of its last segment, whose name is returned. There is space again.
fn opened_without_space(options: &Options) -> (SimDisk, Engine<Stacks>, String) {
    let disk = SimDisk::new(3);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    // a kill, for a drop marks the end as clean
    std::mem::forget(engine);
    let disk = disk.crash(Crash::Nothing);
    let segment = names(&disk, ".seg").pop().unwrap();
    // this is the first write of recovery
    disk.fail_next(OpKind::WriteAt, Fault::NoSpace, Persistence::Once);
    let (engine, report) = open_on::<Stacks>(&disk, options).unwrap();
    assert_eq!(state(&engine).at(1), [1], "{report:?}");
    assert_eq!(names(&disk, ".seg").pop().as_ref(), Some(&segment), "no segment of this opening follows");
    (disk, engine, segment)
}

/// Whether damage to the first frame of a segment is detected.
fn is_missed(disk: &SimDisk, segment: &str) -> bool {
    let disk = disk.crash(Crash::Nothing);
    disk.flip_bit(segment, 4096 + 70, 0).unwrap();
    match open_on::<Stacks>(&disk, &manual()) {
        Ok((engine, _)) => {
            assert!(state(&engine).at(1).is_empty());
            false
        }
        Err(error) => error.is_corrupt(),
    }
}

#[test]
fn what_was_recovered_on_a_full_disk_is_proven_as_soon_as_there_is_space() {
    let (disk, engine, segment) = opened_without_space(&manual());
    assert!(!is_missed(&disk, &segment), "a torn write cannot be told from it yet");
    // the disk is still full, both for a commit and for a step
    disk.fail_next(OpKind::WriteAt, Fault::NoSpace, Persistence::ForEver);
    for _ in 0..3 {
        assert!(!has_room(&engine));
        assert!(!engine.step(Step::Log(LogStep::Watermark)).unwrap());
        assert!(!is_missed(&disk, &segment));
    }
    disk.clear_faults();
    // any other failure is returned, and the step is tried again the next time
    disk.fail_next(OpKind::WriteAt, Fault::Eio, Persistence::Once);
    let error = engine.step(Step::Log(LogStep::Watermark)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(!is_missed(&disk, &segment));
    assert!(engine.step(Step::Log(LogStep::Watermark)).unwrap());
    while engine.step(Step::Log(LogStep::Watermark)).unwrap() {}
    assert!(is_missed(&disk, &segment), "by a step");
    let (disk, _engine, segment) = opened_without_space(&manual().background(Background::Threads));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_missed(&disk, &segment) {
        assert!(Instant::now() < deadline, "by the threads");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_store_that_was_opened_on_a_full_disk_is_closed_as_any_other_once_there_is_space() {
    for losers in [false, true] {
        let (disk, wanted) = if losers {
            full_with_losers(2)
        } else {
            let (disk, engine, _) = opened_without_space(&manual());
            let wanted = state(&engine);
            std::mem::forget(engine);
            (disk, wanted)
        };
        let disk = disk.crash(Crash::Nothing);
        names(&disk, "").iter().filter(|n| n.starts_with("spare-")).for_each(|n| disk.remove_file(n).unwrap());
        disk.set_free_bytes(Some(0));
        let (engine, report) = open(&disk);
        assert_eq!((state(&engine), report.undone), (wanted.clone(), if losers { 4 } else { 0 }), "{report:?}");
        // nothing was written since the open, and there is no space
        assert!(engine.checkpoint().unwrap_err().is_full());
        // the failure is reported, and the checkpoint is tried again after a second, not at once
        assert!(engine.stats().checkpoint_error.is_some_and(|error| error.is_full()));
        let due = manual().checkpoint_log_bytes(1);
        drop(engine);
        let (engine, _) = open_on::<Stacks>(&disk, &due).unwrap();
        assert!(engine.step(Step::Checkpoint).unwrap_err().is_full());
        assert!(engine.stats().checkpoint_error.is_some_and(|error| error.is_full()));
        let before = disk.op_count();
        assert!(!engine.step(Step::Checkpoint).unwrap());
        assert_eq!(disk.op_count(), before, "no file is touched for it");
        disk.advance(Duration::from_secs(1));
        assert!(engine.step(Step::Checkpoint).unwrap_err().is_full());
        disk.set_free_bytes(None);
        engine.close().unwrap_or_else(|error| panic!("losers: {losers}: {error:?}"));
        drop(engine);
        let (engine, report) = open(&disk.crash(Crash::Nothing));
        assert_eq!((report.verdict, report.records, report.undone), (Verdict::Clean, 0, 0), "{report:?}");
        assert_eq!(state(&engine), wanted);
    }
}

#[test]
fn with_any_space_at_all_commits_are_kept_or_refused_and_resume() {
    // the amounts fail in turn: the claim of space, the write of a frame, a segment, a snapshot,
    // the open
    let (mut refused, mut checkpoints) = (0, [0, 0]);
    for pages in 0..40 {
        let disk = SimDisk::new(pages);
        let (engine, _) = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        disk.set_free_bytes(Some(pages * 4096));
        let mut wanted = state(&engine);
        for value in 0..80 {
            if value % 16 == 15 {
                match engine.checkpoint() {
                    Ok(()) => checkpoints[0] += 1,
                    Err(error) => {
                        assert!(error.is_full(), "{pages}: {error:?}");
                        assert!(engine.stats().checkpoint_error.is_some());
                        checkpoints[1] += 1;
                    }
                }
            }
            if is_full(engine.execute(Cmd::Push { key: 3, value, pad: 3000 })) {
                refused += 1;
            } else {
                wanted.by_key.entry(3).or_default().push(value);
            }
            // reads still succeed
            assert_eq!(state(&engine).at(3), wanted.at(3));
        }
        drop(engine);
        let disk = disk.crash(Crash::Seeded(pages));
        let (engine, _) = open(&disk);
        assert_eq!(state(&engine), wanted, "{pages}");
        resumes(&disk, engine, wanted);
        assert!(!disk.file_names().iter().any(|name| name.ends_with(".tmp")), "{pages}: {:?}", disk.file_names());
    }
    assert!(refused > 100 && checkpoints[0] > 10 && checkpoints[1] > 10, "{refused} {checkpoints:?}");
}

fn state_if_open(engine: &Engine<Stacks>) -> Option<Stacks> {
    match engine.read(Stacks::clone) {
        Ok(state) => Some(state),
        Err(Error::Closed) => None,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_long_rollback_has_its_room_though_the_disk_became_full_meanwhile() {
    let disk = SimDisk::new(21);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    disk.set_free_bytes(Some(384 << 10));
    let tx = engine.begin().unwrap();
    let mut effects = 0;
    while !is_full(tx.execute(Cmd::push(2, effects))) {
        effects += 1;
    }
    assert!(effects > 2_000, "{effects}");
    while !is_full(engine.execute(Cmd::Push { key: 3, value: 1, pad: 2500 })) {}
    tx.rollback().unwrap();
    let wanted = state(&engine);
    assert_eq!((wanted.at(1), wanted.at(2)), (vec![1], vec![]));
    disk.set_free_bytes(None);
    engine.execute(Cmd::push(1, 2)).unwrap();
    let wanted = state(&engine);
    drop(engine);
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0), wanted);
}

/// Overwrites one key until the disk is full.
fn fill(engine: &Engine<Kv>) {
    let is_full = |error: ExecuteError<_>| matches!(error, ExecuteError::Failed(error) if error.is_full());
    assert!(is_full((0..10_000).find_map(|_| engine.insert("key", vec![1; 3000]).err()).unwrap()));
    assert!(is_full(engine.insert("key", "small").unwrap_err()));
    assert!(is_full(engine.remove("key").unwrap_err()));
}

/// N1: where a checkpoint, an older snapshot or the log before a snapshot can free space, a full
/// disk heals without a new open.
#[test]
fn a_full_disk_heals_as_soon_as_a_checkpoint_can_free_space() {
    let options = manual().segment_bytes(64 << 10).max_log_bytes(64 << 20).checkpoint_log_bytes(1 << 30);
    for (snapshots, by_itself) in [(0, true), (1, true), (2, true), (0, false), (1, false), (2, false)] {
        let disk = SimDisk::new(1);
        disk.set_free_bytes(Some(3 << 20));
        let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
        for key in 0..5 {
            engine.insert(format!("{key}"), vec![1; 3000]).unwrap();
        }
        for _ in 0..snapshots {
            for _ in 0..50 {
                engine.insert("key", vec![1; 3000]).unwrap();
            }
            engine.checkpoint().unwrap();
        }
        for round in 0..5 {
            fill(&engine);
            if by_itself {
                for _ in 0..5 {
                    disk.advance(Duration::from_secs(1));
                    while engine.step(Step::Checkpoint).unwrap_or(false) {}
                    let _ = engine.step(Step::Log(LogStep::PrepareSegment));
                }
            } else {
                engine.checkpoint().unwrap();
            }
            for n in 0..200 {
                let inserted = engine.insert("key", vec![n; 3000]);
                assert!(inserted.is_ok(), "{snapshots}, {by_itself}, {round}, {n}: {inserted:?} {:?}", engine.stats());
            }
        }
        let opened = open_on::<Kv>(&disk.crash(Crash::Nothing), &options).unwrap();
        assert_eq!(opened.0.read(Kv::len).unwrap(), 6);
        assert_eq!(opened.0.get("key").unwrap().as_deref(), Some(&[199; 3000][..]));
    }
}

/// N1: a checkpoint that frees nothing on a full disk says so.
#[test]
fn a_checkpoint_that_cannot_free_space_says_so() {
    let options = manual().segment_bytes(64 << 10).max_log_bytes(64 << 20).checkpoint_log_bytes(1 << 30);
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
    engine.insert("a", "b").unwrap();
    engine.checkpoint().unwrap();
    disk.set_free_bytes(Some(0));
    fill(&engine);
    for _ in 0..3 {
        assert!(engine.checkpoint().unwrap_err().is_full());
    }
    disk.set_free_bytes(Some(1 << 20));
    engine.checkpoint().unwrap();
    engine.insert("key", "small").unwrap();
}

/// N1: a snapshot that never fits is not written all the time, and commits resume with the space.
#[test]
fn a_snapshot_that_does_not_fit_is_tried_at_most_half_of_the_time() {
    let options = manual().segment_bytes(64 << 10).max_log_bytes(64 << 20).checkpoint_log_bytes(1 << 30);
    let disk = SimDisk::new(1);
    disk.set_free_bytes(Some(3 << 20));
    let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
    (0..300).for_each(|key| drop(engine.insert(format!("{key}"), vec![1; 3000]).unwrap()));
    disk.advance(Duration::from_secs(1));
    for round in 0..3 {
        fill(&engine);
        assert!(engine.step(Step::Checkpoint).unwrap(), "round {round}: {:?}", engine.stats());
        disk.advance(Duration::from_secs(30));
        let error = std::iter::repeat_with(|| engine.step(Step::Checkpoint)).find_map(Result::err).unwrap();
        assert!(error.is_full(), "{error:?}");
        disk.advance(Duration::from_millis(29_999));
        assert!(!engine.step(Step::Checkpoint).unwrap(), "it rests");
        disk.advance(Duration::from_millis(1));
    }
    // a checkpoint has failed just now, and commits do not wait for the next one
    engine.checkpoint().unwrap_err();
    disk.set_free_bytes(None);
    let _ = engine.step(Step::Log(LogStep::PrepareSegment));
    engine.insert("key", "small").unwrap();
    engine.checkpoint().unwrap();
}
