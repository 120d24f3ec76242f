//! Opens files safely, whatever descriptors are free and whatever kind of file has the name.
//!
//! - A descriptor is never 0, 1 or 2. In a process that was started with its standard streams
//!   closed, `println!` would otherwise write into the store. These numbers are occupied while a
//!   store is open. If the program frees one later, a file that gets it is moved to another.
//! - Opening never blocks, as it would on a FIFO without a writer.
//! - Any file that is not a regular file is refused, with an error that names its kind. A symbolic
//!   link is followed. It is not removed or replaced either, because it is not the store's.

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// The lowest descriptor above the standard streams.
const FIRST: i32 = 3;

/// Opens a regular file below a directory. A file that it creates can be read and written by its
/// owner only.
pub(super) fn open_file(dir: impl AsFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR) {
        // a socket, or a device that does not exist
        Err(Errno::NXIO) => return Err(refusal("a socket or a device")),
        Err(Errno::ISDIR) => {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, refusal("a directory").to_string()));
        }
        other => above_standard_streams(other?)?,
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile => Ok(fd.into()),
        other => Err(refusal(describe(other))),
    }
}

/// Opens a directory by its path.
pub(super) fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(above_standard_streams(rustix::fs::open(path, flags, Mode::empty())?)?.into())
}

/// Opens a directory that this process has just made. A link that took its place is not followed.
pub(super) fn open_new_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(above_standard_streams(rustix::fs::open(path, flags, Mode::empty())?)?.into())
}

/// Opens `/dev/null` under those descriptors of the standard streams that are free. While the
/// result lives, no file gets one of them, not even until it is duplicated.
///
/// Without descriptors, or without that device, fewer are taken.
pub(super) fn occupy_standard_streams() -> Vec<OwnedFd> {
    let open = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok();
    (0..FIRST).map_while(|_| open().filter(|fd| fd.as_raw_fd() < FIRST)).collect()
}

/// Duplicates a descriptor that has the number of a standard stream, and closes the original.
pub(super) fn above_standard_streams(fd: OwnedFd) -> rustix::io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, FIRST) }
}

/// Refuses to remove or replace what is neither a regular file nor a link to one. `called` names it
/// in the error. A missing file is accepted.
pub(super) fn check_is_file(dir: impl AsFd, name: &str, called: &str) -> io::Result<()> {
    let kind = match rustix::fs::statat(&dir, name, AtFlags::empty()) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(()),
            other => describe(other),
        },
        Err(Errno::NOENT) => match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => DANGLING,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        },
        // a link that leads to itself, for example
        Err(e) => return Err(io::Error::new(io::Error::from(e).kind(), format!("{called}: {e}"))),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{called} is {kind}, not a regular file")))
}

/// The error of a path that leads nowhere: `other` if nothing has that name.
pub(super) fn missing(path: &Path, other: io::Error) -> io::Error {
    match rustix::fs::lstat(path) {
        Ok(_) => io::Error::new(io::ErrorKind::InvalidInput, format!("it is {DANGLING}")),
        Err(_) => other,
    }
}

/// The error of a path that has something else in the place of a directory: `other` if that is
/// unknown.
pub(super) fn not_a_directory(path: &Path, other: io::Error) -> io::Error {
    let kind = match rustix::fs::stat(path) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => "a regular file",
            found => describe(found),
        },
        Err(_) => return missing(path, other),
    };
    io::Error::new(io::ErrorKind::NotADirectory, format!("it is {kind}, not a directory"))
}

const DANGLING: &str = "a link that leads nowhere";

fn refusal(kind: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a regular file"))
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown kind",
    }
}
