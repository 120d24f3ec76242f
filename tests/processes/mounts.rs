//! Small file systems that disappear with the process that mounted them.
//!
//! Everything is mounted in a private mount namespace, by a child of `unshare`. Nothing remains
//! however a test ends; a loop device is released with its mount.

use crate::child::{Running, command};
use crate::common::skipped;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn tool(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs one of the children in a namespace where it may mount, and prints its output. Prints
/// the reason if that is impossible.
pub(crate) fn privately(name: &str) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let wrappers: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    let can = |wrapper: &&&[&str]| {
        let trial = ["mount", "-t", "tmpfs", "tmpfs", dir.path().to_str().unwrap()];
        tool(wrapper[0], &[&wrapper[1..], &trial].concat())
    };
    let Some(wrapper) = wrappers.iter().find(can) else {
        skipped("nothing can be mounted, neither as root nor in a namespace");
        return None;
    };
    let (status, lines) = Running::start(command(wrapper, name, dir.path(), &[])).finish();
    for line in &lines {
        match line.strip_prefix("skipped: ") {
            Some(why) => skipped(why),
            None => println!("{line}"),
        }
    }
    assert!(status.success(), "{name}: {status}\n{}", lines.join("\n"));
    Some(lines)
}

/// A mounted file system.
pub(crate) struct Mount {
    at: PathBuf,
}

impl Mount {
    fn new(at: PathBuf, arguments: &[&str]) -> Option<Mount> {
        std::fs::create_dir_all(&at).unwrap();
        let mut all = arguments.to_vec();
        all.push(at.to_str().unwrap());
        tool("mount", &all).then_some(Mount { at })
    }

    pub(crate) fn tmpfs(at: PathBuf, mebibytes: u32) -> Option<Mount> {
        Mount::new(at, &["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
    }

    /// Mounts a file system in a file. Writeback by age is disabled, so that the file holds what
    /// was synced.
    pub(crate) fn image(image: &Path, at: PathBuf) -> Option<Mount> {
        let image = image.to_str().unwrap();
        // without a journal the file system does not know that option
        Mount::new(at.clone(), &["-o", "loop,noatime,commit=600", image])
            .or_else(|| Mount::new(at, &["-o", "loop,noatime", image]))
    }

    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Unmounts it. This fails while it is in use.
    pub(crate) fn unmount(self) {
        let mut tries = 0;
        while !tool("umount", &[self.at.to_str().unwrap()]) {
            tries += 1;
            assert!(tries < 50, "{} is still in use", self.at.display());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        tool("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

/// Creates a file system in a sparse file. `kind` is `ext4`, `ext2` and so on; `options` are for
/// its `mkfs`.
pub(crate) fn make_image(path: &Path, mebibytes: u64, kind: &str, options: &[&str]) -> bool {
    File::create(path).unwrap().set_len(mebibytes << 20).unwrap();
    let mut arguments = vec!["-q", "-F", "-m", "0", "-b", "4096"];
    arguments.extend_from_slice(options);
    arguments.push(path.to_str().unwrap());
    tool(&format!("mkfs.{kind}"), &arguments) || tool(&format!("/usr/sbin/mkfs.{kind}"), &arguments)
}

/// Turns every block of zeros in a file into a hole. Its content stays the same, and its space is
/// freed.
pub(crate) fn dig_holes(path: &Path) -> bool {
    tool("fallocate", &["--dig-holes", path.to_str().unwrap()])
}

/// Files that take all free space except `leave` bytes. They are removed when it is dropped.
pub(crate) struct Ballast {
    files: Vec<PathBuf>,
}

impl Ballast {
    pub(crate) fn load(dir: &Path, leave: u64) -> Ballast {
        let mut ballast = Ballast { files: Vec::new() };
        let reserve = dir.join("ballast-reserve");
        let piece = vec![0x5a; 64 << 10];
        let mut file = File::create(&reserve).unwrap();
        for _ in 0..leave.div_ceil(piece.len() as u64) {
            file.write_all(&piece).unwrap();
        }
        drop(file);
        // large files first, then files of a single block, until there is no space
        for (n, bytes) in [64 << 10, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096].into_iter().enumerate() {
            let path = dir.join(format!("ballast-{n}"));
            let Ok(mut file) = File::create(&path) else { break };
            ballast.files.push(path);
            while file.write_all(&piece[..bytes]).is_ok() {}
            let _ = file.sync_all();
        }
        std::fs::remove_file(reserve).unwrap();
        File::open(dir).unwrap().sync_all().unwrap();
        ballast
    }

    /// Takes what has become free since.
    pub(crate) fn take_more(&self) {
        let mut file = File::options().append(true).open(&self.files[0]).unwrap();
        for bytes in [64 << 10, 4096] {
            while file.write_all(&vec![0x5a; bytes]).is_ok() {}
        }
        let _ = file.sync_all();
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        for path in &self.files {
            std::fs::remove_file(path).unwrap();
        }
    }
}
