//! Digests in the log: a machine that breaks its law is detected at the next open, and a correct
//! one is never reported.

use crate::common::{Cmd, Stacks, files, manual, names, open, open_on, scale, stacks, state};
use crate::full_disk::full_with_room_for_a_part_of_the_undo;
use crate::like_stacks::as_the_stacks;
use seawal::kv::{Kv, KvCommand};
use seawal::machine::{DecodeError, StateMachine};
use seawal::salvage::{Outcome, Reach, SalvageReport, salvage};
use seawal::sim::{Crash, SimDisk};
use seawal::wal::LogStep;
use seawal::{Engine, Error, Options, RecoveryPolicy, Step};
use std::io::BufRead;
use std::sync::atomic::{AtomicU32, Ordering};

/// The stacks, except that `$apply` changes each command first and `$load` changes a loaded state.
macro_rules! breaks_its_law {
    ($machine:ident, $version:expr, $apply:expr, $load:expr) => {
        #[derive(Clone, Default, Debug)]
        struct $machine(Stacks);
        impl StateMachine for $machine {
            const NAME: &'static str = "stacks";
            const VERSION: u32 = $version;
            as_the_stacks!(commands decode save);
            fn apply(&mut self, command: &Cmd) -> Result<(u32, Cmd), crate::common::Empty> {
                let change: fn(Cmd) -> Cmd = $apply;
                self.0.apply(&change(command.clone()))
            }
            fn load(input: &mut dyn BufRead, version: u32) -> Result<Self, DecodeError> {
                let change: fn(Stacks) -> Stacks = $load;
                Stacks::load(input, version).map(|stacks| $machine(change(stacks)))
            }
            fn supports(_version: u32) -> bool {
                true
            }
        }
    };
}

/// A counter outside the state, which makes replay reach another state.
static COUNTER: AtomicU32 = AtomicU32::new(0);

fn counted(command: Cmd) -> Cmd {
    match command {
        Cmd::Push { key, value: 1000.., pad } => Cmd::Push { key, value: COUNTER.fetch_add(1, Ordering::Relaxed), pad },
        other => other,
    }
}

breaks_its_law!(Drifting, 3, counted, |stacks| stacks);
breaks_its_law!(Forgetful, 3, |command| command, |mut stacks: Stacks| {
    stacks.by_key.remove(&7);
    stacks
});
breaks_its_law!(NewerDrifting, 4, counted, |stacks| stacks);

fn digesting(records: u64) -> Options {
    manual().digest_every(records)
}

/// Runs all due digest steps, as the threads would.
fn digest<M: StateMachine>(engine: &Engine<M>) {
    while engine.step(Step::Digest).unwrap() {}
}

#[test]
fn replay_that_diverges_names_the_first_lsn_that_differs() {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Drifting>(&disk, &digesting(5)).unwrap();
    let mut durable = Vec::new();
    for n in 0..40u32 {
        // only the commands after the first twenty are not deterministic
        let value = if n < 20 { n } else { 1000 };
        engine.execute(Cmd::push((n % 3) as u8, value)).unwrap();
        durable.push(engine.stats().log.unwrap().durable);
        digest(&engine);
    }
    engine.sync().unwrap();
    assert!(engine.stats().digests >= 6);
    drop(engine);
    let disk = disk.crash(Crash::Nothing);
    let before = files(&disk);
    for policy in [RecoveryPolicy::Strict, RecoveryPolicy::ReadOnly] {
        let error = open_on::<Drifting>(&disk, &manual().recovery(policy)).map(|_| ()).unwrap_err();
        assert!(error.is_diverged() && !error.is_corrupt(), "{error:?}");
        let Error::Diverged { machine, path, lsn, agreed, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*machine, path.extension().and_then(|e| e.to_str())), ("stacks", Some("seg")));
        assert!(durable[13] < *agreed && *agreed <= durable[20], "{error}");
        assert!(durable[19] < *lsn && *lsn <= durable[26], "{error}");
        assert!(error.to_string().contains(&format!("LSN {lsn}")), "{error}");
        assert_eq!(files(&disk), before);
    }
    let report = seawal::inspect::verify_machine::<Drifting>(std::sync::Arc::new(disk.clone())).unwrap();
    assert_eq!(report.soundness(), seawal::inspect::Soundness::Damaged);
    assert!(report.open_error.as_ref().is_some_and(Error::is_diverged), "{report}");
    // the correct machine agrees with the digests of the first twenty, and differs after them
    let error = open_on::<Stacks>(&disk, &manual()).map(|_| ()).unwrap_err();
    assert!(error.is_diverged(), "{error:?}");
}

