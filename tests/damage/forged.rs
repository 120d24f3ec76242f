//! Forged bytes with valid checksums: frames inside values, whole frames of other places, and
//! extreme lengths and counts.

use crate::common::{Cmd, Rng, Stacks, files, manual, open_on, scale, state};
use crate::layout::{FRAME_HEADER, Frame, Segment, fix_block, fix_frame, fix_snapshot, u32_at};
use crate::stores::{Files, Store, on_disk, options};
use seawal::inspect::{self, Soundness};
use seawal::kv::Kv;
use seawal::recovery::Verdict;
use seawal::sim::{Crash, Fault, Persistence, SimDisk};
use seawal::{Error, RecoveryPolicy, RecoveryReport};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn read_only(disk: &SimDisk) -> seawal::Result<(Stacks, RecoveryReport)> {
    let options = options().recovery(RecoveryPolicy::ReadOnly);
    open_on::<Stacks>(disk, &options).map(|(engine, report)| (state(&engine), report))
}

fn verified(disk: &SimDisk) -> seawal::Result<Soundness> {
    inspect::verify_machine::<Stacks>(Arc::new(disk.clone())).map(|report| report.soundness())
}

/// Opens for writing, and checks that a refusal changes nothing.
fn opened(disk: &SimDisk) -> seawal::Result<Stacks> {
    let before = files(disk);
    let answer = open_on::<Stacks>(disk, &options()).map(|(engine, _)| state(&engine));
    // a machine that panics in the undo does so after the log was cut, so the files have changed
    if !matches!(answer, Ok(_) | Err(Error::Poisoned)) {
        let mut now = files(disk);
        now.retain(|name, _| before.contains_key(name) || name != "LOCK");
        assert!(now == before, "{answer:?}");
    }
    answer
}

/// A store whose files are overwritten, step by step.
struct Forger {
    store: Store,
    files: Files,
}

impl Forger {
    fn of(store: Store) -> Forger {
        Forger { files: store.files.clone(), store }
    }

    fn last(&self) -> &Segment {
        self.store.last()
    }

    /// The frame that a writer would write next: the last commit again, at the end of the log.
    fn next_frame(&self) -> Frame {
        let last = self.last();
        let commit = last.frames.iter().rfind(|frame| frame.records == 1 && frame.payload.len() < 400).unwrap();
        let (lsn, previous) = (last.end(), last.last_checksum(&self.files[&last.name]));
        Frame { lsn, previous, watermark: lsn, ..commit.clone() }
    }

    /// Writes a frame at `blocks` blocks past the end of the log.
    fn put(mut self, blocks: usize, frame: &Frame) -> Forger {
        let (name, block) = (self.last().name.clone(), self.last().block);
        let at = self.last().end_offset() + blocks * block;
        let bytes = frame.forge(block);
        self.files.get_mut(&name).unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
        self
    }

    fn disk(&self) -> SimDisk {
        on_disk(&self.files)
    }
}

fn killed() -> Vec<Store> {
    vec![crate::stores::killed_with_losers(), crate::stores::two_snapshots(), crate::stores::cut()]
}

/// A store with one large value in its last frame. The bytes before the value do not depend on it.
fn with_value(block: u32, value: &[u8]) -> (SimDisk, Segment) {
    let disk = SimDisk::builder().seed(11).block_bytes(block).build();
    let options = manual().segment_bytes(128 << 10).first_segment_bytes(128 << 10).max_log_bytes(4 << 20);
    let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
    engine.insert("before", "1").unwrap();
    engine.insert("large", value).unwrap();
    let disk = disk.crash(Crash::Nothing);
    std::mem::forget(engine);
    let name = disk.file_names().into_iter().rfind(|name| name.ends_with(".seg")).unwrap();
    let segment = Segment::read(&name, &disk.read_file(&name).unwrap());
    (disk, segment)
}

