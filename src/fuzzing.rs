//! The internals of the crate that the fuzz targets in `fuzz/` exercise.
//!
//! Requires the feature `fuzzing`. It is for those targets alone and carries no promise of
//! stability. A function here checks what can only be seen from inside, and panics where something
//! does not hold.
#![allow(clippy::unwrap_used, reason = "a panic is a find of the fuzzer")]
#![allow(missing_docs, reason = "hidden from the documentation")]

use crate::error::{Error, Result};
use crate::format::MIN_BLOCK_BYTES;
use crate::format::bytes::{Take, round_up};
use crate::format::frame::{self, FrameFault, HEADER_BYTES, Place};
use crate::format::manifest::{MANIFEST_BYTES, Manifest};
use crate::format::record::Record;
use crate::format::segment::{self, SegmentHeader, put_checksum};
use crate::format::snapshot::{self, ChunkKind, SnapshotEnd, SnapshotHeader};
use crate::ids::{Epoch, Lsn, StoreId};
use crate::io::Storage;
use crate::io::sync::Arc;
use crate::kv::Kv;
use crate::machine::StateMachine;
use crate::snapshot::{Help, Unpaced};
use crate::store::layout as names;
use crate::store::layout::FileName;
use crate::store::open_dir::{Access, StoreDir};
use crate::wal::scan::Scanner;
use crate::wal::scan::records_of;
use std::collections::BTreeMap;
use std::time::Duration;

pub type Files = BTreeMap<String, Vec<u8>>;

pub const FRAME_HEADER_BYTES: usize = HEADER_BYTES;
/// The offset of the checksum in every header.
const CHECKSUM_OFFSET: usize = 12;

/// The length that the header of a frame states; `None` where no frame can begin.
pub fn frame_bytes(bytes: &[u8]) -> Option<u64> {
    frame::stated_bytes(bytes)
}

/// Checks the codec of frames. Returns the commands of the records in the frame.
pub fn frame(mut bytes: Vec<u8>, block_bytes: u32, repair: bool) -> Vec<Vec<u8>> {
    if repair {
        bytes.resize(round_up(bytes.len() as u64, u64::from(block_bytes)) as usize, 0);
        let stated = frame::stated_bytes(&bytes).and_then(|total| usize::try_from(total).ok());
        if let Some(frame) = stated.and_then(|total| bytes.get_mut(..total)) {
            frame::mend(frame, None);
        }
    }
    let unclaimed = Place { store: StoreId::new(7), epoch: Epoch::new(3), lsn: Lsn::new(4096), block_bytes };
    let place = claimed_place(&bytes, block_bytes).unwrap_or(unclaimed);
    let elsewhere = Place { lsn: place.lsn.plus(1), ..place };
    let checked = match frame::check(&bytes, &place) {
        Ok(checked) => checked,
        Err(fault) => {
            assert!(!fault.reason().is_empty());
            return Vec::new();
        }
    };
    assert!(frame::claims_place(&bytes, &place));
    assert!(place.lsn == elsewhere.lsn || matches!(frame::check(&bytes, &elsewhere), Err(FrameFault::Elsewhere)));
    let total = usize::try_from(checked.total_bytes).unwrap();
    assert!(total <= bytes.len() && total.is_multiple_of(frame::ALIGN_BYTES as usize));
    assert_eq!(frame::stated_bytes(&bytes), Some(checked.total_bytes));
    assert!(matches!(frame::check(&bytes[..total - 1], &place), Err(FrameFault::Length)));

    let decoded = frame::decode(&mut bytes, &place).unwrap();
    let mut again = vec![0; total];
    again[HEADER_BYTES..][..decoded.payload.len()].copy_from_slice(decoded.payload);
    frame::seal(&mut again, &decoded.header).unwrap();
    assert_eq!(frame::check(&again, &place).unwrap().header, decoded.header);

    let mut last = place.lsn;
    let mut count = 0;
    let mut commands = Vec::new();
    for found in decoded.records() {
        let Ok((lsn, bytes)) = found else { break };
        assert!(lsn > last || lsn == Lsn::new(u64::MAX), "the LSNs of the records ascend");
        assert!(lsn < decoded.end() || lsn == Lsn::new(u64::MAX), "the LSNs of the records lie in the frame");
        last = lsn;
        count += 1;
        commands.extend(record(lsn.get(), bytes));
    }
    assert!(count <= decoded.header.records && count as usize <= total - HEADER_BYTES);
    commands
}

/// The place that the frame at the front of `bytes` claims.
fn claimed_place(bytes: &[u8], block_bytes: u32) -> Option<Place> {
    let mut take = Take(bytes.get(16..)?);
    let (store, epoch) = (StoreId::new(take.u64()?), Epoch::new(take.u64()?));
    Some(Place { store, epoch, lsn: Lsn::new(take.u64()?), block_bytes })
}

