//! Writing a snapshot: the machine encodes it into chunks, which go to the device in large pieces and are read back.
//!
//! With threads the three go on at once: one encodes and seals, one writes, one reads back and checks what was written. Each
//! piece is durable once it has been written, so what is read back is what the device holds.

use super::Help;
use super::source::{Source, Written};
use super::strokes::Strokes;
use crate::error::{Error, Result, out_of_space};
use crate::format::bytes::put_varint;
use crate::format::manifest::SnapshotEntry;
use crate::format::snapshot::{
    CHUNK_HEADER_BYTES, ChunkKind, END_BYTES, HEADER_BYTES, SnapshotEnd, SnapshotHeader, seal_chunk,
};
use crate::format::{Lsn, StoreId, names};
use crate::machine::{PartWriter, StateMachine, bulk};
use crate::storage::{AlignedBuf, Storage, StorageFile, create_anew, write_all_at};
use crate::sync::{Arc, mpsc, thread};
use crate::txn::{Table, guarded};
use std::io::{self, Write};

/// How much content a chunk holds.
const CHUNK_BYTES: usize = 1 << 20;
/// What a buffer holds beside its piece: the chunk with which that is full, and headers.
const BESIDE_BYTES: usize = CHUNK_BYTES + (64 << 10);
/// How much is written at once where nobody else is to be waited for: some three chunks, as each write costs the device a tenth of a
/// millisecond, whatever it holds. With what a buffer holds beside it that is two large pages; in small ones a write takes half as long again.
const UNPACED_WRITE_BYTES: usize = (4 << 20) - BESIDE_BYTES;
/// The same where commits go on, for which it is broken up once more.
const PACED_WRITE_BYTES: usize = 1 << 20;
/// So many pieces are in memory: one being encoded, one being written, and one between the two. More are not in the processor's cache any
/// more when they are written.
const PIECES: usize = 3;

/// How fast a snapshot is to be written.
pub(crate) trait Pace {
    /// Whether others are to get at the device between pieces.
    fn is_gentle(&self) -> bool;
    /// Is called with the bytes encoded so far after each chunk, and may wait, or give the snapshot up.
    fn keep(&mut self, bytes: u64) -> Result<()>;
}

/// As fast as it goes.
pub(crate) struct Unpaced;

impl Pace for Unpaced {
    fn is_gentle(&self) -> bool {
        false
    }

