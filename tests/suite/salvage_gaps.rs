//! The gaps that salvage reports: where they end, and how small they are.

use crate::common::{Cmd, Stacks, manual, names, open, open_on};
use seawal::Durability;
use seawal::kv::Kv;
use seawal::salvage::{Outcome, Reach, SalvageReport, salvage};
use seawal::sim::{Crash, SimDisk};
use std::sync::Arc;

fn salvaged(disk: &SimDisk) -> (SalvageReport, Option<Stacks>) {
    let target = SimDisk::new(9);
    let report = salvage::<Stacks>(Arc::new(disk.clone()), Arc::new(target.clone()), Reach::Proven).unwrap();
    let state = (report.outcome != Outcome::Nothing)
        .then(|| open_on::<Stacks>(&target, &manual()).unwrap().0.read(Stacks::clone).unwrap());
    (report, state)
}

/// The offset in the file of a segment's last frame with records.
fn last_block(disk: &SimDisk, name: &str) -> u64 {
    let bytes = disk.read_file(name).unwrap();
    let used = bytes.chunks(4096).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap();
    used as u64 * 4096
}

#[test]
fn where_a_store_was_closed_the_report_says_up_to_where_the_end_is_missing() {
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    for n in 0..5 {
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    engine.close().unwrap();
    let end = open(&disk.crash(Crash::Nothing)).1.end;
    let segment = names(&disk, ".seg").pop().unwrap();
    disk.overwrite(&segment, last_block(&disk, &segment) - 4096, &[0; 8192]).unwrap();
    let (report, state) = salvaged(&disk);
    let [gap] = report.gaps[..] else { panic!("{report}") };
    assert_eq!((Some(gap.from), gap.to), (report.end, Some(end)), "{report}");
    assert!(report.to_string().contains(&format!("missing: LSN {} to {end}", gap.from)), "{report}");
    assert!(state.is_some_and(|state| !state.at(1).is_empty()));
    // a single copy of the manifest may be from an earlier time
    for copy in ["MANIFEST-0", "MANIFEST-1"] {
        let disk = disk.crash(Crash::Nothing);
        disk.overwrite(copy, 0, &[1; 64]).unwrap();
        let report = salvaged(&disk).0;
        assert!(report.gaps.iter().all(|gap| gap.to.is_none()), "{copy}: {report}");
    }
    // the end is also unknown if the store was opened again
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.close().unwrap();
    drop(engine);
    let (engine, _) = open(&disk);
    for n in 2..5 {
        engine.execute(Cmd::push(1, n)).unwrap();
    }
    // a drop would name the end
    let disk = disk.crash(Crash::Nothing);
    let segment = names(&disk, ".seg").pop().unwrap();
    disk.remove_file(&segment).unwrap();
    let report = salvaged(&disk).0;
    let [gap] = report.gaps[..] else { panic!("{report}") };
    assert_eq!(gap.to, None, "{report}");
    // Even if the manifest still names that end: the segments that follow begin after it.
    let disk = SimDisk::new(1);
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.close().unwrap();
    drop(engine);
    let manifests = ["MANIFEST-0", "MANIFEST-1"].map(|name| (name, disk.read_file(name).unwrap()));
    let (engine, report) = open(&disk);
    let end = report.end;
    engine.execute(Cmd::push(1, 2)).unwrap();
    let disk = disk.crash(Crash::Nothing);
    manifests.iter().for_each(|(name, bytes)| disk.write_file(name, bytes));
    for segment in names(&disk, ".seg") {
        let len = disk.read_file(&segment).unwrap().len();
        disk.overwrite(&segment, 4096, &vec![0; len - 4096]).unwrap();
    }
    let report = salvaged(&disk).0;
    assert!(!report.gaps.is_empty() && report.gaps.iter().all(|gap| gap.to != Some(end)), "{report}");
}

#[test]
fn behind_damage_within_a_block_salvage_goes_on_where_a_frame_can_be_told_from_a_value() {
    let disk = SimDisk::new(2);
    let (engine, _) =
        open_on::<Stacks>(&disk, &manual().segment_bytes(64 << 10).first_segment_bytes(64 << 10)).unwrap();
    // Each commit is a frame of three times 64 bytes. Every third one begins at a multiple of 512,
    // in any block.
    for n in 0..150 {
        engine.execute_with(Cmd::Push { key: 1, value: n, pad: 100 }, Durability::Os).unwrap();
    }
    engine.sync().unwrap();
    engine.execute(Cmd::push(2, 2)).unwrap();
    let disk = disk.crash(Crash::Nothing);
    let segment = names(&disk, ".seg").pop().unwrap();
    let bytes = disk.read_file(&segment).unwrap();
    let frames: Vec<usize> = (4096..bytes.len()).step_by(64).filter(|at| bytes[*at..].starts_with(b"SWFR")).collect();
    assert!(frames.windows(2).filter(|pair| pair[1] - pair[0] == 192).count() > 140, "{frames:?}");
    let (mut most, mut lost) = (0, 0);
    for pair in frames[10..140].windows(2) {
        let disk = disk.crash(Crash::Nothing);
        disk.flip_bit(&segment, pair[0] as u64 + 80, 1).unwrap();
        let (report, state) = salvaged(&disk);
        let [gap] = report.gaps[..] else { panic!("{report}") };
        let to = gap.to.unwrap();
        let missing = to.get() - gap.from.get();
        // the log continues at the first frame that begins at a multiple of 512
        let first = frames.iter().find(|at| **at > pair[0] && at.is_multiple_of(512)).unwrap();
        assert_eq!(missing, (first - pair[0]) as u64, "{report}");
        assert_eq!(report.behind.frames as usize, frames.iter().filter(|at| *at >= first).count(), "{report}");
        let kept = frames.iter().position(|at| *at == pair[0]).unwrap();
        assert_eq!(state.unwrap().at(1).len(), kept, "{report}");
        most = most.max(missing);
        lost += 1;
    }
    assert!(most <= 3 * 512 && lost > 100, "{most} bytes of {lost}");
}

#[test]
fn frames_larger_than_a_reading_are_found_behind_damage_and_what_is_cut_off_is_none() {
    let disk = SimDisk::new(3);
    let options = manual().segment_bytes(16 << 20).first_segment_bytes(16 << 20).max_log_bytes(64 << 20);
    let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
    engine.insert("first", "1").unwrap();
    engine.insert("large", vec![b'.'; 6 << 20]).unwrap();
    engine.insert("last", "2").unwrap();
    drop(engine);
    let disk = disk.crash(Crash::Nothing);
    let segment = names(&disk, ".seg").pop().unwrap();
    disk.flip_bit(&segment, 4096 + 80, 1).unwrap();
    let beyond = |disk: &SimDisk| {
        let target = SimDisk::new(9);
        let report = salvage::<Kv>(Arc::new(disk.clone()), Arc::new(target.clone()), Reach::Beyond).unwrap();
        let (engine, _) = open_on::<Kv>(&target, &options).unwrap();
        let found = ["first", "large", "last"].map(|key| engine.get(key).unwrap().map(|value| value.len()));
        (report, found)
    };
    let (report, found) = beyond(&disk);
    assert_eq!(found, [None, Some(6 << 20), Some(1)], "{report}");
    assert_eq!(report.gaps[0].to.unwrap().get() - report.gaps[0].from.get(), 4096, "{report}");
    disk.truncate_file(&segment, 5 << 20).unwrap();
    let (report, found) = beyond(&disk);
    assert_eq!((found, report.behind.frames), ([None; 3], 0), "{report}");
}
