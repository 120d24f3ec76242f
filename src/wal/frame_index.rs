//! Where each frame of the log lies, so that a record is read by its LSN without a search.
//!
//! The log on its own keeps the index in memory: it is built from the scan at open, and grows with
//! each frame. The log of an engine has none. A frame takes one or two bytes of it: its length in
//! units of 64 bytes, as a varint. A mark after every few frames bounds how many lengths a look-up
//! adds up.

use crate::error::Result;
use crate::format::bytes::put_varint;
use crate::format::frame::{ALIGN_BYTES, Place};
use crate::format::segment::SegmentHeader;
use crate::ids::{Epoch, Lsn, StoreId};
use crate::io::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::io::{NamedFile, OpenMode, Storage};
use crate::store::open_dir::SegmentFile;
use crate::varint::split_varint;
use crate::wal::segment_writer::{Identity, SegmentInfo};
use std::collections::VecDeque;

/// Frames between two marks. A look-up decodes half as many lengths on average, in about 0.1 µs.
const FRAMES_PER_MARK: u32 = 64;
/// The number of segments that stay open for reading. Descriptors belong to the whole process.
const MOST_OPEN: usize = 8;

/// What a frame of a segment must carry, and where the segment is.
pub(super) struct IndexedSegment {
    pub(super) name: String,
    pub(super) base: Lsn,
    pub(super) store: StoreId,
    pub(super) epoch: Epoch,
    pub(super) block_bytes: u32,
    /// The version of the records' encoding.
    pub(super) version: u32,
}

impl IndexedSegment {
    /// The offset of an LSN in the file.
    pub(super) fn offset_of(&self, lsn: Lsn) -> u64 {
        lsn.since(self.base).saturating_add(u64::from(self.block_bytes))
    }

    /// The identity that a frame with this LSN must have.
    pub(super) fn place(&self, lsn: Lsn) -> Place {
        Place { store: self.store, epoch: self.epoch, lsn, block_bytes: self.block_bytes }
    }
}

/// Frames of one segment that follow one another.
pub(super) struct Run {
    pub(super) segment: Arc<IndexedSegment>,
    /// The LSN and the length in bytes of each.
    pub(super) frames: Vec<(Lsn, u64)>,
    /// Whether all of them are durable. Otherwise the page cache alone may hold them.
    pub(super) durable: bool,
}

/// A place in the lengths at which the LSN is known.
struct Mark {
    at: usize,
    lsn: Lsn,
}

/// The frames of one segment.
struct Frames {
    segment: Arc<IndexedSegment>,
    /// The length of each frame, in units of [`ALIGN_BYTES`].
    lengths: Vec<u8>,
    marks: Vec<Mark>,
    since_mark: u32,
    /// The LSN past the last frame.
    end: Lsn,
}

impl Frames {
    fn add(&mut self, start: Lsn, end: Lsn) {
        debug_assert!(start >= self.end, "the frame at {start} begins before {}", self.end);
        debug_assert!(end > start, "a frame has no length");
        if start != self.end || self.since_mark >= FRAMES_PER_MARK {
            self.marks.push(Mark { at: self.lengths.len(), lsn: start });
            self.since_mark = 0;
        }
        let units = end.since(start).div_euclid(u64::from(ALIGN_BYTES));
        put_varint(units, &mut self.lengths);
        self.since_mark = self.since_mark.saturating_add(1);
        self.end = end;
    }

    /// The frames in order, from the one that holds `lsn` on, or else from the first one past it.
    fn from(&self, lsn: Lsn) -> impl Iterator<Item = (Lsn, u64)> + '_ {
        let first = self.marks.partition_point(|mark| mark.lsn <= lsn).saturating_sub(1);
        let mut marks = self.marks.get(first..).unwrap_or_default().iter().peekable();
        let mut rest = marks.peek().and_then(|mark| self.lengths.get(mark.at..)).unwrap_or_default();
        let mut next = Lsn::ZERO;
        let frames = std::iter::from_fn(move || {
            let at = self.lengths.len().saturating_sub(rest.len());
            if let Some(mark) = marks.next_if(|mark| mark.at == at) {
                next = mark.lsn;
            }
            let (units, behind) = split_varint(rest).ok()??;
            rest = behind;
            let frame = (next, units.saturating_mul(u64::from(ALIGN_BYTES)));
            next = next.plus(frame.1);
            Some(frame)
        });
        frames.skip_while(move |(start, bytes)| start.plus(*bytes) <= lsn)
    }
}

