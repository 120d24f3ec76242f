//! The manifest, in two copies that are written alternately.
//!
//! ```text
//! offset size field
//!      0    8 magic             "SEAWALMF"
//!      8    2 version           1
//!     10    2 flags             0
//!     12    4 checksum          CRC-32 of all other bytes of the 4096
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
//!      …    2 shape length      0 if the shape is not known
//!      …    … shape             of the types that the machine encodes
//!      …    … zeros up to 4096, or to the end of the device's block if that is larger
//! ```

use super::bytes::{Put, Take};
use super::limits::{HeaderFault, MIN_BLOCK_BYTES, is_block_size, is_boundary, is_reachable};
use super::segment::{open_block, put_checksum, put_machine, start_block, take_machine};
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId};

const MAGIC: &[u8; 8] = b"SEAWALMF";
const CHECKSUM_OFFSET: usize = 12;
/// The size of a copy in bytes.
pub(crate) const MANIFEST_BYTES: usize = 4096;
/// The number of snapshots that are kept: the newest, and one to fall back on if that is damaged.
pub(crate) const SNAPSHOTS_KEPT: usize = 2;
/// The longest shape, in bytes.
pub(crate) const MAX_SHAPE_BYTES: usize = 1024;

/// A snapshot that was read back and verified before the manifest named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotEntry {
    pub(crate) lsn: Lsn,
    pub(crate) file_bytes: u64,
}

/// Which snapshots and which part of the log make up the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) counter: u64,
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    pub(crate) log_start: Lsn,
    pub(crate) watermark: Lsn,
    /// Zero unless the store was closed cleanly.
    pub(crate) clean_end: Lsn,
    /// This segment and all before it are durable, their names included.
    pub(crate) segment: SegmentId,
    /// The LSN at which the state was empty; zero if it never was.
    pub(crate) origin: Lsn,
    pub(crate) block_bytes: u32,
    pub(crate) machine: MachineTag,
    /// Newest first.
    pub(crate) snapshots: Vec<SnapshotEntry>,
    /// The shape of the types that the machine encodes; see
    /// [`StateMachine::shape`](crate::machine::StateMachine::shape). Empty if it is not known.
    pub(crate) shape: Vec<u8>,
}

