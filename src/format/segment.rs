//! Segment headers: the first block of each segment file.
//!
//! ```text
//! offset size field
//!      0    8 magic               "SEAWALSG"
//!      8    2 version             1
//!     10    2 flags               0
//!     12    4 checksum            CRC-32 of the whole block, these four bytes left out
//!     16    4 block size          in bytes
//!     20    4 last checksum       of the predecessor's last frame (of its header, if it holds none); 0 where it is not
//!                                 known, as the open that wrote this read the log from its very end
//!     24    8 store id
//!     32    8 segment id
//!     40    8 epoch
//!     48    8 base LSN            of the first byte behind this block; a multiple of the block size
//!     56    8 predecessor's end   LSN behind the predecessor's last frame; what lies there is never read
//!     64    8 watermark           everything below it was on stable storage when this was written
//!     72    8 file size           in bytes
//!     80    4 machine version
//!     84    1 machine name length
//!     85    … machine name        UTF-8
//!      …    … zeros up to the block size
//! ```

use super::bytes::{Put, Take};
use crate::format::{FORMAT_VERSION, HeaderFault, MIN_BLOCK_BYTES, makes_sense};
use crate::ids::{Epoch, Lsn, MAX_MACHINE_NAME_BYTES, MachineTag, SegmentId, StoreId};

const MAGIC: &[u8; 8] = b"SEAWALSG";
const CHECKSUM_OFFSET: usize = 12;
/// Stands for the checksum of a frame that nobody read: a snapshot stands at the log's end, and reading began there.
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

/// Fills in the checksum at `offset` of a block, over all its other bytes, and returns it.
pub(crate) fn put_checksum(block: &mut [u8], offset: usize) -> Option<u32> {
    let checksum = checksum_but(block, offset)?;
    Put(block.get_mut(offset..)?).u32(checksum)?;
    Some(checksum)
}

/// The checksum of a block but for the four bytes at `offset`.
pub(crate) fn checksum_but(block: &[u8], offset: usize) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(block.get(..offset)?);
    hasher.update(block.get(offset.checked_add(4)?..)?);
    Some(hasher.finalize())
}

/// Puts a machine's version, name length and name.
pub(crate) fn put_machine(put: &mut Put<'_>, machine: &MachineTag) -> Option<()> {
    put.u32(machine.version)?;
    let name = machine.name.as_bytes();
    if name.len() > MAX_MACHINE_NAME_BYTES {
        return None;
    }
    put.u8(u8::try_from(name.len()).ok()?)?;
    put.bytes(name)
}

/// Takes what [`put_machine`] put.
pub(crate) fn take_machine(take: &mut Take<'_>) -> Option<MachineTag> {
    let version = take.u32()?;
    let len = usize::from(take.u8()?);
    if len > MAX_MACHINE_NAME_BYTES {
        return None;
    }
    let name = std::str::from_utf8(take.bytes(len)?).ok()?.to_owned();
    Some(MachineTag { name, version })
}

/// Checks what all headers share, magic, checksum, version and flags, and returns the checksum and the rest.
pub(crate) fn open_block<'a>(block: &'a [u8], magic: &[u8; 8]) -> Result<(Take<'a>, u32), HeaderFault> {
    const SHORT: HeaderFault = HeaderFault::Bad("the header is cut short");
    let mut take = Take(block);
    let found = take.bytes(8).ok_or(SHORT)?;
    let (version, flags, stored) = (take.u16().ok_or(SHORT)?, take.u16().ok_or(SHORT)?, take.u32().ok_or(SHORT)?);
    if found != magic {
        return Err(HeaderFault::Bad("the header's first bytes are not this kind of file's"));
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
    /// Writes the header into a zeroed block. Returns its checksum; `None` if the block is too short.
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

    /// Reads a header and its checksum. `bytes` holds at least its block, if the file does.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(SegmentHeader, u32), HeaderFault> {
        // the block's size stands in it: it is only believed once the checksum over that block holds
        let short = HeaderFault::Bad("the header is cut short");
        let stated = bytes.get(16..).and_then(|b| Take(b).u32()).ok_or(short.clone())?;
        if !stated.is_power_of_two() || stated < MIN_BLOCK_BYTES {
            return Err(HeaderFault::Bad("the header's block size is none"));
        }
        let block = bytes.get(..stated as usize).ok_or(short.clone())?;
        let (take, checksum) = open_block(block, MAGIC)?;
        let header = Self::decode_fields(take).ok_or(short)?;
        if !header.makes_sense() {
            return Err(HeaderFault::Bad("the header's fields do not add up"));
        }
        Ok((header, checksum))
    }

    /// Whether these can be the numbers of a segment: it consists of blocks, and has room for one behind its header.
    fn makes_sense(&self) -> bool {
        let SegmentHeader { id, epoch, base, previous_end, watermark, file_bytes, .. } = *self;
        let boundaries = [base, previous_end, watermark, Lsn::new(file_bytes)];
        let block = u64::from(self.block_bytes);
        // so that a frame's place in its block is the same in the file as in the log
        let of_blocks = [file_bytes, base.get()].iter().all(|bytes| bytes.checked_rem(block) == Some(0));
        file_bytes > block && of_blocks && makes_sense(self.block_bytes, &boundaries, &[id.get(), epoch.get()])
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
        let refused = |change: fn(&mut SegmentHeader)| {
            let mut header = header();
            change(&mut header);
            let mut block = [0; 512];
            header.encode(&mut block).unwrap();
            let decoded = SegmentHeader::decode(&block);
            assert_eq!(decoded, Err(HeaderFault::Bad("the header's fields do not add up")), "{header:?}");
        };
        refused(|h| h.base = Lsn::new(513));
        refused(|h| h.base = Lsn::new(u64::MAX - 511));
        refused(|h| h.previous_end = Lsn::new(1));
        refused(|h| h.file_bytes = 512);
        refused(|h| h.file_bytes = 8 * 512 + 1);
        refused(|h| h.id = SegmentId::new(u64::MAX));
        refused(|h| h.epoch = Epoch::new(u64::MAX));
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
