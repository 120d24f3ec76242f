//! Reading a snapshot: its chunks are read and checked ahead, while the machine decodes them.

use super::Help;
use super::source::{Chunks, Piece, Source};
use crate::error::{Error, Result};
use crate::format::bytes::Take;
use crate::format::snapshot::{ChunkKind, SnapshotHeader};
use crate::format::{Lsn, StoreId, TxnId, names};
use crate::machine::parts::{Part, PartSource, read_buffered};
use crate::machine::{DecodeError, Parts, StateMachine, bulk};
use crate::storage::{Storage, ahead};
use crate::sync::{Mutex, mpsc, thread};
use crate::txn::{Table, UndoEntry, UndoList, guarded};
use std::io::{self, BufRead, Read};

/// How many chunks the reading thread may be ahead.
const CHUNKS_AHEAD: usize = 8;
/// So many threads decode at the most: a part and what it becomes is held for each.
const MAX_DECODERS: usize = 16;

/// What a snapshot file held.
pub(crate) struct Loaded<M: StateMachine> {
    pub(crate) header: SnapshotHeader,
    pub(crate) state: M,
    pub(crate) table: Table<M::Command>,
    pub(crate) file_bytes: u64,
}

/// Is told how many bytes of how many have been read.
pub(crate) type Tell<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Reads and checks a snapshot. With threads it holds about 32 MiB beside the state, and the parts being decoded.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::UnsupportedVersion`], or an I/O error.
pub(crate) fn load<M: StateMachine>(
    storage: &dyn Storage,
    store: Option<StoreId>,
    lsn: Lsn,
    help: Help,
    progress: Tell<'_>,
) -> Result<Loaded<M>> {
    let name = names::snapshot(lsn);
    let Source { header, mut chunks } = Source::open(storage, &name)?;
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
    let file_bytes = chunks.file_bytes();
    let take = |pull: Pull<'_>, decoders| {
        let mut feed =
            Feed { pull, piece: None, kind: ChunkKind::State, failed: None, offset: 0, file_bytes, progress };
        let state = load_state::<M>(&mut feed, version, decoders, &damage)?;
        let table = load_table::<M>(&mut feed, version, &damage)?;
        Ok((state, table))
    };
    let (state, table) = match help {
        Help::None => take(Pull::Here(&mut chunks), 1)?,
        Help::Threads => read_ahead(chunks, |pieces| take(Pull::Ahead(pieces), decoders()))?,
    };
    Ok(Loaded { header, state, table, file_bytes })
}

fn decoders() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_DECODERS))
}

/// Has one thread read the chunks and one check them, while `take` makes something of them. The two end last.
fn read_ahead<R>(mut chunks: Chunks, take: impl FnOnce(mpsc::Receiver<Result<Piece>>) -> Result<R>) -> Result<R> {
    let (ahead, fetcher) = ahead::pair();
    chunks.read_ahead(ahead);
    let stay = &Mutex::new(());
    thread::scope(|scope| {
        let until_taken = stay.lock();
        let fetcher = scope.spawn(move || {
            fetcher.run();
            drop(stay.lock());
        });
        let (out, pieces) = mpsc::sync_channel(CHUNKS_AHEAD);
        let reader = scope.spawn(move || {
            while let Some(piece) = chunks.next_chunk().transpose() {
                let last = piece.is_err();
                // the other side has failed, and its error is the one that counts
                if out.send(piece).is_err() || last {
                    break;
                }
            }
            drop((chunks, out));
            drop(stay.lock());
        });
        let taken = take(pieces);
        drop(until_taken);
        let ended = [reader.join(), fetcher.join()];
        if ended.iter().all(|ended| ended.is_ok()) { taken } else { Err(Error::Poisoned) }
    })
}

fn load_state<M: StateMachine>(
    feed: &mut Feed<'_>,
    version: u32,
    decoders: usize,
    damage: &dyn Fn(u64, String) -> Error,
) -> Result<M> {
    let in_parts = feed.peek()?.is_some_and(|piece| piece.kind == ChunkKind::Part);
    // a panic of the machine is told as what it is
    let state = guarded(|| match in_parts {
        true => bulk::load_parts::<M>(Parts::new(&mut *feed, decoders), version),
        false => M::load(&mut *feed, version),
    })?;
    let at_end = feed.fill_buf().map(<[u8]>::is_empty);
    match (feed.failed.take(), state, at_end) {
        (Some(error), _, _) => Err(error),
        (None, Err(e), _) => Err(damage(feed.offset, format!("the state cannot be read: {e}"))),
        (None, Ok(_), Ok(false)) => Err(damage(feed.offset, "bytes are left behind the state".into())),
        (None, Ok(_), Err(e)) => Err(damage(feed.offset, e.to_string())),
        (None, Ok(state), Ok(true)) => Ok(state),
    }
}

/// Reads the open transactions. Nothing but the end comes behind them, and that has been reached then.
fn load_table<M: StateMachine>(
    feed: &mut Feed<'_>,
    version: u32,
    damage: &dyn Fn(u64, String) -> Error,
) -> Result<Table<M::Command>> {
    feed.kind = ChunkKind::Transactions;
    let mut bytes = Vec::new();
    let read = feed.read_to_end(&mut bytes);
    if let Some(error) = feed.failed.take() {
        return Err(error);
    }
    read.map_err(|e| damage(0, e.to_string()))?;
    guarded(|| read_table::<M>(&bytes, version))?
        .map_err(|e| damage(feed.offset, format!("the open transactions cannot be read: {e}")))
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
    while source.chunks.next_chunk()?.is_some() {}
    Ok((source.header, source.chunks.file_bytes()))
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

/// Where chunks come from.
enum Pull<'a> {
    Here(&'a mut Chunks),
    Ahead(mpsc::Receiver<Result<Piece>>),
}

/// The content of the chunks of one kind, as a stream or in parts.
struct Feed<'a> {
    pull: Pull<'a>,
    /// The chunk at hand. One of the kind that follows stays, for the stream of that kind.
    piece: Option<Piece>,
    kind: ChunkKind,
    /// The error behind the stream's, with file and offset.
    failed: Option<Error>,
    /// Where the chunk at hand ends.
    offset: u64,
    file_bytes: u64,
    progress: Tell<'a>,
}

impl Feed<'_> {
    /// The chunk at hand, or the next one where nothing of that is left; nothing at the end of the file.
    fn peek(&mut self) -> Result<Option<&Piece>> {
        while self.piece.as_ref().is_none_or(|piece| piece.as_ref().is_empty()) {
            (self.progress)(self.offset, self.file_bytes);
            self.piece = match &mut self.pull {
                Pull::Here(chunks) => chunks.next_chunk()?,
                // a thread that has gone without an error has come to the end
                Pull::Ahead(pieces) => pieces.recv().ok().transpose()?,
            };
            let Some(piece) = &self.piece else { return Ok(None) };
            self.offset = piece.end_offset;
        }
        Ok(self.piece.as_ref())
    }

    /// The same for a stream, whose errors cannot carry ours.
    fn peek_io(&mut self) -> io::Result<Option<&Piece>> {
        if let Err(error) = self.peek() {
            let text = io::Error::other(error.to_string());
            self.failed = Some(error);
            return Err(text);
        }
        Ok(self.piece.as_ref())
    }
}

/// Whether a chunk belongs to the stream of a kind.
fn belongs(piece: &Piece, kind: ChunkKind) -> bool {
    piece.kind == kind || (piece.kind, kind) == (ChunkKind::Part, ChunkKind::State)
}

impl BufRead for Feed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let kind = self.kind;
        Ok(self.peek_io()?.filter(|piece| belongs(piece, kind)).map_or(&[], AsRef::as_ref))
    }

    fn consume(&mut self, amount: usize) {
        if let Some(piece) = &mut self.piece {
            piece.consume(amount);
        }
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

impl PartSource for &mut Feed<'_> {
    fn next_part(&mut self) -> io::Result<Option<Part>> {
        let kind = self.kind;
        if self.peek_io()?.is_none_or(|piece| !belongs(piece, kind)) {
            return Ok(None);
        }
        let Some(first) = self.piece.take() else { return Ok(None) };
        let goes_on = |piece: &Piece| piece.kind == kind;
        if !self.peek_io()?.is_some_and(goes_on) {
            return Ok(Some(Box::new(first)));
        }
        // seldom: with most values a part lies in one chunk
        let mut whole = first.as_ref().to_vec();
        while let Some(piece) = self.peek_io()?.filter(|piece| goes_on(piece)) {
            whole.extend_from_slice(piece.as_ref());
            self.piece = None;
        }
        Ok(Some(Box::new(whole)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::format::snapshot::{CHUNK_HEADER_BYTES, HEADER_BYTES, decode_chunk_header, seal_chunk};
    use crate::format::{Epoch, MachineTag};
    use crate::kv::{Kv, KvCommand};
    use crate::sim::SimDisk;
    use crate::snapshot::{Unpaced, write};

    #[test]
    fn a_state_that_cannot_be_decoded_ends_the_reading_ahead_of_it() {
        let mut kv = Kv::default();
        for n in 0..48u8 {
            kv.apply(&KvCommand::put("", [n], vec![n; 1 << 20])).unwrap();
        }
        let (store, lsn) = (StoreId::new(2), Lsn::new(8192));
        let machine = MachineTag { name: Kv::NAME.into(), version: Kv::VERSION };
        let header = SnapshotHeader { store, lsn, epoch: Epoch::new(4), wall_micros: 5, machine };
        let disk = SimDisk::new(1);
        write(&disk, &header, kv.clone(), &Table::default(), Help::None, &mut Unpaced).unwrap();
        let name = names::snapshot(lsn);
        let reads = |help| {
            let before = disk.op_count();
            let loaded = load::<Kv>(&disk, Some(store), lsn, help, &|_, _| {});
            (loaded.map(|loaded| (loaded.state, loaded.file_bytes)), disk.op_count() - before)
        };
        let (whole, all) = reads(Help::Threads);
        let (state, file_bytes) = whole.unwrap();
        assert_eq!(file_bytes, disk.read_file(&name).unwrap().len() as u64);
        assert_eq!(state.get("", [47]), kv.get("", [47]));
        // the first chunk's checksum holds, and the machine can make nothing of it
        let mut bytes = disk.read_file(&name).unwrap();
        let first = &mut bytes[HEADER_BYTES..];
        let found = decode_chunk_header(first).unwrap();
        let first = &mut first[..CHUNK_HEADER_BYTES + found.content_bytes as usize];
        first[CHUNK_HEADER_BYTES..].fill(0xff);
        seal_chunk(first, found.kind, 0, store, lsn).unwrap();
        disk.write_file(&name, &bytes);
        for help in [Help::None, Help::Threads] {
            let (loaded, some) = reads(help);
            let error = loaded.map(|_| ()).unwrap_err();
            assert!(error.is_corrupt() && error.to_string().contains("the state cannot be read"), "{error}");
            assert!(some < all, "{help:?}: {some} operations, and {all} for all of it");
        }
    }
}
