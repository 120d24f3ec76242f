//! Probes the device and the file system below a directory.
//!
//! The results are guesses that err on the safe side: an unknown block size is 4096 bytes, an
//! unknown alignment is the block size, and the first write shows whether direct I/O works.

use crate::io::Create;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::AsFd;

/// The block size unless a larger one is known. Almost all devices write 4 KiB atomically.
const DEFAULT_BLOCK_BYTES: u32 = 4096;

/// Larger sizes are ignored: no device has such blocks, and each frame is padded to one.
const MAX_BLOCK_BYTES: u32 = 64 << 10;

/// Properties of a directory's file system and device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// See [`crate::io::Directory::block_bytes`].
    pub(super) block_bytes: u32,
    /// The alignment of offsets and lengths for direct I/O, in bytes.
    pub(super) direct_align: usize,
    /// The alignment of buffer addresses for direct I/O, in bytes.
    pub(super) memory_align: usize,
    /// False if the file system is known to refuse direct I/O.
    pub(super) direct_io: bool,
}

/// Probes a directory. [`Create::Never`] writes nothing, not even an unnamed file.
pub(super) fn probe(dir: &File, create: Create) -> io::Result<Probe> {
    let mut found = Probe {
        block_bytes: DEFAULT_BLOCK_BYTES,
        direct_align: DEFAULT_BLOCK_BYTES as usize,
        memory_align: DEFAULT_BLOCK_BYTES as usize,
        direct_io: true,
    };
    let stat = rustix::fs::fstat(dir)?;
    let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let mut blocks = vec![physical_block_bytes(device)];
    if let Some(file) = sample_file(dir, create) {
        let asked = StatxFlags::DIOALIGN;
        if let Ok(stat) = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, asked)
            && stat.stx_mask & asked.bits() != 0
        {
            found.direct_io = stat.stx_dio_offset_align != 0;
            blocks.push(Some(stat.stx_dio_offset_align));
            found.memory_align = usize::try_from(stat.stx_dio_mem_align).unwrap_or(0).max(1);
            found.direct_align = usize::try_from(stat.stx_dio_offset_align).unwrap_or(0).max(512);
        }
    }
    for bytes in blocks.into_iter().flatten().filter(|&bytes| bytes <= MAX_BLOCK_BYTES) {
        found.block_bytes = found.block_bytes.max(bytes.next_power_of_two());
    }
    Ok(found)
}

/// A regular file to ask the kernel about: an unnamed one, otherwise an existing one.
fn sample_file(dir: &File, create: Create) -> Option<File> {
    if create == Create::IfMissing {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::openat(dir, c".", flags, Mode::RUSR | Mode::WUSR) {
            return Some(fd.into());
        }
    }
    let mut entries = Dir::read_from(dir).ok()?.filter_map(Result::ok);
    let entry = entries.find(|entry| entry.file_type() == FileType::RegularFile)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Some(rustix::fs::openat(dir, entry.file_name(), flags, Mode::empty()).ok()?.into())
}

/// The physical sector of a device, or of the whole disk that a partition belongs to.
fn physical_block_bytes((major, minor): (u32, u32)) -> Option<u32> {
    ["queue", "../queue"].iter().find_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/physical_block_size");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

/// Warnings about a file system that may not keep its promises, one sentence each.
pub(super) fn warnings(dir: &impl AsFd) -> Vec<String> {
    match rustix::fs::fstatfs(dir) {
        Ok(stat) => u32::try_from(stat.f_type).ok().and_then(warning_for).map(str::to_owned).into_iter().collect(),
        Err(e) => {
            vec![format!("the kind of file system is unknown ({e}), so durable writes may not survive power loss")]
        }
    }
}

/// True if the directory's file system is mounted read-only.
pub(super) fn is_read_only(dir: &impl AsFd) -> bool {
    rustix::fs::fstatvfs(dir).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// The kernel's magic numbers (`linux/magic.h`).
fn warning_for(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x0102_1994 => "the store lies on tmpfs, in memory: nothing survives power loss",
        0x8584_58f6 => "the store lies on ramfs, in memory: nothing survives power loss",
        0x794c_7630 => {
            "the store lies on overlayfs: mounted `volatile` it ignores syncs, and a container's layer is not kept"
        }
        0x6969 => "the store lies on NFS: locks and syncs are as good as the server and its mount options",
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => "the store lies on SMB: locks and syncs are as good as the server",
        0x0102_1997 => "the store lies on 9P: locks and syncs are as good as the host",
        0x6573_5546 => "the store lies on FUSE: syncs are as good as the program behind it",
        _ => return None,
    })
}

/// A random number from the operating system.
pub(super) fn random() -> u64 {
    let mut bytes = [0u8; 8];
    loop {
        match rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) {
            Ok(8) => return u64::from_le_bytes(bytes),
            Ok(_) | Err(Errno::INTR) => {}
            // std seeds its hash maps from the operating system, by other means if this call is
            // missing
            Err(_) => return RandomState::new().build_hasher().finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_without_the_promise_are_named() {
        for (magic, word) in
            [(0x0102_1994, "tmpfs"), (0x6969, "NFS"), (0x6573_5546, "FUSE"), (0x794c_7630, "overlayfs")]
        {
            assert!(warning_for(magic).unwrap().contains(word));
        }
        assert_eq!(warning_for(0xef53), None, "ext4 keeps it");
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random(), random());
    }
}
