//! Durable writes: complete, failed, interrupted by a crash, lost, misdirected, or in flight.

use super::fault::Fault;
use super::image::{Held, Image, InFlight, Ino, eio, no_space};
use super::inode::Inode;
use crate::io::WritePath;
use crate::io::sync::Arc;
use std::borrow::Cow;
use std::io;

impl Image {
    /// Does a durable write, up to the end of the free space.
    pub(super) fn write_through(&mut self, ino: Ino, buf: &[u8], offset: u64, fault: Option<Fault>) -> io::Result<()> {
        let room = self.claim(ino, offset, buf.len() as u64) as usize;
        let fault = if room < buf.len() && fault.is_none() { Some(Fault::NoSpace) } else { fault };
        let buf = &buf[..room];
        if let Some(Fault::Eio | Fault::NoSpace | Fault::Crash) = fault
            && room > 0
        {
            self.in_flight = Some(InFlight { ino, offset, len: room as u64 });
        }
        let buffered = self.config.write_path == WritePath::BufferedSync;
        let mut rng = self.fault_rng;
        let (inode, seq) = self.inode_and_seq(ino);
        match fault {
            None | Some(Fault::ShortWrite | Fault::Interrupted) => {
                if buffered {
                    inode.write_cached(buf, offset, seq);
                    inode.sync();
                } else {
                    inode.write_device(buf, offset);
                }
                self.finish_in_flight(ino);
                Ok(())
            }
            Some(Fault::Crash) => {
                inode.write_cached(buf, offset, seq);
                Err(self.stop())
            }
            Some(Fault::LostWrite | Fault::MisdirectedWrite) => {
                if buffered {
                    inode.lose_cached(buf, offset, seq);
                    inode.sync();
                } else {
                    inode.lose_device(buf, offset);
                }
                if fault == Some(Fault::MisdirectedWrite) {
                    self.stray(ino, buf, offset);
                }
                Ok(())
            }
            Some(Fault::Eio | Fault::NoSpace) => {
                let grown = rng.coin();
                inode.write_device_partly(buf, offset, || rng.coin(), grown);
                if buffered {
                    // the page cache shows all of it, as clean pages
                    inode.write_cached(buf, offset, seq);
                    inode.fail_sync();
                }
                self.fault_rng = rng;
                Err(sync_error(fault.unwrap_or(Fault::Eio)))
            }
        }
    }

    /// Stores the bytes of a misdirected write in another block, of any file. If there is no other
    /// block, the bytes are lost.
    pub(super) fn stray(&mut self, ino: Ino, bytes: &[u8], offset: u64) {
        let block = u64::from(self.config.block_bytes);
        let blocks = |(&ino, inode): (&Ino, &Arc<Inode>)| (ino, inode.durable.len.div_ceil(block));
        let places = self.inodes.iter().map(blocks).map(|(_, count)| count).sum();
        let mut place = self.fault_rng.below(places);
        let target = self.inodes.iter().map(blocks).find_map(|(ino, count)| {
            if place < count {
                return Some((ino, place * block));
            }
            place -= count;
            None
        });
        if let Some((target, at)) = target.filter(|&to| to != (ino, offset)) {
            self.inode(target).stray(bytes, at);
        }
    }

    /// Begins a durable write that completes later, and returns its number.
    pub(super) fn hold(&mut self, ino: Ino, buf: &[u8], offset: u64) -> io::Result<u64> {
        if self.claim(ino, offset, buf.len() as u64) < buf.len() as u64 {
            return self.write_through(ino, buf, offset, Some(Fault::NoSpace)).map(|()| 0);
        }
        let number = self.seq;
        self.seq += 1;
        self.held.push(Held { number, ino, offset, bytes: buf.into() });
        Ok(number)
    }

    /// Completes the nth durable write in flight.
    pub(super) fn complete(&mut self, nth: usize) -> bool {
        if nth >= self.held.len() {
            return false;
        }
        let Held { ino, offset, bytes, .. } = self.held.remove(nth);
        self.write_through(ino, &bytes, offset, None).is_ok()
    }

    /// The disk at the moment of a crash. Durable writes in flight are pending units.
    pub(super) fn with_held_pending(&self) -> Cow<'_, Image> {
        if self.held.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut image = self.clone();
        for Held { ino, offset, bytes, .. } in std::mem::take(&mut image.held) {
            let (inode, seq) = image.inode_and_seq(ino);
            inode.write_cached(&bytes, offset, seq);
        }
        Cow::Owned(image)
    }
}

/// The error of a failed sync. As on the real disk, an interrupted sync does not return the error
/// kind that loops retry.
pub(super) fn sync_error(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => no_space(),
        Fault::Interrupted => io::Error::other("a sync was interrupted; what it covered may not be durable"),
        _ => eio(),
    }
}
