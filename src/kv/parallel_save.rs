//! Saving a large state with several threads, to the same bytes and parts as with one.
//!
//! The threads encode leaves as if no part ended among them. Where parts end depends on everything
//! before, so the caller finds that out, writes the bytes in order, and encodes again the entry
//! that begins a part.

use super::codec::split_varint;
use super::snapshot::{PART_BYTES, push_head};
use super::tree::{DetachedLeaf, Handover, Tree};
use crate::io::parallel::{max_threads, parallel_stream};
use crate::machine::PartWriter;
use crate::varint::put_varint;
use std::io;

/// A smaller state is saved by one thread, which takes a few milliseconds.
const MIN_PARALLEL_BYTES: u64 = 4 << 20;
/// How many bytes of keys and values a thread encodes at a time: about half of a core's cache.
const BATCH_BYTES: usize = 128 << 10;

/// Consecutive leaves, and the last key before them.
struct Batch {
    before: Vec<u8>,
    leaves: Vec<DetachedLeaf>,
}

/// Entries encoded as if no part began among them, and the last key before them.
struct Encoded {
    before: Vec<u8>,
    bytes: Vec<u8>,
}

/// How many threads saving a state is worth.
pub(super) fn threads_for(tree: &Tree) -> usize {
    if tree.payload_bytes() < MIN_PARALLEL_BYTES { 1 } else { max_threads() }
}

/// Writes a state, and frees its leaves as they are encoded.
pub(super) fn save(tree: Tree, threads: usize, out: &mut dyn PartWriter) -> io::Result<()> {
    let mut joiner = Joiner::new(out, tree.len())?;
    let handover = tree.hand_over();
    parallel_stream(batches(tree), threads, |batch| encode(batch, &handover), |encoded| joiner.add(&encoded))
}

fn batches(tree: Tree) -> impl Iterator<Item = Batch> {
    let mut leaves = tree.into_leaves();
    let mut last = Vec::new();
    std::iter::from_fn(move || {
        let mut batch = Batch { before: std::mem::take(&mut last), leaves: Vec::new() };
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(leaf) = leaves.next()
        {
            bytes += leaf.bytes();
            batch.leaves.push(leaf);
        }
        last = batch.leaves.last()?.last_key().to_vec();
        Some(batch)
    })
}

fn encode(batch: Batch, handover: &Handover) -> Encoded {
    // a quarter more than the payload is enough for most entries' lengths
    let mut bytes = Vec::with_capacity(BATCH_BYTES / 4 * 5);
    let mut previous = &batch.before[..];
    for leaf in &batch.leaves {
        for (key, value) in leaf.entries() {
            push_head(previous, key, value.len(), &mut bytes);
            bytes.extend_from_slice(value);
            previous = key;
        }
    }
    handover.recycle(batch.leaves);
    Encoded { before: batch.before, bytes }
}

/// Writes the encoded entries in order, and ends parts.
struct Joiner<'a> {
    out: &'a mut dyn PartWriter,
    part_bytes: usize,
    /// Whether the part is full. It ends only when another entry follows.
    is_full: bool,
}

impl<'a> Joiner<'a> {
    fn new(out: &'a mut dyn PartWriter, count: usize) -> io::Result<Self> {
        let mut bytes = Vec::new();
        put_varint(count as u64, &mut bytes);
        let mut joiner = Joiner { out, part_bytes: 0, is_full: false };
        joiner.write(&bytes)?;
        Ok(joiner)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part_bytes += bytes.len();
        self.out.write_all(bytes)
    }

    fn fits(&self, bytes: &[u8]) -> bool {
        !self.is_full && self.part_bytes + bytes.len() < PART_BYTES
    }

    fn add(&mut self, encoded: &Encoded) -> io::Result<()> {
        let mut rest = &encoded.bytes[..];
        if self.fits(rest) {
            return self.write(rest);
        }
        // a part ends among these entries or right before them, so go through them one by one
        let mut key = encoded.before.clone();
        while !self.fits(rest)
            && let Some(entry) = split_entry(rest, &mut key)
        {
            if self.is_full {
                self.out.end_part()?;
                (self.part_bytes, self.is_full) = (0, false);
                let mut head = Vec::new();
                push_head(&[], &key, entry.value.len(), &mut head);
                self.write(&head)?;
                self.write(entry.value)?;
            } else {
                self.write(entry.bytes)?;
            }
            self.is_full = self.part_bytes >= PART_BYTES;
            rest = entry.behind;
        }
        if rest.is_empty() { Ok(()) } else { self.write(rest) }
    }
}

struct Entry<'a> {
    /// The whole encoding.
    bytes: &'a [u8],
    value: &'a [u8],
    behind: &'a [u8],
}

/// Splits an entry off the front of the output of [`encode`]. `key` is the key before the entry,
/// and is replaced by that of the entry.
fn split_entry<'a>(bytes: &'a [u8], key: &mut Vec<u8>) -> Option<Entry<'a>> {
    let mut rest = bytes;
    let mut number = || {
        let (n, behind) = split_varint(rest).ok()??;
        rest = behind;
        usize::try_from(n).ok()
    };
    let (shared, suffix, value) = (number()?, number()?, number()?);
    let (suffix, behind) = rest.split_at_checked(suffix)?;
    let (value, behind) = behind.split_at_checked(value)?;
    key.truncate(shared);
    key.extend_from_slice(suffix);
    let bytes = &bytes[..bytes.len() - behind.len()];
    Some(Entry { bytes, value, behind })
}
