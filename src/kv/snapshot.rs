//! The encoding of a whole state.
//!
//! ```text
//! state = count:varint entry*          in ascending order of their composite keys
//! entry = shared:varint suffix:varint value:varint, then the bytes of the suffix, then those of the value
//! ```
//!
//! A composite key is the name of the table, a zero byte, and the key. `shared` is the length of
//! the prefix that it shares with the previous key; the suffix is the rest. Varints are those of
//! the commands. Equal states have equal bytes, whatever their history.
//!
//! The bytes are cut into parts. A part ends after the entry with which it reaches `PART_BYTES`.
//! The first entry of a part shares nothing, so each part can be decoded alone.
//!
//! Loading trusts nothing. It checks order, count, limits, table names and the end of the data,
//! never panics, and allocates no more than the input contains.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::codec::{ends_early, split_varint};
use super::command::{MAX_KEY_LEN, MAX_TABLE_LEN, MAX_VALUE_LEN};
use super::tree::{Builder, OutOfOrder, Run, Tree, common_prefix};
use crate::machine::{DecodeError, PartWriter, Parts};
use crate::varint::put_varint;
use std::io::{self, BufRead};
use std::ops::Bound;

/// The size of the write buffer. A longer value is written without being copied.
const BUFFER_BYTES: usize = 64 << 10;
/// A part ends when it has this number of bytes. It leaves room for one more entry in a chunk of a
/// snapshot, which has 1024 KiB.
pub(super) const PART_BYTES: usize = 1000 << 10;
const MAX_COMPOSITE_LEN: usize = MAX_KEY_LEN.saturating_add(1);

/// Appends an entry without its value. `previous` is the key before it, empty for the first entry
/// of a part.
#[inline]
pub(super) fn push_head(previous: &[u8], key: &[u8], value_len: usize, out: &mut Vec<u8>) {
    let shared = common_prefix(previous, key);
    let suffix = key.get(shared..).unwrap_or_default();
    if (shared | suffix.len() | value_len) < 0x80 {
        // mostly, all three numbers take one byte
        out.extend_from_slice(&[shared as u8, suffix.len() as u8, value_len as u8]);
    } else {
        put_varint(shared as u64, out);
        put_varint(suffix.len() as u64, out);
        put_varint(value_len as u64, out);
    }
    out.extend_from_slice(suffix);
}

/// Writes sorted entries.
pub(super) struct Saver<'a> {
    out: &'a mut dyn PartWriter,
    buffer: Vec<u8>,
    /// The last key of the part; empty before the first entry.
    previous: Vec<u8>,
    /// How many bytes of the part were written, without those in the buffer.
    part_bytes: usize,
    /// Whether the part is full. It ends only when another entry follows.
    is_full: bool,
}

impl<'a> Saver<'a> {
    /// Begins a state of `count` entries.
    pub(super) fn new(out: &'a mut dyn PartWriter, count: usize) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES.saturating_mul(2));
        put_varint(count as u64, &mut buffer);
        Saver { out, buffer, previous: Vec::new(), part_bytes: 0, is_full: false }
    }

    /// Writes the next entry.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.is_full {
            self.end_part()?;
        }
        push_head(&self.previous, key, value.len(), &mut self.buffer);
        self.previous.clear();
        self.previous.extend_from_slice(key);
        if value.len() >= BUFFER_BYTES {
            self.flush_buffer()?;
            self.part_bytes = self.part_bytes.saturating_add(value.len());
            self.out.write_all(value)?;
        } else {
            self.buffer.extend_from_slice(value);
        }
        self.is_full = self.part_bytes.saturating_add(self.buffer.len()) >= PART_BYTES;
        if self.buffer.len() >= BUFFER_BYTES { self.flush_buffer() } else { Ok(()) }
    }

    fn end_part(&mut self) -> io::Result<()> {
        self.flush_buffer()?;
        self.out.end_part()?;
        self.previous.clear();
        (self.part_bytes, self.is_full) = (0, false);
        Ok(())
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.part_bytes = self.part_bytes.saturating_add(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest of the buffer.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush_buffer()
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

/// Loads a state that takes all of `input`.
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
            // the entry does not fit into the buffer of the input
            loader.push_from(input)?;
            left = left.saturating_sub(1);
        }
    }
    if more(input)? {
        return Err(DecodeError::new("bytes follow the state"));
    }
    Ok(loader.builder.finish())
}

/// Loads a state from its parts, which are decoded in parallel.
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
    if tree.len() as u64 == count {
        Ok(tree)
    } else {
        Err(DecodeError::new("the number of entries is not the stated one"))
    }
}

/// The lengths at the start of an entry.
struct Head {
    shared: usize,
    suffix: usize,
    value: usize,
}

/// Splits the lengths of an entry off the front. Returns `None` if the bytes end within them.
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
    /// The length of the table name in `key`; `None` before the first entry.
    table_len: Option<usize>,
}

impl Loader {
    /// Checks the lengths of an entry against the limits.
    fn head(&self, shared: u64, suffix: u64, value: u64) -> Result<Head, DecodeError> {
        if shared > self.key.len() as u64 {
            return Err(DecodeError::new("an entry shares more bytes than the previous key has"));
        }
        if shared.saturating_add(suffix) > MAX_COMPOSITE_LEN as u64 {
            return Err(DecodeError::new("a key is too long"));
        }
        if value > MAX_VALUE_LEN as u64 {
            return Err(DecodeError::new("a value is too long"));
        }
        Ok(Head { shared: shared as usize, suffix: suffix as usize, value: value as usize })
    }

    /// Loads the entry at the front of the bytes. Returns the bytes after it, or `None` if they
    /// end within it.
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
                _ => return Err(DecodeError::new("a key has no valid table name")),
            }
        }
        self.builder.push(&self.key, value).map_err(|OutOfOrder| DecodeError::new("the keys do not ascend"))
    }

    /// Loads an entry that does not fit into the buffer of the input.
    fn push_from(&mut self, input: &mut dyn BufRead) -> Result<(), DecodeError> {
        let (shared, suffix, value) = (read_varint(input)?, read_varint(input)?, read_varint(input)?);
        let head = self.head(shared, suffix, value)?;
        let suffix = read_bytes(input, head.suffix)?;
        let value = read_bytes(input, head.value)?;
        self.push(head.shared, &suffix, &value)
    }
}

/// Whether the input has more bytes. If so, some are in its buffer.
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

/// Reads `len` bytes. It allocates memory only as they arrive.
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
