//! Checkpoints and backups of a machine that is expensive to clone: a second state is rebuilt from
//! the newest snapshot and the log, and the live state is left alone.

use crate::common::{Cmd, Empty, Rng, Stacks, manual, names, open_on, scale};
use crate::like_stacks::as_the_stacks;
use seawal::machine::{DecodeError, Footprint, SnapshotSource, StateMachine};
use seawal::sim::explore::{Explore, Look};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Background, LogStep};
use seawal::{Durability, Engine, Error, Step, Transaction};
use std::cell::{Cell, RefCell};
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FROZEN: u8 = 0;
const REPLAYED: u8 = 1;
const NEVER_CLONED: u8 = 2;

/// The stacks, whose checkpoints are taken in one way or the other.
#[derive(Default, Debug, PartialEq)]
struct By<const SOURCE: u8>(Stacks);

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Works,
    Fails,
    Panics,
}

thread_local! {
    static LOAD: Cell<Load> = const { Cell::new(Load::Works) };
    /// Called by each load of a state.
    static ON_LOAD: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
    /// What is added to each value that is pushed: it makes a machine break its law.
    static DRIFT: Cell<u32> = const { Cell::new(0) };
}

impl<const SOURCE: u8> Clone for By<SOURCE> {
    fn clone(&self) -> Self {
        assert!(SOURCE != NEVER_CLONED, "the state was cloned");
        By(self.0.clone())
    }
}

impl<const SOURCE: u8> StateMachine for By<SOURCE> {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 3;
    const SNAPSHOT_SOURCE: SnapshotSource =
        if SOURCE == FROZEN { SnapshotSource::Clone } else { SnapshotSource::Replay };
    as_the_stacks!(commands decode save);

    fn apply(&mut self, command: &Cmd) -> Result<(u32, Cmd), Empty> {
        match *command {
            Cmd::Push { key, value, pad } => self.0.apply(&Cmd::Push { key, value: value + DRIFT.get(), pad }),
            _ => self.0.apply(command),
        }
    }

    fn load(input: &mut dyn BufRead, version: u32) -> Result<Self, DecodeError> {
        ON_LOAD.with_borrow(|call| call.iter().for_each(|call| call()));
        match LOAD.get() {
            Load::Works => Stacks::load(input, version).map(By),
            Load::Fails => Err(DecodeError::new("there is no memory")),
            Load::Panics => panic!("as asked"),
        }
    }
}

type Replayed = By<REPLAYED>;
type NeverCloned = By<NEVER_CLONED>;

fn open<M: StateMachine>(disk: &SimDisk) -> Engine<M> {
    open_on::<M>(disk, &manual()).unwrap().0
}

fn state<const SOURCE: u8>(engine: &Engine<By<SOURCE>>) -> Stacks {
    engine.read(|machine| machine.0.clone()).unwrap()
}

fn push<const SOURCE: u8>(tx: &Transaction<By<SOURCE>>, key: u8, value: u32) {
    tx.execute(Cmd::push(key, value)).unwrap();
}

fn holding(stacks: &[(u8, &[u32])]) -> Stacks {
    Stacks { by_key: stacks.iter().map(|(key, stack)| (*key, stack.to_vec())).collect() }
}

/// U6: the state was cloned under the core lock, in a time that grows with it.
#[test]
fn neither_a_checkpoint_nor_a_backup_nor_a_digest_clones_the_state() {
    for (background, digests) in
        [Background::Manual, Background::Threads].map(|b| [(b, None), (b, Some(2))]).as_flattened()
    {
        let disk = SimDisk::new(1);
        let mut options = manual().background(*background);
        if let Some(every) = digests {
            options = options.digest_every(*every);
        }
        let (engine, _) = open_on::<NeverCloned>(&disk, &options).unwrap();
        for round in 0..6 {
            engine.execute(Cmd::push(1, round)).unwrap();
            let tx = engine.begin().unwrap();
            push(&tx, 2, round);
            engine.checkpoint().unwrap();
            let copy = SimDisk::new(2);
            engine.backup_to_storage(Arc::new(copy.clone())).unwrap();
            let wanted: Vec<u32> = (0..=round).collect();
            assert_eq!(state(&open::<NeverCloned>(&copy)), holding(&[(1, &wanted)]), "without what is open");
            while *background == Background::Manual && engine.step(Step::Digest).unwrap() {}
            tx.rollback().unwrap();
        }
        let stats = engine.stats();
        assert_eq!(stats.checkpoint_error.map(|error| error.to_string()), None);
        assert_eq!(stats.background_error.map(|error| error.to_string()), None);
        assert_eq!(stats.digests > 0, digests.is_some());
        check_after_kill(&engine, &disk);
    }
}

