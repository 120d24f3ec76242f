//! Writes a snapshot: the machine encodes it into chunks, which are written in large pieces and
//! read back.
//!
//! With threads, three steps overlap: one thread encodes and seals, one writes, and one reads back
//! and checks what was written. Each piece is durable once it was written, so the check reads what
//! the device holds.

use crate::error::{Error, Result};
use crate::format::bytes::put_varint;
use crate::format::manifest::SnapshotEntry;
use crate::format::snapshot::{
    CHUNK_HEADER_BYTES, ChunkKind, END_BYTES, HEADER_BYTES, SnapshotEnd, SnapshotHeader, seal_chunk,
};
use crate::ids::{Lsn, StoreId};
use crate::io::sync::{mpsc, thread};
use crate::io::threads::spawn_scoped;
use crate::io::{AlignedBuf, NamedFile, Storage};
use crate::machine::{PartWriter, StateMachine, bulk};
use crate::snapshot::chunk_reader::{Source, Written};
use crate::snapshot::help::Help;
use crate::snapshot::io_pacing::IoPacing;
use crate::store::layout as names;
use crate::txn::{ActiveTransactions, guarded};
use std::io::{self, Write};

/// The content of a chunk. It bounds what one flipped bit can spoil and what a reader decodes at
/// once.
const CHUNK_BYTES: usize = 1 << 20;
/// Room in a buffer beside its piece: for the chunk that fills the piece, and for headers.
const BESIDE_BYTES: usize = CHUNK_BYTES + (64 << 10);
/// The size of a write without pacing: about three chunks, because each write costs the device 0.1
/// ms whatever its size. Together with [`BESIDE_BYTES`] it fills two huge pages; in small pages a
/// write took 1.5 times as long.
const UNPACED_WRITE_BYTES: usize = (4 << 20) - BESIDE_BYTES;
/// The size of a write with pacing, which [`IoPacing`] splits further.
const PACED_WRITE_BYTES: usize = 1 << 20;
/// The number of buffers: one is encoded, one is written, one waits between the two. More would
/// leave the processor's cache before they are written.
const PIECES: usize = 3;

/// How fast a snapshot is written.
pub(crate) trait SnapshotThrottle {
    /// Whether others should get the device between pieces.
    fn is_paced(&self) -> bool;
    /// Receives the bytes encoded so far, after each chunk. It may wait. An error that it returns
    /// makes the snapshot fail.
    fn keep(&mut self, bytes: u64) -> Result<()>;
}

/// Writes as fast as possible.
pub(crate) struct Unpaced;

impl SnapshotThrottle for Unpaced {
    fn is_paced(&self) -> bool {
        false
    }

