//! A store that moves to a device with larger blocks keeps what is durable apart from what is written.

use crate::common::{names, open, scale, stacks, state};
use seawal::sim::{Crash, SimDisk};
use std::sync::Arc;

/// The same files on a disk with other blocks.
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
    let on_larger_blocks = |seed| {
        let small = SimDisk::builder().seed(seed).block_bytes(if seed % 2 == 0 { 512 } else { 4096 }).build();
        stacks().seed(seed).steps(120).run_on(&small).unwrap_or_else(|e| panic!("{e}"));
        moved(&small.crash(Crash::Nothing), seed, 16384)
    };
    let explore = stacks().disks(on_larger_blocks).seed(10).seeds(2 * scale()).steps(100).one_in(4);
    let explored = explore.run().unwrap_or_else(|e| panic!("{e}"));
    println!("{explored:?}");
    assert!(explored.states > 1000, "{explored:?}");
}

#[test]
fn a_store_of_small_segments_opens_on_large_blocks() {
    let disk = SimDisk::builder().block_bytes(65536).build();
    let (engine, _) = open(&disk);
    engine.execute(crate::common::Cmd::push(1, 1)).unwrap();
    engine.close().unwrap();
    drop(engine);
    assert_eq!(state(&open(&disk).0).at(1), [1]);
}