/// Checks that what a kill leaves can be opened, and is what the engine holds.
fn check_after_kill(engine: &Engine<NeverCloned>, disk: &SimDisk) {
    engine.sync().unwrap();
    let (after, report) = open_on::<NeverCloned>(&disk.crash(Crash::KillOnly), &manual()).unwrap();
    assert_eq!(state(&after), state(engine));
    assert!(report.snapshot.is_some());
}

/// Commands, transactions, savepoints, rotations and checkpoints in an order that the seed decides.
/// Returns the snapshots, by name.
fn snapshots_of<const SOURCE: u8>(seed: u64) -> Vec<(String, Vec<u8>)> {
    let disk = SimDisk::new(seed);
    let options = manual().durability(Durability::Os).checkpoint_log_bytes(1 << 30);
    let (engine, _) = open_on::<By<SOURCE>>(&disk, &options).unwrap();
    let mut rng = Rng::new(seed);
    let (mut open, mut found): (Vec<Transaction<_>>, Vec<_>) = (Vec::new(), Vec::new());
    for n in 0..400 {
        let key = rng.below(24) as u8;
        let at = rng.below(open.len().max(1) as u64) as usize;
        let command = Cmd::Push { key, value: n, pad: (rng.below(4) * 300) as u16 };
        match rng.below(16) {
            0..=4 => drop(engine.submit(command)),
            5 if open.len() < 5 => open.push(engine.begin().unwrap()),
            6 if at < open.len() => drop(open.swap_remove(at).submit().unwrap()),
            7 if at < open.len() => open.swap_remove(at).rollback().unwrap(),
            8 if at < open.len() => {
                let savepoint = open[at].savepoint().unwrap();
                let _ = open[at].execute(command);
                if open[at].rollback_to(savepoint).is_err() {
                    drop(open.swap_remove(at));
                }
            }
            9 => {
                engine.checkpoint().unwrap();
                let newest = names(&disk, ".snap").pop().unwrap();
                found.push((newest.clone(), disk.read_file(&newest).unwrap()));
            }
            _ if at < open.len() && open[at].execute(command).is_err() => drop(open.swap_remove(at)),
            _ => {}
        }
    }
    found
}

#[test]
fn a_snapshot_of_a_rebuilt_state_holds_what_one_of_a_frozen_state_holds() {
    for seed in 0..12 * scale() {
        let (frozen, replayed) = (snapshots_of::<FROZEN>(seed), snapshots_of::<REPLAYED>(seed));
        assert!(frozen.len() > 5);
        let lsns = |found: &[(String, Vec<u8>)]| found.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(lsns(&frozen), lsns(&replayed));
        for ((name, frozen), (_, replayed)) in frozen.iter().zip(&replayed) {
            // the header holds the time of the checkpoint, and a rebuilt one takes longer
            assert!(frozen[512..] == replayed[512..], "seed {seed}, {name}");
        }
    }
}

