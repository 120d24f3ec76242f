//! The frame that records are appended to, and the sealed frames that wait for a leader.
//!
//! LSNs are assigned here: in order and contiguous within an open, also across segments. A frame
//! that may be made durable ends on a block boundary. A frame that is only written ends where its
//! payload ends, and the next frame continues in the same block.
//!
//! While the forming frame holds a record, the memory of the next frame is in the pool. So taking a
//! frame off cannot fail for lack of memory.

use crate::error::{Error, Result};
use crate::format::bytes::{Head, round_up};
use crate::format::frame::{self, FrameKind, HEADER_BYTES};
use crate::ids::Lsn;
use crate::io::AlignedBuf;
use crate::store::open_dir::PreallocatedSegment;
use crate::wal::Level;
use crate::wal::room::Room;
use std::collections::VecDeque;

/// Number of buffers kept for reuse, and the capacity above which one is freed instead. Together
/// they bound the pool to 16 MiB.
const POOLED_BUFFERS: usize = 4;
const POOLED_BUFFER_BYTES: usize = 4 << 20;
/// Initial capacity of a buffer. It stays below the size at which allocators map memory for each
/// allocation.
const NEW_BUFFER_BYTES: usize = 64 << 10;

/// A frame that records are still added to, or a sealed one that waits for a leader.
pub(super) struct Forming {
    pub(super) kind: FrameKind,
    pub(super) buf: AlignedBuf,
    pub(super) start: Lsn,
    pub(super) records: u32,
    /// Set if the frame is the first of a new segment: this preallocated segment becomes that
    /// segment.
    pub(super) enters: Option<PreallocatedSegment>,
    /// The end of the frame is padded to a multiple of this: a block, unless the frame is only
    /// written.
    align: u32,
}

impl Forming {
    fn payload_bytes(&self) -> u64 {
        (self.buf.len() as u64).saturating_sub(HEADER_BYTES as u64)
    }

    /// The LSN past the frame.
    pub(super) fn end(&self) -> Lsn {
        frame::end_of(self.start, self.payload_bytes(), self.align)
    }

    pub(super) fn holds_something(&self) -> bool {
        self.records > 0 || self.kind == FrameKind::Watermark
    }
}

fn out_of_memory(error: std::io::Error) -> Error {
    Error::Full { what: "a frame in memory", source: Some(std::sync::Arc::new(error)) }
}

fn new_buffer() -> Result<AlignedBuf> {
    AlignedBuf::with_capacity(NEW_BUFFER_BYTES).map_err(out_of_memory)
}

fn fresh_buffer(pool: &mut Vec<AlignedBuf>) -> Result<AlignedBuf> {
    let mut buf = pool.pop().map_or_else(new_buffer, Ok)?;
    buf.clear();
    buf.resize(HEADER_BYTES).map_err(out_of_memory)?;
    Ok(buf)
}

/// Builds frames from records.
pub(super) struct FrameBuilder {
    block_bytes: u32,
    max_frame_bytes: u64,
    forming: Forming,
    sealed: VecDeque<Forming>,
    /// Total payload of the sealed frames, in bytes.
    sealed_bytes: u64,
    /// The start of the forming frame's segment, and the LSN past everything that it can hold.
    segment_start: Lsn,
    segment_end: Lsn,
    /// File size of the last segment that rotation took, in bytes. The next segment is at least as
    /// large.
    segment_bytes: u64,
    /// The number of records appended.
    records: u64,
    /// Buffers for the next frames.
    pool: Vec<AlignedBuf>,
}

impl FrameBuilder {
    /// A builder whose next frame starts at `start`, in a segment that holds everything below
    /// `segment_end`.
    pub(super) fn new(block_bytes: u32, max_frame_bytes: u64, start: Lsn, segment_end: Lsn) -> Result<FrameBuilder> {
        let mut pool = Vec::new();
        let buf = fresh_buffer(&mut pool)?;
        let kind = FrameKind::Records;
        Ok(FrameBuilder {
            block_bytes,
            max_frame_bytes,
            forming: Forming { kind, buf, start, records: 0, enters: None, align: block_bytes },
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            segment_start: start,
            segment_end,
            segment_bytes: 0,
            records: 0,
            pool,
        })
    }

