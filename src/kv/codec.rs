//! The encoding of commands.
//!
//! ```text
//! length     = varint (LEB128, little-endian groups of seven bits, the shortest form only, at most ten bytes)
//! bytes      = length, then that many bytes
//! table      = bytes (UTF-8)
//! command    = 0x01 table key:bytes value:bytes                           Put
//!            | 0x02 table key:bytes                                       Delete
//!            | 0x03 table key:bytes flags [expected:bytes] [new:bytes]    CompareAndSet
//!            | 0x04 count:length command*                                 Batch
//! flags      = one byte: bit 0, `expected` follows; bit 1, `new` follows; the others are zero
//! ```
//!
//! Every command has exactly one encoding. Decoding never panics, allocates no more than a small
//! multiple of its input, and rejects trailing bytes. It does not know which commands the machine
//! rejects.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::command::{KvCommand, MAX_BATCH_DEPTH};
use crate::machine::DecodeError;
use crate::varint::{self, put_varint, varint_len};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPARE_AND_SET: u8 = 3;
const BATCH: u8 = 4;

const HAS_EXPECTED: u8 = 1;
const HAS_NEW: u8 = 2;

/// Splits a number off the front. Returns it and the bytes after it, or `None` if the bytes end
/// within it.
#[inline]
pub(super) fn split_varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, DecodeError> {
    varint::split_varint(bytes).map_err(|_| DecodeError::new("a number is too long or not in its shortest form"))
}

