//! Salvage of damaged stores. The result is a state that the store had after one of its commits, or
//! nothing. The damaged store is never written to.

use crate::common::{Cmd, Rng, Stacks, files, manual, names, open_on, scale};
use crate::like_stacks::as_the_stacks;
use seawal::io::{Clock, Directory, DirectoryLock, File, LockMode, OpenMode, WritePath};
use seawal::machine::StateMachine;
use seawal::salvage::{Base, Outcome, Reach, SalvageReport, Severity, salvage};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::LogStep;
use seawal::{Engine, Error, Step, Transaction, inspect};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const BLOCK: usize = 4096;

/// A killed store, and its state after each commit.
#[derive(Clone)]
struct Killed {
    disk: SimDisk,
    states: Vec<Stacks>,
}

impl Killed {
    fn last(&self) -> &Stacks {
        self.states.last().unwrap()
    }

    /// A copy of the store, to be damaged.
    fn copy(&self) -> Killed {
        Killed { disk: self.disk.crash(Crash::KillOnly), states: self.states.clone() }
    }
}

struct Slot {
    tx: Transaction<Stacks>,
    commands: Vec<Cmd>,
}

/// Interleaved transactions with savepoints, rollbacks and single commands. Each slot has its own
/// keys, so nothing waits. A checkpoint follows after each of these numbers of steps.
fn killed(seed: u64, steps: u64, checkpoints: &[u64]) -> Killed {
    let disk = SimDisk::new(seed);
    let (engine, _) = open_on::<Stacks>(&disk, &manual()).unwrap();
    let (mut rng, mut states) = (Rng::new(seed), vec![Stacks::default()]);
    let mut slots: Vec<Option<Slot>> = (0..3).map(|_| None).collect();
    let commit = |states: &mut Vec<Stacks>, commands: &[Cmd]| {
        let mut next = states.last().unwrap().clone();
        for command in commands {
            next.apply(command).unwrap();
        }
        states.push(next);
    };
    for step in 0..steps {
        if checkpoints.contains(&step) {
            engine.checkpoint().unwrap();
        }
        let at = rng.below(4) as usize;
        let key = (at * 8) as u8 + rng.below(8) as u8;
        let push = Cmd::Push { key, value: step as u32, pad: rng.below(400) as u16 };
        let Some(slot) = slots.get_mut(at) else {
            engine.execute(push.clone()).unwrap();
            commit(&mut states, &[push]);
            continue;
        };
        match slot.as_mut() {
            None => *slot = Some(Slot { tx: engine.begin().unwrap(), commands: vec![] }),
            Some(open) => match rng.below(8) {
                0 => {
                    let savepoint = open.tx.savepoint().unwrap();
                    open.tx.execute(push).unwrap();
                    open.tx.rollback_to(savepoint).unwrap();
                }
                1 => slot.take().unwrap().tx.rollback().unwrap(),
                2 | 3 => {
                    let Slot { tx, commands } = slot.take().unwrap();
                    tx.commit().unwrap();
                    commit(&mut states, &commands);
                }
                _ => {
                    open.tx.execute(push.clone()).unwrap();
                    open.commands.push(push);
                }
            },
        }
    }
    engine.sync().unwrap();
    // a watermark proves that the last frames were complete
    while engine.step(Step::Log(LogStep::Watermark)).unwrap() {}
    Killed { disk: disk.crash(Crash::KillOnly), states }
}

/// A store with two snapshots, several segments, and an open transaction after the snapshots.
fn with_snapshots(seed: u64) -> Killed {
    let store = killed(seed, 420, &[200, 300]);
    assert_eq!(names(&store.disk, ".snap").len(), 2);
    assert!(names(&store.disk, ".seg").len() >= 3, "{:?}", names(&store.disk, ".seg"));
    store
}

/// A store with a log only.
fn log_only(seed: u64) -> Killed {
    let store = killed(seed, 250, &[]);
    assert!(names(&store.disk, ".seg").len() >= 4);
    store
}

fn salvage_into<M: StateMachine>(source: &SimDisk, reach: Reach) -> (seawal::Result<SalvageReport>, SimDisk) {
    let target = SimDisk::new(77);
    (salvage::<M>(Arc::new(source.clone()), Arc::new(target.clone()), reach), target)
}

