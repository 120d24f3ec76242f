//! Loads a snapshot: threads read and check its chunks ahead, while the machine decodes them.

use crate::error::{Error, Result};
use crate::format::bytes::Take;
use crate::format::snapshot::{ChunkKind, SnapshotHeader};
use crate::ids::{Lsn, StoreId, TxnId};
use crate::io::Storage;
use crate::io::parallel::max_threads;
use crate::io::read_ahead::hold_readers;
use crate::io::sync::{Mutex, mpsc};
use crate::machine::parts::{Part, PartSource, read_buffered};
use crate::machine::{DecodeError, Parts, StateMachine, bulk};
use crate::snapshot::chunk_reader::{Chunks, Piece, Source};
use crate::snapshot::help::Help;
use crate::store::layout as names;
use crate::txn::{ActiveTransactions, UndoEntry, UndoList, guarded};
use std::io::{self, BufRead, Read};
use std::time::Duration;

/// The number of checked chunks that may wait for the machine. It bounds them to 8 MiB as written.
const CHUNKS_AHEAD: usize = 8;

/// What a snapshot file held.
pub(crate) struct Loaded<M: StateMachine> {
    pub(crate) header: SnapshotHeader,
    pub(crate) state: M,
    pub(crate) table: ActiveTransactions<M::Command>,
    pub(crate) file_bytes: u64,
}

/// Receives the bytes read so far and the bytes of the whole file. An error that it returns ends
/// the load.
pub(crate) type Report<'a> = &'a (dyn Fn(u64, u64) -> Result<()> + Sync);

/// Reads and checks a snapshot. `store` is the store that it must belong to, where that is known.
///
/// With threads it holds about 32 MiB beside the state, and the parts that are being decoded.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::UnsupportedVersion`], I/O errors; [`Error::Poisoned`] where the machine
/// panics.
pub(crate) fn load<M: StateMachine>(
    storage: &dyn Storage,
    store: Option<StoreId>,
    lsn: Lsn,
    help: Help,
    progress: Report<'_>,
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
        // the caller has checked the store itself, so this file does not belong to it
        return Err(damage(0, format!("the snapshot belongs to \"{}\", not to \"{}\"", header.machine.name, M::NAME)));
    }
    let version = header.machine.version;
    if !M::supports(version) {
        let (path, what) = (storage.path(&name), M::NAME.into());
        return Err(Error::UnsupportedVersion { path, what, found: version, supported: M::VERSION });
    }
    let file_bytes = chunks.file_bytes();
    // the checksums of the chunks hold
    let unreadable = |offset, reason: String| Error::Unreadable {
        path: storage.path(&name),
        offset,
        lsn,
        machine: M::NAME,
        version,
        current: M::VERSION,
        reason: reason.into(),
    };
    let errors = Errors { damage: &damage, unreadable: &unreadable };
    let decode = |pull: Pull<'_>, decoders| {
        let mut feed =
            Feed { pull, piece: None, kind: ChunkKind::State, failed: None, offset: 0, file_bytes, progress };
        let state = load_state::<M>(&mut feed, version, decoders, &errors)?;
        let table = load_table::<M>(&mut feed, version, &errors)?;
        Ok((state, table))
    };
    let (state, table) = match help {
        Help::None => decode(Pull::Here(&mut chunks), 1)?,
        Help::Threads => {
            let chunks = Mutex::new(Some(chunks));
            match read_ahead(&chunks, |pieces| decode(Pull::Ahead(pieces), max_threads()))? {
                Some(decoded) => decoded,
                // the system refuses threads
                None => {
                    let mut unread = chunks.lock().take().ok_or(Error::Internal { what: "it read ahead" })?;
                    decode(Pull::Here(&mut unread), 1)?
                }
            }
        }
    };
    Ok(Loaded { header, state, table, file_bytes })
}

