//! The chunks of a snapshot file, read one at a time and checked.

use crate::error::{Error, Result};
use crate::format::bytes::round_up;
use crate::format::snapshot::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, HEADER_BYTES, SnapshotEnd, SnapshotHeader, begin_checksum,
    chunk_checksum, decode_chunk_header,
};
use crate::ids::{Lsn, StoreId};
use crate::io::read_ahead::{Fetcher, Filled, READS_AHEAD, SequentialReader, Wanted};
use crate::io::sync::{Arc, Mutex, mpsc};
use crate::io::{AlignedBuf, NamedFile, OpenMode, Storage};
use crate::snapshot::io_pacing::IoPacing;
use crate::store::manifest_file::header_error;
use std::io;

/// The size of one read, unless a chunk is larger. It holds the largest chunk that is accepted, and
/// is large enough that a device reads at its sequential rate.
const READ_BYTES: u64 = 4 << 20;

/// A snapshot file being read.
pub(super) struct Source {
    pub(super) header: SnapshotHeader,
    pub(super) chunks: Chunks,
}

/// The chunks of a file, in order.
pub(super) struct Chunks {
    file: NamedFile,
    store: StoreId,
    lsn: Lsn,
    written: Written,
    /// The bytes around `offset`, and where in the file they begin.
    window: Arc<Window>,
    window_offset: u64,
    /// Free buffers.
    pool: Pool,
    reader: SequentialReader,
    block_bytes: u64,
    /// Where the next chunk begins.
    offset: u64,
    /// No chunk that begins there or later is read.
    stop_at: u64,
    index: u32,
    checksums: crc32fast::Hasher,
    totals: SnapshotEnd,
    /// The kind of the chunk before. Once that is the end, the file was whole.
    before: Option<ChunkKind>,
}

type Pool = Arc<Mutex<Vec<AlignedBuf>>>;

/// A buffer that was read into. It returns to the pool when its last piece is dropped.
struct Window {
    /// `None` in the first, empty window and while it is dropped.
    buf: Option<AlignedBuf>,
    /// Where in the buffer the bytes begin.
    base: usize,
    pool: Pool,
}

impl Window {
    fn bytes(&self) -> &[u8] {
        self.buf.as_deref().and_then(|buf| buf.get(self.base..)).unwrap_or_default()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.pool.lock().extend(self.buf.take());
    }
}

/// How much of a file there is to read.
pub(super) struct Written {
    bytes: u64,
    /// Reports the durable length, while the file is being written.
    more: Option<mpsc::Receiver<u64>>,
    pacing: IoPacing,
}

impl Written {
    pub(super) fn whole(bytes: u64) -> Written {
        Written { bytes, more: None, pacing: IoPacing::UNPACED }
    }

    pub(super) fn so_far(more: mpsc::Receiver<u64>, pacing: IoPacing) -> Written {
        Written { bytes: 0, more: Some(more), pacing }
    }

    /// Waits until there are that many bytes, or the writer has ended.
    fn wait_for(&mut self, bytes: u64) {
        while self.bytes < bytes
            && let Some(more) = &self.more
        {
            match more.recv() {
                Ok(bytes) => {
                    debug_assert!(bytes >= self.bytes, "a file that is being written only grows");
                    self.bytes = bytes;
                }
                Err(_) => self.more = None,
            }
        }
    }
}

/// The content of one chunk.
pub(super) struct Piece {
    window: Arc<Window>,
    /// Where the unread rest of the content begins, and its length.
    at: usize,
    len: usize,
    pub(super) kind: ChunkKind,
    /// Where in the file the chunk ends.
    pub(super) end_offset: u64,
}

impl Piece {
    /// Marks the first `amount` bytes as read.
    pub(super) fn consume(&mut self, amount: usize) {
        debug_assert!(amount <= self.len, "no more is consumed than was there");
        let amount = amount.min(self.len);
        self.at = self.at.saturating_add(amount);
        self.len = self.len.saturating_sub(amount);
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.window.bytes().get(self.at..self.at.saturating_add(self.len)).unwrap_or_default()
    }
}

impl Source {
    pub(super) fn open(storage: &dyn Storage, name: &str) -> Result<Source> {
        Self::of(storage, name, None)
    }

    /// Opens a file that is still being written.
    pub(super) fn of_written(storage: &dyn Storage, name: &str, written: Written) -> Result<Source> {
        Self::of(storage, name, Some(written))
    }

