//! Redo: repeating history, record by record, and knowing who has not ended.

use super::report::RecoveryReport;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::format::{Lsn, TxnId};
use crate::machine::{DecodeError, StateMachine};
use crate::txn::{Table, UndoEntry, undo_last};
use crate::wal::reader::records_of;
use crate::wal::scan::Chunk;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// How many points may wait for their digests: one of the checkpoint under way, one taken in between. One that a crash left
/// without its digest is pushed out by those that follow.
const POINTS_KEPT: usize = 2;

/// The state and the active transaction table, as of some LSN.
pub(crate) struct Replay<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: Table<M::Command>,
    /// Frozen copies, to be compared with the digests that follow.
    points: VecDeque<(Lsn, M)>,
    /// The last LSN whose state is known to be that of the log's writer.
    agreed: Lsn,
}

/// Commands that were transactions of their own and followed one another in the log.
#[derive(Default)]
struct Run<'a> {
    commands: Vec<&'a [u8]>,
    lsns: Vec<Lsn>,
}

/// Why a record cannot be replayed: in any case damage, or a machine that breaks its law.
pub(crate) type Fault = std::borrow::Cow<'static, str>;

/// Why replay ends before its end: at which record.
enum Stop {
    Damage(Lsn, Fault),
    /// The digest in this record is not that of the state at the point.
    Diverged(Lsn, Lsn),
}

impl From<(Lsn, Fault)> for Stop {
    fn from((lsn, fault): (Lsn, Fault)) -> Self {
        Stop::Damage(lsn, fault)
    }
}

const UNKNOWN: &str = "the record is of no known kind";
const REJECTED: &str = "the machine rejects a command that it had carried out";

fn unreadable(error: DecodeError) -> Fault {
    format!("the command cannot be read: {error}").into()
}

impl<M: StateMachine> Replay<M> {
    /// To begin at this LSN with a state.
    pub(crate) fn new(state: M, table: Table<M::Command>, start: Lsn) -> Self {
        Replay { state, table, points: VecDeque::new(), agreed: start }
    }

