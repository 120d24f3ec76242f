//! The file formats of `docs/format.md`, read and forged without the crate's own codecs.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ops::Range;

pub(crate) const FRAME_MAGIC: &[u8; 4] = b"SWFR";
pub(crate) const FRAME_HEADER: usize = 64;
/// The offset of the checksum: here in a frame, below in the header of any file.
const FRAME_CHECKSUM: usize = 8;
const BLOCK_CHECKSUM: usize = 12;

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn checksum_but(bytes: &[u8], at: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(&bytes[at + 4..]);
    hasher.finalize()
}

fn fix(bytes: &mut [u8], at: usize) {
    let sum = checksum_but(bytes, at);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Corrects the checksum of a frame.
pub(crate) fn fix_frame(frame: &mut [u8]) {
    fix(frame, FRAME_CHECKSUM);
}

/// Corrects the checksum of a header block or a manifest.
pub(crate) fn fix_block(block: &mut [u8]) {
    fix(block, BLOCK_CHECKSUM);
}

/// A frame that was read, or one to be forged.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Its range in the file.
    pub(crate) at: Range<usize>,
    pub(crate) store: u64,
    pub(crate) epoch: u64,
    pub(crate) lsn: u64,
    pub(crate) watermark: u64,
    pub(crate) records: u32,
    pub(crate) previous: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn checksum(&self, bytes: &[u8]) -> u32 {
        u32_at(bytes, self.at.start + FRAME_CHECKSUM)
    }

    /// The LSN past the frame.
    pub(crate) fn end(&self) -> u64 {
        self.lsn + self.at.len() as u64
    }

    /// The bytes of the frame as a writer would write them, padded to blocks of this size, with no
    /// mask.
    pub(crate) fn forge(&self, block: usize) -> Vec<u8> {
        let len = (FRAME_HEADER + self.payload.len()).next_multiple_of(block);
        let mut bytes = FRAME_MAGIC.to_vec();
        bytes.extend([1, 1, 0, 0]);
        bytes.extend([0; 8]);
        for word in [self.store, self.epoch, self.lsn, self.watermark] {
            bytes.extend(word.to_le_bytes());
        }
        let padding = len - FRAME_HEADER - self.payload.len();
        for word in [self.payload.len() as u32, self.records, self.previous, padding as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.payload);
        bytes.resize(len, 0);
        fix_frame(&mut bytes);
        bytes
    }
}

/// A segment file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) block: usize,
    pub(crate) id: u64,
    pub(crate) store: u64,
    pub(crate) epoch: u64,
    pub(crate) base: u64,
    pub(crate) previous_end: u64,
    pub(crate) watermark: u64,
    pub(crate) file_bytes: u64,
    pub(crate) checksum: u32,
    /// The frames of the segment's own chain, from the first one on.
    pub(crate) frames: Vec<Frame>,
}

impl Segment {
    pub(crate) fn read(name: &str, bytes: &[u8]) -> Segment {
        assert_eq!(&bytes[..8], b"SEAWALSG", "{name}");
        let mut segment = Segment {
            name: name.into(),
            block: u32_at(bytes, 16) as usize,
            store: u64_at(bytes, 24),
            id: u64_at(bytes, 32),
            epoch: u64_at(bytes, 40),
            base: u64_at(bytes, 48),
            previous_end: u64_at(bytes, 56),
            watermark: u64_at(bytes, 64),
            file_bytes: u64_at(bytes, 72),
            checksum: u32_at(bytes, BLOCK_CHECKSUM),
            frames: Vec::new(),
        };
        let (mut at, mut lsn, mut previous) = (segment.block, segment.base, segment.checksum);
        while let Some(frame) = segment.frame_at(bytes, at, lsn, previous) {
            (at, lsn, previous) = (frame.at.end, frame.end(), frame.checksum(bytes));
            segment.frames.push(frame);
        }
        segment
    }

    fn frame_at(&self, bytes: &[u8], at: usize, lsn: u64, previous: u32) -> Option<Frame> {
        let head = bytes.get(at..at + FRAME_HEADER).filter(|head| head.starts_with(FRAME_MAGIC))?;
        let payload = u32_at(head, 48) as usize;
        let len = FRAME_HEADER + payload + u32_at(head, 60) as usize;
        let whole = bytes.get(at..at + len)?;
        let frame = Frame {
            at: at..at + len,
            store: u64_at(head, 16),
            epoch: u64_at(head, 24),
            lsn: u64_at(head, 32),
            watermark: u64_at(head, 40),
            records: u32_at(head, 52),
            previous: u32_at(head, 56),
            payload: whole[FRAME_HEADER..FRAME_HEADER + payload].to_vec(),
        };
        let fits = checksum_but(whole, FRAME_CHECKSUM) == frame.checksum(bytes)
            && (frame.store, frame.epoch, frame.lsn) == (self.store, self.epoch, lsn)
            && frame.previous == previous;
        fits.then_some(frame)
    }

