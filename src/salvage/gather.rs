//! Builds the state that the intact parts of a damaged store lead to.

use super::behind::Aftermath;
use super::inventory::Inventory;
use super::report::{Base, Behind, Reach, SalvageReport};
use super::walk::{Step, Walker};
use crate::error::{Error, Result};
use crate::format::frame::record_bytes;
use crate::ids::{Epoch, Lsn};
use crate::machine::StateMachine;
use crate::recovery::replay::{Fault, Replay};
use crate::recovery::{RecoveryReport, new_report};
use crate::txn::{ActiveTransactions, guarded, undo_in_memory};
use crate::wal::scan::Chunk;
use std::collections::BTreeMap;

/// A state, with the findings about the log that led to it. They belong to the state, because
/// another starting state leads to other findings.
pub(super) struct Gathered<M> {
    pub(super) state: M,
    base: Base,
    end: Lsn,
    replayed: RecoveryReport,
    undone: u64,
    gaps: Vec<(Lsn, Option<Lsn>, Vec<Error>)>,
    behind: Behind,
}

impl<M> Gathered<M> {
    /// Adds its findings to the report, and returns the state.
    pub(super) fn tell(self, report: &mut SalvageReport) -> M {
        report.base = Some(self.base);
        report.end = Some(self.end);
        report.records = self.replayed.records;
        report.transactions = self.replayed.redone;
        report.undone = self.undone;
        for (from, to, why) in &self.gaps {
            report.gap(*from, *to);
            why.iter().for_each(|error| report.damage(error));
        }
        report.behind = self.behind;
        self.state
    }
}

/// Builds the best possible state: from the newest intact snapshot that was in use, up to the first
/// damage. With [`Reach::Beyond`], also from a snapshot that nothing proves to have been in use, if
/// it is newer than everything that is proven.
pub(super) fn gather<M: StateMachine>(
    inventory: &Inventory,
    reach: Reach,
    report: &mut SalvageReport,
) -> Result<Option<Gathered<M>>> {
    let counted = counted(inventory)?;
    let mut found = None;
    for lsn in &counted {
        if let Some(replay) = load::<M>(inventory, *lsn, report)? {
            found = Some(replay_from(inventory, reach, Base::Snapshot(*lsn), replay)?);
            break;
        }
    }
    if found.is_none()
        && let Some(origin) = inventory.origin()
    {
        found = Some(replay_from(inventory, reach, Base::Origin(origin), empty())?);
    }
    if found.is_none() {
        let first = inventory.segments.first().map(|first| first.header.base);
        let reason = "no intact snapshot that was in use is left, and the log does not go back to its beginning";
        report.damage(&Error::corrupt_as_a_whole(inventory.storage().path(""), first, reason));
    }
    let end = found.as_ref().map_or(Lsn::ZERO, |found: &Gathered<M>| found.end);
    let newer = inventory.store_dir.snapshots.iter().filter(|lsn| **lsn > end && !counted.contains(lsn));
    for lsn in newer {
        let Some(replay) = load::<M>(inventory, *lsn, report)? else { continue };
        report.note(format!("nothing proves that the snapshot at LSN {lsn}, which is whole, ever counted"));
        if reach == Reach::Beyond {
            return replay_from(inventory, reach, Base::UnprovenSnapshot(*lsn), replay).map(Some);
        }
    }
    if found.is_none() && reach == Reach::Beyond && !inventory.segments.is_empty() {
        found = Some(replay_from(inventory, reach, Base::UnprovenEmpty, empty())?);
    }
    Ok(found)
}

fn empty<M: StateMachine>() -> Replay<M> {
    Replay::new(M::default(), ActiveTransactions::default(), Lsn::ZERO)
}

fn read<M: StateMachine>(inventory: &Inventory, lsn: Lsn) -> Result<Replay<M>> {
    let storage = &**inventory.storage();
    let loaded = guarded(|| {
        crate::snapshot::load::<M>(storage, Some(inventory.store), lsn, crate::snapshot::Help::None, &|_, _| Ok(()))
    })??;
    Ok(Replay::new(loaded.state, loaded.table, lsn))
}

