//! Sequential reading with read-ahead: while the reader checks one window, a thread reads the next.
//!
//! The caller runs the thread, with [`Fetcher::run`] or [`hold_readers`]. This module does not
//! interpret the bytes.

use crate::error::{Error, Result};
use crate::io::sync::{Arc, Mutex, mpsc, thread};
use crate::io::threads::spawn_scoped;
use crate::io::{AlignedBuf, File, read_device_full};
use std::collections::VecDeque;
use std::io;

/// The free space in front of a prefetched buffer's bytes, for the end of the previous window. It
/// bounds the frames and chunks that profit from read-ahead: 4 MiB holds the largest chunk.
pub(crate) const FRONT_BYTES: usize = 4 << 20;
/// The number of reads that are requested ahead. With two, the thread starts the next one without a
/// wake-up.
pub(crate) const READS_AHEAD: usize = 2;

struct Request {
    file: Arc<dyn File>,
    offset: u64,
    bytes: usize,
    buf: AlignedBuf,
}

/// The buffer, and how many bytes were read behind its front.
type Answer = (AlignedBuf, io::Result<usize>);

/// A range to read from a file. The reader has given the file a number.
pub(crate) struct Wanted<'a> {
    pub(crate) number: usize,
    pub(crate) file: &'a Arc<dyn File>,
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
}

/// The position of the requested window in a buffer, and the number of its bytes that are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) base: usize,
    pub(crate) read: usize,
}

/// Reads files in order, window by window. It prefetches once it has a thread for that.
#[derive(Default)]
pub(crate) struct SequentialReader(Option<Ahead>);

impl SequentialReader {
    /// Starts to prefetch. The caller runs the returned [`Fetcher`] on a thread.
    pub(crate) fn start_ahead(&mut self) -> Fetcher {
        let (ahead, fetcher) = pair();
        self.0 = Some(ahead);
        fetcher
    }

