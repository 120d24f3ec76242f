//! Lists what is left of a store, file by file, without assuming that the files are consistent.

use super::report::SalvageReport;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::ids::{Lsn, MachineTag, SegmentId, StoreId};
use crate::io::Storage;
use crate::io::sync::Arc;
use crate::machine::StateMachine;
use crate::store::layout as names;
use crate::store::manifest_file::read_each;
use crate::store::open_dir::StoreDir;
use crate::wal::scan::Segment;
use std::collections::{BTreeMap, BTreeSet};

/// The usable files of a damaged store.
pub(super) struct Inventory {
    pub(super) store_dir: StoreDir,
    pub(super) store: StoreId,
    /// Segments with an intact header, each id once, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Segments whose header was reconstructed from their frames. The end of the segment before
    /// each of them is unknown.
    pub(super) rebuilt: BTreeSet<SegmentId>,
    /// The faults of the other segments, by id.
    pub(super) bad_segments: Vec<(SegmentId, Error)>,
    /// The newest segment that is known to have existed.
    pub(super) newest: SegmentId,
    /// Snapshots that a copy of the manifest names, newest first.
    pub(super) named: Vec<Lsn>,
    /// True if both copies of the manifest are intact, so that the newer one is the newest ever
    /// written.
    manifest_is_known: bool,
}

impl Inventory {
    pub(super) fn take<M: StateMachine>(
        (store_dir, lost): (StoreDir, Option<Error>),
        report: &mut SalvageReport,
    ) -> Result<Inventory> {
        let storage = store_dir.storage.clone();
        let manifests = manifests(&*storage, report)?;
        lost.iter().for_each(|error| report.damage(error));
        store_dir.foreign.iter().for_each(|name| report.note(format!("{name} is not a file of this store")));
        let (mut segments, mut bad_segments) = segments(&store_dir, report)?;
        let (store, machine) = owner::<M>(&store_dir, &segments)?;
        segments.retain(|segment| {
            let header = &segment.header;
            let ours = header.store == store && header.machine.name == machine.name;
            if !ours {
                let path = storage.path(&segment.file.name);
                report.damage(&Error::corrupt_as_a_whole(
                    path,
                    Some(header.base),
                    "the segment belongs to another store",
                ));
            }
            ours
        });
        let rebuilt = rebuild(&store_dir, store, &machine, &mut segments, &bad_segments)?;
        bad_segments.iter().for_each(|(_, error)| report.damage(error));
        bad_segments.retain(|(id, _)| !rebuilt.contains(id));
        drop_twins(&*storage, &mut segments, &mut bad_segments);
        let twins = bad_segments.iter().filter(|(_, error)| error.is_corrupt());
        twins.for_each(|(_, error)| report.damage(error));
        let ours = |m: &&Manifest| m.store == store;
        let newest = manifests.iter().filter(ours).map(|m| m.segment);
        let newest =
            newest.chain(segments.iter().map(|s| s.file.id)).chain(bad_segments.iter().map(|(id, _)| *id)).max();
        let current = store_dir.manifest.as_ref().map_or(0, |m| m.counter);
        // files that only the older copy names may have been deleted since
        let is_there = |m: &Manifest, lsn: &Lsn| m.counter == current || store_dir.snapshots.contains(lsn);
        let of = |m: &Manifest| m.snapshots.iter().map(|s| s.lsn).filter(|lsn| is_there(m, lsn)).collect::<Vec<_>>();
        let mut named: Vec<Lsn> = manifests.iter().filter(ours).flat_map(of).collect();
        named.sort_by(|a, b| b.cmp(a));
        named.dedup();
        report.machine = Some(machine);
        let newest = newest.unwrap_or_default();
        let manifest_is_known = manifests.len() == names::MANIFESTS.len();
        Ok(Inventory { store_dir, store, segments, rebuilt, bad_segments, newest, named, manifest_is_known })
    }

    /// The LSN up to which the log was durable, according to the manifest and the headers.
    pub(super) fn watermark(&self) -> Lsn {
        let manifest = self.store_dir.manifest.as_ref().map_or(Lsn::ZERO, |m| m.watermark.max(m.clean_end));
        self.segments.iter().map(|s| s.header.watermark).fold(manifest, Lsn::max)
    }

    /// The end of the log if the store was closed. Segments that were created later begin after it.
    pub(super) fn clean_end(&self) -> Option<Lsn> {
        let manifest = self.store_dir.manifest.as_ref().filter(|_| self.manifest_is_known)?;
        Some(manifest.clean_end).filter(|end| *end != Lsn::ZERO)
    }

    /// The first LSN of the log's first segment, if that exists; the state before it is empty.
    pub(super) fn origin(&self) -> Option<Lsn> {
        let first = self.segments.first()?;
        let base = first.header.base;
        let stated = self.store_dir.manifest.as_ref().is_some_and(|m| m.origin == base);
        let begins = first.file.id == SegmentId::new(1) && base == Lsn::new(u64::from(first.header.block_bytes));
        (stated || begins).then_some(base)
    }
}

/// The intact copies of the manifest.
fn manifests(storage: &dyn Storage, report: &mut SalvageReport) -> Result<Vec<Manifest>> {
    let present = storage.list().map_err(|e| Error::io("list", storage.path(""), e))?;
    let copies = read_each(storage, &present)?;
    let mut whole = Vec::new();
    for name in names::MANIFESTS {
        match copies.iter().find(|(copy, _)| *copy == name) {
            Some((_, Ok(manifest))) => whole.push(manifest.clone()),
            Some((_, Err(error))) => report.damage(error),
            None => {
                report.damage(&Error::corrupt_as_a_whole(
                    storage.path(name),
                    None,
                    "the copy of the manifest is missing",
                ));
            }
        }
    }
    Ok(whole)
}

