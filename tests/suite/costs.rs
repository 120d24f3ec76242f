//! What checkpoints and closes cost: a checkpoint is due by what it would write, and a close costs
//! about what has changed.

use crate::common::manual;
use seawal::inspect::{self, Soundness};
use seawal::kv::{Kv, KvCommand};
use seawal::recovery::Verdict;
use seawal::sim::{Crash, SimDisk};
use seawal::wal::{Background, LogStep};
use seawal::{Durability, Engine, Error, ExecuteError, Options, RecoveryPolicy, Step};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn options() -> Options {
    manual().segment_bytes(MIB).first_segment_bytes(MIB).checkpoint_log_bytes(256 << 10).max_log_bytes(64 * MIB)
}

fn open(disk: &SimDisk, options: &Options) -> Engine<Kv> {
    options.open_on(Arc::new(disk.clone())).unwrap()
}

fn put(key: u64, value_bytes: usize) -> KvCommand {
    KvCommand::put("", format!("{key:08}"), vec![key as u8; value_bytes])
}

/// A store of about 2 MiB, with a snapshot of all of it.
fn two_mib(options: &Options) -> (SimDisk, Engine<Kv>) {
    let disk = SimDisk::new(1);
    let engine = open(&disk, options);
    (0..2048).for_each(|key| drop(engine.execute_with(put(key, 1024), Durability::Os).unwrap()));
    engine.checkpoint().unwrap();
    (disk, engine)
}

/// The number and the bytes of the snapshots.
fn snapshots(disk: &SimDisk) -> (usize, usize) {
    let names = crate::common::names(disk, ".snap");
    (names.len(), names.iter().map(|name| disk.read_file(name).unwrap().len()).sum())
}

/// S17: A checkpoint is due once the log has grown by what it would write, not before, however low
/// `checkpoint_log_bytes` is.
#[test]
fn checkpoints_write_no_more_than_the_log() {
    let (disk, engine) = two_mib(&options());
    let snapshot = snapshots(&disk).1 as u64;
    assert!(snapshot > 2 * MIB, "{snapshot}");
    let mut taken = engine.stats().checkpoints;
    for n in 0..2000 {
        engine.execute(put(n % 2048, 1024)).unwrap();
        let before = engine.stats();
        assert!((snapshot..snapshot + snapshot / 8).contains(&before.checkpoint_due_bytes), "{before:?}");
        while engine.step(Step::Checkpoint).unwrap() {}
        let after = engine.stats();
        let is_due = before.log_bytes_since_snapshot >= before.checkpoint_due_bytes;
        assert_eq!(after.checkpoints > taken, is_due, "commit {n}: {before:?}");
        taken = after.checkpoints;
    }
    // 2000 durable commits take a block each
    assert_eq!(taken - 1, 2000 * 4096 / snapshot.next_multiple_of(4096), "{:?}", engine.stats());
}

/// N11: The directory of a small store takes a few times `checkpoint_log_bytes`, however much is
/// written, and segments for the next interval are ready all the same.
#[test]
fn the_directory_of_a_small_store_is_bounded_by_the_log_between_checkpoints() {
    const DUE_BYTES: u64 = 256 << 10;
    let options = manual().segment_bytes(16 * MIB).first_segment_bytes(16 << 10).max_log_bytes(64 * MIB);
    let disk = SimDisk::new(1);
    let engine = open(&disk, &options.checkpoint_log_bytes(DUE_BYTES));
    for n in 0..1000 {
        engine.execute(put(n % 10, 10)).unwrap();
        for step in [Step::Log(LogStep::PrepareSegment), Step::Checkpoint] {
            while engine.step(step).unwrap() {}
        }
        let log = engine.stats().log.unwrap();
        assert!(log.preallocated_segments >= 2, "commit {n}: {log:?}");
        let sizes = disk.file_names().into_iter().map(|name| disk.read_file(&name).unwrap().len() as u64);
        let all = sizes.sum::<u64>();
        assert!(all <= 4 * DUE_BYTES, "commit {n}: {all} bytes, {log:?}");
    }
    assert!(engine.stats().checkpoints >= 10, "{:?}", engine.stats());
    // a record that is larger than such a segment still fits the log
    engine.execute(put(1, 5 << 20)).unwrap();
}

