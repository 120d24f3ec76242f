//! The manifest: the root pointer, in two copies that are written by turns.
//!
//! ```text
//! offset size field
//!      0    8 magic             "SEAWALMF"
//!      8    2 version           1
//!     10    2 flags             0
//!     12    4 checksum          CRC-32 of the 4096 bytes, these four left out
//!     16    8 counter           the copy with the higher one counts
//!     24    8 store id
//!     32    8 epoch             of the latest open
//!     40    8 log start         the oldest LSN that recovery may need
//!     48    8 watermark         everything below it was on stable storage
//!     56    8 clean end         where the log ended at a clean close, else 0
//!     64    8 segment           the newest segment known to be durable; 0 before the first
//!     72    8 origin            the LSN at which the state was empty; 0 if it never was (a backup)
//!     80    4 block size        of the segments written from now on, in bytes
//!     84    4 machine version
//!     88    1 machine name length
//!     89    … machine name      UTF-8
//!      …    1 snapshot count    at most 2, the newest first
//!      …   16 for each          its LSN, its file's length in bytes
//!      …    … zeros up to 4096; where the device's blocks are larger, the file goes on with zeros to the end of one
//! ```

use super::bytes::{Put, Take};
use super::segment::{MIN_BLOCK_BYTES, open_block, put_checksum, put_machine, start_block, take_machine};
use super::{Epoch, HeaderFault, Lsn, MachineTag, SegmentId, StoreId};

const MAGIC: &[u8; 8] = b"SEAWALMF";
const CHECKSUM_OFFSET: usize = 12;
/// The size of a copy.
pub(crate) const MANIFEST_BYTES: usize = 4096;
/// No device has larger blocks.
const MAX_BLOCK_BYTES: u32 = 1 << 20;
/// How many snapshots are kept.
pub(crate) const SNAPSHOTS_KEPT: usize = 2;

/// A snapshot that the manifest vouches for: it was read back and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotEntry {
    pub(crate) lsn: Lsn,
    pub(crate) file_bytes: u64,
}

/// The root pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) counter: u64,
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    pub(crate) log_start: Lsn,
    pub(crate) watermark: Lsn,
    /// Zero unless the store was closed cleanly.
    pub(crate) clean_end: Lsn,
    /// Every segment up to this one was created for good.
    pub(crate) segment: SegmentId,
    /// The LSN at which the state was empty; zero if it never was.
    pub(crate) origin: Lsn,
    pub(crate) block_bytes: u32,
    pub(crate) machine: MachineTag,
    /// The newest first.
    pub(crate) snapshots: Vec<SnapshotEntry>,
}

impl Manifest {
    /// Writes the manifest into a zeroed block of [`MANIFEST_BYTES`]; `None` if it is too short.
    pub(crate) fn encode(&self, block: &mut [u8]) -> Option<()> {
        let mut put = Put(&mut *block);
        start_block(&mut put, MAGIC)?;
        for number in [
            self.counter,
            self.store.get(),
            self.epoch.get(),
            self.log_start.get(),
            self.watermark.get(),
            self.clean_end.get(),
            self.segment.get(),
            self.origin.get(),
        ] {
            put.u64(number)?;
        }
        put.u32(self.block_bytes)?;
        put_machine(&mut put, &self.machine)?;
        put.u8(u8::try_from(self.snapshots.len()).ok()?)?;
        for snapshot in &self.snapshots {
            put.u64(snapshot.lsn.get())?;
            put.u64(snapshot.file_bytes)?;
        }
        put_checksum(block, CHECKSUM_OFFSET).map(|_| ())
    }

    /// Reads a copy.
    pub(crate) fn decode(block: &[u8]) -> Result<Manifest, HeaderFault> {
        if block.len() != MANIFEST_BYTES {
            return Err(HeaderFault::Bad("the manifest is not 4096 bytes long"));
        }
        let (take, _) = open_block(block, MAGIC)?;
        Self::decode_fields(take).ok_or(HeaderFault::Bad("the manifest's fields do not add up"))
    }

    fn decode_fields(mut take: Take<'_>) -> Option<Manifest> {
        let mut manifest = Manifest {
            counter: take.u64()?,
            store: StoreId::new(take.u64()?),
            epoch: Epoch::new(take.u64()?),
            log_start: Lsn::new(take.u64()?),
            watermark: Lsn::new(take.u64()?),
            clean_end: Lsn::new(take.u64()?),
            segment: SegmentId::new(take.u64()?),
            origin: Lsn::new(take.u64()?),
            block_bytes: take.u32()?,
            machine: take_machine(&mut take)?,
            snapshots: Vec::new(),
        };
        let count = usize::from(take.u8()?);
        let block_is_one = manifest.block_bytes.is_power_of_two()
            && (MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES).contains(&manifest.block_bytes);
        if count > SNAPSHOTS_KEPT || !block_is_one {
            return None;
        }
        for _ in 0..count {
            manifest.snapshots.push(SnapshotEntry { lsn: Lsn::new(take.u64()?), file_bytes: take.u64()? });
        }
        Some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_and_every_flipped_bit_is_noticed() {
        let manifest = Manifest {
            counter: 1,
            store: StoreId::new(2),
            epoch: Epoch::new(3),
            log_start: Lsn::new(4),
            watermark: Lsn::new(5),
            clean_end: Lsn::new(6),
            segment: SegmentId::new(1),
            origin: Lsn::new(4),
            block_bytes: 4096,
            machine: MachineTag { name: "kv".into(), version: 9 },
            snapshots: vec![SnapshotEntry { lsn: Lsn::new(7), file_bytes: 8 }],
        };
        let mut block = vec![0; MANIFEST_BYTES];
        for block_bytes in [0, 256, 4097, 1 << 21] {
            Manifest { block_bytes, ..manifest.clone() }.encode(&mut block).unwrap();
            assert!(Manifest::decode(&block).is_err(), "{block_bytes}");
        }
        block.fill(0);
        manifest.encode(&mut block).unwrap();
        assert_eq!(Manifest::decode(&block), Ok(manifest));
        for bit in 0..block.len() * 8 {
            let mut bytes = block.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}
