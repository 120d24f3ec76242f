//! What stands in a segment behind a place where a frame should be and no acceptable one is.
//!
//! Frames are searched for in the blocks that one can begin in, and from each on as they follow one another. Recovery wants to
//! know what their watermarks prove, and those who gather what is left, where to go on. It judges nothing: that is for
//! [`super::evidence`].

use super::segments::{CHUNK_BYTES, OpenSegment, zeroed};
use crate::error::Result;
use crate::format::Lsn;
#[cfg(any(test, feature = "salvage"))]
use crate::format::MIN_BLOCK_BYTES;
use crate::format::bytes::{are_zero, round_up};
use crate::format::frame::{self, FrameFault, Place};
use crate::storage::Storage;

/// What lies behind a place where no acceptable frame stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Later {
    /// Whole frames of their very place.
    pub(super) frames: u64,
    /// The highest that stands in one.
    pub(super) watermark: Lsn,
    /// Whether anything was ever written there.
    written: bool,
    /// Whether something there begins as the frame of another place, as it does where a file is used again.
    stale: bool,
    /// The end and the checksum of the frame that was found last.
    last: Option<(Lsn, u32)>,
}

impl Later {
    /// Looks at what `bytes` starts with. Returns the length of the frame there, or why there is none.
    ///
    /// Inside a block a frame counts only as the next one of a chain: what begins there is not told from a record's bytes by its
    /// first four.
    fn look(&mut self, bytes: &[u8], place: &Place) -> Result<u64, FrameFault> {
        let before = self.last.filter(|(end, _)| *end == place.lsn).map(|(_, checksum)| checksum);
        let at_boundary = place.rest_of_block() == place.block_bytes as usize;
        if !frame::claims_place(bytes, place) {
            let rest = bytes.get(..place.rest_of_block()).unwrap_or(bytes);
            self.written = self.written || !are_zero(rest);
            self.stale = self.stale || frame::stated_bytes(bytes).is_some();
            return Err(FrameFault::Elsewhere);
        }
        self.written = true;
        let found = frame::check(bytes, place)?;
        if !at_boundary && before != Some(found.header.previous_checksum) {
            return Err(FrameFault::Chain);
        }
        self.frames = self.frames.saturating_add(1);
        self.watermark = self.watermark.max(found.header.watermark);
        self.last = Some((place.lsn.plus(found.total_bytes), found.checksum));
        Ok(found.total_bytes)
    }

