//! Recovery: from a directory to a state, a log to go on with, and a report.
//!
//! Lock and sync what is there; load the newest snapshot that is whole; redo the log after it, repeating history; cut
//! the log's end by starting a new epoch in a new segment; undo the losers, logging each step; make that durable. It
//! may crash anywhere and be run again. It knows nothing of locks, threads or readers.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)
)]

pub(crate) mod candidates;
pub(crate) mod replay;
mod report;
mod undo;

pub(crate) use undo::{Owed, undo_in_memory};

pub use report::{Phase, Phases, Progress, RecoveryPolicy, RecoveryReport, Verdict};

use crate::error::{Error, Result};
use crate::format::manifest::SnapshotEntry;
use crate::format::{Epoch, Lsn, MachineTag, StoreId};
use crate::machine::StateMachine;
use crate::options::{Options, ProgressFn};
use crate::snapshot::Help;
use crate::storage::{Storage, ahead};
use crate::sync::{Arc, Mutex, mpsc, thread};
use crate::txn::{Table, guarded};
use crate::wal::attach::{Access, Attached};
use crate::wal::scan::{Chunk, ScanEnd, Scanner};
use crate::wal::{Level, Log, OpenLog, Tail, prepare_root};
use candidates::Candidate;
use replay::Replay;

use std::time::Duration;

/// How much of the log is replayed at once. Recovery holds three such groups at the most, beside what the machine makes of them: one being
/// replayed, one that waits for it, and one being read.
const GROUP_BYTES: u64 = 32 << 20;
/// How much is replayed at once at first, while the state is small.
const FIRST_GROUP_BYTES: u64 = 8 << 20;

/// What recovery hands to the engine.
pub(crate) struct Recovered<M: StateMachine> {
    pub(crate) state: M,
    /// What could not be logged of the undo, for lack of room.
    pub(crate) owed: Option<Owed<M>>,
    /// `None` when read-only.
    pub(crate) log: Option<Log>,
    pub(crate) report: RecoveryReport,
    /// Snapshots that the manifest vouches for, the newest first.
    pub(crate) snapshots: Vec<SnapshotEntry>,
}

/// Tells the user's callback how far it is.
struct Teller(Option<ProgressFn>);

impl Teller {
    fn tell(&self, phase: Phase, done: u64, total: u64) {
        if let Some(progress) = &self.0 {
            progress(Progress { phase, done, total });
        }
    }
}

/// The time since the last call.
struct Stopwatch<'a>(&'a dyn Storage, Duration);

impl Stopwatch<'_> {
    fn lap(&mut self) -> Duration {
        let now = self.0.monotonic();
        let lap = now.saturating_sub(self.1);
        self.1 = now;
        lap
    }
}

/// Recovers a store, or creates it.
pub(crate) fn recover<M: StateMachine>(storage: Arc<dyn Storage>, options: &Options) -> Result<Recovered<M>> {
    options.validate()?;
    let mut watch = Stopwatch(&*storage, storage.monotonic());
    let teller = Teller(options.progress.clone());
    let access = match options.policy {
        RecoveryPolicy::Strict => Access::ReadWrite,
        RecoveryPolicy::ReadOnly => Access::ReadOnly,
    };
    let attached = Attached::new(storage.clone(), access)?;
    let machine = MachineTag { name: M::NAME.into(), version: M::VERSION };
    check_is_ours::<M>(&attached, options)?;
    let mut report = new_report(&attached);
    report.phases.attach = watch.lap();

    let help = Help::from(options.log.background);
    let Base { mut replay, start, snapshots, origin } = load_base::<M>(&attached, &mut report, &teller, help)?;
    report.phases.snapshot = watch.lap();

    let scanner = Scanner::new(&attached, start)?;
    let end = redo(scanner, &mut replay, &mut report, &teller, help)?;
    note_end(&attached, &end, &mut report);
    report.phases.redo = watch.lap();

    let Replay { mut state, mut table, .. } = replay;
    if access == Access::ReadOnly {
        let losers = table.len() as u64;
        report.undo_steps = undo_in_memory(&mut state, &mut table)?;
        report.undone = losers;
        report.phases.undo = watch.lap();
        return Ok(Recovered { state, owed: None, log: None, report, snapshots });
    }
    let root = prepare_root(&attached, &machine, &snapshots, origin)?;
    let log = OpenLog { attached, root, end, machine, options: options.log.clone() }.start()?;
    report.epoch = log.epoch();
    report.phases.cut = watch.lap();

    let (state, owed) = undo_losers(state, table, &log, &mut report, &teller)?;
    report.phases.undo = watch.lap();
    // how durable writes went shows only now
    let late: Vec<_> = storage.warnings().into_iter().filter(|warning| !report.warnings.contains(warning)).collect();
    report.warnings.extend(late);
    Ok(Recovered { state, owed, log: Some(log), report, snapshots })
}