    /// Fills `buf` with a window of a file: first `kept`, which is in memory already and ends at
    /// `wanted.offset`, then the bytes from there. `wanted.bytes` counts the whole window, and
    /// `kept` is no longer than that.
    ///
    /// It uses the bytes that were prefetched from that offset, which may be more or fewer than
    /// `wanted`. Otherwise it calls `read_now`.
    pub(crate) fn fill(
        &mut self,
        buf: &mut AlignedBuf,
        kept: &[u8],
        wanted: &Wanted<'_>,
        read_now: impl FnOnce(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Filled> {
        debug_assert!(kept.len() <= wanted.bytes, "the kept bytes are longer than the window");
        let ahead = self.0.as_mut().filter(|_| kept.len() < wanted.bytes);
        let prefetched = ahead.and_then(|ahead| ahead.take(wanted.number, wanted.offset, buf));
        let (base, read) = match prefetched {
            Some(read) if kept.len() <= FRONT_BYTES => (FRONT_BYTES.saturating_sub(kept.len()), read?),
            _ => {
                // this overwrites the buffer's content, which need not be cleared
                buf.resize(wanted.bytes)?;
                let rest = buf.get_mut(kept.len()..).filter(|rest| !rest.is_empty());
                (0, rest.map_or(Ok(0), |rest| read_now(rest, wanted.offset))?)
            }
        };
        let end = base.saturating_add(kept.len());
        if let Some(front) = buf.get_mut(base..end) {
            front.copy_from_slice(kept);
        }
        debug_assert!(end.saturating_add(read) <= buf.len(), "more was read than fits the buffer");
        buf.resize(end.saturating_add(read))?;
        Ok(Filled { base, read })
    }

    /// Whether there is a thread that prefetches.
    pub(crate) fn is_ahead(&self) -> bool {
        self.0.is_some()
    }

    /// Prefetches `wanted`, in this order. Without a thread it does nothing.
    pub(crate) fn prefetch(&mut self, wanted: &[Wanted<'_>]) {
        if let Some(ahead) = &mut self.0 {
            ahead.ask(wanted);
        }
    }
}

/// Runs `fetcher` and `read` on two threads while the caller runs `work`, and keeps both threads
/// alive until `work` has returned.
///
/// Most allocators hand the arena of the thread that exited last to the next new thread. Threads
/// that `work` starts should inherit the arenas of other workers, and not those of the readers.
///
/// Without a thread for `fetcher`, nothing is prefetched. Without a thread for `read`, nothing
/// runs, and it returns `None`.
///
/// # Errors
/// [`Error::Internal`] if one of the two threads panicked.
pub(crate) fn hold_readers<R>(
    fetcher: Fetcher,
    read: impl FnOnce() + Send,
    work: impl FnOnce() -> R,
) -> Result<Option<R>> {
    let held = &Mutex::new(());
    thread::scope(|scope| {
        let until_done = held.lock();
        let reader = spawn_scoped(scope, move || {
            read();
            drop(held.lock());
        });
        let Ok(reader) = reader else { return Ok(None) };
        // if the thread of the fetcher is refused, the fetcher is dropped and the reader reads by
        // itself
        let fetcher = spawn_scoped(scope, move || {
            fetcher.run();
            drop(held.lock());
        });
        let worked = work();
        drop(until_done);
        let ended = [reader.join().is_ok(), fetcher.ok().is_none_or(|fetcher| fetcher.join().is_ok())];
        if ended == [true; 2] { Ok(Some(worked)) } else { Err(Error::Internal { what: "it read ahead" }) }
    })
}

/// The reader's end.
struct Ahead {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Answer>,
    /// The file number and the offset of each unanswered request, in order.
    pending: VecDeque<(usize, u64)>,
    spare: Vec<AlignedBuf>,
}

/// The reading thread's end.
pub(crate) struct Fetcher {
    requests: mpsc::Receiver<Request>,
    answers: mpsc::Sender<Answer>,
}

fn pair() -> (Ahead, Fetcher) {
    let (requests, requests_in) = mpsc::channel();
    let (answers_out, answers) = mpsc::channel();
    let ahead = Ahead { requests, answers, pending: VecDeque::new(), spare: Vec::new() };
    (ahead, Fetcher { requests: requests_in, answers: answers_out })
}

impl Fetcher {
    /// Serves read requests until the reader is dropped.
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

/// Sets a buffer's length. The unused pages of a new buffer's front take no memory.
fn make_room(buf: &mut AlignedBuf, len: usize) -> io::Result<()> {
    if buf.capacity() < len {
        *buf = AlignedBuf::zeroed(len)?;
    }
    buf.resize(len)
}

impl Ahead {
    /// Requests reads that the reader will take next, in this order. Earlier requests stay if they
    /// are the first of `wanted`. Otherwise it waits for them and drops their results.
    fn ask(&mut self, wanted: &[Wanted<'_>]) {
        let places = wanted.iter().map(|wanted| (wanted.number, wanted.offset));
        if !self.pending.iter().copied().eq(places.take(self.pending.len())) {
            while let Some((_, (buf, _))) = self.settle() {
                self.spare.push(buf);
            }
        }
        for &Wanted { number, file, offset, bytes } in wanted.iter().skip(self.pending.len()) {
            let buf = self.spare.pop().map_or_else(|| AlignedBuf::with_capacity(0), Ok);
            // without memory or without the thread, the reader reads the range when it needs it
            let Ok(buf) = buf else { return };
            let file = Arc::clone(file);
            if self.requests.send(Request { file, offset, bytes, buf }).is_err() {
                return;
            }
            self.pending.push_back((number, offset));
        }
    }

    /// Waits for the oldest request, if there is one.
    fn settle(&mut self) -> Option<((usize, u64), Answer)> {
        let first = self.pending.pop_front()?;
        Some((first, self.answers.recv().ok()?))
    }

    /// Takes the bytes that were read of a file from `offset` on, in exchange for `buf`. Drops
    /// older requests. Returns `None` if this range was not requested.
    fn take(&mut self, number: usize, offset: u64, buf: &mut AlignedBuf) -> Option<io::Result<usize>> {
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
