//! When a checkpoint is due, and what happens to commits near the log's bound.

use crate::common::{Cmd, Stacks, manual, names, open_on, state};
use crate::like_stacks::as_the_stacks;
use seawal::kv::{Kv, KvCommand};
use seawal::machine::{Bulk, BulkMachine, PartWriter, StateMachine};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Background, LogStats, LogStep};
use seawal::{Durability, Engine, Error, ExecuteError, Options, Step};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Whether a trigger started a checkpoint, which is then completed.
fn is_due<M: StateMachine>(engine: &Engine<M>) -> bool {
    let begun = engine.step(Step::Checkpoint).unwrap();
    while engine.step(Step::Checkpoint).unwrap() {}
    begun
}

#[test]
fn a_store_that_is_only_opened_again_and_again_gives_its_segments_back_when_they_crowd_the_log() {
    let disk = SimDisk::new(1);
    let options = manual().checkpoint_log_bytes(1 << 30);
    let open = |options: &Options| open_on::<Stacks>(&disk, options).unwrap().0;
    let bytes = || names(&disk, ".seg").iter().map(|name| disk.read_file(name).unwrap().len() as u64).sum::<u64>();
    let engine = open(&options);
    engine.execute(Cmd::push(1, 1)).unwrap();
    while bytes() <= 128 << 10 {
        engine.execute(Cmd::Push { key: 2, value: 2, pad: 3000 }).unwrap();
        engine.execute(Cmd::Pop { key: 2 }).unwrap();
    }
    // the older log is kept, for a first snapshot has no other to fall back to
    engine.checkpoint().unwrap();
    drop(engine);
    // the first of these takes the smallest segments that are ready
    (0..4).for_each(|_| drop(open(&options)));
    let crowd = bytes();
    let crowded = options.clone().max_log_bytes(crowd * 8 / 5);
    for _ in 0..40 {
        let engine = open(&crowded);
        disk.advance(Duration::from_secs(10));
        // the log is crowded, but not near the bound, and there are no new records
        assert!(!is_due(&engine), "{} bytes", bytes());
        drop(engine);
        assert_eq!(bytes(), crowd, "an open that writes nothing leaves nothing");
    }
    let near_bound = options.max_log_bytes(crowd * 5 / 4);
    let engine = open(&near_bound);
    disk.advance(Duration::from_secs(10));
    assert!(is_due(&engine), "{} bytes", bytes());
    disk.advance(Duration::from_millis(999));
    assert!(!is_due(&engine), "not one right after the other");
    assert_eq!(engine.stats().checkpoints, 1);
    disk.advance(Duration::from_secs(1));
    is_due(&engine);
    assert!(bytes() <= crowd / 2, "{:?}", names(&disk, ".seg"));
    assert_eq!(state(&engine).at(1), [1]);
}

#[test]
fn a_checkpoint_that_failed_is_tried_again_after_a_second() {
    let disk = SimDisk::new(2);
    let (engine, _) = open_on::<Stacks>(&disk, &manual().checkpoint_log_bytes(8 << 10)).unwrap();
    for n in 0..10 {
        engine.execute(Cmd::Push { key: 1, value: n, pad: 2000 }).unwrap();
    }
    assert!(engine.step(Step::Checkpoint).unwrap());
    disk.fail_next(OpKind::SyncAll, Fault::Eio, Persistence::Once);
    engine.step(Step::Checkpoint).unwrap_err();
    assert!(engine.stats().checkpoint_error.is_some());
    disk.advance(Duration::from_millis(900));
    assert!(!is_due(&engine));
    disk.advance(Duration::from_millis(200));
    assert!(is_due(&engine));
    assert_eq!((engine.stats().checkpoints, engine.stats().checkpoint_error.is_none()), (1, true));
}