#[test]
fn the_bytes_of_a_frame_inside_a_value_are_never_evidence() {
    for block in [512, 4096] {
        let plain = vec![b'.'; 40_000];
        let (disk, segment) = with_value(block, &plain);
        let frame = segment.frames.last().unwrap();
        let bytes = disk.read_file(&segment.name).unwrap();
        let value_at = frame.at.start + bytes[frame.at.clone()].windows(64).position(|w| w == &plain[..64]).unwrap();
        // at each block boundary in it, a frame for that place, whose watermark covers everything
        // before it
        let mut value = plain.clone();
        let block = block as usize;
        for at in (frame.at.start + block..frame.at.end - block).step_by(block) {
            let lsn = frame.lsn + (at - frame.at.start) as u64;
            let forged = Frame { lsn, watermark: lsn, payload: Vec::new(), records: 0, ..frame.clone() }.forge(block);
            value[at - value_at..][..FRAME_HEADER].copy_from_slice(&forged[..FRAME_HEADER]);
            value[at - value_at + FRAME_HEADER..][..block - FRAME_HEADER].fill(0);
        }
        let (disk, segment) = with_value(block as u32, &value);
        let frame = segment.frames.last().unwrap();
        let options = manual().segment_bytes(128 << 10).first_segment_bytes(128 << 10).max_log_bytes(4 << 20);
        let open = |disk: &SimDisk| open_on::<Kv>(disk, &options);
        let (engine, _) = open(&disk.crash(Crash::Nothing)).unwrap();
        assert_eq!(engine.get("large").unwrap().as_deref(), Some(&value[..]), "the mask is taken off again");
        for lost in 0..frame.at.len() / 512 {
            let disk = disk.crash(Crash::Nothing);
            // zeroes the frame's first block, and one more sector in its middle
            disk.overwrite(&segment.name, frame.at.start as u64, &vec![0; block]).unwrap();
            disk.overwrite(&segment.name, (frame.at.start + lost * 512) as u64, &[0; 512]).unwrap();
            let soundness = inspect::verify(Arc::new(disk.clone())).unwrap().soundness();
            let (engine, report) = open(&disk).unwrap_or_else(|e| panic!("block {block}, {lost} lost: {e:?}"));
            assert_eq!(engine.get("large").unwrap(), None);
            assert_eq!(engine.get("before").unwrap().as_deref(), Some(&b"1"[..]));
            // the interrupted write is detected although its first block is missing
            assert_eq!((report.verdict, soundness), (Verdict::TornTail, Soundness::TornTail), "{report:?}");
            assert_eq!(report.tail.unwrap().later_frames, 0);
        }
    }
}

#[test]
fn a_whole_frame_is_replayed_in_its_own_place_and_in_no_other() {
    for store in killed() {
        let (name, whole) = (store.name, store.whole().clone());
        let forger = || Forger::of(store.clone());
        let next = forger().next_frame();
        // the forged frame counts if all of it fits
        let (found, _) = read_only(&forger().put(0, &next).disk()).unwrap();
        assert_ne!(found, whole, "{name}");
        let cases = [
            ("another store's", Frame { store: next.store ^ 1, ..next.clone() }),
            ("an older epoch's", Frame { epoch: next.epoch - 1, ..next.clone() }),
            ("a later epoch's", Frame { epoch: next.epoch + 1, ..next.clone() }),
            ("of an earlier place", Frame { lsn: next.lsn - 512, ..next.clone() }),
            ("another one's successor", Frame { previous: next.previous ^ 1, ..next.clone() }),
        ];
        for (what, frame) in cases {
            for watermark in [next.watermark, u64::MAX / 2] {
                let disk = forger().put(0, &Frame { watermark, ..frame.clone() }).disk();
                assert_eq!(verified(&disk).unwrap() as u8 & !1, Soundness::Clean as u8, "{name}: {what}");
                assert_eq!(opened(&disk).unwrap(), whole, "{name}: {what}");
            }
        }
        // it was written to a wrong place, so the log went on
        let disk = forger().put(0, &Frame { lsn: next.lsn + 512, ..next }).disk();
        assert_eq!(verified(&disk).unwrap(), Soundness::Damaged, "{name}");
        assert!(matches!(opened(&disk).unwrap_err(), Error::Corrupt { .. }), "{name}");
    }
}

