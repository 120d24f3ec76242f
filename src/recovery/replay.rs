//! Redo: repeats history record by record, and tracks the transactions that have not ended.

use super::report::RecoveryReport;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::ids::{Lsn, TxnId};
use crate::machine::bulk::{self, KeptForDigest};
use crate::machine::{DecodeError, StateMachine};
use crate::options::DEFAULT_REDO_MEMORY_BYTES;
use crate::txn::{ActiveTransactions, UndoEntry, guarded, undo_last};
use crate::wal::scan::{Chunk, records_of};
use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// The most points that wait for their digests: one of the current checkpoint, and one taken in
/// between. A point that a crash left without its digest is pushed out by later ones.
const POINTS_KEPT: usize = 2;

/// The state and the active transaction table, as of some LSN.
pub(crate) struct Replay<M: StateMachine> {
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
    /// The state at these points, to be compared with the digests that follow.
    points: VecDeque<(Lsn, KeptForDigest<M>)>,
    /// The last LSN at which the state is known to be that of the log's writer.
    agreed: Lsn,
    /// The version of the machine that wrote the last commands. What is buffered of them is applied
    /// before those of another version.
    version: Option<u32>,
    /// How much memory the commands that the machine buffers may take, in bytes.
    pub(crate) redo_memory_bytes: u64,
}

/// Consecutive commands whose inverses are not needed, to be redone at once.
#[derive(Default)]
struct Batch<'a> {
    commands: Vec<&'a [u8]>,
    lsns: Vec<Lsn>,
    /// The number of transactions that commit in it.
    commits: u64,
}

impl<'a> Batch<'a> {
    fn push(&mut self, lsn: Lsn, command: &'a [u8]) {
        self.lsns.push(lsn);
        self.commands.push(command);
    }
}

/// The transactions that begin and commit in these chunks and undo nothing. Their inverses are
/// never needed. The first record must be here, because it opens the transaction.
fn settled_in(chunks: &[Chunk]) -> HashSet<TxnId> {
    let mut open = HashSet::new();
    let mut settled = HashSet::new();
    for (lsn, bytes) in chunks.iter().flat_map(records_of).flatten() {
        match Record::decode(lsn, bytes) {
            Some(Record::Update { txn, .. }) if txn.first_lsn() == lsn => drop(open.insert(txn)),
            // a transaction that undoes something is replayed step by step
            Some(Record::Clr { txn, .. }) => drop(open.remove(&txn)),
            Some(Record::Commit { txn, .. }) if open.remove(&txn) => drop(settled.insert(txn)),
            _ => {}
        }
    }
    settled
}

/// Why a record cannot be replayed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The log is damaged, or the machine is not deterministic.
    Damage(Cow<'static, str>),
    /// The machine cannot decode the command, although its checksum holds.
    Unreadable(DecodeError),
}

impl Fault {
    /// The error for a record of this place that a machine of this version wrote.
    pub(crate) fn into_error<M: StateMachine>(self, path: PathBuf, offset: u64, lsn: Lsn, version: u32) -> Error {
        match self {
            Fault::Damage(reason) => Error::corrupt(path, offset, Some(lsn), reason),
            Fault::Unreadable(error) => {
                let reason = format!("the command cannot be decoded: {error}").into();
                Error::Unreadable { path, offset, lsn, machine: M::NAME, version, current: M::VERSION, reason }
            }
        }
    }
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Fault::Damage(reason.into())
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Fault::Damage(reason.into())
    }
}

/// Why replay stops early, and at which record.
enum Stop {
    Record(Lsn, Fault),
    /// The digest in the first record differs from that of the state at the second LSN.
    Diverged(Lsn, Lsn),
    /// The log from there on is of a version that this machine cannot replay.
    Version(Lsn, u32),
}

impl From<(Lsn, Fault)> for Stop {
    fn from((lsn, fault): (Lsn, Fault)) -> Self {
        Stop::Record(lsn, fault)
    }
}

const UNKNOWN: &str = "the record is of an unknown kind";
const REJECTED: &str = "the machine rejects a command that it had accepted";

impl<M: StateMachine> Replay<M> {
    /// A replay that begins at `start` with this state and these open transactions.
    pub(crate) fn new(state: M, table: ActiveTransactions<M::Command>, start: Lsn) -> Self {
        let redo_memory_bytes = DEFAULT_REDO_MEMORY_BYTES;
        Replay { state, table, points: VecDeque::new(), agreed: start, version: None, redo_memory_bytes }
    }