    /// Whether this, behind that fault, looks like a write that was interrupted. Where a file is used again nobody can tell the
    /// inside of an old frame from that of one whose first block was lost; it is taken for the former.
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

/// Looks for whole frames of this segment behind `offset`: in the blocks that a frame can begin in, and right behind each that it
/// finds.
///
/// What claims to be a frame is read once, however many such claims there are: where another can begin inside it the claim
/// is false, and one that goes beyond what was read is read together with all that is to be searched in it.
pub(super) fn search(storage: &dyn Storage, segment: &OpenSegment, offset: u64) -> Result<Later> {
    let block = u64::from(segment.header.block_bytes);
    let file_bytes = segment.header.file_bytes;
    let mut later = Later::default();
    let mut buf = zeroed(storage, &segment.file.name, block)?;
    let mut position = segment.next_boundary(offset);
    let mut want = CHUNK_BYTES;
    while position < file_bytes {
        let from = segment.block_of(position);
        segment.fill(storage, &mut buf, from, round_up(want, block).min(file_bytes.saturating_sub(from)))?;
        let end = from.saturating_add(buf.len() as u64);
        // a file that has become shorter meanwhile gives nothing to go on with
        if end <= position {
            break;
        }
        let began = position;
        while position < end {
            let into = usize::try_from(position.saturating_sub(from)).ok();
            let rest = into.and_then(|into| buf.get(into..)).unwrap_or_default();
            let place = segment.place(segment.lsn_at(position));
            let stated = frame::stated_bytes(rest).unwrap_or(0);
            let needed = stated.saturating_add(position.saturating_sub(segment.block_of(position)));
            position = match later.look(rest, &place) {
                Ok(total) => position.saturating_add(total),
                Err(FrameFault::Length)
                    if stated <= file_bytes.saturating_sub(position) && (position > began || needed > want) =>
                {
                    want = needed.max(CHUNK_BYTES);
                    break;
                }
                Err(fault) => match segment.unsupported(storage, fault) {
                    Some(error) => return Err(error),
                    None => segment.next_boundary(position),
                },
            };
            want = CHUNK_BYTES;
        }
    }
    Ok(later)
}

/// The LSN of the first whole frame of a segment behind the one that should stand at `at`, at a multiple of the smallest block
/// size: only there the first bytes tell a frame from what a record holds, as its writer has seen to.
#[cfg(any(test, feature = "salvage"))]
pub(super) fn next_whole(storage: &dyn Storage, segment: &OpenSegment, at: Lsn, limit: Lsn) -> Result<Option<Lsn>> {
    let block = u64::from(segment.header.block_bytes);
    let end = segment.offset_of(limit).min(segment.header.file_bytes);
    let bad = segment.offset_of(at);
    let mut buf = zeroed(storage, &segment.file.name, block)?;
    let mut from = segment.block_of(bad);
    while from < end {
        segment.fill(storage, &mut buf, from, CHUNK_BYTES.min(end.saturating_sub(from)))?;
        let positions = (from..).step_by(MIN_BLOCK_BYTES as usize);
        for (position, rest) in positions.zip(blocks(&buf)).filter(|(position, _)| *position > bad) {
            let place = segment.place(segment.lsn_at(position));
            if is_whole(storage, segment, rest, position, &place)? {
                return Ok(Some(place.lsn));
            }
        }
        from = from.saturating_add(CHUNK_BYTES);
    }
    Ok(None)
}

/// Whether a whole frame of that very place stands there. What another can begin inside of is none, and is not read on for it.
#[cfg(any(test, feature = "salvage"))]
fn is_whole(storage: &dyn Storage, segment: &OpenSegment, bytes: &[u8], position: u64, place: &Place) -> Result<bool> {
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
    let mut whole = zeroed(storage, &segment.file.name, block)?;
    segment.fill(storage, &mut whole, start, round_up(into.saturating_add(stated), block))?;
    let frame = usize::try_from(into).ok().and_then(|into| whole.get(into..)).unwrap_or_default();
    Ok(frame::check(frame, place).is_ok())
}

/// All of a buffer from each multiple of the smallest block size on.
#[cfg(any(test, feature = "salvage"))]
fn blocks(buf: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(buf), |rest| rest.get(MIN_BLOCK_BYTES as usize..)).take_while(|rest| !rest.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::format::frame::FrameHeader;
    use crate::format::names::{self, FileName};
    use crate::sim::SimDisk;
    use crate::sync::Arc;
    use crate::wal::attach::SegmentFile;
    use crate::wal::{Background, Log, LogOptions};

    /// A log with so many frames, each in a block of its own, and its segment.
    fn with_frames(count: u8) -> (SimDisk, OpenSegment) {
        let disk = SimDisk::new(1);
        let options = LogOptions { background: Background::Manual, ..LogOptions::default() };
        let (log, _) = Log::open_on(Arc::new(disk.clone()), options).unwrap();
        (0..count).for_each(|n| log.append(&[n; 100]).unwrap().wait().unwrap());
        let name = disk.file_names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
        let FileName::Segment { id, base } = names::parse(&name) else { unreachable!("{name}") };
        let segment = OpenSegment::open(&disk, &SegmentFile { name, id, base }).unwrap();
        (disk, segment)
    }

    #[test]
    fn a_search_ends_where_the_file_does_though_that_was_longer_when_it_was_opened() {
        let (disk, segment) = with_frames(6);
        // the header, then a frame in each block, of which the first is the one that is damaged
        for blocks in (0..10).rev() {
            disk.truncate_file(&segment.file.name, blocks * 4096).unwrap();
            let found = search(&disk, &segment, 4096).unwrap().frames;
            assert_eq!(found, blocks.saturating_sub(2).min(5), "{blocks} blocks are left");
            let next = next_whole(&disk, &segment, segment.header.base, segment.capacity_end()).unwrap();
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
        assert_eq!(search(&disk, &segment, 4096).unwrap().frames, 1);
        put(8192 + 128, first);
        let later = search(&disk, &segment, 4096).unwrap();
        assert_eq!((later.frames, later.watermark), (2, segment.lsn_at(8192 + 128)));
        put(8192 + 128, first ^ 1);
        let later = search(&disk, &segment, 4096).unwrap();
        assert_eq!((later.frames, later.watermark), (1, segment.lsn_at(8192)));
        // nor is what follows such a one
        put(8192 + 256, 7);
        put(3 * 4096, 9);
        let later = search(&disk, &segment, 4096).unwrap();
        assert_eq!((later.frames, later.watermark), (2, segment.lsn_at(3 * 4096)));
        // where the block does not begin with a frame, none in it counts
        disk.overwrite(&segment.file.name, 8192, &[b'.'; 128]).unwrap();
        put(8192 + 128, first);
        assert_eq!(search(&disk, &segment, 4096).unwrap().frames, 1);
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
            let found = search(&disk, &segment, 4096).unwrap().frames;
            let next = next_whole(&disk, &segment, segment.header.base, segment.capacity_end()).unwrap();
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