/// Checks the codec of records. Returns the command in the record, if it holds one.
pub fn record(lsn: u64, bytes: &[u8]) -> Option<Vec<u8>> {
    let record = Record::decode(Lsn::new(lsn), bytes)?;
    let command = match record {
        Record::Update { command, .. } | Record::Execute { command, .. } => command,
        _ => &[],
    };
    assert_eq!([record.head(Lsn::new(lsn)).as_slice(), command].concat(), bytes, "a record has one encoding");
    Some(command.to_vec())
}

/// Reads the bytes as each kind of header, and checks that what can be read is written alike.
pub fn headers(mut block: Vec<u8>, block_bytes: u32, repair: bool) {
    if !repair {
        return header(&block);
    }
    block.resize(MANIFEST_BYTES, 0);
    for covered in [snapshot::HEADER_BYTES, block_bytes as usize, MANIFEST_BYTES] {
        put_checksum(&mut block[..covered], CHECKSUM_OFFSET);
        header(&block);
    }
}

fn header(block: &[u8]) {
    if let Ok(manifest) = Manifest::decode(block) {
        let mut again = vec![0; MANIFEST_BYTES];
        manifest.encode(&mut again).unwrap();
        assert_eq!(Manifest::decode(&again), Ok(manifest));
    }
    if let Ok((header, _)) = SegmentHeader::decode(block) {
        let mut again = vec![0; header.block_bytes as usize];
        header.encode(&mut again).unwrap();
        assert_eq!(SegmentHeader::decode(&again).map(|(header, _)| header), Ok(header));
    }
    if let Ok(header) = SnapshotHeader::decode(block) {
        let mut again = vec![0; snapshot::HEADER_BYTES];
        header.encode(&mut again).unwrap();
        assert_eq!(SnapshotHeader::decode(&again), Ok(header));
    }
}

/// Makes the checksums of all files match their bytes; with `chains` also the checksums of
/// predecessors.
pub fn repair(files: &mut Files, chains: bool) {
    // the LSN at which the frames of each segment end, with the checksum there
    let mut ends: BTreeMap<Lsn, u32> = BTreeMap::new();
    for (name, bytes) in files {
        match names::parse(name) {
            FileName::Manifest => {
                if let Some(block) = bytes.get_mut(..MANIFEST_BYTES) {
                    put_checksum(block, CHECKSUM_OFFSET);
                }
            }
            FileName::Segment { .. } => {
                repair_segment(bytes, &mut ends, chains);
            }
            FileName::Snapshot { .. } => {
                repair_snapshot(bytes, chains);
            }
            _ => {}
        }
    }
}

/// Repairs the header of a segment and everything in it that may be a frame.
fn repair_segment(bytes: &mut [u8], ends: &mut BTreeMap<Lsn, u32>, chains: bool) -> Option<()> {
    let block = Take(bytes.get(16..)?).u32()? as usize;
    if !block.is_power_of_two() || block < MIN_BLOCK_BYTES as usize {
        return None;
    }
    let (head, frames) = bytes.split_at_mut_checked(block)?;
    let mut last = put_checksum(head, CHECKSUM_OFFSET)?;
    let (mut header, _) = SegmentHeader::decode(head).ok()?;
    if chains && header.previous_checksum != segment::UNKNOWN_CHECKSUM {
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
        last = frame::mend(whole, chains.then_some(last))?;
        at += whole.len();
        ends.insert(header.base.plus(at as u64), last);
    }
    Some(())
}

