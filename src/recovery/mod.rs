//! Recovery: from a directory to a state, a log to append to, and a report.
//!
//! It locks and syncs the directory; loads the newest whole snapshot; redoes the log after it; cuts
//! the log's end by starting a new epoch in a new segment; and undoes the transactions that had not
//! ended, which it logs and makes durable. A crash at any point leaves a directory that recovers
//! again.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)
)]

pub(crate) mod candidates;
mod pending_undo;
mod rebuild;
mod redo;
pub(crate) mod replay;
mod report;

pub(crate) use rebuild::{Rebuilt, rebuild, rebuild_committed};
pub(crate) use report::new_report;

pub use crate::options::{Phase, Progress, RecoveryPolicy};
pub use report::{Phases, RecoveryReport, Verdict};

use crate::error::{Error, Result};
use crate::format::manifest::{SNAPSHOTS_KEPT, SnapshotEntry};
use crate::ids::{Lsn, MachineTag, StoreId};
use crate::io::sync::Arc;
use crate::io::{Clock, Storage};
use crate::machine::StateMachine;
use crate::options::Options;
use crate::snapshot::Help;
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::{Access, StoreDir};
use crate::txn::{ActiveTransactions, PendingUndo, undo_in_memory};
use crate::wal::scan::{ScanEnd, Scanner, manifest_stand_in, oldest_usable};
use crate::wal::{Log, OpenLog, Tail};
use candidates::Candidate;
use redo::Redo;
use replay::Replay;
use report::ProgressReporter;

use std::time::Duration;

/// What the engine starts from.
pub(crate) struct Recovered<M: StateMachine> {
    pub(crate) state: M,
    /// The part of the undo that could not be logged on a full disk.
    pub(crate) pending_undo: Option<PendingUndo<M>>,
    /// `None` when read-only.
    pub(crate) log: Option<Log>,
    pub(crate) report: RecoveryReport,
    /// The verified snapshots, newest first.
    pub(crate) snapshots: Vec<SnapshotEntry>,
    /// How many opens wrote the log that was read.
    pub(crate) opens: usize,
}

/// The time since the last call.
struct Stopwatch<'a>(&'a dyn Clock, Duration);

impl Stopwatch<'_> {
    fn lap(&mut self) -> Duration {
        let now = self.0.monotonic();
        let lap = now.saturating_sub(self.1);
        self.1 = now;
        lap
    }
}

/// Recovers a store, or creates it.
///
/// When it returns, the end of the log, the new epoch and the undo survive power loss, except for
/// what is returned as `pending_undo`. A read-only open writes nothing.
pub(crate) fn recover<M: StateMachine>(storage: Arc<dyn Storage>, options: &Options) -> Result<Recovered<M>> {
    options.validate()?;
    let mut watch = Stopwatch(&*storage, storage.monotonic());
    let reporter = ProgressReporter::Callback(options.progress.clone());
    let access = match options.policy {
        RecoveryPolicy::Strict => Access::ReadWrite,
        RecoveryPolicy::ReadOnly => Access::ReadOnly,
    };
    let store_dir = StoreDir::new(storage.clone(), access, options.log.lock_wait)?;
    let machine = MachineTag { name: M::NAME.into(), version: M::VERSION };
    check_is_ours::<M>(&store_dir, options)?;
    let shape = check_shape::<M>(&store_dir)?;
    let mut report = new_report(&store_dir);
    report.phases.open_dir = watch.lap();

    let help = Help::from(options);
    let Base { mut replay, start, snapshots, origin } =
        load_base::<M>(&store_dir, &mut report, &reporter, (help, stands_in))?;
    replay.redo_memory_bytes = options.redo_memory_bytes;
    report.phases.snapshot = watch.lap();

    let scanner = Scanner::new(&store_dir, start)?;
    let end = Redo { replay: &mut replay, report: &mut report, reporter: &reporter }.run(scanner, help)?;
    note_end(&store_dir, &end, &mut report);
    report.phases.redo = watch.lap();
    let opens = end.opens;

    let Replay { mut state, mut table, .. } = replay;
    if access == Access::ReadOnly {
        let losers = table.len() as u64;
        report.undo_steps = undo_in_memory(&mut state, &mut table)?;
        report.undone = losers;
        report.phases.undo = watch.lap();
        return Ok(Recovered { state, pending_undo: None, log: None, report, snapshots, opens });
    }
    let mut root = open_manifest(&store_dir, &machine, &snapshots, origin)?;
    root.set_shape(shape);
    let log = Log::continue_from(OpenLog { store_dir, root, end, machine, options: options.log.clone() })?;
    report.epoch = log.epoch();
    report.phases.cut = watch.lap();

    let (state, pending_undo) = pending_undo::undo_at_open(PendingUndo { state, table }, &log, &mut report, &reporter)?;
    report.phases.undo = watch.lap();
    // only now does the storage know how fast its durable writes are
    let late: Vec<_> = storage.warnings().into_iter().filter(|warning| !report.warnings.contains(warning)).collect();
    report.warnings.extend(late);
    Ok(Recovered { state, pending_undo, log: Some(log), report, snapshots, opens })
}