    fn keep(&mut self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// Writes a snapshot. When it returns, the snapshot was verified and survives power loss, name included.
///
/// # Errors
/// [`Error::Full`] where there is no space, or I/O errors; nothing is left behind but a temporary file at worst.
pub(crate) fn write<M: StateMachine>(
    storage: &dyn Storage,
    header: &SnapshotHeader,
    state: M,
    table: &Table<M::Command>,
    help: Help,
    pace: &mut dyn Pace,
) -> Result<SnapshotEntry> {
    let name = names::snapshot(header.lsn);
    let temp = names::temp(&name);
    let written = write_temp(storage, &temp, header, state, table, help, pace).and_then(|entry| {
        storage.rename(&temp, &name).map_err(|e| failed(storage, &temp, "rename", e))?;
        storage.sync_dir().map_err(|e| Error::io("sync", storage.path(""), e))?;
        Ok(entry)
    });
    if written.is_err() {
        // best effort: a left-over is removed at the next open
        let _ = storage.remove(&temp);
    }
    written
}

fn failed(storage: &dyn Storage, temp: &str, operation: &'static str, e: io::Error) -> Error {
    if out_of_space(&e) {
        Error::Full { what: "a snapshot", source: Some(Arc::new(e)) }
    } else {
        Error::io(operation, storage.path(temp), e)
    }
}

/// Writes it under its temporary name, durable and read back.
fn write_temp<M: StateMachine>(
    storage: &dyn Storage,
    temp: &str,
    header: &SnapshotHeader,
    state: M,
    table: &Table<M::Command>,
    help: Help,
    pace: &mut dyn Pace,
) -> Result<SnapshotEntry> {
    let fail = |operation, e| failed(storage, temp, operation, e);
    let file = create_anew(storage, temp).map_err(|(operation, e)| fail(operation, e))?;
    let target = Target { file: &*file, block_bytes: storage.block_bytes() as usize, fail: &fail };
    let gentle = pace.is_gentle();
    let strokes = if gentle { Strokes::GENTLE } else { Strokes::WHOLE };
    let file_bytes = match help {
        Help::None => {
            let mut write = |bytes: &[u8], offset| target.write(bytes, offset);
            let mut pieces = Pieces::new(Out::Here(&mut write), gentle, &target)?;
            let file_bytes = encode(&mut pieces, header, state, table, pace, &fail)?;
            target.sync()?;
            verify(storage, temp, header, Written::whole(file_bytes))?;
            file_bytes
        }
        Help::Threads => thread::scope(|scope| {
            let (pieces_out, pieces_in) = mpsc::channel::<AlignedBuf>();
            let (spares_out, spares_in) = mpsc::channel::<AlignedBuf>();
            let (ends_out, ends_in) = mpsc::channel::<u64>();
            let target = &target;
            let writer = scope.spawn(move || write_all(target, strokes, &pieces_in, &spares_out, &ends_out));
            let verifier = scope.spawn(move || verify(storage, temp, header, Written::so_far(ends_in, strokes)));
            let out = Out::Ahead { pieces: pieces_out, spares: spares_in };
            let encoded = Pieces::new(out, gentle, target)
                .and_then(|mut pieces| encode(&mut pieces, header, state, table, pace, &fail));
            let written = writer.join().map_err(|_| Error::Poisoned)?;
            let verified = verifier.join().map_err(|_| Error::Poisoned)?;
            // each rests on the one before, whose error is the cause of its own
            written?;
            let file_bytes = encoded?;
            verified?;
            Ok::<u64, Error>(file_bytes)
        })?,
    };
    Ok(SnapshotEntry { lsn: header.lsn, file_bytes })
}

/// Encodes all of it. Returns the file's length.
fn encode<M: StateMachine>(
    pieces: &mut Pieces<'_>,
    header: &SnapshotHeader,
    state: M,
    table: &Table<M::Command>,
    pace: &mut dyn Pace,
    fail: &dyn Fn(&'static str, io::Error) -> Error,
) -> Result<u64> {
    let mut block = [0; HEADER_BYTES];
    header.encode(&mut block).ok_or_else(|| Error::invalid("the machine's name does not fit a snapshot"))?;
    pieces.buf.extend_from_slice(&block).map_err(|e| fail("write", e))?;
    let mut chunks = ChunkWriter::new(pieces, header.store, header.lsn, pace).map_err(|e| fail("write", e))?;
    let saved = contained(|| bulk::save_parts(state, &mut chunks)).and_then(|()| chunks.finish_kind());
    let saved = saved.and_then(|()| {
        chunks.kind = ChunkKind::Transactions;
        contained(|| write_table::<M>(table, &mut chunks))?;
        chunks.finish_kind()
    });
    let ended = saved.and_then(|()| chunks.finish());
    let paced = chunks.paced.take();
    match (ended, paced.or(pieces.failed.take())) {
        (_, Some(error)) => Err(error),
        (ended, None) => ended.map_err(|e| fail("write", e)),
    }
}

/// Runs the machine's code on a copy of the state: a panic in it fails this snapshot, and nothing else.
fn contained(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    guarded(write).unwrap_or_else(|_| Err(io::Error::other("the machine panicked while it was being saved")))
}

/// Reads the whole file back from the device, as it comes to be there, and checks every chunk.
fn verify(storage: &dyn Storage, name: &str, header: &SnapshotHeader, written: Written) -> Result<()> {
    let Source { header: found, mut chunks } = Source::of_written(storage, name, written)?;
    if found != *header {
        let reason = "the snapshot does not read back as written";
        return Err(Error::corrupt(storage.path(name), 0, Some(header.lsn), reason));
    }
    while chunks.pass_chunk()? {}
    chunks.check_len()
}

/// The file, and how its errors are told.
struct Target<'a> {
    file: &'a dyn StorageFile,
    block_bytes: usize,
    fail: &'a (dyn Fn(&'static str, io::Error) -> Error + Sync),
}

