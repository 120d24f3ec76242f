//! The log as its users see it.

use super::queue::Shortage;
use super::reservation::Need;
use super::ticket::LogTicket;
use crate::error::{Error, Result};
use crate::format::bytes::Head;
use crate::format::frame;
use crate::format::manifest::Manifest;
use crate::ids::{Epoch, Lsn};
use crate::io::deferred_unlinks::DeferredUnlinks;
use crate::io::sync::{Arc, AtomicBool, Mutex, Ordering, thread};
use crate::io::{Create, DirectoryLock, DiskStorage, Storage, WritePath};
use crate::options::{Background, LogOptions};
use crate::store::manifest_file::ManifestFile;
use crate::store::open_dir::StoreDir;
use crate::wal::Level;
use crate::wal::batch_sizes::BatchSizes;
use crate::wal::flusher::LogStep;
use crate::wal::group_commit::GroupCommit;
use crate::wal::open::{LogReport, open_alone};
use crate::wal::scan::{Records, Scanner};
use crate::wal::segment_pool::SegmentPool;
use crate::wal::segment_writer::Identity;
use std::path::Path;
use std::time::Duration;

/// Where a record was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// Durable once the durable LSN reaches this.
    pub(crate) end: Lsn,
}

/// Statistics of an open log, returned by [`Log::stats`].
#[derive(Clone, Debug)]
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
    /// The path that durable writes take. `None` until the first segment is entered.
    pub write_path: Option<WritePath>,
    /// The block size that durable frames are padded to, in bytes.
    pub block_bytes: u32,
}

/// What an open log shares with its tickets and threads.
pub(crate) struct Inner {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) commit: GroupCommit,
    pub(super) spares: SegmentPool,
    pub(super) root: Arc<Mutex<ManifestFile>>,
    pub(super) identity: Identity,
    pub(super) options: LogOptions,
    pub(super) lock: Mutex<Option<Box<dyn DirectoryLock>>>,
    pub(super) stop: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) deferred_unlinks: DeferredUnlinks,
    /// What the first close came to; held while it is under way.
    pub(super) outcome: Mutex<Option<Result<()>>>,
    /// Where this open began to write.
    pub(super) start: Lsn,
    /// Where what was recovered ends.
    pub(super) recovered: Lsn,
}

impl Inner {
    /// Makes a segment of this open, and a reserve; a full disk is no error here.
    pub(super) fn enter_first(&self, base: Lsn) -> Result<()> {
        let full_is_fine = |result: Result<bool>| match result {
            Err(error) if error.is_full() => Ok(()),
            other => other.map(|_| ()),
        };
        if self.commit.has_room(0) == Err(Shortage::Manifest) {
            return Ok(());
        }
        full_is_fine(self.spares.prepare(&self.commit, 0, |queue| queue.spares().is_empty()))?;
        if !self.commit.queue.lock().spares().is_empty() {
            self.commit.enter_first(base)?;
        }
        full_is_fine(self.spares.prepare(&self.commit, 0, |queue| queue.spares().is_empty()))
    }

    /// Makes this open's epoch durable, before anything carries it, and proves what was recovered. On a full disk that may have to
    /// wait, if a copy of the manifest has to be made anew: nothing is written until it is done.
    pub(super) fn publish_epoch(&self) -> Result<()> {
        let Identity { epoch, block_bytes, machine, .. } = &self.identity;
        let mut root = self.root.lock();
        self.commit.check_latch()?;
        // a close may have come between, and its mark stays
        if root.current().epoch == *epoch && root.current().watermark >= self.recovered {
            return Ok(());
        }
        root.publish(|m| {
            m.epoch = *epoch;
            m.clean_end = Lsn::ZERO;
            m.block_bytes = *block_bytes;
            m.machine = machine.clone();
            m.watermark = m.watermark.max(self.recovered);
        })
    }

    /// Does so now where there was no space for it when the log was opened. Returns whether it did; on a disk that is still full there
    /// is nothing to be done.
    pub(super) fn publish_pending_epoch(&self) -> Result<bool> {
        if self.commit.has_room(0) != Err(Shortage::Manifest) {
            return Ok(false);
        }
        match self.publish_epoch() {
            Err(error) if error.is_full() => return Ok(false),
            other => other?,
        }
        self.commit.queue.lock().bar(false);
        Ok(true)
    }