/// Loads the first `most_bytes` of a snapshot of this machine's version, to measure how long that
/// takes. Returns the time and the bytes. `None` where nothing could be read.
///
/// The machine finds its state cut short, or takes it for a smaller one. What it answers is
/// dropped.
pub(crate) fn rehearse<M: StateMachine>(storage: &dyn Storage, lsn: Lsn, most_bytes: u64) -> Option<(Duration, u64)> {
    let name = names::snapshot(lsn);
    let began = storage.monotonic();
    let Source { mut chunks, .. } = Source::open(storage, &name).ok()?;
    let file_bytes = most_bytes.min(chunks.file_bytes());
    chunks.stop_after(file_bytes);
    let unread = |_, _| Error::Internal { what: "it rehearsed the load of a snapshot" };
    let errors = Errors { damage: &unread, unreadable: &unread };
    let measured = read_ahead(&Mutex::new(Some(chunks)), |pieces| {
        let pull = Pull::Ahead(pieces);
        let progress = &|_, _| Ok(());
        let mut feed =
            Feed { pull, piece: None, kind: ChunkKind::State, failed: None, offset: 0, file_bytes, progress };
        let _state = load_state::<M>(&mut feed, M::VERSION, max_threads(), &errors);
        Ok((storage.monotonic().saturating_sub(began), feed.offset))
    });
    measured.ok().flatten().filter(|(_, bytes)| *bytes > 0)
}

/// Runs `decode` while one thread reads the chunks and one checks them. Returns `None` if the
/// system refuses the threads; then the chunks are still there, and unread.
fn read_ahead<R>(
    chunks: &Mutex<Option<Chunks>>,
    decode: impl FnOnce(mpsc::Receiver<Result<Piece>>) -> Result<R>,
) -> Result<Option<R>> {
    let unread = Error::Internal { what: "it read ahead" };
    let fetcher = chunks.lock().as_mut().map(Chunks::start_ahead).ok_or(unread)?;
    let (out, pieces) = mpsc::sync_channel(CHUNKS_AHEAD);
    let read = move || {
        // this thread drops them, which ends the fetcher
        let Some(mut chunks) = chunks.lock().take() else { return };
        while let Some(piece) = chunks.next_chunk().transpose() {
            let last = piece.is_err();
            // a receiver that is gone has failed, and its own error is returned
            if out.send(piece).is_err() || last {
                break;
            }
        }
    };
    hold_readers(fetcher, read, || decode(pieces))?.transpose()
}

/// The errors for a place of a snapshot: the file is damaged, or the machine cannot decode what is
/// whole.
struct Errors<'a> {
    damage: &'a dyn Fn(u64, String) -> Error,
    unreadable: &'a dyn Fn(u64, String) -> Error,
}

fn load_state<M: StateMachine>(feed: &mut Feed<'_>, version: u32, decoders: usize, errors: &Errors<'_>) -> Result<M> {
    let in_parts = feed.peek()?.is_some_and(|piece| piece.kind == ChunkKind::Part);
    // a panic of the machine becomes `Poisoned`, also on a thread
    let state = guarded(|| match in_parts {
        true => bulk::load_parts::<M>(Parts::new(&mut *feed, decoders), version),
        false => M::load(&mut *feed, version),
    })?;
    let at_end = feed.fill_buf().map(<[u8]>::is_empty);
    match (feed.failed.take(), state, at_end) {
        (Some(error), _, _) => Err(error),
        (None, Err(e), _) => Err((errors.unreadable)(feed.offset, format!("the state cannot be decoded: {e}"))),
        (None, Ok(_), Ok(false)) => Err((errors.unreadable)(feed.offset, "bytes are left after the state".into())),
        (None, Ok(_), Err(e)) => Err((errors.damage)(feed.offset, e.to_string())),
        (None, Ok(state), Ok(true)) => Ok(state),
    }
}

/// Reads the open transactions, and then the end of the file, which must follow them.
fn load_table<M: StateMachine>(
    feed: &mut Feed<'_>,
    version: u32,
    errors: &Errors<'_>,
) -> Result<ActiveTransactions<M::Command>> {
    feed.kind = ChunkKind::Transactions;
    let mut bytes = Vec::new();
    let read = feed.read_to_end(&mut bytes);
    if let Some(error) = feed.failed.take() {
        return Err(error);
    }
    read.map_err(|e| (errors.damage)(0, e.to_string()))?;
    guarded(|| read_table::<M>(&bytes, version))?.map_err(|fault| match fault {
        TableFault::Malformed(reason) => {
            (errors.damage)(feed.offset, format!("the open transactions cannot be read: {reason}"))
        }
        TableFault::Unreadable(e) => {
            (errors.unreadable)(feed.offset, format!("a command of an open transaction cannot be decoded: {e}"))
        }
    })
}

/// Checks a whole snapshot file without its machine. Returns its header and its length in bytes.
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

