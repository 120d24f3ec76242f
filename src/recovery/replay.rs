//! Redo: repeating history, record by record, and knowing who has not ended.

use super::report::RecoveryReport;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::format::{Lsn, TxnId};
use crate::machine::{DecodeError, StateMachine, bulk};
use crate::txn::{Table, UndoEntry, guarded, undo_last};
use crate::wal::reader::records_of;
use crate::wal::scan::Chunk;
use std::collections::{HashSet, VecDeque};
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
    /// Of the machine that wrote what was redone last. What it put off is carried out before another version's.
    version: Option<u32>,
}

/// Commands that follow one another in the log, but for those of other transactions that are part of it too, and whose inverses nobody
/// will need.
#[derive(Default)]
struct Run<'a> {
    commands: Vec<&'a [u8]>,
    lsns: Vec<Lsn>,
    /// How many transactions end in it.
    ends: u64,
}

impl<'a> Run<'a> {
    fn push(&mut self, lsn: Lsn, command: &'a [u8]) {
        self.lsns.push(lsn);
        self.commands.push(command);
    }
}

/// The transactions that begin and commit in these chunks and have undone nothing: no inverse of theirs is ever needed. Their first
/// records must be here, for those are what opens a transaction.
fn settled_in(chunks: &[Chunk]) -> HashSet<TxnId> {
    let mut open = HashSet::new();
    let mut settled = HashSet::new();
    for (lsn, bytes) in chunks.iter().flat_map(records_of).flatten() {
        match Record::decode(lsn, bytes) {
            Some(Record::Update { txn, .. }) if txn.first_lsn() == lsn => drop(open.insert(txn)),
            // what comes behind a rollback is not looked at: the transaction is replayed step by step
            Some(Record::Clr { txn, .. }) => drop(open.remove(&txn)),
            Some(Record::Commit { txn, .. }) if open.remove(&txn) => drop(settled.insert(txn)),
            _ => {}
        }
    }
    settled
}

/// Why a record cannot be replayed: in any case damage, or a machine that breaks its law.
pub(crate) type Fault = std::borrow::Cow<'static, str>;