#[test]
fn a_budget_that_cannot_be_met_still_takes_checkpoints_after_some_rest() {
    let disk = SimDisk::new(3);
    let options = manual().checkpoint_log_bytes(1 << 30).max_log_bytes(64 << 20).recover_within(Duration::ZERO);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    engine.execute(Cmd::push(1, 2)).unwrap();
    assert!(!is_due(&engine), "right after the last");
    disk.advance(Duration::from_secs(100));
    assert!(is_due(&engine) && engine.stats().recovery_budget_cannot_be_met);
    assert!(!is_due(&engine), "nothing is new");
}

/// Stacks that cannot be saved while the flag is set.
macro_rules! cannot_be_saved {
    ($machine:ident while $says_so:ident) => {
        static $says_so: AtomicBool = AtomicBool::new(false);

        #[derive(Clone, Default)]
        struct $machine(Stacks);

        impl StateMachine for $machine {
            const NAME: &'static str = "stacks";
            const VERSION: u32 = 1;
            as_the_stacks!(commands apply decode load);
            fn save(&self, out: &mut dyn Write) -> io::Result<()> {
                if $says_so.load(Ordering::SeqCst) { Err(io::Error::other("not now")) } else { self.0.save(out) }
            }
        }
    };
}

cannot_be_saved!(Unwilling while UNWILLING);
cannot_be_saved!(Reluctant while RELUCTANT);
cannot_be_saved!(Sullen while SULLEN);
cannot_be_saved!(Gloomy while GLOOMY);

/// U15: `execute` waited for log space while it held footprint locks.
#[test]
fn a_command_that_had_to_wait_for_a_lock_holds_nobody_up_while_the_log_is_at_its_bound() {
    let disk = SimDisk::new(6);
    let options = manual()
        .background(Background::Threads)
        .lock_timeout(Duration::from_secs(60))
        .max_log_bytes(256 << 10)
        .checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Sullen>(&disk, &options).unwrap();
    SULLEN.store(true, Ordering::SeqCst);
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(7, 1)).unwrap();
    let waiting = {
        let engine = engine.clone();
        std::thread::spawn(move || engine.execute(Cmd::push(7, 2)).map(drop))
    };
    while engine.stats().lock_waiters == 0 {
        std::thread::yield_now();
    }
    let mut pushed = 0;
    let at_limit = |log: LogStats| log.segment_bytes + log.rollback_bytes > 256 << 10;
    while !at_limit(engine.stats().log.unwrap()) {
        engine.execute(Cmd::Push { key: 1, value: pushed, pad: 3000 }).unwrap();
        pushed += 1;
        assert!(pushed < 1000, "the log grows");
    }
    // every checkpoint fails, so a commit that begins now waits for a minute
    let began = Instant::now();
    tx.rollback().unwrap();
    engine.read(|_| ()).unwrap();
    waiting.join().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    SULLEN.store(false, Ordering::SeqCst);
}

/// H2, H4: commits wait at the bound without a limit, and a close ends these waits.
#[test]
fn a_close_ends_the_waits_at_the_bound_of_the_log() {
    let disk = SimDisk::new(6);
    let options = manual()
        .background(Background::Threads)
        .lock_timeout(Duration::MAX)
        .max_log_bytes(256 << 10)
        .checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Gloomy>(&disk, &options).unwrap();
    GLOOMY.store(true, Ordering::SeqCst);
    let tx = engine.begin().unwrap();
    let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let pusher = {
        let (engine, begun) = (engine.clone(), begun.clone());
        std::thread::spawn(move || {
            loop {
                begun.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = engine.execute(Cmd::Push { key: 1, value: 1, pad: 3000 }) {
                    return error;
                }
            }
        })
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut before, mut still) = (0, 0);
    while still < 20 {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        std::thread::sleep(Duration::from_millis(10));
        let now = begun.load(Ordering::SeqCst);
        still = if now == before && engine.stats().log.unwrap().segment_bytes > 256 << 10 { still + 1 } else { 0 };
        before = now;
    }
    assert!(!pusher.is_finished(), "it waits without a limit");
    let waiting = std::thread::spawn(move || tx.execute(Cmd::push(2, 1)).unwrap_err());
    std::thread::sleep(Duration::from_millis(50));
    let closing = {
        let (engine, ended) = (engine.clone(), ended.clone());
        std::thread::spawn(move || {
            // the state cannot be saved, so the close takes no checkpoint
            let _ = engine.close();
            ended.store(true, Ordering::SeqCst);
        })
    };
    while !ended.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "the close waits");
        std::thread::sleep(Duration::from_millis(1));
    }
    closing.join().unwrap();
    assert!(matches!(pusher.join().unwrap(), ExecuteError::Failed(Error::Closed)));
    assert!(matches!(waiting.join().unwrap(), ExecuteError::Failed(Error::Closed)));
}

