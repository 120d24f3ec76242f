//! The encodings of every codec, compared with `tests/compat/golden/codecs.txt`.
//!
//! No line of that file can change without a format number and a reader for the old one: stores that
//! exist hold these bytes. New lines may be added.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here fails the test")]

use crate::format::frame::{self, FrameHeader, FrameKind, Place};
use crate::format::manifest::{MANIFEST_BYTES, Manifest, SnapshotEntry};
use crate::format::record::Record;
use crate::format::segment::SegmentHeader;
use crate::format::snapshot::{
    CHUNK_HEADER_BYTES, ChunkKind, END_BYTES, HEADER_BYTES, SnapshotEnd, SnapshotHeader, chunk_checksum,
    decode_chunk_header, seal_chunk,
};
use crate::ids::{Epoch, Lsn, MachineTag, SegmentId, StoreId, TxnId};
use crate::kv::{Key, Kv, KvCommand};

use crate::machine::{Digest, StateMachine};
use crate::varint::{put_varint, split_varint};
use std::fmt::Write;

const GOLDEN: &str = include_str!("../tests/compat/golden/codecs.txt");
const STORE: StoreId = StoreId::new(0x1122_3344_5566_7788);

fn tag() -> MachineTag {
    MachineTag { name: "kv".into(), version: 3 }
}

/// Lowercase hex. Zeros at the end are left out, and the whole length comes first.
fn line(name: &str, bytes: &[u8]) -> String {
    let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut text = format!("{name} {}:", bytes.len());
    bytes[..len].iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
    text
}

/// The bytes that a line of the golden file stands for.
fn golden(name: &str) -> Vec<u8> {
    let start = format!("{name} ");
    let rest = GOLDEN.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {name}"));
    let (len, hex) = rest.split_once(':').unwrap();
    let mut bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    bytes.resize(len.parse().unwrap(), 0);
    bytes
}

fn commands() -> [(&'static str, KvCommand); 5] {
    let swap = |expected, new| KvCommand::compare_and_set("t", "key", expected, new);
    [
        ("command-put", KvCommand::put("table", "key", vec![7; 130])),
        ("command-delete", KvCommand::delete("", "key")),
        ("command-compare-and-set", swap(Some("old"), Some("new"))),
        ("command-compare-and-set-none", swap(None::<&str>, None::<&str>)),
        (
            "command-batch",
            KvCommand::batch([KvCommand::put("", "a", "b"), KvCommand::batch([KvCommand::delete("x", "y")])]),
        ),
    ]
}

/// The LSN of the records.
const AT: Lsn = Lsn::new(70_000);

fn records() -> [(&'static str, Record<'static>, &'static [u8]); 8] {
    let txn = TxnId::from(Lsn::new(69_000));
    [
        ("record-update", Record::Update { txn, command: b"command" }, b"command"),
        ("record-commit", Record::Commit { txn, wall_micros: 1 << 50 }, b""),
        ("record-abort", Record::Abort { txn }, b""),
        ("record-clr", Record::Clr { txn, undo_next: Some(Lsn::new(69_100)) }, b""),
        ("record-clr-last", Record::Clr { txn, undo_next: None }, b""),
        ("record-execute", Record::Execute { wall_micros: 300, command: b"command" }, b"command"),
        ("record-point", Record::Point, b""),
        ("record-digest", Record::Digest { point: Lsn::new(69_500), digest: 0x0123_4567_89ab_cdef }, b""),
    ]
}

fn manifest() -> Manifest {
    let snapshot = |lsn, file_bytes| SnapshotEntry { lsn: Lsn::new(lsn), file_bytes };
    Manifest {
        counter: 9,
        store: STORE,
        epoch: Epoch::new(4),
        log_start: Lsn::new(4096),
        watermark: Lsn::new(40_960),
        clean_end: Lsn::new(45_056),
        segment: SegmentId::new(6),
        origin: Lsn::new(4096),
        block_bytes: 4096,
        machine: tag(),
        snapshots: vec![snapshot(20_480, 777), snapshot(8192, 666)],
        shape: vec![1, 2, 3],
    }
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        block_bytes: 512,
        previous_checksum: 0xaabb_ccdd,
        store: STORE,
        id: SegmentId::new(6),
        epoch: Epoch::new(4),
        base: Lsn::new(40_960),
        previous_end: Lsn::new(36_864),
        watermark: Lsn::new(36_352),
        file_bytes: 65_536,
        machine: tag(),
    }
}

fn snapshot() -> SnapshotHeader {
    let (lsn, epoch) = (Lsn::new(20_480), Epoch::new(4));
    SnapshotHeader { store: STORE, lsn, epoch, wall_micros: 1 << 50, machine: tag() }
}

fn frame_header() -> FrameHeader {
    FrameHeader {
        kind: FrameKind::Records,
        store: STORE,
        epoch: Epoch::new(4),
        lsn: Lsn::new(40_960),
        watermark: Lsn::new(36_864),
        payload_bytes: 452,
        records: 1,
        previous_checksum: 0xaabb_ccdd,
    }
}

/// A frame of two blocks, whose record holds the magic at the second block, so that it is masked.
fn frame_bytes() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    // the length 450 as a varint, and then the record
    bytes[64..66].copy_from_slice(&[0xc2, 0x03]);
    bytes[66..516].fill(b'r');
    bytes[512..516].copy_from_slice(b"SWFR");
    bytes
}

