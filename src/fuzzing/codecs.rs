//! The targets that need no disk: frames, records with their commands, headers.

use super::directory::Flags;
use crate::format::bytes::{Take, round_up};
use crate::format::frame::{self, FrameFault, HEADER_BYTES, Place};
use crate::format::manifest::{MANIFEST_BYTES, Manifest};
use crate::format::record::Record;
use crate::format::segment::{SegmentHeader, put_checksum};
use crate::format::snapshot::SnapshotHeader;
use crate::format::{Epoch, Lsn, StoreId};
use crate::kv::{Kv, KvCommand};
use crate::machine::{BulkMachine, StateMachine};

/// Where every header keeps its checksum.
pub(super) const HEADER_CHECKSUM_OFFSET: usize = 12;

/// A frame, its records, and the commands in them.
pub fn frame(data: &[u8]) {
    let Some((flags, bytes)) = Flags::split(data) else { return };
    let mut bytes = bytes.to_vec();
    let block_bytes = flags.block_bytes();
    if flags.mends_checksums() {
        bytes.resize(round_up(bytes.len() as u64, u64::from(block_bytes)) as usize, 0);
        let stated = frame::stated_bytes(&bytes).and_then(|total| usize::try_from(total).ok());
        if let Some(frame) = stated.and_then(|total| bytes.get_mut(..total)) {
            frame::mend(frame, None);
        }
    }
    let place = place_claimed(&bytes, block_bytes).unwrap_or(Place {
        store: StoreId::new(7),
        epoch: Epoch::new(3),
        lsn: Lsn::new(4096),
        block_bytes,
    });
    let elsewhere = Place { lsn: place.lsn.plus(1), ..place };
    let checked = match frame::check(&bytes, &place) {
        Ok(checked) => checked,
        Err(fault) => {
            assert!(!fault.reason().is_empty());
            return;
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
    let mut taken = 0;
    for found in decoded.records() {
        let Ok((lsn, bytes)) = found else { break };
        assert!(lsn > last || lsn == Lsn::new(u64::MAX), "the records' LSNs ascend");
        assert!(lsn < decoded.end() || lsn == Lsn::new(u64::MAX), "and lie in the frame");
        last = lsn;
        taken += 1;
        check_record(lsn, bytes);
    }
    assert!(taken <= decoded.header.records && taken as usize <= total - HEADER_BYTES);
}

/// Where the frame at the front of `bytes` says that it belongs.
fn place_claimed(bytes: &[u8], block_bytes: u32) -> Option<Place> {
    let mut take = Take(bytes.get(16..)?);
    let (store, epoch) = (StoreId::new(take.u64()?), Epoch::new(take.u64()?));
    Some(Place { store, epoch, lsn: Lsn::new(take.u64()?), block_bytes })
}

/// A record and its command: eight bytes of LSN, then the record.
pub fn record(data: &[u8]) {
    let mut take = Take(data);
    let Some(lsn) = take.u64() else { return };
    check_record(Lsn::new(lsn), take.0);
}

/// What can be read has one encoding, which is the one it was read from.
fn check_record(lsn: Lsn, bytes: &[u8]) {
    let Some(record) = Record::decode(lsn, bytes) else { return };
    let command = match record {
        Record::Update { command, .. } | Record::Execute { command, .. } => command,
        _ => &[],
    };
    assert_eq!([record.head(lsn).as_slice(), command].concat(), bytes, "a record has one encoding");
    check_command(command);
}

fn check_command(bytes: &[u8]) {
    let decoded: Result<KvCommand, _> = Kv::decode(bytes, Kv::VERSION);
    let mut one_by_one = Kv::default();
    let mut at_once = Kv::default();
    let redone = at_once.redo(&[bytes], Kv::VERSION);
    at_once.finish_redo();
    let Ok(command) = decoded else {
        // a command that is rejected early is not read to its end: damage all the same
        assert!(redone.is_err(), "redoing accepts what decoding does not");
        return;
    };
    let mut again = Vec::new();
    Kv::encode(&command, &mut again);
    assert_eq!(again, bytes, "a command has one encoding");
    assert_eq!(Kv::encoded_len(&command), bytes.len());
    let _ = Kv::footprint(&command);
    let applied = one_by_one.apply(&command);
    assert_eq!(applied.is_ok(), redone.is_ok(), "redoing accepts what applying accepts");
    if let Ok((_, inverse)) = applied {
        assert_eq!(saved(&one_by_one), saved(&at_once), "redoing does what applying does");
        assert!(one_by_one.apply(&inverse).is_ok(), "an inverse never rejects");
    }
    assert_eq!(
        saved(&one_by_one),
        saved(&Kv::default()),
        "an inverse restores the state, and a rejection changes nothing"
    );
}

pub(super) fn saved(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::new();
    kv.save(&mut bytes).unwrap();
    bytes
}

/// A manifest copy, and the same bytes as every other header.
pub fn manifest(data: &[u8]) {
    let Some((flags, bytes)) = Flags::split(data) else { return };
    let mut block = bytes.to_vec();
    let decodes = |block: &[u8]| {
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
            let mut again = vec![0; crate::format::snapshot::HEADER_BYTES];
            header.encode(&mut again).unwrap();
            assert_eq!(SnapshotHeader::decode(&again), Ok(header));
        }
    };
    if !flags.mends_checksums() {
        return decodes(&block);
    }
    block.resize(MANIFEST_BYTES, 0);
    for covered in [crate::format::snapshot::HEADER_BYTES, flags.block_bytes() as usize, MANIFEST_BYTES] {
        put_checksum(&mut block[..covered], HEADER_CHECKSUM_OFFSET);
        decodes(&block);
    }
}
