//! The log as its users see it.

use super::attach::Attached;
use super::background::LogStep;
use super::commit::Commit;
use super::groups::Groups;
use super::queue::{NoRoom, Queue};
use super::reader::Records;
use super::root::Root;
use super::scan::Scanner;
use super::spares::Spares;
use super::start::{LogReport, open_alone};
use super::ticket::LogTicket;
use super::writer::Identity;
use super::{Background, Level};
use crate::error::{Error, Result};
use crate::format::bytes::Head;
use crate::format::manifest::Manifest;
use crate::format::{Epoch, Lsn, frame};
use crate::storage::{Create, DiskStorage, Storage, StorageLock, WritePath};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, thread};
use std::path::Path;
use std::time::Duration;

/// Sizes and limits of a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    /// What the records are, written into every file; at most 64 bytes. A log of another name is refused.
    pub name: String,
    /// The version of the records' meaning.
    pub version: u32,
    /// The largest size of a segment file, in bytes. No record can be larger.
    pub segment_bytes: u64,
    /// The size of the first segment; later ones double up to the limit.
    pub first_segment_bytes: u64,
    /// Records are gathered into frames of up to this size, in bytes. A larger record has a frame of its own.
    pub max_frame_bytes: u64,
    /// How much may wait in memory to be written before an append has to wait, in bytes.
    pub max_pending_bytes: u64,
    /// How many frames may be on their way to the device at once, each begun as soon as there is something to write. `None` is one, which
    /// those join who were woken by the one before.
    pub max_in_flight: Option<usize>,
    /// For how long one of four or more that wait for the device lets others run before it sleeps. Where a durable write takes more
    /// than half of it, everybody sleeps at once.
    pub most_awake: Duration,
    /// How many segments are kept ready ahead of need; one of them is the reserve that lets a full disk be opened.
    pub ready_spares: usize,
    /// How many segments are kept for use again at the most.
    pub most_spares: usize,
    /// Who does the work behind the scenes.
    pub background: Background,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            name: "log".into(),
            version: 1,
            segment_bytes: 64 << 20,
            first_segment_bytes: 1 << 20,
            max_frame_bytes: 1 << 20,
            max_pending_bytes: 64 << 20,
            max_in_flight: None,
            most_awake: Duration::from_micros(500),
            ready_spares: 2,
            most_spares: 4,
            background: Background::Threads,
        }
    }
}

/// Where a record was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// Durable once the durable LSN reaches this.
    pub(crate) end: Lsn,
}

/// Figures of an open log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogStats {
    /// Everything below it survives power loss.
    pub durable: Lsn,
    /// Everything below it survives a kill of the process.
    pub written: Lsn,
    /// Segment files, spares not counted.
    pub segments: usize,
    /// Their size, in bytes.
    pub segment_bytes: u64,
    /// Segments ready for use.
    pub spares: usize,
    /// Frames written since the log was opened.
    pub frames: u64,
    /// Records appended since then.
    pub records: u64,
    /// How many records each of the frames held that were written since then.
    pub groups: Groups,
    /// Frames that went directly to the device.
    pub direct_writes: u64,
    /// Syncs of data written through the page cache.
    pub syncs: u64,
    /// The path that durable writes take; `None` before the first segment.
    pub write_path: Option<WritePath>,
    /// The block that frames are padded to, in bytes.
    pub block_bytes: u32,
}

