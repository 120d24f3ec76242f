//! Segment headers: the first block of each segment file.
//!
//! ```text
//! offset size field
//!      0    8 magic               "SEAWALSG"
//!      8    2 version             1
//!     10    2 flags               0
//!     12    4 checksum            CRC-32 of all other bytes of the block
//!     16    4 block size          in bytes
//!     20    4 last checksum       of the predecessor's last frame, or of its header if it has no frame;
//!                                 0 if unknown, because recovery began to read at the log's end
//!     24    8 store id
//!     32    8 segment id
//!     40    8 epoch
//!     48    8 base LSN            of the first byte after this block; a multiple of the block size
//!     56    8 predecessor's end   LSN past the predecessor's last frame; never read from there on
//!     64    8 watermark           everything below it was on stable storage when this was written
//!     72    8 file size           in bytes
//!     80    4 machine version
//!     84    1 machine name length
//!     85    … machine name        UTF-8
//!      …    … zeros up to the block size
//! ```

use super::bytes::{Put, Take};
use super::limits::{FORMAT_VERSION, HeaderFault, MIN_BLOCK_BYTES, is_block_size, is_boundary, is_reachable};
use crate::ids::{Epoch, Lsn, MAX_MACHINE_NAME_BYTES, MachineTag, SegmentId, StoreId};

const MAGIC: &[u8; 8] = b"SEAWALSG";
const CHECKSUM_OFFSET: usize = 12;
/// Stands for the checksum of a frame that was not read, because recovery began to read after it:
/// at a snapshot at the log's end.
pub(crate) const UNKNOWN_CHECKSUM: u32 = 0;

/// The first block of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) block_bytes: u32,
    pub(crate) previous_checksum: u32,
    pub(crate) store: StoreId,
    pub(crate) id: SegmentId,
    pub(crate) epoch: Epoch,
    pub(crate) base: Lsn,
    pub(crate) previous_end: Lsn,
    pub(crate) watermark: Lsn,
    pub(crate) file_bytes: u64,
    pub(crate) machine: MachineTag,
}

/// Writes the checksum of a block, over all its other bytes, to `offset`. Returns it.
pub(crate) fn put_checksum(block: &mut [u8], offset: usize) -> Option<u32> {
    let checksum = checksum_but(block, offset)?;
    Put(block.get_mut(offset..)?).u32(checksum)?;
    Some(checksum)
}

/// The checksum of a block without the four bytes at `offset`.
pub(crate) fn checksum_but(block: &[u8], offset: usize) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(block.get(..offset)?);
    hasher.update(block.get(offset.checked_add(4)?..)?);
    Some(hasher.finalize())
}

/// Writes a machine's version, name length and name.
pub(crate) fn put_machine(put: &mut Put<'_>, machine: &MachineTag) -> Option<()> {
    put.u32(machine.version)?;
    let name = machine.name.as_bytes();
    if name.len() > MAX_MACHINE_NAME_BYTES {
        return None;
    }
    put.u8(u8::try_from(name.len()).ok()?)?;
    put.bytes(name)
}

/// Reads what [`put_machine`] wrote.
pub(crate) fn take_machine(take: &mut Take<'_>) -> Option<MachineTag> {
    let version = take.u32()?;
    let len = usize::from(take.u8()?);
    if len > MAX_MACHINE_NAME_BYTES {
        return None;
    }
    let name = std::str::from_utf8(take.bytes(len)?).ok()?.to_owned();
    Some(MachineTag { name, version })
}

/// Checks the magic, checksum, version and flags that all headers begin with. Returns the rest of
/// the block, and the checksum.
pub(crate) fn open_block<'a>(block: &'a [u8], magic: &[u8; 8]) -> Result<(Take<'a>, u32), HeaderFault> {
    const SHORT: HeaderFault = HeaderFault::Bad("the header is cut short");
    let mut take = Take(block);
    let found = take.bytes(8).ok_or(SHORT)?;
    let (version, flags, stored) = (take.u16().ok_or(SHORT)?, take.u16().ok_or(SHORT)?, take.u32().ok_or(SHORT)?);
    if found != magic {
        return Err(HeaderFault::Bad("the header's magic is that of another kind of file"));
    }
    if checksum_but(block, CHECKSUM_OFFSET) != Some(stored) {
        return Err(HeaderFault::Bad("the header's checksum does not match its content"));
    }
    if version != FORMAT_VERSION || flags != 0 {
        return Err(HeaderFault::Version(u32::from(if flags == 0 { version } else { flags })));
    }
    Ok((take, stored))
}

/// Starts a block with magic, version, flags and room for the checksum.
pub(crate) fn start_block(put: &mut Put<'_>, magic: &[u8; 8]) -> Option<()> {
    put.bytes(magic)?;
    put.u16(FORMAT_VERSION)?;
    put.u16(0)?;
    put.u32(0)
}

