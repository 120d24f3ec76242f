//! What salvage found, kept and had to leave.

use crate::error::Error;
use crate::ids::{Lsn, MachineTag};
use crate::inspect::{Finding, Severity};
use std::fmt;

/// How many findings, and how many stretches of log behind the first damage, are listed; the rest is counted.
const MOST_LISTED: usize = 256;

/// How far salvage goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// To the first damage: the new store holds a state that the damaged one had at one moment, and all of that.
    #[default]
    Proven,
    /// On behind it, as far as anything can be made of what is there: transactions that are there as a whole are carried out
    /// where the machine takes them, a snapshot is begun with that nothing proves to have counted. The state need not be one that
    /// ever was.
    Beyond,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing that can be missed is missing: the store opens as it is, and the new one holds what it holds.
    Whole,
    /// A new store was written, and something is missing from it, or may be.
    Partial,
    /// Nothing is left that a state can begin from. No store was written.
    Nothing,
}

/// The state that replay began from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A snapshot that is whole and counted, at this LSN.
    Snapshot(Lsn),
    /// The empty state: the log goes back to the beginning, this LSN.
    Origin(Lsn),
    /// A snapshot that is whole, but nothing proves that it ever counted. Only with [`Reach::Beyond`].
    UnprovenSnapshot(Lsn),
    /// The empty state, though the log does not go back to it. Only with [`Reach::Beyond`].
    UnprovenEmpty,
}

/// A part of the log that is not there, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Where it begins.
    pub from: Lsn,
    /// Where the log goes on or, in a store that was closed, ended; `None` where nothing more is there, and nobody knows how much was.
    pub to: Option<Lsn>,
}

/// What stands in the log behind the first damage.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Behind {
    /// Where whole frames stand, each as first and end LSN.
    pub stretches: Vec<(Lsn, Lsn)>,
    /// How many such stretches are not listed.
    pub more_stretches: u64,
    /// Whole frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Committed transactions that are there from their first record to their last.
    pub whole: u64,
    /// Transactions of which a part is there, the rest being lost or before the damage.
    pub broken: u64,
    /// Of the whole ones, those that were carried out. Always 0 with [`Reach::Proven`].
    pub applied: u64,
    /// Of the whole ones, those that the machine rejected or could not read. Always 0 with [`Reach::Proven`].
    pub refused: u64,
}

/// What salvage found, kept and had to leave.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SalvageReport {
    /// What came of it.
    pub outcome: Outcome,
    /// How far it was to go.
    pub reach: Reach,
    /// Whose store it is.
    pub machine: Option<MachineTag>,
    /// What was begun with; `None` if nothing was found.
    pub base: Option<Base>,
    /// The state is that of the log up to here; what [`Reach::Beyond`] added comes on top.
    pub end: Option<Lsn>,
    /// Records that were replayed up to there.
    pub records: u64,
    /// Committed transactions among them.
    pub transactions: u64,
    /// Transactions without an end, which were undone.
    pub undone: u64,
    /// What is missing from the log, from the base on; at most 256 are listed.
    pub gaps: Vec<Gap>,
    /// What stands behind the first damage.
    pub behind: Behind,
    /// Everything that is wrong, a sentence each; at most 256 are listed.
    pub findings: Vec<Finding>,
    /// How many findings and gaps are not listed.
    pub more: u64,
}

impl SalvageReport {
    pub(super) fn new(reach: Reach) -> Self {
        SalvageReport {
            outcome: Outcome::Nothing,
            reach,
            machine: None,
            base: None,
            end: None,
            records: 0,
            transactions: 0,
            undone: 0,
            gaps: Vec::new(),
            behind: Behind::default(),
            findings: Vec::new(),
            more: 0,
        }
    }

    /// Adds a sentence, once.
    pub(super) fn add(&mut self, finding: Finding) {
        if self.findings.iter().any(|known| known.text == finding.text) {
        } else if self.findings.len() < MOST_LISTED {
            self.findings.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub(super) fn damage(&mut self, error: &Error) {
        let (path, offset, lsn) = match error {
            Error::Corrupt { path, offset, lsn, .. } => (Some(path.clone()), Some(*offset), *lsn),
            Error::Io { path, offset, .. } => (Some(path.clone()), *offset, None),
            _ => (None, None, None),
        };
        self.add(Finding { severity: Severity::Damage, text: error.to_string(), path, offset, lsn });
    }

    pub(super) fn note(&mut self, text: String) {
        self.add(Finding { severity: Severity::Note, text, path: None, offset: None, lsn: None });
    }

    pub(super) fn gap(&mut self, from: Lsn, to: Option<Lsn>) {
        if self.gaps.len() < MOST_LISTED {
            self.gaps.push(Gap { from, to });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl Behind {
    /// Notes a whole frame.
    pub(super) fn frame(&mut self, from: Lsn, end: Lsn) {
        self.frames = self.frames.saturating_add(1);
        if let Some((_, last)) = self.stretches.last_mut().filter(|(_, last)| *last == from) {
            *last = end;
        } else if self.stretches.len() < MOST_LISTED {
            self.stretches.push((from, end));
        } else {
            // at most this many: those that could be told to be one are not looked at
            self.more_stretches = self.more_stretches.saturating_add(1);
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Base::Snapshot(lsn) => write!(f, "the snapshot at LSN {lsn}"),
            Base::Origin(lsn) => write!(f, "the empty state at LSN {lsn}"),
            Base::UnprovenSnapshot(lsn) => {
                write!(f, "the snapshot at LSN {lsn}, of which nothing proves that it counted")
            }
            Base::UnprovenEmpty => f.write_str("the empty state, though the beginning of the log is missing"),
        }
    }
}

impl fmt::Display for SalvageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let severity = if finding.severity == Severity::Note { "note" } else { "damage" };
            writeln!(f, "{severity}: {}", finding.text)?;
        }
        for gap in &self.gaps {
            match gap.to {
                Some(to) => writeln!(f, "missing: LSN {} to {to}", gap.from)?,
                None => writeln!(f, "missing: from LSN {} on, however much there was", gap.from)?,
            }
        }
        if self.more > 0 {
            writeln!(f, "and {} more that are not listed", self.more)?;
        }
        let behind = &self.behind;
        if behind.frames > 0 {
            for (from, end) in &behind.stretches {
                writeln!(f, "behind the first damage: whole frames at LSN {from} to {end}")?;
            }
            write!(f, "behind the first damage: {} frames with {} records, ", behind.frames, behind.records)?;
            write!(f, "{} committed transactions as a whole, {} in part", behind.whole, behind.broken)?;
            match self.reach {
                Reach::Proven => writeln!(f, "; none of that was carried out")?,
                Reach::Beyond => writeln!(f, "; carried out: {}, refused: {}", behind.applied, behind.refused)?,
            }
        }
        if let (Some(base), Some(end)) = (&self.base, self.end) {
            write!(f, "kept: {base}, and the log up to LSN {end}: {} records, ", self.records)?;
            writeln!(f, "{} transactions; {} undone that had not ended", self.transactions, self.undone)?;
        }
        f.write_str(match (self.outcome, self.reach) {
            (Outcome::Whole, _) => "whole: the store opens as it is, and all of it was copied",
            (Outcome::Partial, Reach::Proven) => {
                "salvaged in part: the new store holds the state before the first damage"
            }
            (Outcome::Partial, Reach::Beyond) => {
                "salvaged in part: the new store holds what could be put together, which nothing proves"
            }
            (Outcome::Nothing, _) => "nothing is left that a state can begin from; no store was written",
        })
    }
}