/// S10: A close after one change writes no snapshot, is a clean end, and whatever reads the store
/// accepts the log that is left.
#[test]
fn a_close_after_one_change_costs_about_that_change() {
    let (disk, engine) = two_mib(&options());
    let before = (crate::common::names(&disk, ".snap"), disk.op_count());
    engine.execute(put(7, 10)).unwrap();
    engine.close().unwrap();
    assert_eq!(crate::common::names(&disk, ".snap"), before.0, "no snapshot was written");
    assert!(disk.op_count() - before.1 < 20, "{} operations", disk.op_count() - before.1);
    drop(engine);
    let report = inspect::verify_machine::<Kv>(Arc::new(disk.clone())).unwrap();
    assert_eq!(report.soundness(), Soundness::Clean, "{report}");
    let readers = options().recovery(RecoveryPolicy::ReadOnly);
    for options in [&readers, &options(), &readers] {
        let engine = open(&disk, options);
        let report = engine.recovery_report();
        assert_eq!((report.verdict, report.records, report.undone), (Verdict::Clean, 1, 0), "{report}");
        assert!(report.tail.is_none() && report.warnings.is_empty(), "{report}");
        assert_eq!(engine.get("00000007").unwrap().unwrap(), [7; 10]);
        engine.close().unwrap();
    }
}

/// S10: Power loss right after such a close takes nothing back, not even what had asked for less.
#[test]
fn what_was_closed_without_a_checkpoint_survives_power_loss() {
    let (disk, engine) = two_mib(&options());
    engine.execute_with(put(1, 1), Durability::Os).unwrap();
    let open_one = engine.begin().unwrap();
    open_one.execute(put(2, 2)).unwrap();
    engine.close().unwrap();
    for crash in [Crash::Nothing, Crash::Everything, Crash::Seeded(1)] {
        let engine = open(&disk.crash(crash), &options());
        let report = engine.recovery_report();
        assert_eq!((report.verdict, report.undone), (Verdict::Clean, 0), "{report}");
        assert_eq!(engine.get("00000001").unwrap().unwrap(), [1; 1]);
        assert_eq!(engine.get("00000002").unwrap().unwrap(), [2; 1024]);
    }
}

/// S10: A close takes the checkpoint that costs no more than what has changed, unless none is
/// wanted.
#[test]
fn a_close_takes_a_checkpoint_where_much_has_changed_unless_none_is_wanted() {
    for wanted in [true, false] {
        let rare = options().checkpoint_log_bytes(1 << 40).checkpoint_on_close(wanted);
        let (disk, engine) = two_mib(&rare);
        (0..2048).for_each(|key| drop(engine.execute_with(put(key, 1100), Durability::Os).unwrap()));
        engine.close().unwrap();
        drop(engine);
        let engine = open(&disk, &rare);
        let report = engine.recovery_report();
        let records = if wanted { 0 } else { 2048 };
        assert_eq!((report.verdict, report.records), (Verdict::Clean, records), "{report}");
    }
}

/// S10: A store that is large, and closed again and again after little work, keeps a bounded log.
#[test]
fn many_closes_after_little_work_leave_a_bounded_log() {
    let (disk, engine) = two_mib(&options());
    engine.close().unwrap();
    drop(engine);
    let mut taken = 0;
    for n in 0..100 {
        let engine = open(&disk, &options());
        assert!(engine.recovery_report().records <= 40, "{}", engine.recovery_report());
        engine.execute(put(n, 100)).unwrap();
        engine.close().unwrap();
        taken += engine.stats().checkpoints;
    }
    assert!((4..=8).contains(&taken), "{taken} checkpoints");
}

