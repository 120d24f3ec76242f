//! The chunks of a snapshot file, one at a time, each checked.

use crate::error::{Error, Result};
use crate::format::HeaderFault;
use crate::format::bytes::round_up;
use crate::format::snapshot::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, HEADER_BYTES, SnapshotEnd, SnapshotHeader, begin_checksum,
    chunk_checksum, decode_chunk_header,
};
use crate::ids::{Lsn, StoreId};
use crate::io::read_ahead as ahead;
use crate::io::read_ahead::{Ahead, Wanted};
use crate::io::sync::{Arc, Mutex, mpsc};
use crate::io::{AlignedBuf, File, OpenMode, Storage};
use crate::snapshot::io_pacing::IoPacing;
use std::io;
use std::path::PathBuf;

/// How much is read at once.
const READ_BYTES: u64 = 4 << 20;
/// A snapshot file being read.
pub(super) struct Source {
    pub(super) header: SnapshotHeader,
    pub(super) chunks: Chunks,
}

/// Its chunks, in order.
pub(super) struct Chunks {
    file: Arc<dyn File>,
    path: PathBuf,
    store: StoreId,
    lsn: Lsn,
    written: Written,
    /// What was read ahead, and where in the file it begins.
    window: Arc<Window>,
    window_offset: u64,
    /// Windows that nobody holds any more, to be read into again.
    pool: Pool,
    /// Reads ahead, if there is a thread for it.
    ahead: Option<Ahead>,
    block_bytes: u64,
    /// Where the next chunk begins.
    offset: u64,
    index: u32,
    checksums: crc32fast::Hasher,
    totals: SnapshotEnd,
    /// The kind of the chunk before; once that is the end, the file was whole.
    before: Option<ChunkKind>,
}

type Pool = Arc<Mutex<Vec<AlignedBuf>>>;

/// Memory that was read into. It goes back where it came from with the last piece of it.
struct Window {
    /// Empty only while it is dropped.
    buf: Option<AlignedBuf>,
    /// Where in it the bytes begin.
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

/// How much of a file is there to be read.
pub(super) struct Written {
    bytes: u64,
    /// Tells how much it has become, as long as it is being written.
    more: Option<mpsc::Receiver<u64>>,
    pacing: IoPacing,
}

impl Written {
    pub(super) fn whole(bytes: u64) -> Written {
        Written { bytes, more: None, pacing: IoPacing::WHOLE }
    }

    pub(super) fn so_far(more: mpsc::Receiver<u64>, pacing: IoPacing) -> Written {
        Written { bytes: 0, more: Some(more), pacing }
    }

    /// Waits until it is that much, or all.
    fn wait_for(&mut self, bytes: u64) {
        while self.bytes < bytes
            && let Some(more) = &self.more
        {
            match more.recv() {
                Ok(bytes) => self.bytes = bytes,
                Err(_) => self.more = None,
            }
        }
    }
}

/// The content of one chunk.
pub(super) struct Piece {
    window: Arc<Window>,
    /// Where what is left of the content begins, and its length.
    at: usize,
    len: usize,
    pub(super) kind: ChunkKind,
    /// Where in the file the chunk ends.
    pub(super) end_offset: u64,
}

impl Piece {
    pub(super) fn consume(&mut self, amount: usize) {
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

    /// Reads a file as it is being written.
    pub(super) fn of_written(storage: &dyn Storage, name: &str, written: Written) -> Result<Source> {
        Self::of(storage, name, Some(written))
    }

    fn of(storage: &dyn Storage, name: &str, written: Option<Written>) -> Result<Source> {
        let path = storage.path(name);
        let io = |operation, e| Error::io(operation, path.clone(), e);
        let file = match storage.open(name, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::corrupt(path, 0, None, "the snapshot is missing"));
            }
            other => other.map_err(|e| io("open", e))?,
        };
        let written = match written {
            Some(written) => written,
            None => Written::whole(file.len().map_err(|e| io("measure", e))?),
        };
        let pool = Pool::default();
        let window = Arc::new(Window { buf: None, base: 0, pool: Arc::clone(&pool) });
        let mut chunks = Chunks {
            file,
            path: path.clone(),
            store: StoreId::default(),
            lsn: Lsn::ZERO,
            written,
            window,
            window_offset: 0,
            pool,
            ahead: None,
            block_bytes: u64::from(storage.block_bytes()),
            offset: 0,
            index: 0,
            checksums: crc32fast::Hasher::new(),
            totals: SnapshotEnd::default(),
            before: None,
        };
        chunks.fill(0, HEADER_BYTES)?;
        let header = SnapshotHeader::decode(chunks.window.bytes()).map_err(|fault| match fault {
            HeaderFault::Bad(reason) => Error::corrupt(path.clone(), 0, None, reason),
            HeaderFault::Version(found) => {
                let supported = u32::from(crate::format::FORMAT_VERSION);
                Error::UnsupportedVersion { path: path.clone(), what: "format".into(), found, supported }
            }
        })?;
        chunks.offset = HEADER_BYTES as u64;
        (chunks.store, chunks.lsn) = (header.store, header.lsn);
        Ok(Source { header, chunks })
    }
}

impl Chunks {
    fn damage(&self, reason: &'static str) -> Error {
        Error::corrupt(self.path.clone(), self.offset, Some(self.lsn), reason)
    }