/// Opens the manifest. Without a whole copy, the segments and the verified snapshots make a new
/// one.
fn open_manifest(
    store_dir: &StoreDir,
    machine: &MachineTag,
    snapshots: &[SnapshotEntry],
    origin: Option<Lsn>,
) -> Result<ManifestFile> {
    let stand_in = manifest_stand_in(store_dir)?.map(|mut found| {
        found.snapshots = snapshots.iter().copied().take(SNAPSHOTS_KEPT).collect();
        found.log_start = found.snapshots.last().map_or(found.log_start, |oldest| oldest.lsn);
        found.origin = origin;
        found
    });
    store_dir.open_manifest(machine, stand_in)
}

/// Refuses a directory without a store if none may be created, and a store of another machine.
fn check_is_ours<M: StateMachine>(store_dir: &StoreDir, options: &Options) -> Result<()> {
    let path = store_dir.storage.path("");
    if store_dir.is_new() {
        let may_create = options.policy == RecoveryPolicy::Strict && options.create == crate::io::Create::IfMissing;
        if !may_create {
            return Err(Error::NotAStore { path, reason: "it holds neither a manifest nor a segment".into() });
        }
    }
    let Some((found, _)) = owner(store_dir)? else { return Ok(()) };
    if found.name != M::NAME {
        return Err(Error::OtherMachine {
            path,
            version: found.version,
            found: found.name.into(),
            expected: M::NAME.into(),
        });
    }
    // only the manifest has the newest version; segments and snapshots are checked by their own
    if store_dir.manifest.is_some() && !M::supports(found.version) {
        let what = M::NAME.into();
        return Err(Error::UnsupportedVersion { path, what, found: found.version, supported: M::VERSION });
    }
    Ok(())
}

/// Compares the shape of the machine's types with that in the manifest, if it is from the same
/// version. Returns the shape for the next manifest.
///
/// New variants of an enum are not added to the shape before the version is raised. So the program
/// that lacks them can still open a store in which they were not used.
pub(crate) fn check_shape<M: StateMachine>(store_dir: &StoreDir) -> Result<Vec<u8>> {
    let is_ours = |tag: &MachineTag| tag.name == M::NAME && tag.version == M::VERSION;
    let known = store_dir.manifest.as_ref().filter(|m| is_ours(&m.machine) && !m.shape.is_empty());
    let shape = M::shape(known.map_or(&[], |manifest| &manifest.shape));
    match known {
        Some(manifest) if !shape.is_empty() && shape != manifest.shape => Err(Error::Unreadable {
            path: store_dir.manifest_path(),
            offset: 0,
            lsn: manifest.log_start,
            machine: M::NAME,
            version: M::VERSION,
            current: M::VERSION,
            reason: "the types of its state or commands had another shape when the store was written".into(),
        }),
        Some(manifest) => Ok(manifest.shape.clone()),
        None => Ok(shape),
    }
}

/// The machine and the id of the store, from the manifest or else from the oldest usable segment.
fn owner(store_dir: &StoreDir) -> Result<Option<(MachineTag, StoreId)>> {
    if let Some(manifest) = &store_dir.manifest {
        return Ok(Some((manifest.machine.clone(), manifest.store)));
    }
    Ok(oldest_usable(store_dir)?.map(|first| (first.header.machine, first.header.store)))
}

/// Where replay begins.
struct Base<M: StateMachine> {
    replay: Replay<M>,
    start: Lsn,
    snapshots: Vec<SnapshotEntry>,
    /// The LSN of the empty state, if replay begins with that.
    origin: Option<Lsn>,
}

