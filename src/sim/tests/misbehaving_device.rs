//! Tests of devices that say what is not so, or not yet, and of the choices that a crash leaves.

use super::*;

#[test]
fn a_lost_write_says_ok_and_leaves_the_device_as_it_was() {
    for path in [WritePath::Direct, WritePath::BufferedSync] {
        let (disk, file) = disk_with_file(SimDisk::builder().write_path(path).build());
        file.write_durable_at(&blocks(1, 1), 0).unwrap();
        disk.fail_next(OpKind::WriteDurableAt, Fault::LostWrite, Persistence::Once);
        file.write_durable_at(&blocks(2, 2), 0).unwrap();
        file.sync_all().unwrap();
        assert_eq!(disk.pending_units(), 0);
        let wanted = [[1; 4096], [0; 4096]].concat();
        assert_eq!(device(&file), wanted, "the length is the file system's, and is there");
        assert_eq!(cached(&file) == wanted, path == WritePath::Direct, "only a cache shows what was written into it");
        assert_eq!(disk.crash(Crash::Everything).read_file("f").unwrap(), wanted);
        file.write_durable_at(&blocks(2, 3), 0).unwrap();
        assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), [3; 8192]);
    }
}

#[test]
fn a_lost_write_through_the_cache_is_not_made_up_for_by_a_sync() {
    let (disk, file) = new();
    write_all_at(&*file, &[1; 4096], 0).unwrap();
    disk.fail_next(OpKind::WriteAt, Fault::LostWrite, Persistence::Once);
    write_all_at(&*file, &[2; 4096], 512).unwrap();
    assert_eq!(cached(&file)[512..], [2; 4096]);
    file.sync_all().unwrap();
    let after = disk.crash(Crash::Everything).read_file("f").unwrap();
    assert_eq!(after, [vec![1; 4096], vec![0; 512]].concat());
}

#[test]
fn a_misdirected_write_lands_in_any_other_block_of_any_file() {
    for path in [WritePath::Direct, WritePath::BufferedSync] {
        let mut hit = BTreeSet::new();
        for seed in 0..200 {
            let (disk, file) = disk_with_file(SimDisk::builder().seed(seed).write_path(path).build());
            disk.write_file("g", &[8; 6000]);
            disk.write_file("f", &[9; 12288]);
            disk.fail_next(OpKind::WriteDurableAt, Fault::MisdirectedWrite, Persistence::Once);
            file.write_durable_at(&blocks(1, 2), 4096).unwrap();
            let after = disk.crash(Crash::Nothing);
            assert_eq!(device(&file), after.read_file("f").unwrap());
            for (name, len, old) in [("f", 12288, 9), ("g", 6000, 8)] {
                let bytes = after.read_file(name).unwrap();
                assert_eq!(bytes.len(), len);
                for (block, found) in bytes.chunks(4096).enumerate() {
                    assert!(found.iter().all(|b| *b == found[0]) && [2, old].contains(&found[0]));
                    if found[0] == 2 {
                        hit.insert((name, block));
                    }
                }
            }
            disk.fail_next(OpKind::WriteAt, Fault::MisdirectedWrite, Persistence::Once);
            write_all_at(&*file, &[5; 4096], 0).unwrap();
            file.sync_all().unwrap();
            assert_ne!(disk.crash(Crash::Nothing).read_file("f").unwrap()[0], 5);
        }
        assert_eq!(hit, BTreeSet::from([("f", 0), ("f", 2), ("g", 0), ("g", 1)]), "{path:?}");
    }
}

/// Begins a durable write of two sectors on a thread of its own and returns when it waits.
fn begin(disk: &SimDisk, file: &File, byte: u8, at: u64) -> std::thread::JoinHandle<std::io::Result<()>> {
    let (file, waiting) = (Arc::clone(file), disk.held_writes());
    let writer = std::thread::spawn(move || file.write_durable_at(&blocks(1, byte)[..1024], at));
    while disk.held_writes() == waiting {
        std::thread::yield_now();
    }
    writer
}

#[test]
fn of_writes_in_flight_the_later_may_complete_first_and_a_crash_keeps_any_subset_of_the_others() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(1, 1), 0).unwrap();
    disk.hold_writes();
    let first = begin(&disk, &file, 2, 0);
    let second = begin(&disk, &file, 3, 1024);
    assert_eq!(disk.pending_units(), 4);
    let look = |disk: &SimDisk| -> BTreeSet<Vec<u8>> {
        let all = all_crashes(disk).into_iter().map(|d| d.read_file("f").unwrap());
        all.map(|b| [0, 512, 1024, 1536].iter().map(|at| b[*at]).collect()).collect()
    };
    assert_eq!(look(&disk).len(), 16);
    assert!(disk.complete_write(1));
    second.join().unwrap().unwrap();
    let seen = look(&disk);
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|b| b[2..] == [3, 3]), "the later one is durable: {seen:?}");
    assert!(!disk.complete_write(1));
    disk.release_writes();
    first.join().unwrap().unwrap();
    assert_eq!(look(&disk), BTreeSet::from([vec![2, 2, 3, 3]]));
    file.write_durable_at(&blocks(1, 4), 0).unwrap();
}

