//! A store that moves to a device with larger blocks keeps what is durable apart from what is written.

use crate::common::oracle::{Oracle, run};
use crate::common::{Rng, manual, names, open, scale};
use seawal::sim::{Crash, Fault, Persistence, SimDisk};
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
        let mut oracle = Oracle::default();
        run(&disk, &mut oracle, 1, 200, &manual()).unwrap();
        assert_eq!(block_bytes(&disk), Some(before));
        let old: Vec<String> = names(&disk, ".seg");
        oracle.crashed(Crash::Nothing);
        let disk = moved(&disk.crash(Crash::Nothing), 2, after);
        run(&disk, &mut oracle, 2, 200, &manual()).unwrap();
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
        oracle.crashed(Crash::Everything);
        run(&disk.crash(Crash::Everything), &mut oracle, 3, 0, &manual()).unwrap();
    }
}

#[test]
fn a_destroyed_block_of_a_larger_device_takes_nothing_durable_with_it() {
    let mut states = 0;
    for seed in 0..2 * scale() {
        let small = SimDisk::builder().seed(seed).block_bytes(if seed % 2 == 0 { 512 } else { 4096 }).build();
        let mut before = Oracle::default();
        run(&small, &mut before, seed, 120, &manual()).unwrap();
        before.crashed(Crash::Nothing);
        let small = small.crash(Crash::Nothing);
        let whole = moved(&small, seed, 16384);
        run(&whole, &mut before.clone(), seed, 150, &manual()).unwrap();
        for op in 0..whole.op_count() {
            let disk = moved(&small, seed, 16384);
            disk.fail_at(op, Fault::Crash, Persistence::ForEver);
            let mut oracle = before.clone();
            let _ = run(&disk, &mut oracle, seed, 150, &manual());
            let mut rng = Rng::new(op);
            for _ in 0..2 {
                let mut oracle = oracle.clone();
                let crash = Crash::TornBlock(rng.next());
                oracle.crashed(crash);
                let disk = disk.crash(crash);
                run(&disk, &mut oracle, op, 10, &manual())
                    .unwrap_or_else(|e| panic!("seed {seed}, op {op}, {crash:?}: {e:?}\n{}", oracle.tail()));
                states += 1;
            }
        }
    }
    println!("{states} states");
}

#[test]
fn a_store_of_small_segments_opens_on_large_blocks() {
    let disk = SimDisk::builder().block_bytes(65536).build();
    let (engine, _) = open(&disk);
    engine.execute(crate::common::Cmd::push(1, 1)).unwrap();
    engine.close().unwrap();
    drop(engine);
    assert_eq!(crate::common::state(&open(&disk).0).at(1), [1]);
}
