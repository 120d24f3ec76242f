//! What recovery found and did, for people and for programs.

use crate::ids::{Epoch, Lsn};
use crate::wal::{BatchSizes, Tail};
use std::fmt;
use std::time::Duration;

/// In what state the store was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There was none: it was created.
    New,
    /// It had been closed.
    Clean,
    /// It had not been closed; the log ends with a whole frame.
    Interrupted,
    /// It had not been closed, and the last write is not whole. Nothing acknowledged is missing.
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

/// The time that each phase took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Locking, syncing and listing.
    pub attach: Duration,
    /// Loading the snapshot.
    pub snapshot: Duration,
    /// Reading the log and redoing it.
    pub redo: Duration,
    /// Cutting the log's end and starting a new segment.
    pub cut: Duration,
    /// Undoing losers.
    pub undo: Duration,
}

impl Phases {
    /// All of them.
    pub fn total(&self) -> Duration {
        [self.attach, self.snapshot, self.redo, self.cut, self.undo].iter().sum()
    }
}

/// What recovery found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// In what state the store was found.
    pub verdict: Verdict,
    /// The count of opens, this one included; unchanged when read-only.
    pub epoch: Epoch,
    /// The LSN of the snapshot that was loaded, if one was.
    pub snapshot: Option<Lsn>,
    /// Its size, in bytes.
    pub snapshot_bytes: u64,
    /// Where the log ended.
    pub end: Lsn,
    /// Log read, in bytes.
    pub log_bytes: u64,
    /// Records read.
    pub records: u64,
    /// How many of them each frame held.
    pub groups: BatchSizes,
    /// Transactions whose commit was found.
    pub redone: u64,
    /// Transactions that had no end record, and were undone.
    pub undone: u64,
    /// Effects of theirs that were undone.
    pub undo_steps: u64,
    /// Digests in the log that the state was compared with, and found to agree.
    pub digests: u64,
    /// What lay behind the end of the log and was cut, if it was a write that had not been completed.
    pub tail: Option<Tail>,
    /// Sentences about what is not as it should be, though nothing was lost: a damaged copy that another stood in for, a
    /// foreign file, a file system without the needed promises.
    pub warnings: Vec<String>,
    /// Where the time went.
    pub phases: Phases,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if let Some(lsn) = self.snapshot {
            write!(f, "; snapshot at LSN {lsn} ({} bytes)", self.snapshot_bytes)?;
        }
        write!(f, "; {} records in {} bytes of log", self.records, self.log_bytes)?;
        write!(f, "; {} transactions redone, {} undone in {} steps", self.redone, self.undone, self.undo_steps)?;
        write!(f, "; {:.3} s", self.phases.total().as_secs_f64())
    }
}
