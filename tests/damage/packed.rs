//! Frames that are written but not durable: several in a block, a durable one at its end, and
//! damage to each of them.

use crate::common::{files, manual, open_on};
use crate::layout::Segment;
use crate::stores::{Files, on_disk};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::{Crash, SimDisk};
use seawal::{Durability, Engine, Error};

const BLOCK: usize = 4096;

fn key(n: usize) -> String {
    format!("{n:04}")
}

/// Executes commits, of which every hundredth and the one after it are durable. Returns the disk,
/// the number of commits, and how many of the first of them are known to be durable.
fn written() -> (SimDisk, usize, usize) {
    let disk = SimDisk::builder().seed(3).block_bytes(BLOCK as u32).build();
    let options = manual().segment_bytes(256 << 10).first_segment_bytes(256 << 10).max_log_bytes(4 << 20);
    let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
    let mut durable = 0;
    for n in 0..330 {
        let durability = if n % 100 < 2 && n > 2 { Durability::Sync } else { Durability::Os };
        engine.execute_with(KvCommand::put("", key(n), vec![n as u8; n % 77]), durability).unwrap();
        if durability == Durability::Sync {
            durable = n + 1;
        }
    }
    let left = disk.crash(Crash::Everything);
    let lost = disk.crash(Crash::Nothing);
    std::mem::forget(engine);
    assert_eq!(count(&opened(&lost).unwrap()), durable, "power loss leaves what was told to be durable");
    (left, 330, durable)
}

fn opened(disk: &SimDisk) -> seawal::Result<Engine<Kv>> {
    open_on::<Kv>(disk, &manual()).map(|(engine, _)| engine)
}

/// The number of commits that were recovered. They must be the first ones.
fn count(engine: &Engine<Kv>) -> usize {
    let count = (0..400).take_while(|n| engine.get(key(*n)).unwrap().is_some()).count();
    assert!((count..400).all(|n| engine.get(key(n)).unwrap().is_none()));
    count
}

fn newest(files: &Files) -> Segment {
    let name = files.keys().rfind(|name| name.ends_with(".seg")).unwrap();
    Segment::read(name, &files[name])
}

/// For one of these lengths, a frame begins on a block boundary after one that was only written. It
/// can then be found without that frame.
#[test]
fn a_written_frame_that_survives_alone_proves_nothing_of_those_before_it() {
    let (mut behind, mut alone) = (0, 0);
    for len in (3000..4096).step_by(16) {
        let disk = SimDisk::builder().seed(3).block_bytes(BLOCK as u32).build();
        let (engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
        for (n, len) in [(0, len), (1, 20)] {
            engine.execute_with(KvCommand::put("", key(n), vec![1; len]), Durability::Os).unwrap();
        }
        let frames = newest(&files(&disk.crash(Crash::KillOnly))).frames;
        behind += usize::from(frames[1].at.start.is_multiple_of(BLOCK));
        for unit in 0..24 {
            for crash in [Crash::Only(unit), Crash::AllBut(unit)] {
                let left = disk.crash(crash);
                let store = opened(&left).unwrap_or_else(|e| panic!("{len} bytes, {crash:?}: {e}"));
                alone += usize::from(count(&store) == 0);
            }
        }
        std::mem::forget(engine);
    }
    assert!(behind > 0 && alone > 0, "{behind}, {alone}");
}

#[test]
fn written_frames_share_a_block_and_a_durable_one_ends_it() {
    let (disk, all, durable) = written();
    let files = files(&disk);
    let segment = newest(&files);
    assert_eq!(segment.frames.len(), all);
    let mut proven = segment.base;
    for (n, frame) in segment.frames.iter().enumerate() {
        assert!(frame.at.start.is_multiple_of(64) && frame.at.end.is_multiple_of(64));
        assert_eq!(frame.watermark, proven, "frame {n}");
        let is_durable = n % 100 < 2 && n > 2;
        if is_durable {
            assert!(frame.at.end.is_multiple_of(BLOCK), "frame {n}");
            proven = frame.end();
        } else {
            // the padding is at most the rest of the block that cannot hold a header
            assert!(frame.at.len() < 64 + 64 + 100 + 64, "frame {n} of {} bytes", frame.at.len());
        }
        if frame.watermark > segment.base && segment.frames[n - 1].watermark < frame.watermark {
            assert!(frame.at.start.is_multiple_of(BLOCK), "the first frame behind a sync can be searched for");
        }
    }
    assert!(segment.frames.iter().any(|frame| !frame.at.start.is_multiple_of(BLOCK)));
    assert_eq!(count(&opened(&disk).unwrap()), all, "a kill takes nothing");
    assert!(durable < all);
}

#[test]
fn damage_to_a_written_frame_is_refused_where_a_later_watermark_proves_it_and_cut_elsewhere() {
    let (disk, _, durable) = written();
    let files = files(&disk);
    let segment = newest(&files);
    let (mut refused, mut cut) = (0, 0);
    for (n, frame) in segment.frames.iter().enumerate() {
        for at in [frame.at.start, frame.at.start + 40, frame.at.start + 66, frame.at.end - 1] {
            let mut broken = files.clone();
            broken.get_mut(&segment.name).unwrap()[at] ^= 0x20;
            let answer = opened(&on_disk(&broken));
            // the frame after the last durable one proves that one
            if n < durable {
                assert!(matches!(&answer, Err(Error::Corrupt { .. })), "frame {n}, byte {at}: {answer:?}");
                refused += 1;
            } else {
                assert_eq!(count(&answer.unwrap()), n, "byte {at}");
                cut += 1;
            }
        }
    }
    assert!(refused > 0 && cut > 0);
}

#[test]
fn a_log_that_was_cut_inside_a_block_goes_on_and_is_read_again() {
    let (disk, all, _) = written();
    for round in 1..4 {
        let (engine, _) = open_on::<Kv>(&disk, &manual()).unwrap();
        assert_eq!(count(&engine), all + round - 1);
        engine.execute_with(KvCommand::put("", key(all + round - 1), "x"), Durability::Os).unwrap();
        drop(engine);
    }
    assert_eq!(count(&opened(&disk.crash(Crash::Everything)).unwrap()), all + 3);
}