/// Why replay ends before its end: at which record.
enum Stop {
    Damage(Lsn, Fault),
    /// The digest in this record is not that of the state at the point.
    Diverged(Lsn, Lsn),
    /// From there on the log is that of a machine of a version which this one cannot replay.
    Version(Lsn, u32),
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
        Replay { state, table, points: VecDeque::new(), agreed: start, version: None }
    }

    /// Replays all records of chunks that follow one another. After the last of them comes [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the LSN of the first record that does not fit; [`Error::Diverged`]; [`Error::UnsupportedVersion`].
    pub(crate) fn chunks(
        &mut self,
        chunks: &[Chunk],
        path: impl Fn(&Chunk) -> PathBuf,
        report: &mut RecoveryReport,
    ) -> Result<()> {
        // a panic of the machine must not pass through as if it were ours: it is told as what it is
        let replayed = catch_unwind(AssertUnwindSafe(|| self.group(chunks, report)));
        let found = |lsn: Lsn| {
            let at = chunks.partition_point(|chunk| chunk.first_lsn() <= lsn).saturating_sub(1);
            chunks.get(at).map_or((PathBuf::new(), 0), |chunk| (path(chunk), chunk.offset_of(lsn)))
        };
        match replayed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stop::Damage(lsn, reason))) => {
                let (path, offset) = found(lsn);
                Err(Error::corrupt(path, offset, Some(lsn), reason))
            }
            Ok(Err(Stop::Diverged(record, lsn))) => {
                let (path, offset) = found(record);
                Err(Error::Diverged { machine: M::NAME, path, offset, lsn, agreed: self.agreed })
            }
            Ok(Err(Stop::Version(lsn, version))) => {
                let (path, what) = (found(lsn).0, M::NAME.into());
                Err(Error::UnsupportedVersion { path, what, found: version, supported: M::VERSION })
            }
            Err(_) => Err(Error::Poisoned),
        }
    }

    /// Gathers what may be redone at once, in the order of the log, and carries it out before each record that may not.
    fn group(&mut self, chunks: &[Chunk], report: &mut RecoveryReport) -> Result<(), Stop> {
        let mut run = Run::default();
        let mut settled = None;
        for (at, chunk) in chunks.iter().enumerate() {
            let version = chunk.machine_version;
            if self.version.is_some_and(|before| before != version) {
                self.redo(&mut run, report)?;
                bulk::finish_redo(&mut self.state);
            }
            self.version = Some(version);
            if !M::supports(version) {
                return Err(Stop::Version(chunk.first_lsn(), version));
            }
            chunk.frames().for_each(|frame| report.groups.add(frame.header.records));
            for record in records_of(chunk) {
                let (lsn, bytes) = record.map_err(|(lsn, reason)| (lsn, Fault::from(reason)))?;
                report.records = report.records.saturating_add(1);
                let record = Record::decode(lsn, bytes).ok_or((lsn, UNKNOWN.into()))?;
                match record {
                    Record::Execute { command, .. } => {
                        run.push(lsn, command);
                        run.ends = run.ends.saturating_add(1);
                        continue;
                    }
                    Record::Update { txn, command } => {
                        let settled = settled.get_or_insert_with(|| settled_in(chunks.get(at..).unwrap_or_default()));
                        if settled.contains(&txn) {
                            run.push(lsn, command);
                            continue;
                        }
                    }
                    Record::Commit { txn, .. } if settled.as_mut().is_some_and(|settled| settled.remove(&txn)) => {
                        run.ends = run.ends.saturating_add(1);
                        continue;
                    }
                    _ => {}
                }
                self.redo(&mut run, report)?;
                bulk::finish_redo(&mut self.state);
                match record {
                    // another version may well save the same state in other bytes
                    Record::Point | Record::Digest { .. } if version != M::VERSION => {}
                    Record::Point => self.keep(lsn),
                    Record::Digest { point, digest } => self.compare(lsn, point, digest, report)?,
                    other => self.record(lsn, other, version, report).map_err(|reason| (lsn, reason))?,
                }
            }
        }
        Ok(self.redo(&mut run, report)?)
    }

    /// Carries out what the machine has put off. Nobody looks at the state before that.
    pub(crate) fn finish(&mut self) -> Result<()> {
        guarded(|| bulk::finish_redo(&mut self.state))
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
                Err(Stop::Diverged(..) | Stop::Version(..)) => {
                    Err(format!("the state at LSN {point} is not the one that was logged").into())
                }
            },
            other => self.record(lsn, other, version, report),
        }
    }

    /// Redoes what was gathered, all at once.
    fn redo(&mut self, run: &mut Run<'_>, report: &mut RecoveryReport) -> Result<(), (Lsn, Fault)> {
        if !run.commands.is_empty() {
            bulk::redo(&mut self.state, &run.commands, self.version.unwrap_or_default()).map_err(|fault| {
                let lsn = run.lsns.get(fault.index).copied().unwrap_or_default();
                (lsn, fault.unreadable.map_or(REJECTED.into(), unreadable))
            })?;
        }
        report.redone = report.redone.saturating_add(std::mem::take(&mut run.ends));
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
        let found = bulk::digest(&state).map_err(|e| (lsn, format!("the state has no digest: {e}").into()))?;
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
                let bytes = bulk::encoded_len::<M>(&inverse) as u64;
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
    use crate::options::{Durability, Options};
    use crate::recovery::candidates;
    use crate::recovery::new_report;
    use crate::sim::Rng;
    use crate::sim::SimDisk;
    use crate::sync::Arc;
    use crate::wal::Background;
    use crate::wal::attach::{Access, Attached};
    use crate::wal::scan::Scanner;
    use std::time::Duration;

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

    /// A log in which transactions that commit, go back to savepoints, roll back, and never end are interleaved with single commands, in
    /// the order of a seed. Returns its chunks, one a segment.
    fn tangled(seed: u64) -> Vec<Chunk> {
        let disk = SimDisk::new(seed);
        let options = Options::new()
            .background(Background::Manual)
            .durability(Durability::Os)
            .lock_timeout(Duration::ZERO)
            .first_segment_bytes(16 << 10)
            .segment_bytes(32 << 10)
            .checkpoint_log_bytes(1 << 30);
        let (engine, _) = options.open_on::<Kv>(Arc::new(disk.clone())).unwrap();
        let mut rng = Rng::new(seed);
        let mut open = Vec::new();
        for n in 0..600u64 {
            let key = |rng: &mut Rng| [b'k', rng.below(24) as u8];
            let command = match rng.below(4) {
                0 => KvCommand::delete("", key(&mut rng)),
                1 => KvCommand::batch([
                    KvCommand::put("t", key(&mut rng), "in a batch"),
                    KvCommand::delete("", key(&mut rng)),
                ]),
                _ => KvCommand::put("", key(&mut rng), n.to_string().repeat(20)),
            };
            let at = rng.below(open.len().max(1) as u64) as usize;
            match rng.below(12) {
                // what conflicts is refused, and its transaction rolled back
                0..=2 => drop(engine.submit(command)),
                3 if open.len() < 6 => open.push((engine.begin().unwrap(), None)),
                4 if at < open.len() => drop(open.swap_remove(at).0.commit_ticket().unwrap()),
                5 if at < open.len() => open.swap_remove(at).0.rollback().unwrap(),
                6 if at < open.len() => open[at].1 = Some(open[at].0.savepoint().unwrap()),
                7 if at < open.len() => {
                    if let Some(savepoint) = open[at].1.take() {
                        open[at].0.rollback_to(savepoint).unwrap();
                    }
                }
                _ if at < open.len() && open[at].0.execute(command).is_err() => drop(open.swap_remove(at)),
                _ => {}
            }
        }
        engine.sync().unwrap();
        engine.kill();
        drop((open, engine));
        let attached = Attached::new(Arc::new(disk), Access::ReadOnly).unwrap();
        let start = candidates::list(&attached).unwrap()[0].start();
        let mut scanner = Scanner::new(&attached, start).unwrap();
        std::iter::from_fn(|| scanner.next_chunk().unwrap()).collect()
    }

    /// The state, the open transactions with their inverses, and what was counted.
    fn outcome(replay: &Replay<Kv>, report: &RecoveryReport) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut saved = Vec::new();
        replay.state.save(&mut saved).unwrap();
        let open: Vec<_> = replay
            .table
            .iter()
            .map(|(id, undo)| {
                let mut entries = Vec::new();
                undo.for_each(|entry| {
                    entries.push((entry.lsn, format!("{:?}", entry.inverse)));
                    Ok::<_, ()>(())
                })
                .unwrap();
                (id, entries)
            })
            .collect();
        (saved, open, report.records, report.redone)
    }

    #[test]
    fn replay_at_once_comes_to_the_same_as_record_by_record() {
        let mut seen = [0; 4];
        for seed in 0..40 {
            let chunks = tangled(seed);
            let attached = Attached::new(Arc::new(SimDisk::new(1)), Access::ReadWrite).unwrap();
            let start = || (Replay::new(Kv::default(), Table::default(), Lsn::ZERO), new_report(&attached));
            let (mut replay, mut report) = start();
            for (lsn, bytes) in chunks.iter().flat_map(records_of).map(Result::unwrap) {
                match Record::decode(lsn, bytes).unwrap() {
                    Record::Clr { .. } => seen[0] += 1,
                    Record::Abort { .. } => seen[1] += 1,
                    _ => {}
                }
                replay.one(lsn, bytes, Kv::VERSION, &mut report).unwrap();
            }
            let wanted = outcome(&replay, &report);
            seen[2] += settled_in(&chunks).len();
            seen[3] += replay.table.len();
            for group in 1..=chunks.len() {
                let (mut replay, mut report) = start();
                for group in chunks.chunks(group) {
                    replay.chunks(group, |_| PathBuf::new(), &mut report).unwrap();
                }
                replay.finish().unwrap();
                assert_eq!(outcome(&replay, &report), wanted, "seed {seed}, {group} chunks at once");
            }
        }
        assert!(seen.iter().all(|&n| n > 20), "all of it occurs: {seen:?}");
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
