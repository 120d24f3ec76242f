//! The disks that a crash can leave: of a disk now, and of one of its crash points later.

use super::crash::{self, Crash};
use super::disk::SimDisk;
use super::points::CrashPoint;
use std::ops::RangeBounds;

impl SimDisk {
    /// Returns the disk after a crash at this moment. This disk does not change.
    ///
    /// The new disk has the same clock and space limit, no faults and no locks, and counts
    /// operations from 0. Its random numbers depend on this disk and on the choice.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// file.write_at(b"synced", 0)?;
    /// file.sync_all()?;
    /// assert!(disk.crash(Crash::Nothing).list()?.is_empty(), "the name was not synced");
    /// disk.sync_dir()?;
    /// file.write_at(b"SYNCED", 0)?;
    /// assert_eq!(disk.crash(Crash::Nothing).read_file("a")?, b"synced");
    /// assert_eq!(disk.crash(Crash::Everything).read_file("a")?, b"SYNCED");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn crash(&self, choice: Crash) -> SimDisk {
        SimDisk::of(crash::after(&self.state.lock().image, choice))
    }

    /// The number of units that are written but not synced: sectors, file lengths and name changes.
    /// A power loss keeps any subset of them.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// file.write_at(b"x", 0)?;
    /// assert_eq!(disk.pending_units(), 3); // the name, the sector, the length
    /// assert_eq!(disk.crash(Crash::Subset(0b011)).read_file("a")?, b"");
    /// assert_eq!(disk.crash(Crash::Subset(0b101)).read_file("a")?, b"\0");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn pending_units(&self) -> usize {
        crash::pending_units(&self.state.lock().image)
    }

    /// The crashes to try at this moment: a kill, a torn block if a write is pending, and power
    /// losses.
    ///
    /// Up to eight pending units, the power losses are all subsets. Beyond that they are: no unit,
    /// all units, each prefix, each single unit, all but one unit, and sixteen random subsets.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// assert_eq!(disk.crash_choices(1), [Crash::KillOnly, Crash::Subset(0), Crash::Subset(1)]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn crash_choices(&self, seed: u64) -> Vec<Crash> {
        crash::crash_choices(&self.state.lock().image, seed)
    }

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
        self.state.lock().points.want(ops);
    }

    /// Takes the crash points recorded since the last call, in order. Recording continues.
    #[must_use]
    pub fn take_crash_points(&self) -> Vec<CrashPoint> {
        self.state.lock().points.take()
    }
}

impl CrashPoint {
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