    /// Replays all records of a chunk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the LSN of the first record that does not fit; [`Error::Diverged`]; [`Error::UnsupportedVersion`].
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
                match record {
                    // another version may well save the same state in other bytes
                    Record::Point | Record::Digest { .. } if version != M::VERSION => {}
                    Record::Point => self.keep(lsn),
                    Record::Digest { point, digest } => self.compare(lsn, point, digest, report)?,
                    other => self.record(lsn, other, version, report).map_err(|reason| (lsn, reason))?,
                }
            }
            Ok(self.redo(&mut run, version, report)?)
        }));
        match replayed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stop::Damage(lsn, reason))) => Err(Error::corrupt(path(), chunk.offset_of(lsn), Some(lsn), reason)),
            Ok(Err(Stop::Diverged(record, lsn))) => {
                let (machine, offset, agreed) = (M::NAME, chunk.offset_of(record), self.agreed);
                Err(Error::Diverged { machine, path: path(), offset, lsn, agreed })
            }
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
        match record {
            Record::Point | Record::Digest { .. } if version != M::VERSION => Ok(()),
            Record::Point => {
                self.keep(lsn);
                Ok(())
            }
            Record::Digest { point, digest } => match self.compare(lsn, point, digest, report) {
                Ok(()) => Ok(()),
                Err(Stop::Damage(_, why)) => Err(why),
                Err(Stop::Diverged(..)) => {
                    Err(format!("the state at LSN {point} is not the one that was logged").into())
                }
            },
            other => self.record(lsn, other, version, report),
        }
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

    /// Keeps the state of this place for the digest that may follow.
    fn keep(&mut self, lsn: Lsn) {
        self.points.push_back((lsn, self.state.clone()));
        if self.points.len() > POINTS_KEPT {
            self.points.pop_front();
        }
    }

    /// Compares the state at a point with its digest. Where replay began behind the point, there is nothing to compare.
    fn compare(&mut self, lsn: Lsn, point: Lsn, digest: u64, report: &mut RecoveryReport) -> Result<(), Stop> {
        let Some(at) = self.points.iter().position(|(kept, _)| *kept == point) else { return Ok(()) };
        let Some((_, state)) = self.points.remove(at) else { return Ok(()) };
        let found = state.digest().map_err(|e| (lsn, format!("the state has no digest: {e}").into()))?;
        if found != digest {
            return Err(Stop::Diverged(lsn, point));
        }
        self.agreed = self.agreed.max(point);
        report.digests = report.digests.saturating_add(1);
        Ok(())
    }

    fn record(&mut self, lsn: Lsn, record: Record<'_>, version: u32, report: &mut RecoveryReport) -> Result<(), Fault> {
        match record {
            // the caller's
            Record::Execute { .. } | Record::Point | Record::Digest { .. } => {}
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::kv::{Kv, KvCommand};
    use crate::recovery::new_report;
    use crate::sim::SimDisk;
    use crate::sync::Arc;
    use crate::wal::attach::{Access, Attached};

    #[test]
    fn a_record_of_a_transaction_that_is_not_open_is_damage() {
        let attached = Attached::new(Arc::new(SimDisk::new(1)), Access::ReadWrite).unwrap();
        let mut report = new_report(&attached);
        let (txn, lsn) = (TxnId::new(4156), Lsn::new(8252));
        let mut command = Vec::new();
        Kv::encode(&KvCommand::put("", "key", "value"), &mut command);
        for (record, command) in [
            (Record::Update { txn, command: &command }, &command[..]),
            (Record::Clr { txn, undo_next: None }, &[]),
            (Record::Commit { txn, wall_micros: 1 }, &[]),
            (Record::Abort { txn }, &[]),
        ] {
            let mut replay = Replay::new(Kv::default(), Table::default(), Lsn::ZERO);
            let bytes = [record.head(lsn).as_slice(), command].concat();
            assert!(replay.one(lsn, &bytes, Kv::VERSION, &mut report).is_err(), "{record:?}");
            assert!(replay.state.is_empty(), "{record:?}");
        }
        // the first record of a transaction opens it
        let mut replay = Replay::new(Kv::default(), Table::default(), Lsn::ZERO);
        let first = TxnId::new(lsn.get());
        let bytes = [Record::Update { txn: first, command: &command }.head(lsn).as_slice(), &command].concat();
        replay.one(lsn, &bytes, Kv::VERSION, &mut report).unwrap();
        assert_eq!((replay.state.len(), replay.table.len()), (1, 1));
    }

    #[test]
    fn a_record_that_undoes_or_ends_other_than_what_was_done_is_damage() {
        let attached = Attached::new(Arc::new(SimDisk::new(1)), Access::ReadWrite).unwrap();
        let mut report = new_report(&attached);
        let mut command = Vec::new();
        Kv::encode(&KvCommand::put("", "key", "value"), &mut command);
        let (first, second, third) = (Lsn::new(4156), Lsn::new(8252), Lsn::new(12348));
        let txn = TxnId::new(first.get());
        let abort = |replay: &mut Replay<Kv>, lsn: Lsn, report: &mut _| {
            replay.one(lsn, Record::Abort { txn }.head(lsn).as_slice(), Kv::VERSION, report).map_err(drop)
        };
        for (undo_next, accepted) in [(None, true), (Some(first), false)] {
            let mut replay = Replay::new(Kv::default(), Table::default(), Lsn::ZERO);
            let bytes = [Record::Update { txn, command: &command }.head(first).as_slice(), &command].concat();
            replay.one(first, &bytes, Kv::VERSION, &mut report).unwrap();
            assert!(abort(&mut replay, second, &mut report).is_err(), "an effect still stands");
            let mut replay = Replay::new(Kv::default(), Table::default(), Lsn::ZERO);
            replay.one(first, &bytes, Kv::VERSION, &mut report).unwrap();
            let undone =
                replay.one(second, Record::Clr { txn, undo_next }.head(second).as_slice(), Kv::VERSION, &mut report);
            assert_eq!(undone.is_ok(), accepted, "{undo_next:?}");
            if accepted {
                assert!(replay.state.is_empty());
                abort(&mut replay, third, &mut report).unwrap();
            }
        }
    }
}