    fn keep(&mut self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// What a snapshot holds.
struct Content<'a, M: StateMachine> {
    header: &'a SnapshotHeader,
    state: M,
    table: &'a ActiveTransactions<M::Command>,
}

/// Writes a snapshot. When it returns `Ok`, the snapshot was verified and survives power loss, its
/// name included.
///
/// # Errors
/// [`Error::Full`] without space, [`Error::Corrupt`] where it does not read back as written, I/O
/// errors. At worst a temporary file remains, which the next open removes.
pub(crate) fn write<M: StateMachine>(
    storage: &dyn Storage,
    header: &SnapshotHeader,
    state: M,
    table: &ActiveTransactions<M::Command>,
    help: Help,
    pace: &mut dyn SnapshotThrottle,
) -> Result<SnapshotEntry> {
    let name = names::snapshot(header.lsn);
    let temp = names::temp(&name);
    let content = Content { header, state, table };
    let written = write_temp(storage, &temp, content, help, pace).and_then(|entry| {
        storage.rename_file(&temp, &name).map_err(full)?;
        storage.sync_names()?;
        Ok(entry)
    });
    if written.is_err() {
        // best effort: the next open removes what is left
        let _ = storage.remove(&temp);
    }
    written
}

fn full(error: Error) -> Error {
    error.full_if_out_of_space("a snapshot")
}

/// Writes the snapshot under its temporary name, makes it durable and reads it back.
fn write_temp<M: StateMachine>(
    storage: &dyn Storage,
    temp: &str,
    content: Content<'_, M>,
    help: Help,
    pace: &mut dyn SnapshotThrottle,
) -> Result<SnapshotEntry> {
    let file = NamedFile::create_anew(storage, temp).map_err(full)?;
    let (block_bytes, max_file_bytes) = (storage.block_bytes() as usize, storage.max_file_bytes());
    let target = Target { file: &file, block_bytes, max_file_bytes };
    let paced = pace.is_paced();
    let pacing = if paced { IoPacing::PACED } else { IoPacing::UNPACED };
    let header = content.header;
    // gives the content back where the system refuses a thread
    let mut with_threads = |content| {
        thread::scope(|scope| {
            let (pieces_out, pieces_in) = mpsc::channel::<AlignedBuf>();
            let (spares_out, spares_in) = mpsc::channel::<AlignedBuf>();
            let (ends_out, ends_in) = mpsc::channel::<u64>();
            let target = &target;
            // a thread that is refused drops its ends of the channels, and the other thread then
            // ends
            let verifier = spawn_scoped(scope, move || verify(storage, temp, header, Written::so_far(ends_in, pacing)));
            let Ok(verifier) = verifier else { return Err(content) };
            let writer = spawn_scoped(scope, move || write_all(target, pacing, &pieces_in, &spares_out, &ends_out));
            let Ok(writer) = writer else { return Err(content) };
            let out = Out::Ahead { pieces: pieces_out, spares: spares_in };
            let encoded = Pieces::new(out, paced, target).and_then(|mut pieces| encode(&mut pieces, content, pace));
            let written = writer.join().unwrap_or(Err(Error::Internal { what: "it wrote a snapshot" }));
            let verified = verifier.join().unwrap_or(Err(Error::Internal { what: "it verified a snapshot" }));
            // the error of an earlier step is the cause of those after it
            Ok(written.and(encoded).and_then(|file_bytes| verified.map(|()| file_bytes)))
        })
    };
    let written = match help {
        Help::None => Err(content),
        Help::Threads => with_threads(content),
    };
    let file_bytes = match written {
        Ok(file_bytes) => file_bytes?,
        Err(content) => {
            let mut write = |bytes: &[u8], offset| target.write(bytes, offset);
            let mut pieces = Pieces::new(Out::Here(&mut write), paced, &target)?;
            let file_bytes = encode(&mut pieces, content, pace)?;
            target.sync()?;
            verify(storage, temp, header, Written::whole(file_bytes))?;
            file_bytes
        }
    };
    Ok(SnapshotEntry { lsn: header.lsn, file_bytes })
}

/// Encodes the whole file. Returns its length in bytes.
fn encode<M: StateMachine>(
    pieces: &mut Pieces<'_>,
    content: Content<'_, M>,
    pace: &mut dyn SnapshotThrottle,
) -> Result<u64> {
    let Content { header, state, table } = content;
    let target = pieces.target;
    let mut block = [0; HEADER_BYTES];
    header.encode(&mut block).ok_or_else(|| Error::invalid("the machine's name does not fit a snapshot"))?;
    pieces.buf.extend_from_slice(&block).map_err(|e| target.failed(e))?;
    let mut chunks = ChunkWriter::new(pieces, header.store, header.lsn, pace).map_err(|e| target.failed(e))?;
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
        (ended, None) => ended.map_err(|e| target.failed(e)),
    }
}

/// Runs the machine's code on a copy of the state. A panic in it fails only this snapshot.
fn contained(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    guarded(write).unwrap_or_else(|_| Err(io::Error::other("the machine panicked while it was being saved")))
}

/// Reads the file back from the device while it is being written, and checks every chunk.
fn verify(storage: &dyn Storage, name: &str, header: &SnapshotHeader, written: Written) -> Result<()> {
    let Source { header: found, mut chunks } = Source::of_written(storage, name, written)?;
    if found != *header {
        let reason = "the snapshot does not read back as written";
        return Err(Error::corrupt(storage.path(name), 0, Some(header.lsn), reason));
    }
    while chunks.pass_chunk()? {}
    chunks.check_len()
}

/// The file that is written.
struct Target<'a> {
    file: &'a NamedFile,
    block_bytes: usize,
    max_file_bytes: u64,
}

impl Target<'_> {
    /// `bytes`, rounded down to whole blocks.
    fn whole_blocks(&self, bytes: usize) -> usize {
        bytes.saturating_sub(bytes.checked_rem(self.block_bytes).unwrap_or(0))
    }

    /// Writes a piece. When it returns, the whole blocks survive power loss. A partial block, at
    /// the end of the file, survives only after [`sync`](Self::sync).
    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if offset.saturating_add(bytes.len() as u64) > self.max_file_bytes {
            return Err(self.failed(io::ErrorKind::FileTooLarge.into()));
        }
        let (whole, end) = bytes.split_at_checked(self.whole_blocks(bytes.len())).unwrap_or((bytes, &[]));
        if !whole.is_empty() {
            self.file.write_durable_at(whole, offset).map_err(full)?;
        }
        self.file.write_all_at(end, offset.saturating_add(whole.len() as u64)).map_err(full)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(full)
    }

    /// The error of a stream that ends in this file.
    fn failed(&self, e: io::Error) -> Error {
        full(Error::io("write", self.file.path().to_owned(), e))
    }
}

