//! The log's background work, in small steps. Two threads run the steps, or the caller does.

use crate::error::Result;
use crate::io::sync::{Ordering, thread};
use crate::io::threads::contained;
use crate::wal::Level;
use crate::wal::queue::Watermark;
use crate::wal::room::Shortage;
use crate::wal::shared::Shared;
use std::time::Duration;

/// How long the log must be idle before a watermark is written behind the last frame. It bounds how
/// long a commit stays without a watermark that proves it.
const IDLE: Duration = Duration::from_millis(10);
/// How long the preallocator waits after a failure. It bounds retries on a full disk.
const RETRY: Duration = Duration::from_millis(250);
/// Each thread's index in the list of background errors, and what it was doing when it failed.
const FLUSHER: (usize, &str) = (0, "it flushed the log");
const PREALLOCATOR: (usize, &str) = (1, "it preallocated a segment");

/// One kind of background work, run by [`Log::step`](crate::wal::Log::step).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogStep {
    /// Writes the frames that tickets wait for. They survive power loss afterwards.
    Flush,
    /// Makes commits with `Durability::Interval` durable once their interval has passed.
    SyncDue,
    /// Writes a watermark behind the last frames, which proves that they were completed.
    Watermark,
    /// Preallocates a segment, or removes one that is no longer needed.
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
                let prepared =
                    self.segment_pool.prepare(&self.commit, 0, |queue| self.segment_pool.are_short(queue))?;
                Ok(prepared || self.segment_pool.trim(&self.commit)?)
            }
        }
    }

    fn sync_due(&self) -> Result<bool> {
        let now = self.storage.monotonic();
        let upto = {
            // a deadline is dropped once its position is durable, so a deadline that is still set
            // is due
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

    /// Flushes tickets and due commits, and writes a watermark when the log is idle.
    pub(super) fn run_flusher(&self) {
        let mut frames_before = 0;
        let mut pause = None;
        while !self.stop.load(Ordering::Acquire) {
            let done = self.run_background(FLUSHER, || {
                let (done, wait) = self.flush_once(&mut frames_before)?;
                pause = wait;
                Ok(done)
            });
            match done {
                Ok(true) => {}
                Ok(false) => self.commit.park_flusher(pause),
                // A failed write or sync has latched the log, and nothing is left to do. A failure
                // before that, such as a lack of memory, is tried again soon: tickets and interval
                // commits still wait for the flush.
                Err(_) => {
                    let _ = contained(|| self.commit.report_failure());
                    self.commit.park_flusher(if self.commit.is_latched() { None } else { Some(IDLE) });
                }
            }
        }
        let _ = contained(|| self.commit.report_failure());
    }

    /// Does the work that is due. Returns whether more may be due at once, and otherwise how long
    /// to wait; `None` waits until there is work.
    fn flush_once(&self, frames_before: &mut u64) -> Result<(bool, Option<Duration>)> {
        self.step(LogStep::Flush)?;
        self.sync_due()?;
        let (frames, needed, due) = {
            let queue = self.commit.queue.lock();
            (queue.frames_taken, queue.needs_watermark() || queue.is_busy(), queue.due.map(|(time, _)| time))
        };
        if needed && frames == *frames_before && matches!(self.write_watermark(), Ok(true)) {
            return Ok((true, None));
        }
        *frames_before = frames;
        let until_due = due.map(|time| time.saturating_sub(self.storage.monotonic()));
        let limit = match (needed, until_due) {
            (true, Some(due)) => Some(due.min(IDLE)),
            (true, None) => Some(IDLE),
            (false, due) => due,
        };
        Ok((false, limit))
    }

    /// Keeps segments ready ahead of need. It sleeps until a segment is taken, or what is reserved
    /// changes, unless something failed.
    pub(super) fn run_preallocator(&self) {
        self.commit.set_preallocator(thread::current());
        let stopping = || self.stop.load(Ordering::Acquire);
        while !stopping() {
            let prepared = self.run_background(PREALLOCATOR, || {
                // Even if no record is ever appended, the manifest must prove what was recovered.
                self.publish_pending_epoch()?;
                let prepared = self.segment_pool.prepare_ahead(&self.commit, &stopping)?;
                Ok(prepared || self.segment_pool.trim(&self.commit)?)
            });
            let epoch_pending = || self.commit.queue.lock().has_room(0) == Err(Shortage::Manifest);
            match prepared {
                Ok(true) => {}
                // a latched log never needs another segment
                _ if self.commit.is_latched() => thread::park(),
                Ok(false) if !epoch_pending() => thread::park(),
                // The disk is full. A caller that needs room tries to preallocate itself, and gets
                // the error.
                _ => thread::park_timeout(RETRY),
            }
        }
    }

    /// Runs one piece of a thread's work. An error is kept for the stats and reported as an event,
    /// and the thread continues.
    fn run_background(&self, (kind, what): (usize, &'static str), work: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let done = self.background_errors.run(kind, what, work, |_error| {
            // a failure that stops the log has its own event, and a close is no failure
            if !self.commit.is_latched() && !self.stop.load(Ordering::Acquire) {
                crate::events::event!(warn, error = %_error, "background work of the log failed; it is tried again");
            }
        });
        if done.is_ok() {
            self.background_errors.clear(kind);
        }
        done
    }
}