/// Salvages, and checks what must hold after any damage: the source is not changed, and the new
/// store is clean or absent. Returns the report and the new store's state.
fn salvaged(source: &SimDisk, reach: Reach) -> (SalvageReport, Option<Stacks>) {
    let before = files(source);
    let (report, target) = salvage_into::<Stacks>(source, reach);
    let report = report.unwrap();
    assert_eq!(files(source), before, "{report}");
    if report.outcome == Outcome::Nothing {
        let error = inspect::verify(Arc::new(target)).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
        return (report, None);
    }
    let checked = inspect::verify_machine::<Stacks>(Arc::new(target.clone())).unwrap();
    assert_eq!(checked.soundness(), inspect::Soundness::Clean, "{checked}");
    let (engine, opened) = open_on::<Stacks>(&target, &manual()).unwrap();
    assert_eq!(opened.verdict, seawal::recovery::Verdict::Clean);
    (report, Some(engine.read(Stacks::clone).unwrap()))
}

/// Salvages what is proven. Returns the number of commits in its state, and the report.
fn prefix(store: &Killed, what: &str) -> (Option<usize>, SalvageReport) {
    let (report, state) = salvaged(&store.disk, Reach::Proven);
    let at = state.map(|state| {
        let at = store.states.iter().rposition(|known| *known == state);
        at.unwrap_or_else(|| panic!("{what}: no prefix of the commits gives this\n{report}"))
    });
    match report.outcome {
        Outcome::Whole => assert_eq!(at, Some(store.states.len() - 1), "{what}\n{report}"),
        Outcome::Partial => {
            assert!(report.findings.iter().any(|f| f.severity == Severity::Damage), "{what}\n{report}");
        }
        _ => assert!(!report.findings.is_empty(), "{what}\n{report}"),
    }
    assert!(report.findings.iter().all(|finding| finding.text.lines().count() == 1), "{what}\n{report}");
    (at, report)
}

#[test]
fn what_opens_is_salvaged_to_what_it_opens_with() {
    for seed in 0..3 {
        for store in [with_snapshots(seed), log_only(seed)] {
            let (at, report) = prefix(&store, "killed");
            assert_eq!((report.outcome, at), (Outcome::Whole, Some(store.states.len() - 1)));
            assert!(report.gaps.is_empty() && report.behind.frames == 0 && report.undone > 0, "{report}");
            let again = store.copy();
            drop(open_on::<Stacks>(&again.disk, &manual()).unwrap().0.close());
            assert_eq!(prefix(&again, "closed").1.outcome, Outcome::Whole);
            for manifest in ["MANIFEST-0", "MANIFEST-1"] {
                store.disk.remove_file(manifest).unwrap();
                assert_eq!(prefix(&store, manifest).1.outcome, Outcome::Whole);
            }
        }
    }
}

#[test]
fn whatever_block_of_whatever_file_is_destroyed_a_prefix_is_salvaged() {
    for (store, garbage) in [(with_snapshots(1), 0xa5), (log_only(2), 0), (with_snapshots(3), 0)] {
        let (mut whole, mut partial) = (0, 0);
        for (name, bytes) in files(&store.disk) {
            let mut before = None;
            for offset in (0..bytes.len()).step_by(BLOCK) {
                let len = BLOCK.min(bytes.len() - offset);
                if bytes[offset..offset + len].iter().all(|b| *b == garbage) {
                    continue;
                }
                let damaged = store.copy();
                damaged.disk.overwrite(&name, offset as u64, &vec![garbage; len]).unwrap();
                let (at, report) = prefix(&damaged, &format!("{name} at {offset}"));
                // one bad block always leaves a state to begin with
                let at = at.unwrap_or_else(|| panic!("{name} at {offset}\n{report}"));
                if report.outcome == Outcome::Partial && name.ends_with(".seg") && offset > 0 {
                    assert!(before <= Some(at), "{name} at {offset}: what lies before the damage is kept\n{report}");
                    before = Some(at);
                }
                if report.outcome == Outcome::Whole { whole += 1 } else { partial += 1 }
            }
        }
        assert!(whole >= 2 && partial >= 15, "{whole} {partial}");
    }
}

