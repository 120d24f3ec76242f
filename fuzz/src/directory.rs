//! The compact form of a store's directory that the fuzzers mutate.
//!
//! ```text
//! input  = flags:u8 file*
//! flags  = bit 0: repair checksums; bit 1: also the checksums of predecessors;
//!          bit 2: blocks of 4096 bytes instead of 512
//! file   = kind:u8 [name] length:u32 runs:u16 run*       the rest of the file is zeros
//! run    = gap:u16 length:u16 bytes                      the file holds zeros between runs
//! kind   = 0 MANIFEST-0, 1 MANIFEST-1, 2 segment, 3 snapshot, 4 spare, 5 LOCK, 6 unfinished, 7 foreign;
//!          + 8: `name` follows, otherwise the header states it
//! name   = of a segment: id:u64 base:u64; of a snapshot or spare: number:u64
//! ```

use crate::names;
#[cfg(test)]
use crate::names::Name;
use seawal::fuzzing::{self, Files};
use seawal::sim::SimDisk;

/// The longest file, in bytes.
const MAX_FILE_BYTES: u32 = 256 << 10;
const MAX_FILES: usize = 16;
const NAMED: u8 = 8;

/// The first byte of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const CHECKSUMS: u8 = 1;
    pub(crate) const CHAINS: u8 = 2;
    pub(crate) const LARGE_BLOCKS: u8 = 4;

    pub(crate) fn split(data: &[u8]) -> Option<(Flags, &[u8])> {
        data.split_first().map(|(flags, rest)| (Flags(*flags), rest))
    }

    pub(crate) fn repairs_checksums(self) -> bool {
        self.0 & Self::CHECKSUMS != 0
    }

    pub(crate) fn repairs_chains(self) -> bool {
        self.0 & Self::CHAINS != 0
    }

    pub(crate) fn block_bytes(self) -> u32 {
        if self.0 & Self::LARGE_BLOCKS != 0 { 4096 } else { 512 }
    }
}

/// Reads little-endian numbers from the front of a slice.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// All files of a disk.
pub(crate) fn files_of(disk: &SimDisk) -> Files {
    disk.file_names().into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// A directory read from an input.
pub(crate) struct Directory {
    pub(crate) flags: Flags,
    pub(crate) files: Files,
}

impl Directory {
    pub(crate) fn read(data: &[u8]) -> Option<Directory> {
        let (flags, rest) = Flags::split(data)?;
        let mut take = Take(rest);
        let mut files = Files::new();
        for number in 0..MAX_FILES {
            let Some((name, bytes)) = read_file(&mut take, number) else { break };
            files.insert(name, bytes);
        }
        let mut directory = Directory { flags, files };
        if flags.repairs_checksums() {
            fuzzing::repair(&mut directory.files, flags.repairs_chains());
        }
        Some(directory)
    }

    pub(crate) fn disk(&self) -> SimDisk {
        let disk = SimDisk::builder().seed(1).block_bytes(self.flags.block_bytes()).build();
        for (name, bytes) in &self.files {
            disk.write_file(name, bytes);
        }
        disk
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
            names::segment(id, base)
        }
        3 => names::snapshot(if named { given[0] } else { field(24) }),
        4 => names::spare(if named { given[0] } else { number as u64 + 1 }),
        5 => names::LOCK.to_owned(),
        6 => names::temp(&names::spare(number as u64 + 1)),
        _ => format!("notes-{number}"),
    };
    Some((name, bytes))
}

/// Encodes a directory as an input.
#[cfg(test)]
pub(crate) fn write(flags: Flags, files: &Files) -> Vec<u8> {
    let mut out = vec![flags.0];
    for (name, bytes) in files {
        let kind = match names::parse(name) {
            Name::Manifest(copy) => copy as u8,
            Name::Segment { .. } => 2,
            Name::Snapshot { .. } => 3,
            Name::Spare { .. } => 4,
            Name::Lock => 5,
            Name::Temp => 6,
            Name::Foreign => 7,
        };
        let named = match names::parse(name) {
            Name::Segment { id, base } => vec![id, base],
            Name::Snapshot { lsn } => vec![lsn],
            Name::Spare { number } => vec![number],
            _ => Vec::new(),
        };
        // a damaged header states another name
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

/// The runs of a file that are not zeros, each with the length of the zeros before it.
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
