//! Shows a store's files as text: manifest copies, snapshots, segments, frames and records.
//!
//! After damage, reading continues in the next segment, so that everything readable is shown.

use super::attach;
use crate::count::Count;
use crate::error::{Error, Result};
use crate::format::frame::FrameKind;
use crate::format::manifest::Manifest;
use crate::format::record::Record;
use crate::ids::Lsn;
use crate::io::Storage;
use crate::io::sync::Arc;
use crate::kv::{Kv, KvCommand};
use crate::machine::StateMachine;
use crate::recovery::torn_tail;
use crate::store::layout as names;
use crate::store::manifest_file::read_each;
use crate::store::open_dir::StoreDir;
use crate::wal::scan::{Chunk, Scanner, Segment, records_of};
use std::io::{self, Write};

/// The level of detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// Files and frames.
    Frames,
    /// Files, frames, and records with their commands.
    Records,
}

/// The number of bytes of a command that are shown, which fit in a terminal line.
const BYTES_SHOWN: usize = 48;

/// Writes the content of a store's directory to `out`, for people. The store is not changed.
///
/// Returns the first damage found. Commands of the built-in machine are shown in words, those of
/// other machines as bytes.
///
/// # Errors
/// [`Error::NotAStore`]; [`Error::Locked`]; [`Error::UnsupportedVersion`]; I/O errors, also of `out`.
pub fn write_text(storage: Arc<dyn Storage>, detail: Detail, out: &mut dyn Write) -> Result<Option<Error>> {
    let store_dir = match attach(storage) {
        Err(error) if error.is_corrupt() => {
            let mut text = Text { out, detail, damage: None };
            text.damaged("", error)?;
            return Ok(text.damage);
        }
        other => other?,
    };
    let mut text = Text { out, detail, damage: None };
    text.root(&store_dir)?;
    text.snapshots(&store_dir)?;
    text.log(&store_dir)?;
    Ok(text.damage)
}

struct Text<'a> {
    out: &'a mut dyn Write,
    detail: Detail,
    /// The first damage found.
    damage: Option<Error>,
}

