//! What recovery found and did, for people and for programs.

use crate::count::Count;
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn};
use crate::options::{Phase, Progress, ProgressFn};
use crate::store::open_dir::StoreDir;
use crate::wal::{BatchSizes, Tail};
use std::fmt;
use std::time::Duration;

/// The state in which the store was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Verdict {
    /// There was no store, and one was created.
    New,
    /// It had been closed.
    Clean,
    /// It had not been closed. The log ends with a whole frame.
    Interrupted,
    /// It had not been closed, and its last write is incomplete. Nothing acknowledged as durable is
    /// missing.
    TornTail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::New => "new",
            Verdict::Clean => "clean",
            Verdict::Interrupted => "interrupted",
            Verdict::TornTail => "torn tail",
        })
    }
}

/// The time that each phase of recovery took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Phases {
    /// Locking, syncing and listing the directory, and reading the manifest.
    #[cfg_attr(feature = "serde", serde(rename = "open_dir_seconds", serialize_with = "crate::serialize::seconds"))]
    pub open_dir: Duration,
    /// Loading the snapshot.
    #[cfg_attr(feature = "serde", serde(rename = "snapshot_seconds", serialize_with = "crate::serialize::seconds"))]
    pub snapshot: Duration,
    /// Reading the log and redoing it.
    #[cfg_attr(feature = "serde", serde(rename = "redo_seconds", serialize_with = "crate::serialize::seconds"))]
    pub redo: Duration,
    /// Cutting the log's end and starting a new segment.
    #[cfg_attr(feature = "serde", serde(rename = "cut_seconds", serialize_with = "crate::serialize::seconds"))]
    pub cut: Duration,
    /// Undoing the transactions that had not ended, and making that durable.
    #[cfg_attr(feature = "serde", serde(rename = "undo_seconds", serialize_with = "crate::serialize::seconds"))]
    pub undo: Duration,
}

impl Phases {
    /// The sum of all phases.
    pub fn total(&self) -> Duration {
        [self.open_dir, self.snapshot, self.redo, self.cut, self.undo].iter().sum()
    }
}

/// What recovery found and did.
///
/// Its `Display` is a summary in one line, followed by a line for each warning. With the feature
/// `serde`, it can be serialized; times are seconds, and their names end in `_seconds`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The state in which the store was found.
    pub verdict: Verdict,
    /// The number of opens so far, including this one. A read-only open does not count.
    pub epoch: Epoch,
    /// The LSN of the snapshot that was loaded. `None` if recovery began with the empty state.
    pub snapshot: Option<Lsn>,
    /// The size of that snapshot in bytes. 0 if none was loaded.
    pub snapshot_bytes: u64,
    /// The LSN at which the log ended.
    pub end: Lsn,
    /// The size of the log that was read, in bytes.
    pub log_bytes: u64,
    /// The number of records that were read.
    pub records: u64,
    /// The distribution of the number of records in a frame.
    pub groups: BatchSizes,
    /// The number of transactions that were redone: their commit records were found.
    pub redone: u64,
    /// The number of transactions that were undone: they had no end record.
    pub undone: u64,
    /// The number of effects that were undone for these.
    pub undo_steps: u64,
    /// The number of state digests in the log that the replayed state was compared and agreed with.
    pub digests: u64,
    /// The incomplete write that was found past the end of the log and cut. `None` if there was
    /// none.
    pub tail: Option<Tail>,
    /// Problems that cost no data, a sentence each: a damaged copy that another one replaced, a
    /// foreign file, a file system without the needed promises.
    pub warnings: Vec<String>,
    /// The warnings about a snapshot or a copy of the manifest that is damaged or missing, and that
    /// another one stands in for. The store has no such reserve until its next checkpoint.
    pub stand_ins: Vec<String>,
    /// The time that each phase took.
    pub phases: Phases,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if let Some(lsn) = self.snapshot {
            write!(f, "; snapshot at LSN {lsn} ({})", Count(self.snapshot_bytes, "byte", "bytes"))?;
        }
        let (records, bytes) = (Count(self.records, "record", "records"), Count(self.log_bytes, "byte", "bytes"));
        write!(f, "; {records} in {bytes} of log")?;
        let redone = Count(self.redone, "transaction", "transactions");
        write!(f, "; {redone} redone, {} undone in {}", self.undone, Count(self.undo_steps, "step", "steps"))?;
        write!(f, "; {:.3} s", self.phases.total().as_secs_f64())?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

impl RecoveryReport {
    /// Notes that another part stands in for one that is damaged or missing.
    pub(crate) fn warn_of_stand_in(&mut self, warning: String) {
        self.stand_ins.push(warning.clone());
        self.warnings.push(warning);
    }
}

/// The report of a recovery that begins with this directory.
pub(crate) fn new_report(store_dir: &StoreDir) -> RecoveryReport {
    let other = if store_dir.manifest.is_some() { "; the other copy is used" } else { "" };
    let stand_in = |fault: &Error| format!("{}{other}", fault.finding());
    let mut stand_ins: Vec<_> = store_dir.manifest_faults.iter().map(stand_in).collect();
    // a crash may have interrupted the creation of a store that has no segment yet
    if store_dir.manifest.is_some() && !store_dir.segments.is_empty() {
        let missing = store_dir.manifests_missing.iter();
        stand_ins.extend(missing.map(|name| format!("{} is missing{other}", store_dir.storage.path(name).display())));
    }
    if store_dir.manifest.is_none() && !store_dir.is_new() {
        stand_ins.push("no copy of the manifest is left; the segments and snapshots are used instead".into());
    }
    let mut warnings = store_dir.storage.warnings();
    warnings.extend(stand_ins.iter().cloned());
    warnings.extend(store_dir.foreign.iter().map(|name| format!("{name} is not a file of this store")));
    RecoveryReport {
        verdict: if store_dir.is_new() { Verdict::New } else { Verdict::Interrupted },
        epoch: store_dir.manifest.as_ref().map_or(Epoch::default(), |m| m.epoch),
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
        stand_ins,
        phases: Phases::default(),
    }
}

/// What is told about progress.
pub(super) enum ProgressReporter<'a> {
    /// The user's callback, if there is one.
    Callback(Option<ProgressFn>),
    /// Says whether to go on.
    Check(&'a (dyn Fn() -> Result<()> + Sync)),
}

impl ProgressReporter<'_> {
    /// Reports progress.
    ///
    /// # Errors
    /// Those of [`ProgressReporter::Check`], which end the work.
    pub(super) fn report(&self, phase: Phase, done: u64, total: u64) -> Result<()> {
        match self {
            ProgressReporter::Callback(None) => Ok(()),
            ProgressReporter::Callback(Some(progress)) => {
                progress(Progress { phase, done, total });
                Ok(())
            }
            ProgressReporter::Check(check) => check(),
        }
    }
}