#[test]
fn transactions_open_at_a_rebuilt_checkpoint_commit_roll_back_or_are_lost_as_ever() {
    for stages_before in 0..5 {
        let disk = SimDisk::new(1);
        let engine = open::<NeverCloned>(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        if stages_before % 2 == 1 {
            engine.checkpoint().unwrap();
        }
        let before = engine.stats().checkpoints;
        let mut open: Vec<_> = (0..4).map(|_| engine.begin().unwrap()).collect();
        for round in 0..3 {
            open.iter_mut().zip(10..).for_each(|(tx, key)| push(tx, key, round));
        }
        let savepoint = open[2].savepoint().unwrap();
        push(&open[2], 12, 50);
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        for _ in 0..stages_before {
            engine.step(Step::Checkpoint).unwrap();
        }
        open.iter_mut().zip(10..).for_each(|(tx, key)| push(tx, key, 90));
        open[2].rollback_to(savepoint).unwrap();
        while engine.step(Step::Checkpoint).unwrap() {}
        assert_eq!(engine.stats().checkpoints, before + 1);
        let lost = open.pop().unwrap();
        open.pop().unwrap().commit().unwrap();
        open.pop().unwrap().rollback().unwrap();
        open.pop().unwrap().commit().unwrap();
        let wanted = holding(&[(1, &[1]), (10, &[0, 1, 2, 90]), (12, &[0, 1, 2])]);
        for crash in [Crash::Nothing, Crash::KillOnly, Crash::Everything, Crash::Seeded(stages_before)] {
            let (engine, report) = open_on::<NeverCloned>(&disk.crash(crash), &manual()).unwrap();
            assert_eq!((state(&engine), report.undone), (wanted.clone(), 1), "{crash:?}, {report:?}");
            assert!(report.snapshot.is_some());
            engine.checkpoint().unwrap();
        }
        drop(lost);
    }
}

#[test]
fn a_log_that_is_rotated_and_truncated_meanwhile_gives_the_state_at_the_snapshot() {
    let disk = SimDisk::new(3);
    let engine = open::<NeverCloned>(&disk);
    let (mut value, mut held) = (0, 0);
    let mut fill = |bytes: u64| {
        for _ in 0..bytes / 4096 {
            engine.execute(Cmd::Push { key: (value % 5) as u8, value, pad: 3000 }).unwrap();
            value += 1;
        }
    };
    for _ in 0..12 {
        fill(40 << 10);
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        loop {
            fill(70 << 10);
            if !engine.step(Step::Checkpoint).unwrap() || engine.stats().checkpoints > held {
                break;
            }
        }
        held = engine.stats().checkpoints;
        let after = disk.crash(Crash::Nothing);
        assert_eq!(state(&open::<NeverCloned>(&after)), state(&engine));
    }
    assert_eq!(held, 12);
    assert!(engine.stats().log.unwrap().segment_bytes < 1 << 20, "what is not needed was given up");
}

#[test]
fn commits_checkpoints_and_backups_run_side_by_side() {
    let disk = SimDisk::new(4);
    let options = manual().background(Background::Threads).checkpoint_log_bytes(32 << 10).digest_every(20);
    let (engine, _) = open_on::<NeverCloned>(&disk, &options).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let backups = scope.spawn(|| {
            let mut taken = 0;
            while !done.load(Ordering::Acquire) {
                let copy = SimDisk::new(5);
                engine.backup_to_storage(Arc::new(copy.clone())).unwrap();
                for (key, stack) in state(&open::<NeverCloned>(&copy)).by_key {
                    // each transaction pushes the next two values
                    assert!(
                        stack.iter().copied().eq(0..stack.len() as u32) && stack.len() % 2 == 0,
                        "{key}: {stack:?}"
                    );
                }
                taken += 1;
            }
            taken
        });
        let writers: Vec<_> = (0..2)
            .map(|key| {
                let engine = &engine;
                scope.spawn(move || {
                    for n in 0..400 {
                        let tx = engine.begin().unwrap();
                        push(&tx, key, 2 * n);
                        tx.execute(Cmd::Push { key, value: 2 * n + 1, pad: 700 }).unwrap();
                        if n % 3 == 0 {
                            let savepoint = tx.savepoint().unwrap();
                            push(&tx, key, 9);
                            tx.rollback_to(savepoint).unwrap();
                        }
                        tx.commit().unwrap();
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Release);
        assert!(ended.iter().all(Result::is_ok));
        assert!(backups.join().unwrap() > 0);
    });
    let stats = engine.stats();
    assert!(stats.checkpoints > 2, "{stats:?}");
    assert_eq!(stats.checkpoint_error.map(|error| error.to_string()), None);
    check_after_kill(&engine, &disk);
    engine.close().unwrap();
}

#[test]
fn a_second_state_that_cannot_be_loaded_fails_the_checkpoint_and_nothing_else() {
    let disk = SimDisk::new(6);
    let engine = open::<NeverCloned>(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    for load in [Load::Fails, Load::Panics] {
        engine.execute(Cmd::push(1, 2)).unwrap();
        let before = names(&disk, ".snap");
        LOAD.set(load);
        let error = engine.checkpoint().unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. } | Error::Internal { .. }), "{error}");
        assert_eq!(engine.stats().checkpoint_error.map(|e| e.to_string()), Some(error.to_string()));
        assert!(engine.backup_to_storage(Arc::new(SimDisk::new(7))).is_err());
        assert_eq!(names(&disk, ".snap"), before);
        engine.execute(Cmd::push(1, 3)).unwrap();
        LOAD.set(Load::Works);
        engine.checkpoint().unwrap();
        assert!(engine.stats().checkpoint_error.is_none());
    }
    // the same while the checkpoint reads
    for kind in [OpKind::Open, OpKind::ReadDeviceAt] {
        engine.execute(Cmd::push(1, 4)).unwrap();
        assert!(engine.step(Step::BeginCheckpoint).unwrap());
        disk.fail_next(kind, Fault::Eio, Persistence::Once);
        assert!(engine.step(Step::Checkpoint).is_err());
        engine.execute(Cmd::push(1, 5)).unwrap();
        engine.checkpoint().unwrap();
    }
    assert_eq!(state(&open::<NeverCloned>(&disk.crash(Crash::Nothing))), holding(&[(1, &[1, 2, 3, 2, 3, 4, 5, 4, 5])]));
}

/// Each retry loads the whole state again.
#[test]
fn a_checkpoint_that_keeps_failing_takes_at_most_half_of_the_time() {
    let disk = SimDisk::new(8);
    let (engine, _) = open_on::<NeverCloned>(&disk, &manual().checkpoint_log_bytes(1)).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    (2..8).for_each(|value| _ = engine.execute(Cmd::push(1, value)).unwrap());
    let clock = disk.clone();
    ON_LOAD.set(Some(Box::new(move || clock.advance(Duration::from_secs(20)))));
    LOAD.set(Load::Fails);
    for round in 0..3 {
        assert!(engine.step(Step::Checkpoint).unwrap(), "round {round}: {:?}", engine.stats());
        engine.step(Step::Checkpoint).unwrap_err();
        let before = disk.op_count();
        disk.advance(Duration::from_millis(19_999));
        assert!(!engine.step(Step::Checkpoint).unwrap(), "it rests");
        assert_eq!(disk.op_count(), before, "no file is read meanwhile");
        // a call is never delayed
        engine.checkpoint().unwrap_err();
        disk.advance(Duration::from_secs(100));
    }
    LOAD.set(Load::Works);
    assert!(engine.step(Step::Checkpoint).unwrap());
    while engine.step(Step::Checkpoint).unwrap() {}
    ON_LOAD.set(None);
    assert!(engine.stats().checkpoint_error.is_none());
    let after = open::<NeverCloned>(&disk.crash(Crash::Nothing));
    assert_eq!(state(&after), holding(&[(1, &[1, 2, 3, 4, 5, 6, 7])]));
}

#[test]
fn a_replay_that_comes_to_another_state_is_never_saved() {
    let disk = SimDisk::new(8);
    let (engine, _) = open_on::<NeverCloned>(&disk, &manual().digest_every(1)).unwrap();
    engine.checkpoint().unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    // a digest is written only where there is room already
    while engine.step(Step::Log(LogStep::PrepareSegment)).unwrap() {}
    while engine.step(Step::Digest).unwrap() {}
    let before = names(&disk, ".snap");
    DRIFT.set(1);
    let error = engine.checkpoint().unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(engine.backup_to_storage(Arc::new(SimDisk::new(9))).is_err());
    DRIFT.set(0);
    assert!(matches!(engine.stats().checkpoint_error, Some(Error::Diverged { .. })));
    assert_eq!(names(&disk, ".snap"), before);
    engine.execute(Cmd::push(1, 2)).unwrap();
    engine.checkpoint().unwrap();
    assert_eq!(state(&open::<NeverCloned>(&disk.crash(Crash::Nothing))), holding(&[(1, &[1, 2])]));
}

#[test]
fn a_damaged_newest_snapshot_is_not_built_on_and_its_stand_in_is_kept() {
    let disk = SimDisk::new(10);
    let engine = open::<NeverCloned>(&disk);
    for value in 0..2 {
        engine.execute(Cmd::push(1, value)).unwrap();
        engine.checkpoint().unwrap();
    }
    engine.execute(Cmd::push(1, 2)).unwrap();
    let [older, newest] = names(&disk, ".snap").try_into().unwrap();
    let mut bytes = disk.read_file(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    disk.write_file(&newest, &bytes);
    engine.checkpoint().unwrap();
    let left = names(&disk, ".snap");
    assert_eq!((left.len(), left.contains(&older), left.contains(&newest)), (2, true, false));
    for damaged in left {
        let disk = disk.crash(Crash::Nothing);
        disk.write_file(&damaged, b"");
        assert_eq!(state(&open::<NeverCloned>(&disk)), holding(&[(1, &[0, 1, 2])]));
    }
}

#[test]
fn a_store_that_was_opened_on_a_full_disk_is_backed_up_and_saved_as_the_log_describes_it() {
    let disk = SimDisk::new(11);
    let engine = open::<Replayed>(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    let lost = engine.begin().unwrap();
    for value in 0..50 {
        push(&lost, 2, value);
    }
    engine.sync().unwrap();
    std::mem::forget((lost, engine));
    let mut disk = disk.crash(Crash::Nothing);
    let wanted = holding(&[(1, &[1])]);
    for round in 0..8 {
        // each open takes a preallocated segment, until there is none
        disk.set_free_bytes(Some(0));
        let engine = open::<Replayed>(&disk);
        assert_eq!(state(&engine), wanted);
        let copy = SimDisk::new(12);
        engine.backup_to_storage(Arc::new(copy.clone())).unwrap();
        assert_eq!(state(&open::<Replayed>(&copy)), wanted, "round {round}");
        let saved = engine.checkpoint();
        assert!(saved.is_ok() || saved.is_err_and(|error| error.is_full()), "round {round}");
        std::mem::forget(engine);
        disk = disk.crash(Crash::Nothing);
    }
    disk.set_free_bytes(None);
    let engine = open::<Replayed>(&disk);
    engine.execute(Cmd::push(1, 2)).unwrap();
    engine.checkpoint().unwrap();
    assert_eq!(state(&open::<Replayed>(&disk.crash(Crash::Nothing))), holding(&[(1, &[1, 2])]));
}

#[test]
fn a_backup_of_a_store_that_cannot_write_any_more_is_still_taken() {
    let disk = SimDisk::new(13);
    let engine = open::<Replayed>(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::ForEver);
    let reader = {
        let options = manual().recovery(seawal::RecoveryPolicy::ReadOnly);
        open_on::<Replayed>(&disk.crash(Crash::Nothing), &options).unwrap().0
    };
    let copy = SimDisk::new(14);
    reader.backup_to_storage(Arc::new(copy.clone())).unwrap();
    assert_eq!(state(&open::<Replayed>(&copy)), holding(&[(1, &[1])]));
    engine.execute(Cmd::push(2, 2)).unwrap_err();
    assert!(engine.checkpoint().unwrap_err().is_latched());
}

fn explored() -> Explore<Replayed> {
    let key = |rng: &mut seawal::sim::Rng| rng.below(8) as u8;
    Explore::commands(move |rng| match rng.below(8) {
        0 => Cmd::Pop { key: key(rng) },
        1 => Cmd::Move { from: key(rng), to: key(rng) },
        _ => Cmd::Push { key: key(rng), value: rng.below(1 << 30) as u32, pad: (rng.below(8) * rng.below(700)) as u16 },
    })
    .looks(move |rng| {
        let key = key(rng);
        let show = move |by: &Replayed| by.0.at(key).iter().flat_map(|value| value.to_le_bytes()).collect();
        Look::new(&Footprint::key(seawal::machine::Access::Shared, &[key]), show)
    })
}

#[test]
fn a_crash_at_any_operation_of_a_rebuilt_checkpoint_leaves_all_that_was_acknowledged() {
    let mut found = explored().seed(15).seeds(scale()).steps(70).run().unwrap_or_else(|e| panic!("{e}"));
    let digesting = explored().options(manual().digest_every(5)).seed(40).seeds(scale()).steps(60).one_in(12);
    found.add(digesting.run().unwrap_or_else(|e| panic!("{e}")));
    let long = explored().seed(2_000).seeds(scale()).steps(500).one_in(500);
    found.add(long.run().unwrap_or_else(|e| panic!("{e}")));
    println!("{found:?}");
    for what in ["checkpoint", "snapshot loaded", "losers undone", "rotated", "recycled", "closed"] {
        assert!(found.did.contains_key(what), "{what}: {found:?}");
    }
}

#[test]
fn a_failure_of_any_operation_of_a_rebuilt_checkpoint_loses_nothing() {
    let found = explored().seed(16).seeds(scale()).steps(40).fail_each_operation().unwrap_or_else(|e| panic!("{e}"));
    assert!(found.did.contains_key("checkpoint") && found.did.contains_key("gone on after a failure"), "{found:?}");
    let full = explored().full_disks().seed(20).seeds(scale()).steps(60).one_in(60).run();
    full.unwrap_or_else(|e| panic!("{e}"));
}