impl Text<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<()> {
        self.out.write_fmt(line).and_then(|()| self.out.write_all(b"\n")).map_err(output)
    }

    /// Writes an error that reports damage, and returns any other error.
    fn damaged(&mut self, indent: &str, error: Error) -> Result<()> {
        if !error.is_corrupt() {
            return Err(error);
        }
        self.line(format_args!("{indent}DAMAGE: {}", error.finding()))?;
        self.damage.get_or_insert(error);
        Ok(())
    }

    fn root(&mut self, store_dir: &StoreDir) -> Result<()> {
        let storage = &*store_dir.storage;
        let present = storage.list().map_err(|e| Error::io("list", storage.path(""), e))?;
        for (name, copy) in read_each(storage, &present)? {
            match copy {
                Ok(manifest) => {
                    let counts = store_dir.manifest.as_ref() == Some(&manifest);
                    self.manifest(name, &manifest, counts)?;
                }
                Err(error) => self.damaged("", error)?,
            }
        }
        for name in present.iter().filter(|name| store_dir.foreign.contains(name)) {
            self.line(format_args!("{name}: not a file of this store"))?;
        }
        for spare in &store_dir.preallocated {
            self.line(format_args!("{}: spare, {} bytes", spare.name, spare.file_bytes))?;
        }
        Ok(())
    }

    fn manifest(&mut self, name: &str, manifest: &Manifest, counts: bool) -> Result<()> {
        let Manifest { counter, store, epoch, log_start, watermark, clean_end, segment, origin, .. } = manifest;
        let machine = &manifest.machine;
        let counts = if counts { ", counts" } else { "" };
        self.line(format_args!("{name}: counter {counter}{counts}"))?;
        self.line(format_args!(
            "  store {store}, machine \"{}\" version {}, epoch {epoch}, block {}",
            machine.name, machine.version, manifest.block_bytes
        ))?;
        self.line(format_args!("  log start {log_start}, origin {origin}, watermark {watermark}, segment {segment}"))?;
        if *clean_end == Lsn::ZERO {
            self.line(format_args!("  not closed"))?;
        } else {
            self.line(format_args!("  closed at {clean_end}"))?;
        }
        for snapshot in &manifest.snapshots {
            self.line(format_args!("  snapshot at {}, {} bytes", snapshot.lsn, snapshot.file_bytes))?;
        }
        Ok(())
    }

    fn snapshots(&mut self, store_dir: &StoreDir) -> Result<()> {
        for lsn in &store_dir.snapshots {
            let name = names::snapshot(*lsn);
            match crate::snapshot::check(&*store_dir.storage, *lsn) {
                Ok((header, file_bytes)) => self.line(format_args!(
                    "{name}: snapshot at {lsn}, epoch {}, machine \"{}\" version {}, {file_bytes} bytes, whole",
                    header.epoch, header.machine.name, header.machine.version
                ))?,
                Err(error) => self.damaged("", error)?,
            }
        }
        Ok(())
    }

    fn log(&mut self, store_dir: &StoreDir) -> Result<()> {
        let needed = store_dir.manifest.as_ref().map_or(Lsn::ZERO, |m| m.log_start);
        let files = &store_dir.segments;
        let first = files.iter().rposition(|s| s.base <= needed).unwrap_or(0);
        for garbage in files.iter().take(first) {
            self.line(format_args!("{}: segment {}, not needed any more", garbage.name, garbage.id))?;
        }
        let mut at = first;
        while let Some(file) = files.get(at) {
            // after the log's start in the manifest, or where reading continues after damage
            let start = if at == first { needed.max(file.base) } else { file.base };
            let mut reached = at;
            let read = self.walk(store_dir, start, at, &mut reached);
            match read {
                Ok(()) => return Ok(()),
                Err(error) => self.damaged("  ", error)?,
            }
            at = reached.saturating_add(1);
        }
        Ok(())
    }

    /// Writes segments and frames from `start`, in the segment at `first`, to the end of the log.
    /// `reached` is set to the LSN that it reached.
    fn walk(&mut self, store_dir: &StoreDir, start: Lsn, first: usize, reached: &mut usize) -> Result<()> {
        if let Some(file) = store_dir.segments.get(first) {
            self.segment(&Segment::read(&*store_dir.storage, file)?)?;
        }
        // if the next segment's header is damaged, the end of this segment is unknown
        let mut scanner = Scanner::new(store_dir, start)?;
        let mut shown = first;
        while let Some(chunk) = scanner.next_chunk()? {
            while store_dir.segments.get(shown).is_some_and(|file| file.id < chunk.segment().id) {
                shown = shown.saturating_add(1);
                if let Some(file) = store_dir.segments.get(shown) {
                    self.segment(&Segment::read(&*store_dir.storage, file)?)?;
                }
            }
            *reached = shown;
            self.chunk(&chunk, &*store_dir.storage)?;
            scanner.reuse(chunk);
        }
        for at in shown.saturating_add(1)..store_dir.segments.len() {
            if let Some(file) = store_dir.segments.get(at) {
                self.segment(&Segment::read(&*store_dir.storage, file)?)?;
            }
        }
        let end = scanner.take_end()?;
        match torn_tail(store_dir, &end) {
            (true, _) => self.line(format_args!("end of the log at {}, closed there", end.end)),
            (false, None) => self.line(format_args!("end of the log at {}", end.end)),
            (false, Some(tail)) => self.line(format_args!(
                "end of the log at {}, torn: {} at offset {} of {}",
                end.end,
                tail.reason,
                tail.offset,
                tail.path.display()
            )),
        }
    }

    fn segment(&mut self, segment: &Segment) -> Result<()> {
        let header = &segment.header;
        self.line(format_args!(
            "{}: segment {}, epoch {}, base {}, {} bytes, predecessor ends at {}, watermark {}",
            segment.file.name,
            header.id,
            header.epoch,
            header.base,
            header.file_bytes,
            header.previous_end,
            header.watermark
        ))
    }

    fn chunk(&mut self, chunk: &Chunk, storage: &dyn Storage) -> Result<()> {
        let mut records = records_of(chunk).peekable();
        for frame in chunk.frames() {
            let header = &frame.header;
            let kind = match header.kind {
                FrameKind::Records => "frame",
                FrameKind::Watermark => "watermark frame",
            };
            self.line(format_args!(
                "  {kind} at {}, offset {}, {} bytes, {}, watermark {}",
                header.lsn,
                chunk.offset_of(header.lsn),
                frame.total_bytes,
                Count(u64::from(header.records), "record", "records"),
                header.watermark
            ))?;
            while let Some(record) = records.next_if(|r| r.as_ref().map_or_else(|e| e.0, |r| r.0) < frame.end()) {
                let (lsn, bytes) = record.map_err(|(lsn, reason)| {
                    Error::corrupt(storage.path(&chunk.segment().name), chunk.offset_of(lsn), Some(lsn), reason)
                })?;
                if self.detail == Detail::Records {
                    self.record(lsn, bytes, chunk)?;
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, lsn: Lsn, bytes: &[u8], chunk: &Chunk) -> Result<()> {
        let Some(record) = Record::decode(lsn, bytes) else {
            return self.line(format_args!("    {lsn} {}", counted_hex(bytes)));
        };
        match record {
            Record::Update { txn, command } => {
                self.line(format_args!("    {lsn} transaction {txn}: {}", describe(command, chunk)))
            }
            Record::Commit { txn, wall_micros } => {
                self.line(format_args!("    {lsn} transaction {txn}: commit, at {wall_micros} µs"))
            }
            Record::Abort { txn } => self.line(format_args!("    {lsn} transaction {txn}: abort")),
            Record::Clr { txn, undo_next: Some(next) } => {
                self.line(format_args!("    {lsn} transaction {txn}: undo the last, next is {next}"))
            }
            Record::Clr { txn, undo_next: None } => {
                self.line(format_args!("    {lsn} transaction {txn}: undo the last, none is left"))
            }
            Record::Execute { wall_micros, command } => {
                self.line(format_args!("    {lsn} execute: {}, at {wall_micros} µs", describe(command, chunk)))
            }
            Record::Point => self.line(format_args!("    {lsn} point for a digest")),
            Record::Digest { point, digest } => {
                self.line(format_args!("    {lsn} digest of the state at {point}: {digest:016x}"))
            }
        }
    }
}

fn output(e: io::Error) -> Error {
    Error::io("write", "the output".into(), e)
}

/// A command of the built-in machine in words, or another machine's command as bytes.
fn describe(bytes: &[u8], chunk: &Chunk) -> String {
    if &*chunk.machine_name == Kv::NAME
        && let Ok(Ok(command)) = crate::txn::guarded(|| Kv::decode(bytes, chunk.machine_version))
    {
        return describe_kv(&command);
    }
    counted_hex(bytes)
}

fn describe_kv(command: &KvCommand) -> String {
    let shown = |bytes: &[u8]| {
        let more = if bytes.len() > BYTES_SHOWN { "…" } else { "" };
        format!("\"{}\"{more}", bytes.get(..BYTES_SHOWN).unwrap_or(bytes).escape_ascii())
    };
    let maybe = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or("nothing".to_owned(), |bytes| shown(bytes));
    match command {
        KvCommand::Put { table, key, value } => format!("put {table:?} {} = {}", shown(key), shown(value)),
        KvCommand::Delete { table, key } => format!("delete {table:?} {}", shown(key)),
        KvCommand::CompareAndSet { table, key, expected, new } => {
            format!("compare and set {table:?} {}: {} to {}", shown(key), maybe(expected), maybe(new))
        }
        KvCommand::Batch(commands) => {
            let commands: Vec<String> = commands.iter().map(describe_kv).collect();
            format!("batch [{}]", commands.join("; "))
        }
    }
}

fn counted_hex(bytes: &[u8]) -> String {
    format!("{}: {}", Count(bytes.len() as u64, "byte", "bytes"), hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let mut text: String = bytes.iter().take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > BYTES_SHOWN {
        text.push('…');
    }
    text
}
