//! From a scanned directory to an open log: a new epoch and a new segment. The new segment's header
//! cuts the log at the end of the recovered records.

use crate::count::Count;
use crate::error::{Error, Result};
use crate::format::bytes::round_up;
use crate::format::segment::SegmentHeader;
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId};
use crate::io::background_errors::BackgroundErrors;
use crate::io::deferred_unlinks::DeferredUnlinks;
use crate::io::sync::{Arc, AtomicBool, Mutex};
use crate::io::{OpenMode, Storage};
use crate::options::LogOptions;
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::{Access, StoreDir};
use crate::store::ownership::Ownership;
use crate::wal::device_latency::DeviceLatency;
use crate::wal::frame_index::FrameIndex;
use crate::wal::group_commit::GroupCommit;
use crate::wal::queue::{Bounds, Queue};
use crate::wal::scan::{ScanEnd, Scanner, Segment, Tail, manifest_stand_in, oldest_usable};
use crate::wal::segment_pool::{MOST_OPEN, PoolBounds, SegmentPool};
use crate::wal::segment_writer::{Identity, SegmentInfo, SegmentWriter};
use crate::wal::shared::Shared;
use std::fmt;

/// The minimum size of a segment in blocks, including the block of its header.
const SEGMENT_BLOCKS: u64 = 4;

/// What opening a log found, returned by
/// [`Log::recovery_report`](crate::wal::Log::recovery_report).
///
/// Its `Display` is a summary in one line, followed by a line for each warning.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogReport {
    /// Whether there was no log, and one was created.
    pub created: bool,
    /// Whether the log had been closed. Otherwise its process was killed, or power was lost.
    pub closed: bool,
    /// The LSN where the retained records start.
    pub start: Lsn,
    /// The LSN where the recovered records end.
    pub end: Lsn,
    /// The number of records that were recovered. All of them were verified.
    pub records: u64,
    /// The number of frames that were read: each is what one write appended.
    pub frames: u64,
    /// The number of times the log was opened, this time included.
    pub epoch: Epoch,
    /// The version of the records' encoding that the log had before this open.
    pub version: u32,
    /// The torn tail that was cut; `None` if the log ended cleanly. Nothing that was durable is
    /// missing.
    pub tail: Option<Tail>,
    /// Warnings, one sentence each: something is not as it should be, but nothing was lost.
    pub warnings: Vec<String>,
}

impl fmt::Display for LogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.created, self.closed, &self.tail) {
            (true, ..) => "new",
            (false, true, _) => "clean",
            (false, false, None) => "interrupted",
            (false, false, Some(_)) => "torn tail",
        })?;
        let (records, frames) = (Count(self.records, "record", "records"), Count(self.frames, "frame", "frames"));
        write!(f, "; {records} in {frames}, LSN {} to {}; epoch {}", self.start, self.end, self.epoch)?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

/// A log whose records have been read and that can now be opened for appending.
pub(crate) struct OpenLog {
    pub(crate) store_dir: StoreDir,
    pub(crate) root: ManifestFile,
    pub(crate) end: ScanEnd,
    pub(crate) machine: MachineTag,
    pub(crate) options: LogOptions,
}

