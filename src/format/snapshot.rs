//! Snapshots: the state at one LSN, and the transactions that were open there.
//!
//! ```text
//! header, 512 bytes:
//! offset size field
//!      0    8 magic             "SEAWALSN"
//!      8    2 version           1
//!     10    2 flags             0
//!     12    4 checksum          CRC-32 of all other bytes of the 512
//!     16    8 store id
//!     24    8 LSN               a frame boundary: replay goes on here
//!     32    8 epoch
//!     40    8 wall clock        µs since 1970
//!     48    4 machine version
//!     52    1 machine name length
//!     53    … machine name      UTF-8
//!
//! chunks, one after the other: first kinds 4 and 1, then at least one of kind 2, then one of kind 3:
//!      0    1 kind              1 state, 2 open transactions, 3 end, 4 start of a part of the state
//!      1    3 zeros
//!      4    4 index             from 0
//!      8    4 length            of the content, in bytes; at most 4 MiB
//!     12    4 checksum          CRC-32 of store id, LSN, the 12 bytes before, and the content
//!     16    … content
//!
//! the content of the end:
//!      0    8 state bytes       in all chunks of kinds 1 and 4
//!      8    8 transaction bytes in all chunks of kind 2
//!     16    4 checksum          CRC-32 of all chunks' checksums, in order
//!
//! open transactions: varint count, then for each
//!     varint id | varint inverse count | for each, the oldest first:
//!         varint LSN − the one before (the first: − id) | varint length | the inverse command
//! ```
//!
//! A machine can decode a part of the state without the parts before it. A state that does not
//! begin with kind 4 is read as a stream.

use super::bytes::{Put, Take};
use super::limits::HeaderFault;
use super::segment::{open_block, put_checksum, put_machine, start_block, take_machine};
use crate::ids::{Epoch, Lsn, MachineTag, StoreId};

const MAGIC: &[u8; 8] = b"SEAWALSN";
const CHECKSUM_OFFSET: usize = 12;
pub(crate) const HEADER_BYTES: usize = 512;
pub(crate) const CHUNK_HEADER_BYTES: usize = 16;
const CHUNK_CHECKSUM_OFFSET: usize = 12;
/// The longest content of a chunk that is accepted, in bytes.
pub(crate) const MAX_CHUNK_BYTES: usize = 4 << 20;
pub(crate) const END_BYTES: usize = 20;

/// The header of a snapshot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    pub(crate) store: StoreId,
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) wall_micros: u64,
    pub(crate) machine: MachineTag,
}

impl SnapshotHeader {
    /// Writes the header into [`HEADER_BYTES`] zeros. `None` if these are too few.
    pub(crate) fn encode(&self, block: &mut [u8]) -> Option<()> {
        let mut put = Put(&mut *block);
        start_block(&mut put, MAGIC)?;
        put.u64(self.store.get())?;
        put.u64(self.lsn.get())?;
        put.u64(self.epoch.get())?;
        put.u64(self.wall_micros)?;
        put_machine(&mut put, &self.machine)?;
        put_checksum(block, CHECKSUM_OFFSET).map(|_| ())
    }

    /// Reads a header.
    pub(crate) fn decode(block: &[u8]) -> Result<SnapshotHeader, HeaderFault> {
        let short = HeaderFault::Bad("the header is cut short");
        let block = block.get(..HEADER_BYTES).ok_or(short.clone())?;
        let (mut take, _) = open_block(block, MAGIC)?;
        let mut fields = || {
            Some(SnapshotHeader {
                store: StoreId::new(take.u64()?),
                lsn: Lsn::new(take.u64()?),
                epoch: Epoch::new(take.u64()?),
                wall_micros: take.u64()?,
                machine: take_machine(&mut take)?,
            })
        };
        fields().ok_or(short)
    }
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// More of the current part of the state.
    State,
    /// The beginning of a part of the state.
    Part,
    /// The open transactions.
    Transactions,
    /// The totals. It is the last chunk.
    End,
}

impl ChunkKind {
    const fn tag(self) -> u8 {
        match self {
            ChunkKind::State => 1,
            ChunkKind::Transactions => 2,
            ChunkKind::End => 3,
            ChunkKind::Part => 4,
        }
    }

    /// Whether a chunk of this kind may follow one of kind `before`, or begin the file if that is
    /// `None`.
    pub(crate) const fn may_follow(self, before: Option<ChunkKind>) -> bool {
        match self {
            ChunkKind::State | ChunkKind::Part => matches!(before, None | Some(ChunkKind::State | ChunkKind::Part)),
            ChunkKind::Transactions => !matches!(before, Some(ChunkKind::End)),
            ChunkKind::End => matches!(before, Some(ChunkKind::Transactions)),
        }
    }
}

/// A chunk's header. Its checksum is not compared yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    pub(crate) kind: ChunkKind,
    pub(crate) index: u32,
    pub(crate) content_bytes: u32,
    pub(crate) checksum: u32,
}