/// Writes the pieces in order, and reports after each how much of the file is durable.
fn write_all(
    target: &Target<'_>,
    pacing: IoPacing,
    pieces: &mpsc::Receiver<AlignedBuf>,
    spares: &mpsc::Sender<AlignedBuf>,
    durable: &mpsc::Sender<u64>,
) -> Result<()> {
    let mut offset = 0u64;
    while let Ok(piece) = pieces.recv() {
        pacing.write(&piece, |part, at| target.write(part, offset.saturating_add(at)))?;
        offset = offset.saturating_add(piece.len() as u64);
        if target.whole_blocks(piece.len()) == piece.len() {
            // a verifier that is gone has failed, and returns its own error
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
        /// Buffers of pieces that were written.
        spares: mpsc::Receiver<AlignedBuf>,
    },
}

/// Buffers the file's bytes into large pieces. Each but the last begins and ends on a block
/// boundary.
struct Pieces<'a> {
    out: Out<'a>,
    buf: AlignedBuf,
    /// Where in the file the buffer begins.
    offset: u64,
    piece_bytes: usize,
    target: &'a Target<'a>,
    /// The number of buffers that may still be allocated.
    more: usize,
    /// The writer's error, which a stream's own error cannot carry.
    failed: Option<Error>,
}

impl<'a> Pieces<'a> {
    fn new(out: Out<'a>, paced: bool, target: &'a Target<'a>) -> Result<Self> {
        let piece_bytes = if paced { PACED_WRITE_BYTES } else { UNPACED_WRITE_BYTES };
        let buf = Self::room(piece_bytes).map_err(|e| target.failed(e))?;
        Ok(Pieces { out, buf, offset: 0, piece_bytes, target, more: PIECES.saturating_sub(1), failed: None })
    }

    /// A buffer that never has to grow.
    fn room(piece_bytes: usize) -> io::Result<AlignedBuf> {
        AlignedBuf::with_capacity(piece_bytes.saturating_add(BESIDE_BYTES))
    }

    /// The offset in the file of the next byte.
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.buf.len() as u64)
    }

    /// Hands over the whole blocks once they fill a piece, and everything at the end of the file.
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
                    // a writer that is gone has failed, and returns its own error
                    None => spares.recv().map_err(|_| gone())?,
                };
                next.clear();
                let mut piece = std::mem::replace(&mut self.buf, next);
                piece.resize(len)?;
                pieces.send(piece).map_err(|_| gone())?;
            }
        }
        debug_assert!(at_end || len > 0, "a piece that is handed over is not empty");
        debug_assert!(at_end || self.target.whole_blocks(len) == len, "a piece ends on a block boundary");
        self.offset = self.offset.saturating_add(len as u64);
        self.buf.extend_from_slice(&rest)
    }
}

fn gone() -> io::Error {
    io::Error::other("the snapshot's writer has failed")
}

/// Splits a stream into checked chunks.
struct ChunkWriter<'a, 'b> {
    pieces: &'a mut Pieces<'b>,
    store: StoreId,
    lsn: Lsn,
    kind: ChunkKind,
    /// Where in the buffer the current chunk begins.
    start: usize,
    index: u32,
    end: SnapshotEnd,
    checksums: crc32fast::Hasher,
    pace: &'a mut dyn SnapshotThrottle,
    /// The error of `pace`, which a stream's own error cannot carry.
    paced: Option<Error>,
}

impl<'a, 'b> ChunkWriter<'a, 'b> {
    fn new(
        pieces: &'a mut Pieces<'b>,
        store: StoreId,
        lsn: Lsn,
        pace: &'a mut dyn SnapshotThrottle,
    ) -> io::Result<Self> {
        let (kind, checksums, end) = (ChunkKind::Part, crc32fast::Hasher::new(), SnapshotEnd::default());
        let mut chunks =
            ChunkWriter { pieces, store, lsn, kind, start: 0, index: 0, end, checksums, pace, paced: None };
        chunks.begin()?;
        Ok(chunks)
    }

    /// Reserves room for the next chunk's header.
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
            return Err(io::Error::other("the checkpoint was canceled"));
        }
        self.begin()
    }

    /// Writes the end chunk. Returns the file's length in bytes.
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

    /// Ends a part of the state.
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

fn write_table<M: StateMachine>(table: &ActiveTransactions<M::Command>, out: &mut dyn Write) -> io::Result<()> {
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
    use crate::ids::{Epoch, MachineTag};
    use crate::io::OpenMode;
    use crate::kv::{Kv, KvCommand};
    use crate::sim::SimDisk;

    /// Does something to the file once all of it has been written, and before it is read back.
    struct Written<'a>(&'a SimDisk, &'a str, &'a dyn Fn(&SimDisk, &str, u64));

    impl SnapshotThrottle for Written<'_> {
        fn is_paced(&self) -> bool {
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
            // no chunk names the LSN of its snapshot
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
            let written = write(&disk, &ours, kv.clone(), &ActiveTransactions::default(), Help::None, &mut pace);
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
            let written = write(&disk, &ours, kv.clone(), &ActiveTransactions::default(), Help::None, &mut pace);
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
        let file = NamedFile::open(&disk, "f", OpenMode::CreateNew).unwrap();
        let target = Target { file: &file, block_bytes: 4096, max_file_bytes: u64::MAX };
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