#[test]
fn a_frame_behind_a_hole_is_evidence_only_if_it_is_of_its_place() {
    for store in killed() {
        let (name, whole) = (store.name, store.whole().clone());
        let forger = || Forger::of(store.clone());
        let next = forger().next_frame();
        let end = next.lsn;
        let behind = Frame { lsn: end + 512, ..next };
        for (what, watermark, frame) in [
            ("proves nothing", end, behind.clone()),
            ("another store's", end + 512, Frame { store: behind.store ^ 1, ..behind.clone() }),
            ("another epoch's", end + 512, Frame { epoch: behind.epoch - 1, ..behind.clone() }),
            ("of an earlier place", end + 512, Frame { lsn: end - 512, ..behind.clone() }),
        ] {
            let disk = forger().put(1, &Frame { watermark, ..frame }).disk();
            assert_eq!(opened(&disk).unwrap(), whole, "{name}: {what}");
        }
        let of_its_place = Frame { watermark: end + 512, ..behind.clone() };
        for frame in [of_its_place, Frame { lsn: end + 1024, ..behind.clone() }, Frame { lsn: end, ..behind }] {
            let disk = forger().put(1, &frame).disk();
            assert_eq!(verified(&disk).unwrap(), Soundness::Damaged, "{name}");
            let error = opened(&disk).unwrap_err();
            let at = store.last().end_offset() as u64;
            assert!(matches!(&error, Error::Corrupt { offset, .. } if *offset == Some(at)), "{name}: {error:?}");
        }
    }
}

#[test]
fn a_ghost_tail_is_never_replayed_though_new_frames_fill_the_hole_exactly() {
    for store in killed() {
        let forger = Forger::of(store.clone());
        let next = forger.next_frame();
        // Two frames that were in flight with one that was lost. They are whole and of their place,
        // but they prove nothing.
        let ghosts = [1, 2].map(|n| Frame { lsn: next.lsn + 512 * n, ..next.clone() });
        let disk = forger.put(1, &ghosts[0]).put(2, &ghosts[1]).disk();
        let mut wanted = store.whole().clone();
        for round in 0..4u32 {
            let (engine, report) = open_on::<Stacks>(&disk, &options()).unwrap();
            assert_eq!(state(&engine), wanted, "{}: round {round}: {report:?}", store.name);
            if round == 0 {
                assert_eq!((report.verdict, report.end.get()), (Verdict::TornTail, next.lsn), "{report:?}");
                assert_eq!(report.tail.unwrap().later_frames, 2);
            }
            // a frame that exactly fills the hole
            engine.execute(Cmd::push(50, round)).unwrap();
            wanted = state(&engine);
            if round == 2 {
                engine.checkpoint().unwrap();
                engine.checkpoint().unwrap();
            }
            drop(engine);
            let name = disk.file_names().into_iter().rfind(|name| name.ends_with(".seg")).unwrap();
            let newest = Segment::read(&name, &disk.read_file(&name).unwrap());
            assert_eq!(newest.frames[0].at.len(), 512);
            let room = store.last().file_bytes - store.last().block as u64;
            assert!(newest.base >= store.last().base + room, "{}: an LSN of a ghost is used again", store.name);
        }
    }
}

