//! Group commit with leaders and followers.
//!
//! Records of all threads are appended to one forming frame. A thread that waits for a position
//! becomes the leader if none is active:
//!
//! 1. it counts itself as a leader under the queue lock, and may yield for a while so that more
//!    records join the frame (`gather`);
//! 2. it takes the writer lock, takes the frame off the queue and seals it, which fixes its place
//!    in the chain of frames;
//! 3. it releases the writer lock and writes the frame directly to the device; where the device
//!    takes no direct writes, it writes through the page cache and syncs, under the writer lock;
//! 4. it marks the frame as landed, advances the durable LSN, and steps down: it wakes the next
//!    leader first, then every follower whose position was reached.
//!
//! A follower spins or parks until its position is durable, or until it is chosen to lead. A
//! committer without concurrent committers leads its own frame, without a switch to another thread.
//!
//! The first failed write or sync latches the log: every waiter and every later append gets that
//! error, and no write or sync is retried. (Rebello et al., "Can Applications Recover from fsync
//! Failures?", ATC 2020.) An error before anything was taken off the queue fails only the commit
//! that met it.
//!
//! Lock order: writer, then queue. No I/O happens under the queue lock. Wakers are foreign code:
//! they run under none of these locks, and under none of the engine's ([`super::DeferredWakes`]).
//! Event subscribers are foreign code too: the flusher calls them, a step that the caller runs, or
//! the end of a close, all of which hold no lock.

use crate::error::{Error, Result};
use crate::format::bytes::Head;
use crate::ids::Lsn;
use crate::io::AlignedBuf;
use crate::io::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, OnceLock, Ordering, SpinMutex, thread};
use crate::store::open_dir::PreallocatedSegment;
use crate::wal::Level;
use crate::wal::device_latency::DeviceLatency;
use crate::wal::frame_builder::Forming;
use crate::wal::frame_index::FrameIndex;
use crate::wal::growth_alarm::GrowthAlarm;
use crate::wal::in_flight::{FrameState, Progress};
use crate::wal::queue::{Queue, Work};
use crate::wal::reader_holds::ReaderHolds;
use crate::wal::room::Shortage;
use crate::wal::segment_writer::{Active, EnterError, Identity, SegmentInfo, SegmentWriter};
use crate::wal::waiters::{WaitKey, Wake};
use std::task::{Context, Poll};
use std::time::Duration;

/// The pipeline from append to stable storage.
pub(super) struct GroupCommit {
    pub(super) queue: SpinMutex<Queue>,
    writer: Mutex<SegmentWriter>,
    /// The segment that is being written, for callers that ask for statistics. This lock is never
    /// held over I/O.
    active: Mutex<Option<Arc<Active>>>,
    pub(super) progress: Progress,
    /// Signaled when a frame has landed, when a leader steps down, and when the log has failed. A
    /// thread that waits for it holds the queue lock.
    landed: Condvar,
    latch: OnceLock<Error>,
    latched: AtomicBool,
    /// Whether the failure was reported as an event.
    reported: AtomicBool,
    /// The store's segments, oldest first; the last one is active. This lock is never held over
    /// I/O.
    pub(super) segments: Mutex<Vec<SegmentInfo>>,
    /// Total size of the segments, in bytes. It changes with `segments` and is read without that
    /// lock.
    pub(super) segment_bytes: AtomicU64,
    /// Room that is set aside for rollbacks, in bytes. It is read without the queue lock.
    pub(super) rollback_bytes: AtomicU64,
    /// The positions that readers have reached. Segments from the lowest one on are not recycled.
    pub(super) readers: Arc<ReaderHolds>,
    /// Where the frames lie, for a log that is read by LSN. The log of an engine has none.
    pub(super) frame_index: Option<FrameIndex>,
    /// The preallocator thread, if there is one.
    preallocator: OnceLock<thread::Thread>,
    pub(super) syncs: AtomicU64,
    pub(super) direct_writes: AtomicU64,
    pub(super) growth_alarm: GrowthAlarm,
    latency: DeviceLatency,
    /// How often a spinning waiter was chosen to lead. It saves the other spinners the queue lock.
    successions: AtomicU64,
}

