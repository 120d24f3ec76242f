use super::*;
use crate::io::{AlignedBuf, Clock, Directory, File, read_device_full, write_all_at};
use tempfile::TempDir;

fn store(path: WritePath) -> (TempDir, DiskStorage) {
    // Beside the test binary: /tmp may be a memory file system.
    let dir = TempDir::new_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let disk = DiskStorage::open(dir.path().join("a/store"), Create::IfMissing).unwrap().with_write_path(path);
    (dir, disk)
}

fn block(disk: &DiskStorage, blocks: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(disk.block_bytes() as usize * blocks).unwrap();
    buf.fill(byte);
    buf
}

fn mode(disk: &DiskStorage, name: &str) -> u32 {
    std::fs::metadata(disk.path(name)).unwrap().permissions().mode() & 0o777
}

fn is_direct_io_possible(disk: &DiskStorage) -> bool {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT;
    rustix::fs::openat(&disk.dir, "direct-probe", flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).is_ok()
}

#[test]
fn directory_is_0700_and_files_are_0600() {
    let (_dir, disk) = store(WritePath::Direct);
    Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
    let _lock = disk.lock(LockMode::Exclusive).unwrap();
    assert_eq!((mode(&disk, ""), mode(&disk, "f"), mode(&disk, "LOCK")), (0o700, 0o600, 0o600));
}

/// S9: only the store's own directory is private.
#[test]
fn directories_above_the_store_get_ordinary_permissions() {
    let (dir, disk) = store(WritePath::Direct);
    std::fs::create_dir(dir.path().join("ordinary")).unwrap();
    let ordinary = std::fs::metadata(dir.path().join("ordinary")).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&disk, ""), mode(&disk, "..")), (0o700, ordinary));
}

/// S9: the group may do with the files what it may do with the directory, whatever the umask.
#[test]
fn new_files_get_the_permissions_of_the_directorys_group() {
    for (above, expected) in [
        (0o700, 0o600),
        (0o750, 0o640),
        (0o770, 0o660),
        (0o755, 0o640),
        (0o777, 0o660),
        (0o2770, 0o660),
        (0o710, 0o600),
    ] {
        let (_dir, disk) = store(WritePath::Direct);
        std::fs::set_permissions(disk.path(""), std::fs::Permissions::from_mode(above)).unwrap();
        let _lock = disk.lock(LockMode::Exclusive).unwrap();
        Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
        assert_eq!((mode(&disk, "f"), mode(&disk, "LOCK")), (expected, expected), "{above:o}");
    }
}

#[test]
fn a_missing_directory_is_made_only_when_asked() {
    let (_dir, disk) = store(WritePath::Direct);
    let missing = disk.path("sub");
    let error = DiskStorage::open(&missing, Create::Never).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(!missing.exists());
    DiskStorage::open(disk.path(""), Create::Never).unwrap();
}

#[test]
fn durable_writes_read_back_on_both_paths() {
    for path in [WritePath::Direct, WritePath::BufferedSync] {
        let (_dir, disk) = store(path);
        let file = Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
        if path == WritePath::BufferedSync || is_direct_io_possible(&disk) {
            assert_eq!(file.write_path(), path);
        }
        let bytes = disk.block_bytes() as u64;
        file.write_durable_at(&block(&disk, 3, 7), bytes).unwrap();
        assert_eq!(file.len().unwrap(), 4 * bytes);
        let mut buf = block(&disk, 5, 1);
        assert_eq!(read_device_full(&*file, &mut buf, 0).unwrap() as u64, 4 * bytes);
        assert!(buf[..bytes as usize].iter().all(|&b| b == 0));
        assert!(buf[bytes as usize..4 * bytes as usize].iter().all(|&b| b == 7));
        let mut cached = vec![0; 8];
        assert_eq!(file.read_at(&mut cached, bytes).unwrap(), 8);
        assert_eq!(cached, [7; 8]);
    }
}