impl OpenLog {
    /// Starts a new epoch in a new segment. When it returns, the end of the recovered log is
    /// durably recorded.
    ///
    /// The log opens even on a disk that has no space for the reserve or for a new copy of the
    /// manifest. It then enters its segment with the first record that finds room.
    ///
    /// With an index of the frames that were read, records can be read by their LSNs.
    pub(super) fn start(self, frame_index: Option<FrameIndex>) -> Result<(Arc<Shared>, LogReport)> {
        let OpenLog { store_dir, root, end, machine, mut options } = self;
        let storage = store_dir.storage.clone();
        let manifest = root.current().clone();
        let epoch = Epoch::new(manifest.epoch.max(end.highest_epoch).get().saturating_add(1));
        // the store may have moved to a device whose blocks are larger
        let block_bytes = manifest.block_bytes.max(storage.block_bytes());
        let least_bytes = u64::from(block_bytes).saturating_mul(SEGMENT_BLOCKS);
        let max_file_bytes = storage.max_file_bytes();
        let max_file_bytes =
            max_file_bytes.saturating_sub(max_file_bytes.checked_rem(u64::from(block_bytes)).unwrap_or(0));
        options.segment_bytes = options.segment_bytes.min(max_file_bytes).max(least_bytes);
        options.first_segment_bytes = options.first_segment_bytes.max(least_bytes);
        let identity = Identity { store: manifest.store, epoch, block_bytes, machine };
        let root = Arc::new(Mutex::new(root));
        let origin = Origin::of(&store_dir, &end, block_bytes);
        let base = origin.base;
        let tail = end.tail.filter(|tail| tail.torn);
        let report = LogReport { start: manifest.log_start, end: end.end, epoch, tail, ..LogReport::default() };
        let bounds = PoolBounds {
            block_bytes,
            first_segment_bytes: options.first_segment_bytes.min(options.segment_bytes),
            segment_bytes: options.segment_bytes,
            ready: options.preallocated_segments,
            most: options.max_preallocated_segments,
        };
        let segment_pool = SegmentPool::new(storage.clone(), bounds, &store_dir.preallocated);
        let (mut usable, useless): (Vec<_>, Vec<_>) =
            store_dir.preallocated.iter().cloned().partition(|s| segment_pool.is_usable(s.file_bytes));
        for spare in usable.iter_mut().take(MOST_OPEN) {
            spare.file = storage.open(&spare.name, OpenMode::ReadWrite).ok();
        }
        let queue_bounds = Bounds {
            block_bytes,
            segment_bytes: options.segment_bytes,
            max_frame_bytes: options.max_frame_bytes,
            max_pending_bytes: options.max_pending_bytes,
            max_in_flight: options.max_frames_in_flight.map(|most| most.max(1)),
        };
        let queue = Queue::new(queue_bounds, base, base, usable)?;
        let segments = known_segments(&*storage, &store_dir, base)?;
        let ownership = Arc::new(Ownership::new(storage.clone(), store_dir.lock));
        let writer = SegmentWriter::new(
            (storage.clone(), ownership.clone()),
            identity.clone(),
            root.clone(),
            origin.previous_end,
            origin.previous_checksum,
            origin.last_id,
        );
        // no record lies between the end of the recovered log and the base, so everything below the
        // base counts as durable
        let latency = DeviceLatency::new(storage.clone(), options.commit_spin);
        let mut commit = GroupCommit::new(queue, writer, segments, base, latency);
        commit.frame_index = frame_index;
        let shared = Arc::new(Shared {
            storage,
            commit,
            segment_pool,
            root,
            identity,
            options,
            ownership,
            stop: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            deferred_unlinks: DeferredUnlinks::default(),
            outcome: Mutex::new(None),
            background_errors: BackgroundErrors::new(),
            start: base,
            recovered: end.end,
            previous_end: origin.previous_end,
        });
        match shared.publish_epoch() {
            Err(error) if error.is_full() => shared.commit.queue.lock().set_epoch_pending(true),
            other => other?,
        }
        for spare in useless {
            shared.storage.remove(&spare.name).map_err(|e| Error::io("remove", shared.storage.path(&spare.name), e))?;
        }
        shared.enter_first(base)?;
        Ok((shared, report))
    }
}

/// Where an open begins to write, and what the header of its first segment records of the log
/// before it.
struct Origin {
    base: Lsn,
    previous_end: Lsn,
    previous_checksum: u32,
    /// The id that the first segment follows. Its predecessor may be truncated.
    last_id: SegmentId,
}

impl Origin {
    /// The first segment of an open follows all others. If an earlier open left the newest segment
    /// without a frame, the new one replaces it. It keeps repeated opens without a write from
    /// accumulating empty segments.
    fn of(store_dir: &StoreDir, end: &ScanEnd, block_bytes: u32) -> Origin {
        let replaced = end.unused.as_ref().filter(|unused| may_be_replaced(store_dir, unused, block_bytes));
        if let Some(Segment { header, .. }) = replaced.map(|unused| &**unused) {
            let &SegmentHeader { id, base, previous_end, previous_checksum, .. } = header;
            let last_id = SegmentId::new(id.get().saturating_sub(1));
            return Origin { base, previous_end, previous_checksum, last_id };
        }
        // a block boundary past everything that the old segments could hold, so that no LSN is used
        // twice
        let block = u64::from(block_bytes);
        let base = Lsn::new(round_up(end.beyond.get().max(block), block));
        let last_id = store_dir.segments.last().map_or(SegmentId::new(0), |newest| newest.id);
        Origin { base, previous_end: end.end, previous_checksum: end.last_checksum, last_id }
    }
}

/// Whether the newest segment, which holds no frame, may be replaced by a segment with the same
/// number and base.
///
/// The replacement is a rename, so at every moment there is one such segment, and its header
/// records where the log before it ends. The epoch of the new header is higher. So the old segment
/// must not be replaced if anything may refer to a position in it. A snapshot taken there belongs
/// to its epoch, and without a manifest nothing records what the segment followed.
fn may_be_replaced(store_dir: &StoreDir, unused: &Segment, block_bytes: u32) -> bool {
    let base = unused.header.base;
    let is_newest = store_dir.segments.last().is_some_and(|newest| *newest == unused.file);
    let has_manifest = store_dir.manifest.as_ref().is_some_and(|manifest| {
        manifest.watermark <= base && manifest.snapshots.iter().all(|snapshot| snapshot.lsn < base)
    });
    let is_referred_to = store_dir.snapshots.iter().any(|lsn| *lsn >= base);
    is_newest && has_manifest && !is_referred_to && unused.header.block_bytes == block_bytes
}