/// Repairs the header and the chunks of a snapshot; with `chains` also the totals at its end.
fn repair_snapshot(bytes: &mut [u8], chains: bool) -> Option<()> {
    let (head, chunks) = bytes.split_at_mut_checked(snapshot::HEADER_BYTES)?;
    put_checksum(head, CHECKSUM_OFFSET)?;
    let header = SnapshotHeader::decode(head).ok()?;
    let mut totals = SnapshotEnd::default();
    let mut checksums = crc32fast::Hasher::new();
    let (mut at, mut index) = (0usize, 0);
    loop {
        let found = snapshot::decode_chunk_header(chunks.get(at..)?)?;
        let whole = chunks.get_mut(at..)?.get_mut(..snapshot::CHUNK_HEADER_BYTES + found.content_bytes as usize)?;
        if !chains {
            let checksum = snapshot::chunk_checksum(whole, header.store, header.lsn)?;
            whole[CHECKSUM_OFFSET..snapshot::CHUNK_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
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

/// The machine whose log a directory holds.
#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
    pub version: u32,
}

/// What a scan of the segments of a directory found.
#[derive(Debug)]
pub struct Scan {
    pub machine: Option<Machine>,
    pub outcome: Result<()>,
}

/// Scans the segments of a directory as recovery does, and compares the frames with a walk that
/// uses no scanner.
///
/// Returns `None` where there is no log. It fails where the directory does not even let a scan
/// begin.
pub fn scan(storage: Arc<dyn Storage>, files: &Files) -> Result<Option<Scan>> {
    let store_dir = StoreDir::new(storage, Access::ReadOnly, Duration::ZERO)?;
    let start = match &store_dir.manifest {
        Some(manifest) => manifest.log_start,
        None => match crate::wal::scan::oldest_usable(&store_dir)? {
            Some(oldest) => oldest.header.base,
            None => return Ok(None),
        },
    };
    let tag = store_dir.manifest.as_ref().map(|manifest| manifest.machine.clone());
    let tag =
        tag.or_else(|| crate::wal::scan::oldest_usable(&store_dir).ok().flatten().map(|oldest| oldest.header.machine));
    let machine = tag.map(|tag| Machine { name: tag.name, version: tag.version });
    let outcome = scanned(&store_dir, start).map(|(frames, end)| {
        for (before, after) in frames.iter().zip(frames.iter().skip(1)) {
            assert!(before.1 <= after.0, "frames follow one another");
        }
        assert!(frames.iter().all(|frame| frame.1 <= end && frame.0 < frame.1));
        if store_dir.segments.first().is_some_and(|segment| segment.base == start) && store_dir.segments.len() == 1 {
            assert_eq!(frames, read_plainly(files, &store_dir));
        }
    });
    Ok(Some(Scan { machine, outcome }))
}

/// Where each frame begins and ends, and where the log ends.
fn scanned(store_dir: &StoreDir, start: Lsn) -> Result<(Vec<(Lsn, Lsn)>, Lsn)> {
    let mut scanner = Scanner::new(store_dir, start)?;
    let ahead = scanner.bytes_ahead();
    let mut frames = Vec::new();
    let mut read = 0;
    while let Some(chunk) = scanner.next_chunk()? {
        for frame in chunk.frames() {
            let _ = frame.records().take_while(|record| record.is_ok()).count();
            frames.push((frame.header.lsn, frame.end()));
        }
        let _ = records_of(&chunk).count();
        read += chunk.bytes();
        scanner.reuse(chunk);
    }
    assert!(read <= ahead, "{read} bytes of {ahead}");
    Ok((frames, scanner.take_end()?.end))
}

/// The frames at the front of the only segment of a directory, read without a scanner.
fn read_plainly(files: &Files, store_dir: &StoreDir) -> Vec<(Lsn, Lsn)> {
    let [segment] = store_dir.segments.as_slice() else { return Vec::new() };
    let bytes = &files[&segment.name];
    let (header, checksum) = SegmentHeader::decode(bytes).unwrap();
    let mut frames = Vec::new();
    let (mut at, mut previous) = (header.block_bytes as usize, checksum);
    let end = usize::try_from(header.file_bytes).unwrap();
    loop {
        let lsn = header.base.plus(at as u64 - u64::from(header.block_bytes));
        let place = Place { store: header.store, epoch: header.epoch, lsn, block_bytes: header.block_bytes };
        match frame::check(&bytes[at.min(end)..end], &place) {
            Ok(frame) if frame.header.previous_checksum == previous => {
                frames.push((lsn, lsn.plus(frame.total_bytes)));
                previous = frame.checksum;
                at += frame.total_bytes as usize;
            }
            _ => return frames,
        }
    }
}

/// Checks and loads a snapshot, writes it to an empty disk, and loads it again. Returns the errors
/// of checking and loading it.
pub fn snapshot(disk: &dyn Storage, empty: &dyn Storage, lsn: u64) -> Vec<Error> {
    let lsn = Lsn::new(lsn);
    let checked = crate::snapshot::check(disk, lsn).err();
    let loaded = match crate::snapshot::load::<Kv>(disk, None, lsn, Help::None, &|_, _| Ok(())) {
        Ok(loaded) => loaded,
        Err(error) => return [Some(error), checked].into_iter().flatten().collect(),
    };
    assert!(checked.is_none(), "a snapshot that can be loaded is whole: {checked:?}");
    let saved = |kv: &Kv| {
        let mut bytes = Vec::new();
        kv.save(&mut bytes).unwrap();
        bytes
    };
    let (state, table) = (saved(&loaded.state), loaded.table.len());
    crate::snapshot::write(empty, &loaded.header, loaded.state, &loaded.table, Help::None, &mut Unpaced).unwrap();
    let again = crate::snapshot::load::<Kv>(empty, Some(loaded.header.store), lsn, Help::None, &|_, _| Ok(())).unwrap();
    assert_eq!((saved(&again.state), again.table.len()), (state, table));
    assert_eq!(again.header, loaded.header);
    Vec::new()
}
