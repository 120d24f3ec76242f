//! Snapshot files: writing a state and its open transactions in checked chunks, and reading them back.
//!
//! A snapshot gets its name only once it was synced and read back from the device. It knows nothing of when that is
//! done, or of the log.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)
)]

use crate::error::{Error, Result, out_of_space};
use crate::format::bytes::{Take, put_varint, round_up};
use crate::format::manifest::SnapshotEntry;
use crate::format::snapshot::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, END_BYTES, HEADER_BYTES, MAX_CHUNK_BYTES, SnapshotEnd, SnapshotHeader,
    chunk_checksum, decode_chunk_header, seal_chunk,
};
use crate::format::{HeaderFault, Lsn, StoreId, TxnId, names};
use crate::machine::{DecodeError, StateMachine};
use crate::storage::{AlignedBuf, OpenMode, Storage, StorageFile, read_device_full, write_all_at};
use crate::sync::Arc;
use crate::txn::{Table, UndoEntry, UndoList, guarded};
use std::io::{self, BufRead, Read, Write};

/// How much content a chunk holds.
const CHUNK_BYTES: usize = 1 << 20;
/// How much is read at once.
const READ_BYTES: u64 = 4 << 20;

/// Writes a snapshot. When it returns, the snapshot was verified and survives power loss, name included.
///
/// `pace` is called after each chunk with the bytes written so far.
///
/// # Errors
/// [`Error::Full`] where there is no space, or I/O errors; nothing is left behind but a temporary file at worst.
pub(crate) fn write<M: StateMachine>(
    storage: &dyn Storage,
    header: &SnapshotHeader,
    state: M,
    table: &Table<M::Command>,
    pace: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<SnapshotEntry> {
    let name = names::snapshot(header.lsn);
    let temp = names::temp(&name);
    let fail = |operation, e: io::Error| {
        if out_of_space(&e) {
            Error::Full { what: "a snapshot", source: Some(Arc::new(e)) }
        } else {
            Error::io(operation, storage.path(&temp), e)
        }
    };
    let written = (|| {
        let file = match storage.open(&temp, OpenMode::CreateNew) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                storage.remove(&temp).map_err(|e| fail("remove", e))?;
                storage.open(&temp, OpenMode::CreateNew).map_err(|e| fail("create", e))?
            }
            other => other.map_err(|e| fail("create", e))?,
        };
        let mut block = [0; HEADER_BYTES];
        header.encode(&mut block).ok_or_else(|| Error::invalid("the machine's name does not fit a snapshot"))?;
        write_all_at(&*file, &block, 0).map_err(|e| fail("write", e))?;
        let mut chunks = ChunkWriter::new(&*file, header.store, header.lsn, pace);
        let saved = contained(|| state.save_frozen(&mut chunks)).and_then(|()| chunks.finish_kind());
        let saved = saved.and_then(|()| {
            chunks.begin(ChunkKind::Transactions);
            contained(|| write_table::<M>(table, &mut chunks))?;
            chunks.finish_kind()
        });
        let ended = saved.and_then(|()| chunks.finish());
        let file_bytes = match (ended, chunks.paced) {
            (_, Some(error)) => return Err(error),
            (ended, None) => ended.map_err(|e| fail("write", e))?,
        };
        file.sync_all().map_err(|e| fail("sync", e))?;
        let entry = SnapshotEntry { lsn: header.lsn, file_bytes };
        verify(storage, &temp, header, file_bytes)?;
        storage.rename(&temp, &name).map_err(|e| fail("rename", e))?;
        storage.sync_dir().map_err(|e| Error::io("sync", storage.path(""), e))?;
        Ok(entry)
    })();
    if written.is_err() {
        // best effort: a left-over is removed at the next open
        let _ = storage.remove(&temp);
    }
    written
}

/// Runs the machine's code on a copy of the state: a panic in it fails this snapshot, and nothing else.
fn contained(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    guarded(write).unwrap_or_else(|_| Err(io::Error::other("the machine panicked while it was being saved")))
}