/// Why a table of open transactions cannot be read.
enum TableFault {
    Malformed(&'static str),
    /// The machine cannot decode an inverse.
    Unreadable(DecodeError),
}

fn read_table<M: StateMachine>(bytes: &[u8], version: u32) -> Result<ActiveTransactions<M::Command>, TableFault> {
    let short = || TableFault::Malformed("they are cut short");
    let mut take = Take(bytes);
    let mut table = ActiveTransactions::default();
    for _ in 0..take.varint().ok_or_else(short)? {
        let id = TxnId::new(take.varint().ok_or_else(short)?);
        let mut undo = UndoList::default();
        let mut before = id.first_lsn();
        for _ in 0..take.varint().ok_or_else(short)? {
            let lsn = before.plus(take.varint().ok_or_else(short)?);
            before = lsn;
            let len = take.varint().and_then(|len| usize::try_from(len).ok()).ok_or_else(short)?;
            let inverse = M::decode(take.bytes(len).ok_or_else(short)?, version).map_err(TableFault::Unreadable)?;
            undo.push(UndoEntry { lsn, inverse, bytes: len as u64 });
        }
        table.insert(id, undo);
    }
    if take.0.is_empty() { Ok(table) } else { Err(TableFault::Malformed("bytes are left after them")) }
}

/// Where chunks come from.
enum Pull<'a> {
    Here(&'a mut Chunks),
    Ahead(mpsc::Receiver<Result<Piece>>),
}

/// The content of the chunks of one kind, as a stream or in parts.
struct Feed<'a> {
    pull: Pull<'a>,
    /// The current chunk. One of the next kind stays here for the stream of that kind.
    piece: Option<Piece>,
    kind: ChunkKind,
    /// The error that a stream's own error cannot carry, with file and offset.
    failed: Option<Error>,
    /// Where in the file the current chunk ends.
    offset: u64,
    file_bytes: u64,
    progress: Report<'a>,
}

impl Feed<'_> {
    /// The current chunk, or the next one if nothing of it is left. `None` at the end of the file.
    fn peek(&mut self) -> Result<Option<&Piece>> {
        while self.piece.as_ref().is_none_or(|piece| piece.as_ref().is_empty()) {
            (self.progress)(self.offset, self.file_bytes)?;
            self.piece = match &mut self.pull {
                Pull::Here(chunks) => chunks.next_chunk()?,
                // a reader that ended without an error has reached the end
                Pull::Ahead(pieces) => pieces.recv().ok().transpose()?,
            };
            let Some(piece) = &self.piece else { return Ok(None) };
            debug_assert!(piece.end_offset > self.offset, "the chunks come in order");
            self.offset = piece.end_offset;
        }
        Ok(self.piece.as_ref())
    }

    /// [`peek`](Self::peek) for a stream, whose errors cannot carry ours.
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
        // rare: a part spans chunks only if it holds a large value
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
    use crate::ids::{Epoch, MachineTag};
    use crate::kv::{Kv, KvCommand};
    use crate::sim::SimDisk;
    use crate::snapshot::write::{Unpaced, write};

    #[test]
    fn a_state_that_cannot_be_decoded_ends_the_read_ahead() {
        let mut kv = Kv::default();
        for n in 0..48u8 {
            kv.apply(&KvCommand::put("", [n], vec![n; 1 << 20])).unwrap();
        }
        let (store, lsn) = (StoreId::new(2), Lsn::new(8192));
        let machine = MachineTag { name: Kv::NAME.into(), version: Kv::VERSION };
        let header = SnapshotHeader { store, lsn, epoch: Epoch::new(4), wall_micros: 5, machine };
        let disk = SimDisk::new(1);
        write(&disk, &header, kv.clone(), &ActiveTransactions::default(), Help::None, &mut Unpaced).unwrap();
        let name = names::snapshot(lsn);
        let reads = |help| {
            let before = disk.op_count();
            let loaded = load::<Kv>(&disk, Some(store), lsn, help, &|_, _| Ok(()));
            (loaded.map(|loaded| (loaded.state, loaded.file_bytes)), disk.op_count() - before)
        };
        let (whole, all) = reads(Help::Threads);
        let (state, file_bytes) = whole.unwrap();
        assert_eq!(file_bytes, disk.read_file(&name).unwrap().len() as u64);
        assert_eq!(state.get("", [47]), kv.get("", [47]));
        // the first chunk's checksum holds, and the machine cannot decode its content
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
            assert!(error.is_unreadable() && error.to_string().contains("the state cannot be decoded"), "{error}");
            assert!(some < all, "{help:?}: {some} operations, and {all} for all of it");
        }
    }
}
