//! Tests of the simulated disk: each names the fact it checks.

mod faults;
mod misbehaving_device;
mod possible;

use super::{Crash, Fault, OpKind, Persistence, SimDisk};
use crate::io::{self, AlignedBuf, Clock, Directory, LockMode, OpenMode, WritePath, read_device_full, write_all_at};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

type File = Arc<dyn io::File>;

fn blocks(count: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(count * 4096).unwrap();
    buf.fill(byte);
    buf
}

/// A disk with a file `f` whose name is durable.
fn disk_with_file(disk: SimDisk) -> (SimDisk, File) {
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir().unwrap();
    (disk, file)
}

fn new() -> (SimDisk, File) {
    disk_with_file(SimDisk::new(1))
}

fn cached(file: &File) -> Vec<u8> {
    let mut buf = vec![0; 1 << 20];
    let n = file.read_at(&mut buf, 0).unwrap();
    buf.truncate(n);
    buf
}

fn device(file: &File) -> Vec<u8> {
    let mut buf = AlignedBuf::zeroed(1 << 20).unwrap();
    let n = read_device_full(&**file, &mut buf, 0).unwrap();
    buf[..n].to_vec()
}

/// Every disk that a power loss may leave.
fn all_crashes(disk: &SimDisk) -> Vec<SimDisk> {
    let n = disk.pending_units();
    assert!(n <= 12, "{n} units are too many to try all");
    (0..1 << n).map(|mask| disk.crash(Crash::Subset(mask))).collect()
}

fn is_sync_all_ok(disk: &SimDisk) -> bool {
    let file = disk.open("f", OpenMode::ReadWrite).unwrap();
    file.sync_all().is_ok()
}

#[test]
fn sync_makes_content_and_length_durable_on_both_calls() {
    for sync in [io::File::sync_data, io::File::sync_all] {
        let (disk, file) = new();
        write_all_at(&*file, &[7; 5000], 100).unwrap();
        assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), b"");
        sync(&*file).unwrap();
        assert_eq!(disk.pending_units(), 0);
        let after = disk.crash(Crash::Nothing).read_file("f").unwrap();
        assert_eq!(after, [vec![0; 100], vec![7; 5000]].concat());
    }
}

#[test]
fn durable_write_survives_on_both_paths() {
    for path in [WritePath::Direct, WritePath::BufferedSync] {
        let (disk, file) = disk_with_file(SimDisk::builder().write_path(path).build());
        assert_eq!(file.write_path(), path);
        file.write_durable_at(&blocks(2, 5), 4096).unwrap();
        assert_eq!(disk.pending_units(), 0);
        let after = disk.crash(Crash::Nothing).read_file("f").unwrap();
        assert_eq!(after, [vec![0; 4096], vec![5; 8192]].concat());
    }
}

#[test]
fn durable_write_says_nothing_about_what_was_only_written() {
    let (disk, file) = new();
    write_all_at(&*file, &[1; 4096], 0).unwrap();
    file.write_durable_at(&blocks(1, 2), 4096).unwrap();
    let after = disk.crash(Crash::Nothing).read_file("f").unwrap();
    assert_eq!(after, [vec![0; 4096], vec![2; 4096]].concat());
    let (disk, file) = disk_with_file(SimDisk::builder().write_path(WritePath::BufferedSync).build());
    write_all_at(&*file, &[1; 4096], 0).unwrap();
    file.write_durable_at(&blocks(1, 2), 4096).unwrap();
    assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap()[..4096], [1; 4096], "fdatasync takes all");
}

#[test]
fn durable_write_overtakes_older_unsynced_writes_of_its_sectors() {
    let (disk, file) = new();
    write_all_at(&*file, &[1; 1024], 0).unwrap();
    file.write_durable_at(&blocks(1, 2)[..512], 0).unwrap();
    for after in all_crashes(&disk) {
        assert_eq!(after.read_file("f").unwrap()[..512], [2; 512]);
    }
}

#[test]
fn durable_write_after_an_unsynced_cut_is_not_cut_later() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(2, 1), 0).unwrap();
    write_all_at(&*file, &[9; 512], 4096).unwrap();
    file.set_len(0).unwrap();
    file.write_durable_at(&blocks(1, 2), 0).unwrap();
    for after in all_crashes(&disk) {
        assert_eq!(after.read_file("f").unwrap(), [2; 4096]);
    }
}