#[test]
fn the_end_of_the_machine_ends_writes_in_flight() {
    let (disk, file) = new();
    disk.hold_writes();
    let writer = begin(&disk, &file, 2, 0);
    disk.fail_next(OpKind::Len, Fault::Crash, Persistence::Once);
    file.len().unwrap_err();
    writer.join().unwrap().unwrap_err();
    assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), b"");
    assert_eq!(disk.crash(Crash::Everything).read_file("f").unwrap(), [2; 1024]);
}

#[test]
fn a_crash_is_a_word_that_reads_back() {
    let all = [
        Crash::Nothing,
        Crash::Everything,
        Crash::KillOnly,
        Crash::Seeded(u64::MAX),
        Crash::TornBlock(7),
        Crash::Prefix(3),
        Crash::AllBut(0),
        Crash::Only(u32::MAX),
        Crash::Subset(0x8000_0000_0000_0001),
    ];
    for crash in all {
        assert_eq!(crash.to_string().parse::<Crash>().unwrap(), crash);
    }
    for text in ["", "nothing-3", "kill-", "prefix", "prefix-", "only-4294967296", "subset--1", "x-1"] {
        assert!(text.parse::<Crash>().is_err(), "{text}");
    }
}

#[test]
fn few_pending_units_are_tried_in_all_subsets() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(1, 1), 0).unwrap();
    assert_eq!(disk.crash_choices(1), [Crash::KillOnly, Crash::Subset(0)]);
    write_all_at(&*file, &[2; 4096], 0).unwrap();
    let choices = disk.crash_choices(1);
    assert_eq!(choices.len(), 2 + 256);
    let left = |choices: &[Crash]| -> BTreeSet<Vec<u8>> {
        choices.iter().map(|crash| disk.crash(*crash).read_file("f").unwrap()).collect()
    };
    assert_eq!(left(&choices[2..]).len(), 256);
    assert!(left(&choices[..2]).iter().any(|bytes| bytes.iter().any(|b| *b > 2)), "one is torn");
    assert_ne!(choices, disk.crash_choices(2), "another seed tears another block");
}

#[test]
fn many_pending_units_are_tried_alone_but_one_and_up_to_a_moment() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(2, 1), 0).unwrap();
    write_all_at(&*file, &[2; 4608], 0).unwrap();
    let kept = |crash: Crash| -> Vec<usize> {
        let bytes = disk.crash(crash).read_file("f").unwrap();
        (0..9).filter(|sector| bytes[sector * 512] == 2).collect()
    };
    let all: Vec<usize> = (0..9).collect();
    for n in 0..9 {
        assert_eq!(kept(Crash::Only(n)), [n as usize]);
        assert_eq!(kept(Crash::Prefix(n)), all[..n as usize]);
        assert_eq!(kept(Crash::AllBut(n)), all.iter().copied().filter(|at| *at != n as usize).collect::<Vec<_>>());
    }
    assert_eq!(kept(Crash::Subset(0b1_0000_0101)), [0, 2, 8]);
    let choices = disk.crash_choices(5);
    assert_eq!(choices.len(), 2 + 2 + 8 + 18 + 16);
    for n in 1..9 {
        for crash in [Crash::Only(n), Crash::Prefix(n), Crash::AllBut(n), Crash::Nothing, Crash::Everything] {
            assert!(choices.contains(&crash), "{crash}");
        }
    }
}

#[test]
fn every_block_of_a_write_in_flight_may_be_the_one_that_is_destroyed() {
    let mut destroyed = BTreeSet::new();
    for seed in 0..300 {
        let (disk, file) = new();
        file.write_durable_at(&blocks(10, 1), 0).unwrap();
        disk.fail_next(OpKind::WriteDurableAt, Fault::Crash, Persistence::Once);
        file.write_durable_at(&blocks(6, 2), 8192).unwrap_err();
        let after = disk.crash(Crash::TornBlock(seed)).read_file("f").unwrap();
        let whole = |block: &[u8]| block.chunks(512).all(|s| s.iter().all(|b| *b == s[0] && (1..3).contains(b)));
        destroyed.extend(after.chunks(4096).enumerate().filter(|(_, block)| !whole(block)).map(|(at, _)| at));
    }
    assert_eq!(destroyed, (2..8).collect());
}
