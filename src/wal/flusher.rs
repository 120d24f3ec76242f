//! The log's background work, as small steps: two threads run them, or the caller does.

use crate::error::Result;
use crate::io::sync::{Arc, Ordering, thread};
use crate::wal::Level;
use crate::wal::queue::Watermark;
use crate::wal::shared::Shared;
use std::time::Duration;

/// How long the log is idle before a watermark follows the last frame. It bounds how long a commit stays unproven.
const IDLE: Duration = Duration::from_millis(10);
/// How long the preallocator waits before it looks again, also after a failure. It bounds retries on a full disk.
const RETRY: Duration = Duration::from_millis(250);

/// One kind of background work, run by [`Log::step`](crate::wal::Log::step).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStep {
    /// Writes the frames that tickets wait for. They survive power loss afterwards.
    Flush,
    /// Makes commits with `Durability::Interval` durable once their interval has passed.
    SyncDue,
    /// Writes a watermark behind the last frames, which proves that they were completed.
    Watermark,
    /// Preallocates a segment.
    PrepareSegment,
}

impl LogStep {
    /// All kinds of background work.
    pub const ALL: [LogStep; 4] = [LogStep::Flush, LogStep::SyncDue, LogStep::Watermark, LogStep::PrepareSegment];
}

impl Shared {
    /// Runs one step. Returns whether there was anything to do.
    pub(super) fn step(&self, step: LogStep) -> Result<bool> {
        match step {
            LogStep::Flush => self.commit.lead_if_needed(),
            LogStep::SyncDue => self.sync_due(),
            LogStep::Watermark => self.write_watermark(),
            LogStep::PrepareSegment => {
                self.segment_pool.prepare(&self.commit, 0, |queue| self.segment_pool.are_short(queue))
            }
        }
    }

    fn sync_due(&self) -> Result<bool> {
        let now = self.storage.monotonic();
        let upto = {
            // what others have made durable meanwhile is not due any more
            match self.commit.queue.lock().due {
                Some((time, upto)) if time <= now => upto,
                _ => return Ok(false),
            }
        };
        self.commit.wait(upto, Level::Durable)?;
        Ok(true)
    }

    pub(super) fn write_watermark(&self) -> Result<bool> {
        self.commit.check_latch()?;
        if self.publish_pending_epoch()? {
            return Ok(true);
        }
        let added = self.commit.queue.lock().add_watermark()?;
        match added {
            Watermark::Nothing => Ok(false),
            Watermark::InFrame { end } => self.commit.wait(end, Level::Durable).map(|()| true),
            Watermark::InManifest { upto } => {
                self.publish(|m| m.watermark = m.watermark.max(upto))?;
                self.commit.queue.lock().in_flight.note_watermark(upto);
                Ok(true)
            }
        }
    }

    /// Flushes tickets and due commits, and writes a watermark when the log has rested.
    pub(super) fn run_flusher(self: &Arc<Self>) {
        let mut frames_before = 0;
        while !self.stop.load(Ordering::Acquire) {
            let failed = self.step(LogStep::Flush).is_err() || self.sync_due().is_err();
            if failed {
                self.commit.report_failure();
                // A failed write or sync has latched the log, and nothing is left to do. A failure before that, such as
                // a lack of memory, is tried again soon: tickets and interval commits still wait for the flush.
                let pause = if self.commit.is_latched() { Duration::from_secs(1) } else { IDLE };
                self.commit.park_flusher(Some(pause));
                continue;
            }
            let (frames, needed, due) = {
                let queue = self.commit.queue.lock();
                (queue.frames_taken, queue.needs_watermark() || queue.is_busy(), queue.due.map(|(time, _)| time))
            };
            if needed && frames == frames_before && matches!(self.write_watermark(), Ok(true)) {
                continue;
            }
            frames_before = frames;
            let until_due = due.map(|time| time.saturating_sub(self.storage.monotonic()));
            let limit = match (needed, until_due) {
                (true, Some(due)) => Some(due.min(IDLE)),
                (true, None) => Some(IDLE),
                (false, due) => due,
            };
            self.commit.park_flusher(limit);
        }
        self.commit.report_failure();
    }

    /// Keeps segments ready ahead of need.
    pub(super) fn run_preallocator(self: &Arc<Self>) {
        self.commit.set_preallocator(thread::current());
        let stopping = || self.stop.load(Ordering::Acquire);
        while !stopping() {
            // also where nothing is ever appended: what was recovered is to be proven
            let owed = self.publish_pending_epoch();
            match owed.and_then(|_| self.segment_pool.prepare_ahead(&self.commit, &stopping)) {
                Ok(true) => {}
                Ok(false) => thread::park_timeout(RETRY),
                // a full disk: those who need room try themselves, and are told
                Err(_) => thread::park_timeout(RETRY),
            }
        }
    }
}