/// Writes the header of a chunk whose content is in place. Returns the checksum.
pub(crate) fn seal_chunk(chunk: &mut [u8], kind: ChunkKind, index: u32, store: StoreId, lsn: Lsn) -> Option<u32> {
    let content_bytes = u32::try_from(chunk.len().checked_sub(CHUNK_HEADER_BYTES)?).ok()?;
    let mut put = Put(&mut *chunk);
    put.bytes(&[kind.tag(), 0, 0, 0])?;
    put.u32(index)?;
    put.u32(content_bytes)?;
    let checksum = chunk_checksum(chunk, store, lsn)?;
    Put(chunk.get_mut(CHUNK_CHECKSUM_OFFSET..)?).u32(checksum)?;
    Some(checksum)
}

/// The checksum of a chunk, header and content, in the snapshot with this store id and LSN.
pub(crate) fn chunk_checksum(chunk: &[u8], store: StoreId, lsn: Lsn) -> Option<u32> {
    let mut hasher = begin_checksum(chunk, store, lsn)?;
    hasher.update(chunk.get(CHUNK_HEADER_BYTES..)?);
    Some(hasher.finalize())
}

/// The checksum's state after the header; the content is to follow.
pub(crate) fn begin_checksum(header: &[u8], store: StoreId, lsn: Lsn) -> Option<crc32fast::Hasher> {
    let mut place = [0; 16];
    let mut put = Put(&mut place);
    put.u64(store.get())?;
    put.u64(lsn.get())?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place);
    hasher.update(header.get(..CHUNK_CHECKSUM_OFFSET)?);
    Some(hasher)
}

/// Reads a chunk's header. `None` if the bytes are not one.
pub(crate) fn decode_chunk_header(bytes: &[u8]) -> Option<ChunkHeader> {
    let mut take = Take(bytes);
    let kind = match take.bytes(4)? {
        [1, 0, 0, 0] => ChunkKind::State,
        [2, 0, 0, 0] => ChunkKind::Transactions,
        [3, 0, 0, 0] => ChunkKind::End,
        [4, 0, 0, 0] => ChunkKind::Part,
        _ => return None,
    };
    let header = ChunkHeader { kind, index: take.u32()?, content_bytes: take.u32()?, checksum: take.u32()? };
    (header.content_bytes as usize <= MAX_CHUNK_BYTES).then_some(header)
}

/// The totals in the last chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SnapshotEnd {
    pub(crate) state_bytes: u64,
    pub(crate) transaction_bytes: u64,
    pub(crate) checksum: u32,
}

impl SnapshotEnd {
    /// Writes the content of the end chunk. `None` if there is too little room.
    pub(crate) fn encode(&self, content: &mut [u8]) -> Option<()> {
        let mut put = Put(content);
        put.u64(self.state_bytes)?;
        put.u64(self.transaction_bytes)?;
        put.u32(self.checksum)
    }

    /// Reads the content of the end chunk. `None` if the bytes are not one.
    pub(crate) fn decode(content: &[u8]) -> Option<SnapshotEnd> {
        let mut take = Take(content);
        let end = SnapshotEnd { state_bytes: take.u64()?, transaction_bytes: take.u64()?, checksum: take.u32()? };
        take.0.is_empty().then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_as_state_then_transactions_then_one_end() {
        use ChunkKind::{End, Part, State, Transactions};
        for (before, followers) in [
            (None, &[State, Part, Transactions][..]),
            (Some(State), &[State, Part, Transactions]),
            (Some(Part), &[State, Part, Transactions]),
            (Some(Transactions), &[Transactions, End]),
            (Some(End), &[]),
        ] {
            for kind in [State, Part, Transactions, End] {
                assert_eq!(kind.may_follow(before), followers.contains(&kind), "{kind:?} behind {before:?}");
            }
        }
    }

    #[test]
    fn a_header_and_a_chunk_come_back_and_flipped_bits_are_noticed() {
        let (store, lsn) = (StoreId::new(2), Lsn::new(4096));
        let machine = MachineTag { name: "kv".into(), version: 9 };
        let header = SnapshotHeader { store, lsn, epoch: Epoch::new(4), wall_micros: 5, machine };
        let mut block = [0; HEADER_BYTES];
        header.encode(&mut block).unwrap();
        assert_eq!(SnapshotHeader::decode(&block), Ok(header));

        let mut chunk = vec![0; CHUNK_HEADER_BYTES];
        chunk.extend_from_slice(b"content");
        let checksum = seal_chunk(&mut chunk, ChunkKind::State, 3, store, lsn).unwrap();
        let decoded = decode_chunk_header(&chunk).unwrap();
        assert_eq!(decoded, ChunkHeader { kind: ChunkKind::State, index: 3, content_bytes: 7, checksum });
        assert_ne!(chunk_checksum(&chunk, store, Lsn::new(8192)), Some(checksum));
        for bit in 0..chunk.len() * 8 {
            let mut bytes = chunk.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let accepted = decode_chunk_header(&bytes)
                .is_some_and(|h| h.content_bytes == 7 && chunk_checksum(&bytes, store, lsn) == Some(h.checksum));
            assert!(!accepted, "bit {bit}");
        }
    }
}
