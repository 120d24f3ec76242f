//! The frames that were taken off to be written, in order, and the durable and written LSNs that
//! follow from them.
//!
//! A frame is pending until its write has returned. A frame that was written directly to the device
//! is completed then. A frame that was written through the page cache is written then, and
//! completed by the next sync. The durable LSN is the end of the contiguous prefix of completed
//! frames, so it never passes a frame that is still on its way.

use super::Level;
use crate::ids::Lsn;
use crate::io::sync::{AtomicU64, Ordering};
use std::collections::VecDeque;

/// The state of a frame that was taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameState {
    /// The frame is being written.
    Pending,
    /// The frame is in the page cache: it survives a kill of the process, but not power loss.
    Written,
    /// The frame is on stable storage: it survives power loss.
    Completed,
}

struct Frame {
    /// The watermark in the frame: what it proves once it is on stable storage.
    watermark: Lsn,
    end: Lsn,
    state: FrameState,
    /// The end of the last frame with records among those merged into this one; zero if none has
    /// records.
    records_end: Lsn,
}

/// The durable and the written LSN, readable without the append lock.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) durable: AtomicU64,
    pub(super) written: AtomicU64,
}

impl Progress {
    pub(super) fn reached(&self, lsn: Lsn, level: Level) -> bool {
        let of = match level {
            Level::Durable => &self.durable,
            Level::Written => &self.written,
        };
        of.load(Ordering::Acquire) >= lsn.get()
    }
}

/// The frames on their way to the device.
pub(super) struct InFlight {
    frames: VecDeque<Frame>,
    /// The end of the last frame that was taken off.
    taken_end: Lsn,
    /// The end of the last completed frame with records.
    records_end: Lsn,
    /// The last watermark that is on stable storage.
    written_watermark: Lsn,
}

impl InFlight {
    pub(super) fn new(start: Lsn) -> InFlight {
        InFlight { frames: VecDeque::new(), taken_end: start, records_end: start, written_watermark: start }
    }

    /// Adds the frame that ends at `end`, which was taken off to be written.
    pub(super) fn take_off(&mut self, end: Lsn, holds_records: bool) {
        debug_assert!(end > self.taken_end, "the frame that ends at {end} does not follow {}", self.taken_end);
        debug_assert!(self.frames.back().is_none_or(|last| last.end < end), "frames are taken off in order");
        self.taken_end = end;
        let records_end = if holds_records { end } else { Lsn::ZERO };
        self.frames.push_back(Frame { watermark: Lsn::ZERO, end, state: FrameState::Pending, records_end });
    }

    /// Whether a frame is still being written.
    pub(super) fn is_pending(&self) -> bool {
        self.frames.iter().any(|f| f.state == FrameState::Pending)
    }

    /// Whether a frame before `end` is still being written.
    pub(super) fn pending_before(&self, end: Lsn) -> bool {
        self.frames.iter().any(|f| f.state == FrameState::Pending && f.end < end)
    }

    /// Whether there are frames that a sync would complete.
    pub(super) fn holds_written(&self) -> bool {
        self.frames.iter().any(|f| f.state == FrameState::Written)
    }

    /// The end of the last completed frame with records.
    pub(super) fn records_end(&self) -> Lsn {
        self.records_end
    }

    /// Whether no durable watermark proves the last completed records yet.
    pub(super) fn needs_watermark(&self) -> bool {
        self.written_watermark < self.records_end
    }

    /// Records that a watermark is on stable storage.
    pub(super) fn note_watermark(&mut self, watermark: Lsn) {
        debug_assert!(watermark <= self.taken_end, "the watermark {watermark} proves frames that were never written");
        self.written_watermark = self.written_watermark.max(watermark);
    }

    /// Records the new state of the frame that ends at `end`, and the watermark in it.
    #[inline]
    pub(super) fn land(&mut self, end: Lsn, state: FrameState, watermark: Lsn, progress: &Progress) {
        debug_assert!(state != FrameState::Pending, "a frame that has landed is pending");
        let frame = self.frames.iter_mut().rev().find(|f| f.end == end);
        debug_assert!(frame.is_some(), "the frame that ends at {end} was never taken off, or has landed before");
        if let Some(frame) = frame {
            debug_assert!(frame.state == FrameState::Pending, "the frame that ends at {end} lands twice");
            frame.state = state;
            frame.watermark = watermark;
        }
        if state == FrameState::Written {
            self.merge_written();
        }
        self.advance(progress);
    }

    /// Merges the last two frames if both are written. It bounds the list, because any number of
    /// frames may be written before a sync.
    fn merge_written(&mut self) {
        let mut last_two = self.frames.iter_mut().rev().take(2);
        if let (Some(last), Some(before)) = (last_two.next(), last_two.next())
            && (last.state, before.state) == (FrameState::Written, FrameState::Written)
        {
            before.end = last.end;
            before.watermark = before.watermark.max(last.watermark);
            before.records_end = before.records_end.max(last.records_end);
            self.frames.pop_back();
        }
    }

    /// Records that every written frame is now on stable storage.
    pub(super) fn note_synced(&mut self, progress: &Progress) {
        for frame in self.frames.iter_mut().filter(|f| f.state == FrameState::Written) {
            frame.state = FrameState::Completed;
        }
        self.advance(progress);
    }

    fn advance(&mut self, progress: &Progress) {
        while let Some(frame) = self.frames.pop_front_if(|f| f.state == FrameState::Completed) {
            debug_assert!(frame.watermark <= frame.end, "the watermark of a frame lies past the frame");
            debug_assert!(frame.records_end <= frame.end, "the records of a frame end past the frame");
            self.written_watermark = self.written_watermark.max(frame.watermark);
            self.records_end = self.records_end.max(frame.records_end);
            progress.durable.fetch_max(frame.end.get(), Ordering::AcqRel);
        }
        let durable = progress.durable.load(Ordering::Acquire);
        let written = self.frames.iter().take_while(|f| f.state != FrameState::Pending).last();
        let written = written.map_or(durable, |frame| frame.end.get());
        debug_assert!(durable <= written, "{durable} is durable and only {written} is written");
        progress.written.fetch_max(written, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_durable_position_stops_before_a_frame_that_is_still_being_written() {
        let (mut frames, progress) = (InFlight::new(Lsn::new(10)), Progress::default());
        let durable = |progress: &Progress| progress.durable.load(Ordering::Acquire);
        [20, 30, 40].into_iter().for_each(|end| frames.take_off(Lsn::new(end), true));
        frames.land(Lsn::new(30), FrameState::Completed, Lsn::new(10), &progress);
        assert!(durable(&progress) == 0 && frames.pending_before(Lsn::new(30)));
        frames.land(Lsn::new(20), FrameState::Completed, Lsn::new(10), &progress);
        assert!(durable(&progress) == 30 && frames.needs_watermark());
        frames.land(Lsn::new(40), FrameState::Written, Lsn::new(30), &progress);
        assert!(frames.holds_written() && progress.reached(Lsn::new(40), Level::Written) && durable(&progress) == 30);
        frames.note_synced(&progress);
        assert!(durable(&progress) == 40 && !frames.is_pending() && frames.records_end() == Lsn::new(40));
    }
}
