//! The public face of the log.

use super::ticket::LogTicket;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::ids::{Epoch, Lsn};
use crate::io::deferred_unlinks::DeferredUnlinks;
use crate::io::sync::{Arc, Mutex, Ordering, thread};
use crate::io::threads::{is_own, spawn};
use crate::io::{Create, DiskStorage, Storage, WritePath};
use crate::options::{Background, LogOptions};
#[cfg(doc)]
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::StoreDir;
use crate::wal::Level;
use crate::wal::batch_sizes::BatchSizes;
use crate::wal::deferred_wakes::DeferredWakes;
use crate::wal::flusher::LogStep;
use crate::wal::growth_alarm::GrowthAlarm;
use crate::wal::open::{LogReport, OpenLog, open_alone};
use crate::wal::reader_holds::HeldSegments;
use crate::wal::scan::{Records, Scanner};
use crate::wal::segment_writer::Identity;
use crate::wal::shared::Shared;
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
/// ```
/// use seawal::wal::{Log, LogOptions};
///
/// let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), LogOptions::default())?;
/// let first = log.append(b"one")?; // in memory
/// log.append(b"two")?.wait()?; // both survive power loss now
/// let records: Vec<Vec<u8>> = log.read_from(log.recovery_report().end)?.map(|r| Ok(r?.1)).collect::<seawal::Result<_>>()?;
/// assert_eq!(records, [b"one".to_vec(), b"two".to_vec()]);
/// assert!(first.is_done());
/// log.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    report: LogReport,
}

// no code of the caller runs while a change of the log is half made
impl UnwindSafe for Log {}
impl RefUnwindSafe for Log {}