    /// Changes the manifest of a log that still writes; see [`ManifestFile::publish`].
    pub(super) fn publish(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut root = self.root.lock();
        self.commit.check_latch()?;
        root.publish(change)
    }
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
    pub(super) inner: Arc<Inner>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    report: LogReport,
}

impl Log {
    /// Opens the log in a directory, or creates it. Every record is verified;
    /// [`recovery_report`](Self::recovery_report) says what was found.
    ///
    /// When it returns, the directory, the records found and the place where they end survive power loss.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`], [`Error::UnsupportedVersion`], [`Error::NotAStore`] and I/O errors; the
    /// directory's content is then as before.
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
        open_alone(storage, options)
    }

    pub(super) fn spawn(inner: Arc<Inner>, report: LogReport) -> Result<Log> {
        let log = Log { inner, threads: Mutex::new(Vec::new()), report };
        if log.inner.options.background == Background::Threads {
            let spawn = |name: &str, run: fn(&Arc<Inner>)| {
                let inner = log.inner.clone();
                thread::Builder::new()
                    .name(name.into())
                    .spawn(move || run(&inner))
                    .map_err(|e| Error::io("start a thread for", log.inner.storage.path(""), e))
            };
            let threads = vec![spawn("seawal-flush", Inner::run_flusher)?, spawn("seawal-spare", Inner::run_preparer)?];
            *log.threads.lock() = threads;
        }
        Ok(log)
    }

    /// What opening the log found: where the records start and end, and what was cut.
    pub fn recovery_report(&self) -> &LogReport {
        &self.report
    }

    /// Notes what only the caller of [`OpenLog::start`](crate::wal::OpenLog::start) knows.
    pub(super) fn complete_report(&mut self, start: Lsn, warnings: Vec<String>) {
        self.report.start = start;
        self.report.warnings = warnings;
    }

    /// Appends a record in memory. Nothing survives a crash when this returns: the ticket says when the
    /// record is durable. The log makes it durable whether or not the ticket is waited for.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`], [`Error::Latched`] and [`Error::Closed`]. Nothing was appended then.
    pub fn append(&self, record: &[u8]) -> Result<LogTicket> {
        let (_, end) = self.with_room(Need::record(record.len()), || {
            self.check_record(record.len())?;
            self.inner.commit.append_if_room(record, entry_bytes(record.len()))
        })?;
        self.nudge();
        Ok(self.ticket(end, Level::Durable))
    }

    /// Waits until everything appended so far survives power loss.
    ///
    /// # Errors
    /// [`Error::Latched`].
    pub fn sync(&self) -> Result<()> {
        let end = self.inner.commit.queue.lock().appended_end();
        // on a full disk there may be no segment yet that could hold this position; what was recovered survives
        if self.appended().0 == 0 {
            return self.check_latch();
        }
        self.wait(end, Level::Durable)
    }

    /// Reads the durable records from an LSN up to what is durable now.
    ///
    /// While the reader lives, no segment that it has yet to read is recycled. A reader that is kept for
    /// long therefore keeps [`truncate_before`](Log::truncate_before) from freeing space. A reader must not
    /// be used once the log is closed, for another process may then recycle its segments.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if segments that should be there are not, and I/O errors.
    pub fn read_from(&self, lsn: Lsn) -> Result<Records> {
        // holds everything back until it is known where the reading starts
        let hold = self.inner.commit.readers.hold(Lsn::ZERO);
        let upto = self.durable_lsn();
        let listed = self.inner.commit.segments.lock().clone();
        let segments = listed
            .into_iter()
            .map(|s| crate::store::open_dir::SegmentFile { name: s.name, id: s.id, base: s.base })
            .collect::<Vec<_>>();
        let mut manifest = self.manifest();
        // a scan starts at a frame, and the nearest one known is the start of the segment; what lies below the log's start may be
        // there still, but is garbage
        let from = lsn.max(manifest.log_start);
        let start = segments.iter().rev().map(|s| s.base).find(|base| *base <= from);
        let start = start.unwrap_or_else(|| segments.first().map_or(from, |s| s.base));
        // a segment that was entered since is none of those listed, and holds nothing that is read here
        manifest.segment = segments.last().map_or(manifest.segment, |last| manifest.segment.min(last.id));
        hold.advance(start);
        let view = StoreDir::listed(self.inner.storage.clone(), segments, manifest);
        Ok(Records::new(Scanner::new(&view, start)?.stop_at(upto), lsn, upto, hold))
    }

    /// Gives up all records below an LSN. Their space is recycled, in whole segments.
    ///
    /// When it returns, the new start of the log survives power loss. Segments that a
    /// [reader](Log::read_from) has yet to read are kept; a later call recycles them once the reader has
    /// passed them or was dropped.
    ///
    /// # Errors
    /// I/O errors; the log goes on.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<()> {
        let lsn = lsn.min(self.durable_lsn());
        let base = {
            let segments = self.inner.commit.segments.lock();
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
        self.inner.commit.durable()
    }

    /// Statistics of the log. This never waits for I/O.
    pub fn stats(&self) -> LogStats {
        let commit = &self.inner.commit;
        let segments = commit.segments.lock().len();
        let write_path = commit.write_path();
        let queue = commit.queue.lock();
        LogStats {
            durable: commit.durable(),
            written: Lsn::new(commit.progress.written.load(Ordering::Acquire)),
            segments,
            segment_bytes: self.segment_bytes(),
            preallocated_segments: queue.spares().len(),
            preallocated_bytes: queue.preallocated_bytes(),
            frames: queue.frames_taken,
            records: queue.records(),
            batch_sizes: queue.groups.clone(),
            direct_writes: commit.direct_writes.load(Ordering::Relaxed),
            syncs: commit.syncs.load(Ordering::Relaxed),
            write_path,
            block_bytes: self.inner.identity.block_bytes,
        }
    }

    /// Runs one step of background work, for [`Background::Manual`]. Returns whether there was anything to
    /// do.
    ///
    /// # Errors
    /// Those of the step.
    pub fn step(&self, step: LogStep) -> Result<bool> {
        self.inner.step(step)
    }

    /// Makes everything durable, records a clean end in the manifest, and closes the log.
    ///
    /// When it returns `Ok`, everything appended survives power loss. A second call waits for the first and gets its outcome.
    ///
    /// # Errors
    /// [`Error::Latched`] and I/O errors. The records are then as durable as their tickets said.
    pub fn close(&self) -> Result<()> {
        self.end_once(|| self.finish())
    }

    /// Ends the log by `finish`, unless that was done; all callers get the first one's outcome.
    fn end_once(&self, finish: impl FnOnce() -> Result<()>) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        let mut outcome = self.inner.outcome.lock();
        if let Some(outcome) = &*outcome {
            return outcome.clone();
        }
        let result = finish();
        self.end();
        *outcome = Some(result.clone());
        result
    }

    fn finish(&self) -> Result<()> {
        // no record comes after this, so what is durable then is all there is
        self.inner.commit.queue.lock().close();
        self.inner.commit.flush_wanted()?;
        self.sync()?;
        self.inner.write_watermark()?;
        if self.inner.commit.has_entered() {
            let end = self.seal()?;
            self.wait(end, Level::Durable)?;
            self.publish(|m| {
                m.clean_end = end;
                m.watermark = m.watermark.max(end);
            })?;
        }
        Ok(())
    }

    /// Ends the log without a clean mark: what was appended is handed on, and errors are told to tickets.
    pub(crate) fn abandon(&self) -> Result<()> {
        self.end_once(|| {
            self.inner.commit.queue.lock().close();
            self.inner.commit.flush_wanted()
        })
    }

    /// Ends the log as a kill of the process would: nothing more is written.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn kill(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.commit.latch(Error::Closed);
        let _ = self.end_once(|| Err(Error::Closed));
    }

    fn end(&self) {
        self.inner.stop.store(true, Ordering::Release);
        for thread in self.threads.lock().drain(..) {
            thread.thread().unpark();
            // a thread that panicked has latched the log, and whoever waits was told
            let _ = thread.join();
        }
        self.inner.commit.stop();
        self.inner.spares.settle();
        // a publication that is under way ends before the store can have another owner; later ones see the latch
        drop(self.inner.root.lock());
        *self.inner.lock.lock() = None;
    }
}

