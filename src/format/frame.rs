//! Frames: a group commit writes one frame.
//!
//! ```text
//! offset size field
//!      0    4 magic              "SWFR": a frame begins here, of whatever kind and version
//!      4    1 kind               1 records, 2 watermark only
//!      5    1 version            1
//!      6    2 flags              0
//!      8    4 checksum           CRC-32 of all other bytes of the frame, as stored
//!     12    4 mask               XORed into the four bytes at each later multiple of 512
//!     16    8 store id
//!     24    8 epoch
//!     32    8 LSN                of the frame's first byte
//!     40    8 watermark          everything below it was on stable storage when the frame was made
//!     48    4 payload length     in bytes
//!     52    4 record count
//!     56    4 previous checksum  of the frame before, or of the segment header before the first
//!     60    4 padding length     in bytes, less than a block
//!     64    … payload            each record: varint length, bytes
//!      …    … padding            zeros
//! ```
//!
//! A record's LSN is the frame's LSN plus the offset of the record's length field in the frame. A
//! frame starts where the one before ended, and ends at a multiple of 64. A durable frame ends on a
//! block boundary, so that no later write shares a block with it. A frame that is written but not
//! durable ends where its payload does. A header is 64 bytes long, so none crosses a multiple of
//! 512.
//!
//! At a position that is a multiple of 512, in the file and in the log, the magic occurs only where
//! a frame begins. The writer chooses the mask so that this holds. The mask is zero unless a
//! record's bytes have the magic at such a position, by chance or by intent. So the first four
//! bytes of a block tell whether a frame can begin in it. The content of a record is never taken
//! for a frame, even if much of its own frame is lost. This holds for every multiple of the
//! smallest block size, because files are reused under other block sizes.

use super::bytes::{Put, Take, are_zero, round_up, varint_len};
pub(crate) use super::limits::ALIGN_BYTES;
use super::limits::MIN_BLOCK_BYTES;
use super::segment::{checksum_but, put_checksum};
use crate::ids::{Epoch, Lsn, StoreId};
use byteorder::{ByteOrder, LittleEndian};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 4] = b"SWFR";
const VERSION: u8 = 1;
/// The highest known kind.
pub(crate) const KINDS: u32 = 2;
const CHECKSUM_OFFSET: usize = 8;
/// Where store id, epoch and LSN begin.
const PLACE_OFFSET: usize = 16;
const LSN_OFFSET: usize = 32;
const PAYLOAD_BYTES_OFFSET: usize = 48;
#[cfg(feature = "fuzzing")]
const PREVIOUS_CHECKSUM_OFFSET: usize = 56;
const PADDING_BYTES_OFFSET: usize = 60;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// It carries records.
    Records,
    /// It carries none: its watermark proves that everything before it was durable.
    Watermark,
}

/// The header of a frame without its own checksum.
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

impl Place {
    /// The bytes up to the next block boundary.
    pub(crate) fn rest_of_block(&self) -> usize {
        let into = self.lsn.get() & u64::from(self.block_bytes.saturating_sub(1));
        usize::try_from(u64::from(self.block_bytes).saturating_sub(into)).unwrap_or(usize::MAX)
    }
}

/// Why the bytes at a place are not a frame of that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// The rest of the block is zeros: it was never written.
    NeverWritten,
    /// The magic is missing: its bytes are damaged, or this is the inside of an older frame.
    NoFrame,
    /// The stated length exceeds what is there.
    Length,
    /// The checksum does not match.
    Checksum,
    /// The frame is whole, but of another store, epoch or LSN: stale or misdirected.
    Elsewhere,
    /// The frame is whole, but does not follow the frame before it.
    Chain,
    /// The frame is whole, but of an unknown version.
    Version(u32),
    /// The frame is whole, but of an unknown kind or with an unknown flag. The low byte is the
    /// kind; the flags follow.
    Kind(u32),
    /// The frame is whole, but its records do not fill its payload.
    Records,
    /// The frame is whole, but starts or ends where no frame can.
    Padding,
}

impl FrameFault {
    /// The fault in words.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            FrameFault::NeverWritten => "the frame here was never written",
            FrameFault::NoFrame => "no frame begins here",
            FrameFault::Length => "the frame's length runs past the end of the file",
            FrameFault::Checksum => "the frame's checksum does not match its content",
            FrameFault::Elsewhere => "the frame here belongs to another place, epoch or store",
            FrameFault::Chain => "the frame does not follow the one before it",
            FrameFault::Version(_) => "the frame has an unknown version",
            FrameFault::Kind(_) => "the frame has an unknown kind or flag",
            FrameFault::Records => "the frame's records do not fill its payload",
            FrameFault::Padding => "the frame starts or ends where no frame can",
        }
    }
}