const CHUNKS: [(&str, ChunkKind); 3] = [
    ("chunk-part", ChunkKind::Part),
    ("chunk-state", ChunkKind::State),
    ("chunk-transactions", ChunkKind::Transactions),
];

fn chunk(kind: ChunkKind) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK_HEADER_BYTES];
    bytes.extend_from_slice(b"content");
    seal_chunk(&mut bytes, kind, 5, STORE, snapshot().lsn).unwrap();
    bytes
}

fn end() -> SnapshotEnd {
    SnapshotEnd { state_bytes: 1 << 33, transaction_bytes: 12, checksum: 0xaabb_ccdd }
}

const VARINTS: [u64; 6] = [0, 127, 128, 300, 1 << 50, u64::MAX];

/// All lines of the golden file, as the present code writes them.
fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |name: &str, bytes: &[u8]| lines.push(line(name, bytes));
    for number in VARINTS {
        let mut bytes = Vec::new();
        put_varint(number, &mut bytes);
        add(&format!("varint-{number}"), &bytes);
    }
    for (name, command) in commands() {
        let mut bytes = Vec::new();
        Kv::encode(&command, &mut bytes);
        add(name, &bytes);
    }
    for (name, record, command) in records() {
        add(name, &[record.head(AT).as_slice(), command].concat());
    }
    let mut bytes = frame_bytes();
    frame::seal(&mut bytes, &frame_header()).unwrap();
    add("frame", &bytes);
    let mut bytes = vec![0; 512];
    segment().encode(&mut bytes).unwrap();
    add("segment-header", &bytes);
    let mut bytes = vec![0; MANIFEST_BYTES];
    manifest().encode(&mut bytes).unwrap();
    add("manifest", &bytes);
    let mut bytes = vec![0; HEADER_BYTES];
    snapshot().encode(&mut bytes).unwrap();
    add("snapshot-header", &bytes);
    CHUNKS.iter().for_each(|(name, kind)| add(name, &chunk(*kind)));
    let mut bytes = vec![0; END_BYTES];
    end().encode(&mut bytes).unwrap();
    add("snapshot-end", &bytes);
    let mut digest = Digest::new();
    digest.update(b"a state of nineteen");
    add("digest", &digest.finish().to_le_bytes());
    add("key-u64", 7u64.encode().as_ref());
    add("key-i64", (-7i64).encode().as_ref());
    add("key-str", "ab".encode());
    add("key-parts", ("a\0b".to_owned(), 7u8, Some(-1i16)).encode().as_ref());
    lines
}

#[test]
fn every_codec_writes_the_bytes_that_it_wrote() {
    let lines = lines();
    let wanted: Vec<&str> = GOLDEN.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines == wanted, "these are the bytes now:\n{}", lines.join("\n"));
}

#[test]
fn every_codec_reads_the_bytes_that_it_wrote() {
    for number in VARINTS {
        assert_eq!(split_varint(&golden(&format!("varint-{number}"))), Ok(Some((number, &[][..]))));
    }
    for (name, command) in commands() {
        assert_eq!(Kv::decode(&golden(name), Kv::VERSION).unwrap(), command, "{name}");
    }
    for (name, record, _) in records() {
        assert_eq!(Record::decode(AT, &golden(name)), Some(record), "{name}");
    }
    let header = frame_header();
    let place = Place { store: STORE, epoch: header.epoch, lsn: header.lsn, block_bytes: 512 };
    let mut bytes = golden("frame");
    let frame = frame::decode(&mut bytes, &place).unwrap();
    assert_eq!((frame.header, frame.total_bytes), (header, 1024));
    let found: Vec<_> = frame.records().map(Result::unwrap).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, &frame_bytes()[66..516]);
    assert_eq!(SegmentHeader::decode(&golden("segment-header")).unwrap().0, segment());
    assert_eq!(Manifest::decode(&golden("manifest")).unwrap(), manifest());
    assert_eq!(SnapshotHeader::decode(&golden("snapshot-header")).unwrap(), snapshot());
    for (name, kind) in CHUNKS {
        let bytes = golden(name);
        let header = decode_chunk_header(&bytes).unwrap();
        assert_eq!((header.kind, header.index, header.content_bytes), (kind, 5, 7), "{name}");
        assert_eq!(chunk_checksum(&bytes, STORE, snapshot().lsn), Some(header.checksum), "{name}");
    }
    assert_eq!(SnapshotEnd::decode(&golden("snapshot-end")), Some(end()));
    assert_eq!(u64::decode(&golden("key-u64")).unwrap(), 7);
    assert_eq!(i64::decode(&golden("key-i64")).unwrap(), -7);
    assert_eq!(str::decode(&golden("key-str")).unwrap(), "ab");
    let parts = <(String, u8, Option<i16>)>::decode(&golden("key-parts")).unwrap();
    assert_eq!(parts, ("a\0b".to_owned(), 7, Some(-1)));
}