/// What the engine needs beyond the public interface.
impl Log {
    pub(crate) fn epoch(&self) -> Epoch {
        self.inner.identity.epoch
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub(crate) fn check_latch(&self) -> Result<()> {
        self.inner.commit.check_latch()
    }

    /// Whether a record of so many bytes can ever be placed, and whether the log still takes any.
    pub(crate) fn check_record(&self, len: usize) -> Result<()> {
        self.inner.commit.check_latch()?;
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let block = u64::from(self.inner.identity.block_bytes);
        let size = len as u64;
        let frame = frame::frame_bytes(entry_bytes(len), self.inner.identity.block_bytes);
        let limit = self.inner.options.segment_bytes.saturating_sub(block).min(u64::from(u32::MAX / 2));
        if frame > limit {
            // what a record itself may take of that, without what stands around it
            let around = entry_bytes(len).saturating_sub(size).saturating_add(frame::HEADER_BYTES as u64);
            let limit = limit.saturating_sub(limit.checked_rem(block).unwrap_or(0)).saturating_sub(around);
            return Err(Error::TooLarge { what: "a record", size, limit });
        }
        Ok(())
    }

    /// Files of the store that were unlinked and whose space is not free yet.
    pub(crate) fn deferred_unlinks(&self) -> &DeferredUnlinks {
        &self.inner.deferred_unlinks
    }

    /// Lets the flusher see to what was appended.
    pub(crate) fn nudge(&self) {
        self.inner.commit.nudge();
    }

    /// Asks for everything below `end` to be durable after no more than `within`.
    pub(crate) fn sync_within(&self, end: Lsn, within: Duration) {
        let time = self.inner.storage.monotonic().saturating_add(within);
        let flusher = {
            let mut queue = self.inner.commit.queue.lock();
            queue.want_by(end, time, &self.inner.commit.progress);
            queue.flusher.take()
        };
        if let Some(flusher) = flusher {
            flusher.unpark();
        }
    }

    /// Blocks until everything below `lsn` is so durable.
    pub(crate) fn wait(&self, lsn: Lsn, level: Level) -> Result<()> {
        self.inner.commit.wait(lsn, level)
    }

    pub(crate) fn ticket(&self, end: Lsn, level: Level) -> LogTicket {
        LogTicket::new(self.inner.clone(), end, level)
    }

    /// How many records were appended since the log was opened, and the position behind them.
    pub(crate) fn appended(&self) -> (u64, Lsn) {
        let queue = self.inner.commit.queue.lock();
        (queue.records(), queue.next_frame_start())
    }

    /// Where this open began to write.
    pub(crate) fn start_of_epoch(&self) -> Lsn {
        self.inner.start
    }

    /// The size of all segment files, in bytes, spares not counted.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.inner.commit.segment_bytes.load(Ordering::Relaxed)
    }

    /// Ends the forming frame. Returns the frame boundary behind everything appended so far.
    pub(crate) fn seal(&self) -> Result<Lsn> {
        let mut queue = self.inner.commit.queue.lock();
        queue.seal()?;
        Ok(queue.next_frame_start())
    }

    /// Whether this open has a segment; without one, no position of it stands on disk.
    pub(crate) fn has_entered(&self) -> bool {
        self.inner.commit.has_entered()
    }

    pub(crate) fn manifest(&self) -> Manifest {
        self.inner.root.lock().current().clone()
    }

    /// Changes the manifest; see [`ManifestFile::publish`].
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.inner.publish(change)
    }

    pub(crate) fn recycle_below(&self, lsn: Lsn) -> Result<usize> {
        self.inner.spares.recycle_below(&self.inner.commit, lsn)
    }
}

/// A bound on what a record of so many bytes takes in a frame.
pub(super) fn entry_bytes(len: usize) -> u64 {
    frame::record_bytes((len as u64).saturating_add(Head::CAPACITY as u64))
}

impl Drop for Log {
    /// Does the least that is safe: what was appended is handed on, nothing is marked clean. Errors are told to tickets.
    fn drop(&mut self) {
        let _ = self.abandon();
    }
}