/// A frame that was checked, except for its records, which may be masked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    pub(crate) header: FrameHeader,
    pub(crate) checksum: u32,
    mask: u32,
    /// The size with header and padding.
    pub(crate) total_bytes: u64,
}

/// A checked frame, and its own checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) checksum: u32,
    pub(crate) payload: &'a [u8],
    /// The size with header and padding.
    pub(crate) total_bytes: u64,
}

/// The size of a frame that has its blocks to itself, in bytes.
pub(crate) const fn frame_bytes(payload_bytes: u64, block_bytes: u32) -> u64 {
    round_up(payload_bytes.saturating_add(HEADER_BYTES as u64), block_bytes as u64)
}

/// The end of a frame that starts at `start` and is padded to a multiple of `align`, a power of
/// two.
pub(crate) const fn end_of(start: Lsn, payload_bytes: u64, align: u32) -> Lsn {
    let bytes = payload_bytes.saturating_add(HEADER_BYTES as u64);
    Lsn::new(round_up(start.get().saturating_add(bytes), align as u64))
}

/// The payload bytes that a record of `len` bytes takes.
pub(crate) const fn record_bytes(len: u64) -> u64 {
    len.saturating_add(varint_len(len) as u64)
}

/// Whether a frame of any kind or version can begin with these bytes.
fn can_begin(bytes: &[u8]) -> bool {
    bytes.first_chunk() == Some(MAGIC)
}

/// The offset in a frame at `lsn` of the first position where another frame could begin.
fn first_inside(lsn: Lsn) -> usize {
    let smallest = MIN_BLOCK_BYTES as usize;
    let into = usize::try_from(lsn.get() & u64::from(MIN_BLOCK_BYTES.wrapping_sub(1))).unwrap_or(0);
    smallest.saturating_sub(into)
}

/// The words inside a frame at the positions where another frame could begin.
fn interior(frame: &[u8], lsn: Lsn) -> impl Iterator<Item = u32> {
    let inside = frame.get(first_inside(lsn)..).unwrap_or_default();
    let blocks = inside.chunks(MIN_BLOCK_BYTES as usize);
    blocks.filter_map(|block| block.first_chunk::<4>().map(|word| LittleEndian::read_u32(word)))
}

/// XORs the words at the positions where another frame could begin with the mask.
fn apply_mask(frame: &mut [u8], lsn: Lsn, mask: u32) {
    let inside = frame.get_mut(first_inside(lsn)..).unwrap_or_default();
    for block in inside.chunks_mut(MIN_BLOCK_BYTES as usize) {
        if let Some(word) = block.first_chunk_mut::<4>() {
            let masked = LittleEndian::read_u32(word) ^ mask;
            LittleEndian::write_u32(word, masked);
        }
    }
}

/// A mask under which no other frame can begin inside this one.
fn choose_mask(frame: &[u8], lsn: Lsn) -> u32 {
    let magic = LittleEndian::read_u32(MAGIC);
    if !interior(frame, lsn).any(|word| word == magic) {
        return 0;
    }
    // Each word rules out one mask, so a range with more masks than words has one that is allowed.
    // Halve the range, and keep a half with fewer ruled-out masks than masks. The number of rounds
    // is the number of bits in the word count, whatever the words are.
    let words = u32::try_from(interior(frame, lsn).count()).unwrap_or(u32::MAX);
    let (mut low, mut bits) = (0u32, u32::BITS.saturating_sub(words.leading_zeros()));
    while bits > 0 {
        bits = bits.saturating_sub(1);
        let half = 1u32.wrapping_shl(bits);
        let taken = interior(frame, lsn).filter(|word| (word ^ magic).wrapping_sub(low) < half).count();
        if taken >= half as usize {
            low = low.wrapping_add(half);
        }
    }
    low
}

/// Writes the header of a frame whose payload and padding are in place, and applies the mask.
/// Returns its checksum, or `None` if `frame`, which is the whole frame, is shorter than header and
/// payload.
pub(crate) fn seal(frame: &mut [u8], header: &FrameHeader) -> Option<u32> {
    let mask = choose_mask(frame, header.lsn);
    if mask != 0 {
        apply_mask(frame, header.lsn, mask);
    }
    let padding = frame.len().checked_sub(HEADER_BYTES)?.checked_sub(header.payload_bytes as usize)?;
    let mut put = Put(&mut *frame);
    put.bytes(MAGIC)?;
    put.u8(match header.kind {
        FrameKind::Records => 1,
        FrameKind::Watermark => 2,
    })?;
    put.u8(VERSION)?;
    put.u16(0)?;
    put.u32(0)?;
    put.u32(mask)?;
    put.u64(header.store.get())?;
    put.u64(header.epoch.get())?;
    put.u64(header.lsn.get())?;
    put.u64(header.watermark.get())?;
    put.u32(header.payload_bytes)?;
    put.u32(header.records)?;
    put.u32(header.previous_checksum)?;
    put.u32(u32::try_from(padding).ok()?)?;
    put_checksum(frame, CHECKSUM_OFFSET)
}

