//! A store's directory in few bytes, and making what lies in it whole again after a fuzzer has been at it.
//!
//! ```text
//! input  = flags:u8 file*
//! flags  = bit 0: put checksums right; bit 1: put chains right too; bit 2: blocks of 4096 bytes, not 512
//! file   = kind:u8 [name] length:u32 runs:u16 run*       what ends early is filled up with zeros
//! run    = gap:u16 length:u16 bytes                      between runs the file holds zeros
//! kind   = 0 MANIFEST-0, 1 MANIFEST-1, 2 segment, 3 snapshot, 4 spare, 5 LOCK, 6 unfinished, 7 foreign;
//!          + 8: `name` follows (segment: id:u64 base:u64; snapshot, spare: number:u64), else it is as the file's header says
//! ```

use super::codecs::HEADER_CHECKSUM_OFFSET;
use crate::format::MIN_BLOCK_BYTES;
use crate::format::bytes::Take;
use crate::format::frame::{self, HEADER_BYTES};
use crate::format::manifest::MANIFEST_BYTES;
use crate::format::segment::{self, SegmentHeader, put_checksum};
use crate::format::snapshot::{self, ChunkKind, SnapshotEnd, SnapshotHeader};
use crate::ids::{Lsn, SegmentId};
use crate::sim::SimDisk;
use crate::store::layout as names;
use crate::store::layout::FileName;
use std::collections::BTreeMap;

/// No file is longer, in bytes.
const MAX_FILE_BYTES: u32 = 256 << 10;
const MAX_FILES: usize = 16;
const NAMED: u8 = 8;

/// What the first byte of an input says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags(pub(super) u8);

impl Flags {
    pub(super) const CHECKSUMS: u8 = 1;
    pub(super) const CHAINS: u8 = 2;
    pub(super) const LARGE_BLOCKS: u8 = 4;

    pub(super) fn split(data: &[u8]) -> Option<(Flags, &[u8])> {
        data.split_first().map(|(flags, rest)| (Flags(*flags), rest))
    }

    pub(super) fn mends_checksums(self) -> bool {
        self.0 & Self::CHECKSUMS != 0
    }

    pub(super) fn mends_chains(self) -> bool {
        self.0 & Self::CHAINS != 0
    }

    pub(super) fn block_bytes(self) -> u32 {
        if self.0 & Self::LARGE_BLOCKS != 0 { 4096 } else { 512 }
    }
}

pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// All files of a disk.
pub(super) fn files_of(disk: &SimDisk) -> Files {
    disk.file_names().into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// A directory read from an input.
pub(super) struct Directory {
    pub(super) flags: Flags,
    pub(super) files: Files,
}

impl Directory {
    pub(super) fn read(data: &[u8]) -> Option<Directory> {
        let (flags, rest) = Flags::split(data)?;
        let mut take = Take(rest);
        let mut files = Files::new();
        for number in 0..MAX_FILES {
            let Some((name, bytes)) = read_file(&mut take, number) else { break };
            files.insert(name, bytes);
        }
        let mut directory = Directory { flags, files };
        if flags.mends_checksums() {
            directory.mend();
        }
        Some(directory)
    }

    pub(super) fn disk(&self) -> SimDisk {
        let disk = SimDisk::builder().seed(1).block_bytes(self.flags.block_bytes()).build();
        for (name, bytes) in &self.files {
            disk.write_file(name, bytes);
        }
        disk
    }

    fn mend(&mut self) {
        // where each segment's frames end, and the checksum there
        let mut ends: BTreeMap<Lsn, u32> = BTreeMap::new();
        for (name, bytes) in &mut self.files {
            match names::parse(name) {
                FileName::Manifest => {
                    if let Some(block) = bytes.get_mut(..MANIFEST_BYTES) {
                        put_checksum(block, HEADER_CHECKSUM_OFFSET);
                    }
                }
                FileName::Segment { .. } => {
                    mend_segment(bytes, &mut ends, self.flags);
                }
                FileName::Snapshot { .. } => {
                    mend_snapshot(bytes, self.flags);
                }
                _ => {}
            }
        }
    }
}

fn read_file(take: &mut Take<'_>, number: usize) -> Option<(String, Vec<u8>)> {
    let kind = take.u8()?;
    let mut given = [0; 2];
    if kind & NAMED != 0 {
        given[0] = take.u64()?;
        if kind & 7 == 2 {
            given[1] = take.u64()?;
        }
    }
    let mut bytes = vec![0; take.u32()?.min(MAX_FILE_BYTES) as usize];
    let runs = take.u16().unwrap_or(0);
    let mut at = 0usize;
    for _ in 0..runs {
        let (Some(gap), Some(len)) = (take.u16(), take.u16()) else { break };
        at += usize::from(gap);
        let run = take.bytes(usize::from(len).min(take.0.len()))?;
        let room = bytes.get_mut(at..).unwrap_or_default();
        let fits = run.len().min(room.len());
        room[..fits].copy_from_slice(&run[..fits]);
        at += run.len();
    }
    let field = |at: usize| bytes.get(at..).and_then(|rest| Take(rest).u64()).unwrap_or(0);
    let named = kind & NAMED != 0;
    let name = match kind & 7 {
        0 => names::MANIFESTS[0].to_owned(),
        1 => names::MANIFESTS[1].to_owned(),
        2 => {
            let [id, base] = if named { given } else { [field(32), field(48)] };
            names::segment(SegmentId::new(id), Lsn::new(base))
        }
        3 => names::snapshot(Lsn::new(if named { given[0] } else { field(24) })),
        4 => names::spare(if named { given[0] } else { number as u64 + 1 }),
        5 => names::LOCK.to_owned(),
        6 => names::temp(&names::spare(number as u64 + 1)),
        _ => format!("notes-{number}"),
    };
    Some((name, bytes))
}

/// Puts the checksums of a segment's header and of whatever may be a frame right.
fn mend_segment(bytes: &mut [u8], ends: &mut BTreeMap<Lsn, u32>, flags: Flags) -> Option<()> {
    let block = Take(bytes.get(16..)?).u32()? as usize;
    if !block.is_power_of_two() || block < MIN_BLOCK_BYTES as usize {
        return None;
    }
    let (head, frames) = bytes.split_at_mut_checked(block)?;
    let mut last = put_checksum(head, HEADER_CHECKSUM_OFFSET)?;
    let (mut header, _) = SegmentHeader::decode(head).ok()?;
    if flags.mends_chains() && header.previous_checksum != segment::UNKNOWN_CHECKSUM {
        if let Some(previous) = ends.get(&header.previous_end) {
            header.previous_checksum = *previous;
        }
        head.fill(0);
        last = header.encode(head)?;
    }
    ends.insert(header.base, last);
    let mut at = 0usize;
    while let Some(rest) = frames.get_mut(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        let stated = frame::stated_bytes(rest).and_then(|total| usize::try_from(total).ok());
        let Some(whole) = stated.and_then(|total| rest.get_mut(..total)) else {
            at = (at / block + 1) * block;
            continue;
        };
        last = frame::mend(whole, flags.mends_chains().then_some(last))?;
        at += whole.len();
        ends.insert(header.base.plus(at as u64), last);
    }
    Some(())
}

/// Puts the checksums of a snapshot's header and chunks right, and with chains its end too.
fn mend_snapshot(bytes: &mut [u8], flags: Flags) -> Option<()> {
    let (head, chunks) = bytes.split_at_mut_checked(snapshot::HEADER_BYTES)?;
    put_checksum(head, HEADER_CHECKSUM_OFFSET)?;
    let header = SnapshotHeader::decode(head).ok()?;
    let mut totals = SnapshotEnd::default();
    let mut checksums = crc32fast::Hasher::new();
    let (mut at, mut index) = (0usize, 0);
    loop {
        let found = snapshot::decode_chunk_header(chunks.get(at..)?)?;
        let whole = chunks.get_mut(at..)?.get_mut(..snapshot::CHUNK_HEADER_BYTES + found.content_bytes as usize)?;
        if !flags.mends_chains() {
            let checksum = snapshot::chunk_checksum(whole, header.store, header.lsn)?;
            whole[HEADER_CHECKSUM_OFFSET..snapshot::CHUNK_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        } else {
            if found.kind == ChunkKind::End {
                totals.checksum = checksums.clone().finalize();
                totals.encode(&mut whole[snapshot::CHUNK_HEADER_BYTES..])?;
            }
            let checksum = snapshot::seal_chunk(whole, found.kind, index, header.store, header.lsn)?;
            checksums.update(&checksum.to_le_bytes());
        }
        let content = u64::from(found.content_bytes);
        match found.kind {
            ChunkKind::State | ChunkKind::Part => totals.state_bytes += content,
            ChunkKind::Transactions => totals.transaction_bytes += content,
            ChunkKind::End => return Some(()),
        }
        index += 1;
        at += whole.len();
    }
}

/// Writes a directory as an input, for seeds.
#[cfg(test)]
pub(super) fn write(flags: Flags, files: &Files) -> Vec<u8> {
    let mut out = vec![flags.0];
    for (name, bytes) in files {
        let kind = match names::parse(name) {
            FileName::Manifest if name == names::MANIFESTS[0] => 0,
            FileName::Manifest => 1,
            FileName::Segment { .. } => 2,
            FileName::Snapshot { .. } => 3,
            FileName::Spare { .. } => 4,
            FileName::Lock => 5,
            FileName::Temp => 6,
            FileName::Foreign => 7,
        };
        let named = match names::parse(name) {
            FileName::Segment { id, base } => vec![id.get(), base.get()],
            FileName::Snapshot { lsn } => vec![lsn.get()],
            FileName::Spare { number } => vec![number],
            _ => Vec::new(),
        };
        // a damaged header does not give the name back
        let field = |at: usize| bytes.get(at..).and_then(|rest| Take(rest).u64()).unwrap_or(0);
        let stated = match kind {
            2 => vec![field(32), field(48)],
            3 => vec![field(24)],
            _ => Vec::new(),
        };
        if named == stated {
            out.push(kind);
        } else {
            out.push(kind | NAMED);
            named.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        }
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        let runs = runs(bytes);
        out.extend_from_slice(&(runs.len() as u16).to_le_bytes());
        for (gap, run) in runs {
            out.extend_from_slice(&gap.to_le_bytes());
            out.extend_from_slice(&(run.len() as u16).to_le_bytes());
            out.extend_from_slice(run);
        }
    }
    out
}

/// The runs of a file that are not zeros, each with the zeros before it.
#[cfg(test)]
fn runs(bytes: &[u8]) -> Vec<(u16, &[u8])> {
    const WORTH_A_GAP: usize = 8;
    let mut runs = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let gap = bytes[at..].iter().take_while(|byte| **byte == 0).count();
        if at + gap == bytes.len() {
            break;
        }
        if gap > usize::from(u16::MAX) {
            runs.push((u16::MAX, &bytes[..0]));
            at += usize::from(u16::MAX);
            continue;
        }
        let start = at + gap;
        let mut end = start;
        while end < bytes.len() && end - start < usize::from(u16::MAX) {
            let zeros = bytes[end..].iter().take(WORTH_A_GAP).take_while(|byte| **byte == 0).count();
            if zeros == WORTH_A_GAP || end + zeros == bytes.len() {
                break;
            }
            end += zeros.max(1).min(usize::from(u16::MAX) - (end - start));
        }
        runs.push((gap as u16, &bytes[start..end]));
        at = end;
    }
    runs
}