#[test]
fn whatever_file_is_lost_or_cut_short_a_prefix_is_salvaged() {
    for store in [with_snapshots(4), log_only(5)] {
        for (name, bytes) in files(&store.disk) {
            let damaged = store.copy();
            damaged.disk.remove_file(&name).unwrap();
            prefix(&damaged, &format!("{name} lost"));
            for len in (0..bytes.len()).step_by(2 * BLOCK).flat_map(|len| [len, len + 700]) {
                let damaged = store.copy();
                damaged.disk.truncate_file(&name, len as u64).unwrap();
                prefix(&damaged, &format!("{name} cut to {len}"));
            }
        }
    }
}

#[test]
fn without_any_manifest_each_further_loss_leaves_a_prefix_or_nothing() {
    for store in [with_snapshots(6), log_only(7)] {
        names(&store.disk, "-0").into_iter().chain(names(&store.disk, "-1")).for_each(|name| {
            store.disk.remove_file(&name).unwrap();
        });
        for name in store.disk.file_names().into_iter().filter(|name| name.ends_with(".seg") || name.ends_with(".snap"))
        {
            let damaged = store.copy();
            damaged.disk.remove_file(&name).unwrap();
            if damaged.disk.file_names().last() == store.disk.file_names().last() {
                // without a manifest that names it, the newest segment leaves no trace
                let newest = names(&store.disk, ".seg").last().cloned();
                if newest.as_ref() == Some(&name) {
                    assert!(
                        salvaged(&damaged.disk, Reach::Proven).1.is_none_or(|state| damaged.states.contains(&state))
                    );
                    continue;
                }
            }
            prefix(&damaged, &format!("{name} lost"));
            let damaged = store.copy();
            damaged.disk.overwrite(&name, 0, &[1; BLOCK]).unwrap();
            prefix(&damaged, &format!("the header of {name}"));
        }
    }
}

#[test]
fn the_older_snapshot_stands_in_for_the_newest_also_where_the_log_is_damaged_too() {
    let store = with_snapshots(8);
    let snapshots = names(&store.disk, ".snap");
    let newest_segment = names(&store.disk, ".seg").pop().unwrap();
    store.disk.overwrite(&newest_segment, BLOCK as u64, &[7; BLOCK]).unwrap();
    let (with_both, report) = prefix(&store, "the log");
    assert!(matches!(report.base, Some(Base::Snapshot(_))), "{report}");
    store.disk.flip_bit(&snapshots[1], 600, 3).unwrap();
    let (with_one, report) = prefix(&store, "the log and the newest snapshot");
    assert_eq!(with_one, with_both, "the log between the two leads there too\n{report}");
    assert!(report.findings.iter().any(|f| f.text.contains(&snapshots[1])), "{report}");
    store.disk.flip_bit(&snapshots[0], 600, 3).unwrap();
    let (nothing, report) = prefix(&store, "the log and both snapshots");
    assert_eq!((nothing, report.outcome), (None, Outcome::Nothing));
    let (report, state) = salvaged(&store.disk, Reach::Beyond);
    assert_eq!((report.base, report.outcome), (Some(Base::UnprovenEmpty), Outcome::Partial));
    assert!(report.behind.applied > 0 && state.unwrap() != Stacks::default(), "{report}");
}

#[test]
fn a_snapshot_that_nothing_proves_to_have_counted_is_used_only_when_asked_for() {
    let store = with_snapshots(9);
    let snapshots = names(&store.disk, ".snap");
    for name in store.disk.file_names() {
        if name != snapshots[1] {
            store.disk.remove_file(&name).unwrap();
        }
    }
    let (at, report) = prefix(&store, "a snapshot alone");
    assert_eq!(at, None);
    assert!(report.findings.iter().any(|f| f.text.contains("nothing proves")), "{report}");
    let (report, state) = salvaged(&store.disk, Reach::Beyond);
    assert!(matches!(report.base, Some(Base::UnprovenSnapshot(_))), "{report}");
    assert!(store.states.contains(&state.unwrap()));
}