/// What an open log shares with its tickets and threads.
pub(crate) struct Inner {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) commit: Commit,
    pub(super) spares: Spares,
    pub(super) root: Arc<Mutex<Root>>,
    pub(super) identity: Identity,
    pub(super) options: LogOptions,
    pub(super) lock: Mutex<Option<Box<dyn StorageLock>>>,
    pub(super) stop: AtomicBool,
    pub(super) closed: AtomicBool,
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
        if self.commit.has_room(0) == Err(NoRoom::Manifest) {
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
    pub(super) fn publish_owed_epoch(&self) -> Result<bool> {
        if self.commit.has_room(0) != Err(NoRoom::Manifest) {
            return Ok(false);
        }
        match self.publish_epoch() {
            Err(error) if error.is_full() => return Ok(false),
            other => other?,
        }
        self.commit.queue.lock().bar(false);
        Ok(true)
    }

    /// Changes the manifest of a log that still writes; see [`Root::publish`].
    pub(super) fn publish(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut root = self.root.lock();
        self.commit.check_latch()?;
        root.publish(change)
    }

    /// Makes room for what did not fit, or says why there is none.
    fn make_room(&self, lack: NoRoom, still: impl Fn(&mut Queue) -> bool) -> Result<()> {
        self.commit.check_latch()?;
        match lack {
            NoRoom::Spare { bytes } => self.spares.prepare(&self.commit, bytes, still).map(|_| ()),
            NoRoom::Pending => {
                let end = {
                    let mut queue = self.commit.queue.lock();
                    queue.seal()?;
                    queue.next_frame_start()
                };
                self.commit.wait(end, Level::Written)
            }
            NoRoom::Manifest => {
                if still(&mut self.commit.queue.lock()) {
                    self.publish_epoch()?;
                    self.commit.queue.lock().bar(false);
                }
                Ok(())
            }
        }
    }
}

