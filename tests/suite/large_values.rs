//! Values larger than the units in which the log and snapshots are read and written.

use crate::common::{manual, open_on};
use seawal::Engine;
use seawal::kv::Kv;
use seawal::recovery::Phase;
use seawal::sim::{Crash, SimDisk};
use seawal::wal::Background;
use std::sync::{Arc, Mutex};

const MEBI: usize = 1 << 20;

/// Bytes that differ from those of all other values.
fn value(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at / 4093 + n * 31) as u8).collect()
}

#[test]
fn large_values_come_back_from_the_log_and_from_a_snapshot_with_threads_and_without() {
    // a frame larger than one read, several in one, a part in several chunks, and chunks of the
    // maximum length
    let lens = [5 * MEBI + 13, 100, MEBI, 3 * MEBI, MEBI - 64, 700_000, 2 * MEBI + 1, 900_000, 900_001];
    let all_there = |engine: &Engine<Kv>| {
        for (n, len) in lens.iter().enumerate() {
            let found = engine.get(format!("key {n}")).unwrap();
            assert!(found.is_some_and(|found| *found == value(n, *len)), "value {n}");
        }
    };
    for background in [Background::Manual, Background::Threads] {
        let disk = SimDisk::new(5);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let options = manual()
            .background(background)
            .segment_bytes(16 << 20)
            .first_segment_bytes(16 << 20)
            .max_log_bytes(256 << 20)
            .checkpoint_log_bytes(1 << 40)
            .on_progress(move |progress| note.lock().unwrap().push((progress.phase, progress.done, progress.total)));
        let (engine, _) = open_on::<Kv>(&disk, &options).unwrap();
        for (n, len) in lens.iter().enumerate() {
            engine.insert(format!("key {n}"), value(n, *len)).unwrap();
        }
        let crashed = disk.crash(Crash::Nothing);
        seen.lock().unwrap().clear();
        let (recovered, report) = open_on::<Kv>(&crashed, &options).unwrap();
        all_there(&recovered);
        assert_eq!((report.snapshot, report.records), (None, lens.len() as u64), "{report:?}");
        let told = |phase: Phase| {
            let seen = seen.lock().unwrap();
            let told: Vec<_> = seen.iter().filter(|told| told.0 == phase).map(|told| (told.1, told.2)).collect();
            assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{phase:?} goes back: {told:?}");
            assert!(told.iter().all(|(done, total)| done <= total), "{phase:?}: {told:?}");
            told.len()
        };
        assert!(told(Phase::Redo) > 0);
        engine.checkpoint().unwrap();
        let crashed = disk.crash(Crash::Nothing);
        seen.lock().unwrap().clear();
        let (recovered, report) = open_on::<Kv>(&crashed, &options).unwrap();
        all_there(&recovered);
        assert!(report.snapshot.is_some() && report.records == 0, "{report:?}");
        assert!(told(Phase::Snapshot) > 1);
    }
}