/// S10: The drop of the last handle is as good as a close that takes no checkpoint: the next open
/// reads the same, and power loss takes nothing back.
#[test]
fn the_drop_of_the_last_handle_is_a_clean_end() {
    let quick = options().checkpoint_on_close(false);
    let next_open = |ends: fn(Engine<Kv>)| {
        let (disk, engine) = two_mib(&quick);
        engine.execute(put(7, 10)).unwrap();
        engine.execute_with(put(1, 1), Durability::Os).unwrap();
        ends(engine);
        let disk = disk.crash(Crash::Everything);
        disk.enable_trace();
        let engine = open(&disk, &quick);
        let report = engine.recovery_report();
        assert_eq!((report.verdict, report.undone), (Verdict::Clean, 0), "{report}");
        assert!(report.tail.is_none() && report.warnings.is_empty(), "{report}");
        assert_eq!(engine.get("00000001").unwrap().unwrap(), [1; 1]);
        let reads = disk.trace().iter().filter(|line| line.contains("Read")).count();
        assert!(reads > 0);
        (reads, report.records, report.log_bytes)
    };
    assert_eq!(next_open(drop), next_open(|engine| engine.close().unwrap()));
}

/// S10: A transaction that outlives the last handle is refused, and the next open rolls it back.
#[test]
fn a_transaction_may_outlive_the_last_handle() {
    for background in [Background::Manual, Background::Threads] {
        let options = options().background(background);
        let (disk, engine) = two_mib(&options);
        let left = engine.begin().unwrap();
        left.execute(put(2, 2)).unwrap();
        let other = engine.begin().unwrap();
        other.execute(put(3, 3)).unwrap();
        drop(engine);
        let before = crate::common::files(&disk);
        assert!(matches!(left.execute(put(4, 4)), Err(ExecuteError::Failed(Error::Closed))));
        assert!(matches!(left.commit(), Err(Error::Closed)));
        drop(other);
        assert_eq!(crate::common::files(&disk), before, "nothing is written any more");
        for disk in [disk.crash(Crash::Everything), disk] {
            let engine = open(&disk, &options);
            let report = engine.recovery_report();
            assert_eq!((report.verdict, report.undone), (Verdict::Clean, 2), "{report}");
            for key in [2, 3, 4] {
                assert_eq!(engine.get(format!("{key:08}")).unwrap().unwrap(), [key; 1024]);
            }
        }
    }
}

/// S10: A close gives a running checkpoint up, and that is no failure.
#[test]
fn a_checkpoint_that_is_given_up_has_not_failed() {
    let rare = options().checkpoint_log_bytes(1 << 40).checkpoint_on_close(false);
    let slow = rare.clone().background(Background::Threads).checkpoint_bytes_per_second(Some(1 << 16));
    for called in [true, false] {
        let (disk, engine) = two_mib(&rare);
        drop(engine);
        let engine = open(&disk, &slow);
        engine.execute(put(1, 1)).unwrap();
        let before = snapshots(&disk).0;
        std::thread::scope(|scope| {
            let checkpoint = called.then(|| scope.spawn(|| engine.checkpoint()));
            if !called {
                engine.step(Step::BeginCheckpoint).unwrap();
            }
            while crate::common::names(&disk, ".tmp").is_empty() {
                std::thread::yield_now();
            }
            engine.close().unwrap();
            if let Some(checkpoint) = checkpoint {
                assert!(matches!(checkpoint.join().unwrap(), Err(Error::Closed)));
            }
        });
        assert_eq!((engine.stats().checkpoints, snapshots(&disk).0), (0, before));
        assert!(engine.stats().checkpoint_error.is_none(), "{:?}", engine.stats().checkpoint_error);
    }
}

/// S10: The close of a store that has a checkpoint in progress does not take another one after it.
#[test]
fn a_close_finishes_a_checkpoint_in_progress_or_leaves_it() {
    for (changed, finishes) in [(4096, true), (1, false)] {
        let rare = options().checkpoint_log_bytes(1 << 40);
        let (disk, engine) = two_mib(&rare);
        let before = crate::common::names(&disk, ".snap");
        (0..changed).for_each(|key| drop(engine.execute_with(put(key % 2048, 1024), Durability::Os).unwrap()));
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        engine.close().unwrap();
        assert_eq!(engine.stats().checkpoints, 1 + u64::from(finishes));
        assert_eq!(crate::common::names(&disk, ".snap") != before, finishes);
        drop(engine);
        let engine = open(&disk, &rare);
        assert_eq!(engine.recovery_report().verdict, Verdict::Clean);
    }
}