    pub(super) fn forming(&self) -> &Forming {
        &self.forming
    }

    /// Whether a record or a watermark waits for a leader.
    pub(super) fn holds_something(&self) -> bool {
        self.has_sealed() || self.forming.holds_something()
    }

    pub(super) fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Number of records appended.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// File size of the last segment that rotation took, in bytes.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Continues in the first segment of this open, which starts at `base` and holds `capacity`
    /// bytes.
    pub(super) fn enter_first(&mut self, base: Lsn, capacity: u64) {
        debug_assert!(!self.holds_something(), "records were placed before the first segment was there");
        self.segment_start = base;
        self.segment_end = base.plus(capacity);
    }

    /// The number of bytes used in the current segment, and its capacity in bytes.
    pub(super) fn filled(&self) -> (u64, u64) {
        (self.forming.start.since(self.segment_start), self.segment_end.since(self.segment_start))
    }

    /// Where the next frame would start if the forming frame were sealed now. Until it is sealed,
    /// this is no frame boundary.
    pub(super) fn next_frame_start(&self) -> Lsn {
        if self.forming.holds_something() { self.forming.end() } else { self.forming.start }
    }

    /// Bytes that the forming and the sealed frames hold in memory.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.sealed_bytes.saturating_add(self.forming.payload_bytes())
    }

    /// Whether a frame fits the current segment, even if a watermark frame or a frame that fills a
    /// block is placed before it.
    pub(super) fn fits_segment(&self, frame: u64) -> bool {
        let block = u64::from(self.block_bytes);
        self.block_boundary(self.next_frame_start()).plus(frame).plus(block) <= self.segment_end
    }

    /// The position rounded up to a block boundary.
    fn block_boundary(&self, lsn: Lsn) -> Lsn {
        Lsn::new(round_up(lsn.get(), u64::from(self.block_bytes)))
    }

    /// The LSN past the last record appended. It may lie inside a frame.
    pub(super) fn appended_end(&self) -> Lsn {
        if self.forming.holds_something() {
            self.forming.start.plus(self.forming.buf.len() as u64)
        } else {
            self.forming.start
        }
    }

    /// Appends a record: `head`, which may depend on the LSN, then `body`. Returns its LSN and the
    /// LSN past it.
    ///
    /// The caller has ensured room by [`Room::check`] or a reservation. Otherwise the record may
    /// take space from the reserve.
    #[inline]
    pub(super) fn append(
        &mut self,
        room: &mut Room,
        body: &[u8],
        head: impl FnOnce(Lsn) -> Head,
    ) -> Result<(Lsn, Lsn)> {
        let bound = frame::record_bytes((body.len() as u64).saturating_add(Head::CAPACITY as u64));
        self.place(room, bound)?;
        self.push(body, head)
    }

    /// Appends records to one frame, which takes `entry_bytes` for them at most. Returns the LSN of
    /// each, and the LSN past the last. After an error none of them was appended.
    ///
    /// A frame is on the device as a whole or not at all, as its checksum tells. So are the records.
    pub(super) fn append_group(
        &mut self,
        room: &mut Room,
        bodies: &[&[u8]],
        entry_bytes: u64,
    ) -> Result<(Vec<Lsn>, Lsn)> {
        self.place(room, entry_bytes)?;
        // nothing below fails for lack of memory once the first record is in the frame
        let bytes = usize::try_from(entry_bytes).unwrap_or(usize::MAX);
        self.forming.buf.reserve(self.forming.buf.len().saturating_add(bytes)).map_err(out_of_memory)?;
        let start = self.forming.start;
        let mut lsns = Vec::with_capacity(bodies.len());
        let mut end = self.appended_end();
        for body in bodies {
            let (lsn, past) = self.push(body, |_| Head::default())?;
            lsns.push(lsn);
            end = past;
        }
        debug_assert!(self.forming.start == start, "a group of records was divided");
        Ok((lsns, end))
    }

    /// Appends a record to the forming frame, in which it has been given a place.
    #[inline]
    fn push(&mut self, body: &[u8], head: impl FnOnce(Lsn) -> Head) -> Result<(Lsn, Lsn)> {
        let lsn = self.forming.start.plus(self.forming.buf.len() as u64);
        let head = head(lsn);
        let len = head.as_slice().len().saturating_add(body.len());
        let mut prefix = Head::default();
        prefix.varint(len as u64);
        let prefix = prefix.as_slice();
        // allocate the next frame before this one holds a record, so that taking this one off
        // cannot fail
        if self.pool.is_empty() {
            self.pool.push(new_buffer()?);
        }
        let before = self.forming.buf.len();
        debug_assert!(self.forming.kind == FrameKind::Records, "a record goes into a frame without records");
        let needed = before.saturating_add(prefix.len()).saturating_add(len);
        self.forming.buf.reserve(needed).map_err(out_of_memory)?;
        for part in [prefix, head.as_slice(), body] {
            self.forming.buf.extend_from_slice(part).map_err(out_of_memory)?;
        }
        self.forming.records = self.forming.records.saturating_add(1);
        self.records = self.records.saturating_add(1);
        let end = self.forming.start.plus(self.forming.buf.len() as u64);
        debug_assert!(
            end > lsn && self.forming.end() <= self.segment_end,
            "the record at {lsn} does not fit its segment"
        );
        Ok((lsn, end))
    }

    /// Seals the forming frame and enters another segment, as far as a record of `entry_bytes`
    /// needs that.
    fn place(&mut self, room: &mut Room, entry_bytes: u64) -> Result<()> {
        let block = self.block_bytes;
        if self.forming.holds_something() {
            let with = self.forming.payload_bytes().saturating_add(entry_bytes);
            let end = frame::end_of(self.forming.start, with, block);
            let fits = end.since(self.forming.start) <= self.max_frame_bytes && end <= self.segment_end;
            if fits && self.forming.records < u32::MAX {
                return Ok(());
            }
            self.seal()?;
        }
        if frame::end_of(self.forming.start, entry_bytes, block) <= self.segment_end {
            return Ok(());
        }
        let alone = frame::frame_bytes(entry_bytes, block);
        // a segment ends on a block boundary, as its successor begins on one
        self.fill_block()?;
        let segment = room.take(alone).ok_or(Error::Full { what: "the next segment", source: None })?;
        self.segment_start = self.forming.start;
        self.segment_end = self.forming.start.plus(room.capacity_of(&segment));
        self.segment_bytes = segment.file_bytes;
        self.forming.enters = Some(segment);
        Ok(())
    }

    /// Seals the forming frame, so that the next record starts another one on a block boundary.
    /// Does nothing if no record is forming and the next frame starts on a block boundary already.
    pub(super) fn seal(&mut self) -> Result<()> {
        if !self.forming.holds_something() {
            return self.fill_block();
        }
        self.seal_as(self.forming.kind).map(|_| ())
    }

    /// Seals the forming frame with this kind. Returns its end.
    fn seal_as(&mut self, kind: FrameKind) -> Result<Lsn> {
        let frame = self.replace_forming(kind, self.block_bytes)?;
        let end = frame.end();
        self.sealed_bytes = self.sealed_bytes.saturating_add(frame.payload_bytes());
        self.sealed.push_back(frame);
        Ok(end)
    }

    /// Seals a frame to carry a watermark: the forming frame, or one without records. Returns its
    /// end, or `None` if the segment has no room for it.
    pub(super) fn seal_watermark(&mut self) -> Result<Option<Lsn>> {
        if self.forming.holds_something() {
            return self.seal_as(self.forming.kind).map(Some);
        }
        if frame::end_of(self.forming.start, 0, self.block_bytes) > self.segment_end {
            return Ok(None);
        }
        self.seal_as(FrameKind::Watermark).map(Some)
    }

    /// If the last frame ended inside a block, fills the block with a frame without records. The
    /// forming frame must be empty.
    fn fill_block(&mut self) -> Result<()> {
        if self.in_block() {
            self.seal_as(FrameKind::Watermark)?;
        }
        Ok(())
    }

    /// Whether the forming frame starts inside a block.
    fn in_block(&self) -> bool {
        self.block_boundary(self.forming.start) != self.forming.start
    }

    /// Replaces the forming frame by an empty one and returns it, with this kind and padded to
    /// `align`. After an error nothing has changed.
    fn replace_forming(&mut self, kind: FrameKind, align: u32) -> Result<Forming> {
        let buf = fresh_buffer(&mut self.pool)?;
        self.forming.kind = kind;
        self.forming.align = align;
        let start = self.forming.end();
        debug_assert!(start > self.forming.start, "a frame has no length");
        debug_assert!(start <= self.segment_end, "a frame ends at {start}, past its segment");
        let align = self.block_bytes;
        let next = Forming { kind: FrameKind::Records, buf, start, records: 0, enters: None, align };
        Ok(std::mem::replace(&mut self.forming, next))
    }

    /// The start of the first frame that no leader has taken.
    pub(super) fn untaken_start(&self) -> Lsn {
        self.sealed.front().map_or(self.forming.start, |frame| frame.start)
    }

    /// The frame that is taken off next.
    fn front(&self) -> Option<&Forming> {
        self.sealed.front().or_else(|| Some(&self.forming).filter(|forming| forming.holds_something()))
    }

    /// The preallocated segment that the next frame needs, and the frame's start. `None` if that
    /// frame goes into the current segment.
    pub(super) fn next_to_enter(&self) -> Option<(PreallocatedSegment, Lsn)> {
        let front = self.front()?;
        Some((front.enters.clone()?, front.start))
    }

    /// Records that the segment of the next frame was entered.
    pub(super) fn note_entered(&mut self) {
        let front = self.sealed.front_mut().unwrap_or(&mut self.forming);
        debug_assert!(front.enters.is_some(), "a segment was entered without a frame for it");
        front.enters = None;
    }

    /// Takes off the next frame, with the level that `level_from` returns for its start. `None` if
    /// there is no frame.
    pub(super) fn take(&mut self, level_from: impl Fn(Lsn) -> Level) -> Result<Option<(Forming, Level)>> {
        if let Some(frame) = self.sealed.pop_front() {
            debug_assert!(
                self.sealed_bytes >= frame.payload_bytes(),
                "sealed frames hold less than they are counted for"
            );
            self.sealed_bytes = self.sealed_bytes.saturating_sub(frame.payload_bytes());
            let level = level_from(frame.start);
            return Ok(Some((frame, level)));
        }
        if self.forming.holds_something() {
            let level = level_from(self.forming.start);
            let align = match level {
                Level::Durable => self.block_bytes,
                Level::Written => frame::ALIGN_BYTES,
            };
            return Ok(Some((self.replace_forming(self.forming.kind, align)?, level)));
        }
        // the last written frame ends inside a block: once it is synced, no later write may touch
        // that block
        if self.in_block() {
            return Ok(Some((self.replace_forming(FrameKind::Watermark, self.block_bytes)?, Level::Durable)));
        }
        Ok(None)
    }

    /// Returns a frame's memory to the pool.
    pub(super) fn recycle(&mut self, buf: AlignedBuf) {
        if self.pool.len() < POOLED_BUFFERS && buf.capacity() <= POOLED_BUFFER_BYTES {
            self.pool.push(buf);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_few_frames_is_kept_and_of_a_very_large_one_none() {
        let mut frames = FrameBuilder::new(4096, 1 << 20, Lsn::new(4096), Lsn::new(1 << 20)).unwrap();
        frames.recycle(AlignedBuf::with_capacity(POOLED_BUFFER_BYTES + 1).unwrap());
        assert!(frames.pool.is_empty());
        for _ in 0..POOLED_BUFFERS + 1 {
            frames.recycle(AlignedBuf::with_capacity(POOLED_BUFFER_BYTES).unwrap());
        }
        assert_eq!(frames.pool.len(), POOLED_BUFFERS);
    }
}
