//! Reading ahead: while a reader checks what was read, another thread reads what comes next.
//!
//! The thread is the caller's, who runs [`Fetcher::run`] on it. It knows nothing of what the bytes mean.

use super::{AlignedBuf, StorageFile, read_device_full};
use crate::sync::{Arc, mpsc};
use std::io;

/// What is left free in front of the bytes that were read, for those before them that belong to them.
pub(crate) const FRONT_BYTES: usize = 4 << 20;

struct Request {
    file: Arc<dyn StorageFile>,
    offset: u64,
    bytes: usize,
    buf: AlignedBuf,
}

/// The buffer, and how many bytes stand behind its front.
type Answer = (AlignedBuf, io::Result<usize>);

/// The reader's end.
pub(crate) struct Ahead {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Answer>,
    /// Which file is being read, by a number that the reader gave it, and from where on.
    pending: Option<(usize, u64)>,
    spare: Option<AlignedBuf>,
}

/// The reading thread's end.
pub(crate) struct Fetcher {
    requests: mpsc::Receiver<Request>,
    answers: mpsc::Sender<Answer>,
}

/// Both ends.
pub(crate) fn pair() -> (Ahead, Fetcher) {
    let (requests, requests_in) = mpsc::channel();
    let (answers_out, answers) = mpsc::channel();
    let ahead = Ahead { requests, answers, pending: None, spare: None };
    (ahead, Fetcher { requests: requests_in, answers: answers_out })
}

impl Fetcher {
    /// Reads what is asked for, until nobody can ask any more.
    pub(crate) fn run(self) {
        while let Ok(Request { file, offset, bytes, mut buf }) = self.requests.recv() {
            let read = make_room(&mut buf, FRONT_BYTES.saturating_add(bytes)).and_then(|()| {
                let room = buf.get_mut(FRONT_BYTES..).unwrap_or_default();
                read_device_full(&*file, room, offset)
            });
            if self.answers.send((buf, read)).is_err() {
                break;
            }
        }
    }
}

/// Sets a buffer's length. A new one takes no memory for what is not used of its front.
fn make_room(buf: &mut AlignedBuf, len: usize) -> io::Result<()> {
    if buf.capacity() < len {
        *buf = AlignedBuf::zeroed(len)?;
    }
    buf.resize(len)
}

impl Ahead {
    /// Has bytes of a file read, which are to be taken next.
    pub(crate) fn ask(&mut self, number: usize, file: &Arc<dyn StorageFile>, offset: u64, bytes: usize) {
        if self.pending == Some((number, offset)) {
            return;
        }
        // one at a time: what was asked for and not taken is of no use any more
        self.spare = self.settle().map(|(buf, _)| buf).or(self.spare.take());
        let buf = self.spare.take().map_or_else(|| AlignedBuf::with_capacity(0), Ok);
        // without memory, or the thread, it is read when it is needed
        let Ok(buf) = buf else { return };
        let file = Arc::clone(file);
        if self.requests.send(Request { file, offset, bytes, buf }).is_ok() {
            self.pending = Some((number, offset));
        }
    }

    /// Waits for what was asked for, if anything was.
    fn settle(&mut self) -> Option<Answer> {
        self.pending.take()?;
        self.answers.recv().ok()
    }

    /// Takes what was read of a file from an offset on, in exchange for a buffer to read into later; nothing if it is
    /// something else that was read.
    pub(crate) fn take(&mut self, number: usize, offset: u64, buf: &mut AlignedBuf) -> Option<io::Result<usize>> {
        let pending = self.pending;
        let (mut found, read) = self.settle()?;
        if pending != Some((number, offset)) {
            self.spare = Some(found);
            return None;
        }
        std::mem::swap(buf, &mut found);
        self.spare = Some(found);
        Some(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::sim::SimDisk;
    use crate::storage::{OpenMode, Storage, write_all_at};
    use crate::sync::thread;

    #[test]
    fn what_was_asked_for_is_taken_and_nothing_else() {
        let disk = SimDisk::new(1);
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..40_960u32).map(|n| (n / 512) as u8).collect();
        write_all_at(&*file, &bytes, 0).unwrap();
        file.sync_all().unwrap();
        let (mut ahead, fetcher) = pair();
        thread::scope(|scope| {
            scope.spawn(move || fetcher.run());
            let mut buf = AlignedBuf::with_capacity(0).unwrap();
            assert!(ahead.take(0, 0, &mut buf).is_none(), "nothing was asked for");
            ahead.ask(0, &file, 4096, 8192);
            assert!(ahead.take(1, 4096, &mut buf).is_none(), "of another file");
            ahead.ask(0, &file, 4096, 8192);
            ahead.ask(0, &file, 4096, 8192);
            ahead.ask(2, &file, 32_768, 16_384);
            let read = ahead.take(2, 32_768, &mut buf).unwrap().unwrap();
            assert_eq!(read, 8192, "the file ends");
            assert_eq!(&buf[FRONT_BYTES..FRONT_BYTES + read], &bytes[32_768..]);
            assert!(ahead.take(2, 32_768, &mut buf).is_none(), "it is taken once");
            drop(ahead);
        });
    }
}
