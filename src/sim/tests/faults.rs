//! Tests of faults, limits of space and locks: each names the fact it checks.

use super::*;
use crate::io::Directory;

#[test]
fn after_a_failed_sync_the_cache_and_the_device_differ_for_ever() {
    for fault in [Fault::Eio, Fault::NoSpace, Fault::Interrupted] {
        let (disk, file) = new();
        file.write_durable_at(&blocks(1, 1), 0).unwrap();
        write_all_at(&*file, &[2; 4096], 0).unwrap();
        disk.fail_next(OpKind::SyncData, fault, Persistence::Once);
        assert_ne!(file.sync_data().unwrap_err().kind(), ErrorKind::Interrupted);
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        let killed = disk.crash(Crash::KillOnly);
        for file in [file, killed.open("f", OpenMode::ReadWrite).unwrap()] {
            assert_eq!(cached(&file), [2; 4096]);
            assert_eq!(device(&file), [1; 4096]);
        }
        assert_eq!(disk.crash(Crash::Everything).read_file("f").unwrap(), [1; 4096]);
        assert_eq!(killed.crash(Crash::Everything).read_file("f").unwrap(), [1; 4096]);
    }
}

#[test]
fn bytes_written_again_after_a_failed_sync_can_become_durable() {
    let (disk, file) = new();
    write_all_at(&*file, &[2; 512], 0).unwrap();
    disk.fail_next(OpKind::SyncAll, Fault::Eio, Persistence::Once);
    file.sync_all().unwrap_err();
    write_all_at(&*file, &[2; 512], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), [2; 512], "with its length");
}

#[test]
fn names_are_as_pending_after_a_failed_directory_sync_as_before() {
    let disk = SimDisk::new(1);
    let _ = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.fail_next(OpKind::SyncDir, Fault::Eio, Persistence::Once);
    disk.sync_dir().unwrap_err();
    assert!(disk.crash(Crash::Nothing).file_names().is_empty());
    disk.sync_dir().unwrap();
    assert_eq!(disk.crash(Crash::Nothing).file_names(), ["a"]);
}

#[test]
fn a_failed_durable_write_leaves_some_of_its_sectors() {
    for path in [WritePath::Direct, WritePath::BufferedSync] {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let (disk, file) = disk_with_file(SimDisk::builder().seed(seed).write_path(path).build());
            file.write_durable_at(&blocks(1, 1), 0).unwrap();
            disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
            file.write_durable_at(&blocks(1, 2)[..1024], 0).unwrap_err();
            file.sync_data().unwrap();
            let after = disk.crash(Crash::Nothing).read_file("f").unwrap();
            assert_eq!(after, device(&file));
            assert_eq!(after[1024..], [1; 3072]);
            assert!(after[..512].iter().all(|&b| b == after[0]), "sectors are whole");
            seen.insert((after[0], after[512]));
        }
        assert_eq!(seen.len(), 4, "{path:?}");
    }
}

#[test]
fn a_failed_durable_append_may_leave_length_without_content() {
    let seen: BTreeSet<_> = (0..200)
        .map(|seed| {
            let (disk, file) = disk_with_file(SimDisk::new(seed));
            disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
            file.write_durable_at(&blocks(1, 2)[..512], 0).unwrap_err();
            disk.crash(Crash::Nothing).read_file("f").unwrap()
        })
        .collect();
    assert_eq!(seen, BTreeSet::from([vec![], vec![0; 512], vec![2; 512]]));
}

#[test]
fn a_torn_block_destroys_what_was_durable_in_it_and_nothing_else() {
    let mut destroyed = BTreeSet::new();
    for seed in 0..100 {
        let (disk, file) = new();
        file.write_durable_at(&blocks(4, 1), 0).unwrap();
        disk.fail_next(OpKind::WriteDurableAt, Fault::Crash, Persistence::Once);
        file.write_durable_at(&blocks(2, 2)[..4096 + 512], 4096).unwrap_err();
        let after = disk.crash(Crash::TornBlock(seed)).read_file("f").unwrap();
        assert_eq!(after[..4096], [1; 4096]);
        assert_eq!(after[12288..], [1; 4096]);
        for block in 1..3 {
            let end = (block + 1) * 4096;
            if after[end - 512..end] != [1; 512] && after[end - 512..end] != [2; 512] {
                destroyed.insert(block);
            }
        }
    }
    assert_eq!(destroyed, BTreeSet::from([1, 2]));
}