impl GroupCommit {
    pub(super) fn new(
        queue: Queue,
        writer: SegmentWriter,
        segments: Vec<SegmentInfo>,
        durable: Lsn,
        latency: DeviceLatency,
    ) -> GroupCommit {
        GroupCommit {
            queue: SpinMutex::new(queue),
            writer: Mutex::new(writer),
            active: Mutex::new(None),
            progress: Progress { durable: AtomicU64::new(durable.get()), written: AtomicU64::new(durable.get()) },
            landed: Condvar::new(),
            latch: OnceLock::new(),
            latched: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            segment_bytes: AtomicU64::new(segments.iter().map(|s| s.file_bytes).fold(0, u64::saturating_add)),
            segments: Mutex::new(segments),
            rollback_bytes: AtomicU64::new(0),
            readers: Arc::default(),
            frame_index: None,
            preallocator: OnceLock::new(),
            syncs: AtomicU64::new(0),
            direct_writes: AtomicU64::new(0),
            growth_alarm: GrowthAlarm::new(),
            latency,
            successions: AtomicU64::new(0),
        }
    }

    /// Whether no thread holds one of the locks that are held over I/O.
    #[cfg(all(test, not(any(loom, shuttle))))]
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "asked by the test of events alone"))]
    pub(super) fn is_unlocked(&self) -> bool {
        self.writer.try_lock().is_some() && self.segments.try_lock().is_some()
    }

    pub(super) fn durable(&self) -> Lsn {
        Lsn::new(self.progress.durable.load(Ordering::Acquire))
    }

    /// Fails with the error that latched the log, if there is one.
    pub(super) fn check_latch(&self) -> Result<()> {
        if !self.latched.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.latch.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn is_latched(&self) -> bool {
        self.latched.load(Ordering::Acquire)
    }

    /// Stops the log for good. Every waiter wakes up and gets the error, and the flusher wakes up
    /// and reports it. The caller must hold none of the log's locks, because wakers are foreign
    /// code.
    pub(super) fn latch(&self, error: Error) -> Error {
        let stored = self.latch_silently(error);
        let (waiters, flusher) = {
            let mut queue = self.queue.lock();
            (queue.waiters.take_all(), queue.flusher.take())
        };
        self.landed.notify_all();
        waiters.into_iter().for_each(Wake::wake);
        if let Some(flusher) = flusher {
            flusher.unpark();
        }
        stored
    }

    /// Reports the failure that stopped the log as an event, once. The caller must hold no lock at
    /// all, not even one of the engine: event subscribers are foreign code, and may call whatever
    /// the store offers.
    ///
    /// So the thread that meets the failure does not report it: it may hold locks of the engine
    /// while it waits for the log.
    pub(super) fn report_failure(&self) {
        if let Err(error) = self.check_latch()
            && error.is_latched()
            && !self.reported.swap(true, Ordering::AcqRel)
        {
            crate::events::event!(error, error = %error, "the log stopped writing");
        }
    }

    /// Stops the log for good, under the writer lock, before another thread can write. The caller
    /// must call [`GroupCommit::latch`] once it has released that lock.
    fn latch_silently(&self, error: Error) -> Error {
        let first = match error {
            told @ (Error::Latched { .. } | Error::Closed) => told,
            other => Error::Latched { source: Arc::new(other) },
        };
        let stored = self.latch.get_or_init(|| first);
        self.latched.store(true, Ordering::Release);
        stored.clone()
    }

    /// Ends all writing. When it returns, no thread writes any more. Waiters whose position was not
    /// reached get [`Error::Closed`]. This must hold even for tickets and transactions that outlive
    /// the log, because the store may have another owner by then.
    pub(super) fn stop(&self) {
        self.latch(Error::Closed);
        let mut queue = self.queue.lock();
        while queue.leaders > 0 {
            self.landed.wait(&mut queue);
        }
    }

    /// Appends a record and requests this level for it, if one is given. See [`Queue::append`].
    pub(super) fn append(
        &self,
        body: &[u8],
        wanted: Option<Level>,
        head: impl FnOnce(Lsn) -> Head,
    ) -> Result<(Lsn, Lsn)> {
        let mut queue = self.queue.lock();
        let (lsn, end) = queue.append(body, head)?;
        if let Some(level) = wanted {
            queue.want(end, level);
        }
        Ok((lsn, end))
    }

    /// Appends a record if there is room for it, and requests this level for it. The check and the
    /// append happen under one lock.
    pub(super) fn append_if_room(
        &self,
        body: &[u8],
        entry_bytes: u64,
        wanted: Level,
    ) -> Result<Result<(Lsn, Lsn), Shortage>> {
        let mut queue = self.queue.lock();
        if let Err(lack) = queue.has_room(entry_bytes) {
            return Ok(Err(lack));
        }
        let (lsn, end) = queue.append(body, |_| Head::default())?;
        queue.want(end, wanted);
        Ok(Ok((lsn, end)))
    }

    /// As [`GroupCommit::append_if_room`], for records that go into one frame: all of them or none
    /// are there after a crash. Returns the LSN of each, and the LSN past the last.
    pub(super) fn append_group_if_room(
        &self,
        bodies: &[&[u8]],
        entry_bytes: u64,
        wanted: Level,
    ) -> Result<Result<(Vec<Lsn>, Lsn), Shortage>> {
        let mut queue = self.queue.lock();
        if let Err(lack) = queue.has_room(entry_bytes) {
            return Ok(Err(lack));
        }
        let (lsns, end) = queue.append_group(bodies, entry_bytes)?;
        queue.want(end, wanted);
        Ok(Ok((lsns, end)))
    }

    /// Writes everything that was requested, now or for a later time. It returns once no leader is
    /// active and no requested work is left.
    pub(super) fn flush_wanted(&self) -> Result<()> {
        loop {
            self.check_latch()?;
            {
                let mut queue = self.queue.lock();
                queue.want_due();
                // one look at both: a leader that begins between two looks would go unseen
                if queue.leaders > 0 {
                    self.landed.wait(&mut queue);
                    continue;
                }
                if !queue.may_lead(&self.progress) {
                    return Ok(());
                }
                queue.add_leader();
            }
            self.lead(false)?;
        }
    }

    /// Wakes the flusher if it is parked and there is work without a leader.
    pub(super) fn nudge(&self) {
        let flusher = {
            let mut queue = self.queue.lock();
            if queue.may_lead(&self.progress) { queue.flusher.take() } else { None }
        };
        if let Some(flusher) = flusher {
            flusher.unpark();
        }
    }

    /// Blocks until everything below `lsn` has reached this level. The caller becomes the leader if
    /// a leader is needed.
    pub(super) fn wait(&self, lsn: Lsn, level: Level) -> Result<()> {
        loop {
            if self.progress.reached(lsn, level) {
                return Ok(());
            }
            self.check_latch()?;
            let mut queue = self.queue.lock();
            if self.progress.reached(lsn, level) {
                return Ok(());
            }
            queue.want(lsn, level);
            if queue.may_lead(&self.progress) {
                queue.add_leader();
                let awaits_followers = queue.awaits_followers();
                drop(queue);
                self.lead(awaits_followers)?;
                continue;
            }
            let spin = self.latency.spin_limit(queue.committers);
            let wake = if spin.is_zero() { Wake::Thread(thread::current()) } else { Wake::Spinning };
            let key = queue.waiters.add_thread(lsn, level, wake);
            // read before another thread can choose this waiter to lead
            let successions = self.successions.load(Ordering::Acquire);
            drop(queue);
            // a failure between the check above and the registration would not wake this waiter
            self.check_latch()?;
            if spin.is_zero() || !self.commit_spin(key, successions, (lsn, level), spin) {
                thread::park();
            }
        }
    }

    /// Spins as a registered waiter. Returns `true` if the position was reached, the log failed, or
    /// the waiter was removed from the list. Otherwise the waiter is now registered as parked.
    fn commit_spin(&self, key: WaitKey, mut successions: u64, (lsn, level): (Lsn, Level), limit: Duration) -> bool {
        let done = || {
            if self.progress.reached(lsn, level) || self.is_latched() {
                return true;
            }
            let before = std::mem::replace(&mut successions, self.successions.load(Ordering::Acquire));
            before != successions && !self.queue.lock().waiters.contains_thread(key)
        };
        self.latency.yield_until(limit, done) || !self.queue.lock().waiters.park_thread(key, thread::current())
    }

    /// Yields for a while so that threads that the previous frame woke can join the forming frame.
    fn gather(&self) {
        if !self.latency.yield_until(self.latency.gather_limit(), || !self.queue.lock().awaits_followers()) {
            self.queue.lock().expect_no_more();
        }
    }

    /// [`wait`](Self::wait) for a future: it neither blocks nor does I/O. `registration` is the key
    /// of the waker that an earlier poll registered, if there is one.
    pub(super) fn poll(
        &self,
        lsn: Lsn,
        level: Level,
        cx: &mut Context<'_>,
        registration: &mut Option<WaitKey>,
    ) -> Poll<Result<()>> {
        if self.progress.reached(lsn, level) {
            return Poll::Ready(Ok(()));
        }
        // wakers are foreign code, so they are cloned and dropped without the lock
        let waker = cx.waker().clone();
        let (successor, _before) = {
            let mut queue = self.queue.lock();
            if self.progress.reached(lsn, level) {
                drop(queue);
                return Poll::Ready(Ok(()));
            }
            queue.want(lsn, level);
            let renewed = match *registration {
                Some(key) => queue.waiters.replace_waker(key, waker),
                None => Err(waker),
            };
            let before = match renewed {
                Ok(before) => Some(before),
                Err(waker) => {
                    *registration = Some(queue.waiters.add_task(lsn, level, waker));
                    None
                }
            };
            (if queue.may_lead(&self.progress) { queue.flusher.take() } else { None }, before)
        };
        if let Some(flusher) = successor {
            flusher.unpark();
        }
        match self.check_latch() {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Leads once if there is work without a leader. Returns whether there was such work.
    pub(super) fn lead_if_needed(&self) -> Result<bool> {
        self.check_latch()?;
        {
            let mut queue = self.queue.lock();
            if !queue.may_lead(&self.progress) {
                return Ok(false);
            }
            queue.add_leader();
        }
        self.lead(false)?;
        Ok(true)
    }

    /// Does one piece of work and steps down. If `awaits_followers`, it first waits for other
    /// committers to join the frame. The caller has already counted itself as a leader.
    fn lead(&self, awaits_followers: bool) -> Result<()> {
        let leader = Leader { commit: self, done: false };
        if awaits_followers {
            self.gather();
        }
        let result = self.lead_inner();
        leader.finish(result)
    }

    /// Takes the next work off the queue and does it. A frame written directly to the device is
    /// returned, so that the leader reports it when it steps down.
    fn lead_inner(&self) -> Result<Option<Landed>> {
        let mut writer = self.writer.lock();
        // The fuse is dropped before the writer lock is released. Once a write or sync has failed,
        // no other leader may touch the file: a second sync would report success, although data was
        // lost.
        let fuse = Fuse { commit: self };
        self.check_latch()?;
        writer.check_ownership_if_due().map_err(|error| self.latch_silently(error))?;
        // an error here comes before anything was taken or written, so it fails only this commit
        let work = {
            let mut queue = self.queue.lock();
            if let Some((spare, start)) = queue.next_to_enter(&self.progress) {
                drop(queue);
                self.enter(&mut writer, &spare, start).map_err(delayed)?;
                queue = self.queue.lock();
            }
            queue.take_work(&self.progress).map_err(delayed)?
        };
        let direct = match work {
            None => Ok(None),
            Some(Work::Sync) => self.sync_written(&mut writer).map(|()| None),
            Some(Work::Frame { frame, level, follows }) => self.write_frame(&mut writer, frame, level, follows),
        };
        let direct = direct.map_err(|error| self.latch_silently(error))?;
        drop(writer);
        let mut landed = None;
        if let Some(Direct { active, buf, start, watermark }) = direct {
            let written = self.latency.timed(|| active.write_durable(&buf, start));
            written.map_err(|error| self.latch_silently(error))?;
            self.direct_writes.fetch_add(1, Ordering::Relaxed);
            landed = Some(Landed { end: start.plus(buf.len() as u64), state: FrameState::Completed, watermark, buf });
        }
        drop(fuse);
        Ok(landed)
    }

    /// Makes a preallocated segment the current one. The next frame, at `start`, goes into it.
    ///
    /// # Errors
    /// If the process is out of descriptors or the directory is not writable, nothing has changed:
    /// the frame stays in the queue, and the next leader tries again. Every other error latches the
    /// log.
    #[cold]
    fn enter(&self, writer: &mut SegmentWriter, spare: &PreallocatedSegment, start: Lsn) -> Result<()> {
        self.settle(writer, start).map_err(|error| self.latch_silently(error))?;
        let segment = writer.enter(spare, start).map_err(|error| match error {
            EnterError::Refused(error) => error,
            EnterError::Failed(error) => self.latch_silently(error),
        })?;
        self.queue.lock().frames.note_entered();
        self.active.lock().clone_from(&writer.active);
        self.progress.durable.fetch_max(start.get(), Ordering::AcqRel);
        self.add_segment(segment, &writer.identity);
        Ok(())
    }

    /// Seals a frame and writes it. A frame for the direct path is returned instead: the caller
    /// writes it to the device after it has released the writer lock.
    fn write_frame(
        &self,
        writer: &mut SegmentWriter,
        frame: Forming,
        level: Level,
        follows: bool,
    ) -> Result<Option<Direct>> {
        let end = frame.end();
        let Forming { kind, mut buf, start, records, .. } = frame;
        let watermark = self.durable();
        writer.seal(&mut buf, kind, (start, end), records, watermark)?;
        if let Some(index) = &self.frame_index {
            index.note_frame(start, end);
        }
        let active = self.active(writer)?;
        if level == Level::Durable && writer.may_write_directly() {
            return Ok(Some(Direct { active, buf, start, watermark }));
        }
        if follows {
            self.wait_for_earlier(start);
            self.check_latch()?;
        }
        writer.unsynced = true;
        writer.zero_rest(&mut buf, start, end)?;
        active.write_cached(&buf, start)?;
        writer.wrote(end);
        self.land(Landed { end, state: FrameState::Written, watermark, buf });
        if level == Level::Durable {
            self.sync_written(writer)?;
        }
        Ok(None)
    }

    fn active(&self, writer: &SegmentWriter) -> Result<Arc<Active>> {
        writer.active.clone().ok_or(Error::Full { what: "the first segment", source: None })
    }

    /// Syncs the active segment if it has unsynced bytes. Everything written so far then survives
    /// power loss.
    fn sync_written(&self, writer: &mut SegmentWriter) -> Result<()> {
        if !writer.unsynced {
            return Ok(());
        }
        let active = self.active(writer)?;
        self.latency.timed(|| active.sync())?;
        writer.unsynced = false;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.queue.lock().synced(&self.progress);
        Ok(())
    }

    /// Waits until every frame before `start` has landed, and syncs those that were only written.
    fn settle(&self, writer: &mut SegmentWriter, start: Lsn) -> Result<()> {
        self.wait_for_earlier(start);
        self.check_latch()?;
        self.sync_written(writer)
    }

    fn wait_for_earlier(&self, start: Lsn) {
        let mut queue = self.queue.lock();
        while queue.in_flight.pending_before(start.plus(1)) && self.check_latch().is_ok() {
            self.landed.wait(&mut queue);
        }
    }

    fn land(&self, landed: Landed) {
        let flusher = self.note_landed(&mut self.queue.lock(), landed);
        self.landed.notify_all();
        if let Some(flusher) = flusher {
            flusher.unpark();
        }
    }

    /// Records that a frame has landed. Returns the flusher if the caller must wake it.
    fn note_landed(&self, queue: &mut Queue, landed: Landed) -> Option<thread::Thread> {
        let Landed { end, state, watermark, buf } = landed;
        queue.frames.recycle(buf);
        queue.landed(end, state, watermark, &self.progress);
        // this is the first frame after an idle time, and the flusher must write a watermark for it
        let idle = std::mem::take(&mut queue.flusher_is_idle);
        if idle { queue.flusher.take() } else { None }
    }

    /// Enters the first segment of this open. Its header records durably where the recovered log
    /// ends.
    pub(super) fn enter_first(&self, base: Lsn) -> Result<()> {
        let mut writer = self.writer.lock();
        let Some(spare) = self.queue.lock().take_first_preallocated(base) else {
            return Err(Error::Full { what: "the first segment", source: None });
        };
        let segment = writer.enter(&spare, base).map_err(EnterError::into_error)?;
        self.active.lock().clone_from(&writer.active);
        self.progress.durable.fetch_max(base.get(), Ordering::AcqRel);
        self.progress.written.fetch_max(base.get(), Ordering::AcqRel);
        self.add_segment(segment, &writer.identity);
        Ok(())
    }

    fn add_segment(&self, segment: SegmentInfo, identity: &Identity) {
        if let Some(index) = &self.frame_index {
            index.note_entered(&segment, identity);
        }
        self.segment_bytes.fetch_add(segment.file_bytes, Ordering::Relaxed);
        self.segments.lock().push(segment);
        // a preallocated segment was taken
        self.wake_preallocator();
    }

    /// Wakes the preallocator, even from a pause between two pieces.
    pub(super) fn wake_preallocator(&self) {
        if let Some(preallocator) = self.preallocator.get() {
            preallocator.unpark();
        }
    }

    /// Sets the preallocator thread, which is woken whenever a preallocated segment is taken.
    pub(super) fn set_preallocator(&self, preallocator: thread::Thread) {
        let _ = self.preallocator.set(preallocator);
    }

    /// Whether this open has entered a segment.
    pub(super) fn has_entered(&self) -> bool {
        self.active.lock().is_some()
    }

    /// How durable writes reach the device now.
    pub(super) fn write_path(&self) -> Option<crate::io::WritePath> {
        self.active.lock().as_ref().map(|active| active.file.write_path())
    }

    /// Parks as the flusher until there is work, or until `limit` has passed; without a limit,
    /// until there is any activity.
    pub(super) fn park_flusher(&self, limit: Option<Duration>) {
        {
            let mut queue = self.queue.lock();
            // work that came up after the caller's last check has woken no thread, so check again
            let busy = limit.is_none() && queue.needs_flusher();
            if (busy || queue.may_lead(&self.progress)) && self.check_latch().is_ok() {
                return;
            }
            queue.flusher_is_idle = limit.is_none();
            queue.flusher = Some(thread::current());
        }
        match limit {
            Some(limit) => thread::park_timeout(limit),
            None => thread::park(),
        }
        let mut queue = self.queue.lock();
        queue.flusher = None;
        queue.flusher_is_idle = false;
    }
}

/// The error of a commit whose record stays in the queue.
#[cold]
fn delayed(error: Error) -> Error {
    if error.is_latched() { error } else { Error::Delayed { source: Arc::new(error) } }
}

/// A sealed frame that must be written directly to the device.
struct Direct {
    active: Arc<Active>,
    buf: AlignedBuf,
    start: Lsn,
    watermark: Lsn,
}

/// A frame whose write has returned, its new state, and the watermark that it carries.
struct Landed {
    end: Lsn,
    state: FrameState,
    watermark: Lsn,
    buf: AlignedBuf,
}

/// Latches the log if a panic drops it, before the writer lock is released. The [`Leader`] then
/// wakes the waiters.
struct Fuse<'a> {
    commit: &'a GroupCommit,
}

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.commit.latch_silently(Error::Internal { what: "it wrote the log" });
        }
    }
}

