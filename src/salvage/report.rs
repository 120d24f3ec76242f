//! The report of a salvage.

use crate::count::Count;
use crate::error::Error;
use crate::ids::{Lsn, MachineTag};
use crate::inspect::{Finding, Severity};
use std::fmt;

/// The maximum number of entries in each list of a report; further entries are only counted. It
/// bounds the memory of a report on a badly damaged store.
const MAX_LISTED: usize = 256;

/// How far salvage goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Up to the first damage. The new store has exactly a state that the damaged store once had.
    #[default]
    Proven,
    /// Beyond the first damage too. Complete transactions after it are applied if the machine
    /// accepts them. Salvage may also begin with a snapshot that nothing proves to have been in
    /// use. The resulting state may be one that never existed.
    Beyond,
}

/// The outcome of a salvage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing is missing: the damaged store opens, and the new store has the same state.
    Whole,
    /// A new store was written, and data is missing from it, or may be missing.
    Partial,
    /// No starting state is left, and no store was written.
    Nothing,
}

/// The state that replay began from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Base {
    /// An intact snapshot that was in use, at this LSN.
    Snapshot(Lsn),
    /// The empty state: the log goes back to its beginning, at this LSN.
    Origin(Lsn),
    /// An intact snapshot that nothing proves to have been in use. Only with [`Reach::Beyond`].
    UnprovenSnapshot(Lsn),
    /// The empty state, although the log does not go back to it. Only with [`Reach::Beyond`].
    UnprovenEmpty,
}

/// A part of the log that is missing or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The first LSN of the gap.
    pub from: Lsn,
    /// The LSN at which the log continues, or ended if the store was closed; `None` if nothing
    /// follows and the end is unknown.
    pub to: Option<Lsn>,
}

/// What the log contains after the first damage.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Behind {
    /// Ranges of intact frames, each as first and end LSN.
    pub stretches: Vec<(Lsn, Lsn)>,
    /// The number of such ranges that are not listed.
    pub more_stretches: u64,
    /// The number of intact frames.
    pub frames: u64,
    /// The number of records in those frames.
    pub records: u64,
    /// The number of committed transactions with all of their records.
    pub whole: u64,
    /// The number of transactions of which records are lost, or lie before the damage.
    pub broken: u64,
    /// The number of complete transactions that were applied. Always 0 with [`Reach::Proven`].
    pub applied: u64,
    /// The number of complete transactions that the machine rejected or could not decode. Always 0
    /// with [`Reach::Proven`].
    pub refused: u64,
}

/// What a salvage found, what it kept, and what is missing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The outcome.
    pub outcome: Outcome,
    /// The reach that was requested.
    pub reach: Reach,
    /// The machine that the store belongs to.
    pub machine: Option<MachineTag>,
    /// The starting state; `None` if none was found.
    pub base: Option<Base>,
    /// The LSN up to which the log was replayed, before what [`Reach::Beyond`] added.
    pub end: Option<Lsn>,
    /// The number of records that were replayed up to `end`.
    pub records: u64,
    /// The number of committed transactions among them.
    pub transactions: u64,
    /// The number of transactions that were open there, and were undone.
    pub undone: u64,
    /// The gaps in the log after the starting state; at most 256 are listed.
    pub gaps: Vec<Gap>,
    /// What the log contains after the first damage.
    pub behind: Behind,
    /// Everything that is wrong; at most 256 findings are listed.
    pub findings: Vec<Finding>,
    /// The number of findings and gaps that are not listed.
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

    /// Adds a finding, unless the same one is listed already.
    pub(super) fn add(&mut self, finding: Finding) {
        if self.findings.iter().any(|known| known.text == finding.text) {
        } else if self.findings.len() < MAX_LISTED {
            self.findings.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub(super) fn damage(&mut self, error: &Error) {
        let (path, offset, lsn) = match error {
            Error::Corrupt { path, offset, lsn, .. } => (Some(path.clone()), *offset, *lsn),
            Error::Unreadable { path, offset, lsn, .. } => (Some(path.clone()), Some(*offset), Some(*lsn)),
            Error::Io { path, offset, .. } => (Some(path.clone()), *offset, None),
            _ => (None, None, None),
        };
        self.add(Finding { severity: Severity::Damage, text: error.finding().to_string(), path, offset, lsn });
    }

    pub(super) fn note(&mut self, text: String) {
        self.add(Finding { severity: Severity::Note, text, path: None, offset: None, lsn: None });
    }

    pub(super) fn gap(&mut self, from: Lsn, to: Option<Lsn>) {
        if self.gaps.len() < MAX_LISTED {
            self.gaps.push(Gap { from, to });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl Behind {
    /// Counts an intact frame.
    pub(super) fn frame(&mut self, from: Lsn, end: Lsn) {
        self.frames = self.frames.saturating_add(1);
        if let Some((_, last)) = self.stretches.last_mut().filter(|(_, last)| *last == from) {
            *last = end;
        } else if self.stretches.len() < MAX_LISTED {
            self.stretches.push((from, end));
        } else {
            // an upper bound: it is not checked whether this range continues an earlier one
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
            let (frames, records) =
                (Count(behind.frames, "frame", "frames"), Count(behind.records, "record", "records"));
            let whole = Count(behind.whole, "committed transaction", "committed transactions");
            write!(
                f,
                "behind the first damage: {frames} with {records}, {whole} as a whole, {} in part",
                behind.broken
            )?;
            match self.reach {
                Reach::Proven => writeln!(f, "; none of that was carried out")?,
                Reach::Beyond => writeln!(f, "; carried out: {}, refused: {}", behind.applied, behind.refused)?,
            }
        }
        if let (Some(base), Some(end)) = (&self.base, self.end) {
            let records = Count(self.records, "record", "records");
            let transactions = Count(self.transactions, "transaction", "transactions");
            write!(f, "kept: {base}, and the log up to LSN {end}: {records}, {transactions}; ")?;
            writeln!(f, "{} undone that had not ended", self.undone)?;
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