impl SegmentHeader {
    /// Writes the header into a zeroed block. Returns its checksum, or `None` if the block is too
    /// short.
    pub(crate) fn encode(&self, block: &mut [u8]) -> Option<u32> {
        let mut put = Put(&mut *block);
        start_block(&mut put, MAGIC)?;
        put.u32(self.block_bytes)?;
        put.u32(self.previous_checksum)?;
        put.u64(self.store.get())?;
        put.u64(self.id.get())?;
        put.u64(self.epoch.get())?;
        put.u64(self.base.get())?;
        put.u64(self.previous_end.get())?;
        put.u64(self.watermark.get())?;
        put.u64(self.file_bytes)?;
        put_machine(&mut put, &self.machine)?;
        put_checksum(block, CHECKSUM_OFFSET)
    }

    /// Reads a header and its checksum. `bytes` must hold the header's whole block.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(SegmentHeader, u32), HeaderFault> {
        // the header states the size of its block, and the checksum over that block confirms it
        let short = HeaderFault::Bad("the header is cut short");
        let stated = bytes.get(16..).and_then(|b| Take(b).u32()).ok_or(short.clone())?;
        if !stated.is_power_of_two() || stated < MIN_BLOCK_BYTES {
            return Err(HeaderFault::Bad("the header's block size is impossible"));
        }
        let block = bytes.get(..stated as usize).ok_or(short.clone())?;
        let (take, checksum) = open_block(block, MAGIC)?;
        let header = Self::decode_fields(take).ok_or(short)?;
        match header.impossible_field() {
            None => Ok((header, checksum)),
            Some(reason) => Err(HeaderFault::Bad(reason)),
        }
    }

    /// Which field has a value that no segment's header has, if one does.
    fn impossible_field(&self) -> Option<&'static str> {
        let block = u64::from(self.block_bytes);
        // whole blocks, so that a frame has the same place in its block in the file and in the log
        let is_whole = |lsn: Lsn| is_boundary(lsn) && lsn.get().checked_rem(block) == Some(0);
        let fields = [
            (is_block_size(self.block_bytes), "the header's block size is impossible"),
            (is_reachable(self.id.get()), "the header's segment id is impossible"),
            (is_reachable(self.epoch.get()), "the header's epoch is impossible"),
            (is_whole(self.base), "the header's base LSN is impossible"),
            (is_boundary(self.previous_end), "the header's predecessor end is impossible"),
            (is_boundary(self.watermark), "the header's watermark is impossible"),
            // at least one block of frames fits
            (is_whole(Lsn::new(self.file_bytes)) && self.file_bytes > block, "the header's file size is impossible"),
        ];
        fields.into_iter().find_map(|(possible, reason)| (!possible).then_some(reason))
    }

    fn decode_fields(mut take: Take<'_>) -> Option<SegmentHeader> {
        Some(SegmentHeader {
            block_bytes: take.u32()?,
            previous_checksum: take.u32()?,
            store: StoreId::new(take.u64()?),
            id: SegmentId::new(take.u64()?),
            epoch: Epoch::new(take.u64()?),
            base: Lsn::new(take.u64()?),
            previous_end: Lsn::new(take.u64()?),
            watermark: Lsn::new(take.u64()?),
            file_bytes: take.u64()?,
            machine: take_machine(&mut take)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            block_bytes: 512,
            previous_checksum: 1,
            store: StoreId::new(2),
            id: SegmentId::new(3),
            epoch: Epoch::new(4),
            base: Lsn::new(5 * 512),
            previous_end: Lsn::new(3 * 512),
            watermark: Lsn::new(2 * 512),
            file_bytes: 8 * 512,
            machine: MachineTag { name: "kv".into(), version: 9 },
        }
    }

    #[test]
    fn numbers_that_no_segment_has_are_refused_under_a_right_checksum() {
        let refused = |change: fn(&mut SegmentHeader), field: &str| {
            let mut header = header();
            change(&mut header);
            let mut block = [0; 512];
            header.encode(&mut block).unwrap();
            let Err(HeaderFault::Bad(reason)) = SegmentHeader::decode(&block) else { unreachable!("{header:?}") };
            assert_eq!(reason, format!("the header's {field} is impossible"));
        };
        refused(|h| h.base = Lsn::new(513), "base LSN");
        refused(|h| h.base = Lsn::new(u64::MAX - 511), "base LSN");
        refused(|h| h.previous_end = Lsn::new(1), "predecessor end");
        refused(|h| h.watermark = Lsn::new(1), "watermark");
        refused(|h| h.file_bytes = 512, "file size");
        refused(|h| h.file_bytes = 8 * 512 + 1, "file size");
        refused(|h| h.id = SegmentId::new(u64::MAX), "segment id");
        refused(|h| h.epoch = Epoch::new(u64::MAX), "epoch");
    }

    #[test]
    fn an_unknown_version_or_flag_is_told_apart_under_a_right_checksum() {
        for (offset, found) in [(8, 2), (10, 4)] {
            let mut block = [0; 512];
            header().encode(&mut block).unwrap();
            block[offset] = found;
            put_checksum(&mut block, CHECKSUM_OFFSET).unwrap();
            assert_eq!(SegmentHeader::decode(&block), Err(HeaderFault::Version(found.into())));
        }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let header = header();
        let mut block = [0; 512];
        let checksum = header.encode(&mut block).unwrap();
        assert_eq!(SegmentHeader::decode(&block), Ok((header, checksum)));
        for bit in 0..block.len() * 8 {
            let mut bytes = block;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}
