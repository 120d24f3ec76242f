//! Restarts: whatever their number, a store keeps few files and opens few at once. And rotations
//! that are refused for a moment.

use crate::common::{Cmd, Stacks, crash_choice, manual, names, open, open_on, state};
use seawal::ids::Lsn;
use seawal::inspect::{self, Soundness};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Log, LogOptions, LogStep};
use seawal::{Background, Engine, Options, Step};
use std::sync::Arc;

/// More files than a store has open in any operation, however many segments it has.
const FEW: usize = 16;

#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Dropped,
    Closed,
}

/// Ends an engine. Returns the disk that is there afterwards.
fn end(disk: SimDisk, engine: Engine<Stacks>, how: End) -> SimDisk {
    match how {
        End::Killed => {
            let after = disk.crash(Crash::KillOnly);
            drop(engine);
            after
        }
        End::Dropped => {
            drop(engine);
            disk
        }
        End::Closed => {
            engine.close().unwrap();
            disk
        }
    }
}

fn disk_bytes(disk: &SimDisk) -> usize {
    disk.file_names().iter().map(|name| disk.read_file(name).unwrap().len()).sum()
}

/// Restarts a store again and again. Every `every`th start pushes one value.
fn restart(restarts: u32, every: u32, how: impl Fn(u32) -> End) {
    let mut disk = SimDisk::new(1);
    let mut pushed = Vec::new();
    for n in 0..restarts {
        disk.take_most_open_files();
        let (engine, _) = open(&disk);
        assert_eq!(state(&engine).at(1), pushed, "restart {n}");
        if n % every == 0 {
            engine.execute(Cmd::push(1, n)).unwrap();
            pushed.push(n);
        }
        disk = end(disk, engine, how(n));
        let (open, files, bytes) = (disk.take_most_open_files(), disk.file_names().len(), disk_bytes(&disk));
        assert!(open <= FEW, "restart {n}: {open} files are open at once");
        assert!(files <= 90 && bytes <= 4 << 20, "restart {n}: {bytes} bytes in {files} files");
    }
    disk.take_most_open_files();
    let report = inspect::verify_machine::<Stacks>(Arc::new(disk.clone())).unwrap();
    assert_eq!(report.soundness(), Soundness::Clean, "{report}");
    assert!(disk.take_most_open_files() <= FEW);
}

/// S1: the number of restarts decides nothing.
#[test]
fn any_number_of_restarts_with_little_data_leaves_few_files_of_which_few_are_open() {
    restart(300, 1, |_| End::Killed);
    restart(300, 7, |_| End::Killed);
    restart(300, 2, |_| End::Dropped);
    restart(300, 2, |_| End::Closed);
    restart(500, 5, |n| [End::Killed, End::Dropped, End::Killed, End::Closed][n as usize * 7 % 13 % 4]);
}

/// S1: each process is killed as soon as its checkpoint is published, before it deletes what that
/// checkpoint made unnecessary. Later opens delete it, though none of them lives any longer.
#[test]
fn what_killed_checkpoints_could_not_delete_is_deleted_by_later_opens() {
    let mut disk = SimDisk::new(1);
    let options = manual().max_log_bytes(64 << 20);
    let (mut published, mut most) = (0, 0);
    for n in 0..200 {
        let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
        assert_eq!(state(&engine).at(1), (0..n).collect::<Vec<_>>());
        engine.execute(Cmd::push(1, n)).unwrap();
        // it freezes, writes and publishes, if one is due
        published += u32::from((0..3).all(|_| engine.step(Step::Checkpoint).unwrap()));
        disk = end(disk, engine, End::Killed);
        most = most.max(disk.file_names().len());
    }
    assert!(published > 5 && most <= 64, "{published} checkpoints, {most} files");
}

/// S1: an open that writes nothing leaves nothing behind, also without an engine that checkpoints.
#[test]
fn an_open_that_writes_nothing_leaves_no_segment() {
    let disk = SimDisk::new(2);
    let log = |disk: &SimDisk| Log::open_on(Arc::new(disk.clone()), log_options()).unwrap();
    log(&disk).append(b"one").unwrap().wait().unwrap();
    drop(log(&disk));
    let segments = names(&disk, ".seg");
    let mut disk = disk;
    for n in 0..2000 {
        let opened = log(&disk);
        assert_eq!(opened.read_from(Lsn::ZERO).unwrap().count(), 1);
        match n % 3 {
            0 => opened.close().unwrap(),
            1 => drop(opened),
            _ => {
                disk = disk.crash(Crash::KillOnly);
                drop(opened);
            }
        }
        assert_eq!(names(&disk, ".seg"), segments, "restart {n}");
    }
}

fn log_options() -> LogOptions {
    let mut options = LogOptions::default();
    options.background = Background::Manual;
    options.first_segment_bytes = 32 << 10;
    options.segment_bytes = 64 << 10;
    options
}