/// For tests: corrects the checksum of a changed frame, and sets that of its predecessor if one is
/// given. Returns the checksum.
#[cfg(feature = "fuzzing")]
pub(crate) fn mend(frame: &mut [u8], previous_checksum: Option<u32>) -> Option<u32> {
    if let Some(previous) = previous_checksum {
        Put(frame.get_mut(PREVIOUS_CHECKSUM_OFFSET..)?).u32(previous)?;
    }
    put_checksum(frame, CHECKSUM_OFFSET)
}

/// The size that the header at the front of `bytes` states for its frame. It is not checked yet.
/// `None` if no frame begins there.
pub(crate) fn stated_bytes(bytes: &[u8]) -> Option<u64> {
    let payload = Take(bytes.get(PAYLOAD_BYTES_OFFSET..)?).u32()?;
    let padding = Take(bytes.get(PADDING_BYTES_OFFSET..)?).u32()?;
    let total = u64::from(payload).saturating_add(u64::from(padding)).saturating_add(HEADER_BYTES as u64);
    can_begin(bytes).then_some(total)
}

/// The LSN that a frame's header states, unchecked.
fn stated_lsn(bytes: &[u8]) -> Lsn {
    bytes.get(LSN_OFFSET..).and_then(|rest| Take(rest).u64()).map_or(Lsn::ZERO, Lsn::new)
}

/// The place that a frame's header states, unchecked.
fn stated_place(bytes: &[u8]) -> Option<(StoreId, Epoch, Lsn)> {
    let mut take = Take(bytes.get(PLACE_OFFSET..)?);
    Some((StoreId::new(take.u64()?), Epoch::new(take.u64()?), Lsn::new(take.u64()?)))
}

/// The epoch that a frame's header states, unchecked.
#[cfg(any(test, feature = "salvage"))]
pub(crate) fn stated_epoch(bytes: &[u8]) -> Option<Epoch> {
    stated_place(bytes).map(|(_, epoch, _)| epoch)
}

/// Whether a header at the front of `bytes` names this place. It is a cheap test before the
/// checksum.
pub(crate) fn claims_place(bytes: &[u8], place: &Place) -> bool {
    can_begin(bytes) && stated_place(bytes) == Some((place.store, place.epoch, place.lsn))
}

/// The place that a header at the front of `bytes` names, if that is in the store and the epoch of
/// `place`. It is a cheap test before the checksum.
pub(crate) fn claimed_place(bytes: &[u8], place: &Place) -> Option<Place> {
    let (store, epoch, lsn) = stated_place(bytes).filter(|_| can_begin(bytes))?;
    ((store, epoch) == (place.store, place.epoch)).then_some(Place { lsn, ..*place })
}

/// Checks the frame that `bytes` starts with. `bytes` must hold the length that [`stated_bytes`]
/// returns, or all that the file has from there on.
///
/// A stated length is wrong if another frame can begin inside it. This is tested before the
/// checksum, so that many false claims together cost no more than reading the bytes once.
///
/// # Errors
/// [`FrameFault`]. The caller, which knows the frame before, checks the chain.
pub(crate) fn check(bytes: &[u8], place: &Place) -> Result<Checked, FrameFault> {
    let header_bytes = bytes.get(..HEADER_BYTES).ok_or(FrameFault::Length)?;
    let total_bytes = stated_bytes(bytes).ok_or_else(|| {
        // the unwritten rest of a block is zeros; anything else is damage, or older content
        let block = bytes.get(..place.rest_of_block()).unwrap_or(bytes);
        if are_zero(block) { FrameFault::NeverWritten } else { FrameFault::NoFrame }
    })?;
    let total = usize::try_from(total_bytes).map_err(|_| FrameFault::Length)?;
    let magic = LittleEndian::read_u32(MAGIC);
    let lsn = stated_lsn(bytes);
    if interior(bytes.get(..total).unwrap_or(bytes), lsn).any(|word| word == magic) {
        return Err(FrameFault::Checksum);
    }
    let frame = bytes.get(..total).ok_or(FrameFault::Length)?;
    let Decoded { header, checksum: stored, mask, padding_bytes } =
        decode_header(header_bytes).ok_or(FrameFault::Length)?;
    if checksum_but(frame, CHECKSUM_OFFSET) != Some(stored) {
        return Err(FrameFault::Checksum);
    }
    // another version may store its place elsewhere; another kind may not
    if let Err(fault @ FrameFault::Version(_)) = header {
        return Err(fault);
    }
    if !claims_place(bytes, place) {
        return Err(FrameFault::Elsewhere);
    }
    let header = header?;
    let align = u64::from(ALIGN_BYTES);
    if padding_bytes >= place.block_bytes || [lsn.get(), total_bytes].iter().any(|n| !n.is_multiple_of(align)) {
        return Err(FrameFault::Padding);
    }
    Ok(Checked { header, checksum: stored, mask, total_bytes })
}