/// Reconstructs damaged segment headers from the first frame, if it is intact: a frame's checksum
/// proves its position. Returns the reconstructed segments.
fn rebuild(
    store_dir: &StoreDir,
    store: StoreId,
    machine: &MachineTag,
    segments: &mut Vec<Segment>,
    bad: &[(SegmentId, Error)],
) -> Result<BTreeSet<SegmentId>> {
    let mut rebuilt = BTreeSet::new();
    let versions: BTreeSet<u32> = segments.iter().map(|s| s.header.machine.version).chain([machine.version]).collect();
    let manifest = store_dir.manifest.as_ref().map(|m| m.block_bytes);
    let block_bytes = manifest.or(segments.first().map(|s| s.header.block_bytes));
    let block_bytes = block_bytes.unwrap_or_else(|| store_dir.storage.block_bytes());
    for file in store_dir.segments.iter().filter(|file| bad.iter().any(|(id, _)| *id == file.id)) {
        let there = segments.iter().any(|segment| segment.file.id == file.id);
        let Some(mut segment) = Segment::from_first_frame(&*store_dir.storage, file, store, block_bytes)? else {
            continue;
        };
        // one program wrote an epoch; if it is unknown, all segments must have the same version
        let same = segments.iter().find(|s| s.header.epoch == segment.header.epoch).map(|s| s.header.machine.version);
        let Some(version) = same.or((versions.len() == 1).then_some(machine.version)).filter(|_| !there) else {
            continue;
        };
        segment.header.machine = MachineTag { version, name: machine.name.clone() };
        rebuilt.insert(file.id);
        segments.push(segment);
    }
    segments.sort_by_key(|segment| (segment.file.id, segment.file.base));
    Ok(rebuilt)
}

type Segments = (Vec<Segment>, Vec<(SegmentId, Error)>);

fn segments(store_dir: &StoreDir, report: &mut SalvageReport) -> Result<Segments> {
    let (mut whole, mut bad) = (Vec::new(), Vec::new());
    for file in &store_dir.segments {
        match Segment::read_what_is_left(&*store_dir.storage, file) {
            Ok((mut segment, found_bytes)) => {
                let stated = segment.header.file_bytes;
                if stated > found_bytes {
                    let path = store_dir.storage.path(&file.name);
                    let reason = format!("the segment was {stated} bytes long and is {found_bytes} now");
                    report.damage(&Error::corrupt(path, found_bytes, None, reason));
                    let block = u64::from(segment.header.block_bytes);
                    segment.header.file_bytes = found_bytes.saturating_sub(found_bytes.checked_rem(block).unwrap_or(0));
                }
                whole.push(segment);
            }
            Err(error) if error.is_corrupt() => bad.push((file.id, error)),
            Err(error) => return Err(error),
        }
    }
    Ok((whole, bad))
}

/// The machine and identifier of the store: from the manifest, else from the majority of segments,
/// else from the newest snapshot.
fn owner<M: StateMachine>(store_dir: &StoreDir, segments: &[Segment]) -> Result<(StoreId, MachineTag)> {
    let path = || store_dir.storage.path("");
    let (store, machine) = if let Some(manifest) = &store_dir.manifest {
        (manifest.store, manifest.machine.clone())
    } else {
        let mut votes: BTreeMap<StoreId, (u64, MachineTag)> = BTreeMap::new();
        for header in segments.iter().map(|s| &s.header) {
            let (count, machine) = votes.entry(header.store).or_insert((0, header.machine.clone()));
            *count = count.saturating_add(1);
            machine.version = machine.version.max(header.machine.version);
        }
        let most = votes.into_iter().max_by_key(|(_, (count, _))| *count).map(|(store, (_, machine))| (store, machine));
        let header = |lsn: &Lsn| crate::snapshot::check(&*store_dir.storage, *lsn).ok().map(|(header, _)| header);
        let snapshot = || store_dir.snapshots.iter().find_map(header).map(|header| (header.store, header.machine));
        most.or_else(snapshot).ok_or_else(|| {
            let reason = "no manifest, segment header or snapshot is intact, so the machine of the store is unknown";
            Error::corrupt_as_a_whole(path(), None, reason)
        })?
    };
    if machine.name != M::NAME {
        return Err(Error::OtherMachine {
            path: path(),
            version: machine.version,
            found: machine.name.into(),
            expected: M::NAME.into(),
        });
    }
    if !M::supports(machine.version) {
        let (what, found, supported) = (M::NAME.into(), machine.version, M::VERSION);
        return Err(Error::UnsupportedVersion { path: path(), what, found, supported });
    }
    Ok((store, machine))
}

/// Removes segments whose id two files claim, because nothing proves which file is the right one.
fn drop_twins(storage: &dyn Storage, segments: &mut Vec<Segment>, bad: &mut Vec<(SegmentId, Error)>) {
    let mut count: BTreeMap<SegmentId, u32> = BTreeMap::new();
    for segment in segments.iter() {
        let seen = count.entry(segment.file.id).or_default();
        *seen = seen.saturating_add(1);
    }
    segments.retain(|segment| {
        let alone = count.get(&segment.file.id).is_none_or(|seen| *seen == 1);
        if !alone {
            let path = storage.path(&segment.file.name);
            let error =
                Error::corrupt_as_a_whole(path, Some(segment.header.base), "two files claim to be this segment");
            bad.push((segment.file.id, error));
        }
        alone
    });
}

/// The storage of an inventory, shared.
impl Inventory {
    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        &self.store_dir.storage
    }
}