    /// Sees to it that `len` bytes from `offset` on are in the window, as far as the file goes. Returns where they begin in it.
    fn fill(&mut self, offset: u64, len: usize) -> Result<usize> {
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
        // what the window holds from there on is not read again
        let kept = start.checked_sub(self.window_offset).and_then(|at| usize::try_from(at).ok());
        let kept = kept.and_then(|at| self.window.bytes().get(at..)).unwrap_or_default();
        let kept = if kept.len().is_multiple_of(usize::try_from(self.block_bytes).unwrap_or(1)) { kept } else { &[] };
        let io = |e| Error::io_at("read", self.path.clone(), start, e);
        let spare = self.pool.lock().pop();
        let mut buf = spare.map_or_else(|| AlignedBuf::with_capacity(want), Ok).map_err(io)?;
        let from = start.saturating_add(kept.len() as u64);
        let was_ahead = self.ahead.as_mut().and_then(|ahead| ahead.take(0, from, &mut buf));
        let (base, read) = match was_ahead {
            Some(read) if kept.len() <= ahead::FRONT_BYTES => {
                (ahead::FRONT_BYTES.saturating_sub(kept.len()), read.map_err(io)?)
            }
            _ => {
                // what it held before is overwritten, and not cleared
                buf.resize(want.max(kept.len())).map_err(io)?;
                let room = buf.get_mut(kept.len()..).unwrap_or_default();
                (0, self.written.pacing.read(&*self.file, room, from).map_err(io)?)
            }
        };
        let behind = base.saturating_add(kept.len());
        if let Some(front) = buf.get_mut(base..behind) {
            front.copy_from_slice(kept);
        }
        buf.resize(behind.saturating_add(read)).map_err(io)?;
        let next = from.saturating_add(read as u64);
        if let Some(ahead) = self.ahead.as_mut().filter(|_| read > 0) {
            let file = &self.file;
            let wanted = [next, next.saturating_add(round_up(READ_BYTES, self.block_bytes))].map(|offset| {
                let more = round_up(self.written.bytes.saturating_sub(offset).min(READ_BYTES), self.block_bytes);
                Wanted { number: 0, file, offset, bytes: usize::try_from(more).unwrap_or(0) }
            });
            let there = wanted.iter().take_while(|wanted| wanted.bytes > 0).count();
            ahead.ask(wanted.get(..there).unwrap_or_default());
        }
        self.window = Arc::new(Window { buf: Some(buf), base, pool: Arc::clone(&self.pool) });
        self.window_offset = start;
        Ok(usize::try_from(inside).unwrap_or(usize::MAX))
    }

    /// Has another thread read ahead.
    pub(super) fn read_ahead(&mut self, ahead: Ahead) {
        self.ahead = Some(ahead);
    }

    /// How long the file is, as far as is known.
    pub(super) fn file_bytes(&self) -> u64 {
        self.written.bytes
    }

    /// Checks that the file is as long as what was written.
    pub(super) fn check_len(&self) -> Result<()> {
        let found = self.file.len().map_err(|e| Error::io("measure", self.path.clone(), e))?;
        if found == self.written.bytes {
            Ok(())
        } else {
            Err(self.damage("the snapshot does not read back as written"))
        }
    }

    /// Reads the header of the next chunk and checks its place among the others. Nothing comes behind the end chunk, and where that
    /// was passed the file is whole.
    fn next_header(&mut self) -> Result<Option<ChunkHeader>> {
        if self.before == Some(ChunkKind::End) {
            return Ok(None);
        }
        let at = self.fill(self.offset, CHUNK_HEADER_BYTES)?;
        let header = self.window.bytes().get(at..).and_then(decode_chunk_header);
        let header: ChunkHeader = header.ok_or_else(|| self.damage("there is no chunk here"))?;
        if header.index != self.index {
            return Err(self.damage("the chunk is not the one that belongs here"));
        }
        if !header.kind.may_follow(self.before) {
            return Err(self.damage("the chunk is out of its order"));
        }
        Ok(Some(header))
    }

    /// Reads and checks the next chunk. The end is checked too, and is none.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Piece>> {
        let Some(header) = self.next_header()? else { return Ok(None) };
        let content = header.content_bytes as usize;
        let whole = CHUNK_HEADER_BYTES.saturating_add(content);
        let at = self.fill(self.offset, whole)?;
        let chunk = self.window.bytes().get(at..at.saturating_add(whole));
        let chunk = chunk.ok_or_else(|| self.damage("the chunk is cut short"))?;
        self.check(&header, chunk_checksum(chunk, self.store, self.lsn))?;
        let at = at.saturating_add(CHUNK_HEADER_BYTES);
        if header.kind == ChunkKind::End {
            // waits for the end of what is being written
            self.written.wait_for(u64::MAX);
            self.check_end(at, content)?;
            self.before = Some(ChunkKind::End);
            return Ok(None);
        }
        self.pass(&header);
        let window = Arc::clone(&self.window);
        Ok(Some(Piece { window, at, len: content, kind: header.kind, end_offset: self.offset }))
    }

    /// Reads and checks the next chunk and keeps nothing of it, so that it need not be in the window as a whole. Returns whether there was
    /// one. The end is checked too, and is none.
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

    /// Goes on behind a chunk that was checked and is not the end.
    fn pass(&mut self, header: &ChunkHeader) {
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
            return Err(self.damage("the file goes on behind the end of the snapshot"));
        }
        Ok(())
    }
}
