//! Frames: what one group commit writes.
//!
//! ```text
//! offset size field
//!      0    1 kind               0 never written, 1 records, 2 watermark only
//!      1    1 version            1
//!      2    2 flags              0
//!      4    4 checksum           CRC-32 of the whole frame, padding included, these four bytes left out
//!      8    8 store id
//!     16    8 epoch
//!     24    8 LSN                of the frame's first byte
//!     32    8 watermark          everything below it was on stable storage when the frame was made
//!     40    4 payload length     in bytes
//!     44    4 record count
//!     48    4 previous checksum  of the frame before, or of the segment header before the first
//!     52    … payload            each record: varint length, bytes
//!      …    … padding            zeros up to the next multiple of the block size
//! ```
//!
//! A record's LSN is the frame's LSN plus the offset of its length in the frame. A frame starts and
//! ends on a block boundary, so that no later write shares a block with it.

use super::bytes::{Put, Take, round_up, varint_len};
use super::{Epoch, Lsn, StoreId};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 52;
const VERSION: u8 = 1;
/// The highest kind that is known.
pub(crate) const KINDS: u32 = 2;
const CHECKSUM_OFFSET: usize = 4;
const CHECKSUM_END: usize = 8;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// It carries records.
    Records,
    /// It carries none: it proves that what lies before it was completed.
    Watermark,
}

/// The header of a frame, checksums aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
    pub(crate) watermark: Lsn,
    pub(crate) payload_bytes: u32,
    pub(crate) records: u32,
    pub(crate) previous_checksum: u32,
}

/// Where a frame must belong to be accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
    pub(crate) block_bytes: u32,
}

/// Why the bytes at a place are no frame of that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// Zeros: the block was never written.
    NeverWritten,
    /// The length runs past what is there.
    Length,
    /// The checksum does not match.
    Checksum,
    /// The frame is whole, but of another store, epoch or LSN: stale or misdirected.
    Elsewhere,
    /// The frame is whole, but does not follow the frame before it.
    Chain,
    /// The frame is whole, but of a version that is not known.
    Version(u32),
    /// The frame is whole, but of a kind or with a flag that is not known: kind, then flags above it.
    Kind(u32),
    /// The frame is whole, but its records do not add up.
    Records,
}

impl FrameFault {
    /// The fault in words.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            FrameFault::NeverWritten => "the frame here was never written",
            FrameFault::Length => "the frame's length runs past the end of the file",
            FrameFault::Checksum => "the frame's checksum does not match its content",
            FrameFault::Elsewhere => "the frame here belongs to another place, epoch or store",
            FrameFault::Chain => "the frame does not follow the one before it",
            FrameFault::Version(_) => "the frame has an unknown version",
            FrameFault::Kind(_) => "the frame has an unknown kind or flag",
            FrameFault::Records => "the frame's records do not add up",
        }
    }
}

/// A frame's bytes, checked, and its own checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) checksum: u32,
    pub(crate) payload: &'a [u8],
    /// With header and padding.
    pub(crate) total_bytes: u64,
}

/// A frame's size on disk for a payload of so many bytes.
pub(crate) const fn frame_bytes(payload_bytes: u64, block_bytes: u32) -> u64 {
    round_up(payload_bytes.saturating_add(HEADER_BYTES as u64), block_bytes as u64)
}

/// How many payload bytes a record of `len` bytes takes.
pub(crate) const fn record_bytes(len: u64) -> u64 {
    len.saturating_add(varint_len(len) as u64)
}

/// The checksum of a whole frame: everything but the four bytes that hold it.
fn checksum(frame: &[u8]) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(frame.get(..CHECKSUM_OFFSET)?);
    hasher.update(frame.get(CHECKSUM_END..)?);
    Some(hasher.finalize())
}

