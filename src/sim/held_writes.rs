//! A slow device: durable writes that stay in flight until they are completed on demand.

use super::disk::SimDisk;

impl SimDisk {
    /// Makes the device slow: durable writes block, each on its own thread, until
    /// [`SimDisk::complete_write`] or [`SimDisk::release_writes`] is called. While a write is in flight,
    /// any subset of its sectors may survive a crash.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{AlignedBuf, Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// disk.sync_dir()?;
    /// disk.hold_writes();
    /// let writer = std::thread::spawn(move || file.write_durable_at(&AlignedBuf::zeroed(4096)?, 0));
    /// while disk.held_writes() == 0 {
    ///     std::thread::yield_now();
    /// }
    /// assert_eq!(disk.crash(Crash::Nothing).read_file("a")?.len(), 0);
    /// disk.complete_write(0);
    /// writer.join().unwrap()?;
    /// assert_eq!(disk.crash(Crash::Nothing).read_file("a")?.len(), 4096);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn hold_writes(&self) {
        self.state.lock().image.holds = true;
    }

    /// The number of durable writes in flight.
    pub fn held_writes(&self) -> usize {
        self.state.lock().image.held.len()
    }

    /// Completes one durable write in flight, counted from 0 in the order in which they began.
    /// Returns false if there is no such write.
    pub fn complete_write(&self, nth: usize) -> bool {
        let mut state = self.state.lock();
        let done = state.image.complete(nth);
        state.completed.notify_all();
        done
    }

    /// Completes all durable writes in flight, the last one first. Later writes no longer block.
    pub fn release_writes(&self) {
        let mut state = self.state.lock();
        state.image.holds = false;
        while let Some(last) = state.image.held.len().checked_sub(1) {
            state.image.complete(last);
        }
        state.completed.notify_all();
    }
}