#[test]
fn a_torn_block_without_a_durable_write_is_one_with_unsynced_sectors() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(2, 1), 0).unwrap();
    assert_eq!(disk.crash(Crash::TornBlock(3)).read_file("f").unwrap(), [1; 8192], "nothing was being written");
    write_all_at(&*file, &[1; 10], 4096).unwrap();
    let after = disk.crash(Crash::TornBlock(3)).read_file("f").unwrap();
    assert_eq!(after[..4096], [1; 4096]);
    assert_ne!(after[4096..], [1; 4096]);
}

#[test]
fn a_stopped_machine_answers_nothing_until_the_crash_is_taken() {
    let (disk, file) = new();
    write_all_at(&*file, b"a", 0).unwrap();
    disk.fail_at(disk.op_count() + 1, Fault::Crash, Persistence::Once);
    file.len().unwrap();
    assert!(!disk.is_down());
    file.sync_data().unwrap_err();
    assert!(disk.is_down());
    let ops = disk.op_count();
    for error in [
        disk.list().unwrap_err(),
        disk.sync_dir().unwrap_err(),
        disk.open("f", OpenMode::Read).err().unwrap(),
        disk.lock(LockMode::Shared).err().unwrap(),
        file.write_at(b"b", 0).unwrap_err(),
        file.len().unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Other, "the simulated machine is down"));
    }
    assert_eq!(disk.op_count(), ops);
    assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), b"", "the sync was not done");
    assert_eq!(disk.crash(Crash::Everything).read_file("f").unwrap(), b"a");
    assert_eq!(disk.crash(Crash::Nothing).list().unwrap(), ["f"]);
}

#[test]
fn a_write_in_which_the_machine_stops_is_pending() {
    let (disk, file) = new();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Crash, Persistence::Once);
    file.write_durable_at(&blocks(1, 2)[..512], 0).unwrap_err();
    let seen: BTreeSet<_> = all_crashes(&disk).iter().map(|d| d.read_file("f").unwrap()).collect();
    assert_eq!(seen, BTreeSet::from([vec![], vec![0; 512], vec![2; 512]]));
    let disk = SimDisk::new(1);
    disk.fail_next(OpKind::Create, Fault::Crash, Persistence::Once);
    assert!(disk.open("g", OpenMode::CreateNew).is_err());
    let seen: BTreeSet<_> = all_crashes(&disk).iter().map(SimDisk::file_names).collect();
    assert_eq!(seen.len(), 2);
}

#[test]
fn every_operation_counts_and_can_fail() {
    type Step = fn(&SimDisk, &File) -> std::io::Result<()>;
    let steps: [Step; 16] = [
        |d, _| d.open("f", OpenMode::Read).map(drop),
        |d, _| d.open("new", OpenMode::CreateNew).map(drop),
        |d, _| d.list().map(drop),
        |d, _| d.rename("new", "other"),
        |d, _| d.remove("other"),
        |d, _| d.sync_dir(),
        |d, _| d.lock(LockMode::Exclusive).map(drop),
        |_, f| f.read_at(&mut [0; 4], 0).map(drop),
        |_, f| f.read_device_at(&mut AlignedBuf::zeroed(4096)?, 0).map(drop),
        |_, f| f.write_at(&[1; 4], 0).map(drop),
        |_, f| f.write_durable_at(&AlignedBuf::zeroed(4096)?, 0),
        |_, f| f.sync_data(),
        |_, f| f.sync_all(),
        |_, f| f.len().map(drop),
        |_, f| f.set_len(9),
        |_, f| f.allocate(9),
    ];
    for fault in [Fault::Eio, Fault::Crash] {
        for failing in 0..steps.len() {
            let (disk, file) = new();
            let first = disk.op_count();
            disk.fail_at(first + failing as u64, fault, Persistence::Once);
            for (i, step) in steps.iter().enumerate().take(failing + 1) {
                assert_eq!(disk.op_count(), first + i as u64);
                assert_eq!(step(&disk, &file).is_err(), i == failing, "step {i}");
            }
            assert_eq!(disk.is_down(), fault == Fault::Crash);
        }
    }
}

#[test]
fn faults_last_as_long_as_planned() {
    let (disk, file) = new();
    disk.fail_at(disk.op_count() + 1, Fault::Eio, Persistence::Once);
    let results: Vec<bool> = (0..4).map(|_| file.len().is_ok()).collect();
    assert_eq!(results, [true, false, true, true]);
    disk.fail_at(disk.op_count() + 1, Fault::Eio, Persistence::ForEver);
    let results: Vec<bool> = (0..4).map(|_| file.len().is_ok()).collect();
    assert_eq!(results, [true, false, false, false]);
    disk.clear_faults();
    disk.fail_next(OpKind::SyncData, Fault::Eio, Persistence::ForEver);
    file.len().unwrap();
    file.sync_data().unwrap_err();
    file.sync_data().unwrap_err();
    file.sync_all().unwrap();
}