pub(crate) fn new_report(attached: &Attached) -> RecoveryReport {
    let mut warnings = attached.storage.warnings();
    let other = if attached.manifest.is_some() { "; the other copy stood in" } else { "" };
    warnings.extend(attached.manifest_faults.iter().map(|fault| format!("{fault}{other}")));
    if attached.manifest.is_none() && !attached.is_new() {
        warnings.push("no copy of the manifest is left; the segments and snapshots stood in".into());
    }
    warnings.extend(attached.foreign.iter().map(|name| format!("{name} is not a file of this store")));
    RecoveryReport {
        verdict: if attached.is_new() { Verdict::New } else { Verdict::Interrupted },
        epoch: attached.manifest.as_ref().map_or(Epoch::default(), |m| m.epoch),
        snapshot: None,
        snapshot_bytes: 0,
        end: Lsn::ZERO,
        log_bytes: 0,
        records: 0,
        groups: Default::default(),
        redone: 0,
        undone: 0,
        undo_steps: 0,
        digests: 0,
        tail: None,
        warnings,
        phases: Phases::default(),
    }
}

/// Refuses a directory without a store where none is to be made, and a store of another machine.
fn check_is_ours<M: StateMachine>(attached: &Attached, options: &Options) -> Result<()> {
    let path = attached.storage.path("");
    if attached.is_new() {
        let may_create =
            options.policy == RecoveryPolicy::Strict && options.create == crate::storage::Create::IfMissing;
        if !may_create {
            return Err(Error::NotAStore { path, reason: "it holds neither a manifest nor a segment".into() });
        }
    }
    let Some((found, _)) = owner(attached)? else { return Ok(()) };
    if found.name != M::NAME {
        let reason = format!("it belongs to the machine \"{}\", not to \"{}\"", found.name, M::NAME);
        return Err(Error::NotAStore { path, reason: reason.into() });
    }
    // without a manifest nobody knows the newest version; each segment's and snapshot's own is looked at all the same
    if attached.manifest.is_some() && !M::supports(found.version) {
        let what = M::NAME.into();
        return Err(Error::UnsupportedVersion { path, what, found: found.version, supported: M::VERSION });
    }
    Ok(())
}

/// Whose store it is and which: as the manifest says or, without any, the oldest segment that is of use.
fn owner(attached: &Attached) -> Result<Option<(MachineTag, StoreId)>> {
    if let Some(manifest) = &attached.manifest {
        return Ok(Some((manifest.machine.clone(), manifest.store)));
    }
    Ok(attached.oldest_usable()?.map(|first| (first.header.machine, first.header.store)))
}

/// Undoes the losers, and logs that. On a disk that is full to the last byte they are undone in memory; the rest of the log's part is
/// owed, and comes before anything else is written.
fn undo_losers<M: StateMachine>(
    state: M,
    table: Table<M::Command>,
    log: &Log,
    report: &mut RecoveryReport,
    teller: &Teller,
) -> Result<(M, Option<Owed<M>>)> {
    if table.is_empty() {
        return Ok((state, None));
    }
    report.undone = table.len() as u64;
    let steps =
        |table: &Table<M::Command>| table.iter().map(|(_, undo)| undo.len() as u64).fold(0, u64::saturating_add);
    let total = steps(&table);
    let mut owed = Owed { state, table };
    match owed.pay(log, undo::reserve_too(log), |done| teller.tell(Phase::Undo, done, total)) {
        Ok(()) => {
            log.wait(log.seal()?, Level::Durable)?;
            report.undo_steps = total;
            Ok((owed.state, None))
        }
        Err(error) if error.is_full() => {
            let (mut state, mut table) = guarded(|| (owed.state.clone(), owed.table.clone()))?;
            undo_in_memory(&mut state, &mut table)?;
            report.undo_steps = total;
            report
                .warnings
                .push(format!("{error}: it is done in memory, and commits are refused until there is space"));
            Ok((state, Some(owed)))
        }
        Err(error) => Err(error),
    }
}

