//! Scans the tail of a segment past an invalid frame for valid later frames.
//!
//! It searches the blocks that a frame can begin in and, from each frame that it finds, follows the
//! chain. Recovery needs what the watermarks of later frames prove, and salvage needs the place
//! where the log continues. A frame at another place than its LSN says is a misdirected write,
//! which proves that the log continued. The decision is made in
//! [`evidence`](crate::wal::scan::evidence).

use crate::error::Result;
#[cfg(any(test, feature = "salvage"))]
use crate::format::MIN_BLOCK_BYTES;
use crate::format::bytes::{are_zero, round_up};
use crate::format::frame::{self, FrameFault, Place};
use crate::ids::Lsn;
use crate::wal::scan::segment_set::OpenSegment;

/// The size of one read of a segment, unless a frame is larger. It bounds the memory of a scan, and
/// is large enough that a device reads at its sequential rate.
pub(super) const CHUNK_BYTES: u64 = 2 << 20;

/// What a search past an invalid frame has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TailFindings {
    /// The number of valid frames.
    pub(super) frames: u64,
    /// The highest watermark of these frames.
    pub(super) watermark: Lsn,
    /// Whether a whole frame of the invalid LSN or a later one is at a wrong place. Even a crash
    /// leaves each write at its own place, so the device has misdirected this one.
    pub(super) misplaced: bool,
    /// Whether anything was ever written there.
    written: bool,
    /// Whether something there begins like a frame of another place, as in a file that is reused.
    stale: bool,
    /// The end and the checksum of the last frame found.
    last: Option<(Lsn, u32)>,
}

impl TailFindings {
    /// Checks whether `bytes` starts with a valid frame. Returns its length in bytes, or why it is
    /// invalid.
    ///
    /// Inside a block a frame counts only if it continues the chain of the frame before it: only at
    /// a block boundary do the first four bytes distinguish a frame from a record's content.
    fn check(&mut self, bytes: &[u8], place: &Place, invalid: Lsn) -> Result<u64, FrameFault> {
        let before = self.last.filter(|(end, _)| *end == place.lsn).map(|(_, checksum)| checksum);
        let at_boundary = place.rest_of_block() == place.block_bytes as usize;
        if !frame::claims_place(bytes, place) {
            let rest = bytes.get(..place.rest_of_block()).unwrap_or(bytes);
            self.written = self.written || !are_zero(rest);
            self.stale = self.stale || frame::stated_bytes(bytes).is_some();
            // The older frames of a reused file are of LSNs below its base. To check them all would
            // cost too much.
            if let Some(own) = frame::claimed_place(bytes, place).filter(|own| at_boundary && own.lsn >= invalid) {
                frame::check(bytes, &own)?;
                self.misplaced = true;
            }
            return Err(FrameFault::Elsewhere);
        }
        self.written = true;
        let found = frame::check(bytes, place)?;
        if !at_boundary && before != Some(found.header.previous_checksum) {
            return Err(FrameFault::Chain);
        }
        let end = place.lsn.plus(found.total_bytes);
        debug_assert!(self.last.is_none_or(|(last, _)| last <= place.lsn), "the frames are found in order");
        debug_assert!(end > place.lsn, "a frame takes space");
        self.frames = self.frames.saturating_add(1);
        self.watermark = self.watermark.max(found.header.watermark);
        self.last = Some((end, found.checksum));
        Ok(found.total_bytes)
    }

    /// Whether the tail, after `fault`, looks like an interrupted write.
    ///
    /// In a recycled file, the inside of an old frame looks like that of a new frame whose first
    /// block was lost. It is taken for the old one.
    pub(super) fn is_torn(&self, fault: FrameFault) -> bool {
        self.frames > 0
            || match fault {
                FrameFault::Elsewhere => false,
                FrameFault::NeverWritten => self.written && !self.stale,
                FrameFault::NoFrame => !self.stale,
                _ => true,
            }
    }
}