#[test]
fn a_sealed_segment_must_end_with_the_frame_that_its_successor_follows() {
    let mut tried = 0;
    for store in [crate::stores::killed_with_losers(), crate::stores::recycled(), crate::stores::cut()] {
        let manifest = store.manifest(&store.files).unwrap();
        let start = manifest.snapshots.first().copied().unwrap_or(manifest.origin);
        for segment in &store.segments[..store.segments.len() - 1] {
            let Some(last) = segment.frames.last().filter(|last| last.lsn >= start) else { continue };
            // another whole frame for this place, with the same records
            let mut files = store.files.clone();
            let frame = &mut files.get_mut(&segment.name).unwrap()[last.at.clone()];
            frame[40..48].fill(0);
            fix_frame(frame);
            let error = opened(&on_disk(&files)).unwrap_err();
            assert!(matches!(&error, Error::Corrupt { path, .. } if path.ends_with(&segment.name)), "{error:?}");
            tried += 1;
        }
    }
    assert!(tried > 1, "{tried}");
}

/// Checks that opening and verifying return `UnsupportedVersion`, and change nothing.
fn is_unsupported(files: &Files, what: &str) {
    let disk = on_disk(files);
    let error = opened(&disk).unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { .. }), "{what}: {error:?}");
    let error = verified(&disk).unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { .. }), "{what}: {error:?}");
}

#[test]
fn an_unknown_version_kind_or_flag_is_unsupported_and_not_damage() {
    let store = crate::stores::two_snapshots();
    let change = |name: &str, at: usize, to: u8, fix: &dyn Fn(&mut Vec<u8>)| {
        let mut files = store.files.clone();
        let bytes = files.get_mut(name).unwrap();
        bytes[at] = to;
        fix(bytes);
        files
    };
    let last = store.last().clone();
    let manifest = store.manifest(&store.files).unwrap();
    for frame in last.frames.iter().filter(|frame| frame.lsn >= manifest.snapshots[0]) {
        for (field, to) in [(4, 3), (4, 0x80), (5, 2), (6, 1), (7, 0x80)] {
            let fix = |bytes: &mut Vec<u8>| fix_frame(&mut bytes[frame.at.clone()]);
            is_unsupported(&change(&last.name, frame.at.start + field, to, &fix), &format!("{frame:?}: {field}"));
        }
    }
    let newest = format!("{:016x}.snap", manifest.snapshots[0]);
    for (field, to) in [(8, 2), (9, 1), (10, 1), (11, 0x80)] {
        let segment = |bytes: &mut Vec<u8>| fix_block(&mut bytes[..last.block]);
        is_unsupported(&change(&last.name, field, to, &segment), "a segment");
        is_unsupported(&change(&newest, field, to, &|bytes| fix_block(&mut bytes[..512])), "a snapshot");
        for name in ["MANIFEST-0", "MANIFEST-1"] {
            is_unsupported(&change(name, field, to, &|bytes| fix_block(bytes)), name);
        }
        // a file that is not needed does not prevent the open, but it is reported
        let older = format!("{:016x}.snap", manifest.snapshots[1]);
        let disk = on_disk(&change(&older, field, to, &|bytes| fix_block(&mut bytes[..512])));
        assert_eq!(verified(&disk).unwrap(), Soundness::Degraded);
        assert_eq!(&opened(&disk).unwrap(), store.whole());
    }
}

const EXTREMES: [u64; 9] = [0, 1, 127, 128, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX / 2 + 1, u64::MAX];

/// Opens and verifies forged files. Any result is accepted, but no panic, no long wait and no large
/// allocation. An error must change nothing.
fn survives(files: &Files, what: &str) {
    let begun = Instant::now();
    let info = allocation_counter::measure(|| {
        let disk = on_disk(files);
        let read = read_only(&disk);
        let seen = verified(&disk);
        let done = opened(&disk);
        for error in [read.err(), seen.err(), done.err()].into_iter().flatten() {
            let version = matches!(error, Error::UnsupportedVersion { .. } | Error::OtherMachine { .. });
            let version = version || matches!(error, Error::NotAStore { .. } | Error::Unreadable { .. });
            assert!(version || matches!(error, Error::Corrupt { .. } | Error::Poisoned), "{what}: {error:?}");
        }
    });
    assert!(info.bytes_max < 8 << 20, "{what}: {} bytes", info.bytes_max);
    assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
}