/// Checks the frame that `bytes` starts with, as [`check`] does, and removes the mask from its
/// records. The bytes then differ from those of the file.
///
/// # Errors
/// Those of [`check`]. The bytes are unchanged then.
pub(crate) fn decode<'a>(bytes: &'a mut [u8], place: &Place) -> Result<Frame<'a>, FrameFault> {
    let Checked { header, checksum, mask, total_bytes } = check(bytes, place)?;
    let total = usize::try_from(total_bytes).map_err(|_| FrameFault::Length)?;
    let frame = bytes.get_mut(..total).ok_or(FrameFault::Length)?;
    if mask != 0 {
        apply_mask(frame, header.lsn, mask);
    }
    let end = HEADER_BYTES.checked_add(header.payload_bytes as usize).ok_or(FrameFault::Length)?;
    let payload = frame.get(HEADER_BYTES..end).ok_or(FrameFault::Length)?;
    Ok(Frame { header, checksum, payload, total_bytes })
}

/// A frame's header, unchecked.
struct Decoded {
    /// The fields, or why they are unknown.
    header: Result<FrameHeader, FrameFault>,
    checksum: u32,
    mask: u32,
    padding_bytes: u32,
}

fn decode_header(bytes: &[u8]) -> Option<Decoded> {
    let mut take = Take(bytes.get(MAGIC.len()..)?);
    let (kind, version, flags) = (take.u8()?, take.u8()?, take.u16()?);
    let (checksum, mask) = (take.u32()?, take.u32()?);
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
    let padding_bytes = take.u32()?;
    let header =
        known.map(|kind| FrameHeader { kind, store, epoch, lsn, watermark, payload_bytes, records, previous_checksum });
    Some(Decoded { header, checksum, mask, padding_bytes })
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

    /// The LSN past the frame.
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
    /// A record's LSN and bytes, or the fault that ends the iteration.
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
        let mut bytes = sealed(&[b"one", b"", &[5; 600]]);
        let frame = decode(&mut bytes, &PLACE).unwrap();
        let records: Vec<_> = frame.records().map(Result::unwrap).collect();
        assert_eq!(records[0], (Lsn::new(4096 + 64), &b"one"[..]));
        assert_eq!(records[1], (Lsn::new(4096 + 68), &b""[..]));
        assert_eq!(records[2], (Lsn::new(4096 + 69), &[5u8; 600][..]));
        assert_eq!((records.len(), frame.total_bytes), (3, 1024));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sealed(&[b"hello"]);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bytes, &PLACE).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = sealed(&[b"hello"]);
        for len in 0..good.len() {
            assert!(check(&good[..len], &PLACE).is_err(), "length {len}");
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
            assert_eq!(check(&bytes, &place).unwrap_err(), FrameFault::Elsewhere);
            assert!(!claims_place(&bytes, &place));
        }
        assert!(claims_place(&bytes, &PLACE));
    }

    #[test]
    fn zeros_are_never_written_and_other_versions_are_told_apart() {
        assert_eq!(check(&[0; 512], &PLACE).unwrap_err(), FrameFault::NeverWritten);
        assert_eq!(check(&[1; 512], &PLACE).unwrap_err(), FrameFault::NoFrame);
        let change = |at: usize, to: u8| {
            let mut bytes = sealed(&[b"hello"]);
            bytes[at] = to;
            put_checksum(&mut bytes, CHECKSUM_OFFSET).unwrap();
            check(&bytes, &PLACE).unwrap_err()
        };
        assert_eq!(change(4, 7), FrameFault::Kind(7));
        assert_eq!(change(5, 2), FrameFault::Version(2));
        assert_eq!(change(6, 1), FrameFault::Kind(1 | 1 << 8));
    }

    /// A record that has these words at the multiples of 512 in its frame.
    fn with_words(words: &[u32]) -> Vec<u8> {
        // behind the header and the record's length, which takes two bytes at least
        let mut record = vec![b'.'; 512 - HEADER_BYTES - varint_len(1024)];
        if words.len() * 512 >= 1 << 14 {
            record.pop();
        }
        for word in words {
            record.extend_from_slice(&word.to_le_bytes());
            record.extend_from_slice(&[b','; 508]);
        }
        record.truncate(record.len() - 100);
        record
    }

    #[test]
    fn no_block_inside_a_frame_begins_as_a_frame_does_whatever_a_record_holds() {
        let magic = LittleEndian::read_u32(MAGIC);
        let cases = [
            vec![0; 5],
            vec![magic; 5],
            vec![magic, 0, magic ^ 1, magic ^ 2, magic ^ 0x8000_0000],
            (0..100).map(|n| magic ^ n).collect(),
            (0..100).map(|n| magic ^ !n).collect(),
            [magic, magic ^ 1].repeat(50),
            (0..32).map(|bit| magic ^ (1 << bit)).chain([magic]).collect(),
        ];
        for words in cases {
            let record = with_words(&words);
            let mut bytes = sealed(&[&record]);
            assert!(bytes.chunks(512).skip(1).all(|block| !can_begin(block)), "{words:x?}");
            let masked = words.contains(&magic);
            let mask = check(&bytes, &PLACE).unwrap().mask;
            assert_eq!(mask != 0, masked, "{words:x?}");
            if masked {
                assert!(!words.contains(&(magic ^ mask)));
            }
            let frame = decode(&mut bytes, &PLACE).unwrap();
            assert!(frame.records().map(Result::unwrap).eq([(Lsn::new(4096 + 64), &record[..])]), "{words:x?}");
        }
    }

    #[test]
    fn a_frame_inside_a_block_has_its_mask_where_blocks_begin() {
        let place = Place { lsn: Lsn::new(4096 + 448), ..PLACE };
        // the magic is 512 bytes after a block's start, where the payload begins, and further on
        let mut payload = vec![b'.'; 1000];
        for at in [0, 512] {
            payload[at..at + 4].copy_from_slice(MAGIC);
        }
        let mut frame = [vec![0; HEADER_BYTES], payload.clone(), vec![0; 24]].concat();
        let header = FrameHeader {
            kind: FrameKind::Records,
            store: place.store,
            epoch: place.epoch,
            lsn: place.lsn,
            watermark: Lsn::ZERO,
            payload_bytes: 1000,
            records: 1,
            previous_checksum: 0,
        };
        seal(&mut frame, &header).unwrap();
        assert!([64, 576].iter().all(|at| !can_begin(&frame[*at..])));
        let decoded = decode(&mut frame, &place).unwrap();
        assert_eq!((decoded.payload, decoded.end()), (&payload[..], Lsn::new(4096 + 448 + 1088)));
        assert_eq!(place.rest_of_block(), 64);
    }

    #[test]
    fn a_frame_that_ends_where_none_ends_is_refused() {
        let change = |padding: u32, len: usize| {
            let mut bytes = sealed(&[b"hello"]);
            bytes.resize(len, 0);
            bytes[PADDING_BYTES_OFFSET..][..4].copy_from_slice(&padding.to_le_bytes());
            put_checksum(&mut bytes, CHECKSUM_OFFSET).unwrap();
            check(&bytes, &PLACE).map(|checked| checked.total_bytes)
        };
        // "hello" with its length takes six bytes
        assert_eq!(change(58, 128), Ok(128));
        assert_eq!(change(59, 129), Err(FrameFault::Padding));
        assert_eq!(change(512 + 58, 640), Err(FrameFault::Padding));
    }

    #[test]
    fn a_frame_that_another_could_begin_in_is_none() {
        let mut bytes = sealed(&[&[5; 2000]]);
        bytes[1024..1028].copy_from_slice(MAGIC);
        put_checksum(&mut bytes, CHECKSUM_OFFSET).unwrap();
        assert_eq!(check(&bytes, &PLACE).unwrap_err(), FrameFault::Checksum);
        // the same fault is found if the rest of the frame has not been read
        assert_eq!(check(&bytes[..1536], &PLACE).unwrap_err(), FrameFault::Checksum);
        bytes[1024] ^= 1;
        assert_eq!(check(&bytes[..1536], &PLACE).unwrap_err(), FrameFault::Length);
    }
}