#[test]
fn what_stands_behind_the_damage_is_counted_and_carried_out_only_when_asked_for() {
    let store = log_only(10);
    let segments = names(&store.disk, ".seg");
    store.disk.overwrite(&segments[1], 2 * BLOCK as u64, &[9; BLOCK]).unwrap();
    let (at, report) = prefix(&store, "the second segment");
    let [gap] = report.gaps[..] else { panic!("{report}") };
    assert!(gap.to.is_some_and(|to| to > gap.from) && report.end == Some(gap.from), "{report}");
    let behind = &report.behind;
    assert!(behind.frames > 20 && behind.whole > 20 && behind.broken > 0, "{report}");
    assert_eq!((behind.applied, behind.refused), (0, 0));
    let (beyond, state) = salvaged(&store.disk, Reach::Beyond);
    assert_eq!((beyond.behind.whole, beyond.behind.applied), (behind.whole, behind.whole), "{beyond}");
    // Every push succeeds on any state. Only what the gap separated is missing, and nothing was
    // applied twice.
    let (state, kept) = (state.unwrap(), &store.states[at.unwrap()]);
    let all = |stacks: &Stacks| stacks.by_key.values().flatten().copied().collect::<Vec<_>>();
    assert!(all(&state).len() > all(kept).len() && all(&state).len() < all(store.last()).len());
    for (key, stack) in &state.by_key {
        let mut wanted = store.last().at(*key).into_iter();
        assert!(stack.iter().all(|value| wanted.any(|w| w == *value)), "{key}: {stack:?}\n{beyond}");
    }
}

/// The stacks, except that they accept the commands that stacks reject, and ignore those that make
/// stacks panic.
#[derive(Clone, Default)]
struct Careless(Stacks);

impl StateMachine for Careless {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 3;
    type Command = Cmd;
    type Reply = ();
    type Rejection = ();
    as_the_stacks!(coding decode save load);
    fn apply(&mut self, command: &Cmd) -> Result<((), Cmd), ()> {
        Ok(((), if *command == Cmd::Panic { Cmd::Panic } else { self.0.apply(command).map_or(Cmd::Panic, |(_, c)| c) }))
    }
}

#[test]
fn a_record_that_is_rejected_or_panics_ends_what_is_proven() {
    for bad in [Cmd::Pop { key: 99 }, Cmd::Panic] {
        let disk = SimDisk::new(1);
        let (engine, _) = open_on::<Careless>(&disk, &manual()).unwrap();
        let tx = engine.begin().unwrap();
        tx.execute(Cmd::push(1, 1)).unwrap();
        engine.execute(Cmd::push(2, 2)).unwrap();
        engine.execute(bad.clone()).unwrap();
        engine.execute(Cmd::push(3, 3)).unwrap();
        tx.commit().unwrap();
        let disk = disk.crash(Crash::KillOnly);
        let (report, state) = salvaged(&disk, Reach::Proven);
        let state = state.unwrap();
        assert_eq!((state.at(1), state.at(2), state.at(3)), (vec![], vec![2], vec![]), "{report}");
        assert_eq!((report.outcome, report.undone, report.behind.whole), (Outcome::Partial, 1, 1), "{report}");
        assert_eq!(report.behind.broken, 1, "the transaction began before the damage\n{report}");
        let finding = report.findings.iter().find(|f| f.severity == Severity::Damage && f.lsn == report.end);
        assert!(finding.is_some_and(|f| f.offset.is_some() && f.path.is_some()), "{report}");
        let (report, state) = salvaged(&disk, Reach::Beyond);
        assert_eq!((report.behind.applied, state.unwrap().at(3)), (1, vec![3]), "{report}");
    }
}

/// A device that cannot read one block of a file.
struct BadBlock {
    disk: SimDisk,
    name: String,
    offset: u64,
}

struct BadFile(Arc<dyn File>, Option<u64>);

impl Directory for BadBlock {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        assert_eq!(mode, OpenMode::Read);
        let bad = (name == self.name).then_some(self.offset);
        Ok(Arc::new(BadFile(self.disk.open(name, mode)?, bad)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        panic!("not written to")
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        panic!("not written to")
    }

    fn sync_dir(&self) -> io::Result<()> {
        panic!("not written to")
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        assert_eq!(mode, LockMode::Shared);
        self.disk.lock(mode)
    }

    fn block_bytes(&self) -> u32 {
        self.disk.block_bytes()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

impl Clock for BadBlock {
    fn monotonic(&self) -> Duration {
        self.disk.monotonic()
    }

    fn wall_clock_micros(&self) -> u64 {
        self.disk.wall_clock_micros()
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }
}

impl File for BadFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.1 {
            Some(bad) if bad >= offset && bad < offset + buf.len() as u64 => Err(io::Error::other("a bad sector")),
            _ => self.0.read_device_at(buf, offset),
        }
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        panic!("not written to")
    }
    fn write_durable_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        panic!("not written to")
    }
    fn sync_data(&self) -> io::Result<()> {
        panic!("not written to")
    }
    fn sync_all(&self) -> io::Result<()> {
        panic!("not written to")
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        panic!("not written to")
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        panic!("not written to")
    }
    fn write_path(&self) -> WritePath {
        self.0.write_path()
    }
}