    fn of(storage: &dyn Storage, name: &str, written: Option<Written>) -> Result<Source> {
        let file = match NamedFile::open(storage, name, OpenMode::Read) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::corrupt_as_a_whole(storage.path(name), None, "the snapshot is missing"));
            }
            other => other?,
        };
        let written = match written {
            Some(written) => written,
            None => Written::whole(file.len()?),
        };
        let pool = Pool::default();
        let window = Arc::new(Window { buf: None, base: 0, pool: Arc::clone(&pool) });
        let mut chunks = Chunks {
            file,
            store: StoreId::default(),
            lsn: Lsn::ZERO,
            written,
            window,
            window_offset: 0,
            pool,
            reader: SequentialReader::default(),
            block_bytes: u64::from(storage.block_bytes()),
            offset: 0,
            index: 0,
            checksums: crc32fast::Hasher::new(),
            totals: SnapshotEnd::default(),
            stop_at: u64::MAX,
            before: None,
        };
        chunks.fill(0, HEADER_BYTES)?;
        let header = SnapshotHeader::decode(chunks.window.bytes());
        let header = header.map_err(|fault| header_error(storage, name, fault))?;
        chunks.offset = HEADER_BYTES as u64;
        (chunks.store, chunks.lsn) = (header.store, header.lsn);
        Ok(Source { header, chunks })
    }
}

impl Chunks {
    fn damage(&self, reason: &'static str) -> Error {
        Error::corrupt(self.file.path().to_owned(), self.offset, Some(self.lsn), reason)
    }

    /// Brings `len` bytes from `offset` on into the window, as far as the file goes. Returns where
    /// in the window they begin.
    fn fill(&mut self, offset: u64, len: usize) -> Result<usize> {
        debug_assert!(offset >= self.window_offset, "a snapshot is read from front to back");
        let at = offset.saturating_sub(self.window_offset);
        if at.saturating_add(len as u64) <= self.window.bytes().len() as u64 {
            return Ok(usize::try_from(at).unwrap_or(usize::MAX));
        }
        let start = offset & !self.block_bytes.saturating_sub(1);
        let inside = offset.saturating_sub(start);
        let want = inside.saturating_add(len as u64).max(READ_BYTES);
        self.written.wait_for(start.saturating_add(want));
        let want = want.min(self.written.bytes.saturating_sub(start));
        let want = usize::try_from(round_up(want, self.block_bytes)).unwrap_or(usize::MAX);
        // what the window already holds from there on is not read again
        let kept = start.checked_sub(self.window_offset).and_then(|at| usize::try_from(at).ok());
        let kept = kept.and_then(|at| self.window.bytes().get(at..)).unwrap_or_default();
        let kept = if kept.len().is_multiple_of(usize::try_from(self.block_bytes).unwrap_or(1)) { kept } else { &[] };
        let io = |e| Error::io_at("read", self.file.path().to_owned(), start, e);
        let spare = self.pool.lock().pop();
        let mut buf = spare.map_or_else(|| AlignedBuf::with_capacity(want), Ok).map_err(io)?;
        let from = start.saturating_add(kept.len() as u64);
        let file = self.file.file();
        let wanted = Wanted { number: 0, file, offset: from, bytes: want.max(kept.len()) };
        let pacing = self.written.pacing;
        let read_now = |room: &mut [u8], offset| pacing.read(&**file, room, offset);
        let Filled { base, read } = self.reader.fill(&mut buf, kept, &wanted, read_now).map_err(io)?;
        if read > 0 {
            self.prefetch(from.saturating_add(read as u64));
        }
        self.window = Arc::new(Window { buf: Some(buf), base, pool: Arc::clone(&self.pool) });
        self.window_offset = start;
        Ok(usize::try_from(inside).unwrap_or(usize::MAX))
    }

    /// Prefetches the next windows of the file from `offset` on.
    fn prefetch(&mut self, offset: u64) {
        let window = round_up(READ_BYTES, self.block_bytes);
        let offsets = std::iter::successors(Some(offset), |offset| offset.checked_add(window));
        let wanted = offsets.take(READS_AHEAD).map(|offset| {
            let left = self.written.bytes.saturating_sub(offset).min(READ_BYTES);
            let bytes = usize::try_from(round_up(left, self.block_bytes)).unwrap_or(0);
            Wanted { number: 0, file: self.file.file(), offset, bytes }
        });
        let wanted: Vec<_> = wanted.take_while(|wanted| wanted.bytes > 0).collect();
        self.reader.prefetch(&wanted);
    }

    /// Starts to prefetch. The caller runs the returned [`Fetcher`] on a thread.
    pub(super) fn start_ahead(&mut self) -> Fetcher {
        self.reader.start_ahead()
    }

    /// The length of the file in bytes, or of what is durable of it so far.
    pub(super) fn file_bytes(&self) -> u64 {
        self.written.bytes
    }

    /// Checks that the file is as long as what was written.
    pub(super) fn check_len(&self) -> Result<()> {
        if self.file.len()? == self.written.bytes {
            Ok(())
        } else {
            Err(self.damage("the snapshot does not read back as written"))
        }
    }