#[test]
fn an_unsynced_write_keeps_any_subset_of_its_sectors() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(1, 1), 0).unwrap();
    write_all_at(&*file, &[2; 1536], 0).unwrap();
    let seen: BTreeSet<[u8; 3]> =
        all_crashes(&disk).iter().map(|d| d.read_file("f").unwrap()).map(|b| [b[0], b[512], b[1024]]).collect();
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_sector_written_twice_may_hold_any_of_three_contents() {
    let (disk, file) = new();
    write_all_at(&*file, &[1; 512], 0).unwrap();
    file.sync_all().unwrap();
    write_all_at(&*file, &[2; 256], 0).unwrap();
    write_all_at(&*file, &[3; 256], 256).unwrap();
    let seen: BTreeSet<(u8, u8)> =
        all_crashes(&disk).iter().map(|d| d.read_file("f").unwrap()).map(|b| (b[0], b[256])).collect();
    assert_eq!(seen, BTreeSet::from([(1, 1), (2, 1), (2, 3)]), "the second write carries the first");
}

#[test]
fn length_and_content_persist_independently() {
    let (disk, file) = new();
    write_all_at(&*file, &[9; 512], 0).unwrap();
    let seen: BTreeSet<Vec<u8>> = all_crashes(&disk).iter().map(|d| d.read_file("f").unwrap()).collect();
    assert_eq!(seen, BTreeSet::from([vec![], vec![0; 512], vec![9; 512]]));
}

#[test]
fn content_past_a_lost_length_does_not_come_back_when_the_file_grows() {
    let (disk, file) = new();
    write_all_at(&*file, &[9; 512], 0).unwrap();
    let after = disk.crash(Crash::Subset(0b01));
    let file = after.open("f", OpenMode::ReadWrite).unwrap();
    file.set_len(512).unwrap();
    assert_eq!(cached(&file), [0; 512]);
}

#[test]
fn a_cut_may_be_lost_and_what_lay_behind_it_be_cleared_all_the_same() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(1, 4)[..1024], 0).unwrap();
    file.set_len(522).unwrap();
    file.set_len(532).unwrap();
    assert_eq!(cached(&file), [vec![4; 522], vec![0; 10]].concat());
    let seen: BTreeSet<Vec<u8>> = all_crashes(&disk).iter().map(|d| d.read_file("f").unwrap()).collect();
    let cut = vec![4; 522];
    let cleared = |len: usize| [cut.clone(), vec![0; len - 522]].concat();
    let expected = [vec![4; 1024], vec![4; 532], cut.clone(), cleared(532), cleared(1024)];
    assert_eq!(seen, BTreeSet::from(expected), "where only the clearing is lost, what was cut comes back");
}

#[test]
fn names_survive_only_after_a_directory_sync() {
    let disk = SimDisk::new(1);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    write_all_at(&*file, b"x", 0).unwrap();
    file.sync_all().unwrap();
    assert!(disk.crash(Crash::Nothing).file_names().is_empty(), "durable content, no name");
    assert_eq!(disk.crash(Crash::Everything).read_file("a").unwrap(), b"x");
    disk.sync_dir().unwrap();
    assert_eq!(disk.crash(Crash::Nothing).read_file("a").unwrap(), b"x");
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.crash(Crash::Nothing).file_names(), ["a"]);
    disk.sync_dir().unwrap();
    disk.remove("b").unwrap();
    assert!(disk.list().unwrap().is_empty());
    assert_eq!(disk.crash(Crash::Nothing).read_file("b").unwrap(), b"x", "a removed file reappears");
}