#[test]
fn a_load_that_loses_something_is_found_out_by_the_digest_behind_the_snapshot() {
    for (key, lost) in [(6, false), (7, true)] {
        for close in [false, true] {
            let disk = SimDisk::new(2);
            let (engine, _) = open_on::<Forgetful>(&disk, &digesting(1_000_000)).unwrap();
            // a digest is written only where there is room already
            while engine.step(Step::Log(LogStep::PrepareSegment)).unwrap() {}
            engine.execute(Cmd::push(key, 1)).unwrap();
            engine.execute(Cmd::push(1, 1)).unwrap();
            if close {
                engine.close().unwrap();
            } else {
                engine.checkpoint().unwrap();
                engine.execute(Cmd::push(1, 2)).unwrap();
            }
            assert_eq!(engine.stats().digests, 1);
            drop(engine);
            let opened = open_on::<Forgetful>(&disk.crash(Crash::Nothing), &manual());
            match opened {
                Ok((_, report)) => assert!(!lost && report.digests == 1, "{report:?}"),
                Err(error) => assert!(lost && error.is_diverged(), "{error:?}"),
            }
        }
    }
}

#[test]
fn without_digests_in_the_log_nobody_notices() {
    let disk = SimDisk::new(3);
    let (engine, _) = open_on::<Forgetful>(&disk, &manual()).unwrap();
    engine.execute(Cmd::push(7, 1)).unwrap();
    assert!(!engine.step(Step::Digest).unwrap());
    engine.close().unwrap();
    drop(engine);
    let (engine, report) = open_on::<Forgetful>(&disk, &manual()).unwrap();
    assert_eq!((report.digests, report.records), (0, 0));
    assert!(engine.read(|s| s.0.at(7)).unwrap().is_empty());
}

#[test]
fn uncommitted_effects_are_in_a_digest_and_in_its_replay() {
    let disk = SimDisk::new(4);
    let (engine, _) = open_on::<Stacks>(&disk, &digesting(1)).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    let open_tx = engine.begin().unwrap();
    let undone = engine.begin().unwrap();
    open_tx.execute(Cmd::push(2, 2)).unwrap();
    undone.execute(Cmd::push(3, 3)).unwrap();
    // a point, then other commands, then the digest for the point
    assert!(engine.step(Step::Digest).unwrap());
    open_tx.execute(Cmd::push(2, 4)).unwrap();
    undone.rollback().unwrap();
    engine.execute(Cmd::push(1, 5)).unwrap();
    digest(&engine);
    engine.sync().unwrap();
    let wanted = engine.stats().digests;
    assert!(wanted >= 2);
    std::mem::forget(open_tx);
    std::mem::forget(engine);
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!((report.digests, report.undone), (wanted, 1), "{report:?}");
    assert_eq!(state(&engine).at(1), [1, 5]);
    assert!(state(&engine).at(2).is_empty());
}

#[test]
fn a_digest_is_compared_only_by_the_version_that_wrote_it() {
    let disk = SimDisk::new(5);
    let (engine, _) = open_on::<Drifting>(&disk, &digesting(1)).unwrap();
    for _ in 0..5 {
        engine.execute(Cmd::push(1, 1000)).unwrap();
        digest(&engine);
    }
    engine.sync().unwrap();
    drop(engine);
    let disk = disk.crash(Crash::Nothing);
    assert!(open_on::<Drifting>(&disk, &manual()).map(|_| ()).unwrap_err().is_diverged());
    let (engine, report) = open_on::<NewerDrifting>(&disk, &manual()).unwrap();
    assert_eq!((report.redone, report.digests), (5, 0));
    drop(engine);
}

#[test]
fn salvage_compares_digests_with_the_version_that_wrote_them_only() {
    let disk = SimDisk::new(7);
    // all in one segment
    let options = digesting(1).segment_bytes(128 << 10).first_segment_bytes(128 << 10);
    let (engine, _) = open_on::<Drifting>(&disk, &options).unwrap();
    let mut ends = Vec::new();
    for _ in 0..8 {
        engine.execute(Cmd::push(1, 1000)).unwrap();
        digest(&engine);
        engine.sync().unwrap();
        ends.push(engine.stats().log.unwrap().durable);
    }
    drop(engine);
    // the frame after the fifth commit's digest is damaged, and later frames prove that
    let disk = disk.crash(Crash::Nothing);
    let base_of = |name: &String| u64::from_str_radix(&name[9..25], 16).unwrap();
    let segment = names(&disk, ".seg").into_iter().rfind(|name| base_of(name) <= ends[4].get()).unwrap();
    disk.flip_bit(&segment, 4096 + ends[4].get() - base_of(&segment) + 70, 0).unwrap();
    let salvaged = |report: seawal::Result<SalvageReport>| {
        let report = report.unwrap();
        assert_eq!(report.outcome, Outcome::Partial, "{report}");
        (report.transactions, report.to_string().contains("is not the one that was logged"))
    };
    let (source, target) = (|| std::sync::Arc::new(disk.clone()), || std::sync::Arc::new(SimDisk::new(1)));
    assert_eq!(salvaged(salvage::<NewerDrifting>(source(), target(), Reach::Proven)), (5, false));
    assert_eq!(salvaged(salvage::<Drifting>(source(), target(), Reach::Proven)), (1, true));
}

