//! Many writes, gathered to be carried out at once, in the order of their keys.
//!
//! The writes lie one behind the other in one buffer, as they came:
//!
//! ```text
//! write: key length (32 bits) | value length (32 bits), all ones where the key is removed | key | value
//! ```
//!
//! Sorting moves words of 16 bytes: eight bytes of the key behind what all keys share, and the write's place. Most comparisons need
//! no more. As places ascend in the order of arrival, equal keys keep that order, and only the last of them counts.

use super::deal::deal;
use super::head::common_prefix;
use std::ops::Range;

const LENGTHS: usize = 8;
const REMOVED: u32 = u32::MAX;
/// Shorter runs of equal words are sorted by comparing keys.
const SHORT: usize = 32;
/// How often words are made anew, each time of bytes further behind in the key.
const MAX_DEPTH: usize = 16;

/// Writes, to be given to [`Tree::merge`](super::Tree::merge).
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    words: Vec<u128>,
}

/// Writes in the order of their keys, each key once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sorted<'a> {
    bytes: &'a [u8],
    words: &'a [u128],
}

impl Batch {
    /// Adds a write. The key is given in parts; `None` removes it.
    #[inline]
    pub(crate) fn push(&mut self, key: [&[u8]; 3], value: Option<&[u8]>) {
        self.words.push(self.bytes.len() as u128);
        let key_len = key.iter().map(|part| part.len() as u64).sum::<u64>();
        let value_len = value.map_or(REMOVED, |value| value.len() as u32);
        self.bytes.extend_from_slice(&(key_len << 32 | u64::from(value_len)).to_le_bytes());
        key.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// How much memory the writes take.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.words.len() * size_of::<u128>()
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// Sorts the writes and forgets those that others overwrite.
    pub(super) fn sort(&mut self, threads: usize) -> Sorted<'_> {
        let bytes = &self.bytes[..];
        let prefix = renew_words(bytes, &mut self.words);
        let mut parts = vec![&mut self.words[..]];
        while parts.len() < threads {
            parts = parts.into_iter().flat_map(halves).collect();
        }
        deal(parts, threads, |part| sort_words(bytes, part, prefix, 0));
        let key = |word: u128| key_at(bytes, place(word));
        // of equal keys, neighbours now, the last stays
        let mut kept = 0;
        for at in 0..self.words.len() {
            let word = self.words[at];
            if self.words.get(at + 1).is_some_and(|&next| is_same(word, next) && key(word) == key(next)) {
                continue;
            }
            self.words[kept] = word;
            kept += 1;
        }
        self.words.truncate(kept);
        Sorted { bytes, words: &self.words }
    }

    /// Forgets all writes, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.words.clear();
    }
}

/// Parts the words near their middle. Those of equal heads stay together.
fn halves(words: &mut [u128]) -> [&mut [u128]; 2] {
    if words.is_empty() {
        return [words, &mut []];
    }
    let middle = words.len() / 2;
    let (_, &mut pivot, _) = words.select_nth_unstable(middle);
    let mut below = 0;
    for at in 0..middle {
        if words[at] >> 64 < pivot >> 64 {
            words.swap(below, at);
            below += 1;
        }
    }
    words.split_at_mut(below).into()
}

fn place(word: u128) -> usize {
    word as u64 as usize
}

/// Whether the heads are the same.
fn is_same(a: u128, b: u128) -> bool {
    a >> 64 == b >> 64
}

fn lengths(bytes: &[u8], place: usize) -> (usize, u32) {
    let lengths = bytes[place..].first_chunk().map_or(0, |lengths| u64::from_le_bytes(*lengths));
    ((lengths >> 32) as usize, lengths as u32)
}

fn key_at(bytes: &[u8], place: usize) -> &[u8] {
    let (len, _) = lengths(bytes, place);
    &bytes[place + LENGTHS..place + LENGTHS + len]
}

/// The eight bytes behind `prefix`, padded with zeros, as a number.
fn head(key: &[u8], prefix: usize) -> u64 {
    let tail = key.get(prefix..).unwrap_or_default();
    match tail.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut padded = [0; 8];
            padded[..tail.len()].copy_from_slice(tail);
            u64::from_be_bytes(padded)
        }
    }
}

/// Makes each word anew, of the bytes behind what all keys share. Returns how much that is.
fn renew_words(bytes: &[u8], words: &mut [u128]) -> usize {
    let Some(&first) = words.first() else { return 0 };
    let first = key_at(bytes, place(first));
    let mut prefix = first.len();
    for &word in &*words {
        let key = key_at(bytes, place(word));
        if key.get(..prefix) != Some(&first[..prefix]) {
            prefix = common_prefix(first, key);
        }
    }
    for word in words {
        *word = u128::from(head(key_at(bytes, place(*word)), prefix)) << 64 | *word & u128::from(u64::MAX);
    }
    prefix
}

/// Sorts words of bytes behind `prefix`, and where they are equal by the rest of the keys.
fn sort_words(bytes: &[u8], words: &mut [u128], prefix: usize, depth: usize) {
    words.sort_unstable();
    for run in words.chunk_by_mut(|a, b| is_same(*a, *b)).filter(|run| run.len() > 1) {
        if run.len() > SHORT && depth < MAX_DEPTH {
            let head = run[0] >> 64;
            let shared = renew_words(bytes, run);
            if shared >= prefix + 8 {
                sort_words(bytes, run, shared, depth + 1);
                continue;
            }
            run.iter_mut().for_each(|word| *word = head << 64 | *word & u128::from(u64::MAX));
        }
        let by_key = |a: &u128, b: &u128| key_at(bytes, place(*a)).cmp(key_at(bytes, place(*b)));
        run.sort_unstable_by(|a, b| by_key(a, b).then(place(*a).cmp(&place(*b))));
    }
}

impl<'a> Sorted<'a> {
    pub(super) fn len(self) -> usize {
        self.words.len()
    }

    pub(super) fn is_empty(self) -> bool {
        self.words.is_empty()
    }

    /// The key of the write at `at`, which must exist.
    #[inline]
    pub(super) fn key(self, at: usize) -> &'a [u8] {
        key_at(self.bytes, place(self.words[at]))
    }

    /// The key and what it shall have.
    #[inline]
    pub(super) fn get(self, at: usize) -> (&'a [u8], Option<&'a [u8]>) {
        let place = place(self.words[at]);
        let (key, value) = lengths(self.bytes, place);
        let parts = &self.bytes[place + LENGTHS..];
        (&parts[..key], (value != REMOVED).then(|| &parts[key..key + value as usize]))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        (0..self.len()).map(move |at| self.get(at))
    }

    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Sorted { words: &self.words[range], ..self }
    }

    /// Splits before the first key that is not below `key`.
    pub(super) fn split(self, key: &[u8]) -> (Self, Self) {
        // the keys looked for lie near the front
        let mut step = 1;
        while step < self.len() && self.key(step) < key {
            step *= 2;
        }
        let (low, high) = (step / 2, step.min(self.len()));
        let at = low + self.words[low..high].partition_point(|&word| key_at(self.bytes, place(word)) < key);
        (self.slice(0..at), self.slice(at..self.len()))
    }
}