/// Fills in the header of a frame whose payload and padding are in place. Returns its checksum.
///
/// `frame` is the whole frame, a multiple of the block size; `None` if it has no room for a header.
pub(crate) fn seal(frame: &mut [u8], header: &FrameHeader) -> Option<u32> {
    let mut put = Put(&mut *frame);
    put.u8(match header.kind {
        FrameKind::Records => 1,
        FrameKind::Watermark => 2,
    })?;
    put.u8(VERSION)?;
    put.u16(0)?;
    put.u32(0)?;
    put.u64(header.store.get())?;
    put.u64(header.epoch.get())?;
    put.u64(header.lsn.get())?;
    put.u64(header.watermark.get())?;
    put.u32(header.payload_bytes)?;
    put.u32(header.records)?;
    put.u32(header.previous_checksum)?;
    let checksum = checksum(frame)?;
    Put(frame.get_mut(CHECKSUM_OFFSET..)?).u32(checksum)?;
    Some(checksum)
}

/// The whole length of the frame whose header `bytes` starts with, going by the length it states, which
/// nothing has checked yet. `None` where no frame can start.
pub(crate) fn stated_bytes(bytes: &[u8], block_bytes: u32) -> Option<u64> {
    let payload = Take(bytes.get(40..)?).u32()?;
    (bytes.first() != Some(&0)).then(|| frame_bytes(u64::from(payload), block_bytes))
}

/// The epoch that a frame's header states, which nothing has checked yet.
pub(crate) fn stated_epoch(bytes: &[u8]) -> Option<Epoch> {
    Take(bytes.get(16..)?).u64().map(Epoch::new)
}

/// Whether a header at the front of `bytes` names this place: a cheap test before its checksum is worth computing.
pub(crate) fn claims_place(bytes: &[u8], place: &Place) -> bool {
    let named = |bytes: &[u8]| {
        let mut take = Take(bytes.get(8..)?);
        Some((StoreId::new(take.u64()?), Epoch::new(take.u64()?), Lsn::new(take.u64()?)))
    };
    named(bytes) == Some((place.store, place.epoch, place.lsn))
}

/// Reads the frame that `bytes` starts with. `bytes` holds all that the file has from there on, or at least the
/// length that [`stated_bytes`] gives.
///
/// # Errors
/// [`FrameFault`]; the chain is left to the caller, who knows the frame before.
pub(crate) fn decode<'a>(bytes: &'a [u8], place: &Place) -> Result<Frame<'a>, FrameFault> {
    let header_bytes = bytes.get(..HEADER_BYTES).ok_or(FrameFault::Length)?;
    let total_bytes = stated_bytes(bytes, place.block_bytes).ok_or_else(|| {
        // a block that was never written is all zeros; anything else is damage of the first byte
        let block = bytes.get(..place.block_bytes as usize).unwrap_or(bytes);
        if block.iter().all(|&b| b == 0) { FrameFault::NeverWritten } else { FrameFault::Checksum }
    })?;
    let total = usize::try_from(total_bytes).map_err(|_| FrameFault::Length)?;
    let frame = bytes.get(..total).ok_or(FrameFault::Length)?;
    let (header, stored) = decode_header(header_bytes).ok_or(FrameFault::Length)?;
    if checksum(frame) != Some(stored) {
        return Err(FrameFault::Checksum);
    }
    let header = header?;
    if (header.store, header.epoch, header.lsn) != (place.store, place.epoch, place.lsn) {
        return Err(FrameFault::Elsewhere);
    }
    let end = HEADER_BYTES.checked_add(header.payload_bytes as usize).ok_or(FrameFault::Length)?;
    let payload = frame.get(HEADER_BYTES..end).ok_or(FrameFault::Length)?;
    Ok(Frame { header, checksum: stored, payload, total_bytes })
}

/// The header, or why it is not known, and the stored checksum.
fn decode_header(bytes: &[u8]) -> Option<(Result<FrameHeader, FrameFault>, u32)> {
    let mut take = Take(bytes);
    let (kind, version, flags, stored) = (take.u8()?, take.u8()?, take.u16()?, take.u32()?);
    let known = match (kind, version, flags) {
        (1, VERSION, 0) => Ok(FrameKind::Records),
        (2, VERSION, 0) => Ok(FrameKind::Watermark),
        (kind, VERSION, flags) => Err(FrameFault::Kind(u32::from(kind) | u32::from(flags).wrapping_shl(8))),
        (_, version, _) => Err(FrameFault::Version(u32::from(version))),
    };
    let store = StoreId::new(take.u64()?);
    let epoch = Epoch::new(take.u64()?);
    let lsn = Lsn::new(take.u64()?);
    let watermark = Lsn::new(take.u64()?);
    let (payload_bytes, records, previous_checksum) = (take.u32()?, take.u32()?, take.u32()?);
    let header =
        known.map(|kind| FrameHeader { kind, store, epoch, lsn, watermark, payload_bytes, records, previous_checksum });
    Some((header, stored))
}