#[test]
fn a_rename_is_atomic_and_replaces() {
    let disk = SimDisk::new(1);
    disk.write_file("cur", b"old");
    disk.write_file("tmp", b"new");
    disk.rename("tmp", "cur").unwrap();
    let seen: BTreeSet<_> =
        all_crashes(&disk).iter().map(|d| (d.file_names().join(" "), d.read_file("cur").unwrap())).collect();
    let expected = [("cur tmp".to_owned(), b"old".to_vec()), ("cur".to_owned(), b"new".to_vec())];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_kept_rename_of_a_lost_creation_names_the_file() {
    let disk = SimDisk::new(1);
    let file = disk.open("tmp", OpenMode::CreateNew).unwrap();
    write_all_at(&*file, b"new", 0).unwrap();
    file.sync_all().unwrap();
    disk.rename("tmp", "cur").unwrap();
    let after = disk.crash(Crash::Subset(0b10));
    assert_eq!((after.file_names(), after.read_file("cur").unwrap()), (vec!["cur".to_owned()], b"new".to_vec()));
    assert_eq!(disk.crash(Crash::Subset(0b01)).file_names(), ["tmp"]);
}

#[test]
fn a_file_never_has_two_names() {
    let disk = SimDisk::new(1);
    disk.write_file("a", b"x");
    disk.rename("a", "b").unwrap();
    disk.rename("b", "c").unwrap();
    let seen: BTreeSet<_> = all_crashes(&disk).iter().map(|d| d.file_names().join(" ")).collect();
    assert_eq!(seen, BTreeSet::from(["a", "b", "c"].map(str::to_owned)));
}

#[test]
fn a_kill_keeps_the_page_cache_and_leaves_it_unsynced() {
    let (disk, file) = new();
    write_all_at(&*file, &[1; 100], 0).unwrap();
    let _ = disk.open("g", OpenMode::CreateNew).unwrap();
    let killed = disk.crash(Crash::KillOnly);
    assert_eq!(killed.file_names(), ["f", "g"]);
    assert_eq!(killed.read_file("f").unwrap(), [1; 100]);
    let lost = killed.crash(Crash::Nothing);
    assert_eq!((lost.file_names(), lost.read_file("f").unwrap()), (vec!["f".to_owned()], vec![]));
    assert!(is_sync_all_ok(&killed));
    assert_eq!(killed.crash(Crash::Nothing).read_file("f").unwrap(), [1; 100], "a sync after the kill covers it");
}

#[test]
fn the_crashed_disk_and_the_new_one_are_independent() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(1, 1), 0).unwrap();
    let after = disk.crash(Crash::Nothing);
    file.write_durable_at(&blocks(1, 2), 0).unwrap();
    assert_eq!(after.read_file("f").unwrap(), [1; 4096]);
    after.overwrite("f", 0, b"zz").unwrap();
    assert_eq!(disk.read_file("f").unwrap(), [2; 4096]);
}

#[test]
fn seeded_crashes_repeat_and_reach_every_state() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(2, 1), 0).unwrap();
    write_all_at(&*file, &[2; 512], 0).unwrap();
    write_all_at(&*file, &[2; 512], 4096).unwrap();
    let _ = disk.open("g", OpenMode::CreateNew).unwrap();
    let look = |d: &SimDisk| (d.file_names(), d.read_file("f").unwrap());
    let seen: BTreeSet<_> = (0..400).map(|seed| look(&disk.crash(Crash::Seeded(seed)))).collect();
    assert_eq!(seen.len(), 8);
    for seed in 0..20 {
        assert_eq!(look(&disk.crash(Crash::Seeded(seed))), look(&disk.crash(Crash::Seeded(seed))));
    }
}

#[test]
fn seeded_crashes_lose_an_earlier_write_whole_and_keep_a_later_one_whole() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(8, 1), 0).unwrap();
    write_all_at(&*file, &[2; 4096], 0).unwrap();
    write_all_at(&*file, &[3; 4096], 4096).unwrap();
    let expected = [vec![1; 4096], vec![3; 4096]].concat();
    assert!((0..400).any(|seed| disk.crash(Crash::Seeded(seed)).read_file("f").unwrap()[..8192] == expected));
}

#[test]
fn device_read_shows_what_was_written_but_does_not_make_it_durable() {
    let (disk, file) = new();
    write_all_at(&*file, &[1; 5000], 0).unwrap();
    assert_eq!(device(&file), [1; 5000]);
    assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), b"", "no device cache was flushed");
}