#[test]
fn a_store_with_digests_opens_without_the_option_and_shows_them() {
    let disk = SimDisk::new(6);
    let (engine, _) = open_on::<Kv>(&disk, &digesting(3)).unwrap();
    for n in 0..20 {
        engine.execute(KvCommand::put("", format!("{n}"), vec![n; 100])).unwrap();
        digest(&engine);
    }
    engine.sync().unwrap();
    let taken = engine.stats().digests;
    drop(engine);
    let disk = disk.crash(Crash::Nothing);
    let (engine, report) = open_on::<Kv>(&disk, &manual()).unwrap();
    assert_eq!(report.digests, taken);
    assert!(!engine.step(Step::Digest).unwrap());
    drop(engine);
    let disk = std::sync::Arc::new(disk);
    assert_eq!(seawal::inspect::verify(disk.clone()).unwrap().soundness(), seawal::inspect::Soundness::Clean);
    let mut text = Vec::new();
    seawal::inspect::write_text(disk, seawal::inspect::Detail::Records, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("point for a digest") && text.contains("digest of the state at "), "{text}");
}

#[test]
fn digests_in_the_log_cost_no_durability() {
    let workload = || stacks().options(digesting(5));
    let mut explored = workload().seeds(2 * scale()).steps(60).one_in(6).run().unwrap_or_else(|e| panic!("{e}"));
    let long = workload().seed(100).seeds(2 * scale()).steps(300).one_in(150);
    explored.add(long.run().unwrap_or_else(|e| panic!("{e}")));
    println!("{explored:?}");
    for what in ["digest step", "digest compared"] {
        assert!(explored.did.get(what).is_some_and(|times| *times > 10), "{what}: {explored:?}");
    }
}

#[test]
fn a_full_disk_takes_no_digests_and_goes_on() {
    let disk = SimDisk::new(8);
    let (engine, _) = open_on::<Stacks>(&disk, &digesting(1)).unwrap();
    disk.set_free_bytes(Some(200 << 10));
    let mut n = 0;
    while engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).is_ok() {
        n += 1;
        digest(&engine);
    }
    assert!(n > 0);
    for _ in 0..10 {
        engine.step(Step::Digest).unwrap();
    }
    disk.set_free_bytes(None);
    engine.execute(Cmd::push(2, 2)).unwrap();
    digest(&engine);
    engine.sync().unwrap();
    let taken = engine.stats().digests;
    drop(engine);
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!(state(&engine).at(1).len(), n as usize);
    assert_eq!(report.digests, taken);
    assert!(!names(&disk, ".seg").is_empty());
}

#[test]
fn no_digest_comes_before_the_undo_that_is_owed_to_the_log() {
    let disk = SimDisk::new(9);
    // any two segments have room for everything that is reserved
    let options = digesting(1).segment_bytes(128 << 10).first_segment_bytes(128 << 10);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    let disk = full_with_room_for_a_part_of_the_undo(&disk, engine);
    let (engine, report) = open_on::<Stacks>(&disk, &options).unwrap();
    assert!(report.undone == 1 && report.warnings.iter().any(|w| w.contains("in memory")), "{report:?}");
    assert!(engine.stats().log.unwrap().records > 0, "a part of it is in the log");
    // There is space again, and room in the log. Until the pending undo is logged, the log does not
    // lead to the current state.
    disk.set_free_bytes(None);
    while engine.step(Step::Log(LogStep::PrepareSegment)).unwrap() {}
    assert!(!engine.step(Step::Digest).unwrap());
    engine.execute(Cmd::push(1, 3)).unwrap();
    digest(&engine);
    engine.sync().unwrap();
    let taken = engine.stats().digests;
    assert!(taken > 0);
    drop(engine);
    let (engine, report) = open(&disk.crash(Crash::Nothing));
    assert_eq!((report.digests, state(&engine).at(1), state(&engine).at(2)), (taken, vec![1, 3], vec![]), "{report:?}");
}

#[test]
fn the_threads_behind_the_scenes_take_digests_too() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().digest_every(10);
    let engine = options.open::<Kv>(dir.path()).unwrap();
    let mut n = 0u32;
    while engine.stats().digests < 3 {
        engine.execute_with(KvCommand::put("", n.to_le_bytes(), "x"), seawal::Durability::Os).unwrap();
        n += 1;
        assert!(n < 10_000_000);
    }
    engine.sync().unwrap();
    drop(engine);
    let engine = options.open::<Kv>(dir.path()).unwrap();
    let report = engine.recovery_report().clone();
    assert!(report.digests >= 3, "{report:?}");
    engine.close().unwrap();
}
