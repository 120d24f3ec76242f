//! Crash points: copies of the disk as a crash in the middle of an operation would have left it.
//!
//! A workload runs once, and the crashes of each of its operations are examined afterwards. A crash
//! point equals the disk that [`Fault::Crash`](super::Fault::Crash) at that operation would leave.

use super::crash::{self, Crash};
use super::disk::SimDisk;
use super::fault::OpKind;
use super::state::Image;
use std::ops::{Bound, RangeBounds};

/// A disk that stopped in the middle of an operation, while the program continued on the original.
///
/// It shares the content of unchanged files with the original, so that a copy costs a few pointers.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    op: u64,
    kind: OpKind,
    image: Image,
}

impl CrashPoint {
    /// The operation's index (see [`SimDisk::op_count`]).
    pub fn op(&self) -> u64 {
        self.op
    }

    /// The operation's kind.
    pub fn kind(&self) -> OpKind {
        self.kind
    }

    /// Returns the disk after this crash: see [`SimDisk::crash`].
    #[must_use]
    pub fn crash(&self, choice: Crash) -> SimDisk {
        SimDisk::of(crash::after(&self.image, choice))
    }

    /// The number of units that are written but not synced: see [`SimDisk::pending_units`].
    pub fn pending_units(&self) -> usize {
        crash::pending_units(&self.image)
    }

    /// The crashes to try: see [`SimDisk::crash_choices`].
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
    /// Records a [`CrashPoint`] for each operation whose index is in the range, and for no other.
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

    /// Takes the crash points recorded since the last call, in order. Recording continues.
    #[must_use]
    pub fn take_crash_points(&self) -> Vec<CrashPoint> {
        std::mem::take(&mut self.state.lock().points.taken)
    }
}