/// Reads the whole file back from the device and checks every chunk.
fn verify(storage: &dyn Storage, name: &str, header: &SnapshotHeader, file_bytes: u64) -> Result<()> {
    let mut source = Source::open(storage, name)?;
    if source.header != *header || source.chunks.file_bytes != file_bytes {
        return Err(Error::corrupt(
            storage.path(name),
            0,
            Some(header.lsn),
            "the snapshot does not read back as written",
        ));
    }
    while source.chunks.next_chunk()? {}
    Ok(())
}

/// Cuts a stream into checked chunks.
struct ChunkWriter<'a> {
    file: &'a dyn StorageFile,
    store: StoreId,
    lsn: Lsn,
    kind: ChunkKind,
    chunk: Vec<u8>,
    index: u32,
    offset: u64,
    end: SnapshotEnd,
    checksums: crc32fast::Hasher,
    pace: &'a mut dyn FnMut(u64) -> Result<()>,
    /// The error of `pace`, which the stream's own error type cannot carry.
    paced: Option<Error>,
}

impl<'a> ChunkWriter<'a> {
    fn new(file: &'a dyn StorageFile, store: StoreId, lsn: Lsn, pace: &'a mut dyn FnMut(u64) -> Result<()>) -> Self {
        ChunkWriter {
            file,
            store,
            lsn,
            kind: ChunkKind::State,
            chunk: vec![0; CHUNK_HEADER_BYTES],
            index: 0,
            offset: HEADER_BYTES as u64,
            end: SnapshotEnd::default(),
            checksums: crc32fast::Hasher::new(),
            pace,
            paced: None,
        }
    }

    fn begin(&mut self, kind: ChunkKind) {
        self.kind = kind;
    }

    fn content_bytes(&self) -> usize {
        self.chunk.len().saturating_sub(CHUNK_HEADER_BYTES)
    }

    fn finish_kind(&mut self) -> io::Result<()> {
        if self.content_bytes() > 0 { self.emit() } else { Ok(()) }
    }

    fn emit(&mut self) -> io::Result<()> {
        let content = self.content_bytes() as u64;
        match self.kind {
            ChunkKind::State => self.end.state_bytes = self.end.state_bytes.saturating_add(content),
            ChunkKind::Transactions => {
                self.end.transaction_bytes = self.end.transaction_bytes.saturating_add(content);
            }
            ChunkKind::End => {}
        }
        let checksum = seal_chunk(&mut self.chunk, self.kind, self.index, self.store, self.lsn)
            .ok_or_else(|| io::Error::other("the chunk is too long"))?;
        self.checksums.update(&checksum.to_le_bytes());
        self.index = self.index.checked_add(1).ok_or_else(|| io::Error::other("the snapshot has too many chunks"))?;
        write_all_at(self.file, &self.chunk, self.offset)?;
        self.offset = self.offset.saturating_add(self.chunk.len() as u64);
        self.chunk.truncate(CHUNK_HEADER_BYTES);
        if let Err(error) = (self.pace)(self.offset) {
            self.paced = Some(error);
            return Err(io::Error::other("the checkpoint was given up"));
        }
        Ok(())
    }