/// Searches a segment for valid frames past `offset`, where none is: at the blocks that a frame can
/// begin in, and right behind each frame that it finds. A misplaced frame may also stand at
/// `offset`.
///
/// Every byte is read once, however many blocks claim to begin a frame. A claim is false if another
/// frame can begin inside it. If a claimed frame ends past the bytes read so far, the rest of it is
/// read together with the blocks that are searched next.
pub(super) fn search(segment: &OpenSegment, offset: u64) -> Result<TailFindings> {
    let block = u64::from(segment.header.block_bytes);
    let file_bytes = segment.header.file_bytes;
    let mut findings = TailFindings::default();
    let mut buf = segment.buffer(block)?;
    let invalid = segment.lsn_at(offset);
    let mut position = if segment.block_of(offset) == offset { offset } else { segment.next_boundary(offset) };
    let mut want = CHUNK_BYTES;
    while position < file_bytes {
        let from = segment.block_of(position);
        segment.fill(&mut buf, from, round_up(want, block).min(file_bytes.saturating_sub(from)))?;
        let end = from.saturating_add(buf.len() as u64);
        // the file was shortened after its length was read
        if end <= position {
            break;
        }
        let began = position;
        while position < end {
            let into = usize::try_from(position.saturating_sub(from)).ok();
            let rest = into.and_then(|into| buf.get(into..)).unwrap_or_default();
            debug_assert!(!rest.is_empty(), "the position lies in what was read");
            let place = segment.place(segment.lsn_at(position));
            let stated = frame::stated_bytes(rest).unwrap_or(0);
            let needed = stated.saturating_add(position.saturating_sub(segment.block_of(position)));
            let before = position;
            let checked = if place.lsn == invalid && frame::claims_place(rest, &place) {
                Err(FrameFault::Chain)
            } else {
                findings.check(rest, &place, invalid)
            };
            position = match checked {
                Ok(total) => position.saturating_add(total),
                Err(FrameFault::Length)
                    if stated <= file_bytes.saturating_sub(position) && (position > began || needed > want) =>
                {
                    want = needed.max(CHUNK_BYTES);
                    break;
                }
                Err(fault) => match segment.unsupported(fault) {
                    Some(error) => return Err(error),
                    None => segment.next_boundary(position),
                },
            };
            debug_assert!(position > before, "the search does not move on");
            want = CHUNK_BYTES;
        }
    }
    Ok(findings)
}

/// The LSN of the first whole frame past `at`. It searches every multiple of the smallest block
/// size: only there do the first bytes distinguish a frame from a record's content.
#[cfg(any(test, feature = "salvage"))]
pub(super) fn next_whole(segment: &OpenSegment, at: Lsn, limit: Lsn) -> Result<Option<Lsn>> {
    let block = u64::from(segment.header.block_bytes);
    let end = segment.offset_of(limit).min(segment.header.file_bytes);
    let bad = segment.offset_of(at);
    let mut buf = segment.buffer(block)?;
    let mut from = segment.block_of(bad);
    while from < end {
        segment.fill(&mut buf, from, CHUNK_BYTES.min(end.saturating_sub(from)))?;
        let positions = (from..).step_by(MIN_BLOCK_BYTES as usize);
        for (position, rest) in positions.zip(blocks(&buf)).filter(|(position, _)| *position > bad) {
            let place = segment.place(segment.lsn_at(position));
            if is_whole(segment, rest, position, &place)? {
                return Ok(Some(place.lsn));
            }
        }
        from = from.saturating_add(CHUNK_BYTES);
    }
    Ok(None)
}

/// Whether `bytes` begins with a whole frame for that place. It reads the rest of a frame that is
/// longer than `bytes`, unless another frame can begin inside it.
#[cfg(any(test, feature = "salvage"))]
fn is_whole(segment: &OpenSegment, bytes: &[u8], position: u64, place: &Place) -> Result<bool> {
    if !frame::claims_place(bytes, place) {
        return Ok(false);
    }
    let stated = frame::stated_bytes(bytes).unwrap_or(0);
    match frame::check(bytes, place) {
        Ok(_) => return Ok(true),
        Err(FrameFault::Length) if stated <= segment.header.file_bytes.saturating_sub(position) => {}
        Err(_) => return Ok(false),
    }
    let block = u64::from(place.block_bytes);
    let start = segment.block_of(position);
    let into = position.saturating_sub(start);
    let mut whole = segment.buffer(block)?;
    segment.fill(&mut whole, start, round_up(into.saturating_add(stated), block))?;
    let frame = usize::try_from(into).ok().and_then(|into| whole.get(into..)).unwrap_or_default();
    Ok(frame::check(frame, place).is_ok())
}

