//! The public face of the log.

use super::ticket::LogTicket;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::ids::{Epoch, Lsn};
use crate::io::deferred_unlinks::DeferredUnlinks;
use crate::io::sync::{Arc, Ordering};
use crate::io::{Create, DiskStorage, Storage, WritePath};
#[cfg(doc)]
use crate::options::Background;
use crate::options::LogOptions;
#[cfg(doc)]
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::StoreDir;
use crate::wal::Level;
use crate::wal::batch_sizes::BatchSizes;
use crate::wal::flusher::LogStep;
use crate::wal::frame_index::FrameIndex;
use crate::wal::growth_alarm::GrowthAlarm;
use crate::wal::lifecycle::Lifecycle;
use crate::wal::open::{LogReport, OpenLog, open_alone};
use crate::wal::read::Records;
use crate::wal::reader_holds::HeldSegments;
use crate::wal::segment_writer::Identity;
use crate::wal::shared::Shared;
use std::ops::RangeBounds;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::time::Duration;

/// Statistics of an open log, returned by [`Log::stats`]. With the feature `serde`, they can be
/// serialized; errors are their text.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LogStats {
    /// The durable LSN: every record below it survives power loss.
    pub durable: Lsn,
    /// The written LSN: every record below it survives a kill of the process.
    pub written: Lsn,
    /// Number of segment files. Preallocated segments are not counted.
    pub segments: usize,
    /// Total size of the segment files, in bytes.
    pub segment_bytes: u64,
    /// Number of preallocated segments that are ready for use.
    pub preallocated_segments: usize,
    /// Total size of the preallocated segments, in bytes. It comes on top of `segment_bytes`.
    pub preallocated_bytes: u64,
    /// Room of preallocated segments that open transactions have reserved for their rollback, in
    /// bytes. It comes back when they end.
    pub rollback_bytes: u64,
    /// Frames taken off to be written since the log was opened.
    pub frames: u64,
    /// Records appended since the log was opened.
    pub records: u64,
    /// Histogram of the records in each frame since the log was opened: the batch sizes of group
    /// commit.
    pub batch_sizes: BatchSizes,
    /// Frames written directly to the device, around the page cache.
    pub direct_writes: u64,
    /// Syncs of frames that were written through the page cache.
    pub syncs: u64,
    /// How durable writes reach the device. `None` until the first segment is entered.
    pub write_path: Option<WritePath>,
    /// The block size that durable frames are padded to, in bytes.
    pub block_bytes: u32,
    /// Why background work of the log failed, until that work succeeds. It is tried again while it
    /// is needed. A failure that stopped the log is also returned to every caller, as
    /// [`Error::Latched`].
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::text"))]
    pub background_error: Option<Error>,
}

/// An append-only log of opaque records, in segments, with group commit.
///
/// Clones are handles of the same log, for any number of threads. The log is unlocked when it is
/// [closed](Log::close), or when its last handle is dropped.
///
/// A record is read back [by its LSN](Log::read_at), with one read of the device. So an index of the
/// user's own maps to LSNs. The log keeps one or two bytes of memory for each frame for that. The
/// log never overwrites: what a record takes back, such as a suffix that a new leader gives up, is
/// told by a later record. `examples/replicated_log.rs` shows that.
///
/// ```
/// use seawal::wal::{Level, Log};
///
/// let dir = tempfile::tempdir()?;
/// let log = Log::options().open(dir.path())?;
/// let first = log.append(b"one")?; // in memory
/// log.append(b"two")?.wait()?; // both survive power loss now
/// assert!(first.is_done());
/// assert_eq!(log.read_at(first.lsn(), Level::Durable)?.as_deref(), Some(&b"one"[..]));
/// let all = log.read(.., Level::Durable)?.collect::<seawal::Result<Vec<_>>>()?;
/// assert_eq!(all[1].1, b"two");
/// log.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
    /// Ends the log with the last handle.
    lifecycle: Arc<Lifecycle>,
    report: Arc<LogReport>,
}