/// The frames of all segments that are kept, oldest first.
pub(super) struct FrameIndex {
    /// The LSN at which the log begins.
    start: AtomicU64,
    segments: Mutex<VecDeque<Frames>>,
    /// Segments that are open for reading, the most recently used one last. This lock is never held
    /// over I/O.
    files: Mutex<Vec<(Lsn, NamedFile)>>,
}

impl FrameIndex {
    /// The index of a log that begins at `start`, without any frame.
    pub(super) fn new(start: Lsn) -> FrameIndex {
        let start = AtomicU64::new(start.get());
        FrameIndex { start, segments: Mutex::default(), files: Mutex::default() }
    }

    /// The LSN at which the log begins.
    pub(super) fn start(&self) -> Lsn {
        Lsn::new(self.start.load(Ordering::SeqCst))
    }

    /// Moves the start of the log. A reader that has not looked at it yet is refused what lies
    /// below.
    pub(super) fn raise_start(&self, to: Lsn) {
        self.start.fetch_max(to.get(), Ordering::SeqCst);
    }

    /// Adds a segment of an earlier open, unless it is there already.
    pub(super) fn note_earlier(&self, file: &SegmentFile, header: &SegmentHeader) {
        let mut segments = self.segments.lock();
        if segments.back().is_none_or(|last| last.segment.base < header.base) {
            let SegmentHeader { base, store, epoch, block_bytes, ref machine, .. } = *header;
            let (name, version) = (file.name.clone(), machine.version);
            segments.push_back(Frames::of(IndexedSegment { name, base, store, epoch, block_bytes, version }));
        }
    }

    /// Adds a segment that this open has entered.
    pub(super) fn note_entered(&self, info: &SegmentInfo, identity: &Identity) {
        let Identity { store, epoch, block_bytes, ref machine } = *identity;
        let (name, base, version) = (info.name.clone(), info.base, machine.version);
        let segment = IndexedSegment { name, base, store, epoch, block_bytes, version };
        let mut segments = self.segments.lock();
        // an unused segment of an earlier open was replaced
        segments.pop_back_if(|last| last.segment.base >= info.base);
        segments.push_back(Frames::of(segment));
    }

    /// Adds the frame that follows all others.
    pub(super) fn note_frame(&self, start: Lsn, end: Lsn) {
        let mut segments = self.segments.lock();
        debug_assert!(!segments.is_empty(), "a frame is written into no segment");
        if let Some(last) = segments.back_mut() {
            last.add(start, end);
        }
    }

    /// Forgets the segments below the one that begins at `base`.
    pub(super) fn forget_below(&self, base: Lsn) {
        self.files.lock().retain(|(other, _)| *other >= base);
        let mut segments = self.segments.lock();
        while segments.pop_front_if(|first| first.segment.base < base).is_some() {}
    }

    /// Closes the files. Nothing is read any more.
    pub(super) fn close_files(&self) {
        self.files.lock().clear();
    }

    /// The segment that holds an LSN, and the LSN and length of the frame that does, if one does.
    pub(super) fn frame_at(&self, lsn: Lsn) -> Option<(Arc<IndexedSegment>, (Lsn, u64))> {
        let segments = self.segments.lock();
        let at = segments.partition_point(|frames| frames.segment.base <= lsn).checked_sub(1)?;
        let frames = segments.get(at)?;
        let frame = frames.from(lsn).next().filter(|(start, _)| *start <= lsn)?;
        Some((frames.segment.clone(), frame))
    }