/// A workload of everything, drawn from the disk's own randomness.
fn workload(disk: &SimDisk) -> u64 {
    disk.fail_at(40, Fault::ShortWrite, Persistence::ForEver);
    for round in 0..50 {
        let name = format!("f{}", disk.random() % 4);
        let mode = if disk.file_names().contains(&name) { OpenMode::ReadWrite } else { OpenMode::CreateNew };
        let file = disk.open(&name, mode).unwrap();
        let at = disk.random() % 8 * 4096;
        match disk.random() % 6 {
            0 => file.write_durable_at(&blocks(1, round), at).unwrap(),
            1 => file.sync_data().unwrap(),
            2 => disk.sync_dir().unwrap(),
            3 => file.set_len(at).unwrap(),
            4 => disk.rename(&name, "g").unwrap(),
            _ => write_all_at(&*file, &[round; 700], at + 5).unwrap(),
        }
    }
    disk.trace_hash()
}

#[test]
fn same_seed_gives_the_same_trace_and_the_same_crashes() {
    let mut hashes = BTreeSet::new();
    for seed in 0..20 {
        let (a, b) = (SimDisk::new(seed), SimDisk::new(seed));
        assert_eq!(workload(&a), workload(&b));
        assert_eq!(a.pending_units(), b.pending_units());
        for choice in [Crash::Seeded(seed), Crash::TornBlock(seed), Crash::KillOnly] {
            let (a, b) = (a.crash(choice), b.crash(choice));
            assert_eq!(a.file_names(), b.file_names());
            for name in a.file_names() {
                assert_eq!(a.read_file(&name).unwrap(), b.read_file(&name).unwrap());
            }
            assert_eq!(a.random(), b.random());
        }
        hashes.insert(a.trace_hash());
    }
    assert_eq!(hashes.len(), 20, "other seeds give other traces");
}

#[test]
fn the_trace_hash_depends_on_every_part_of_an_operation() {
    type Step = fn(&File);
    let steps: [Step; 6] = [
        |f| drop(f.write_at(b"ab", 0)),
        |f| drop(f.write_at(b"ac", 0)),
        |f| drop(f.write_at(b"ab", 1)),
        |f| drop(f.read_at(&mut [0; 2], 0)),
        |f| drop(f.read_at(&mut [0; 3], 0)),
        |f| drop(f.sync_data()),
    ];
    let hashes: BTreeSet<u64> = steps
        .iter()
        .map(|step| {
            let (disk, file) = new();
            step(&file);
            disk.trace_hash()
        })
        .collect();
    assert_eq!(hashes.len(), steps.len());
}

#[test]
fn the_trace_tells_operations_and_faults() {
    let (disk, file) = new();
    disk.enable_trace();
    disk.fail_next(OpKind::SyncData, Fault::Eio, Persistence::Once);
    write_all_at(&*file, b"abc", 7).unwrap();
    file.sync_data().unwrap_err();
    assert_eq!(disk.trace(), ["3 WriteAt f @7+3", "4 SyncData f @0+0 !Eio"]);
}

#[test]
fn time_passes_with_operations_and_on_request_only() {
    let (disk, file) = new();
    let start = disk.monotonic();
    assert_eq!(disk.monotonic(), start);
    file.len().unwrap();
    assert_eq!(disk.monotonic(), start + Duration::from_micros(1));
    disk.advance(Duration::from_secs(5));
    assert_eq!(disk.monotonic(), start + Duration::from_micros(5_000_001));
    assert_eq!(disk.crash(Crash::Nothing).monotonic(), disk.monotonic(), "it goes on after a crash");
}