    /// The LSN past the last frame.
    pub(crate) fn end(&self) -> u64 {
        self.frames.last().map_or(self.base, Frame::end)
    }

    /// The offset of [`end`](Self::end) in the file.
    pub(crate) fn end_offset(&self) -> usize {
        self.frames.last().map_or(self.block, |frame| frame.at.end)
    }

    /// The checksum that the next frame must refer to.
    pub(crate) fn last_checksum(&self, bytes: &[u8]) -> u32 {
        self.frames.last().map_or(self.checksum, |frame| frame.checksum(bytes))
    }
}

/// A copy of the manifest.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) counter: u64,
    pub(crate) store: u64,
    pub(crate) log_start: u64,
    /// The LSN up to which it proves the log durable: by its watermark or its clean end.
    pub(crate) proven: u64,
    pub(crate) clean_end: u64,
    pub(crate) origin: u64,
    /// The LSNs of the snapshots, the newest first.
    pub(crate) snapshots: Vec<u64>,
}

impl Manifest {
    /// Reads a copy. Returns `None` if it is damaged.
    pub(crate) fn read(bytes: &[u8]) -> Option<Manifest> {
        let bytes = bytes.get(..4096)?;
        if !bytes.starts_with(b"SEAWALMF") || checksum_but(bytes, BLOCK_CHECKSUM) != u32_at(bytes, BLOCK_CHECKSUM) {
            return None;
        }
        let count = 89 + usize::from(bytes[88]);
        Some(Manifest {
            counter: u64_at(bytes, 16),
            store: u64_at(bytes, 24),
            log_start: u64_at(bytes, 40),
            proven: u64_at(bytes, 48).max(u64_at(bytes, 56)),
            clean_end: u64_at(bytes, 56),
            origin: u64_at(bytes, 72),
            snapshots: (0..usize::from(bytes[count])).map(|n| u64_at(bytes, count + 1 + 16 * n)).collect(),
        })
    }
}

/// Corrects the checksums of a snapshot's header and chunks, up to a chunk that is not whole. Also
/// corrects the last chunk's checksum over all others.
pub(crate) fn fix_snapshot(bytes: &mut [u8]) {
    if bytes.len() < 512 {
        return;
    }
    fix_block(&mut bytes[..512]);
    let place: Vec<u8> = bytes[16..32].to_vec();
    let (mut at, mut all) = (512, crc32fast::Hasher::new());
    while at + 16 <= bytes.len() {
        let len = u32_at(bytes, at + 8) as usize;
        let Some(end) = (at + 16).checked_add(len).filter(|end| *end <= bytes.len()) else { break };
        if bytes[at] == 3 && len == 20 {
            let sum = all.clone().finalize();
            bytes[at + 32..at + 36].copy_from_slice(&sum.to_le_bytes());
        }
        let mut hasher = crc32fast::Hasher::new();
        for part in [&place[..], &bytes[at..at + 12], &bytes[at + 16..end]] {
            hasher.update(part);
        }
        let sum = hasher.finalize().to_le_bytes();
        bytes[at + 12..at + 16].copy_from_slice(&sum);
        all.update(&sum);
        at = end;
    }
}

/// A snapshot's chunks: the kind and the content of each.
pub(crate) fn chunks_of(snapshot: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut at, mut chunks) = (512, Vec::new());
    while at < snapshot.len() {
        let end = at + 16 + u32_at(snapshot, at + 8) as usize;
        chunks.push((snapshot[at], snapshot[at + 16..end].to_vec()));
        at = end;
    }
    chunks
}

/// The snapshot with other chunks. All numbers, totals and checksums are consistent.
pub(crate) fn with_chunks(snapshot: &[u8], chunks: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut totals) = (snapshot[..512].to_vec(), [0u64; 2]);
    for (index, (kind, content)) in chunks.iter().enumerate() {
        bytes.extend_from_slice(&[*kind, 0, 0, 0]);
        bytes.extend_from_slice(&(index as u32).to_le_bytes());
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let at = bytes.len();
        bytes.extend_from_slice(content);
        match kind {
            2 => totals[1] += content.len() as u64,
            3 => totals.iter().zip([0, 8]).for_each(|(total, to)| {
                bytes[at + to..at + to + 8].copy_from_slice(&total.to_le_bytes());
            }),
            _ => totals[0] += content.len() as u64,
        }
    }
    fix_snapshot(&mut bytes);
    bytes
}