    /// Replays all records of consecutive chunks. After the last chunks, call
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the LSN of the first record that does not fit; [`Error::Diverged`];
    /// [`Error::UnsupportedVersion`].
    pub(crate) fn chunks(
        &mut self,
        chunks: &[Chunk],
        path: impl Fn(&Chunk) -> PathBuf,
        report: &mut RecoveryReport,
    ) -> Result<()> {
        // a panic of the machine becomes `Poisoned`
        let replayed = catch_unwind(AssertUnwindSafe(|| self.group(chunks, report)));
        let found = |lsn: Lsn| {
            let at = chunks.partition_point(|chunk| chunk.first_lsn() <= lsn).saturating_sub(1);
            let of = |chunk: &Chunk| (path(chunk), chunk.offset_of(lsn), chunk.machine_version);
            chunks.get(at).map_or((PathBuf::new(), 0, 0), of)
        };
        match replayed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stop::Record(lsn, fault))) => {
                let (path, offset, version) = found(lsn);
                Err(fault.into_error::<M>(path, offset, lsn, version))
            }
            Ok(Err(Stop::Diverged(record, lsn))) => {
                let (path, offset, _) = found(record);
                Err(Error::Diverged { machine: M::NAME, path, offset, lsn, agreed: self.agreed })
            }
            Ok(Err(Stop::Version(lsn, version))) => {
                let (path, what) = (found(lsn).0, M::NAME.into());
                Err(Error::UnsupportedVersion { path, what, found: version, supported: M::VERSION })
            }
            Err(_) => Err(Error::Poisoned),
        }
    }

    /// Buffers the commands that may be redone at once, and applies them before each record that
    /// may not.
    fn group(&mut self, chunks: &[Chunk], report: &mut RecoveryReport) -> Result<(), Stop> {
        let mut batch = Batch::default();
        let mut settled = None;
        for (at, chunk) in chunks.iter().enumerate() {
            let version = chunk.machine_version;
            if self.version.is_some_and(|before| before != version) {
                self.redo(&mut batch, report)?;
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
                        batch.push(lsn, command);
                        batch.commits = batch.commits.saturating_add(1);
                        continue;
                    }
                    Record::Update { txn, command } => {
                        let settled = settled.get_or_insert_with(|| settled_in(chunks.get(at..).unwrap_or_default()));
                        if settled.contains(&txn) {
                            batch.push(lsn, command);
                            continue;
                        }
                    }
                    Record::Commit { txn, .. } if settled.as_mut().is_some_and(|settled| settled.remove(&txn)) => {
                        batch.commits = batch.commits.saturating_add(1);
                        continue;
                    }
                    _ => {}
                }
                self.redo(&mut batch, report)?;
                bulk::finish_redo(&mut self.state);
                match record {
                    // another version may save the same state in other bytes
                    Record::Point | Record::Digest { .. } if version != M::VERSION => {}
                    Record::Point => self.keep(lsn),
                    Record::Digest { point, digest } => self.compare(lsn, point, digest, report)?,
                    other => self.record(lsn, other, version, report).map_err(|reason| (lsn, reason))?,
                }
            }
        }
        Ok(self.redo(&mut batch, report)?)
    }

    /// Applies what the machine has buffered. Until then the state must not be read.
    pub(crate) fn finish(&mut self) -> Result<()> {
        guarded(|| bulk::finish_redo(&mut self.state))
    }

    /// Replays a single record. After an error the state must not be used.
    #[cfg(any(test, feature = "salvage"))]
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
                Err(Stop::Record(_, why)) => Err(why),
                Err(Stop::Diverged(..) | Stop::Version(..)) => {
                    Err(format!("the state at LSN {point} is not the one that was logged").into())
                }
            },
            other => self.record(lsn, other, version, report),
        }
    }

    /// Redoes the batch at once.
    fn redo(&mut self, batch: &mut Batch<'_>, report: &mut RecoveryReport) -> Result<(), (Lsn, Fault)> {
        debug_assert_eq!(batch.commands.len(), batch.lsns.len(), "each command has an LSN");
        debug_assert!(batch.lsns.is_sorted(), "the log is replayed in order");
        if !batch.commands.is_empty() {
            bulk::limit_redo_memory(&mut self.state, self.redo_memory_bytes);
            bulk::redo(&mut self.state, &batch.commands, self.version.unwrap_or_default()).map_err(|fault| {
                let lsn = batch.lsns.get(fault.index).copied().unwrap_or_default();
                (lsn, fault.unreadable.map_or(REJECTED.into(), Fault::Unreadable))
            })?;
        }
        report.redone = report.redone.saturating_add(std::mem::take(&mut batch.commits));
        batch.commands.clear();
        batch.lsns.clear();
        Ok(())
    }

    /// Keeps the state at this LSN, or its digest, for the digest that may follow.
    fn keep(&mut self, lsn: Lsn) {
        debug_assert!(self.points.back().is_none_or(|(last, _)| *last < lsn), "the points come in order");
        self.points.push_back((lsn, KeptForDigest::of(&self.state)));
        if self.points.len() > POINTS_KEPT {
            self.points.pop_front();
        }
    }

    /// Compares the state at a point with its digest. If replay began past the point, it does
    /// nothing.
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
            // these are the caller's task
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
                    return Err("the record does not undo the transaction's last effect".into());
                }
            }
            Record::Commit { txn, .. } => {
                self.end(txn)?;
                report.redone = report.redone.saturating_add(1);
            }
            Record::Abort { txn } => {
                if self.end(txn)? > 0 {
                    return Err("the transaction ended its rollback before everything was undone".into());
                }
            }
        }
        Ok(())
    }

    /// Applies a logged command. Returns its inverse.
    fn apply(&mut self, command: &[u8], version: u32) -> Result<M::Command, Fault> {
        let command = M::decode(command, version).map_err(Fault::Unreadable)?;
        match self.state.apply(&command) {
            Ok((_, inverse)) => Ok(inverse),
            Err(_) => Err(REJECTED.into()),
        }
    }

    /// Ends a transaction. Returns the number of its effects that are not undone.
    fn end(&mut self, txn: TxnId) -> Result<usize, Fault> {
        let undo = self.table.end(txn).ok_or("the record ends a transaction that is not open")?;
        Ok(undo.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::durability::Durability;
    use crate::io::sync::Arc;
    use crate::kv::{Kv, KvCommand};
    use crate::options::Background;
    use crate::options::Options;
    use crate::recovery::candidates;
    use crate::recovery::report::new_report;
    use crate::sim::Rng;
    use crate::sim::SimDisk;
    use crate::store::open_dir::{Access, StoreDir};
    use crate::wal::scan::Scanner;
    use std::time::Duration;

    #[test]
    fn a_record_of_a_transaction_that_is_not_open_is_damage() {
        let store_dir = StoreDir::new(Arc::new(SimDisk::new(1)), Access::ReadWrite, Duration::ZERO).unwrap();
        let mut report = new_report(&store_dir);
        let (txn, lsn) = (TxnId::new(4156), Lsn::new(8252));
        let mut command = Vec::new();
        Kv::encode(&KvCommand::put("", "key", "value"), &mut command);
        for (record, command) in [
            (Record::Update { txn, command: &command }, &command[..]),
            (Record::Clr { txn, undo_next: None }, &[]),
            (Record::Commit { txn, wall_micros: 1 }, &[]),
            (Record::Abort { txn }, &[]),
        ] {
            let mut replay = Replay::new(Kv::default(), ActiveTransactions::default(), Lsn::ZERO);
            let bytes = [record.head(lsn).as_slice(), command].concat();
            assert!(replay.one(lsn, &bytes, Kv::VERSION, &mut report).is_err(), "{record:?}");
            assert!(replay.state.is_empty(), "{record:?}");
        }
        // the first record of a transaction opens it
        let mut replay = Replay::new(Kv::default(), ActiveTransactions::default(), Lsn::ZERO);
        let first = TxnId::new(lsn.get());
        let bytes = [Record::Update { txn: first, command: &command }.head(lsn).as_slice(), &command].concat();
        replay.one(lsn, &bytes, Kv::VERSION, &mut report).unwrap();
        assert_eq!((replay.state.len(), replay.table.len()), (1, 1));
    }

    /// A log of interleaved transactions and single commands, in the order of a seed. The
    /// transactions commit, go back to savepoints, roll back, or never end. Returns one chunk per
    /// segment.
    fn tangled(seed: u64) -> Vec<Chunk> {
        let disk = SimDisk::new(seed);
        let options = Options::new()
            .background(Background::Manual)
            .durability(Durability::Os)
            .lock_timeout(Duration::ZERO)
            .first_segment_bytes(16 << 10)
            .segment_bytes(32 << 10)
            .checkpoint_log_bytes(1 << 30);
        let engine = options.open_on::<Kv>(Arc::new(disk.clone())).unwrap();
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
                4 if at < open.len() => drop(open.swap_remove(at).0.submit().unwrap()),
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
        let store_dir = StoreDir::new(Arc::new(disk), Access::ReadOnly, Duration::ZERO).unwrap();
        let start = candidates::list(&store_dir).unwrap()[0].start();
        let mut scanner = Scanner::new(&store_dir, start).unwrap();
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
            let store_dir = StoreDir::new(Arc::new(SimDisk::new(1)), Access::ReadWrite, Duration::ZERO).unwrap();
            let start =
                || (Replay::new(Kv::default(), ActiveTransactions::default(), Lsn::ZERO), new_report(&store_dir));
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
        let store_dir = StoreDir::new(Arc::new(SimDisk::new(1)), Access::ReadWrite, Duration::ZERO).unwrap();
        let mut report = new_report(&store_dir);
        let mut command = Vec::new();
        Kv::encode(&KvCommand::put("", "key", "value"), &mut command);
        let (first, second, third) = (Lsn::new(4156), Lsn::new(8252), Lsn::new(12348));
        let txn = TxnId::new(first.get());
        let abort = |replay: &mut Replay<Kv>, lsn: Lsn, report: &mut _| {
            replay.one(lsn, Record::Abort { txn }.head(lsn).as_slice(), Kv::VERSION, report).map_err(drop)
        };
        for (undo_next, accepted) in [(None, true), (Some(first), false)] {
            let mut replay = Replay::new(Kv::default(), ActiveTransactions::default(), Lsn::ZERO);
            let bytes = [Record::Update { txn, command: &command }.head(first).as_slice(), &command].concat();
            replay.one(first, &bytes, Kv::VERSION, &mut report).unwrap();
            assert!(abort(&mut replay, second, &mut report).is_err(), "an effect still stands");
            let mut replay = Replay::new(Kv::default(), ActiveTransactions::default(), Lsn::ZERO);
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