impl Target<'_> {
    /// How many of so many bytes are whole blocks.
    fn whole_blocks(&self, bytes: usize) -> usize {
        bytes.saturating_sub(bytes.checked_rem(self.block_bytes).unwrap_or(0))
    }

    /// Writes a piece. When it returns, its whole blocks survive power loss; the end of the last piece does after a sync.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let (whole, end) = bytes.split_at_checked(self.whole_blocks(bytes.len())).unwrap_or((bytes, &[]));
        if !whole.is_empty() {
            self.file.write_durable_at(whole, offset).map_err(|e| (self.fail)("write", e))?;
        }
        write_all_at(self.file, end, offset.saturating_add(whole.len() as u64)).map_err(|e| (self.fail)("write", e))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| (self.fail)("sync", e))
    }
}

/// Writes pieces as they come, and tells what is durable.
fn write_all(
    target: &Target<'_>,
    strokes: Strokes,
    pieces: &mpsc::Receiver<AlignedBuf>,
    spares: &mpsc::Sender<AlignedBuf>,
    durable: &mpsc::Sender<u64>,
) -> Result<()> {
    let mut offset = 0u64;
    while let Ok(piece) = pieces.recv() {
        strokes.write(&piece, |part, at| target.write(part, offset.saturating_add(at)))?;
        offset = offset.saturating_add(piece.len() as u64);
        if target.whole_blocks(piece.len()) == piece.len() {
            // whoever has gone has failed, and says so himself
            let _ = durable.send(offset);
        }
        let _ = spares.send(piece);
    }
    target.sync()?;
    let _ = durable.send(offset);
    Ok(())
}

/// Where pieces go.
enum Out<'a> {
    Here(&'a mut dyn FnMut(&[u8], u64) -> Result<()>),
    Ahead {
        pieces: mpsc::Sender<AlignedBuf>,
        /// Those that were written.
        spares: mpsc::Receiver<AlignedBuf>,
    },
}

/// The file's bytes from its first on, gathered into large pieces that begin and end on a block.
struct Pieces<'a> {
    out: Out<'a>,
    buf: AlignedBuf,
    /// Where in the file the buffer begins.
    offset: u64,
    piece_bytes: usize,
    target: &'a Target<'a>,
    /// How many more buffers may be made.
    more: usize,
    /// The error of the writer, which a stream's own cannot carry.
    failed: Option<Error>,
}

impl<'a> Pieces<'a> {
    fn new(out: Out<'a>, gentle: bool, target: &'a Target<'a>) -> Result<Self> {
        let piece_bytes = if gentle { PACED_WRITE_BYTES } else { UNPACED_WRITE_BYTES };
        let buf = Self::room(piece_bytes).map_err(|e| (target.fail)("write", e))?;
        Ok(Pieces { out, buf, offset: 0, piece_bytes, target, more: PIECES.saturating_sub(1), failed: None })
    }

    /// A buffer that need not grow.
    fn room(piece_bytes: usize) -> io::Result<AlignedBuf> {
        AlignedBuf::with_capacity(piece_bytes.saturating_add(BESIDE_BYTES))
    }