impl Manifest {
    /// Writes the manifest into [`MANIFEST_BYTES`] zeros. `None` if these are too few.
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
        // a longer one is the machine's mistake, and must not make the manifest unreadable
        let shape = if self.shape.len() > MAX_SHAPE_BYTES { &[] } else { &self.shape[..] };
        put.u16(shape.len() as u16)?;
        put.bytes(shape)?;
        put_checksum(block, CHECKSUM_OFFSET).map(|_| ())
    }

    /// Reads a copy.
    pub(crate) fn decode(block: &[u8]) -> Result<Manifest, HeaderFault> {
        if block.len() != MANIFEST_BYTES {
            return Err(HeaderFault::Bad("the manifest is not 4096 bytes long"));
        }
        let (take, _) = open_block(block, MAGIC)?;
        let manifest = Self::decode_fields(take)?;
        match manifest.impossible_field() {
            None => Ok(manifest),
            Some(reason) => Err(HeaderFault::Bad(reason)),
        }
    }

    /// The LSN below which nothing needs the log. A log start behind a snapshot is impossible, but
    /// an open survives it, and must not delete what the snapshot needs.
    pub(crate) fn needed_from(&self) -> Lsn {
        self.snapshots.iter().map(|snapshot| snapshot.lsn).fold(self.log_start, Lsn::min)
    }

    /// Which field has a value that no store's manifest has, if one does.
    fn impossible_field(&self) -> Option<&'static str> {
        // the first frame follows the first segment's header
        let log_start_is_possible = is_boundary(self.log_start) && self.log_start.get() >= u64::from(MIN_BLOCK_BYTES);
        let fields = [
            (is_reachable(self.counter), "the manifest's counter is impossible"),
            (is_reachable(self.epoch.get()), "the manifest's epoch is impossible"),
            (log_start_is_possible, "the manifest's log start is impossible"),
            (is_boundary(self.watermark), "the manifest's watermark is impossible"),
            (is_boundary(self.clean_end), "the manifest's clean end is impossible"),
            (is_reachable(self.segment.get()), "the manifest's segment is impossible"),
            (is_boundary(self.origin), "the manifest's origin is impossible"),
            (is_block_size(self.block_bytes), "the manifest's block size is impossible"),
            (self.snapshots.iter().all(|s| is_boundary(s.lsn)), "a snapshot LSN in the manifest is impossible"),
        ];
        fields.into_iter().find_map(|(possible, reason)| (!possible).then_some(reason))
    }

    fn decode_fields(mut take: Take<'_>) -> Result<Manifest, HeaderFault> {
        let mut fields = || Self::fields(&mut take);
        let (mut manifest, count) = fields().ok_or(HeaderFault::Bad("the manifest's machine name is impossible"))?;
        if count > SNAPSHOTS_KEPT {
            return Err(HeaderFault::Bad("the manifest's snapshot count is impossible"));
        }
        for _ in 0..count {
            let mut entry = || Some(SnapshotEntry { lsn: Lsn::new(take.u64()?), file_bytes: take.u64()? });
            manifest.snapshots.push(entry().ok_or(HeaderFault::Bad("the manifest's snapshots are cut short"))?);
        }
        let mut shape =
            || take.u16().map(usize::from).filter(|len| *len <= MAX_SHAPE_BYTES).and_then(|len| take.bytes(len));
        manifest.shape = shape().ok_or(HeaderFault::Bad("the manifest's shape is impossible"))?.to_vec();
        Ok(manifest)
    }

    /// Everything but the snapshots, and their number.
    fn fields(take: &mut Take<'_>) -> Option<(Manifest, usize)> {
        let manifest = Manifest {
            counter: take.u64()?,
            store: StoreId::new(take.u64()?),
            epoch: Epoch::new(take.u64()?),
            log_start: Lsn::new(take.u64()?),
            watermark: Lsn::new(take.u64()?),
            clean_end: Lsn::new(take.u64()?),
            segment: SegmentId::new(take.u64()?),
            origin: Lsn::new(take.u64()?),
            block_bytes: take.u32()?,
            machine: take_machine(take)?,
            snapshots: Vec::new(),
            shape: Vec::new(),
        };
        let count = usize::from(take.u8()?);
        Some((manifest, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            counter: 1,
            store: StoreId::new(2),
            epoch: Epoch::new(3),
            log_start: Lsn::new(4096),
            watermark: Lsn::new(3 * 4096),
            clean_end: Lsn::new(4 * 4096),
            segment: SegmentId::new(1),
            origin: Lsn::new(4096),
            block_bytes: 4096,
            machine: MachineTag { name: "kv".into(), version: 9 },
            snapshots: vec![SnapshotEntry { lsn: Lsn::new(2 * 4096), file_bytes: 8 }],
            shape: vec![1, 2, 3],
        }
    }

    #[test]
    fn a_store_that_moved_to_larger_blocks_keeps_its_positions() {
        let mut manifest = Manifest { log_start: Lsn::new(512), origin: Lsn::new(512), ..manifest() };
        manifest.snapshots[0].lsn = Lsn::new(7 * 512);
        let mut block = vec![0; MANIFEST_BYTES];
        manifest.encode(&mut block).unwrap();
        assert_eq!(Manifest::decode(&block), Ok(manifest));
    }

    #[test]
    fn a_shape_that_is_too_long_is_left_out() {
        let mut block = vec![0; MANIFEST_BYTES];
        for (len, kept) in [(MAX_SHAPE_BYTES, MAX_SHAPE_BYTES), (MAX_SHAPE_BYTES + 1, 0), (70_000, 0)] {
            block.fill(0);
            Manifest { shape: vec![7; len], ..manifest() }.encode(&mut block).unwrap();
            assert_eq!(Manifest::decode(&block), Ok(Manifest { shape: vec![7; kept], ..manifest() }));
        }
    }

    #[test]
    fn numbers_that_no_store_has_are_refused_under_a_right_checksum() {
        let refused = |change: fn(&mut Manifest), field: &str| {
            let mut manifest = manifest();
            change(&mut manifest);
            let mut block = vec![0; MANIFEST_BYTES];
            manifest.encode(&mut block).unwrap();
            let Err(HeaderFault::Bad(reason)) = Manifest::decode(&block) else { unreachable!("{manifest:?}") };
            assert!(reason.contains(field) && reason.ends_with("is impossible"), "{field}: {reason}");
        };
        refused(|m| m.block_bytes = 0, "block size");
        refused(|m| m.block_bytes = 256, "block size");
        refused(|m| m.block_bytes = 4097, "block size");
        refused(|m| m.block_bytes = 1 << 31, "block size");
        refused(|m| m.log_start = Lsn::new(4097), "log start");
        refused(|m| m.log_start = Lsn::ZERO, "log start");
        refused(|m| m.origin = Lsn::new(1), "origin");
        refused(|m| m.snapshots[0].lsn = Lsn::new(4609), "snapshot LSN");
        refused(|m| m.snapshots.resize(3, m.snapshots[0]), "snapshot count");
        refused(|m| m.watermark = Lsn::new(u64::MAX - 4095), "watermark");
        refused(|m| m.clean_end = Lsn::new(u64::MAX - 4095), "clean end");
        refused(|m| m.epoch = Epoch::new(u64::MAX), "epoch");
        refused(|m| m.segment = SegmentId::new(u64::MAX), "segment");
        refused(|m| m.counter = u64::MAX, "counter");
    }

    #[test]
    fn a_manifest_comes_back_and_every_flipped_bit_is_noticed() {
        let manifest = manifest();
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