/// The peak address space of this process in bytes, or 0 if the system does not report it.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.unwrap_or(0) * 1024
}

/// Writes extreme numbers to every place in a range of a file.
fn distort(store: &Store, name: &str, range: std::ops::Range<usize>, fix: &dyn Fn(&mut [u8])) {
    let mut rng = Rng::new(range.start as u64);
    for at in range.clone() {
        for width in [1, 4, 8] {
            let number = EXTREMES[rng.below(EXTREMES.len() as u64) as usize].to_le_bytes();
            let mut files = store.files.clone();
            let bytes = files.get_mut(name).unwrap();
            if at + width > range.end {
                continue;
            }
            bytes[at..at + width].copy_from_slice(&number[..width]);
            fix(bytes);
            survives(&files, &format!("{name} at {at}: {number:x?}"));
        }
    }
}

#[test]
fn hostile_numbers_in_headers_neither_panic_nor_allocate() {
    let store = crate::stores::two_snapshots();
    let last = store.last().clone();
    for name in ["MANIFEST-0", "MANIFEST-1"] {
        distort(&store, name, 16..140, &|bytes| fix_block(bytes));
    }
    distort(&store, &last.name, 16..96, &|bytes| {
        // the checksum covers the block size that the header now states, as far as the file goes
        let block = (u32_at(bytes, 16) as usize).clamp(512, bytes.len());
        fix_block(&mut bytes[..block]);
    });
    for frame in [&last.frames[0], last.frames.last().unwrap()] {
        let (start, end) = (frame.at.start, frame.at.end);
        distort(&store, &last.name, start + 12..start + FRAME_HEADER, &|bytes| {
            let len = FRAME_HEADER as u64 + u64::from(u32_at(bytes, start + 48)) + u64::from(u32_at(bytes, start + 60));
            let stated = bytes.len().min(start.saturating_add(len as usize));
            fix_frame(&mut bytes[start..stated.max(end)]);
        });
    }
    assert!(address_space() < 4 << 30, "{}", address_space());
}

#[test]
fn hostile_numbers_in_records_and_snapshots_neither_panic_nor_allocate() {
    let store = crate::stores::recycled();
    let last = store.last().clone();
    for frame in last.frames.iter().rev().take(2) {
        let payload = frame.at.start + FRAME_HEADER;
        distort(&store, &last.name, payload..payload + 40, &|bytes| fix_frame(&mut bytes[frame.at.clone()]));
    }
    // the newest snapshot contains open transactions
    let newest = format!("{:016x}.snap", store.manifest(&store.files).unwrap().snapshots[0]);
    let len = store.files[&newest].len();
    let ranges = [16..72, 512..560, len - 130..len];
    ranges.into_iter().for_each(|range| distort(&store, &newest, range, &fix_snapshot));
    assert!(address_space() < 4 << 30, "{}", address_space());
}

#[test]
fn records_of_any_bytes_are_carried_out_or_refused() {
    let store = crate::stores::killed_with_losers();
    let mut rng = Rng::new(12);
    for round in 0..300 * scale() {
        let forger = Forger::of(store.clone());
        let next = forger.next_frame();
        let mut payload = next.payload.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(payload.len() as u64) as usize;
            payload[at] = if rng.one_in(2) { rng.next() as u8 } else { rng.below(6) as u8 };
        }
        if rng.one_in(4) {
            payload = (0..rng.below(300)).map(|_| rng.next() as u8).collect();
        }
        let records = if rng.one_in(4) { rng.next() as u32 } else { 1 };
        let forged = forger.put(0, &Frame { payload, records, ..next });
        survives(&forged.files, &format!("round {round}"));
    }
}