#[test]
fn at_its_bound_the_log_refuses_commits_after_a_wait_and_takes_them_once_a_checkpoint_has_made_room() {
    let disk = SimDisk::new(4);
    let patience = Duration::from_millis(150);
    let options = manual()
        .background(Background::Threads)
        .lock_timeout(patience)
        .max_log_bytes(256 << 10)
        .checkpoint_log_bytes(1 << 30)
        .checkpoint_bytes_per_second(Some(1 << 20));
    let (engine, _) = open_on::<Unwilling>(&disk, &options).unwrap();
    let engine = Arc::new(engine);
    UNWILLING.store(true, Ordering::SeqCst);
    let mut done = Vec::new();
    let push = |n: u32| engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 });
    // every checkpoint fails: commits are throttled, and then refused
    let error = loop {
        let began = Instant::now();
        match push(done.len() as u32) {
            Ok(_) => done.push(done.len() as u32),
            Err(ExecuteError::Failed(error)) => {
                assert!(began.elapsed() >= patience, "{:?}", began.elapsed());
                break error;
            }
            Err(error) => panic!("{error:?}"),
        }
        assert!(done.len() < 1000, "the bound is kept to");
    };
    assert!(error.is_full(), "{error:?}");
    assert!(engine.stats().checkpoint_error.is_some());
    assert!(engine.stats().log.unwrap().segment_bytes > 256 << 10);
    UNWILLING.store(false, Ordering::SeqCst);
    // The maintenance thread tries again after a second of the disk's time. From then on commits
    // succeed, also those that waited for it.
    let deadline = Instant::now() + Duration::from_secs(30);
    while push(done.len() as u32).is_err() {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        disk.advance(Duration::from_secs(1));
    }
    done.push(done.len() as u32);
    drop(engine);
    let (engine, _) = open_on::<Unwilling>(&disk.crash(Crash::Nothing), &manual()).unwrap();
    assert_eq!(engine.read(|state| state.0.at(1)).unwrap(), done);
}