    /// Where in the file the next byte comes.
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.buf.len() as u64)
    }

    /// Hands the whole blocks over, if they are many; at the end of the file, everything.
    fn hand_over(&mut self, at_end: bool) -> io::Result<()> {
        if !at_end && self.buf.len() < self.piece_bytes {
            return Ok(());
        }
        let len = if at_end { self.buf.len() } else { self.target.whole_blocks(self.buf.len()) };
        let (piece, rest) = self.buf.split_at_checked(len).unwrap_or((&self.buf, &[]));
        let rest = rest.to_vec();
        match &mut self.out {
            Out::Here(write) => {
                if let Err(error) = write(piece, self.offset) {
                    self.failed = Some(error);
                    return Err(gone());
                }
                self.buf.clear();
            }
            Out::Ahead { pieces, spares } => {
                let mut next = match self.more.checked_sub(1) {
                    Some(more) => {
                        self.more = more;
                        Self::room(self.piece_bytes)?
                    }
                    // where the writer has gone, its error is the one that counts
                    None => spares.recv().map_err(|_| gone())?,
                };
                next.clear();
                let mut piece = std::mem::replace(&mut self.buf, next);
                piece.resize(len)?;
                pieces.send(piece).map_err(|_| gone())?;
            }
        }
        self.offset = self.offset.saturating_add(len as u64);
        self.buf.extend_from_slice(&rest)
    }
}

fn gone() -> io::Error {
    io::Error::other("the snapshot is not written any more")
}

/// Cuts a stream into checked chunks.
struct ChunkWriter<'a, 'b> {
    pieces: &'a mut Pieces<'b>,
    store: StoreId,
    lsn: Lsn,
    kind: ChunkKind,
    /// Where in the buffer the chunk begins.
    start: usize,
    index: u32,
    end: SnapshotEnd,
    checksums: crc32fast::Hasher,
    pace: &'a mut dyn Pace,
    /// The error of `pace`, which the stream's own error type cannot carry.
    paced: Option<Error>,
}

impl<'a, 'b> ChunkWriter<'a, 'b> {
    fn new(pieces: &'a mut Pieces<'b>, store: StoreId, lsn: Lsn, pace: &'a mut dyn Pace) -> io::Result<Self> {
        let (kind, checksums, end) = (ChunkKind::Part, crc32fast::Hasher::new(), SnapshotEnd::default());
        let mut chunks =
            ChunkWriter { pieces, store, lsn, kind, start: 0, index: 0, end, checksums, pace, paced: None };
        chunks.begin()?;
        Ok(chunks)
    }

    /// Leaves room for the next chunk's header.
    fn begin(&mut self) -> io::Result<()> {
        self.start = self.pieces.buf.len();
        self.pieces.buf.extend_from_slice(&[0; CHUNK_HEADER_BYTES])
    }

    fn content_bytes(&self) -> usize {
        self.pieces.buf.len().saturating_sub(self.start).saturating_sub(CHUNK_HEADER_BYTES)
    }

    fn finish_kind(&mut self) -> io::Result<()> {
        if self.content_bytes() > 0 { self.emit() } else { Ok(()) }
    }

    fn emit(&mut self) -> io::Result<()> {
        let content = self.content_bytes() as u64;
        match self.kind {
            ChunkKind::State | ChunkKind::Part => {
                self.end.state_bytes = self.end.state_bytes.saturating_add(content);
            }
            ChunkKind::Transactions => {
                self.end.transaction_bytes = self.end.transaction_bytes.saturating_add(content);
            }
            ChunkKind::End => {}
        }
        let chunk = self.pieces.buf.get_mut(self.start..).unwrap_or_default();
        let checksum = seal_chunk(chunk, self.kind, self.index, self.store, self.lsn)
            .ok_or_else(|| io::Error::other("the chunk is too long"))?;
        self.checksums.update(&checksum.to_le_bytes());
        self.index = self.index.checked_add(1).ok_or_else(|| io::Error::other("the snapshot has too many chunks"))?;
        if self.kind == ChunkKind::Part {
            self.kind = ChunkKind::State;
        }
        self.pieces.hand_over(self.kind == ChunkKind::End)?;
        if let Err(error) = self.pace.keep(self.pieces.end()) {
            self.paced = Some(error);
            return Err(io::Error::other("the checkpoint was given up"));
        }
        self.begin()
    }