#[test]
fn a_search_reads_each_byte_once_however_many_blocks_claim_to_be_frames() {
    const FILE: usize = 24 << 20;
    let disk = crate::stores::disk(1);
    let (engine, _) = open_on::<Stacks>(&disk, &options()).unwrap();
    let disk = disk.crash(Crash::Nothing);
    std::mem::forget(engine);
    let name = disk.file_names().into_iter().rfind(|name| name.ends_with(".seg")).unwrap();
    let mut bytes = disk.read_file(&name).unwrap();
    bytes.resize(FILE, 0);
    bytes[72..80].copy_from_slice(&(FILE as u64).to_le_bytes());
    fix_block(&mut bytes[..512]);
    let segment = Segment::read(&name, &bytes);
    for every in [512, 64 << 10, 5 << 20] {
        let mut bytes = bytes.clone();
        bytes[512..FILE].fill(b'.');
        for at in (1024..FILE).step_by(every) {
            let lsn = segment.base + (at - 512) as u64;
            let claim = Frame {
                at: at..at,
                store: segment.store,
                epoch: segment.epoch,
                lsn,
                watermark: 0,
                records: 1,
                previous: 0,
                payload: Vec::new(),
            };
            // the header claims all the rest of the file, and its checksum is for a shorter frame
            let mut head = claim.forge(512)[..FRAME_HEADER].to_vec();
            head[48..52].copy_from_slice(&((FILE - at - FRAME_HEADER) as u32).to_le_bytes());
            head[60..64].fill(0);
            bytes[at..at + FRAME_HEADER].copy_from_slice(&head);
        }
        let disk = disk.crash(Crash::Nothing);
        disk.write_file(&name, &bytes);
        disk.enable_trace();
        let begun = Instant::now();
        let (found, report) = read_only(&disk).unwrap();
        assert!(found == Stacks::default() && report.tail.is_some_and(|tail| tail.later_frames == 0));
        let reads = disk.trace().iter().filter(|line| line.contains("Read")).map(|line| read_bytes(line)).sum::<u64>();
        assert!(reads < 3 * FILE as u64, "claims every {every} bytes: {reads} bytes were read of {FILE}");
        assert!(begun.elapsed() < Duration::from_secs(15), "claims every {every} bytes: {:?}", begun.elapsed());
    }
}

/// The length of a read, from a line of the trace.
fn read_bytes(line: &str) -> u64 {
    line.split_whitespace().filter_map(|word| word.parse().ok()).next_back().unwrap_or(0)
}

#[test]
fn a_manifest_that_power_loss_takes_back_still_leads_to_everything() {
    let scene = |ops: Option<u64>| {
        let disk = crate::stores::disk(3);
        let (engine, _) = open_on::<Stacks>(&disk, &options()).unwrap();
        for n in 0..40 {
            engine.execute(Cmd::push(1, n)).unwrap();
        }
        engine.checkpoint().unwrap();
        let before = disk.op_count();
        if let Some(op) = ops {
            disk.fail_at(before + op, Fault::Crash, Persistence::ForEver);
        }
        let _ = engine.checkpoint();
        let ops = disk.op_count() - before;
        std::mem::forget(engine);
        (disk, ops)
    };
    let (_, ops) = scene(None);
    for op in 0..ops {
        // The process is killed in the middle of a publication. The next open sees the page cache's
        // content.
        let disk = scene(Some(op)).0.crash(Crash::KillOnly);
        let (engine, _) = open_on::<Stacks>(&disk, &options()).unwrap();
        for n in 40..60 {
            engine.execute(Cmd::push(1, n)).unwrap();
        }
        for _ in 0..2 {
            engine.checkpoint().unwrap();
        }
        engine.execute(Cmd::push(2, 2)).unwrap();
        let wanted = state(&engine);
        assert_eq!(wanted.at(1).len(), 60);
        for crash in [Crash::Nothing, Crash::Seeded(op)] {
            let (engine, report) = open_on::<Stacks>(&disk.crash(crash), &options()).unwrap();
            assert_eq!(state(&engine), wanted, "killed at {op}: {report:?}");
        }
        std::mem::forget(engine);
    }
}
