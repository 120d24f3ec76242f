//! Redo: repeating history, record by record, and knowing who has not ended.

use super::report::RecoveryReport;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::format::{Lsn, TxnId};
use crate::machine::{DecodeError, StateMachine};
use crate::txn::{Table, UndoEntry, undo_last};
use crate::wal::reader::records_of;
use crate::wal::scan::Chunk;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// The state and the active transaction table, as of some LSN.
pub(crate) struct Replay<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: Table<M::Command>,
}

/// Commands that were transactions of their own and followed one another in the log.
#[derive(Default)]
struct Run<'a> {
    commands: Vec<&'a [u8]>,
    lsns: Vec<Lsn>,
}

/// Why a record cannot be replayed: in any case damage, or a machine that breaks its law.
pub(crate) type Fault = std::borrow::Cow<'static, str>;

const UNKNOWN: &str = "the record is of no known kind";
const REJECTED: &str = "the machine rejects a command that it had carried out";

fn unreadable(error: DecodeError) -> Fault {
    format!("the command cannot be read: {error}").into()
}

impl<M: StateMachine> Replay<M> {
    /// Replays all records of a chunk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the LSN of the first record that does not fit; [`Error::UnsupportedVersion`].
    pub(crate) fn chunk(
        &mut self,
        chunk: &Chunk,
        path: impl Fn() -> PathBuf,
        report: &mut RecoveryReport,
    ) -> Result<()> {
        let version = chunk.machine_version;
        if !M::supports(version) {
            let what = M::NAME.into();
            return Err(Error::UnsupportedVersion { path: path(), what, found: version, supported: M::VERSION });
        }
        // a panic of the machine must not pass through as if it were ours: it is told as what it is
        let replayed = catch_unwind(AssertUnwindSafe(|| {
            let mut run = Run::default();
            for record in records_of(chunk) {
                let (lsn, bytes) = record.map_err(|(lsn, reason)| (lsn, Fault::from(reason)))?;
                report.records = report.records.saturating_add(1);
                let record = Record::decode(lsn, bytes).ok_or((lsn, UNKNOWN.into()))?;
                if let Record::Execute { command, .. } = record {
                    run.lsns.push(lsn);
                    run.commands.push(command);
                    continue;
                }
                self.redo(&mut run, version, report)?;
                self.record(lsn, record, version, report).map_err(|reason| (lsn, reason))?;
            }
            self.redo(&mut run, version, report)
        }));
        match replayed {
            Ok(Ok(())) => Ok(()),
            Ok(Err((lsn, reason))) => Err(Error::corrupt(path(), chunk.offset_of(lsn), Some(lsn), reason)),
            Err(_) => Err(Error::Poisoned),
        }
    }

    /// Replays a single record. Where that fails the state is thrown away.
    pub(crate) fn one(
        &mut self,
        lsn: Lsn,
        bytes: &[u8],
        version: u32,
        report: &mut RecoveryReport,
    ) -> Result<(), Fault> {
        let record = Record::decode(lsn, bytes).ok_or(UNKNOWN)?;
        report.records = report.records.saturating_add(1);
        if let Record::Execute { command, .. } = record {
            self.apply(command, version)?;
            report.redone = report.redone.saturating_add(1);
        }
        self.record(lsn, record, version, report)
    }

    /// Redoes commands that were transactions of their own and followed one another, all at once.
    fn redo(&mut self, run: &mut Run<'_>, version: u32, report: &mut RecoveryReport) -> Result<(), (Lsn, Fault)> {
        let count = run.commands.len() as u64;
        self.state.redo(&run.commands, version).map_err(|fault| {
            let lsn = run.lsns.get(fault.index).copied().unwrap_or_default();
            (lsn, fault.unreadable.map_or(REJECTED.into(), unreadable))
        })?;
        report.redone = report.redone.saturating_add(count);
        run.commands.clear();
        run.lsns.clear();
        Ok(())
    }

    fn record(&mut self, lsn: Lsn, record: Record<'_>, version: u32, report: &mut RecoveryReport) -> Result<(), Fault> {
        match record {
            // gathered by the caller
            Record::Execute { .. } => {}
            Record::Update { txn, command } => {
                if self.table.undo_list(txn).is_none() && txn.first_lsn() != lsn {
                    return Err("the record belongs to a transaction that is not open".into());
                }
                let inverse = self.apply(command, version)?;
                let bytes = M::encoded_len(&inverse) as u64;
                self.table.push(txn, UndoEntry { lsn, inverse, bytes });
            }
            Record::Clr { txn, undo_next } => {
                let next = undo_last(&mut self.state, &mut self.table, txn).map_err(|fault| fault.reason())?;
                if next != undo_next {
                    return Err("the record does not undo what the transaction did last".into());
                }
            }
            Record::Commit { txn, .. } => {
                self.end(txn)?;
                report.redone = report.redone.saturating_add(1);
            }
            Record::Abort { txn } => {
                if self.end(txn)? > 0 {
                    return Err("the transaction ended its rollback before all was undone".into());
                }
            }
        }
        Ok(())
    }

    /// Carries a logged command out. Returns its inverse.
    fn apply(&mut self, command: &[u8], version: u32) -> Result<M::Command, Fault> {
        let command = M::decode(command, version).map_err(unreadable)?;
        match self.state.apply(&command) {
            Ok((_, inverse)) => Ok(inverse),
            Err(_) => Err(REJECTED.into()),
        }
    }

    /// Ends a transaction. Returns how many of its effects still stand.
    fn end(&mut self, txn: TxnId) -> Result<usize, Fault> {
        let undo = self.table.end(txn).ok_or("the record ends a transaction that is not open")?;
        Ok(undo.len())
    }
}
