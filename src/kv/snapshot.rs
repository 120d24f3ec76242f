//! The bytes of a whole state.
//!
//! ```text
//! state = count:varint entry*          in ascending order of their composite keys
//! entry = shared:varint suffix:varint value:varint, so many bytes of suffix, so many of value
//! ```
//!
//! A composite key is the table's name, a zero byte, and the key. `shared` is how much of it equals the start of the
//! one before; the suffix is the rest. Varints are those of the commands. Equal states have equal
//! bytes, whatever their history.
//!
//! The bytes are cut into parts: one ends behind the entry with which it comes to `PART_BYTES` or more, and the next one's
//! first entry shares nothing, so that each can be decoded by itself.
//!
//! Loading believes nothing: it checks order, count, limits, table names and the end of the data, never panics, and
//! holds no more than its input backs.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::codec::{ends_early, put_varint, split_varint};
use super::command::{MAX_KEY_LEN, MAX_TABLE_LEN, MAX_VALUE_LEN};
use super::tree::{Builder, OutOfOrder, Run, Tree};
use crate::machine::{DecodeError, PartWriter, Parts};
use std::io::{self, BufRead};
use std::ops::Bound;

/// Writes are gathered up to this size.
const PIECE_BYTES: usize = 64 << 10;
/// A part ends once it has so many bytes: with most entries it still fits one chunk of a snapshot.
pub(super) const PART_BYTES: usize = 1000 << 10;
const MAX_COMPOSITE_LEN: usize = MAX_KEY_LEN.saturating_add(1);

/// Appends an entry, all but its value, which follows the one of `previous`. The first of a part follows no key.
#[inline]
pub(super) fn push_head(previous: &[u8], key: &[u8], value_len: usize, out: &mut Vec<u8>) {
    let shared = common_prefix(previous, key);
    let suffix = key.get(shared..).unwrap_or_default();
    if (shared | suffix.len() | value_len) < 0x80 {
        // three numbers of one byte each, as they mostly are
        out.extend_from_slice(&[shared as u8, suffix.len() as u8, value_len as u8]);
    } else {
        put_varint(shared as u64, out);
        put_varint(suffix.len() as u64, out);
        put_varint(value_len as u64, out);
    }
    out.extend_from_slice(suffix);
}

/// Writes entries that come in order.
pub(super) struct Saver<'a> {
    out: &'a mut dyn PartWriter,
    piece: Vec<u8>,
    /// The key of the last entry of the part; empty before the first.
    previous: Vec<u8>,
    /// What has been written of the part, the piece aside.
    part_bytes: usize,
    /// Whether a part has ended, which is said only once another entry follows.
    ended: bool,
}

impl<'a> Saver<'a> {
    /// Begins a state of `count` entries.
    pub(super) fn new(out: &'a mut dyn PartWriter, count: usize) -> Self {
        let mut piece = Vec::with_capacity(PIECE_BYTES.saturating_mul(2));
        put_varint(count as u64, &mut piece);
        Saver { out, piece, previous: Vec::new(), part_bytes: 0, ended: false }
    }

    /// Writes the next entry.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.ended {
            self.end_part()?;
        }
        push_head(&self.previous, key, value.len(), &mut self.piece);
        self.previous.clear();
        self.previous.extend_from_slice(key);
        if value.len() >= PIECE_BYTES {
            self.write_piece()?;
            self.part_bytes = self.part_bytes.saturating_add(value.len());
            self.out.write_all(value)?;
        } else {
            self.piece.extend_from_slice(value);
        }
        self.ended = self.part_bytes.saturating_add(self.piece.len()) >= PART_BYTES;
        if self.piece.len() >= PIECE_BYTES { self.write_piece() } else { Ok(()) }
    }

    fn end_part(&mut self) -> io::Result<()> {
        self.write_piece()?;
        self.out.end_part()?;
        self.previous.clear();
        (self.part_bytes, self.ended) = (0, false);
        Ok(())
    }

    fn write_piece(&mut self) -> io::Result<()> {
        self.out.write_all(&self.piece)?;
        self.part_bytes = self.part_bytes.saturating_add(self.piece.len());
        self.piece.clear();
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write_piece()
    }
}

/// Writes a whole state.
pub(super) fn save(tree: &Tree, out: &mut dyn PartWriter) -> io::Result<()> {
    let mut saver = Saver::new(out, tree.len());
    for (key, value) in tree.range((Bound::Unbounded, Bound::Unbounded)) {
        saver.push(key, value)?;
    }
    saver.finish()
}

/// How many bytes two keys begin with alike.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Reads a state that takes all of `input`.
pub(super) fn load(input: &mut dyn BufRead) -> Result<Tree, DecodeError> {
    let mut left = read_varint(input)?;
    let mut loader = Loader::default();
    while left > 0 {
        if !more(input)? {
            return Err(ends_early());
        }
        let bytes = input.fill_buf()?;
        let mut rest = bytes;
        while left > 0
            && let Some(behind) = loader.push_next(rest)?
        {
            rest = behind;
            left = left.saturating_sub(1);
        }
        let used = bytes.len().saturating_sub(rest.len());
        input.consume(used);
        if used == 0 {
            // The entry does not lie within the input's buffer as a whole.
            loader.push_from(input)?;
            left = left.saturating_sub(1);
        }
    }
    if more(input)? {
        return Err(DecodeError::new("bytes follow the state"));
    }
    Ok(loader.builder.finish())
}