    /// Reads the header of the next chunk and checks that it belongs there. `None` past the end
    /// chunk: the file was whole.
    fn next_header(&mut self) -> Result<Option<ChunkHeader>> {
        if self.before == Some(ChunkKind::End) {
            return Ok(None);
        }
        let at = self.fill(self.offset, CHUNK_HEADER_BYTES)?;
        let header = self.window.bytes().get(at..).and_then(decode_chunk_header);
        let header: ChunkHeader = header.ok_or_else(|| self.damage("there is no chunk here"))?;
        if header.index != self.index {
            return Err(self.damage("the chunk has the wrong index"));
        }
        if !header.kind.may_follow(self.before) {
            return Err(self.damage("the chunk has a kind that may not follow the one before it"));
        }
        Ok(Some(header))
    }

    /// Reads no more than the chunks that begin in the first `bytes` of the file.
    pub(super) fn stop_after(&mut self, bytes: u64) {
        self.stop_at = bytes;
    }

    /// Reads and checks the next chunk. `None` at the end chunk, which is checked too.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Piece>> {
        if self.offset >= self.stop_at {
            return Ok(None);
        }
        let Some(header) = self.next_header()? else { return Ok(None) };
        let content = header.content_bytes as usize;
        let whole = CHUNK_HEADER_BYTES.saturating_add(content);
        let at = self.fill(self.offset, whole)?;
        let chunk = self.window.bytes().get(at..at.saturating_add(whole));
        let chunk = chunk.ok_or_else(|| self.damage("the chunk is cut short"))?;
        self.check(&header, chunk_checksum(chunk, self.store, self.lsn))?;
        let at = at.saturating_add(CHUNK_HEADER_BYTES);
        if header.kind == ChunkKind::End {
            // waits for the writer to end
            self.written.wait_for(u64::MAX);
            self.check_end(at, content)?;
            self.before = Some(ChunkKind::End);
            return Ok(None);
        }
        self.pass(&header);
        let window = Arc::clone(&self.window);
        Ok(Some(Piece { window, at, len: content, kind: header.kind, end_offset: self.offset }))
    }

    /// Reads and checks the next chunk without keeping it, so that the window need not hold all of
    /// it. Returns `false` at the end chunk, which is checked too.
    pub(super) fn pass_chunk(&mut self) -> Result<bool> {
        let header = match self.next_header()? {
            Some(header) if header.kind != ChunkKind::End => header,
            _ => return self.next_chunk().map(|chunk| chunk.is_some()),
        };
        let at = self.fill(self.offset, CHUNK_HEADER_BYTES)?;
        let mut checksum = self.window.bytes().get(at..).and_then(|bytes| begin_checksum(bytes, self.store, self.lsn));
        let mut at = self.offset.saturating_add(CHUNK_HEADER_BYTES as u64);
        let mut left = header.content_bytes as usize;
        while left > 0 {
            let from = self.fill(at, 1)?;
            let bytes = self.window.bytes().get(from..).unwrap_or_default();
            let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
            if bytes.is_empty() {
                return Err(self.damage("the chunk is cut short"));
            }
            if let Some(checksum) = &mut checksum {
                checksum.update(bytes);
            }
            at = at.saturating_add(bytes.len() as u64);
            left = left.saturating_sub(bytes.len());
        }
        self.check(&header, checksum.map(crc32fast::Hasher::finalize))?;
        self.pass(&header);
        Ok(true)
    }

    fn check(&self, header: &ChunkHeader, found: Option<u32>) -> Result<()> {
        if found == Some(header.checksum) {
            Ok(())
        } else {
            Err(self.damage("the chunk's checksum does not match its content"))
        }
    }

    /// Moves on past a chunk that was checked and is not the end.
    fn pass(&mut self, header: &ChunkHeader) {
        debug_assert_eq!(header.index, self.index, "the chunks are read in order");
        debug_assert!(header.kind != ChunkKind::End, "nothing follows the end");
        let content = u64::from(header.content_bytes);
        if header.kind == ChunkKind::Transactions {
            self.totals.transaction_bytes = self.totals.transaction_bytes.saturating_add(content);
        } else {
            self.totals.state_bytes = self.totals.state_bytes.saturating_add(content);
        }
        self.before = Some(header.kind);
        self.checksums.update(&header.checksum.to_le_bytes());
        self.index = self.index.saturating_add(1);
        self.offset = self.offset.saturating_add(CHUNK_HEADER_BYTES as u64).saturating_add(content);
    }

    fn check_end(&self, at: usize, len: usize) -> Result<()> {
        let end = self.window.bytes().get(at..at.saturating_add(len)).and_then(SnapshotEnd::decode);
        let expected = SnapshotEnd { checksum: self.checksums.clone().finalize(), ..self.totals };
        if end != Some(expected) {
            return Err(self.damage("the end of the snapshot does not match its chunks"));
        }
        let behind = self.offset.saturating_add(CHUNK_HEADER_BYTES.saturating_add(len) as u64);
        if behind != self.written.bytes {
            return Err(self.damage("the file goes on past the end of the snapshot"));
        }
        Ok(())
    }
}