// no code of the caller runs while a change of the log is half made
impl UnwindSafe for Log {}
impl RefUnwindSafe for Log {}

impl LogOptions {
    /// Opens the log in a directory; see [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<Log> {
        Log::open(dir, self.clone())
    }

    /// Opens the log on a storage of the caller's own, such as `sim::SimDisk`; see [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(&self, storage: Arc<dyn Storage>) -> Result<Log> {
        Log::open_on(storage, self.clone())
    }
}

impl Log {
    /// The default options, to change and to [open](LogOptions::open) a log with.
    pub fn options() -> LogOptions {
        LogOptions::default()
    }

    /// Opens the log in a directory, or creates it. Every record is verified;
    /// [`recovery_report`](Self::recovery_report) says what was found.
    ///
    /// When it returns, the directory, the records found and the place where they end survive power
    /// loss.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`], [`Error::UnsupportedVersion`], [`Error::NotAStore`],
    /// [`Error::OtherMachine`] and I/O errors; the directory's content is then as before.
    pub fn open(dir: impl AsRef<Path>, options: LogOptions) -> Result<Log> {
        let dir = dir.as_ref();
        let storage = DiskStorage::open(dir, Create::IfMissing).map_err(|e| Error::io("open", dir.into(), e))?;
        Self::open_on(Arc::new(storage), options)
    }