#[test]
fn who_waits_at_the_bound_goes_on_as_soon_as_a_checkpoint_has_made_room() {
    let disk = SimDisk::new(6);
    // the lock timeout is longer than the test
    let options = manual()
        .background(Background::Threads)
        .lock_timeout(Duration::from_secs(600))
        .max_log_bytes(256 << 10)
        .checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Reluctant>(&disk, &options).unwrap();
    let engine = Arc::new(engine);
    RELUCTANT.store(true, Ordering::SeqCst);
    let (begun, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let pusher = {
        let (engine, begun, done) = (engine.clone(), begun.clone(), done.clone());
        std::thread::spawn(move || {
            for value in 0..100 {
                begun.store(value + 1, Ordering::SeqCst);
                engine.execute(Cmd::Push { key: 1, value, pad: 3000 }).unwrap();
                done.store(value + 1, Ordering::SeqCst);
            }
        })
    };
    // Every checkpoint fails. The log exceeds its bound, and from then on only commits that had
    // begun complete.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut still = 0;
    while still < 20 {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        let before = (begun.load(Ordering::SeqCst), done.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(10));
        let is_at_bound = engine.stats().log.unwrap().segment_bytes > 256 << 10;
        let waits = before.0 > before.1 && before == (begun.load(Ordering::SeqCst), done.load(Ordering::SeqCst));
        still = if is_at_bound && waits { still + 1 } else { 0 };
    }
    assert!(done.load(Ordering::SeqCst) < 100);
    RELUCTANT.store(false, Ordering::SeqCst);
    while !pusher.is_finished() {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        disk.advance(Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(1));
    }
    pusher.join().unwrap();
    assert_eq!(engine.read(|state| state.0.at(1)).unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_checkpoint_under_way_is_given_up_when_the_last_handle_is_gone() {
    let disk = SimDisk::new(8);
    // at one byte per second, a paced checkpoint would take 0.1 s for each mebibyte
    let options = Options::new().checkpoint_log_bytes(8 << 20).checkpoint_bytes_per_second(Some(1));
    let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
    for n in 0..64u8 {
        engine.execute_with(KvCommand::put("", [n], vec![n; 1 << 20]), Durability::Os).unwrap();
    }
    engine.sync().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !disk.file_names().iter().any(|name| name.ends_with(".snap.tmp")) {
        assert!(Instant::now() < deadline, "{:?}", engine.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(engine);
    assert!(!disk.file_names().iter().any(|name| name.contains(".snap")), "{:?}", disk.file_names());
    let (engine, report) = open_on::<Kv>(&disk, &options).unwrap();
    assert_eq!((report.redone, engine.get([63]).unwrap().map(|value| value.len())), (64, Some(1 << 20)), "{report:?}");
}

#[test]
fn a_rate_of_nothing_is_refused_and_no_rate_or_any_other_is_not() {
    for (rate, is_refused) in [(None, false), (Some(0), true), (Some(1), false), (Some(u64::MAX), false)] {
        let disk = SimDisk::new(7);
        // the state is so small that it is written at once at any rate; without threads nothing
        // waits
        let opened = open_on::<Stacks>(&disk, &manual().checkpoint_bytes_per_second(rate));
        match opened {
            Ok((engine, _)) => {
                engine.execute(Cmd::push(1, 1)).unwrap();
                engine.close().unwrap();
                assert!(!is_refused, "{rate:?}");
            }
            Err(error) => {
                assert!(is_refused && matches!(error, Error::InvalidArgument { .. }), "{rate:?}: {error:?}");
                assert!(disk.file_names().is_empty());
            }
        }
    }
}

#[test]
fn what_another_commit_has_made_durable_is_not_synced_when_it_is_due() {
    let disk = SimDisk::new(5);
    let (engine, _) = open_on::<Stacks>(&disk, &manual()).unwrap();
    let interval = Durability::Interval(Duration::from_millis(5));
    engine.execute_with(Cmd::push(1, 1), interval).unwrap();
    engine.execute(Cmd::push(1, 2)).unwrap();
    disk.advance(Duration::from_millis(10));
    let operations = disk.op_count();
    assert!(!engine.step(Step::Log(LogStep::SyncDue)).unwrap());
    assert_eq!(disk.op_count(), operations);
    // a commit that is not durable yet is synced
    engine.execute_with(Cmd::push(1, 3), interval).unwrap();
    assert_eq!(state(&open_on::<Stacks>(&disk.crash(Crash::Nothing), &manual()).unwrap().0).at(1), [1, 2]);
    disk.advance(Duration::from_millis(10));
    assert!(engine.step(Step::Log(LogStep::SyncDue)).unwrap());
    assert_eq!(state(&open_on::<Stacks>(&disk.crash(Crash::Nothing), &manual()).unwrap().0).at(1), [1, 2, 3]);
}

/// Stacks that are saved in many parts, wait at the last one for this flag, and report many
/// copy-on-write duplicates meanwhile. They report them the number of times that `MUCH` says.
static SAVED: AtomicBool = AtomicBool::new(false);
static SAVING: AtomicBool = AtomicBool::new(false);
static SAVES: AtomicU32 = AtomicU32::new(0);
static MUCH: AtomicU32 = AtomicU32::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Default)]
struct Copied(Stacks);

impl StateMachine for Copied {
    const NAME: &'static str = "copied";
    const VERSION: u32 = 1;
    const BULK: Option<Bulk<Self>> = Some(Bulk::of());
    as_the_stacks!(commands apply decode load);
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (0..15).try_for_each(|_| out.write_all(b"part"))
    }
}

impl BulkMachine for Copied {
    fn save_parts(self, out: &mut dyn PartWriter) -> io::Result<()> {
        SAVES.fetch_add(1, Ordering::SeqCst);
        for _ in 0..15 {
            out.write_all(b"part")?;
            out.end_part()?;
        }
        SAVING.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !SAVED.load(Ordering::SeqCst) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        SAVES.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
    fn copied_share(&self) -> f64 {
        ASKED.fetch_add(1, Ordering::SeqCst);
        if SAVES.load(Ordering::SeqCst) == 0 {
            return 0.0;
        }
        let more = MUCH.try_update(Ordering::SeqCst, Ordering::SeqCst, |more| more.checked_sub(1));
        if more.is_ok() { 0.25 } else { 0.0 }
    }
}

#[test]
fn where_copies_beside_a_checkpoint_take_much_memory_it_hurries_and_commits_wait_for_it() {
    let disk = SimDisk::new(6);
    let options = manual().max_log_bytes(1 << 30).checkpoint_log_bytes(1 << 30);
    let options = options.background(Background::Threads).checkpoint_bytes_per_second(Some(1));
    let (engine, _) = open_on::<Copied>(&disk, &options).unwrap();
    let push = |n: u32| _ = engine.execute(Cmd::push(1, n)).unwrap();
    let asked = || ASKED.swap(0, Ordering::SeqCst);
    let checkpoint = || {
        let began = Instant::now();
        engine.checkpoint().unwrap();
        began.elapsed()
    };
    (0..200).for_each(push);
    assert_eq!(asked(), 0, "without a checkpoint nobody asks");
    // At one byte per second, the checkpoint pauses as long as possible after each part, unless
    // memory is short. Duplicates of another frozen state do not count.
    SAVED.store(true, Ordering::SeqCst);
    MUCH.store(u32::MAX, Ordering::SeqCst);
    SAVES.store(1, Ordering::SeqCst);
    let slow = checkpoint();
    assert!(slow >= Duration::from_millis(1500), "{slow:?}");
    SAVES.store(0, Ordering::SeqCst);
    push(200);
    let hurried = checkpoint();
    assert!(hurried < slow / 2, "{hurried:?} and {slow:?}");
    // a commit waits until there are fewer duplicates
    std::thread::scope(|scope| {
        [&SAVED, &SAVING].into_iter().for_each(|said| said.store(false, Ordering::SeqCst));
        push(201);
        scope.spawn(checkpoint);
        while !SAVING.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        MUCH.store(4, Ordering::SeqCst);
        asked();
        (202..202 + 64).for_each(push);
        assert_eq!(asked(), 5, "once, and until there was less");
        // the wait has a limit
        MUCH.store(u32::MAX, Ordering::SeqCst);
        (266..266 + 64).for_each(push);
        assert!(asked() > 1);
        MUCH.store(0, Ordering::SeqCst);
        SAVED.store(true, Ordering::SeqCst);
    });
    asked();
    (330..530).for_each(push);
    assert_eq!((asked(), engine.stats().checkpoints), (0, 3));
    assert_eq!(engine.read(|state| state.0.at(1)).unwrap(), (0..530).collect::<Vec<_>>());
}

/// The sizes of the segments and preallocated segments whose names begin like this.
fn sizes(disk: &SimDisk, begin: &str) -> Vec<u64> {
    let names = disk.file_names().into_iter().filter(|name| name.starts_with(begin) && !name.ends_with(".snap"));
    names.map(|name| disk.read_file(&name).unwrap().len() as u64).collect()
}

/// Pushes far more than the log may hold. Checkpoints are taken when they are due.
fn go_on(disk: &SimDisk, engine: &Engine<Stacks>) {
    for value in 0..1000 {
        let pushed = engine.execute(Cmd::Push { key: 3, value, pad: 2000 });
        assert!(pushed.is_ok(), "{pushed:?} at {value}: {:?} {:?}", engine.stats(), disk.file_names());
        let steps = (0..100).take_while(|_| {
            engine.step(Step::Checkpoint).unwrap() || engine.step(Step::Log(LogStep::PrepareSegment)).unwrap()
        });
        assert!(steps.count() < 100, "background work ends");
    }
}

/// H1: what partial rollbacks reserve is given back when each of them ends, so that the log's limit
/// refuses no later commit.
#[test]
fn many_partial_rollbacks_leave_the_log_its_room() {
    let disk = SimDisk::new(7);
    let options = manual().segment_bytes(64 << 10).max_log_bytes(256 << 10).checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    let tx = engine.begin().unwrap();
    for value in 0..2000 {
        let savepoint = tx.savepoint().unwrap();
        tx.execute(Cmd::push(1, value)).unwrap();
        tx.rollback_to(savepoint).unwrap();
    }
    tx.execute(Cmd::push(2, 7)).unwrap();
    assert!(engine.stats().log.unwrap().preallocated_bytes <= 4 * (64 << 10));
    tx.commit().unwrap();
    go_on(&disk, &engine);
    drop(engine);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    assert_eq!((state(&engine).at(1), state(&engine).at(2)), (vec![], vec![7]));
    go_on(&disk, &engine);
    let largest = sizes(&disk, "0").into_iter().chain(sizes(&disk, "spare")).max();
    assert_eq!(largest, Some(64 << 10), "no segment is larger than the option says");
}

/// H1, S13: room for the rollback of many open transactions counts towards the log's limit, and
/// comes back when they end.
#[test]
fn what_open_transactions_reserve_is_bounded_and_comes_back() {
    let disk = SimDisk::new(8);
    let options = manual().segment_bytes(64 << 10).max_log_bytes(256 << 10).checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    let mut open = Vec::new();
    let refused = loop {
        let tx = engine.begin().unwrap();
        match tx.execute(Cmd::push(open.len() as u8, 1)) {
            Ok(_) => open.push(tx),
            Err(error) => break error,
        }
        assert!(open.len() < 200, "the limit is kept to");
    };
    assert!(matches!(refused, ExecuteError::Failed(ref error) if error.is_full()), "{refused:?}");
    assert!(open.len() > 10, "{}", open.len());
    assert!(engine.stats().log.unwrap().preallocated_bytes >= 12 * open.len() as u64 * 1024);
    for tx in open {
        tx.commit().unwrap();
    }
    go_on(&disk, &engine);
    while engine.step(Step::Log(LogStep::PrepareSegment)).unwrap() {}
    let log = engine.stats().log.unwrap();
    assert!(log.preallocated_bytes <= 4 * (64 << 10), "{log:?}");
    assert_eq!(sizes(&disk, "spare").iter().sum::<u64>(), log.preallocated_bytes, "{:?}", disk.file_names());
}

/// H1: a store whose segments were larger goes on under smaller limits.
#[test]
fn a_store_goes_on_with_smaller_segments_and_a_smaller_limit_than_before() {
    let disk = SimDisk::new(9);
    let options = manual().max_log_bytes(8 << 20).segment_bytes(1 << 20).first_segment_bytes(1 << 20);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    for value in 0..100 {
        engine.execute(Cmd::Push { key: 1, value, pad: 20_000 }).unwrap();
        while engine.step(Step::Log(LogStep::PrepareSegment)).unwrap() {}
    }
    drop(engine);
    let options = manual().segment_bytes(64 << 10).max_log_bytes(256 << 10).checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    // the first checkpoint keeps the log as a stand-in for an older snapshot, and the second gives
    // it up
    for _ in 0..2 {
        engine.checkpoint().unwrap();
    }
    go_on(&disk, &engine);
    assert_eq!(state(&engine).at(1).len(), 100);
}
