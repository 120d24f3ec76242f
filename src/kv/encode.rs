//! Encoding a large state with several threads, to the same bytes and parts as with one.
//!
//! Threads encode leaves as if no part ended among them; the caller puts that in order, finds out where parts end, which
//! depends on all that came before, and encodes the entry that begins a part anew.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::codec::{put_varint, split_varint};
use super::snapshot::{PART_BYTES, push_head};
use super::tree::{DetachedLeaf, Drain, Tree};
use crate::machine::PartWriter;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc;
use std::thread;

/// A state with less is encoded by one thread.
const LARGE_BYTES: u64 = 4 << 20;
/// So many bytes of keys and values make a batch.
const BATCH_BYTES: usize = 128 << 10;
/// How many batches may be ahead of what was written, for each thread.
const BATCHES_AHEAD: usize = 2;
/// So many threads encode at the most.
const MAX_THREADS: usize = 4;

/// Leaves that follow one another, and the last key before them.
struct Batch {
    before: Vec<u8>,
    leaves: Vec<DetachedLeaf>,
}

/// Entries as if no part began among them, and the last key before them.
struct Encoded {
    before: Vec<u8>,
    bytes: Vec<u8>,
}

/// How many threads are worth it for a state.
pub(super) fn threads_for(tree: &Tree) -> usize {
    if tree.payload_bytes() < LARGE_BYTES {
        return 1;
    }
    thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS))
}

/// Writes a state, and lets go of its leaves as they have been encoded.
pub(super) fn save(tree: Tree, threads: usize, out: &mut dyn PartWriter) -> io::Result<()> {
    let mut joiner = Joiner::new(out, tree.len())?;
    let drain = tree.drain();
    let drain = &drain;
    thread::scope(|scope| {
        let mut helpers = Vec::new();
        for _ in 0..threads {
            let (batches, batches_in) = mpsc::channel::<Batch>();
            let (encoded_out, encoded) = mpsc::channel::<Encoded>();
            let encode_all = move || {
                for batch in batches_in {
                    if encoded_out.send(encode(batch, drain)).is_err() {
                        break;
                    }
                }
            };
            thread::Builder::new().spawn_scoped(scope, encode_all)?;
            helpers.push((batches, encoded));
        }
        // each in turn, so that what comes back is in order
        let mut waiting = VecDeque::new();
        let mut next = |waiting: &mut VecDeque<usize>| -> io::Result<()> {
            let helper = waiting.pop_front().and_then(|at| helpers.get(at));
            let encoded = helper.and_then(|(_, encoded)| encoded.recv().ok());
            joiner.add(&encoded.ok_or_else(|| io::Error::other("a thread that encoded has ended"))?)
        };
        for (turn, batch) in batches(tree).enumerate() {
            if waiting.len() >= threads.saturating_mul(BATCHES_AHEAD) {
                next(&mut waiting)?;
            }
            let at = turn.checked_rem(threads).unwrap_or(0);
            if let Some((batches, _)) = helpers.get(at) {
                // one that has ended is found out when its answer is waited for
                let _ = batches.send(batch);
            }
            waiting.push_back(at);
        }
        while !waiting.is_empty() {
            next(&mut waiting)?;
        }
        Ok(())
    })
}

fn batches(tree: Tree) -> impl Iterator<Item = Batch> {
    let mut leaves = tree.into_leaves();
    let mut last = Vec::new();
    std::iter::from_fn(move || {
        let mut batch = Batch { before: std::mem::take(&mut last), leaves: Vec::new() };
        let mut bytes = 0usize;
        while bytes < BATCH_BYTES
            && let Some(leaf) = leaves.next()
        {
            bytes = bytes.saturating_add(leaf.bytes());
            batch.leaves.push(leaf);
        }
        last = batch.leaves.last()?.last_key().to_vec();
        Some(batch)
    })
}

fn encode(batch: Batch, drain: &Drain) -> Encoded {
    let mut bytes = Vec::with_capacity(BATCH_BYTES.saturating_mul(5) / 4);
    let mut previous = &batch.before[..];
    for leaf in &batch.leaves {
        for (key, value) in leaf.entries() {
            push_head(previous, key, value.len(), &mut bytes);
            bytes.extend_from_slice(value);
            previous = key;
        }
    }
    drain.pass(batch.leaves);
    Encoded { before: batch.before, bytes }
}

/// Puts what was encoded together, and ends parts.
struct Joiner<'a> {
    out: &'a mut dyn PartWriter,
    part_bytes: usize,
    /// Whether a part has ended, which is said only once another entry follows.
    ended: bool,
}

impl<'a> Joiner<'a> {
    fn new(out: &'a mut dyn PartWriter, count: usize) -> io::Result<Self> {
        let mut bytes = Vec::new();
        put_varint(count as u64, &mut bytes);
        let mut joiner = Joiner { out, part_bytes: 0, ended: false };
        joiner.write(&bytes)?;
        Ok(joiner)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part_bytes = self.part_bytes.saturating_add(bytes.len());
        self.out.write_all(bytes)
    }

    fn fits(&self, bytes: &[u8]) -> bool {
        !self.ended && self.part_bytes.saturating_add(bytes.len()) < PART_BYTES
    }

    fn add(&mut self, encoded: &Encoded) -> io::Result<()> {
        let mut rest = &encoded.bytes[..];
        if self.fits(rest) {
            return self.write(rest);
        }
        // a part ends among these entries, or has ended before them: they are gone through one by one
        let mut key = encoded.before.clone();
        while !self.fits(rest)
            && let Some(entry) = split_entry(rest, &mut key)
        {
            if self.ended {
                self.out.end_part()?;
                (self.part_bytes, self.ended) = (0, false);
                let mut head = Vec::new();
                push_head(&[], &key, entry.value.len(), &mut head);
                self.write(&head)?;
                self.write(entry.value)?;
            } else {
                self.write(entry.bytes)?;
            }
            self.ended = self.part_bytes >= PART_BYTES;
            rest = entry.behind;
        }
        if rest.is_empty() { Ok(()) } else { self.write(rest) }
    }
}

struct Entry<'a> {
    /// All of it.
    bytes: &'a [u8],
    value: &'a [u8],
    behind: &'a [u8],
}

/// Takes an entry off the front of what [`encode`] made. `key` is the key before it, and becomes its own.
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
    let bytes = bytes.get(..bytes.len().saturating_sub(behind.len()))?;
    Some(Entry { bytes, value, behind })
}