/// Where replay begins.
struct Base<M: StateMachine> {
    replay: Replay<M>,
    start: Lsn,
    snapshots: Vec<SnapshotEntry>,
    /// Where the empty state was begun with, if it was.
    origin: Option<Lsn>,
}

/// Loads the newest snapshot that is whole; an older one, or the empty state where the log goes back to it, stands in for
/// one that is damaged.
fn load_base<M: StateMachine>(
    attached: &Attached,
    report: &mut RecoveryReport,
    teller: &Teller,
    help: Help,
) -> Result<Base<M>> {
    let mut first_fault = None;
    let list = candidates::list(attached)?;
    let store = owner(attached)?.map(|(_, store)| store);
    let vouched: Vec<SnapshotEntry> = list.iter().filter_map(Candidate::entry).collect();
    for candidate in &list {
        let Candidate::Snapshot(entry) = candidate else {
            let Candidate::Origin(start) = candidate else { continue };
            let replay = Replay::new(M::default(), Table::default(), *start);
            // whatever was vouched for before has turned out to be damaged
            return Ok(Base { replay, start: *start, snapshots: Vec::new(), origin: Some(*start) });
        };
        let tell = |done, total| teller.tell(Phase::Snapshot, done, total);
        match crate::snapshot::load::<M>(&*attached.storage, store, entry.lsn, help, &tell) {
            Ok(loaded) => {
                report.snapshot = Some(loaded.header.lsn);
                report.snapshot_bytes = loaded.file_bytes;
                let replay = Replay::new(loaded.state, loaded.table, entry.lsn);
                // the damaged ones before it are no longer vouched for
                let whole = vouched.iter().copied().filter(|e| e.lsn <= entry.lsn).collect();
                return Ok(Base { replay, start: entry.lsn, snapshots: whole, origin: None });
            }
            Err(error) if error.is_corrupt() => {
                report.warnings.push(format!("{error}; an older state stood in"));
                first_fault.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let path = attached.storage.path("");
    Err(first_fault.unwrap_or_else(|| {
        Error::corrupt(path, 0, None, "no snapshot is left and the log does not go back to the beginning")
    }))
}

/// Reads and replays the log. With threads, one reads, one checks what was read, and the caller decodes and applies a group of what was
/// checked while the next one comes together.
fn redo<M: StateMachine>(
    mut scanner: Scanner,
    replay: &mut Replay<M>,
    report: &mut RecoveryReport,
    teller: &Teller,
    help: Help,
) -> Result<ScanEnd> {
    let total = scanner.bytes_ahead();
    let storage = scanner.storage().clone();
    let take = |replay: &mut Replay<M>, group: &[Chunk], report: &mut RecoveryReport| -> Result<()> {
        replay.chunks(group, |chunk| storage.path(&chunk.segment().name), report)?;
        let bytes = group.iter().map(Chunk::bytes).fold(0, u64::saturating_add);
        report.log_bytes = report.log_bytes.saturating_add(bytes);
        teller.tell(Phase::Redo, report.log_bytes, total);
        Ok(())
    };
    if help == Help::None {
        let mut read = 0;
        loop {
            let group = next_group(&mut scanner, &mut read)?;
            if group.is_empty() {
                replay.finish()?;
                return scanner.take_end();
            }
            take(replay, &group, report)?;
            group.into_iter().for_each(|chunk| scanner.reuse(chunk));
        }
    }
    let (groups_out, groups_in) = mpsc::sync_channel::<Vec<Chunk>>(1);
    let (used_out, used_in) = mpsc::channel::<Chunk>();
    let (ends_out, ends_in) = mpsc::channel::<Result<ScanEnd>>();
    let (ahead, fetcher) = ahead::pair();
    scanner.read_ahead(ahead);
    // Both threads stay until all is redone. A thread that helps to merge then comes by the heap of one that helped to decode the snapshot,
    // as most allocators pass on what an ended thread gave up last; with the heap of a reader it would leave what it replaces unused.
    let stay = &Mutex::new(());
    thread::scope(|scope| {
        let until_redone = stay.lock();
        scope.spawn(move || {
            fetcher.run();
            drop(stay.lock());
        });
        let reader = scope.spawn(move || {
            // whoever has gone has failed, and says so himself
            let _ = ends_out.send(read_groups(scanner, groups_out, used_in));
            drop(stay.lock());
        });
        let mut result = Ok(());
        for group in &groups_in {
            result = take(replay, &group, report);
            if result.is_err() {
                break;
            }
            group.into_iter().for_each(|chunk| drop(used_out.send(chunk)));
        }
        drop((groups_in, used_out));
        let end = ends_in.recv().unwrap_or(Err(Error::Poisoned));
        let redone = result.and(end).and_then(|end| replay.finish().map(|()| end));
        drop(until_redone);
        reader.join().map_err(|_| Error::Poisoned)?;
        redone
    })
}

/// Reads the whole log, in groups; where it ends is the answer. Into what was used it reads again.
fn read_groups(
    mut scanner: Scanner,
    groups: mpsc::SyncSender<Vec<Chunk>>,
    used: mpsc::Receiver<Chunk>,
) -> Result<ScanEnd> {
    let mut read = 0;
    loop {
        let group = next_group(&mut scanner, &mut read)?;
        if group.is_empty() {
            return scanner.take_end();
        }
        if groups.send(group).is_err() {
            // the other side has failed, and its error is the one that counts
            return Err(Error::Closed);
        }
        used.try_iter().for_each(|chunk| scanner.reuse(chunk));
    }
}

/// How much of the log makes a group behind so much of it: a third, within the bounds.
fn group_bytes(read: u64) -> u64 {
    (read / 3).clamp(FIRST_GROUP_BYTES, GROUP_BYTES)
}

/// Reads on until there is a group, or the log seems to end: it is redone while the rest is searched. Nothing is left where it has
/// ended already.
fn next_group(scanner: &mut Scanner, total: &mut u64) -> Result<Vec<Chunk>> {
    let (mut group, mut bytes) = (Vec::new(), 0u64);
    let wanted = group_bytes(*total);
    while bytes < wanted {
        let Some(mut chunk) = scanner.next_chunk()? else { break };
        bytes = bytes.saturating_add(chunk.bytes());
        scanner.pack(&mut chunk);
        group.push(chunk);
        if scanner.is_at_fault() {
            break;
        }
    }
    *total = total.saturating_add(bytes);
    Ok(group)
}

/// Recovers in memory from one candidate alone, for those who check whether each of them holds.
///
/// # Errors
/// What recovery would answer, were this the only state to begin from.
#[cfg(any(test, feature = "inspect"))]
pub(crate) fn rehearse<M: StateMachine>(attached: &Attached, candidate: Candidate) -> Result<M> {
    let (mut report, teller) = (new_report(attached), Teller(None));
    let mut replay = match candidate {
        Candidate::Origin(start) => Replay::new(M::default(), Table::default(), start),
        Candidate::Snapshot(entry) => {
            let store = owner(attached)?.map(|(_, store)| store);
            let loaded = crate::snapshot::load::<M>(&*attached.storage, store, entry.lsn, Help::Threads, &|_, _| {})?;
            Replay::new(loaded.state, loaded.table, entry.lsn)
        }
    };
    redo(Scanner::new(attached, candidate.start())?, &mut replay, &mut report, &teller, Help::Threads)?;
    undo_in_memory(&mut replay.state, &mut replay.table)?;
    Ok(replay.state)
}

/// What stands behind the end of the log that looks like an interrupted write; nothing where the store was closed.
pub(crate) fn torn_tail(attached: &Attached, end: &ScanEnd) -> (bool, Option<Tail>) {
    let clean = attached.manifest.as_ref().is_some_and(|m| m.clean_end != Lsn::ZERO && m.clean_end == end.end);
    (clean, end.tail.clone().filter(|tail| tail.torn && !clean))
}

/// Judges in what state the store was left.
fn note_end(attached: &Attached, end: &ScanEnd, report: &mut RecoveryReport) {
    report.end = end.end;
    if report.verdict == Verdict::New {
        return;
    }
    let (clean, tail) = torn_tail(attached, end);
    report.verdict = match (clean, &tail) {
        (true, _) => Verdict::Clean,
        (false, Some(_)) => Verdict::TornTail,
        (false, None) => Verdict::Interrupted,
    };
    report.tail = tail;
}