/// The segments below `base`, which are kept.
fn known_segments(storage: &dyn Storage, store_dir: &StoreDir, base: Lsn) -> Result<Vec<SegmentInfo>> {
    let measure = |name: &str| -> Result<u64> {
        let io = |operation, e| Error::io(operation, storage.path(name), e);
        let file = storage.open(name, OpenMode::Read).map_err(|e| io("open", e))?;
        file.len().map_err(|e| io("measure", e))
    };
    let info = |s: &crate::store::open_dir::SegmentFile| {
        Ok(SegmentInfo { name: s.name.clone(), id: s.id, base: s.base, file_bytes: measure(&s.name)? })
    };
    store_dir.segments.iter().filter(|segment| segment.base < base).map(info).collect()
}

/// Opens a log without an engine. All its records are verified.
pub(super) fn open_alone(storage: Arc<dyn Storage>, options: LogOptions) -> Result<(Arc<Shared>, LogReport)> {
    let store_dir = StoreDir::new(storage, Access::ReadWrite, options.lock_wait)?;
    let (start, found) = start_alone(&store_dir, &options)?;
    let mut report = LogReport { version: found.unwrap_or(options.version), ..LogReport::default() };
    // The log of an engine begins at a snapshot, which lies within a segment. The records before it
    // are still there and whole. A log on its own begins with a segment.
    let is_of_engine = store_dir.manifest.as_ref().is_some_and(|manifest| !manifest.snapshots.is_empty());
    let mut bases = store_dir.segments.iter().rev().map(|segment| segment.base).filter(|_| is_of_engine);
    let begin = bases.find(|base| *base <= start).unwrap_or(start);
    // no file is changed before all records are verified
    let mut scanner = Scanner::new(&store_dir, begin)?;
    let index = FrameIndex::new(begin);
    while let Some(chunk) = scanner.next_chunk()? {
        // the versions of the manifest and of a segment differ after an upgrade
        check_version(&store_dir, chunk.machine_version, &options)?;
        index.note_earlier(chunk.segment(), chunk.header());
        for frame in chunk.frames() {
            index.note_frame(frame.header.lsn, frame.end());
            report.frames = report.frames.saturating_add(1);
            report.records = report.records.saturating_add(frame.header.records.into());
        }
        scanner.reuse(chunk);
    }
    let end = scanner.take_end()?;
    let machine = MachineTag { name: options.name.clone(), version: options.version };
    let root = store_dir.open_manifest(&machine, manifest_stand_in(&store_dir)?)?;
    let storage = store_dir.storage.clone();
    let mut warnings: Vec<_> = store_dir.manifest_faults.iter().map(ToString::to_string).collect();
    warnings.extend(store_dir.foreign.iter().map(|name| format!("{name} is not a file of this store")));
    report.created = store_dir.is_new();
    let clean_end = store_dir.manifest.as_ref().map_or(Lsn::ZERO, |manifest| manifest.clean_end);
    report.closed = clean_end != Lsn::ZERO && clean_end == end.end;
    let (shared, started) = OpenLog { store_dir, root, end, machine, options }.start(Some(index))?;
    warnings.splice(..0, storage.warnings());
    let LogReport { end, epoch, tail, .. } = started;
    Ok((shared, LogReport { start, end, epoch, tail, warnings, ..report }))
}

/// The LSN at which the records of a log without an engine begin, and the version of their
/// encoding. Checks that this program reads them, by the manifest or, without one, by the oldest
/// usable segment.
fn start_alone(store_dir: &StoreDir, options: &LogOptions) -> Result<(Lsn, Option<u32>)> {
    if let Some(manifest) = &store_dir.manifest {
        check_machine(store_dir, &manifest.machine, options)?;
        return Ok((manifest.log_start, Some(manifest.machine.version)));
    }
    let Some(Segment { header, .. }) = oldest_usable(store_dir)? else {
        return Ok((Lsn::new(u64::from(store_dir.storage.block_bytes())), None));
    };
    check_machine(store_dir, &header.machine, options)?;
    Ok((header.base, Some(header.machine.version)))
}

fn check_machine(store_dir: &StoreDir, found: &MachineTag, options: &LogOptions) -> Result<()> {
    if found.name != options.name {
        return Err(Error::OtherMachine {
            path: store_dir.storage.path(""),
            found: found.name.clone().into(),
            version: found.version,
            expected: options.name.clone().into(),
        });
    }
    check_version(store_dir, found.version, options)
}

fn check_version(store_dir: &StoreDir, found: u32, options: &LogOptions) -> Result<()> {
    let oldest = options.oldest_version.unwrap_or(options.version);
    if found == options.version || (oldest..=options.version).contains(&found) {
        return Ok(());
    }
    Err(Error::UnsupportedVersion {
        path: store_dir.storage.path(""),
        what: options.name.clone().into(),
        found,
        supported: options.version,
    })
}