    /// The frames from the one that holds `from` on, or else from the first one past it. They are
    /// of one segment, begin below `upto`, and take at most `most_bytes` unless the first one is
    /// larger. `None` if there is no such frame.
    pub(super) fn run(&self, from: Lsn, upto: Lsn, durable: Lsn, most_bytes: u64) -> Option<Run> {
        let segments = self.segments.lock();
        let at = segments.partition_point(|frames| frames.segment.base <= from).saturating_sub(1);
        segments.range(at..).find_map(|frames| {
            let mut run = Run { segment: frames.segment.clone(), frames: Vec::new(), durable: true };
            let mut total = 0u64;
            for (start, bytes) in frames.from(from) {
                let is_durable = start.plus(bytes) <= durable;
                if run.frames.is_empty() {
                    run.durable = is_durable;
                }
                total = total.saturating_add(bytes);
                let is_more = !run.frames.is_empty() && (total > most_bytes || is_durable != run.durable);
                if start >= upto || is_more {
                    break;
                }
                run.frames.push((start, bytes));
            }
            (!run.frames.is_empty()).then_some(run)
        })
    }

    /// The file of a segment, opened for reading.
    pub(super) fn file(&self, storage: &dyn Storage, segment: &IndexedSegment) -> Result<NamedFile> {
        let found = {
            let mut files = self.files.lock();
            let at = files.iter().position(|(base, _)| *base == segment.base);
            at.map(|at| {
                let entry = files.remove(at);
                let file = entry.1.clone();
                files.push(entry);
                file
            })
        };
        if let Some(file) = found {
            return Ok(file);
        }
        let file = NamedFile::open(storage, &segment.name, OpenMode::Read)?;
        // closed without the lock
        let _surplus = {
            let mut files = self.files.lock();
            files.push((segment.base, file.clone()));
            (files.len() > MOST_OPEN).then(|| files.remove(0))
        };
        Ok(file)
    }
}

impl Frames {
    fn of(segment: IndexedSegment) -> Frames {
        // no frame begins at zero, so the first one begins with a mark
        let end = Lsn::ZERO;
        Frames { segment: Arc::new(segment), lengths: Vec::new(), marks: Vec::new(), since_mark: 0, end }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::ids::{MachineTag, SegmentId};

    fn enter(index: &FrameIndex, id: u64, base: u64) {
        let machine = MachineTag { name: "log".into(), version: 3 };
        let identity = Identity { store: StoreId::new(1), epoch: Epoch::new(2), block_bytes: 4096, machine };
        let info = SegmentInfo {
            name: format!("{id}.seg"),
            id: SegmentId::new(id),
            base: Lsn::new(base),
            file_bytes: 1 << 20,
        };
        index.note_entered(&info, &identity);
    }

    #[test]
    fn every_byte_of_a_frame_leads_to_it_and_a_gap_to_none() {
        let index = FrameIndex::new(Lsn::new(4096));
        let mut frames = Vec::new();
        for (id, base, count) in [(1, 4096u64, 1000u64), (2, 1 << 26, 1), (3, 2 << 26, 200)] {
            enter(&index, id, base);
            let mut start = base;
            for n in 0..count {
                let bytes = 64 * (1 + n * n % 300);
                index.note_frame(Lsn::new(start), Lsn::new(start + bytes));
                frames.push((id, start, bytes));
                start += bytes;
            }
            // behind the last frame there is none, up to the next segment
            assert!(index.frame_at(Lsn::new(start)).is_none());
        }
        for &(id, start, bytes) in &frames {
            for lsn in [start, start + 1, start + bytes - 1] {
                let (segment, frame) = index.frame_at(Lsn::new(lsn)).unwrap();
                assert_eq!((segment.name.as_str(), frame), (&*format!("{id}.seg"), (Lsn::new(start), bytes)), "{lsn}");
            }
        }
        assert!(index.frame_at(Lsn::ZERO).is_none());
        // runs lead through all frames, and stop at the end of what is durable
        let (mut next, mut seen) = (Lsn::ZERO, 0);
        let (upto, durable) = (Lsn::new(u64::MAX), Lsn::new(frames[300].1));
        while let Some(run) = index.run(next, upto, durable, 10_000) {
            assert!(run.durable == (run.frames[0].0 < durable));
            for frame in run.frames {
                assert_eq!(frame, (Lsn::new(frames[seen].1), frames[seen].2));
                assert_eq!(run.durable, frame.0 < durable);
                next = frame.0.plus(frame.1);
                seen += 1;
            }
        }
        assert_eq!(seen, frames.len());
        index.forget_below(Lsn::new(2 << 26));
        assert!(index.frame_at(Lsn::new(4096)).is_none() && index.frame_at(Lsn::new(2 << 26)).is_some());
    }
}