/// Loads a snapshot, and reports what is wrong with it.
fn load<M: StateMachine>(inventory: &Inventory, lsn: Lsn, report: &mut SalvageReport) -> Result<Option<Replay<M>>> {
    match read(inventory, lsn) {
        Ok(replay) => Ok(Some(replay)),
        Err(Error::Poisoned) => {
            report.note(format!("the machine panics when it reads the snapshot at LSN {lsn}"));
            Ok(None)
        }
        Err(error) if error.is_corrupt() || error.is_unreadable() => {
            report.damage(&error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The snapshots that were in use, newest first: a copy of the manifest names them, or the log
/// passed their LSN in an epoch that is no newer than theirs.
fn counted(inventory: &Inventory) -> Result<Vec<Lsn>> {
    let store_dir = &inventory.store_dir;
    let mut counted = inventory.named.clone();
    let mut open = BTreeMap::new();
    for lsn in store_dir.snapshots.iter().filter(|lsn| !counted.contains(lsn)) {
        open.insert(*lsn, crate::recovery::candidates::epoch_of(store_dir, *lsn)?);
    }
    let Some(first) = inventory.segments.first() else { return Ok(counted) };
    if open.is_empty() {
        return Ok(counted);
    }
    let mut pass = |lsn: Lsn, oldest: Epoch| {
        if open.get(&lsn).is_some_and(|epoch| *epoch >= oldest) {
            counted.push(lsn);
        }
    };
    for segment in inventory.segments.iter().filter(|s| !inventory.rebuilt.contains(&s.file.id)) {
        let header = &segment.header;
        // if nothing was cut before it, its base is also the end of the log before it
        let uncut = header.previous_end == header.base;
        pass(header.base, if uncut { Epoch::default() } else { header.epoch });
    }
    let mut walker = Walker::new(inventory, first.header.base);
    while let Some(step) = walker.next()? {
        if let Step::Chunk(chunk) = step {
            chunk.frames().for_each(|frame| pass(frame.end(), frame.header.epoch));
        }
    }
    counted.sort_by(|a, b| b.cmp(a));
    counted.dedup();
    Ok(counted)
}

/// The reason to repeat a pass over the log: a record cannot be replayed, and may be half applied.
struct Unfit {
    lsn: Lsn,
    why: Error,
}

fn replay_from<M: StateMachine>(
    inventory: &Inventory,
    reach: Reach,
    base: Base,
    replay: Replay<M>,
) -> Result<Gathered<M>> {
    let unfit = match Pass::new(inventory, reach, base, replay, None).run()? {
        Ok(gathered) => return Ok(gathered),
        Err(unfit) => unfit,
    };
    let again = match base {
        Base::Origin(_) | Base::UnprovenEmpty => empty(),
        Base::Snapshot(lsn) | Base::UnprovenSnapshot(lsn) => read(inventory, lsn)?,
    };
    // the same records give the same result, unless the machine breaks its law
    Pass::new(inventory, reach, base, again, Some(unfit)).run()?.map_err(|_| Error::Poisoned)
}

/// One pass over the log, from a starting state to the end.
struct Pass<'a, M: StateMachine> {
    inventory: &'a Inventory,
    reach: Reach,
    base: Base,
    replay: Replay<M>,
    replayed: RecoveryReport,
    /// The record to stop before.
    stop_at: Option<Unfit>,
    /// The LSN of the first damage; nothing is replayed from there on.
    end: Option<Lsn>,
    undone: u64,
    gaps: Vec<(Lsn, Option<Lsn>, Vec<Error>)>,
    behind: Aftermath,
    /// The current record, and the end of the previous one.
    at: Lsn,
    behind_last: Lsn,
}

impl<'a, M: StateMachine> Pass<'a, M> {
    fn new(inventory: &'a Inventory, reach: Reach, base: Base, replay: Replay<M>, stop_at: Option<Unfit>) -> Self {
        Pass {
            inventory,
            reach,
            base,
            replay,
            replayed: new_report(&inventory.store_dir),
            stop_at,
            end: None,
            undone: 0,
            gaps: Vec::new(),
            behind: Aftermath::default(),
            at: Lsn::ZERO,
            behind_last: Lsn::ZERO,
        }
    }

    fn run(mut self) -> Result<Result<Gathered<M>, Unfit>> {
        let start = match self.base {
            Base::Snapshot(lsn) | Base::Origin(lsn) | Base::UnprovenSnapshot(lsn) => lsn,
            Base::UnprovenEmpty => {
                let start = self.inventory.segments.first().map_or(Lsn::ZERO, |first| first.header.base);
                self.end = Some(start);
                start
            }
        };
        let mut walker = Walker::new(self.inventory, start);
        while let Some(step) = walker.next()? {
            match step {
                Step::Chunk(chunk) => {
                    if let Some(unfit) = self.chunk(&chunk)? {
                        return Ok(Err(unfit));
                    }
                }
                Step::Gap(from, to, why) => self.gap(from, to, why)?,
                Step::End(end) => self.stop(end)?,
            }
        }
        let end = self.end.unwrap_or(start);
        let Pass { base, replayed, undone, gaps, .. } = self;
        let (state, behind) = (self.replay.state, self.behind.finish());
        Ok(Ok(Gathered { state, base, end, replayed, undone, gaps, behind }))
    }

    /// Ends the replay here, and undoes open transactions.
    fn stop(&mut self, at: Lsn) -> Result<()> {
        if self.end.is_none() {
            self.end = Some(at);
            self.undone = self.replay.table.len() as u64;
            undo_in_memory(&mut self.replay.state, &mut self.replay.table)?;
        }
        Ok(())
    }

    fn gap(&mut self, from: Lsn, to: Option<Lsn>, why: Vec<Error>) -> Result<()> {
        self.stop(from)?;
        self.behind.gap();
        self.gaps.push((from, to, why));
        Ok(())
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<Option<Unfit>> {
        let path = || self.inventory.storage().path(&chunk.segment().name);
        let version = chunk.machine_version;
        if !M::supports(version) {
            let (path, what) = (path(), M::NAME.into());
            return Err(Error::UnsupportedVersion { path, what, found: version, supported: M::VERSION });
        }
        let damage = |lsn: Lsn, why: Fault| why.into_error::<M>(path(), chunk.offset_of(lsn), lsn, version);
        let stopped = self.end.is_some();
        let outcome = guarded(|| self.records(chunk, &damage));
        let outcome = match outcome {
            Ok(outcome) => outcome?,
            Err(_) if stopped || self.end.is_some() => return Err(Error::Poisoned),
            Err(_) => {
                let why = damage(self.at, "the machine panics when the record is replayed".into());
                Some(Unfit { lsn: self.at, why })
            }
        };
        Ok(outcome)
    }

    /// Replays the records of a chunk; after the first damage, collects them instead.
    fn records(&mut self, chunk: &Chunk, damage: &dyn Fn(Lsn, Fault) -> Error) -> Result<Option<Unfit>> {
        for frame in chunk.frames() {
            let mut stopped = self.end.is_some();
            if stopped {
                self.behind.figures.frame(frame.header.lsn, frame.end());
            }
            for record in frame.records() {
                let (lsn, bytes) = match record {
                    Ok(record) => record,
                    Err(fault) => {
                        let lsn = self.behind_last.max(frame.header.lsn);
                        self.gap(lsn, Some(frame.end()), vec![damage(frame.header.lsn, fault.reason().into())])?;
                        break;
                    }
                };
                self.at = lsn;
                self.behind_last = lsn.plus(record_bytes(bytes.len() as u64));
                if let Some(unfit) = self.stop_at.take_if(|unfit| unfit.lsn == lsn) {
                    self.gap(lsn, Some(self.behind_last), vec![unfit.why])?;
                    continue;
                }
                stopped |= self.end.is_some();
                if stopped {
                    let state = (self.reach == Reach::Beyond).then_some(&mut self.replay.state);
                    self.behind.record(lsn, bytes, chunk.machine_version, state)?;
                } else if let Err(why) = self.replay.one(lsn, bytes, chunk.machine_version, &mut self.replayed) {
                    return Ok(Some(Unfit { lsn, why: damage(lsn, why) }));
                }
            }
        }
        Ok(None)
    }
}