#[test]
fn a_block_that_cannot_be_read_is_damage_and_costs_no_more_than_a_block() {
    let store = with_snapshots(11);
    for (name, bytes) in files(&store.disk).into_iter().filter(|(name, _)| name != "LOCK") {
        for offset in (0..bytes.len()).step_by(BLOCK) {
            let garbage = store.copy();
            garbage.disk.overwrite(&name, offset as u64, &vec![0xff; BLOCK.min(bytes.len() - offset)]).unwrap();
            let (wanted, _) = prefix(&garbage, "garbage");
            let source = BadBlock { disk: store.disk.clone(), name: name.clone(), offset: offset as u64 };
            let target = SimDisk::new(5);
            let report = salvage::<Stacks>(Arc::new(source), Arc::new(target.clone()), Reach::Proven).unwrap();
            let (engine, _) = open_on::<Stacks>(&target, &manual()).unwrap();
            let state = engine.read(Stacks::clone).unwrap();
            assert_eq!(Some(&state), wanted.map(|at| &store.states[at]), "{name} at {offset}\n{report}");
            let told =
                report.findings.iter().any(|f| f.text.contains("a bad sector") && f.offset == Some(offset as u64));
            assert!(told || report.outcome == Outcome::Whole, "{name} at {offset}\n{report}");
        }
    }
}

#[test]
fn several_damages_at_once_leave_a_prefix_or_nothing_and_nothing_panics() {
    for store in [with_snapshots(12), log_only(13)] {
        let mut rng = Rng::new(14);
        for round in 0..80 * scale() {
            let damaged = store.copy();
            for _ in 0..1 + rng.below(5) {
                harm(&damaged.disk, &mut rng);
            }
            for reach in [Reach::Proven, Reach::Beyond] {
                let before = files(&damaged.disk);
                let (result, target) = salvage_into::<Stacks>(&damaged.disk, reach);
                assert_eq!(files(&damaged.disk), before);
                let Ok(report) = result else {
                    // nothing is left, or an intact header belongs to another store
                    continue;
                };
                if reach == Reach::Proven && report.outcome != Outcome::Nothing {
                    let state = open_on::<Stacks>(&target, &manual()).unwrap().0.read(Stacks::clone).unwrap();
                    assert!(damaged.states.contains(&state), "round {round}\n{report}");
                }
            }
        }
    }
}

/// Damages a file in a random way.
fn harm(disk: &SimDisk, rng: &mut Rng) {
    let names: Vec<String> = disk.file_names().into_iter().filter(|name| name != "LOCK").collect();
    if names.is_empty() {
        return;
    }
    let name = &names[rng.below(names.len() as u64) as usize];
    let other = &names[rng.below(names.len() as u64) as usize];
    let bytes = disk.read_file(name).unwrap();
    let len = bytes.len() as u64;
    match rng.below(8) {
        0 => disk.remove_file(name).unwrap(),
        1 => disk.truncate_file(name, rng.below(len + 1)).unwrap(),
        2 => disk.write_file(other, &bytes),
        3 => {
            let copied: Vec<u8> =
                bytes.iter().copied().skip((rng.below(len / 4096 + 1) * 4096) as usize).take(BLOCK).collect();
            disk.overwrite(other, rng.below(8) * 4096, &copied).unwrap();
        }
        4 => {
            let garbage: Vec<u8> = (0..rng.below(9000)).map(|_| rng.next() as u8).collect();
            disk.overwrite(name, rng.below(len + 1), &garbage).unwrap();
        }
        5 => disk.write_file(&name.replacen('1', "3", 1), &bytes),
        6 => disk.write_file("notes.txt", b"none of its business"),
        _ if len > 0 => disk.flip_bit(name, rng.below(len), rng.below(8) as u32).unwrap(),
        _ => {}
    }
}

