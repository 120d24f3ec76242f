//! Checks that the simulated disk can leave whatever a real file system leaves after a crash.
//!
//! The same small programs run on both. After each step the image of a loop device is copied and
//! the copy mounted, which replays its journal. At the end the file system is shut down without a
//! flush of its log (`FS_IOC_SHUTDOWN`). This needs root, loop devices and the file system's tools.
//! If one is missing, the test prints that and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

use seawal::io::{AlignedBuf, Create, DiskStorage, File, OpenMode, Storage};
use seawal::sim::SimDisk;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// One call of a program. A `u8` is the byte that is written; the numbers after it are offset and
/// length.
#[derive(Clone, Copy, Debug)]
enum Do {
    Create(&'static str),
    Write(&'static str, u8, u64, usize),
    /// Offset and length are in blocks of 4096 bytes.
    Durable(&'static str, u8, u64, usize),
    SyncData(&'static str),
    SyncAll(&'static str),
    SetLen(&'static str, u64),
    Allocate(&'static str, u64),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    SyncDir,
}

use Do::{Allocate, Create as New, Durable, Remove, Rename, SetLen, SyncAll, SyncData, SyncDir, Write};

/// Sequences of calls that the engine makes or might make: name and steps.
const PROGRAMS: [(&str, &[Do]); 16] = [
    (
        "append and sync",
        &[
            New("a"),
            SyncAll("a"),
            SyncDir,
            Write("a", 1, 0, 700),
            Write("a", 2, 700, 5000),
            SyncData("a"),
            Write("a", 3, 5700, 300),
        ],
    ),
    (
        "write a temporary file, sync, rename",
        &[
            New("cur"),
            Write("cur", 1, 0, 5000),
            SyncAll("cur"),
            SyncDir,
            New("tmp"),
            Write("tmp", 2, 0, 9000),
            SyncAll("tmp"),
            Rename("tmp", "cur"),
            SyncDir,
        ],
    ),
    (
        "write a temporary file, rename, sync nothing",
        &[
            New("cur"),
            Write("cur", 1, 0, 5000),
            SyncAll("cur"),
            SyncDir,
            New("tmp"),
            Write("tmp", 2, 0, 9000),
            Rename("tmp", "cur"),
            New("b"),
            SyncAll("b"),
        ],
    ),
    (
        "a spare becomes a segment",
        &[
            New("spare.tmp"),
            Allocate("spare.tmp", 16384),
            Write("spare.tmp", 0, 0, 16384),
            SyncAll("spare.tmp"),
            Rename("spare.tmp", "spare"),
            SyncDir,
            Durable("spare", 1, 0, 1),
            Rename("spare", "seg"),
            SyncDir,
            Durable("seg", 2, 1, 1),
            Durable("seg", 3, 2, 2),
        ],
    ),
    (
        "a segment becomes a spare and a segment again",
        &[
            New("seg1"),
            Write("seg1", 1, 0, 16384),
            SyncAll("seg1"),
            SyncDir,
            Rename("seg1", "spare"),
            SyncDir,
            Durable("spare", 2, 0, 1),
            Rename("spare", "seg2"),
            SyncDir,
            Durable("seg2", 3, 1, 1),
            Remove("seg2"),
            SyncDir,
        ],
    ),
    (
        "overwrite in place",
        &[
            New("a"),
            Write("a", 1, 0, 16384),
            SyncAll("a"),
            SyncDir,
            Write("a", 2, 0, 4096),
            Write("a", 3, 8192, 1000),
            SyncData("a"),
            Write("a", 4, 100, 50),
            Write("a", 5, 4000, 200),
        ],
    ),
    (
        "durable writes at the end and in place",
        &[
            New("a"),
            SyncDir,
            Durable("a", 1, 0, 1),
            Durable("a", 2, 1, 2),
            Durable("a", 3, 0, 1),
            Durable("a", 4, 5, 1),
        ],
    ),
    (
        "written and durable bytes in one file",
        &[
            New("a"),
            Write("a", 1, 0, 16384),
            SyncAll("a"),
            SyncDir,
            Write("a", 2, 0, 4096),
            Durable("a", 3, 1, 1),
            Write("a", 4, 16384, 4096),
            Durable("a", 5, 5, 1),
            SyncData("a"),
        ],
    ),
    (
        "two copies take turns",
        &[
            New("m0"),
            New("m1"),
            Write("m0", 1, 0, 4096),
            Write("m1", 1, 0, 4096),
            SyncAll("m0"),
            SyncAll("m1"),
            SyncDir,
            Durable("m0", 2, 0, 1),
            Durable("m1", 3, 0, 1),
        ],
    ),
    (
        "remove and create again",
        &[
            New("a"),
            New("b"),
            Write("a", 1, 0, 3000),
            SyncAll("a"),
            SyncDir,
            Remove("a"),
            New("a"),
            Write("a", 2, 0, 6000),
            SyncAll("b"),
            SyncAll("a"),
            Remove("b"),
            SyncDir,
        ],
    ),
    (
        "cut and append",
        &[
            New("a"),
            Write("a", 1, 0, 9000),
            SyncAll("a"),
            SyncDir,
            SetLen("a", 5000),
            SetLen("a", 100),
            Write("a", 2, 100, 3000),
            SyncData("a"),
            SetLen("a", 0),
        ],
    ),
    (
        "cut and grow",
        &[
            New("a"),
            Write("a", 1, 0, 8192),
            SyncAll("a"),
            SyncDir,
            SetLen("a", 1000),
            SetLen("a", 6000),
            SyncAll("a"),
            SetLen("a", 10),
            Durable("a", 2, 1, 1),
        ],
    ),
    (
        "allocate and write",
        &[
            New("a"),
            Allocate("a", 12288),
            SyncAll("a"),
            SyncDir,
            Write("a", 1, 4096, 4096),
            SyncData("a"),
            Allocate("a", 20480),
            Write("a", 2, 16384, 10),
            Durable("a", 3, 3, 1),
        ],
    ),
    (
        "a chain of renames",
        &[
            New("a"),
            Write("a", 1, 0, 100),
            SyncAll("a"),
            SyncDir,
            Rename("a", "b"),
            Rename("b", "c"),
            New("a"),
            SyncAll("a"),
            Write("a", 2, 0, 100),
            SyncDir,
        ],
    ),
    (
        "replace and remove",
        &[
            New("x"),
            New("y"),
            Write("x", 1, 0, 5000),
            Write("y", 2, 0, 100),
            SyncAll("x"),
            SyncAll("y"),
            SyncDir,
            Rename("x", "y"),
            Remove("y"),
            New("x"),
            SyncAll("x"),
            SyncDir,
        ],
    ),
    (
        "two files in turn",
        &[
            New("a"),
            New("b"),
            SyncDir,
            Write("a", 1, 0, 5000),
            Write("b", 2, 0, 5000),
            SyncData("b"),
            Write("a", 3, 5000, 5000),
            Write("b", 4, 0, 100),
            SyncData("a"),
        ],
    ),
];

/// A storage with the handles that a program has opened.
struct Machine<'a> {
    storage: &'a dyn Storage,
    files: BTreeMap<&'static str, Arc<dyn File>>,
}

impl Machine<'_> {
    fn step(&mut self, step: Do) -> io::Result<()> {
        match step {
            New(name) => {
                let file = self.storage.open(name, OpenMode::CreateNew)?;
                self.files.insert(name, file);
            }
            Write(name, byte, at, len) => {
                let written = self.files[name].write_at(&vec![byte; len], at)?;
                assert_eq!(written, len);
            }
            Durable(name, byte, block, count) => {
                let mut buf = AlignedBuf::zeroed(count * 4096)?;
                buf.fill(byte);
                self.files[name].write_durable_at(&buf, block * 4096)?;
            }
            SyncData(name) => self.files[name].sync_data()?,
            SyncAll(name) => self.files[name].sync_all()?,
            SetLen(name, len) => self.files[name].set_len(len)?,
            Allocate(name, len) => self.files[name].allocate(len)?,
            Rename(from, to) => {
                self.storage.rename(from, to)?;
                let file = self.files.remove(from).unwrap();
                self.files.insert(to, file);
            }
            Remove(name) => {
                self.storage.remove(name)?;
                self.files.remove(name);
            }
            SyncDir => self.storage.sync_dir()?,
        }
        Ok(())
    }
}

/// A kind of file system on a loop device.
struct Kind {
    name: &'static str,
    mkfs: &'static [&'static str],
    options: &'static str,
    /// The mount options of a copy while the original is mounted; `None` if that is impossible.
    copy_options: Option<&'static str>,
    image_bytes: u64,
}

const EXT4: Kind = Kind {
    name: "ext4",
    mkfs: &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"],
    options: "loop,commit=300",
    copy_options: Some("loop"),
    image_bytes: 24 << 20,
};

const XFS: Kind = Kind {
    name: "xfs",
    mkfs: &["mkfs.xfs", "-q", "-f", "-K"],
    options: "loop,nouuid",
    copy_options: Some("loop,nouuid"),
    image_bytes: 300 << 20,
};

const BTRFS: Kind = Kind {
    name: "btrfs",
    mkfs: &["mkfs.btrfs", "-q", "-f", "-K", "-M"],
    options: "loop,commit=300",
    copy_options: Some("loop"),
    image_bytes: 128 << 20,
};

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// A mounted image, unmounted when dropped.
struct Mount {
    at: PathBuf,
}

impl Mount {
    fn new(image: &Path, at: &Path, options: &str) -> Result<Mount, String> {
        std::fs::create_dir_all(at).map_err(|e| e.to_string())?;
        run(Command::new("mount").arg("-o").arg(options).arg(image).arg(at))?;
        Ok(Mount { at: at.to_owned() })
    }

    fn store(&self) -> PathBuf {
        self.at.join("store")
    }

    /// The completed requests of the loop device, and those in flight.
    fn traffic(&self) -> String {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == self.at.to_str()).unwrap();
        let device = line.split(' ').next().unwrap().trim_start_matches("/dev/");
        let stat = std::fs::read_to_string(format!("/sys/block/{device}/stat")).unwrap();
        let numbers: Vec<&str> = stat.split_whitespace().collect();
        assert!(numbers.len() > 8, "{stat}");
        format!("{} {}", numbers[4], numbers[8])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for _ in 0..20 {
            if run(Command::new("umount").arg(&self.at)).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

struct Bench {
    kind: &'static Kind,
    dir: tempfile::TempDir,
}

impl Bench {
    /// Prepares everything that is needed, or returns what is missing.
    fn new(kind: &'static Kind) -> Result<Bench, String> {
        if std::fs::metadata("/proc/self").map_err(|e| e.to_string())?.uid() != 0 {
            return Err("only root may mount".into());
        }
        if !Path::new("/dev/loop-control").exists() {
            return Err("there are no loop devices".into());
        }
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let bench = Bench { kind, dir };
        let image = std::fs::File::create(bench.path("pristine")).map_err(|e| e.to_string())?;
        image.set_len(kind.image_bytes).map_err(|e| e.to_string())?;
        run(Command::new(kind.mkfs[0]).args(&kind.mkfs[1..]).arg(bench.path("pristine")))?;
        let mount = Mount::new(&bench.path("pristine"), &bench.path("mnt"), kind.options)?;
        drop(DiskStorage::open(mount.store(), Create::IfMissing).map_err(|e| e.to_string())?);
        drop(mount);
        Ok(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn copy(&self, from: &str, to: &str) {
        let mut cp = Command::new("cp");
        run(cp.arg("--sparse=auto").arg(self.path(from)).arg(self.path(to))).unwrap();
    }

    fn start(&self) -> Mount {
        self.copy("pristine", "live");
        Mount::new(&self.path("live"), &self.path("mnt"), self.kind.options).unwrap()
    }

    /// The files after a power loss now: from a copy of the device, taken while nothing was written
    /// to it.
    fn copied(&self, live: &Mount, options: &str) -> BTreeMap<String, Vec<u8>> {
        for _ in 0..50 {
            let before = live.traffic();
            self.copy("live", "copy");
            if before.ends_with(" 0") && live.traffic() == before {
                let copy = Mount::new(&self.path("copy"), &self.path("copy.mnt"), options).unwrap();
                return files(&copy.store());
            }
        }
        panic!("the device does not rest");
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

fn described(files: &BTreeMap<String, Vec<u8>>) -> String {
    let runs = |bytes: &[u8]| {
        let runs = bytes.chunk_by(|a, b| a == b).map(|run| format!("{}x{}", run[0], run.len()));
        runs.collect::<Vec<_>>().join(" ")
    };
    files.iter().map(|(name, bytes)| format!("{name}: [{}]", runs(bytes))).collect::<Vec<_>>().join(", ")
}

/// Whether the journal is forced to be written after each step, by the sync of an unrelated file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Journal {
    LeftAlone,
    Nudged,
}

/// Runs a program on both. What a copy of the image shows after each step must be possible on the
/// simulated disk.
fn copies_are_possible(bench: &Bench, name: &str, program: &[Do], journal: Journal, options: &str) -> usize {
    let live = bench.start();
    let real = DiskStorage::open(live.store(), Create::Never).unwrap();
    let sim = SimDisk::new(1);
    let mut machines =
        [Machine { storage: &real, files: BTreeMap::new() }, Machine { storage: &sim, files: BTreeMap::new() }];
    // copies take longest for large file systems
    let stride = match (bench.kind.name, journal) {
        _ if std::env::var_os("SEAWAL_LONG").is_some() => 1,
        ("ext4", Journal::Nudged) => 1,
        (_, Journal::Nudged) => 2,
        (_, Journal::LeftAlone) => 4,
    };
    let mut partial = 0;
    for (at, step) in program.iter().enumerate() {
        for machine in &mut machines {
            machine.step(*step).unwrap();
        }
        if journal == Journal::Nudged {
            let file = std::fs::File::create(live.at.join(format!("nudge{at}"))).unwrap();
            file.sync_all().unwrap();
        }
        if at % stride != 0 && at + 1 < program.len() {
            continue;
        }
        let found = bench.copied(&live, options);
        let what = format!("{}: {name}, after step {at}, {step:?}, {journal:?}", bench.kind.name);
        assert!(sim.can_leave(&found), "{what}: {}", described(&found));
        partial += usize::from(found != files(&live.store()));
    }
    partial
}

/// Cuts the file system off from its device, including its unflushed log.
fn shut_down(live: &Mount) -> Result<(), String> {
    const SCRIPT: &str = "import fcntl, os, struct, sys\n\
        fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
    let by_python = run(Command::new("python3").arg("-c").arg(SCRIPT).arg(&live.at));
    by_python.or_else(|error| {
        let by_tool = run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&live.at));
        by_tool.map_err(|other| format!("{error}; {other}"))
    })
}

fn a_shutdown_is_possible(bench: &Bench, name: &str, program: &[Do]) -> Result<(), String> {
    let live = bench.start();
    let real = DiskStorage::open(live.store(), Create::Never).unwrap();
    let sim = SimDisk::new(1);
    for storage in [&real as &dyn Storage, &sim] {
        let mut machine = Machine { storage, files: BTreeMap::new() };
        for step in program {
            machine.step(*step).unwrap();
        }
    }
    drop(real);
    shut_down(&live)?;
    drop(live);
    let again = Mount::new(&bench.path("live"), &bench.path("mnt"), bench.kind.options).unwrap();
    let found = files(&again.store());
    assert!(sim.can_leave(&found), "{}: {name}, shut down: {}", bench.kind.name, described(&found));
    Ok(())
}

fn skipped(what: &str, why: &str) {
    // shown even if the harness captures output
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}

fn copies(kind: &'static Kind) {
    let bench = match Bench::new(kind) {
        Ok(bench) => bench,
        Err(why) => return skipped(kind.name, &why),
    };
    let Some(options) = kind.copy_options else { return skipped(kind.name, "a copy cannot be mounted") };
    let mut partial = 0;
    for (name, program) in PROGRAMS {
        for journal in [Journal::LeftAlone, Journal::Nudged] {
            partial += copies_are_possible(&bench, name, program, journal, options);
        }
    }
    assert!(partial > 20, "{partial} states were not what the program saw");
}

fn shutdowns(kind: &'static Kind) {
    let bench = match Bench::new(kind) {
        Ok(bench) => bench,
        Err(why) => return skipped(kind.name, &why),
    };
    for (name, program) in PROGRAMS {
        if let Err(why) = a_shutdown_is_possible(&bench, name, program) {
            return skipped(&format!("{}, shut down", kind.name), &why);
        }
    }
}

#[test]
fn what_a_copied_ext4_image_holds_is_possible_on_the_simulated_disk() {
    copies(&EXT4);
}

#[test]
fn what_a_copied_xfs_image_holds_is_possible_on_the_simulated_disk() {
    copies(&XFS);
}

#[test]
fn what_a_copied_btrfs_image_holds_is_possible_on_the_simulated_disk() {
    copies(&BTRFS);
}

#[test]
fn what_an_ext4_that_was_shut_down_holds_is_possible_on_the_simulated_disk() {
    shutdowns(&EXT4);
}

#[test]
fn what_an_xfs_that_was_shut_down_holds_is_possible_on_the_simulated_disk() {
    shutdowns(&XFS);
}