#[test]
fn direct_edits_are_durable_at_once_and_are_no_operations() {
    let (disk, file) = new();
    write_all_at(&*file, &[0; 100], 0).unwrap();
    let (ops, hash) = (disk.op_count(), disk.trace_hash());
    disk.flip_bit("f", 3, 6).unwrap();
    disk.overwrite("f", 98, b"xyz").unwrap();
    for crash in [Crash::Nothing, Crash::Everything, Crash::KillOnly] {
        let bytes = disk.crash(crash).read_file("f").unwrap();
        assert_eq!((bytes.len(), bytes[3], &bytes[98..]), (101, 64, &b"xyz"[..]), "{crash:?}");
    }
    assert_eq!(disk.flip_bit("f", 101, 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    disk.truncate_file("f", 4).unwrap();
    assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), [0, 0, 0, 64]);
    disk.write_file("new", b"n");
    disk.write_file("f", b"replaced");
    assert_eq!(disk.crash(Crash::Nothing).read_file("new").unwrap(), b"n");
    assert_eq!(disk.crash(Crash::Nothing).read_file("f").unwrap(), b"replaced");
    disk.remove_file("f").unwrap();
    assert_eq!(disk.crash(Crash::Nothing).file_names(), ["new"]);
    assert_eq!(disk.read_file("f").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!((disk.op_count(), disk.trace_hash()), (ops, hash));
}

#[test]
fn handles_keep_to_their_mode_and_outlive_removal() {
    let (disk, file) = new();
    let reader = disk.open("f", OpenMode::Read).unwrap();
    reader.write_at(b"x", 0).unwrap_err();
    reader.set_len(0).unwrap_err();
    assert_eq!(disk.open("f", OpenMode::CreateNew).err().unwrap().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.open("none", OpenMode::ReadWrite).err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(disk.open("a/b", OpenMode::CreateNew).err().unwrap().kind(), ErrorKind::InvalidInput);
    disk.remove("f").unwrap();
    disk.sync_dir().unwrap();
    write_all_at(&*file, b"alive", 0).unwrap();
    assert_eq!(cached(&reader), b"alive");
}

#[test]
fn unaligned_calls_around_the_cache_are_refused() {
    let (_disk, file) = new();
    let mut buf = blocks(2, 1);
    for error in [
        file.write_durable_at(&buf[..100], 0).unwrap_err(),
        file.write_durable_at(&buf[1..513], 0).unwrap_err(),
        file.write_durable_at(&buf[..512], 1).unwrap_err(),
        file.read_device_at(&mut buf[..513], 0).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn crashing_a_large_disk_is_cheap() {
    let (disk, file) = new();
    file.write_durable_at(&blocks(4096, 7), 0).unwrap();
    let started = std::time::Instant::now();
    for seed in 0..10_000 {
        let _ = disk.crash(Crash::Seeded(seed));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_disk_can_be_shared_between_threads() {
    let disk = SimDisk::new(1);
    std::thread::scope(|scope| {
        for i in 0..4u8 {
            let disk = disk.clone();
            scope.spawn(move || {
                let file = disk.open(&format!("f{i}"), OpenMode::CreateNew).unwrap();
                for n in 0..100 {
                    write_all_at(&*file, &[i; 100], n * 100).unwrap();
                }
                file.sync_all().unwrap();
            });
        }
    });
    disk.sync_dir().unwrap();
    let after = disk.crash(Crash::Nothing);
    for i in 0..4 {
        assert_eq!(after.read_file(&format!("f{i}")).unwrap(), vec![i; 10_000]);
    }
}

#[test]
fn a_kept_removal_takes_only_its_own_file() {
    let disk = SimDisk::new(1);
    disk.write_file("a", b"a");
    disk.write_file("b", b"b");
    disk.rename("a", "b").unwrap();
    disk.remove("b").unwrap();
    let after = disk.crash(Crash::Subset(0b10));
    assert_eq!(after.file_names(), ["a", "b"]);
    assert_eq!(after.read_file("b").unwrap(), b"b");
}

#[test]
fn a_kill_ends_handles_and_gives_back_what_only_they_held() {
    let (disk, file) = new();
    disk.set_free_bytes(Some(4096));
    write_all_at(&*file, b"x", 0).unwrap();
    disk.remove("f").unwrap();
    assert_eq!(disk.free_bytes(), 0);
    assert_eq!(disk.crash(Crash::KillOnly).free_bytes(), 4096);
}

#[test]
fn files_made_after_a_crash_are_new_files() {
    let disk = SimDisk::new(1);
    disk.write_file("a", b"a");
    for crash in [Crash::Nothing, Crash::KillOnly] {
        let after = disk.crash(crash);
        let file = after.open("b", OpenMode::CreateNew).unwrap();
        write_all_at(&*file, b"b", 0).unwrap();
        assert_eq!((after.read_file("a").unwrap(), after.file_names().len()), (b"a".to_vec(), 2));
    }
}

#[test]
fn directly_removed_files_stay_away() {
    let disk = SimDisk::new(1);
    let _ = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.remove_file("a").unwrap();
    assert!(disk.crash(Crash::Everything).file_names().is_empty());
}
