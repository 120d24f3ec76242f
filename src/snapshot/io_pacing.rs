//! How much of a snapshot goes to or from the device at once, where commits go on beside it: they wait behind each piece.

use crate::io::sync::thread;
use crate::io::{File, read_device_full};
use std::io;
use std::time::Duration;

/// How large pieces are broken up, and what rest follows each part but the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct IoPacing {
    bytes: usize,
    rest: Duration,
}

impl IoPacing {
    /// Pieces as they come.
    pub(super) const WHOLE: IoPacing = IoPacing { bytes: usize::MAX, rest: Duration::ZERO };
    /// A part takes the device about as long as a commit does, and a commit finds its turn before the next. At the default pace a
    /// mebibyte has four milliseconds; with these rests it takes a good one to write, and as much to read.
    pub(super) const GENTLE: IoPacing = IoPacing { bytes: 256 << 10, rest: Duration::from_micros(100) };

    /// Whether they leave the device to others in between.
    pub(super) fn are_gentle(self) -> bool {
        !self.rest.is_zero()
    }

    /// Hands `piece` to `write` in parts, each with where it begins in the piece.
    pub(super) fn write<E>(self, piece: &[u8], mut write: impl FnMut(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        for (n, part) in piece.chunks(self.bytes).enumerate() {
            self.rest_before(n);
            write(part, (n as u64).saturating_mul(self.bytes as u64))?;
        }
        Ok(())
    }

    /// Reads from the device until `room` is full or the file ends. Returns how much there was.
    pub(super) fn read(self, file: &dyn File, room: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0usize;
        for (n, part) in room.chunks_mut(self.bytes).enumerate() {
            self.rest_before(n);
            let len = part.len();
            let read = read_device_full(file, part, offset.saturating_add(done as u64))?;
            done = done.saturating_add(read);
            if read < len {
                break;
            }
        }
        Ok(done)
    }

    fn rest_before(self, part: usize) {
        if part > 0 && self.are_gentle() {
            thread::park_timeout(self.rest);
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
    fn parts_make_up_the_piece_and_a_file_that_ends_ends_the_reading() {
        let disk = SimDisk::new(1);
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..5 * 4096u32).map(|n| (n / 256) as u8).collect();
        for pacing in [IoPacing::WHOLE, IoPacing { bytes: 4096, rest: Duration::from_micros(1) }] {
            let mut lengths = Vec::new();
            pacing
                .write(&bytes[..4 * 4096 + 100], |part, at| {
                    lengths.push(part.len());
                    write_all_at(&*file, part, 4096 + at)
                })
                .unwrap();
            assert_eq!(lengths.len(), if pacing.bytes == 4096 { 5 } else { 1 });
            file.sync_all().unwrap();
            for room in [4096, 3 * 4096, 8 * 4096] {
                let mut found = AlignedBuf::zeroed(room).unwrap();
                let read = pacing.read(&*file, &mut found, 4096).unwrap();
                assert_eq!(read, room.min(4 * 4096 + 100));
                assert_eq!(found[..read], bytes[..read]);
            }
        }
        let failed = IoPacing::WHOLE.write(&bytes, |_, _| Err(io::ErrorKind::Other));
        assert_eq!(failed, Err(io::ErrorKind::Other));
    }
}