#[test]
fn a_cut_off_salvage_leaves_no_store_and_can_be_made_again() {
    let store = with_snapshots(15);
    let segments = names(&store.disk, ".seg");
    store.disk.overwrite(segments.last().unwrap(), BLOCK as u64, &[3; BLOCK]).unwrap();
    let (wanted, _) = prefix(&store, "the last segment");
    let wanted = &store.states[wanted.unwrap()];
    for op in 0.. {
        let target = SimDisk::new(16);
        target.fail_at(op, Fault::Crash, Persistence::Once);
        let result = salvage::<Stacks>(Arc::new(store.disk.clone()), Arc::new(target.clone()), Reach::Proven);
        let crashed = result.is_err();
        for crash in [Crash::Nothing, Crash::Everything, Crash::Seeded(op)] {
            let target = target.crash(crash);
            if let Ok(report) = inspect::verify_machine::<Stacks>(Arc::new(target.clone()))
                && report.open_error.is_none()
            {
                let (engine, _) = open_on::<Stacks>(&target, &manual()).unwrap();
                assert_eq!(engine.read(Stacks::clone).unwrap(), *wanted, "operation {op}: all of it or no store");
                continue;
            }
            assert!(crashed, "operation {op}: it said that it was done");
            let again = salvage::<Stacks>(Arc::new(store.disk.clone()), Arc::new(target.clone()), Reach::Proven);
            assert_eq!(again.unwrap().outcome, Outcome::Partial, "operation {op}");
            let (engine, _) = open_on::<Stacks>(&target, &manual()).unwrap();
            assert_eq!(engine.read(Stacks::clone).unwrap(), *wanted);
        }
        if !crashed {
            assert!(op > 10);
            break;
        }
    }
}

#[test]
fn a_failing_target_is_an_error_and_no_store() {
    let store = log_only(17);
    for kind in [OpKind::Create, OpKind::WriteAt, OpKind::SyncAll, OpKind::Rename, OpKind::SyncDir] {
        for fault in [Fault::Eio, Fault::NoSpace] {
            let target = SimDisk::new(18);
            target.fail_next(kind, fault, Persistence::Once);
            let result = salvage::<Stacks>(Arc::new(store.disk.clone()), Arc::new(target.clone()), Reach::Proven);
            if result.is_err() {
                assert!(inspect::survey(Arc::new(target.crash(Crash::Everything))).is_err(), "{kind:?} {fault:?}");
            }
        }
    }
}

#[test]
fn what_is_in_use_or_none_of_ours_or_newer_is_refused_and_left_alone() {
    let store = with_snapshots(19);
    let (engine, _) = open_on::<Stacks>(&store.copy().disk, &manual()).unwrap();
    drop(engine);
    let live = SimDisk::new(20);
    let (engine, _): (Engine<Stacks>, _) = open_on(&live, &manual()).unwrap();
    assert!(salvage_into::<Stacks>(&live, Reach::Proven).0.unwrap_err().is_locked());
    drop(engine);
    // into an existing store: into itself and into another
    let into_itself = salvage::<Stacks>(Arc::new(live.clone()), Arc::new(live.clone()), Reach::Proven);
    assert!(into_itself.unwrap_err().is_locked());
    let taken = salvage::<Stacks>(Arc::new(store.disk.clone()), Arc::new(live.clone()), Reach::Proven);
    assert!(matches!(taken.unwrap_err(), Error::InvalidArgument { .. }));
    // another machine's store, with a manifest and without one
    let before = files(&store.disk);
    let other = || salvage_into::<seawal::kv::Kv>(&store.disk, Reach::Beyond).0.unwrap_err();
    assert!(matches!(other(), Error::OtherMachine { .. }));
    assert_eq!(files(&store.disk), before);
    for manifest in ["MANIFEST-0", "MANIFEST-1"] {
        store.disk.remove_file(manifest).unwrap();
    }
    assert!(matches!(other(), Error::OtherMachine { .. }));
    assert!(matches!(salvage_into::<Stacks>(&SimDisk::new(1), Reach::Beyond).0.unwrap_err(), Error::NotAStore { .. }));
    // an intact header with an unknown version
    let segment = names(&store.disk, ".seg").pop().unwrap();
    let mut header = store.disk.read_file(&segment).unwrap()[..BLOCK].to_vec();
    header[8] = 2;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&header[..12]);
    sum.update(&header[16..]);
    header[12..16].copy_from_slice(&sum.finalize().to_le_bytes());
    store.disk.overwrite(&segment, 0, &header).unwrap();
    let error = salvage_into::<Stacks>(&store.disk, Reach::Beyond).0.unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { found: 2, .. }), "{error}");
}
