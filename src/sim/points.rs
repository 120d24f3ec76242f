//! Disks as they would be had the machine stopped at an operation.
//!
//! A workload runs once, and a crash is taken of each of its operations afterwards. What is kept is what
//! [`Fault::Crash`](super::Fault::Crash) at that operation would have left; the program is none the wiser.

use super::crash::{self, Crash};
use super::disk::SimDisk;
use super::fault::OpKind;
use super::state::Image;
use std::ops::{Bound, RangeBounds};

/// A disk on which the machine stopped in the middle of an operation, though the program went on.
///
/// It costs a few pointers as long as the files it shares with the disk stay as they are.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    op: u64,
    kind: OpKind,
    image: Image,
}

impl CrashPoint {
    /// The operation's index, as [`SimDisk::op_count`] counts.
    pub fn op(&self) -> u64 {
        self.op
    }

    /// What the operation was.
    pub fn kind(&self) -> OpKind {
        self.kind
    }

    /// The disk that is found after this crash: see [`SimDisk::crash`].
    #[must_use]
    pub fn crash(&self, choice: Crash) -> SimDisk {
        SimDisk::of(crash::after(&self.image, choice))
    }

    /// How many changes are written and not synced: see [`SimDisk::pending_units`].
    pub fn pending_units(&self) -> usize {
        crash::pending_units(&self.image)
    }

    /// The crashes worth trying: see [`SimDisk::crash_choices`].
    pub fn crash_choices(&self, seed: u64) -> Vec<Crash> {
        crash::crash_choices(&self.image, seed)
    }
}

/// The crash points of a disk.
#[derive(Debug, Default)]
pub(super) struct Points {
    wanted: Option<(Bound<u64>, Bound<u64>)>,
    taken: Vec<CrashPoint>,
}

impl Points {
    pub(super) fn wants(&self, op: u64) -> bool {
        self.wanted.is_some_and(|range| range.contains(&op))
    }

    pub(super) fn push(&mut self, op: u64, kind: OpKind, image: Image) {
        self.taken.push(CrashPoint { op, kind, image });
    }
}

impl SimDisk {
    /// Keeps a [`CrashPoint`] of each operation whose index is in the range, and of no other from now on.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// disk.record_crash_points(..);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// disk.sync_dir()?;
    /// file.write_at(b"x", 0)?;
    /// file.sync_all()?;
    /// let points = disk.take_crash_points();
    /// let lengths = points.iter().map(|point| point.crash(Crash::Everything).read_file("a").unwrap().len());
    /// assert_eq!(lengths.collect::<Vec<_>>(), [0, 0, 1, 1]);
    /// assert!(points[1].crash(Crash::Nothing).file_names().is_empty(), "the sync was not done");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn record_crash_points(&self, ops: impl RangeBounds<u64>) {
        self.state.lock().points.wanted = Some((ops.start_bound().cloned(), ops.end_bound().cloned()));
    }

    /// The crash points kept since they were last taken, in the order of the operations. Recording goes on.
    #[must_use]
    pub fn take_crash_points(&self) -> Vec<CrashPoint> {
        std::mem::take(&mut self.state.lock().points.taken)
    }
}