#[test]
fn no_space_spares_operations_that_take_none() {
    let (disk, file) = new();
    disk.fail_at(disk.op_count(), Fault::NoSpace, Persistence::ForEver);
    file.len().unwrap();
    disk.list().unwrap();
    assert_eq!(file.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_durable_at(&blocks(1, 1), 0).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove("f").unwrap();
}

#[test]
fn short_and_interrupted_transfers_make_loops_go_round() {
    for fault in [Fault::ShortWrite, Fault::Interrupted] {
        let (disk, file) = new();
        disk.fail_next(OpKind::WriteAt, fault, Persistence::ForEver);
        let ops = disk.op_count();
        write_all_at(&*file, &[3; 1000], 0).unwrap();
        assert!(disk.op_count() > ops + 1);
        assert_eq!(disk.read_file("f").unwrap(), [3; 1000]);
    }
}

#[test]
fn writes_stop_where_the_space_ends_and_go_on_when_it_is_back() {
    let (disk, file) = new();
    let other = disk.open("g", OpenMode::CreateNew).unwrap();
    write_all_at(&*other, &[1; 8192], 0).unwrap();
    disk.set_free_bytes(Some(2 * 4096));
    assert_eq!(disk.free_bytes(), 8192);
    assert_eq!(file.write_at(&[1; 12288], 100).unwrap(), 8192 - 100, "what fits");
    assert_eq!(file.write_at(&[1; 1], 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[2; 8192], 0).unwrap(), 8192, "space it has needs no more");
    assert_eq!(file.write_durable_at(&blocks(1, 1), 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.allocate(12288).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove("g").unwrap();
    assert_eq!(disk.free_bytes(), 0, "a handle keeps the space");
    drop(other);
    assert_eq!(disk.free_bytes(), 8192);
    file.allocate(12288).unwrap();
    assert_eq!((file.len().unwrap(), disk.free_bytes()), (12288, 4096));
    file.set_len(0).unwrap();
    assert_eq!(disk.free_bytes(), 4 * 4096);
    let after = disk.crash(Crash::Everything);
    assert_eq!(after.free_bytes(), 4 * 4096, "the disk's size outlives the crash");
    disk.set_free_bytes(None);
    file.allocate(1 << 30).unwrap();
}

#[test]
fn locks_exclude_and_end_with_their_guard_or_the_crash() {
    let disk = SimDisk::new(1);
    let same = disk.clone();
    let held = disk.lock(LockMode::Exclusive).unwrap();
    for mode in [LockMode::Exclusive, LockMode::Shared] {
        assert_eq!(same.lock(mode).err().unwrap().kind(), ErrorKind::WouldBlock);
    }
    let _new_life = disk.crash(Crash::KillOnly).lock(LockMode::Exclusive).unwrap();
    drop(held);
    let readers = [same.lock(LockMode::Shared).unwrap(), disk.lock(LockMode::Shared).unwrap()];
    assert_eq!(same.lock(LockMode::Exclusive).err().unwrap().to_string(), "a reader");
    drop(readers);
    same.lock(LockMode::Exclusive).unwrap();
}

#[test]
fn a_failed_durable_write_after_an_unsynced_cut_does_not_bring_the_length_back() {
    for seed in 0..50 {
        let (disk, file) = disk_with_file(SimDisk::new(seed));
        file.write_durable_at(&blocks(2, 1), 0).unwrap();
        file.set_len(0).unwrap();
        disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
        file.write_durable_at(&blocks(1, 2)[..512], 0).unwrap_err();
        assert!(disk.crash(Crash::Everything).read_file("f").unwrap().len() <= 512);
    }
}

#[test]
fn a_write_that_failed_and_was_followed_by_a_sync_is_not_torn_later() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(1, 1), 0).unwrap();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
    file.write_durable_at(&blocks(1, 1), 0).unwrap_err();
    assert_ne!(disk.crash(Crash::TornBlock(1)).read_file("f").unwrap(), [1; 4096]);
    file.sync_data().unwrap();
    assert_eq!(disk.crash(Crash::TornBlock(1)).read_file("f").unwrap(), [1; 4096]);
}

#[test]
fn a_refused_allocation_takes_nothing() {
    let (disk, file) = new();
    disk.set_free_bytes(Some(4096));
    file.allocate(8192).unwrap_err();
    assert_eq!((disk.free_bytes(), file.len().unwrap()), (4096, 0));
}