    /// Opens the log on a given storage; see [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(storage: Arc<dyn Storage>, options: LogOptions) -> Result<Log> {
        let (shared, report) = open_alone(storage, options)?;
        Self::with_threads(shared, report)
    }

    /// Opens a log for appending after the caller has read its records.
    pub(crate) fn continue_from(read: OpenLog) -> Result<Log> {
        let (shared, report) = read.start(None)?;
        Self::with_threads(shared, report)
    }

    fn with_threads(shared: Arc<Shared>, report: LogReport) -> Result<Log> {
        let lifecycle = Arc::new(Lifecycle::start(shared.clone())?);
        Ok(Log { shared, lifecycle, report: Arc::new(report) })
    }

    /// What opening the log found: where the records start and end, and what was cut.
    pub fn recovery_report(&self) -> &LogReport {
        &self.report
    }

    /// Appends a record in memory, with the default [durability](LogOptions::durability) of the log.
    /// Nothing survives a crash when this returns: the ticket has the record's LSN, and says when
    /// it is durable. The log makes it durable whether or not the ticket is waited for.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`], [`Error::Latched`] and [`Error::Closed`]. Nothing was
    /// appended then.
    pub fn append(&self, record: &[u8]) -> Result<LogTicket> {
        self.append_with(record, self.shared.options.durability)
    }

    /// As [`append`](Log::append), with a durability of its own.
    ///
    /// The ticket waits for power loss with [`Durability::Sync`], and for a kill of the process with
    /// the other levels. A later record is never more durable than an earlier one.
    ///
    /// ```
    /// use seawal::{Durability, wal::{Log, LogOptions}};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), LogOptions::default())?;
    /// log.append_with(b"a vote", Durability::Sync)?.wait()?; // survives power loss
    /// log.append_with(b"a trace", Durability::Os)?.wait()?; // survives a kill of the process
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn append_with(&self, record: &[u8], durability: Durability) -> Result<LogTicket> {
        let level = durability.into();
        let (lsn, end) = self.append_alone(record, level)?;
        Ok(self.appended_ticket(lsn, end, durability))
    }

    /// Appends records as one atomic group: after a crash, all of them are there or none. Returns
    /// the LSN of each, and one ticket for all.
    ///
    /// The group goes into one frame, so it must fit a segment; a group of any number of records
    /// takes one write. Nothing survives a crash when this returns: see [`append`](Log::append).
    ///
    /// ```
    /// use seawal::wal::{Level, Log, LogOptions};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), LogOptions::default())?;
    /// let (lsns, ticket) = log.append_group(["one", "two"])?;
    /// ticket.wait()?;
    /// assert_eq!(log.read_at(lsns[1], Level::Durable)?.as_deref(), Some(&b"two"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`append`](Log::append); [`Error::TooLarge`] if the group does not fit a segment.
    pub fn append_group<R: AsRef<[u8]>>(&self, records: impl IntoIterator<Item = R>) -> Result<(Vec<Lsn>, LogTicket)> {
        self.append_group_with(records, self.shared.options.durability)
    }

    /// As [`append_group`](Log::append_group), with a durability of its own.
    ///
    /// # Errors
    /// As [`append_group`](Log::append_group).
    pub fn append_group_with<R: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = R>,
        durability: Durability,
    ) -> Result<(Vec<Lsn>, LogTicket)> {
        let records: Vec<R> = records.into_iter().collect();
        let records: Vec<&[u8]> = records.iter().map(AsRef::as_ref).collect();
        let level = durability.into();
        let (lsns, end) = self.append_group_alone(&records, level)?;
        let lsn = lsns.first().copied().unwrap_or(end);
        Ok((lsns, self.appended_ticket(lsn, end, durability)))
    }

    /// Has appended records made durable, and returns their ticket.
    fn appended_ticket(&self, lsn: Lsn, end: Lsn, durability: Durability) -> LogTicket {
        match durability {
            Durability::Interval(within) => self.sync_within(end, within),
            Durability::Sync | Durability::Os => self.nudge(),
        }
        LogTicket::new(self.shared.clone(), lsn, end, durability.into())
    }

    /// Waits until everything appended so far survives power loss.
    ///
    /// # Errors
    /// [`Error::Latched`].
    pub fn sync(&self) -> Result<()> {
        self.shared.sync_all()
    }

    /// Reads the record at an LSN, by one read of the device, which verifies its checksum. `None` if
    /// the LSN lies past what the level includes.
    ///
    /// [`Level::Durable`] includes what survives power loss now, and never waits.
    /// [`Level::Written`] includes everything that was appended before the call. It writes what is
    /// still in memory first, so what was read survives a kill of the process; what is not durable
    /// yet is read from the page cache. A crash of the system may still take it back.
    ///
    /// It may be called beside appends and truncations, from any thread. It reads the whole frame
    /// of the record: the records that were written together with it, at most
    /// [`max_frame_bytes`](LogOptions::max_frame_bytes) or one group. Padding may follow the last
    /// record of a frame, and no record begins within it.
    ///
    /// ```
    /// use seawal::{Error, wal::{Level, Log, LogOptions}};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), LogOptions::default())?;
    /// let ticket = log.append(b"one")?;
    /// let lsn = ticket.lsn();
    /// assert_eq!(log.read_at(lsn, Level::Durable)?, None); // not yet
    /// assert_eq!(log.read_at(lsn, Level::Written)?.as_deref(), Some(&b"one"[..]));
    /// assert_eq!(log.read_at(log.end_lsn(), Level::Written)?, None);
    /// assert!(matches!(log.read_at(lsn.plus(1), Level::Written), Err(Error::NotARecord { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotARecord`] if no record begins at the LSN; [`Error::Truncated`] if it lies below
    /// [`first_lsn`](Log::first_lsn); [`Error::Corrupt`] if the record is damaged; [`Error::Closed`];
    /// I/O errors. With [`Level::Written`] also [`Error::Latched`] and [`Error::Full`] if the record
    /// could not be written.
    pub fn read_at(&self, lsn: Lsn, level: Level) -> Result<Option<Vec<u8>>> {
        self.shared.read_at(lsn, level)
    }

    /// Reads the records of a range of LSNs that the level includes now; see
    /// [`read_at`](Log::read_at). The bounds need not be LSNs of records.
    ///
    /// Without a lower bound it begins at [`first_lsn`](Log::first_lsn). While the reader lives, no
    /// segment that it has yet to read is recycled. A reader that is kept for long therefore keeps
    /// [`truncate_before`](Log::truncate_before) from freeing space. Once the log is closed, the
    /// reader ends with [`Error::Closed`].
    ///
    /// ```
    /// use seawal::wal::{Level, Log, LogOptions};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), LogOptions::default())?;
    /// let (lsns, _ticket) = log.append_group(["one", "two", "three"])?;
    /// let read = log.read(lsns[0]..lsns[2], Level::Written)?.collect::<seawal::Result<Vec<_>>>()?;
    /// assert_eq!(read, [(lsns[0], b"one".to_vec()), (lsns[1], b"two".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Truncated`] if the range begins below [`first_lsn`](Log::first_lsn); otherwise as
    /// [`read_at`](Log::read_at).
    pub fn read(&self, range: impl RangeBounds<Lsn>, level: Level) -> Result<Records> {
        self.shared.read_range(&range, level)
    }

    /// Reads the durable records from an LSN on, up to what is durable now: as
    /// [`read`](Log::read), but records that were truncated are skipped.
    ///
    /// # Errors
    /// As [`read`](Log::read), without [`Error::Truncated`].
    pub fn read_from(&self, lsn: Lsn) -> Result<Records> {
        Ok(self.shared.read_range(&.., Level::Durable)?.skip_to(lsn))
    }

    /// The LSN at which the log begins: every record from there on can be read, and none below.
    pub fn first_lsn(&self) -> Lsn {
        self.shared.commit.frame_index.as_ref().map_or_else(|| self.manifest().log_start, FrameIndex::start)
    }

    /// The LSN past the last record that was appended.
    pub fn end_lsn(&self) -> Lsn {
        self.shared.commit.queue.lock().frames.appended_end()
    }

    /// The version of the encoding of the records at an LSN: that of the program that wrote them.
    /// `None` for an LSN in no record.
    pub fn version_at(&self, lsn: Lsn) -> Option<u32> {
        let index = self.shared.commit.frame_index.as_ref()?;
        if lsn < index.start() || lsn >= self.end_lsn() {
            return None;
        }
        // what this open has appended may be in memory
        let ours = Some(self.shared.identity.machine.version).filter(|_| lsn >= self.shared.start);
        ours.or_else(|| index.frame_at(lsn).map(|(segment, _)| segment.version))
    }

    /// Discards records below an LSN. Their space is recycled, in whole segments: the log then
    /// begins at the start of the segment that holds the LSN, which [`first_lsn`](Log::first_lsn)
    /// returns. Records that are not durable yet are never discarded.
    ///
    /// When it returns, the new start of the log survives power loss. Segments that a
    /// [reader](Log::read) has yet to read are kept; a later call recycles them once the reader has
    /// passed them or was dropped.
    ///
    /// # Errors
    /// I/O errors; the log stays usable.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<()> {
        let lsn = lsn.min(self.durable_lsn());
        let base = {
            let segments = self.shared.commit.segments.lock();
            segments.iter().rev().map(|s| s.base).find(|base| *base <= lsn)
        };
        if let Some(base) = base {
            self.publish(|m| m.log_start = m.log_start.max(base))?;
            self.recycle_below(base)?;
        }
        Ok(())
    }

    /// The durable LSN: everything below it survives power loss.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.commit.durable()
    }

    /// Statistics of the log. This never waits for I/O.
    pub fn stats(&self) -> LogStats {
        let commit = &self.shared.commit;
        let segments = commit.segments.lock().len();
        let write_path = commit.write_path();
        let queue = commit.queue.lock();
        LogStats {
            durable: commit.durable(),
            written: Lsn::new(commit.progress.written.load(Ordering::Acquire)),
            segments,
            segment_bytes: self.segment_bytes(),
            preallocated_segments: queue.room.segments().len(),
            preallocated_bytes: queue.room.file_bytes(),
            rollback_bytes: self.rollback_bytes(),
            frames: queue.frames_taken,
            records: queue.frames.records(),
            batch_sizes: queue.groups.clone(),
            direct_writes: commit.direct_writes.load(Ordering::Relaxed),
            syncs: commit.syncs.load(Ordering::Relaxed),
            write_path,
            block_bytes: self.shared.identity.block_bytes,
            background_error: self.shared.background_errors.first(),
        }
    }

    /// Runs one step of background work, for [`Background::Manual`]. Returns whether there was
    /// anything to do.
    ///
    /// # Errors
    /// Those of the step.
    pub fn step(&self, step: LogStep) -> Result<bool> {
        let result = self.shared.step(step);
        self.shared.commit.report_failure();
        result
    }

    /// Makes everything durable, records a clean end in the manifest, and closes the log for all of
    /// its handles.
    ///
    /// When it returns `Ok`, everything appended survives power loss. A second call waits for the
    /// first and gets its outcome.
    ///
    /// # Errors
    /// [`Error::Latched`] and I/O errors. The records are then as durable as their tickets said.
    pub fn close(&self) -> Result<()> {
        let result = self.close_but_threads();
        self.end_threads();
        result
    }
}

