//! I/O pacing for snapshots: split transfers and pause between them, so that concurrent commits get
//! the device.

use crate::io::sync::thread;
use crate::io::{File, read_device_full};
use std::io;
use std::time::Duration;

/// The size of the parts that a transfer is split into, and the pause before each part but the
/// first.
#[derive(Clone, Copy, Debug)]
pub(super) struct IoPacing {
    chunk_bytes: usize,
    pause: Duration,
}

impl IoPacing {
    /// Each transfer in one piece, without a pause.
    pub(super) const UNPACED: IoPacing = IoPacing { chunk_bytes: usize::MAX, pause: Duration::ZERO };
    /// A part takes the device about as long as a commit does, and a commit gets its turn before
    /// the next part. The default rate allows 4 ms for a mebibyte. With these pauses a mebibyte
    /// takes a little over 1 ms to write, and as long to read.
    pub(super) const PACED: IoPacing = IoPacing { chunk_bytes: 256 << 10, pause: Duration::from_micros(100) };

    /// Passes `piece` to `write` in parts, each with its offset in the piece.
    pub(super) fn write<E>(self, piece: &[u8], mut write: impl FnMut(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        for (n, part) in piece.chunks(self.chunk_bytes).enumerate() {
            self.pause_before(n);
            write(part, (n as u64).saturating_mul(self.chunk_bytes as u64))?;
        }
        Ok(())
    }

    /// Reads from the device until `room` is full or the file ends. Returns the bytes read.
    pub(super) fn read(self, file: &dyn File, room: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0usize;
        for (n, part) in room.chunks_mut(self.chunk_bytes).enumerate() {
            self.pause_before(n);
            let len = part.len();
            let read = read_device_full(file, part, offset.saturating_add(done as u64))?;
            debug_assert!(read <= len, "a read returns no more than was asked for");
            done = done.saturating_add(read);
            if read < len {
                break;
            }
        }
        Ok(done)
    }

    fn pause_before(self, part: usize) {
        if part > 0 && !self.pause.is_zero() {
            thread::park_timeout(self.pause);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::io::{AlignedBuf, Directory, OpenMode, write_all_at};
    use crate::sim::SimDisk;

    #[test]
    fn parts_make_up_the_piece_and_the_end_of_the_file_ends_the_read() {
        let disk = SimDisk::new(1);
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..5 * 4096u32).map(|n| (n / 256) as u8).collect();
        for pacing in [IoPacing::UNPACED, IoPacing { chunk_bytes: 4096, pause: Duration::from_micros(1) }] {
            let mut lengths = Vec::new();
            pacing
                .write(&bytes[..4 * 4096 + 100], |part, at| {
                    lengths.push(part.len());
                    write_all_at(&*file, part, 4096 + at)
                })
                .unwrap();
            assert_eq!(lengths.len(), if pacing.chunk_bytes == 4096 { 5 } else { 1 });
            file.sync_all().unwrap();
            for room in [4096, 3 * 4096, 8 * 4096] {
                let mut found = AlignedBuf::zeroed(room).unwrap();
                let read = pacing.read(&*file, &mut found, 4096).unwrap();
                assert_eq!(read, room.min(4 * 4096 + 100));
                assert_eq!(found[..read], bytes[..read]);
            }
        }
        let failed = IoPacing::UNPACED.write(&bytes, |_, _| Err(io::ErrorKind::Other));
        assert_eq!(failed, Err(io::ErrorKind::Other));
    }
}