    /// Writes the end chunk. Returns the file's length.
    fn finish(&mut self) -> io::Result<u64> {
        self.end.checksum = self.checksums.clone().finalize();
        let mut content = [0; END_BYTES];
        self.end.encode(&mut content).ok_or_else(|| io::Error::other("the end does not fit"))?;
        self.kind = ChunkKind::End;
        self.pieces.buf.extend_from_slice(&content)?;
        let file_bytes = self.pieces.end();
        self.emit()?;
        Ok(file_bytes)
    }
}

impl Write for ChunkWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES.saturating_sub(self.content_bytes());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.pieces.buf.extend_from_slice(taken)?;
        if self.content_bytes() >= CHUNK_BYTES {
            self.emit()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PartWriter for ChunkWriter<'_, '_> {
    fn end_part(&mut self) -> io::Result<()> {
        self.finish_kind()?;
        if self.kind == ChunkKind::State {
            self.kind = ChunkKind::Part;
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::format::snapshot::decode_chunk_header;
    use crate::format::{Epoch, MachineTag};
    use crate::kv::{Kv, KvCommand};
    use crate::sim::SimDisk;
    use crate::storage::OpenMode;

    /// Does something to the file once all of it has been written, and before it is read back.
    struct Written<'a>(&'a SimDisk, &'a str, &'a dyn Fn(&SimDisk, &str, u64));

    impl Pace for Written<'_> {
        fn is_gentle(&self) -> bool {
            false
        }

        fn keep(&mut self, bytes: u64) -> Result<()> {
            let Written(disk, temp, change) = self;
            if disk.read_file(temp).unwrap().len() as u64 == bytes {
                change(disk, temp, bytes);
            }
            Ok(())
        }
    }

    fn header(lsn: u64, epoch: u64) -> SnapshotHeader {
        let (store, lsn, epoch) = (StoreId::new(2), Lsn::new(lsn), Epoch::new(epoch));
        let machine = MachineTag { name: Kv::NAME.into(), version: Kv::VERSION };
        SnapshotHeader { store, lsn, epoch, wall_micros: 5, machine }
    }

    #[test]
    fn what_somebody_else_has_written_over_a_snapshot_meanwhile_keeps_it_from_its_name() {
        let mut kv = Kv::default();
        (0..100u8).for_each(|n| drop(kv.apply(&KvCommand::put("", [n], vec![n; 100])).unwrap()));
        let ours = header(8192, 4);
        let put_header = |disk: &SimDisk, temp: &str, header: SnapshotHeader| {
            let mut block = [0; HEADER_BYTES];
            header.encode(&mut block).unwrap();
            disk.overwrite(temp, 0, &block).unwrap();
        };
        let not_as_written = "the snapshot does not read back as written";
        type Change<'a> = &'a dyn Fn(&SimDisk, &str, u64);
        let cases: [(&str, Change<'_>, Option<&str>); 7] = [
            ("nothing", &|_, _, _| {}, None),
            ("another one's header", &|disk, temp, _| put_header(disk, temp, header(4096, 4)), Some(not_as_written)),
            // of which no chunk tells
            ("an older one's header", &|disk, temp, _| put_header(disk, temp, header(8192, 3)), Some(not_as_written)),
            ("a byte behind it", &|disk, temp, bytes| disk.overwrite(temp, bytes, &[0]).unwrap(), Some(not_as_written)),
            (
                "a block behind it",
                &|disk, temp, _| disk.overwrite(temp, 1 << 20, &[1; 512]).unwrap(),
                Some(not_as_written),
            ),
            (
                "its end is gone",
                &|disk, temp, bytes| disk.truncate_file(temp, bytes - 1).unwrap(),
                Some("the chunk is cut short"),
            ),
            (
                "all of it is gone",
                &|disk, temp, _| disk.truncate_file(temp, 0).unwrap(),
                Some("the header is cut short"),
            ),
        ];
        for (what, change, wanted) in cases {
            let disk = SimDisk::new(1);
            let (name, temp) = (names::snapshot(ours.lsn), names::temp(&names::snapshot(ours.lsn)));
            let mut pace = Written(&disk, &temp, change);
            let written = write(&disk, &ours, kv.clone(), &Table::default(), Help::None, &mut pace);
            match (written, wanted) {
                (Ok(entry), None) => {
                    let bytes = disk.read_file(&name).unwrap().len() as u64;
                    assert_eq!(entry, SnapshotEntry { lsn: ours.lsn, file_bytes: bytes });
                }
                (Err(Error::Corrupt { path, reason, .. }), Some(wanted)) => {
                    assert!(path.ends_with(&temp) && reason == wanted, "{what}: {reason}");
                    assert_eq!(disk.file_names(), Vec::<String>::new(), "{what}");
                }
                (other, _) => unreachable!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn no_byte_that_the_device_did_not_keep_is_passed_over() {
        let mut kv = Kv::default();
        (0..60u8).for_each(|n| drop(kv.apply(&KvCommand::put("", [n], vec![n; 100_000])).unwrap()));
        let ours = header(8192, 4);
        let temp = names::temp(&names::snapshot(ours.lsn));
        let mut at = 0;
        loop {
            let disk = SimDisk::new(1);
            let bytes_before = std::cell::Cell::new(0);
            let change = |disk: &SimDisk, temp: &str, bytes| {
                bytes_before.set(bytes);
                if let Some(byte) = disk.read_file(temp).unwrap().get(at) {
                    disk.overwrite(temp, at as u64, &[byte ^ 1]).unwrap();
                }
            };
            let mut pace = Written(&disk, &temp, &change);
            let written = write(&disk, &ours, kv.clone(), &Table::default(), Help::None, &mut pace);
            if at as u64 >= bytes_before.get() {
                assert!(bytes_before.get() > 6_000_000 && written.is_ok(), "{written:?}");
                break;
            }
            assert!(matches!(written, Err(Error::Corrupt { .. })), "byte {at}: {written:?}");
            assert_eq!(disk.file_names(), Vec::<String>::new(), "byte {at}");
            at += 199_999;
        }
    }

    #[test]
    fn an_empty_part_makes_no_chunk() {
        let disk = SimDisk::new(1);
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        let fail = |operation, e| failed(&disk, "f", operation, e);
        let target = Target { file: &*file, block_bytes: 4096, fail: &fail };
        let mut put = |bytes: &[u8], offset| target.write(bytes, offset);
        let mut pieces = Pieces::new(Out::Here(&mut put), false, &target).unwrap();
        let mut pace = Unpaced;
        let mut chunks = ChunkWriter::new(&mut pieces, StoreId::new(2), Lsn::new(8192), &mut pace).unwrap();
        chunks.end_part().unwrap();
        for part in [b"a".to_vec(), vec![b'b'; CHUNK_BYTES + 1], b"c".to_vec()] {
            chunks.write_all(&part).unwrap();
            chunks.end_part().unwrap();
            chunks.end_part().unwrap();
        }
        chunks.kind = ChunkKind::Transactions;
        chunks.write_all(b"t").unwrap();
        chunks.finish_kind().unwrap();
        let file_bytes = chunks.finish().unwrap();
        let bytes = disk.read_file("f").unwrap();
        assert_eq!(bytes.len() as u64, file_bytes);
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while let Some(header) = decode_chunk_header(rest) {
            let whole = CHUNK_HEADER_BYTES + header.content_bytes as usize;
            found.push((header.kind, rest[CHUNK_HEADER_BYTES], header.content_bytes as usize));
            rest = &rest[whole..];
        }
        let (part, state) = (ChunkKind::Part, ChunkKind::State);
        let mut wanted = vec![(part, b'a', 1), (part, b'b', CHUNK_BYTES), (state, b'b', 1), (part, b'c', 1)];
        wanted.extend([(ChunkKind::Transactions, b't', 1), (ChunkKind::End, found.last().unwrap().1, END_BYTES)]);
        assert_eq!((found, rest.len()), (wanted, 0));
    }
}