/// Appends a command.
pub(super) fn encode(command: &KvCommand, out: &mut Vec<u8>) {
    let start = |tag, table: &str, key: &[u8], out: &mut Vec<u8>| {
        out.push(tag);
        put_bytes(table.as_bytes(), out);
        put_bytes(key, out);
    };
    match command {
        KvCommand::Put { table, key, value } => {
            start(PUT, table, key, out);
            put_bytes(value, out);
        }
        KvCommand::Delete { table, key } => start(DELETE, table, key, out),
        KvCommand::CompareAndSet { table, key, expected, new } => {
            start(COMPARE_AND_SET, table, key, out);
            let flag = |part: &Option<Vec<u8>>, flag| if part.is_some() { flag } else { 0 };
            out.push(flag(expected, HAS_EXPECTED) | flag(new, HAS_NEW));
            expected.iter().chain(new).for_each(|part| put_bytes(part, out));
        }
        KvCommand::Batch(commands) => {
            out.push(BATCH);
            put_varint(commands.len() as u64, out);
            commands.iter().for_each(|command| encode(command, out));
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The number of bytes that [`encode`] appends.
pub(super) fn encoded_len(command: &KvCommand) -> usize {
    let bytes = |part: &[u8]| varint_len(part.len() as u64).saturating_add(part.len());
    let parts = match command {
        KvCommand::Put { table, key, value } => {
            bytes(table.as_bytes()).saturating_add(bytes(key)).saturating_add(bytes(value))
        }
        KvCommand::Delete { table, key } => bytes(table.as_bytes()).saturating_add(bytes(key)),
        KvCommand::CompareAndSet { table, key, expected, new } => expected
            .iter()
            .chain(new)
            .map(|part| bytes(part))
            .chain([1, bytes(table.as_bytes()), bytes(key)])
            .fold(0, usize::saturating_add),
        KvCommand::Batch(commands) => {
            commands.iter().map(encoded_len).fold(varint_len(commands.len() as u64), usize::saturating_add)
        }
    };
    parts.saturating_add(1)
}

/// Decodes a command that takes all of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<KvCommand, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let command = reader.command(0)?;
    if reader.rest.is_empty() { Ok(command) } else { Err(DecodeError::new("bytes follow the command")) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(byte)
    }

    /// A length, or a count of items that take at least one byte each: at most the number of bytes
    /// left.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let (n, rest) = split_varint(self.rest)?.ok_or_else(ends_early)?;
        self.rest = rest;
        usize::try_from(n).ok().filter(|&n| n <= rest.len()).ok_or_else(ends_early)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn table(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::new("a table name is not UTF-8"))
    }

    fn optional(&mut self, present: bool) -> Result<Option<&'a [u8]>, DecodeError> {
        if present { self.bytes().map(Some) } else { Ok(None) }
    }

    /// A single command, or the head of a batch.
    fn part(&mut self, depth: usize) -> Result<Part<'a>, DecodeError> {
        match self.byte()? {
            PUT => Ok(Part::Put { table: self.table()?, key: self.bytes()?, value: self.bytes()? }),
            DELETE => Ok(Part::Delete { table: self.table()?, key: self.bytes()? }),
            COMPARE_AND_SET => {
                let (table, key) = (self.table()?, self.bytes()?);
                let flags = self.byte()?;
                if flags & !(HAS_EXPECTED | HAS_NEW) != 0 {
                    return Err(DecodeError::new("a compare-and-set has unknown flags"));
                }
                let expected = self.optional(flags & HAS_EXPECTED != 0)?;
                let new = self.optional(flags & HAS_NEW != 0)?;
                Ok(Part::CompareAndSet { table, key, expected, new })
            }
            BATCH if depth >= MAX_BATCH_DEPTH => Err(DecodeError::new("batches are nested too deeply")),
            BATCH => self.length().map(Part::Batch),
            _ => Err(DecodeError::new("the kind of command is unknown")),
        }
    }

    fn command(&mut self, depth: usize) -> Result<KvCommand, DecodeError> {
        let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        Ok(match self.part(depth)? {
            Part::Put { table, key, value } => KvCommand::put(table, key, value),
            Part::Delete { table, key } => KvCommand::delete(table, key),
            Part::CompareAndSet { table, key, expected, new } => {
                let (table, key) = (table.to_owned(), key.to_vec());
                KvCommand::CompareAndSet { table, key, expected: owned(expected), new: owned(new) }
            }
            Part::Batch(count) => {
                // commands take more memory than bytes, so do not trust the count
                let mut commands = Vec::with_capacity(count.min(64));
                for _ in 0..count {
                    commands.push(self.command(depth.saturating_add(1))?);
                }
                KvCommand::Batch(commands)
            }
        })
    }

    fn visit<E>(&mut self, depth: usize, visit: &mut impl FnMut(Part<'a>) -> Result<(), E>) -> Visited<E> {
        match self.part(depth)? {
            Part::Batch(count) => {
                for _ in 0..count {
                    if let Err(error) = self.visit(depth.saturating_add(1), visit)? {
                        return Ok(Err(error));
                    }
                }
                Ok(Ok(()))
            }
            part => Ok(visit(part)),
        }
    }
}

type Visited<E> = Result<Result<(), E>, DecodeError>;

/// A single command, borrowed from its encoding.
pub(super) enum Part<'a> {
    Put {
        table: &'a str,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        table: &'a str,
        key: &'a [u8],
    },
    CompareAndSet {
        table: &'a str,
        key: &'a [u8],
        expected: Option<&'a [u8]>,
        new: Option<&'a [u8]>,
    },
    /// A batch: this number of commands follows.
    Batch(usize),
}

/// Passes each single command of an encoding to `visit`, in order, until that fails. It copies
/// nothing.
pub(super) fn visit<'a, E>(bytes: &'a [u8], mut visit: impl FnMut(Part<'a>) -> Result<(), E>) -> Visited<E> {
    let mut reader = Reader { rest: bytes };
    let visited = reader.visit(0, &mut visit)?;
    if visited.is_ok() && !reader.rest.is_empty() {
        return Err(DecodeError::new("bytes follow the command"));
    }
    Ok(visited)
}

pub(super) fn ends_early() -> DecodeError {
    DecodeError::new("the bytes end too early")
}
