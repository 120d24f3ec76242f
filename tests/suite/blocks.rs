//! After a move to a device with larger blocks, a durable frame still shares no block with a later
//! write.

use crate::common::{Cmd, Stacks, names, open, open_on, scale, stacks, state};
use seawal::sim::{Crash, SimDisk};
use std::sync::Arc;

/// The same files on a disk with blocks of another size.
fn moved(disk: &SimDisk, seed: u64, block_bytes: u32) -> SimDisk {
    let other = SimDisk::builder().seed(seed).block_bytes(block_bytes).build();
    for name in disk.file_names() {
        other.write_file(&name, &disk.read_file(&name).unwrap());
    }
    other
}

fn block_bytes(disk: &SimDisk) -> Option<u32> {
    seawal::inspect::survey(Arc::new(disk.clone())).unwrap().block_bytes
}

#[test]
fn segments_and_manifests_take_the_blocks_of_the_device_that_they_lie_on() {
    for (before, after, wanted) in [(512, 16384, 16384), (4096, 16384, 16384), (16384, 4096, 16384), (512, 4096, 4096)]
    {
        let disk = SimDisk::builder().seed(1).block_bytes(before).build();
        let work = |seed, disk: &SimDisk| {
            stacks().seed(seed).steps(200).run_on(disk).unwrap_or_else(|e| panic!("{e}"));
        };
        work(1, &disk);
        assert_eq!(block_bytes(&disk), Some(before));
        let old: Vec<String> = names(&disk, ".seg");
        let disk = moved(&disk.crash(Crash::Nothing), 2, after);
        work(2, &disk);
        assert_eq!(block_bytes(&disk), Some(wanted));
        for name in ["MANIFEST-0", "MANIFEST-1"] {
            assert!(disk.read_file(name).unwrap().len() >= after as usize, "{name}");
        }
        let mut new = 0;
        for name in names(&disk, ".seg").iter().filter(|name| !old.contains(name)) {
            let bytes = disk.read_file(name).unwrap();
            assert_eq!(bytes[16..20], wanted.to_le_bytes(), "{name}");
            assert!(bytes.len() >= 4 * wanted as usize && bytes.len().is_multiple_of(wanted as usize), "{name}");
            new += 1;
        }
        assert!(new > 0);
        open(&disk.crash(Crash::Nothing));
    }
}

#[test]
fn a_destroyed_block_of_a_larger_device_takes_nothing_durable_with_it() {
    let mut states = 0;
    for seed in 0..2 * scale() {
        let small = SimDisk::builder().seed(seed).block_bytes(if seed % 2 == 0 { 512 } else { 4096 }).build();
        stacks().seed(seed).steps(120).run_on(&small).unwrap_or_else(|e| panic!("{e}"));
        let disk = moved(&small.crash(Crash::Nothing), seed, 16384);
        let mut before = state(&open(&disk.crash(Crash::KillOnly)).0);
        let mut check = |before: &Stacks, after: &Stacks| {
            for point in disk.take_crash_points() {
                for nth in 0..2 {
                    let crash = Crash::TornBlock(2 * point.op() + nth);
                    let found = state(&open(&point.crash(crash)).0);
                    let op = (point.op(), point.kind());
                    assert!(found == *before || found == *after, "seed {seed}, {op:?}, {crash:?}: {found:?}");
                    states += 1;
                }
            }
        };
        disk.record_crash_points(..);
        let (engine, _) = open(&disk);
        check(&before, &before);
        for n in 0..60 {
            engine.execute(Cmd::Push { key: 1, value: n, pad: 3000 }).unwrap();
            let after = state(&engine);
            check(&before, &after);
            if n % 20 == 19 {
                engine.checkpoint().unwrap();
                check(&after, &after);
            }
            before = after;
        }
    }
    assert!(states > 200, "{states}");
}

#[test]
fn a_store_of_small_segments_opens_on_large_blocks() {
    let disk = SimDisk::builder().block_bytes(65536).build();
    let (engine, _) = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.close().unwrap();
    drop(engine);
    assert_eq!(state(&open(&disk).0).at(1), [1]);
}

#[test]
fn a_store_of_blocks_larger_than_any_device_has_opens_on_small_ones() {
    for block in [128 << 10, 1 << 20] {
        let disk = SimDisk::builder().block_bytes(block).build();
        let options = seawal::Options::default().background(seawal::Background::Manual);
        let open = |disk: &SimDisk| open_on::<Stacks>(disk, &options).unwrap().0;
        open(&disk).execute(Cmd::push(1, 1)).unwrap();
        let disk = moved(&disk.crash(Crash::Nothing), 2, 4096);
        assert_eq!(block_bytes(&disk), Some(block));
        let engine = open(&disk);
        engine.execute(Cmd::push(1, 2)).unwrap();
        engine.close().unwrap();
        drop(engine);
        assert_eq!(state(&open(&disk)).at(1), [1, 2]);
    }
}
