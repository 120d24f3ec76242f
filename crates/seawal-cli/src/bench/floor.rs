//! The floor: writes and reads of the device through the storage layer alone.

use super::super::failure::Failure;
use super::latencies::Latencies;
use super::place::open_disk;
use super::turns::SLICE;
use seawal::io::{AlignedBuf, Directory, File, OpenMode};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The space that is overwritten again and again.
const SPACE_BYTES: u64 = 64 << 20;
const PIECE_BYTES: u64 = 4 << 20;

/// A file that was written in full before, so that overwriting it changes no metadata.
pub(super) struct Floor {
    file: Arc<dyn File>,
    /// The same file through the page cache.
    cached: fs::File,
    buffer: AlignedBuf,
    block_bytes: u64,
    at: u64,
}

fn failed(e: std::io::Error) -> Failure {
    Failure::io("write to the disk that is measured", &e)
}

impl Floor {
    pub(super) fn new(dir: &Path) -> Result<Floor, Failure> {
        const NAME: &str = "file";
        let disk = open_disk(dir)?;
        let file = disk.open(NAME, OpenMode::CreateNew).map_err(failed)?;
        let block_bytes = u64::from(disk.block_bytes());
        let buffer = AlignedBuf::zeroed(PIECE_BYTES as usize).map_err(failed)?;
        let mut at = 0;
        while at < SPACE_BYTES {
            // Bypasses the page cache, as for segments: small writes into large cached pages are
            // slow.
            file.write_durable_at(&buffer, at).map_err(failed)?;
            at = at.saturating_add(PIECE_BYTES);
        }
        file.sync_all().map_err(failed)?;
        let cached = fs::File::options().write(true).open(dir.join(NAME)).map_err(failed)?;
        Ok(Floor { file, cached, buffer, block_bytes, at: 0 })
    }

    /// The offset for the next write of this length.
    fn place(&mut self, bytes: u64) -> u64 {
        let at = if self.at.saturating_add(bytes) > SPACE_BYTES { 0 } else { self.at };
        self.at = at.saturating_add(bytes);
        at
    }

    /// Makes durable writes of this length, rounded up to blocks, one in flight, for one slice.
    pub(super) fn durable(&mut self, bytes: u64, latencies: &mut Latencies) -> Result<Duration, Failure> {
        let bytes = bytes.max(1).next_multiple_of(self.block_bytes).min(PIECE_BYTES);
        let began = Instant::now();
        while began.elapsed() < SLICE {
            let at = self.place(bytes);
            let before = Instant::now();
            let part = self.buffer.get(..usize::try_from(bytes).unwrap_or(0)).unwrap_or_default();
            self.file.write_durable_at(part, at).map_err(failed)?;
            latencies.record(before.elapsed());
        }
        Ok(began.elapsed())
    }

    /// Makes writes of this length to the page cache for one slice. They survive only a kill of the
    /// process.
    pub(super) fn buffered(&mut self, bytes: u64, latencies: &mut Latencies) -> Result<Duration, Failure> {
        let bytes = bytes.min(PIECE_BYTES);
        let began = Instant::now();
        while began.elapsed() < SLICE {
            let at = self.place(bytes);
            let before = Instant::now();
            let part = self.buffer.get(..usize::try_from(bytes).unwrap_or(0)).unwrap_or_default();
            self.cached.write_all_at(part, at).map_err(failed)?;
            latencies.record(before.elapsed());
        }
        Ok(began.elapsed())
    }

    /// Writes and syncs a new file of this length in large pieces. Returns the time that took.
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

/// Reads all segments of a store from the device. Returns the time that took, and the number of
/// bytes.
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