/// S1: a crash at any operation of such an open takes nothing with it, and neither does the next
/// open.
#[test]
fn a_crash_at_any_operation_of_an_open_that_replaces_an_unused_segment_leaves_every_record() {
    let open = |disk: &SimDisk| Log::open_on(Arc::new(disk.clone()), log_options());
    let records = |log: &Log| log.read_from(Lsn::ZERO).unwrap().map(|r| r.unwrap().1).collect::<Vec<_>>();
    let disk = SimDisk::new(3);
    let log = open(&disk).unwrap();
    let mut wanted: Vec<Vec<u8>> = (0..9u8).map(|n| vec![n; 5000 + usize::from(n)]).collect();
    wanted.iter().for_each(|record| log.append(record).unwrap().wait().unwrap());
    drop(log);
    drop(open(&disk).unwrap());
    let whole = disk.crash(Crash::Everything);
    let segments = names(&whole, ".seg");
    drop(open(&whole).unwrap());
    assert_eq!(names(&whole, ".seg"), segments, "the unused segment is replaced");
    wanted.push(b"after".to_vec());
    for op in 0..whole.op_count() {
        for seed in 0..8 {
            let crashed = disk.crash(Crash::Everything);
            crashed.fail_at(op, Fault::Crash, Persistence::ForEver);
            let _ = open(&crashed);
            let crash = crash_choice(op, seed);
            let crashed = crashed.crash(crash);
            let log = open(&crashed).unwrap_or_else(|e| panic!("operation {op}, {crash:?}: {e}"));
            assert_eq!(records(&log), wanted[..9], "operation {op}, {crash:?}");
            log.append(b"after").unwrap().wait().unwrap();
            let crashed = crashed.crash(Crash::Nothing);
            assert_eq!(records(&open(&crashed).unwrap()), wanted, "operation {op}, {crash:?}");
        }
    }
}

/// S1: however many segments hold records, few files are open at once, with read-ahead too.
#[test]
fn a_log_of_many_segments_is_read_with_few_files_open() {
    let disk = SimDisk::new(4);
    let options = manual().max_log_bytes(64 << 20).checkpoint_log_bytes(64 << 20);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    for n in 0..800 {
        engine.execute(Cmd::Push { key: 1, value: n, pad: 5000 }).unwrap();
    }
    let wanted = state(&engine);
    drop(engine);
    assert!(names(&disk, ".seg").len() > 3 * FEW);
    for background in [Background::Manual, Background::Threads] {
        let disk = disk.crash(Crash::Everything);
        disk.take_most_open_files();
        let (engine, _) = open_on::<Stacks>(&disk, &options.clone().background(background)).unwrap();
        assert_eq!(state(&engine), wanted);
        drop(engine);
        let open = disk.take_most_open_files();
        assert!(open <= FEW, "{background:?}: {open}");
    }
    inspect::verify_machine::<Stacks>(Arc::new(disk.clone())).unwrap();
    inspect::write_text(Arc::new(disk.clone()), inspect::Detail::Records, &mut Vec::new()).unwrap();
    seawal::salvage::salvage::<Stacks>(
        Arc::new(disk.clone()),
        Arc::new(SimDisk::new(5)),
        seawal::salvage::Reach::Beyond,
    )
    .unwrap();
    let open = disk.take_most_open_files();
    assert!(open <= FEW, "{open} files are open");
}

/// S1, S13: the segments that open transactions have reserved take no descriptors.
#[test]
fn many_open_transactions_leave_few_files_open() {
    let disk = SimDisk::new(11);
    let (engine, _) = open_on::<Stacks>(&disk, &manual().max_log_bytes(64 << 20)).unwrap();
    let begin = |key: u8| {
        let tx = engine.begin().unwrap();
        tx.execute(Cmd::push(key, 1)).unwrap();
        tx
    };
    let open: Vec<_> = (0..200).map(begin).collect();
    let spares = disk.file_names().iter().filter(|name| name.starts_with("spare-")).count();
    let most = disk.take_most_open_files();
    assert!(spares > 3 * FEW && most <= FEW, "{spares} preallocated segments, {most} open files");
    // the log enters the open ones, and then others
    (0..40).for_each(|n| _ = engine.execute(Cmd::Push { key: 201, value: n, pad: 20_000 }).unwrap());
    let (rolled_back, committed): (Vec<_>, Vec<_>) = open.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    rolled_back.into_iter().for_each(|(_, tx)| tx.rollback().unwrap());
    committed.into_iter().for_each(|(_, tx)| tx.commit().unwrap());
    assert_eq!(state(&engine).by_key.len(), 101);
    assert!(disk.take_most_open_files() <= FEW);
}

/// Fills the pool, so that the next rotation needs no other segment to be made.
fn fill_pool(engine: &Engine<Stacks>) {
    while engine.step(Step::Log(LogStep::PrepareSegment)).unwrap() {}
}

fn with_many_spares() -> Options {
    manual().preallocated_segments(8)
}

