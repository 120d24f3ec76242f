//! Gives a new file the owner, the group and the group's permissions of its directory, and a new
//! directory of root the owner and the group of the one above.
//!
//! A command that root runs once must not leave files that the store's own user cannot open.

use rustix::fs::{Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// Gives a new file to the owner and the group of its directory, as far as this process may. Root
/// may; another user may set a group of its own.
///
/// The group may read and write the file if it may read and write the directory. Others may not.
///
/// # Errors
/// Root gets the operating system's error if it may not change the owner, as on NFS with
/// `root_squash`. The store's user could not open the file.
pub(super) fn inherit(dir: &File, file: &File) -> io::Result<()> {
    let (above, before) = (rustix::fs::fstat(dir)?, rustix::fs::fstat(file)?);
    inherit_owner(&above, &before, file, "file")?;
    // the group's permissions are meant for the directory's group only
    let has_group = rustix::fs::fstat(file)?.st_gid == above.st_gid;
    let group = Mode::from_raw_mode(above.st_mode) & (Mode::RGRP | Mode::WGRP);
    let mode = Mode::RUSR | Mode::WUSR | if has_group { group } else { Mode::empty() };
    if Mode::from_raw_mode(before.st_mode) != mode {
        // a file system without permissions refuses this, and has none to set
        let _ = rustix::fs::fchmod(file, mode);
    }
    Ok(())
}

/// Gives a new directory that belongs to root to the owner and the group of the one above. Its
/// permissions stay as they are.
///
/// # Errors
/// As [`inherit`].
pub(super) fn inherit_dir(above: &File, new: &File) -> io::Result<()> {
    let (above, before) = (rustix::fs::fstat(above)?, rustix::fs::fstat(new)?);
    // NFS with `root_squash` has given it to another user already
    let is_roots = rustix::process::geteuid().is_root() && Uid::from_raw(before.st_uid).is_root();
    if is_roots { inherit_owner(&above, &before, new, "directory") } else { Ok(()) }
}

fn inherit_owner(above: &Stat, before: &Stat, new: &File, what: &str) -> io::Result<()> {
    if (above.st_uid, above.st_gid) == (before.st_uid, before.st_gid) {
        return Ok(());
    }
    let is_root = rustix::process::geteuid().is_root();
    let owner = is_root.then(|| Uid::from_raw(above.st_uid));
    match rustix::fs::fchown(new, owner, Some(Gid::from_raw(above.st_gid))) {
        // the owner has no id in this user namespace, so this root is not the system's root
        Err(Errno::INVAL) => Ok(()),
        Err(e) if is_root => {
            let owner = above.st_uid;
            let why = format!("a new {what} cannot be given to the directory's owner ({e}); do this as user {owner}");
            Err(io::Error::new(io::Error::from(e).kind(), why))
        }
        _ => Ok(()),
    }
}
