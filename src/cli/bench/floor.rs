//! What the device does when nothing stands between it and the program but the storage seam.

use super::super::failure::Failure;
use super::{SLICE, Tally, open_disk};
use crate::io::sync::Arc;
use crate::io::{AlignedBuf, Directory, File, OpenMode};
use std::path::Path;
use std::time::{Duration, Instant};

/// The space that is written round and round.
const SPACE_BYTES: u64 = 64 << 20;
const PIECE_BYTES: u64 = 4 << 20;

/// A file whose space was written before, so that a write of it changes no metadata.
pub(super) struct Floor {
    file: Arc<dyn File>,
    buffer: AlignedBuf,
    block_bytes: u64,
    at: u64,
}

fn failed(e: std::io::Error) -> Failure {
    Failure::io("write to the disk that is measured", &e)
}

impl Floor {
    pub(super) fn new(dir: &Path) -> Result<Floor, Failure> {
        let disk = open_disk(dir)?;
        let file = disk.open("file", OpenMode::CreateNew).map_err(failed)?;
        let block_bytes = u64::from(disk.block_bytes());
        let buffer = AlignedBuf::zeroed(PIECE_BYTES as usize).map_err(failed)?;
        let mut at = 0;
        while at < SPACE_BYTES {
            // Around the page cache, as segments are made: what was cached in large pieces is slow to write in small ones.
            file.write_durable_at(&buffer, at).map_err(failed)?;
            at = at.saturating_add(PIECE_BYTES);
        }
        file.sync_all().map_err(failed)?;
        Ok(Floor { file, buffer, block_bytes, at: 0 })
    }

    /// Where the next write of so many bytes goes.
    fn place(&mut self, bytes: u64) -> u64 {
        let at = if self.at.saturating_add(bytes) > SPACE_BYTES { 0 } else { self.at };
        self.at = at.saturating_add(bytes);
        at
    }

    /// Writes that survive power loss, of so many bytes in whole blocks, one in flight, for a slice of time.
    pub(super) fn durable(&mut self, bytes: u64, tally: &mut Tally) -> Result<Duration, Failure> {
        let bytes = bytes.max(1).next_multiple_of(self.block_bytes).min(PIECE_BYTES);
        let began = Instant::now();
        while began.elapsed() < SLICE {
            let at = self.place(bytes);
            let before = Instant::now();
            let part = self.buffer.get(..usize::try_from(bytes).unwrap_or(0)).unwrap_or_default();
            self.file.write_durable_at(part, at).map_err(failed)?;
            tally.add(before.elapsed());
        }
        Ok(began.elapsed())
    }

    /// Writes to the page cache, which survive a kill of the process, of so many bytes each, for a slice of time.
    pub(super) fn buffered(&mut self, bytes: u64, tally: &mut Tally) -> Result<Duration, Failure> {
        let bytes = bytes.min(PIECE_BYTES);
        let began = Instant::now();
        while began.elapsed() < SLICE {
            let at = self.place(bytes);
            let before = Instant::now();
            let part = self.buffer.get(..usize::try_from(bytes).unwrap_or(0)).unwrap_or_default();
            crate::io::write_all_at(&*self.file, part, at).map_err(failed)?;
            tally.add(before.elapsed());
        }
        Ok(began.elapsed())
    }

    /// The time that a new file of so many bytes takes, written in large pieces and synced.
    pub(super) fn new_file(&self, dir: &Path, bytes: u64) -> Result<Duration, Failure> {
        const NAME: &str = "sequential";
        let disk = open_disk(dir)?;
        let began = Instant::now();
        let file = disk.open(NAME, OpenMode::CreateNew).map_err(failed)?;
        let mut at = 0u64;
        while at < bytes {
            let piece = bytes.saturating_sub(at).min(PIECE_BYTES).next_multiple_of(self.block_bytes).min(PIECE_BYTES);
            let part = self.buffer.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or_default();
            file.write_durable_at(part, at).map_err(failed)?;
            at = at.saturating_add(piece);
        }
        file.sync_all().map_err(failed)?;
        let took = began.elapsed();
        disk.remove(NAME).map_err(failed)?;
        Ok(took)
    }
}

/// The time that reading all of a store's segments from the device takes, and how many bytes they hold.
pub(super) fn read_log(dir: &Path) -> Result<(Duration, u64), Failure> {
    let failed = |e| Failure::io("read the log that is measured", &e);
    let disk = open_disk(dir)?;
    let names = disk.list().map_err(failed)?;
    let mut buffer = AlignedBuf::zeroed(PIECE_BYTES as usize).map_err(failed)?;
    let (began, mut bytes) = (Instant::now(), 0u64);
    for name in names.iter().filter(|name| name.ends_with(".seg")) {
        let file = disk.open(name, OpenMode::Read).map_err(failed)?;
        let mut at = 0u64;
        loop {
            let read = file.read_device_at(&mut buffer, at).map_err(failed)?;
            at = at.saturating_add(read as u64);
            if (read as u64) < PIECE_BYTES {
                break;
            }
        }
        bytes = bytes.saturating_add(at);
    }
    Ok((began.elapsed(), bytes))
}