/// S2: a rotation opens nothing, so a process without descriptors goes on committing.
#[test]
fn a_rotation_needs_no_descriptor() {
    let disk = SimDisk::new(6);
    let (engine, _) = open_on::<Stacks>(&disk, &with_many_spares()).unwrap();
    for round in 0..2 {
        fill_pool(&engine);
        let segments = names(&disk, ".seg").len();
        disk.fail_next(OpKind::Open, Fault::Eio, Persistence::ForEver);
        disk.fail_next(OpKind::Create, Fault::Eio, Persistence::ForEver);
        let rotates = |n| {
            engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).unwrap();
            names(&disk, ".seg").len() > segments
        };
        assert!((0..12).any(rotates), "round {round}: the log rotates");
        disk.clear_faults();
        // recycled segments are kept open, too
        engine.checkpoint().unwrap();
        engine.execute(Cmd::push(2, 1)).unwrap();
        engine.checkpoint().unwrap();
    }
}

/// S2: a rename that is refused as the log rotates fails that commit, and the log goes on.
#[test]
fn a_rotation_that_is_refused_fails_that_commit_and_latches_nothing() {
    let disk = SimDisk::new(7);
    let (engine, _) = open_on::<Stacks>(&disk, &with_many_spares()).unwrap();
    for round in 0..3 {
        fill_pool(&engine);
        disk.fail_next(OpKind::Rename, Fault::Eio, Persistence::ForEver);
        let failed = (0..40).find_map(|n| {
            let failed = engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).err()?;
            Some(failed.to_string())
        });
        let failed = failed.expect("the log rotates");
        assert!(failed.contains("rename") && !failed.contains(".tmp"), "round {round}: {failed}");
        let again = engine.execute(Cmd::push(2, 1)).unwrap_err().to_string();
        assert!(again.contains("rename"), "round {round}: {again}");
        disk.clear_faults();
        engine.execute(Cmd::push(3, round)).unwrap();
        // what was queued became durable with that commit
        let (reopened, _) = open(&disk.crash(Crash::Nothing));
        assert_eq!(state(&reopened), state(&engine), "round {round}");
    }
    engine.close().unwrap();
}

/// S2: a failed sync of the directory, and a failed write of the header, still latch.
#[test]
fn a_rotation_whose_sync_or_header_fails_latches() {
    for kind in [OpKind::SyncDir, OpKind::WriteDurableAt] {
        let disk = SimDisk::new(8);
        let (engine, _) = open_on::<Stacks>(&disk, &with_many_spares()).unwrap();
        fill_pool(&engine);
        disk.fail_next(kind, Fault::Eio, Persistence::ForEver);
        let failed = (0..40).find_map(|n| engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).err());
        assert!(failed.is_some());
        disk.clear_faults();
        let seawal::ExecuteError::Failed(error) = engine.execute(Cmd::push(1, 1)).unwrap_err() else { panic!() };
        assert!(error.is_latched(), "{kind}: {error}");
    }
}

/// A clean end in a recycled segment, where older bytes follow, is no torn tail.
#[test]
fn a_closed_log_is_not_torn_though_its_last_segment_was_recycled() {
    for small in 0..8 {
        let disk = SimDisk::new(9);
        let open = |disk: &SimDisk| Log::open_on(Arc::new(disk.clone()), log_options()).unwrap();
        let log = open(&disk);
        let append = |bytes: usize| log.append(&vec![0xa5; bytes]).unwrap().wait().unwrap();
        (0..40).for_each(|_| append(14_000));
        log.truncate_before(log.durable_lsn()).unwrap();
        (0..8).for_each(|_| append(14_000));
        (0..small).for_each(|_| append(100));
        log.close().unwrap();
        let log = open(&disk);
        assert_eq!(log.recovery_report().tail, None, "{small} small records");
    }
}

/// A log on its own that was truncated has neither snapshots nor its beginning, and is whole.
#[test]
fn a_truncated_log_without_an_engine_is_verified_as_clean() {
    let disk = SimDisk::new(10);
    let log = Log::open_on(Arc::new(disk.clone()), log_options()).unwrap();
    let append = || log.append(&[7; 9000]).unwrap().wait().unwrap();
    (0..30).for_each(|_| append());
    log.truncate_before(log.durable_lsn()).unwrap();
    (0..5).for_each(|_| append());
    log.close().unwrap();
    let report = inspect::verify(Arc::new(disk.clone())).unwrap();
    assert_eq!(report.soundness(), Soundness::Clean, "{report}");
    assert!(report.records >= 5 && report.open_error.is_none(), "{report}");
    // its damage is still found
    let last = names(&disk, ".seg").pop().unwrap();
    disk.overwrite(&last, 4096, &[0; 4096]).unwrap();
    let report = inspect::verify(Arc::new(disk)).unwrap();
    assert_eq!(report.soundness(), Soundness::Damaged, "{report}");
}