/// Whether an older state stands in for a snapshot that cannot be loaded for this reason.
fn stands_in(error: &Error) -> bool {
    error.is_corrupt() || error.is_unreadable()
}

/// Loads the newest whole snapshot, or begins with the empty state if the log goes back to it. A
/// damaged snapshot, of which `is_damage` decides, is reported as a warning.
fn load_base<M: StateMachine>(
    store_dir: &StoreDir,
    report: &mut RecoveryReport,
    reporter: &ProgressReporter<'_>,
    (help, is_damage): (Help, fn(&Error) -> bool),
) -> Result<Base<M>> {
    let mut first_fault = None;
    let list = candidates::list(store_dir)?;
    let store = owner(store_dir)?.map(|(_, store)| store);
    let listed: Vec<SnapshotEntry> = list.iter().filter_map(Candidate::entry).collect();
    for candidate in &list {
        let Candidate::Snapshot(entry) = candidate else {
            let Candidate::Origin(start) = candidate else { continue };
            let replay = Replay::new(M::default(), ActiveTransactions::default(), *start);
            // every snapshot that was listed is damaged
            return Ok(Base { replay, start: *start, snapshots: Vec::new(), origin: Some(*start) });
        };
        let progress = |done, total| reporter.report(Phase::Snapshot, done, total);
        match crate::snapshot::load::<M>(&*store_dir.storage, store, entry.lsn, help, &progress) {
            Ok(loaded) => {
                report.snapshot = Some(loaded.header.lsn);
                report.snapshot_bytes = loaded.file_bytes;
                let replay = Replay::new(loaded.state, loaded.table, entry.lsn);
                // the newer ones are damaged and are no longer listed
                let whole = listed.iter().copied().filter(|e| e.lsn <= entry.lsn).collect();
                return Ok(Base { replay, start: entry.lsn, snapshots: whole, origin: None });
            }
            Err(error) if is_damage(&error) => {
                report.warn_of_stand_in(format!("{}; an older state is used", error.finding()));
                first_fault.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let path = store_dir.storage.path("");
    Err(first_fault.unwrap_or_else(|| {
        Error::corrupt_as_a_whole(path, None, "no snapshot is left and the log does not go back to the beginning")
    }))
}

/// Recovers in memory from this candidate alone. A check of the whole store tries each of them.
///
/// # Errors
/// Those of a recovery that could begin only here.
#[cfg(any(test, feature = "inspect"))]
pub(crate) fn rehearse<M: StateMachine>(store_dir: &StoreDir, candidate: Candidate) -> Result<M> {
    let (mut report, reporter) = (new_report(store_dir), ProgressReporter::Callback(None));
    let mut replay = match candidate {
        Candidate::Origin(start) => Replay::new(M::default(), ActiveTransactions::default(), start),
        Candidate::Snapshot(entry) => {
            let store = owner(store_dir)?.map(|(_, store)| store);
            let loaded =
                crate::snapshot::load::<M>(&*store_dir.storage, store, entry.lsn, Help::Threads, &|_, _| Ok(()))?;
            Replay::new(loaded.state, loaded.table, entry.lsn)
        }
    };
    let scanner = Scanner::new(store_dir, candidate.start())?;
    Redo { replay: &mut replay, report: &mut report, reporter: &reporter }.run(scanner, Help::Threads)?;
    undo_in_memory(&mut replay.state, &mut replay.table)?;
    Ok(replay.state)
}

/// Whether the store was closed and, if it was not, the interrupted write past the end of the log.
pub(crate) fn torn_tail(store_dir: &StoreDir, end: &ScanEnd) -> (bool, Option<Tail>) {
    let clean = store_dir.manifest.as_ref().is_some_and(|m| m.clean_end != Lsn::ZERO && m.clean_end == end.end);
    (clean, end.tail.clone().filter(|tail| tail.torn && !clean))
}

/// Reports the state in which the store was found.
fn note_end(store_dir: &StoreDir, end: &ScanEnd, report: &mut RecoveryReport) {
    report.end = end.end;
    if report.verdict == Verdict::New {
        return;
    }
    let (clean, tail) = torn_tail(store_dir, end);
    report.verdict = match (clean, &tail) {
        (true, _) => Verdict::Clean,
        (false, Some(_)) => Verdict::TornTail,
        (false, None) => Verdict::Interrupted,
    };
    report.tail = tail;
}