    /// Writes the end chunk. Returns the file's length.
    fn finish(&mut self) -> io::Result<u64> {
        self.end.checksum = self.checksums.clone().finalize();
        let mut content = [0; END_BYTES];
        self.end.encode(&mut content).ok_or_else(|| io::Error::other("the end does not fit"))?;
        self.kind = ChunkKind::End;
        self.chunk.extend_from_slice(&content);
        self.emit()?;
        Ok(self.offset)
    }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES.saturating_sub(self.content_bytes());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.chunk.extend_from_slice(taken);
        if self.content_bytes() >= CHUNK_BYTES {
            self.emit()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_table<M: StateMachine>(table: &Table<M::Command>, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::new();
    put_varint(table.len() as u64, &mut bytes);
    for (id, undo) in table.iter() {
        put_varint(id.get(), &mut bytes);
        put_varint(undo.len() as u64, &mut bytes);
        let mut before = id.first_lsn();
        let mut inverse = Vec::new();
        undo.for_each(|entry| {
            put_varint(entry.lsn.since(before), &mut bytes);
            before = entry.lsn;
            inverse.clear();
            M::encode(&entry.inverse, &mut inverse);
            put_varint(inverse.len() as u64, &mut bytes);
            bytes.extend_from_slice(&inverse);
            out.write_all(&bytes)?;
            bytes.clear();
            Ok::<_, io::Error>(())
        })?;
    }
    out.write_all(&bytes)
}

/// What a snapshot file held.
pub(crate) struct Loaded<M: StateMachine> {
    pub(crate) header: SnapshotHeader,
    pub(crate) state: M,
    pub(crate) table: Table<M::Command>,
    pub(crate) file_bytes: u64,
}

/// Reads and checks a snapshot.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::UnsupportedVersion`], or an I/O error.
pub(crate) fn load<M: StateMachine>(
    storage: &dyn Storage,
    store: Option<StoreId>,
    lsn: Lsn,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Loaded<M>> {
    let name = names::snapshot(lsn);
    let mut source = Source::open(storage, &name)?;
    let header = source.header.clone();
    let damage = |offset, reason: String| Error::corrupt(storage.path(&name), offset, Some(lsn), reason);
    if header.lsn != lsn {
        return Err(damage(0, "the snapshot's header is that of another snapshot".into()));
    }
    if store.is_some_and(|store| store != header.store) {
        return Err(damage(0, "the snapshot belongs to another store".into()));
    }
    if header.machine.name != M::NAME {
        // whose store it is was asked before
        return Err(damage(0, format!("the snapshot belongs to \"{}\", not to \"{}\"", header.machine.name, M::NAME)));
    }
    let version = header.machine.version;
    if !M::supports(version) {
        let (path, what) = (storage.path(&name), M::NAME.into());
        return Err(Error::UnsupportedVersion { path, what, found: version, supported: M::VERSION });
    }
    let mut stream = Stream { source: &mut source, kind: ChunkKind::State, failed: None, progress };
    // a panic of the machine is told as what it is
    let state = guarded(|| M::load(&mut stream, version))?;
    let at_end = stream.fill_buf().map(<[u8]>::is_empty);
    let failed = stream.failed.take();
    let offset = source.chunks.offset;
    let state = match (failed, state, at_end) {
        (Some(error), _, _) => return Err(error),
        (None, Err(e), _) => return Err(damage(offset, format!("the state cannot be read: {e}"))),
        (None, Ok(_), Ok(false)) => return Err(damage(offset, "bytes are left behind the state".into())),
        (None, Ok(_), Err(e)) => return Err(damage(offset, e.to_string())),
        (None, Ok(state), Ok(true)) => state,
    };
    let mut stream = Stream { source: &mut source, kind: ChunkKind::Transactions, failed: None, progress };
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    if let Some(error) = stream.failed.take() {
        return Err(error);
    }
    read.map_err(|e| damage(0, e.to_string()))?;
    while source.chunks.next_chunk()? {}
    let table = guarded(|| read_table::<M>(&bytes, version))?
        .map_err(|e| damage(source.chunks.offset, format!("the open transactions cannot be read: {e}")))?;
    let file_bytes = source.chunks.file_bytes;
    Ok(Loaded { header, state, table, file_bytes })
}

/// Checks a whole snapshot file, without knowing its machine.
///
/// # Errors
/// As [`load`].
pub(crate) fn check(storage: &dyn Storage, lsn: Lsn) -> Result<(SnapshotHeader, u64)> {
    let name = names::snapshot(lsn);
    let mut source = Source::open(storage, &name)?;
    if source.header.lsn != lsn {
        let reason = "the snapshot's header is that of another snapshot";
        return Err(Error::corrupt(storage.path(&name), 0, Some(lsn), reason));
    }
    while source.chunks.next_chunk()? {}
    Ok((source.header, source.chunks.file_bytes))
}

fn read_table<M: StateMachine>(bytes: &[u8], version: u32) -> Result<Table<M::Command>, DecodeError> {
    let short = || DecodeError::new("they are cut short");
    let mut take = Take(bytes);
    let mut table = Table::default();
    for _ in 0..take.varint().ok_or_else(short)? {
        let id = TxnId::new(take.varint().ok_or_else(short)?);
        let mut undo = UndoList::default();
        let mut before = id.first_lsn();
        for _ in 0..take.varint().ok_or_else(short)? {
            let lsn = before.plus(take.varint().ok_or_else(short)?);
            before = lsn;
            let len = take.varint().and_then(|len| usize::try_from(len).ok()).ok_or_else(short)?;
            let inverse = M::decode(take.bytes(len).ok_or_else(short)?, version)?;
            undo.push(UndoEntry { lsn, inverse, bytes: len as u64 });
        }
        table.insert(id, undo);
    }
    if take.0.is_empty() { Ok(table) } else { Err(DecodeError::new("bytes are left behind them")) }
}

/// A snapshot file being read.
struct Source {
    header: SnapshotHeader,
    chunks: Chunks,
}

/// Its chunks, one at a time, each checked.
struct Chunks {
    file: Arc<dyn StorageFile>,
    path: std::path::PathBuf,
    store: StoreId,
    lsn: Lsn,
    file_bytes: u64,
    /// What was read ahead, and where in the file it begins.
    buf: AlignedBuf,
    buf_offset: u64,
    block_bytes: u64,
    /// Where the next chunk begins.
    offset: u64,
    index: u32,
    checksums: crc32fast::Hasher,
    totals: SnapshotEnd,
    ended: bool,
    /// The chunk that was read last: its kind, where its content begins in `buf`, and its length.
    kind: ChunkKind,
    content: (usize, usize),
}

impl Source {
    fn open(storage: &dyn Storage, name: &str) -> Result<Source> {
        let path = storage.path(name);
        let io = |operation, e| Error::io(operation, path.clone(), e);
        let file = match storage.open(name, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::corrupt(path, 0, None, "the snapshot is missing"));
            }
            other => other.map_err(|e| io("open", e))?,
        };
        let file_bytes = file.len().map_err(|e| io("measure", e))?;
        let mut chunks = Chunks {
            file,
            path: path.clone(),
            store: StoreId::default(),
            lsn: Lsn::ZERO,
            file_bytes,
            buf: AlignedBuf::with_capacity(0).map_err(|e| io("read", e))?,
            buf_offset: 0,
            block_bytes: u64::from(storage.block_bytes()),
            offset: 0,
            index: 0,
            checksums: crc32fast::Hasher::new(),
            totals: SnapshotEnd::default(),
            ended: false,
            kind: ChunkKind::End,
            content: (0, 0),
        };
        chunks.fill(HEADER_BYTES)?;
        let header = SnapshotHeader::decode(&chunks.buf).map_err(|fault| match fault {
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

    /// Sees to it that `len` bytes from `offset` on are in the buffer, as far as the file goes. Returns where they begin in it.
    fn fill(&mut self, len: usize) -> Result<usize> {
        let at = self.offset.saturating_sub(self.buf_offset);
        if at.saturating_add(len as u64) <= self.buf.len() as u64 {
            return Ok(usize::try_from(at).unwrap_or(usize::MAX));
        }
        let start = self.offset & !self.block_bytes.saturating_sub(1);
        let inside = self.offset.saturating_sub(start);
        let want = inside.saturating_add(len as u64).max(READ_BYTES).min(self.file_bytes.saturating_sub(start));
        let want = round_up(want, self.block_bytes);
        let io = |e| Error::io_at("read", self.path.clone(), start, e);
        self.buf.clear();
        self.buf.resize(usize::try_from(want).unwrap_or(usize::MAX)).map_err(io)?;
        let read = read_device_full(&*self.file, &mut self.buf, start).map_err(io)?;
        self.buf.resize(read).map_err(io)?;
        self.buf_offset = start;
        Ok(usize::try_from(inside).unwrap_or(usize::MAX))
    }

    /// Reads and checks the next chunk. `false` after the end chunk.
    fn next_chunk(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let at = self.fill(CHUNK_HEADER_BYTES)?;
        let header: ChunkHeader =
            self.buf.get(at..).and_then(decode_chunk_header).ok_or_else(|| self.damage("there is no chunk here"))?;
        let content = header.content_bytes as usize;
        let whole = CHUNK_HEADER_BYTES.saturating_add(content.min(MAX_CHUNK_BYTES));
        let at = self.fill(whole)?;
        let chunk = self.buf.get(at..at.saturating_add(whole));
        let chunk = chunk.ok_or_else(|| self.damage("the chunk is cut short"))?;
        if header.index != self.index {
            return Err(self.damage("the chunk is not the one that belongs here"));
        }
        if chunk_checksum(chunk, self.store, self.lsn) != Some(header.checksum) {
            return Err(self.damage("the chunk's checksum does not match its content"));
        }
        if header.kind == ChunkKind::End {
            self.check_end(at.saturating_add(CHUNK_HEADER_BYTES), content)?;
            self.ended = true;
            return Ok(false);
        }
        match header.kind {
            ChunkKind::State => self.totals.state_bytes = self.totals.state_bytes.saturating_add(content as u64),
            _ => self.totals.transaction_bytes = self.totals.transaction_bytes.saturating_add(content as u64),
        }
        self.checksums.update(&header.checksum.to_le_bytes());
        self.index = self.index.saturating_add(1);
        self.kind = header.kind;
        self.content = (at.saturating_add(CHUNK_HEADER_BYTES), content);
        self.offset = self.offset.saturating_add(whole as u64);
        Ok(true)
    }

    fn check_end(&self, at: usize, len: usize) -> Result<()> {
        let end = self.buf.get(at..at.saturating_add(len)).and_then(SnapshotEnd::decode);
        let expected = SnapshotEnd { checksum: self.checksums.clone().finalize(), ..self.totals };
        if end != Some(expected) {
            return Err(self.damage("the end of the snapshot does not match its chunks"));
        }
        let behind = self.offset.saturating_add(CHUNK_HEADER_BYTES.saturating_add(len) as u64);
        if behind != self.file_bytes {
            return Err(self.damage("the file goes on behind the end of the snapshot"));
        }
        Ok(())
    }
}

/// The content of all chunks of one kind, as a stream.
struct Stream<'a> {
    source: &'a mut Source,
    kind: ChunkKind,
    /// The error behind the stream's, with file and offset.
    failed: Option<Error>,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let chunks = &mut self.source.chunks;
        // a chunk of the kind that follows stays where it is, for the stream of that kind
        if chunks.content.1 == 0 && !chunks.ended {
            (self.progress)(chunks.offset, chunks.file_bytes);
            if let Err(error) = chunks.next_chunk() {
                let text = io::Error::other(error.to_string());
                self.failed = Some(error);
                return Err(text);
            }
            if chunks.ended {
                chunks.content = (0, 0);
            }
        }
        if chunks.kind != self.kind {
            return Ok(&[]);
        }
        let (at, len) = chunks.content;
        Ok(chunks.buf.get(at..at.saturating_add(len)).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        let (at, len) = self.source.chunks.content;
        let amount = amount.min(len);
        self.source.chunks.content = (at.saturating_add(amount), len.saturating_sub(amount));
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let len = ready.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), ready.get(..len)) {
            to.copy_from_slice(from);
        }
        self.consume(len);
        Ok(len)
    }
}
