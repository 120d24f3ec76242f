//! Verified frames, together with the bytes that they were read into.

use crate::format::frame::{Frame, FrameFault, FrameHeader};
use crate::format::segment::SegmentHeader;
use crate::ids::Lsn;
use crate::io::AlignedBuf;
use crate::io::sync::Arc;
use crate::store::open_dir::SegmentFile;
use crate::wal::scan::segment_set::Segment;

/// A chunk is packed if its frames hold less than this fraction of its bytes. So the padding in the
/// waiting chunks of a group takes at most three times their payload.
const PACKED_BELOW: u64 = 4;

/// Verified frames of one segment that follow one another.
pub(crate) struct Chunk {
    bytes: Bytes,
    frames: Vec<FrameAt>,
    segment: Arc<Segment>,
    /// The version of the machine that wrote the segment.
    pub(crate) machine_version: u32,
    #[cfg_attr(not(any(test, feature = "inspect")), expect(dead_code, reason = "only `inspect` shows it"))]
    pub(crate) machine_name: Arc<str>,
}

enum Bytes {
    /// The bytes as they were read.
    Read(AlignedBuf),
    /// The payloads alone, one after the other.
    Packed(Vec<u8>),
}

/// One frame of a chunk.
#[derive(Clone, Copy)]
pub(super) struct FrameAt {
    pub(super) header: FrameHeader,
    pub(super) checksum: u32,
    /// The start and the end of its payload in the bytes of the chunk.
    pub(super) payload: (usize, usize),
    pub(super) total_bytes: u64,
    pub(super) file_offset: u64,
}

impl Chunk {
    pub(super) fn new(buf: AlignedBuf, frames: Vec<FrameAt>, segment: Arc<Segment>) -> Chunk {
        debug_assert!(!frames.is_empty(), "a chunk holds at least one frame");
        let follows = |pair: &[FrameAt]| matches!(pair, [a, b] if a.header.lsn.plus(a.total_bytes) == b.header.lsn);
        debug_assert!(frames.windows(2).all(follows), "the frames of a chunk follow one another");
        let (machine_version, machine_name) = (segment.header.machine.version, segment.machine_name.clone());
        Chunk { bytes: Bytes::Read(buf), frames, segment, machine_version, machine_name }
    }

    /// The frames in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let bytes: &[u8] = match &self.bytes {
            Bytes::Read(buf) => buf,
            Bytes::Packed(bytes) => bytes,
        };
        self.frames.iter().map(move |at| {
            let payload = bytes.get(at.payload.0..at.payload.1);
            debug_assert!(payload.is_some(), "a chunk holds the payload of each of its frames");
            Frame {
                header: at.header,
                checksum: at.checksum,
                payload: payload.unwrap_or_default(),
                total_bytes: at.total_bytes,
            }
        })
    }

    /// The file that holds the frames.
    pub(crate) fn segment(&self) -> &SegmentFile {
        &self.segment.file
    }

    /// The header of the segment that holds the frames.
    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.segment.header
    }

    /// The offset in its file of an LSN in this chunk.
    pub(crate) fn offset_of(&self, lsn: Lsn) -> u64 {
        let base = self.frames.first();
        base.map_or(0, |at| at.file_offset.saturating_add(lsn.since(at.header.lsn)))
    }

    /// The LSN of its first frame.
    pub(crate) fn first_lsn(&self) -> Lsn {
        self.frames.first().map_or(Lsn::ZERO, |at| at.header.lsn)
    }

    /// The size of its frames in the log, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.frames.iter().map(|f| f.total_bytes).fold(0, u64::saturating_add)
    }

    /// Copies the payloads out if most of the chunk is padding. Returns the buffer that this frees.
    pub(super) fn pack(&mut self) -> Option<AlignedBuf> {
        let held = self.frames().map(|frame| frame.payload.len()).fold(0, usize::saturating_add);
        let limit = usize::try_from(self.bytes().checked_div(PACKED_BELOW)?).ok()?;
        let mut packed = Vec::new();
        // if there is no memory for the copy, the chunk stays unpacked
        packed.try_reserve_exact(Some(held).filter(|held| *held <= limit)?).ok()?;
        self.frames().for_each(|frame| packed.extend_from_slice(frame.payload));
        let mut end = 0usize;
        for at in &mut self.frames {
            let bytes = at.payload.1.saturating_sub(at.payload.0);
            at.payload = (end, end.saturating_add(bytes));
            end = at.payload.1;
        }
        debug_assert_eq!(end, packed.len(), "the payloads cover the packed bytes");
        std::mem::replace(&mut self.bytes, Bytes::Packed(packed)).into_buffer()
    }

    /// The buffer that it was read into, unless it was packed.
    pub(super) fn into_buffer(self) -> Option<AlignedBuf> {
        self.bytes.into_buffer()
    }
}

impl Bytes {
    fn into_buffer(self) -> Option<AlignedBuf> {
        match self {
            Bytes::Read(buf) => Some(buf),
            Bytes::Packed(_) => None,
        }
    }
}

/// The records of a chunk in order. An error holds the LSN of a frame whose records do not fill it,
/// and the reason.
pub(crate) fn records_of(chunk: &Chunk) -> impl Iterator<Item = Result<(Lsn, &[u8]), (Lsn, &'static str)>> {
    chunk.frames().flat_map(|frame| {
        let lsn = frame.header.lsn;
        frame.records().map(move |record| record.map_err(|fault: FrameFault| (lsn, fault.reason())))
    })
}