/// An append-only log of opaque records, in segments, with group commit.
///
/// ```
/// use seawal::wal::{Log, LogOptions};
///
/// let dir = tempfile::tempdir()?;
/// let (log, report) = Log::open(dir.path(), LogOptions::default())?;
/// let first = log.append(b"one")?; // in memory
/// log.append(b"two")?.wait()?; // both survive power loss now
/// let records: Vec<Vec<u8>> = log.read_from(report.end)?.map(|r| Ok(r?.1)).collect::<seawal::Result<_>>()?;
/// assert_eq!(records, [b"one".to_vec(), b"two".to_vec()]);
/// assert!(first.is_done());
/// log.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log {
    inner: Arc<Inner>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in a directory, or creates it. All its records are verified.
    ///
    /// When it returns, the directory, the records found and the place where they end survive power loss.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`], [`Error::UnsupportedVersion`], [`Error::NotAStore`] and I/O errors; the
    /// directory's content is then as before.
    pub fn open(dir: impl AsRef<Path>, options: LogOptions) -> Result<(Log, LogReport)> {
        let dir = dir.as_ref();
        let storage = DiskStorage::open(dir, Create::IfMissing).map_err(|e| Error::io("open", dir.into(), e))?;
        Self::open_on(Arc::new(storage), options)
    }

    /// Opens the log on a storage of your own; see [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(storage: Arc<dyn Storage>, options: LogOptions) -> Result<(Log, LogReport)> {
        open_alone(storage, options)
    }

    pub(super) fn spawn(inner: Arc<Inner>) -> Result<Log> {
        let log = Log { inner, threads: Mutex::new(Vec::new()) };
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

    /// Appends a record, in memory. The ticket says when it is durable; it becomes so whether it is waited for or not.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`], [`Error::Latched`], [`Error::Closed`]; nothing was appended then.
    pub fn append(&self, record: &[u8]) -> Result<LogTicket> {
        let position = loop {
            self.check_record(record.len())?;
            match self.inner.commit.append_if_room(record, entry_bytes(record.len()))? {
                Ok((lsn, end)) => break Position { lsn, end },
                Err(lack) => self.make_room(lack, record.len())?,
            }
        };
        self.nudge();
        Ok(self.ticket(position.end, Level::Durable))
    }

    /// Makes everything appended so far survive power loss.
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

    /// Reads the durable records from an LSN on.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if segments that should be there are not, and I/O errors.
    pub fn read_from(&self, lsn: Lsn) -> Result<Records> {
        let upto = self.durable_lsn();
        let listed = self.inner.commit.segments.lock().clone();
        let segments = listed
            .into_iter()
            .map(|s| super::attach::SegmentFile { name: s.name, id: s.id, base: s.base })
            .collect::<Vec<_>>();
        let mut manifest = self.manifest();
        // a scan starts at a frame, and the nearest one known is the start of the segment; what lies below the log's start may be
        // there still, but is garbage
        let from = lsn.max(manifest.log_start);
        let start = segments.iter().rev().map(|s| s.base).find(|base| *base <= from);
        let start = start.unwrap_or_else(|| segments.first().map_or(from, |s| s.base));
        // a segment that was entered since is none of those listed, and holds nothing that is read here
        manifest.segment = segments.last().map_or(manifest.segment, |last| manifest.segment.min(last.id));
        let view = Attached::listed(self.inner.storage.clone(), segments, manifest);
        Ok(Records::new(Scanner::new(&view, start)?.stop_at(upto), lsn, upto))
    }

    /// Gives up all records below an LSN. Their space is used again, in whole segments.
    ///
    /// When it returns, the new start of the log survives power loss.
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

    /// Everything below it survives power loss.
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.commit.durable()
    }

    /// Figures of the log.
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
            spares: queue.spares().len(),
            frames: queue.frames,
            records: queue.records,
            groups: queue.groups.clone(),
            direct_writes: commit.direct_writes.load(Ordering::Relaxed),
            syncs: commit.syncs.load(Ordering::Relaxed),
            write_path,
            block_bytes: self.inner.identity.block_bytes,
        }
    }

    /// Runs one step of the work behind the scenes, for [`Background::Manual`]. Returns whether there was anything to do.
    ///
    /// # Errors
    /// Those of the step.
    pub fn step(&self, step: LogStep) -> Result<bool> {
        self.inner.step(step)
    }

    /// Makes everything durable, proves it by a clean mark, and ends the log.
    ///
    /// # Errors
    /// [`Error::Latched`] and I/O errors; the records are then as durable as their tickets said.
    pub fn close(&self) -> Result<()> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.finish();
        self.end();
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
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.inner.commit.queue.lock().close();
        let result = self.inner.commit.flush_wanted();
        self.end();
        result
    }

    /// Ends the log as a kill of the process would: nothing more is written.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn kill(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.commit.latch(Error::Closed);
        self.end();
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

    /// What a record of so many bytes lacks to be placed now, if anything. While nothing else is appended, the answer
    /// "nothing" holds.
    pub(crate) fn lacks_room(&self, len: usize) -> Result<Option<NoRoom>> {
        self.inner.commit.check_latch()?;
        Ok(self.inner.commit.has_room(entry_bytes(len)).err())
    }

    /// Makes room for such a record. Blocks; no lock may be held.
    pub(crate) fn make_room(&self, lack: NoRoom, len: usize) -> Result<()> {
        self.inner.make_room(lack, |queue| queue.has_room(entry_bytes(len)).is_err())
    }

    /// Whether a record of no more than a head can be placed, be it in the reserve. While nothing else is appended, a yes holds.
    pub(crate) fn has_last_room(&self) -> bool {
        self.inner.commit.queue.lock().has_last_room(entry_bytes(0))
    }

    /// Sets room aside for a rollback, or makes it.
    pub(crate) fn try_promise(&self, bytes: u64) -> Result<(), NoRoom> {
        self.inner.commit.queue.lock().promise(bytes)
    }

    /// Makes room for a promise that could not be given. Blocks; no lock may be held.
    pub(crate) fn make_promise_room(&self, lack: NoRoom, bytes: u64) -> Result<()> {
        self.inner.make_room(lack, |queue| match queue.promise(bytes) {
            Ok(()) => {
                queue.release_promise(bytes);
                false
            }
            Err(_) => true,
        })
    }

    pub(crate) fn release_promise(&self, bytes: u64) {
        self.inner.commit.queue.lock().release_promise(bytes);
    }

    /// Appends a record whose head may depend on its LSN. Room was ensured before, by the caller, who lets nobody else append in
    /// between.
    pub(crate) fn append_record(
        &self,
        body: &[u8],
        wanted: Option<Level>,
        head: impl FnOnce(Lsn) -> Head,
    ) -> Result<Position> {
        let (lsn, end) = self.inner.commit.append(body, wanted, head)?;
        Ok(Position { lsn, end })
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
        (queue.records, queue.next_frame_start())
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

    /// Changes the manifest; see [`Root::publish`].
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.inner.publish(change)
    }

    pub(crate) fn recycle_below(&self, lsn: Lsn) -> Result<usize> {
        self.inner.spares.recycle_below(&self.inner.commit, lsn)
    }
}

/// A bound on what a record of so many bytes takes in a frame.
fn entry_bytes(len: usize) -> u64 {
    frame::record_bytes((len as u64).saturating_add(Head::CAPACITY as u64))
}

impl Drop for Log {
    /// Does the least that is safe: what was appended is handed on, nothing is marked clean. Errors are told to tickets.
    fn drop(&mut self) {
        let _ = self.abandon();
    }
}
