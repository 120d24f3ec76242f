//! Reading ahead: while a reader checks what was read, another thread reads what comes next.
//!
//! The thread is the caller's, who runs [`Fetcher::run`] on it. It knows nothing of what the bytes mean.

use crate::io::sync::{Arc, mpsc};
use crate::io::{AlignedBuf, File, read_device_full};
use std::collections::VecDeque;
use std::io;

/// What is left free in front of the bytes that were read, for those before them that belong to them.
pub(crate) const FRONT_BYTES: usize = 4 << 20;

struct Request {
    file: Arc<dyn File>,
    offset: u64,
    bytes: usize,
    buf: AlignedBuf,
}

/// The buffer, and how many bytes stand behind its front.
type Answer = (AlignedBuf, io::Result<usize>);

/// What is to be read: of which file, by a number that the reader gave it, from where on, and how many bytes.
pub(crate) struct Wanted<'a> {
    pub(crate) number: usize,
    pub(crate) file: &'a Arc<dyn File>,
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
}

/// The reader's end.
pub(crate) struct Ahead {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Answer>,
    /// Which files are being read, and from where on, in the order in which they were asked for.
    pending: VecDeque<(usize, u64)>,
    spare: Vec<AlignedBuf>,
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
    let ahead = Ahead { requests, answers, pending: VecDeque::new(), spare: Vec::new() };
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
    /// Has bytes of files read, which are to be taken next and in this order: of several, the thread goes on from one to the next without
    /// a sleep. What was asked for before counts if it is the first of them; else it is of no use any more.
    pub(crate) fn ask(&mut self, wanted: &[Wanted<'_>]) {
        let places = wanted.iter().map(|wanted| (wanted.number, wanted.offset));
        if !self.pending.iter().copied().eq(places.take(self.pending.len())) {
            while let Some((_, (buf, _))) = self.settle() {
                self.spare.push(buf);
            }
        }
        for &Wanted { number, file, offset, bytes } in wanted.iter().skip(self.pending.len()) {
            let buf = self.spare.pop().map_or_else(|| AlignedBuf::with_capacity(0), Ok);
            // without memory, or the thread, it is read when it is needed
            let Ok(buf) = buf else { return };
            let file = Arc::clone(file);
            if self.requests.send(Request { file, offset, bytes, buf }).is_err() {
                return;
            }
            self.pending.push_back((number, offset));
        }
    }

    /// Waits for what was asked for first, if anything was.
    fn settle(&mut self) -> Option<((usize, u64), Answer)> {
        let first = self.pending.pop_front()?;
        Some((first, self.answers.recv().ok()?))
    }

    /// Takes what was read of a file from an offset on, in exchange for a buffer to read into later; nothing if that was not asked
    /// for. What was asked for before it is passed over.
    pub(crate) fn take(&mut self, number: usize, offset: u64, buf: &mut AlignedBuf) -> Option<io::Result<usize>> {
        while let Some((pending, (mut found, read))) = self.settle() {
            if pending != (number, offset) {
                self.spare.push(found);
                continue;
            }
            std::mem::swap(buf, &mut found);
            self.spare.push(found);
            return Some(read);
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::io::sync::thread;
    use crate::io::{Directory, OpenMode, write_all_at};
    use crate::sim::SimDisk;

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
            let wanted = |number, offset, bytes| Wanted { number, file: &file, offset, bytes };
            let mut takes = |ahead: &mut Ahead, number, offset| {
                let read = ahead.take(number, offset, &mut buf)?.unwrap();
                let from = offset as usize;
                assert_eq!(&buf[FRONT_BYTES..FRONT_BYTES + read], &bytes[from..from + read]);
                Some(read)
            };
            ahead.ask(&[wanted(0, 4096, 8192)]);
            assert_eq!(takes(&mut ahead, 1, 4096), None, "of another file");
            ahead.ask(&[wanted(0, 4096, 8192), wanted(0, 12_288, 4096)]);
            ahead.ask(&[wanted(0, 4096, 8192), wanted(0, 12_288, 4096), wanted(2, 32_768, 16_384)]);
            assert_eq!(takes(&mut ahead, 0, 4096), Some(8192));
            ahead.ask(&[wanted(0, 12_288, 4096), wanted(2, 32_768, 16_384)]);
            assert_eq!(takes(&mut ahead, 0, 12_288), Some(4096));
            assert_eq!(takes(&mut ahead, 2, 32_768), Some(8192), "the file ends");
            assert_eq!(takes(&mut ahead, 2, 32_768), None, "it is taken once");
            ahead.ask(&[wanted(0, 4096, 8192), wanted(0, 12_288, 4096)]);
            ahead.ask(&[wanted(0, 12_288, 4096)]);
            assert_eq!(takes(&mut ahead, 0, 12_288), Some(4096), "what came before is of no use any more");
            ahead.ask(&[wanted(0, 4096, 8192), wanted(0, 12_288, 4096)]);
            assert_eq!(takes(&mut ahead, 0, 12_288), Some(4096), "what is passed over either");
            assert_eq!(takes(&mut ahead, 0, 4096), None);
            ahead.ask(&[wanted(0, 4096, 8192)]);
            ahead.ask(&[wanted(2, 32_768, 16_384)]);
            assert_eq!(takes(&mut ahead, 2, 32_768), Some(8192), "what is asked for instead is read");
            drop(ahead);
        });
    }
}