/// Functions that the engine needs beyond the public interface.
impl Log {
    /// As [`Log::close`], for a caller that holds locks. The caller must call [`Log::end_threads`]
    /// after it has released them.
    pub(crate) fn close_but_threads(&self) -> Result<()> {
        self.lifecycle.close_but_threads()
    }

    /// Ends the log without a clean mark. Records whose durability was requested are still written,
    /// and tickets get any error. The caller must call [`Log::end_threads`] after it has released
    /// its locks.
    pub(crate) fn abandon_but_threads(&self) -> Result<()> {
        self.lifecycle.abandon_but_threads()
    }

    /// Ends the log as a kill of the process would: nothing more is written.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn kill(&self) {
        self.lifecycle.kill();
    }

    /// See [`Lifecycle::end_threads`].
    pub(crate) fn end_threads(&self) {
        self.lifecycle.end_threads();
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.shared.identity.epoch
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    pub(crate) fn check_latch(&self) -> Result<()> {
        self.shared.commit.check_latch()
    }

    /// Like [`Log::check_latch`], and also latches the log if its directory no longer belongs to
    /// it. The caller must hold no lock of the log.
    pub(crate) fn check_ownership(&self) -> Result<()> {
        self.shared.check_ownership()
    }

    /// Files of the store that were unlinked and whose space was not reclaimed yet.
    pub(crate) fn deferred_unlinks(&self) -> &DeferredUnlinks {
        &self.shared.deferred_unlinks
    }

    /// Wakes the engine's maintenance thread.
    pub(crate) fn growth_alarm(&self) -> &GrowthAlarm {
        &self.shared.commit.growth_alarm
    }

    /// Wakes the flusher if appended records wait for a leader.
    pub(crate) fn nudge(&self) {
        self.shared.commit.nudge();
    }

    /// Requests that everything below `end` is durable within this time.
    pub(crate) fn sync_within(&self, end: Lsn, within: Duration) {
        let time = self.shared.storage.monotonic().saturating_add(within);
        let flusher = {
            let mut queue = self.shared.commit.queue.lock();
            queue.want_by(end, time, &self.shared.commit.progress);
            queue.flusher.take()
        };
        if let Some(flusher) = flusher {
            flusher.unpark();
        }
    }

    /// Blocks until everything below `lsn` has reached this level.
    pub(crate) fn wait(&self, lsn: Lsn, level: Level) -> Result<()> {
        self.shared.commit.wait(lsn, level)
    }

    pub(crate) fn ticket(&self, end: Lsn, level: Level) -> LogTicket {
        LogTicket::new(self.shared.clone(), end, end, level)
    }

    /// The number of records appended since the log was opened, and the LSN past the last one.
    pub(crate) fn appended(&self) -> (u64, Lsn) {
        let queue = self.shared.commit.queue.lock();
        (queue.frames.records(), queue.frames.next_frame_start())
    }

    /// Where this open began to write.
    pub(crate) fn start_of_epoch(&self) -> Lsn {
        self.shared.start
    }

    /// The size of all segment files, in bytes. Preallocated segments are not counted.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.shared.commit.segment_bytes.load(Ordering::Relaxed)
    }

    /// Room that open transactions hold for their rollback, in bytes.
    pub(crate) fn rollback_bytes(&self) -> u64 {
        self.shared.commit.rollback_bytes.load(Ordering::Relaxed)
    }

    /// Seals the forming frame. Returns the frame boundary behind everything appended so far.
    pub(crate) fn seal(&self) -> Result<Lsn> {
        self.shared.seal()
    }

    /// Whether this open has entered a segment. Until then, the disk holds no position of this
    /// open.
    pub(crate) fn has_entered(&self) -> bool {
        self.shared.commit.has_entered()
    }

    /// Where the log of earlier opens ends, in the segments that stay when this open enters its
    /// first.
    pub(crate) fn end_of_earlier_segments(&self) -> Lsn {
        self.shared.previous_end
    }

    /// Lists the segments for a reader, and keeps all of them from being recycled.
    pub(crate) fn hold_segments(&self) -> HeldSegments {
        // first of all, so that nothing that is listed below is given up
        let hold = self.shared.commit.readers.hold(Lsn::ZERO);
        // without a segment of this open, nothing stands on disk past what was recovered
        let upto = if self.has_entered() { self.durable_lsn() } else { self.end_of_earlier_segments() };
        let listed = self.shared.commit.segments.lock().clone();
        let segments = listed
            .into_iter()
            .map(|s| crate::store::open_dir::SegmentFile { name: s.name, id: s.id, base: s.base })
            .collect::<Vec<_>>();
        let mut manifest = self.manifest();
        // a segment that was entered since is none of those listed, and holds nothing that is read
        // here
        manifest.segment = segments.last().map_or(manifest.segment, |last| manifest.segment.min(last.id));
        HeldSegments { store_dir: StoreDir::listed(self.shared.storage.clone(), segments, manifest), upto, hold }
    }

    pub(crate) fn manifest(&self) -> Manifest {
        self.shared.root.lock().current().clone()
    }

    /// Changes the manifest; see [`ManifestFile::publish`].
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.shared.publish(change)
    }

    /// Chooses the size of segments for a log that is truncated each time it has grown by `bytes`,
    /// and how many of the segments that this frees are recycled.
    pub(crate) fn expect_truncation_every(&self, bytes: u64, recycled_bytes: u64) {
        self.shared.segment_pool.expect_truncation_every(bytes, recycled_bytes);
    }

    pub(crate) fn recycle_below(&self, lsn: Lsn) -> Result<usize> {
        let commit = &self.shared.commit;
        let Some(index) = &commit.frame_index else { return self.shared.segment_pool.recycle_below(commit, lsn) };
        // before the holds of readers are looked at: see `read`
        index.raise_start(lsn);
        let recycled = self.shared.segment_pool.recycle_below(commit, lsn);
        let first = commit.segments.lock().first().map(|segment| segment.base);
        if let Some(first) = first {
            index.forget_below(first);
        }
        recycled
    }

    /// As [`Log::recycle_below`], but only the oldest segments: two of them, or more if they take
    /// no more than `most_bytes`.
    pub(crate) fn recycle_some_below(&self, lsn: Lsn, most_bytes: u64) -> Result<usize> {
        let limit = {
            let segments = self.shared.commit.segments.lock();
            let sizes = segments.iter().map(|segment| segment.file_bytes);
            let totals = sizes.scan(0u64, |total, bytes| {
                *total = total.saturating_add(bytes);
                Some(*total)
            });
            let few = totals.take_while(|total| *total <= most_bytes).count().max(2);
            segments.get(few).map_or(lsn, |next| next.base.min(lsn))
        };
        self.recycle_below(limit)
    }
}