impl Log {
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
        let (shared, report) = read.start()?;
        Self::with_threads(shared, report)
    }

    /// Starts the log's threads, unless the caller runs its steps.
    fn with_threads(shared: Arc<Shared>, report: LogReport) -> Result<Log> {
        let log = Log { shared, threads: Mutex::new(Vec::new()), report };
        if log.shared.options.background == Background::Threads {
            let start = |name: &str, run: fn(&Shared)| {
                let shared = log.shared.clone();
                let started = spawn(name, move || run(&shared));
                let started = started.map_err(|e| Error::io("start a thread for", log.shared.storage.path(""), e))?;
                // if the next thread cannot be started, dropping the log ends this one
                log.threads.lock().push(started);
                Ok::<_, Error>(())
            };
            start("seawal-flush", Shared::run_flusher)?;
            start("seawal-prealloc", Shared::run_preallocator)?;
        }
        Ok(log)
    }

    /// What opening the log found: where the records start and end, and what was cut.
    pub fn recovery_report(&self) -> &LogReport {
        &self.report
    }

    /// Appends a record in memory. Nothing survives a crash when this returns: the ticket says when
    /// the record is durable. The log makes it durable whether or not the ticket is waited for.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`], [`Error::Latched`] and [`Error::Closed`]. Nothing was
    /// appended then.
    pub fn append(&self, record: &[u8]) -> Result<LogTicket> {
        let end = self.append_alone(record)?;
        self.nudge();
        Ok(self.ticket(end, Level::Durable))
    }

    /// Waits until everything appended so far survives power loss.
    ///
    /// # Errors
    /// [`Error::Latched`].
    pub fn sync(&self) -> Result<()> {
        // a log that was stopped for another reason than a failed write refuses this too, even if
        // everything is durable
        self.check_latch()?;
        let end = self.shared.commit.queue.lock().frames.appended_end();
        // if nothing was appended, there is nothing to sync; on a full disk this open may not even
        // have a segment yet
        if self.appended().0 == 0 {
            return Ok(());
        }
        self.wait(end, Level::Durable)
    }

    /// Reads the durable records from an LSN up to what is durable now.
    ///
    /// While the reader lives, no segment that it has yet to read is recycled. A reader that is
    /// kept for long therefore keeps [`truncate_before`](Log::truncate_before) from freeing space.
    /// A reader must not be used once the log is closed, because another process may then recycle
    /// its segments.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if segments that should be there are not, and I/O errors.
    pub fn read_from(&self, lsn: Lsn) -> Result<Records> {
        let held = self.hold_segments();
        let HeldSegments { store_dir, upto, .. } = &held;
        // A scan must start at a frame boundary, and the nearest known one is the start of the
        // segment. Bytes below the log's start may still exist, but they are garbage.
        let from = lsn.max(store_dir.manifest.as_ref().map_or(Lsn::ZERO, |manifest| manifest.log_start));
        let segments = &store_dir.segments;
        let start = segments.iter().rev().map(|s| s.base).find(|base| *base <= from);
        let start = start.unwrap_or_else(|| segments.first().map_or(from, |s| s.base));
        held.advance(start);
        Ok(Records::new(Scanner::new(store_dir, start)?.stop_at(*upto), lsn, *upto, held.hold))
    }

    /// Discards all records below an LSN. Their space is recycled, in whole segments.
    ///
    /// When it returns, the new start of the log survives power loss. Segments that a
    /// [reader](Log::read_from) has yet to read are kept; a later call recycles them once the
    /// reader has passed them or was dropped.
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

    /// Makes everything durable, records a clean end in the manifest, and closes the log.
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

    /// As [`Log::close`], for a caller that holds locks. The caller must call [`Log::end_threads`]
    /// after it has released them.
    pub(crate) fn close_but_threads(&self) -> Result<()> {
        self.end_once(|| self.finish())
    }

    /// Ends the log by `finish`, unless it has ended already. All callers get the outcome of the
    /// first call. When it returns, no thread touches the store's files any more.
    fn end_once(&self, finish: impl FnOnce() -> Result<()>) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        // a waker may close the log again
        let _wakes = DeferredWakes::begin();
        let mut outcome = self.shared.outcome.lock();
        if let Some(outcome) = &*outcome {
            return outcome.clone();
        }
        let result = finish();
        self.end();
        *outcome = Some(result.clone());
        result
    }

    fn finish(&self) -> Result<()> {
        // no record is accepted after this, so the following sync covers every record
        self.shared.commit.queue.lock().close();
        self.shared.check_ownership()?;
        self.shared.commit.flush_wanted()?;
        self.sync()?;
        self.shared.write_watermark()?;
        if self.shared.commit.has_entered() {
            let end = self.seal()?;
            self.wait(end, Level::Durable)?;
            self.publish(|m| {
                m.clean_end = end;
                m.watermark = m.watermark.max(end);
            })?;
        }
        Ok(())
    }

    /// Ends the log without a clean mark. Records whose durability was requested are still written,
    /// and tickets get any error.
    pub(crate) fn abandon(&self) -> Result<()> {
        let result = self.abandon_but_threads();
        self.end_threads();
        result
    }

    /// As [`Log::abandon`], for a caller that holds locks. The caller must call
    /// [`Log::end_threads`] after it has released them.
    pub(crate) fn abandon_but_threads(&self) -> Result<()> {
        self.end_once(|| {
            self.shared.commit.queue.lock().close();
            self.shared.commit.flush_wanted()
        })
    }

    /// Ends the log as a kill of the process would: nothing more is written.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn kill(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.commit.latch(Error::Closed);
        let _ = self.end_once(|| Err(Error::Closed));
        self.end_threads();
    }

    fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.commit.stop();
        self.shared.segment_pool.settle();
        // wait for a manifest write that is under way, because the store may have another owner
        // afterwards; later ones see the latch
        drop(self.shared.root.lock());
        self.shared.ownership.release();
    }

    /// Waits until the threads of a closed log have ended, and reports the failure if the log has
    /// failed.
    ///
    /// The caller must hold no lock. One of these threads may be within a subscriber of its event,
    /// and the subscriber may wait for a lock that the caller holds.
    pub(crate) fn end_threads(&self) {
        let threads = {
            let mut threads = self.threads.lock();
            threads.iter().for_each(|thread| thread.thread().unpark());
            // A subscriber or a waker may close the log on a thread of a store, which joins none.
            // The handles stay for another caller.
            if is_own() { Vec::new() } else { std::mem::take(&mut *threads) }
        };
        for thread in threads {
            // a thread that panicked has latched the log, so its waiters have got an error
            let _ = thread.join();
        }
        self.shared.commit.report_failure();
    }
}

/// Functions that the engine needs beyond the public interface.
impl Log {
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
        LogTicket::new(self.shared.clone(), end, level)
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
        let mut queue = self.shared.commit.queue.lock();
        queue.frames.seal()?;
        Ok(queue.frames.next_frame_start())
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

    /// Chooses the size of segments for a log that is truncated each time it has grown by `bytes`.
    pub(crate) fn expect_truncation_every(&self, bytes: u64) {
        self.shared.segment_pool.expect_truncation_every(bytes);
    }

    pub(crate) fn recycle_below(&self, lsn: Lsn) -> Result<usize> {
        self.shared.segment_pool.recycle_below(&self.shared.commit, lsn)
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

impl Drop for Log {
    /// Does the least that is safe. Records whose durability was requested are still written, but
    /// the log is not marked as closed cleanly. Tickets get any error.
    fn drop(&mut self) {
        let _ = self.abandon();
    }
}