/// Reads a state that takes all of its parts, each decoded by itself.
pub(super) fn load_parts(parts: Parts<'_>) -> Result<Tree, DecodeError> {
    let decoded = parts.decode(|number, mut bytes| {
        let mut count = None;
        if number == 0 {
            let (stated, behind) = split_varint(bytes)?.ok_or_else(ends_early)?;
            (count, bytes) = (Some(stated), behind);
        }
        let mut loader = Loader::default();
        while !bytes.is_empty() {
            bytes = loader.push_next(bytes)?.ok_or_else(ends_early)?;
        }
        Ok((count, loader.builder.finish_run()))
    })?;
    let count = decoded.first().and_then(|(count, _)| *count).ok_or_else(ends_early)?;
    let runs = decoded.into_iter().map(|(_, run): (_, Run)| run);
    let tree = Tree::from_runs(runs).map_err(|OutOfOrder| DecodeError::new("the keys do not ascend"))?;
    if tree.len() as u64 == count { Ok(tree) } else { Err(DecodeError::new("the entries are not as many as stated")) }
}

/// The lengths that an entry starts with.
struct Head {
    shared: usize,
    suffix: usize,
    value: usize,
}

/// Reads an entry's lengths; nothing if the bytes end within them.
fn split_head<'a>(bytes: &'a [u8], loader: &Loader) -> Result<Option<(Head, &'a [u8])>, DecodeError> {
    let Some((shared, rest)) = split_varint(bytes)? else { return Ok(None) };
    let Some((suffix, rest)) = split_varint(rest)? else { return Ok(None) };
    let Some((value, rest)) = split_varint(rest)? else { return Ok(None) };
    Ok(Some((loader.head(shared, suffix, value)?, rest)))
}

#[derive(Default)]
struct Loader {
    builder: Builder,
    key: Vec<u8>,
    /// How long the table's name in `key` is; nothing before the first entry.
    table_len: Option<usize>,
}

impl Loader {
    /// Checks an entry's lengths against the limits.
    fn head(&self, shared: u64, suffix: u64, value: u64) -> Result<Head, DecodeError> {
        if shared > self.key.len() as u64 {
            return Err(DecodeError::new("an entry shares more than the key before it has"));
        }
        if shared.saturating_add(suffix) > MAX_COMPOSITE_LEN as u64 {
            return Err(DecodeError::new("a key is too long"));
        }
        if value > MAX_VALUE_LEN as u64 {
            return Err(DecodeError::new("a value is too long"));
        }
        Ok(Head { shared: shared as usize, suffix: suffix as usize, value: value as usize })
    }

    /// Takes in the entry that the bytes start with, and returns what follows it; nothing if they end within it.
    #[inline]
    fn push_next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, DecodeError> {
        if let Some((head, behind)) = split_head(bytes, self)?
            && let Some((suffix, behind)) = behind.split_at_checked(head.suffix)
            && let Some((value, behind)) = behind.split_at_checked(head.value)
        {
            self.push(head.shared, suffix, value)?;
            return Ok(Some(behind));
        }
        Ok(None)
    }

    fn push(&mut self, shared: usize, suffix: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        if self.table_len.is_none_or(|len| shared <= len) {
            let name = self.key.iter().position(|&b| b == 0).and_then(|len| self.key.get(..len));
            match name {
                Some(name) if name.len() <= MAX_TABLE_LEN && std::str::from_utf8(name).is_ok() => {
                    self.table_len = Some(name.len());
                }
                _ => return Err(DecodeError::new("a key has no valid table")),
            }
        }
        self.builder.push(&self.key, value).map_err(|OutOfOrder| DecodeError::new("the keys do not ascend"))
    }

    /// Reads an entry piece by piece.
    fn push_from(&mut self, input: &mut dyn BufRead) -> Result<(), DecodeError> {
        let (shared, suffix, value) = (read_varint(input)?, read_varint(input)?, read_varint(input)?);
        let head = self.head(shared, suffix, value)?;
        let suffix = read_bytes(input, head.suffix)?;
        let value = read_bytes(input, head.value)?;
        self.push(head.shared, &suffix, &value)
    }
}

/// Whether the input has more bytes. Its buffer holds some then.
fn more(input: &mut dyn BufRead) -> Result<bool, DecodeError> {
    loop {
        match input.fill_buf() {
            Ok(bytes) => return Ok(!bytes.is_empty()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn read_varint(input: &mut dyn BufRead) -> Result<u64, DecodeError> {
    let mut bytes = Vec::with_capacity(10);
    loop {
        let byte = read_bytes(input, 1)?;
        bytes.extend(byte);
        if let Some((n, _)) = split_varint(&bytes)? {
            return Ok(n);
        }
    }
}

/// Reads `len` bytes, taking memory only as they come.
fn read_bytes(input: &mut dyn BufRead, len: usize) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        if !more(input)? {
            return Err(ends_early());
        }
        let buffer = input.fill_buf()?;
        let wanted = len.saturating_sub(bytes.len()).min(buffer.len());
        bytes.extend_from_slice(buffer.get(..wanted).unwrap_or_default());
        input.consume(wanted);
    }
    Ok(bytes)
}