/// An active leader. Dropping it steps down, so that every waiter gets an answer even if the leader
/// panics.
struct Leader<'a> {
    commit: &'a GroupCommit,
    done: bool,
}

impl Leader<'_> {
    fn finish(mut self, result: Result<Option<Landed>>) -> Result<()> {
        self.done = true;
        match result {
            Ok(landed) => {
                self.step_down(landed);
                Ok(())
            }
            Err(error) => {
                self.step_down(None);
                if self.commit.is_latched() { Err(self.commit.latch(error)) } else { Err(error) }
            }
        }
    }

    /// Records the frame that has landed, if there is one. Wakes the next leader, then the
    /// followers whose position was reached.
    fn step_down(&self, landed: Option<Landed>) {
        let commit = self.commit;
        let (flusher, successor, reached) = {
            let mut queue = commit.queue.lock();
            let flusher = landed.and_then(|landed| commit.note_landed(&mut queue, landed));
            queue.remove_leader();
            let reached = queue.waiters.take_reached(|lsn, level| commit.progress.reached(lsn, level));
            let failed = commit.latched.load(Ordering::Acquire);
            (flusher, if failed { None } else { queue.take_successor(&commit.progress) }, reached)
        };
        commit.landed.notify_all();
        if matches!(successor, Some(Wake::Spinning)) {
            commit.successions.fetch_add(1, Ordering::Release);
        }
        // the next leader first: its write can begin while the others are being woken
        successor.into_iter().chain(reached).for_each(Wake::wake);
        if let Some(flusher) = flusher {
            flusher.unpark();
        }
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.commit.latch(Error::Internal { what: "it wrote the log" });
            self.step_down(None);
        }
    }
}