/// The rest of the buffer from each multiple of the smallest block size on.
#[cfg(any(test, feature = "salvage"))]
fn blocks(buf: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(buf), |rest| rest.get(MIN_BLOCK_BYTES as usize..)).take_while(|rest| !rest.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::format::frame::FrameHeader;
    use crate::io::sync::Arc;
    use crate::options::{Background, LogOptions};
    use crate::sim::SimDisk;
    use crate::store::layout as names;
    use crate::store::layout::FileName;
    use crate::store::open_dir::SegmentFile;
    use crate::wal::Log;
    use crate::wal::scan::segment_set::Segment;

    /// A log with so many frames, each in a block of its own, and its segment.
    fn with_frames(count: u8) -> (SimDisk, OpenSegment) {
        let disk = SimDisk::new(1);
        let options = LogOptions { background: Background::Manual, ..LogOptions::default() };
        let log = Log::open_on(Arc::new(disk.clone()), options).unwrap();
        (0..count).for_each(|n| log.append(&[n; 100]).unwrap().wait().unwrap());
        let name = disk.file_names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
        let FileName::Segment { id, base } = names::parse(&name) else { unreachable!("{name}") };
        let segment = Segment::read(&disk, &SegmentFile { name, id, base }).unwrap();
        let segment = OpenSegment::open(&disk, &Arc::new(segment)).unwrap();
        (disk, segment)
    }

    #[test]
    fn a_search_ends_where_the_file_does_though_that_was_longer_when_it_was_opened() {
        let (disk, segment) = with_frames(6);
        // the header, then a frame in each block, of which the first is the one that is damaged
        for blocks in (0..10).rev() {
            disk.truncate_file(&segment.file.name, blocks * 4096).unwrap();
            let found = search(&segment, 4096).unwrap().frames;
            assert_eq!(found, blocks.saturating_sub(2).min(5), "{blocks} blocks are left");
            let next = next_whole(&segment, segment.header.base, segment.capacity_end()).unwrap();
            assert_eq!(next, (found > 0).then(|| segment.lsn_at(2 * 4096)), "{blocks} blocks are left");
        }
    }

    #[test]
    fn inside_a_block_a_frame_counts_only_behind_the_one_that_it_follows() {
        let (disk, segment) = with_frames(1);
        // a block that begins with a frame, and another frame behind it in the same block
        let put = |offset: u64, previous_checksum: u32| {
            let Place { store, epoch, lsn, .. } = segment.place(segment.lsn_at(offset));
            let (kind, watermark) = (frame::FrameKind::Watermark, lsn);
            let (payload_bytes, records) = (0, 0);
            let header = FrameHeader { kind, store, epoch, lsn, watermark, payload_bytes, records, previous_checksum };
            let mut bytes = vec![0; 128];
            let checksum = frame::seal(&mut bytes, &header).unwrap();
            disk.overwrite(&segment.file.name, offset, &bytes).unwrap();
            checksum
        };
        let first = put(8192, 7);
        assert_eq!(search(&segment, 4096).unwrap().frames, 1);
        put(8192 + 128, first);
        let later = search(&segment, 4096).unwrap();
        assert_eq!((later.frames, later.watermark), (2, segment.lsn_at(8192 + 128)));
        put(8192 + 128, first ^ 1);
        let later = search(&segment, 4096).unwrap();
        assert_eq!((later.frames, later.watermark), (1, segment.lsn_at(8192)));
        // nor is what follows such a one
        put(8192 + 256, 7);
        put(3 * 4096, 9);
        let later = search(&segment, 4096).unwrap();
        assert_eq!((later.frames, later.watermark), (2, segment.lsn_at(3 * 4096)));
        // where the block does not begin with a frame, none in it counts
        disk.overwrite(&segment.file.name, 8192, &[b'.'; 128]).unwrap();
        put(8192 + 128, first);
        assert_eq!(search(&segment, 4096).unwrap().frames, 1);
    }

    #[test]
    fn a_frame_at_a_wrong_place_counts_if_it_cannot_be_older_content() {
        let (disk, segment) = with_frames(4);
        let pristine = disk.read_file(&segment.file.name).unwrap();
        let frame_at = |block: usize| pristine.get(block * 4096..(block + 1) * 4096).unwrap().to_vec();
        let misplaced = |bytes: &[u8], block: u64| {
            disk.overwrite(&segment.file.name, 0, &pristine).unwrap();
            disk.overwrite(&segment.file.name, block * 4096, bytes).unwrap();
            // the frame in the second block is the invalid one
            let found = search(&segment, 2 * 4096).unwrap();
            (found.misplaced, found.frames)
        };
        let resealed = |bytes: Vec<u8>, place: &Place| {
            let mut bytes = bytes;
            let header = frame::check(&bytes, &segment.place(segment.lsn_at(3 * 4096))).unwrap().header;
            let header = FrameHeader { store: place.store, epoch: place.epoch, lsn: place.lsn, ..header };
            frame::seal(&mut bytes, &header).unwrap();
            bytes
        };
        assert_eq!(misplaced(&frame_at(2), 2), (false, 2), "each at its place");
        assert_eq!(misplaced(&frame_at(4), 2), (true, 2), "a later one over the invalid one");
        assert_eq!(misplaced(&frame_at(2), 4), (true, 1), "the invalid one further on");
        assert_eq!(misplaced(&frame_at(2), 9), (true, 2));
        assert_eq!(misplaced(&frame_at(1), 2), (false, 2), "older content of a reused file");
        let place = segment.place(segment.lsn_at(4 * 4096));
        let other = |place: Place| misplaced(&resealed(frame_at(3), &place), 2);
        assert_eq!(other(place), (true, 2));
        assert_eq!(other(Place { store: crate::ids::StoreId::new(1), ..place }), (false, 2));
        assert_eq!(other(Place { epoch: crate::ids::Epoch::new(7), ..place }), (false, 2));
        let mut torn = frame_at(4);
        torn[4000] ^= 1;
        assert_eq!(misplaced(&torn, 2), (false, 2), "it is not whole");
        assert_eq!(misplaced(&frame_at(4)[..100], 2), (false, 2), "a part of it");
    }

    #[test]
    fn a_frame_that_goes_on_behind_the_end_of_the_file_is_none() {
        let (disk, segment) = with_frames(1);
        let place = segment.place(segment.lsn_at(8192));
        let Place { store, epoch, lsn, .. } = place;
        let put = |bytes: usize| {
            let payload_bytes = (bytes - frame::HEADER_BYTES) as u32;
            let (kind, watermark, records, previous_checksum) = (frame::FrameKind::Watermark, lsn, 0, 7);
            let header = FrameHeader { kind, store, epoch, lsn, watermark, payload_bytes, records, previous_checksum };
            let mut bytes = vec![b'.'; bytes];
            frame::seal(&mut bytes, &header).unwrap();
            disk.overwrite(&segment.file.name, 8192, &bytes[..4096]).unwrap();
        };
        let nothing = || {
            let found = search(&segment, 4096).unwrap().frames;
            let next = next_whole(&segment, segment.header.base, segment.capacity_end()).unwrap();
            (found, next) == (0, None)
        };
        // behind what the header says that the file has, and behind what is left of that
        put(usize::try_from(segment.header.file_bytes).unwrap());
        assert!(nothing());
        put(3 * 4096);
        assert!(nothing());
        disk.truncate_file(&segment.file.name, 3 * 4096).unwrap();
        assert!(nothing());
    }
}