#[test]
fn direct_descriptor_asks_for_data_sync_and_not_for_more() {
    let (_dir, disk) = store(WritePath::Direct);
    if !is_direct_io_possible(&disk) {
        return;
    }
    let file = fs::File::create_new(disk.path("f")).unwrap();
    let direct = disk.open_direct("f", &file, OFlags::RDWR).unwrap().unwrap();
    let flags = rustix::fs::fcntl_getfl(&direct).unwrap();
    assert!(flags.contains(OFlags::DIRECT | DATA_SYNC));
    if DATA_SYNC != OFlags::DSYNC {
        assert!(!flags.contains(OFlags::SYNC), "O_SYNC would commit the file's times at each write");
    }
    assert!(rustix::io::fcntl_getfd(&direct).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn unaligned_durable_writes_are_buffered_and_right() {
    let (_dir, disk) = store(WritePath::Direct);
    let file = Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
    let before = file.write_path();
    let buf = block(&disk, 2, 9);
    file.write_durable_at(&buf[..777], 0).unwrap(); // length
    file.write_durable_at(&buf[1..4097], 4096).unwrap(); // address
    file.write_durable_at(&buf[..4096], 8192 + 5).unwrap(); // offset
    assert_eq!(file.write_path(), before, "one call's misalignment says nothing about the file system");
    let on_disk = std::fs::read(disk.path("f")).unwrap();
    assert_eq!(on_disk.len(), 8192 + 5 + 4096);
    let holes = on_disk.iter().enumerate().filter(|(_, b)| **b == 0).map(|(i, _)| i).collect::<Vec<_>>();
    assert_eq!(holes, (777..4096).chain(8192..8197).collect::<Vec<_>>());
}

#[test]
fn a_refused_direct_write_falls_back_for_ever() {
    let (_dir, disk) = store(WritePath::Direct);
    let file = fs::File::create_new(disk.path("f")).unwrap();
    let direct = disk.open_direct("f", &file, OFlags::RDWR).unwrap();
    if direct.is_none() {
        return;
    }
    // An alignment of one byte stands for a file system that turns out to be stricter than it said.
    let probe = Probe { direct_align: 1, memory_align: 1, ..disk.probe };
    let strict = DiskFile::new(file, direct, true, &probe, Arc::clone(&disk.paths));
    assert_eq!(strict.write_path(), WritePath::Direct);
    strict.write_durable_at(b"odd", 1).unwrap();
    assert_eq!((strict.write_path(), disk.write_path()), (WritePath::BufferedSync, WritePath::BufferedSync));
    assert_eq!(std::fs::read(disk.path("f")).unwrap(), b"\0odd");
    let mut buf = [0; 3];
    assert_eq!(strict.read_device_at(&mut buf, 1).unwrap(), 3);
    assert_eq!(&buf, b"odd");
    assert!(!disk.paths.direct_reads.load(Ordering::Relaxed));
}

#[test]
fn device_read_follows_a_buffered_write_and_sync() {
    for direct in [true, false] {
        let (_dir, disk) = store(WritePath::Direct);
        disk.paths.direct_reads.store(direct, Ordering::Relaxed);
        let file = Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
        write_all_at(&*file, &[5; 10_000], 0).unwrap();
        file.sync_data().unwrap();
        let mut buf = block(&disk, 4, 0);
        assert_eq!(file.read_device_at(&mut buf, 0).unwrap(), 10_000, "the whole short file");
        assert!(buf[..10_000].iter().all(|&b| b == 5));
        assert_eq!(file.read_device_at(&mut buf, 8192).unwrap(), 10_000 - 8192);
        assert_eq!(file.read_device_at(&mut buf, 12288).unwrap(), 0, "past the end");
    }
}

#[test]
fn uncached_reads_cover_what_no_sync_covered_yet() {
    let (_dir, disk) = store(WritePath::Direct);
    disk.paths.direct_reads.store(false, Ordering::Relaxed);
    let file = Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
    write_all_at(&*file, &[5; 4096], 0).unwrap();
    let reader = Directory::open(&disk, "f", OpenMode::Read).unwrap();
    let mut buf = block(&disk, 1, 0);
    assert_eq!(reader.read_device_at(&mut buf, 0).unwrap(), 4096);
    assert!(buf.iter().all(|&b| b == 5));
}

#[test]
fn a_handle_survives_rename_and_removal() {
    let (_dir, disk) = store(WritePath::Direct);
    let file = Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
    disk.rename("f", "g").unwrap();
    disk.sync_dir().unwrap();
    file.write_durable_at(&block(&disk, 1, 3), 0).unwrap();
    assert_eq!(disk.list().unwrap(), ["g"]);
    assert_eq!(std::fs::read(disk.path("g")).unwrap().len(), disk.block_bytes() as usize);
    disk.remove("g").unwrap();
    let mut buf = block(&disk, 1, 0);
    assert_eq!(file.read_device_at(&mut buf, 0).unwrap(), buf.len());
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn list_names_files_and_links_in_order_and_neither_directories_nor_the_lock() {
    let (_dir, disk) = store(WritePath::Direct);
    for name in ["b", "a", "ß"] {
        Directory::open(&disk, name, OpenMode::CreateNew).unwrap();
    }
    std::fs::create_dir(disk.path("dir")).unwrap();
    std::os::unix::fs::symlink("a", disk.path("link")).unwrap();
    std::os::unix::fs::symlink("dir", disk.path("link to dir")).unwrap();
    std::os::unix::fs::symlink("gone", disk.path("link to nothing")).unwrap();
    std::os::unix::net::UnixListener::bind(disk.path("socket")).unwrap();
    let _lock = disk.lock(LockMode::Exclusive).unwrap();
    assert_eq!(disk.list().unwrap(), ["a", "b", "link", "link to nothing", "socket", "ß"]);
    assert_eq!(disk.list_directories().unwrap(), ["dir", "link to dir"]);
    Directory::open(&disk, "link", OpenMode::ReadWrite).unwrap();
    for (name, mode, kind) in [
        ("socket", OpenMode::Read, io::ErrorKind::InvalidInput),
        ("socket", OpenMode::ReadWrite, io::ErrorKind::InvalidInput),
        ("dir", OpenMode::Read, io::ErrorKind::InvalidInput),
        ("dir", OpenMode::ReadWrite, io::ErrorKind::IsADirectory),
        ("link to nothing", OpenMode::ReadWrite, io::ErrorKind::NotFound),
    ] {
        let error = Directory::open(&disk, name, mode).err().unwrap();
        assert_eq!(error.kind(), kind, "{name} {mode:?}");
        assert!(name != "dir" || error.to_string() == "it is a directory, not a regular file", "{error}");
    }
}

#[test]
fn names_that_are_not_plain_are_refused() {
    let (_dir, disk) = store(WritePath::Direct);
    for name in ["", ".", "..", "a/b", "/etc/passwd", "LOCK"] {
        let error = Directory::open(&disk, name, OpenMode::Read).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn open_modes_say_what_is_wrong() {
    let (_dir, disk) = store(WritePath::Direct);
    assert_eq!(Directory::open(&disk, "f", OpenMode::Read).err().unwrap().kind(), io::ErrorKind::NotFound);
    assert_eq!(Directory::open(&disk, "f", OpenMode::ReadWrite).err().unwrap().kind(), io::ErrorKind::NotFound);
    Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
    assert_eq!(Directory::open(&disk, "f", OpenMode::CreateNew).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    let reader = Directory::open(&disk, "f", OpenMode::Read).unwrap();
    reader.write_at(b"x", 0).unwrap_err();
    reader.write_durable_at(b"x", 0).unwrap_err();
}

#[test]
fn allocate_claims_space_and_never_shortens() {
    let (_dir, disk) = store(WritePath::Direct);
    let file = Directory::open(&disk, "f", OpenMode::CreateNew).unwrap();
    file.allocate(0).unwrap();
    assert!(file.len().unwrap() == 0);
    file.allocate(100_000).unwrap();
    assert_eq!(file.len().unwrap(), 100_000);
    file.allocate(10).unwrap();
    assert_eq!(file.len().unwrap(), 100_000);
    file.set_len(5).unwrap();
    assert_eq!(file.len().unwrap(), 5);
    file.sync_all().unwrap();
}

#[test]
fn exclusive_lock_refuses_a_second_handle_and_names_the_holder() {
    let (_dir, disk) = store(WritePath::Direct);
    let second = DiskStorage::open(disk.path(""), Create::Never).unwrap();
    let held = disk.lock(LockMode::Exclusive).unwrap();
    for mode in [LockMode::Exclusive, LockMode::Shared] {
        let error = second.lock(mode).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }
    drop(held);
    second.lock(LockMode::Exclusive).unwrap();
}

#[test]
fn shared_locks_share_write_nothing_and_keep_owners_out() {
    let (_dir, disk) = store(WritePath::Direct);
    let reader = disk.lock(LockMode::Shared).unwrap();
    assert!(!disk.path("LOCK").exists(), "a reader of a store that was never locked writes nothing");
    drop(reader);
    drop(disk.lock(LockMode::Exclusive).unwrap());
    let readers = [disk.lock(LockMode::Shared).unwrap(), disk.lock(LockMode::Shared).unwrap()];
    let error = disk.lock(LockMode::Exclusive).err().unwrap();
    assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::WouldBlock, "a reader"));
    drop(readers);
    disk.lock(LockMode::Exclusive).unwrap();
}

#[test]
fn block_size_is_a_power_of_two_of_at_least_4096() {
    let (_dir, disk) = store(WritePath::Direct);
    assert!(disk.block_bytes() >= 4096 && disk.block_bytes().is_power_of_two());
    assert!(disk.monotonic() <= disk.monotonic());
    assert!(disk.wall_clock_micros() > 1_600_000_000_000_000);
}

#[test]
fn an_interrupted_sync_is_not_of_the_kind_that_callers_retry() {
    assert_ne!(sync_result(Err(Errno::INTR)).unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert_eq!(sync_result(Err(Errno::IO)).unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
}

#[test]
fn the_lock_file_names_its_holder_and_nobody_afterwards() {
    let (_dir, disk) = store(WritePath::Direct);
    let held = disk.lock(LockMode::Exclusive).unwrap();
    assert_eq!(std::fs::read_to_string(disk.path("LOCK")).unwrap(), std::process::id().to_string());
    drop(held);
    assert_eq!(std::fs::read(disk.path("LOCK")).unwrap(), b"");
}