impl<'a> Frame<'a> {
    /// The records with their LSNs.
    pub(crate) fn records(&self) -> Records<'a> {
        Records {
            rest: Take(self.payload),
            lsn: self.header.lsn.plus(HEADER_BYTES as u64),
            left: self.header.records,
            failed: false,
        }
    }

    /// The position behind the frame.
    pub(crate) fn end(&self) -> Lsn {
        self.header.lsn.plus(self.total_bytes)
    }
}

/// The records of a frame.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    rest: Take<'a>,
    lsn: Lsn,
    left: u32,
    failed: bool,
}

impl<'a> Iterator for Records<'a> {
    /// A record's LSN and bytes, or the fault that ends the walk.
    type Item = Result<(Lsn, &'a [u8]), FrameFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.left == 0 {
            self.failed = true;
            return (!self.rest.0.is_empty()).then_some(Err(FrameFault::Records));
        }
        self.left = self.left.saturating_sub(1);
        let before = self.rest.0.len();
        let record = (|| {
            let len = self.rest.varint()?;
            self.rest.bytes(usize::try_from(len).ok()?)
        })();
        let Some(record) = record else {
            self.failed = true;
            return Some(Err(FrameFault::Records));
        };
        let lsn = self.lsn;
        self.lsn = lsn.plus(before.saturating_sub(self.rest.0.len()) as u64);
        Some(Ok((lsn, record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::bytes::put_varint;

    const PLACE: Place = Place { store: StoreId::new(7), epoch: Epoch::new(3), lsn: Lsn::new(4096), block_bytes: 512 };

    fn sealed(records: &[&[u8]]) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES];
        for record in records {
            put_varint(record.len() as u64, &mut frame);
            frame.extend_from_slice(record);
        }
        let payload_bytes = (frame.len() - HEADER_BYTES) as u32;
        frame.resize(frame_bytes(u64::from(payload_bytes), 512) as usize, 0);
        let header = FrameHeader {
            kind: FrameKind::Records,
            store: PLACE.store,
            epoch: PLACE.epoch,
            lsn: PLACE.lsn,
            watermark: Lsn::new(4096),
            payload_bytes,
            records: records.len() as u32,
            previous_checksum: 9,
        };
        seal(&mut frame, &header).unwrap();
        frame
    }

    #[test]
    fn records_come_back_with_their_lsns() {
        let bytes = sealed(&[b"one", b"", &[5; 600]]);
        let frame = decode(&bytes, &PLACE).unwrap();
        let records: Vec<_> = frame.records().map(Result::unwrap).collect();
        assert_eq!(records[0], (Lsn::new(4096 + 52), &b"one"[..]));
        assert_eq!(records[1], (Lsn::new(4096 + 56), &b""[..]));
        assert_eq!(records[2], (Lsn::new(4096 + 57), &[5u8; 600][..]));
        assert_eq!((records.len(), frame.total_bytes), (3, 1024));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sealed(&[b"hello"]);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, &PLACE).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = sealed(&[b"hello"]);
        for len in 0..good.len() {
            assert!(decode(&good[..len], &PLACE).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_frame_of_another_place_is_refused() {
        let bytes = sealed(&[b"hello"]);
        for place in [
            Place { lsn: Lsn::new(8192), ..PLACE },
            Place { epoch: Epoch::new(4), ..PLACE },
            Place { store: StoreId::new(8), ..PLACE },
        ] {
            assert_eq!(decode(&bytes, &place).unwrap_err(), FrameFault::Elsewhere);
        }
    }

    #[test]
    fn zeros_are_never_written_and_other_versions_are_told_apart() {
        assert_eq!(decode(&[0; 512], &PLACE).unwrap_err(), FrameFault::NeverWritten);
        let mut bytes = sealed(&[b"hello"]);
        bytes[1] = 2;
        let sum = checksum(&bytes).unwrap();
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(&bytes, &PLACE).unwrap_err(), FrameFault::Version(2));
    }
}
