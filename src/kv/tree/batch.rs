//! Many writes, gathered to be carried out at once, in the order of their keys.
//!
//! The writes lie as they came, each in one stretch:
//!
//! ```text
//! write: key length (32 bits) | value length (32 bits), all ones where the key is removed | key | value
//! ```
//!
//! Sorting moves words of 16 bytes: eight bytes of the key behind what all keys share, and the write's place. Most comparisons need
//! no more. As places ascend in the order of arrival, equal keys keep that order, and only the last of them counts.

use super::arena::{Arena, Place};
use super::head::common_prefix;
use crate::kv::deal::deal;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

const LENGTHS: usize = 8;
const REMOVED: u32 = u32::MAX;
/// One key in so many is looked at to tell how much of a batch is overwritten.
const SAMPLED: u32 = if cfg!(test) { 4 } else { 64 };
/// Shorter runs of equal words are sorted by comparing keys.
const SHORT: usize = 32;
/// How often words are made anew, each time of bytes further behind in the key.
const MAX_DEPTH: usize = 16;

/// Writes, to be given to [`Tree::merge`](super::Tree::merge).
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    bytes: Arena,
    /// Of the keys behind what all share, but for the first `stale` ones, which are of longer prefixes.
    words: Vec<u128>,
    stale: usize,
    /// How many bytes all keys share.
    prefix: usize,
}

/// Writes in the order of their keys, each key once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sorted<'a> {
    bytes: &'a Arena,
    words: &'a [u128],
    /// How many bytes all keys share: the heads are of what lies behind them.
    prefix: usize,
}

impl Batch {
    /// Adds a write. The key is given in parts; `None` removes it.
    #[inline]
    pub(crate) fn push(&mut self, key: [&[u8]; 3], value: Option<&[u8]>) {
        let key_len = key.iter().map(|part| part.len()).sum::<usize>();
        let value_len = value.map_or(REMOVED, |value| value.len() as u32);
        let value = value.unwrap_or_default();
        let (place, mut rest) = self.bytes.append(LENGTHS + key_len + value.len());
        let lengths = ((key_len as u64) << 32 | u64::from(value_len)).to_le_bytes();
        for part in [&lengths, key[0], key[1], key[2], value] {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        let key = key_at(&self.bytes, place);
        (self.prefix, self.stale) = match self.first_key() {
            None => (key.len(), 0),
            Some(first) if key.get(..self.prefix) == Some(&first[..self.prefix]) => (self.prefix, self.stale),
            Some(first) => (common_prefix(first, key), self.words.len()),
        };
        self.words.push(word(key, self.prefix, place));
    }

    fn first_key(&self) -> Option<&[u8]> {
        self.words.first().map(|&first| key_at(&self.bytes, place(first)))
    }

    /// Several empty ones that share the memory that this one has to spare, each with room for so many bytes.
    pub(crate) fn helpers(&mut self, bytes: impl ExactSizeIterator<Item = usize>) -> Vec<Batch> {
        let mut spare = self.bytes.take_spare();
        let each = spare.len().div_ceil(bytes.len().max(1));
        let over = |bytes| Arena::over(spare.split_off(spare.len().saturating_sub(each)), bytes);
        bytes.map(over).map(|bytes| Batch { bytes, ..Batch::default() }).collect()
    }

    /// Adds the writes of another behind its own.
    pub(crate) fn adopt(&mut self, mut other: Batch) {
        let shared = match (self.first_key(), other.first_key()) {
            (Some(first), Some(others)) => common_prefix(first, others).min(self.prefix).min(other.prefix),
            (None, _) => other.prefix,
            (_, None) => self.prefix,
        };
        other.refresh(shared);
        if shared < self.prefix {
            self.stale = self.words.len();
        }
        self.prefix = shared;
        let base = u128::from(self.bytes.adopt(other.bytes));
        self.words.extend(other.words.iter().map(|word| word + base));
    }

    /// Makes all words those of the keys behind so much, which all share.
    pub(crate) fn refresh(&mut self, prefix: usize) {
        let stale = if prefix == self.prefix { self.stale } else { self.words.len() };
        renew_words(&self.bytes, &mut self.words[..stale], prefix);
        (self.stale, self.prefix) = (0, prefix);
    }

    /// How much memory the writes take.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.words.len() * size_of::<u128>()
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// About how much memory the writes take that no later one overwrites, told from one key in many. For as long as they lie as they came.
    pub(crate) fn live_size(&self) -> usize {
        let mut sample = HashMap::new();
        for &word in &self.words {
            let (key, value) = write_at(&self.bytes, place(word));
            let hash = crc32fast::hash(key);
            if hash.is_multiple_of(SAMPLED) {
                let bytes = LENGTHS + key.len() + value.unwrap_or_default().len();
                sample.insert(hash, bytes + size_of::<u128>());
            }
        }
        sample.values().sum::<usize>() * SAMPLED as usize
    }

    /// Sorts the writes and forgets those that others overwrite.
    pub(super) fn sort(&mut self, threads: usize) -> Sorted<'_> {
        self.refresh(self.prefix);
        let (bytes, prefix) = (&self.bytes, self.prefix);
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
        Sorted { bytes, words: &self.words, prefix }
    }

    /// Forgets all writes, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.words.clear();
        (self.stale, self.prefix) = (0, 0);
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

fn place(word: u128) -> Place {
    word as Place
}

/// Whether the heads are the same.
fn is_same(a: u128, b: u128) -> bool {
    a >> 64 == b >> 64
}

/// The key at a place, and what lies behind it, of which the value is so much.
#[inline]
fn parts_at(bytes: &Arena, place: Place) -> (&[u8], &[u8], u32) {
    let (lengths, parts) = bytes
        .at(place)
        .split_first_chunk()
        .map_or((0, &[][..]), |(lengths, parts)| (u64::from_le_bytes(*lengths), parts));
    let (key, behind) = parts.split_at((lengths >> 32) as usize);
    (key, behind, lengths as u32)
}

#[inline]
fn key_at(bytes: &Arena, place: Place) -> &[u8] {
    parts_at(bytes, place).0
}

#[inline]
fn write_at(bytes: &Arena, place: Place) -> (&[u8], Option<&[u8]>) {
    let (key, behind, value) = parts_at(bytes, place);
    (key, (value != REMOVED).then(|| &behind[..value as usize]))
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

fn word(key: &[u8], prefix: usize, place: Place) -> u128 {
    u128::from(head(key, prefix)) << 64 | u128::from(place)
}

/// Makes each word anew, of the bytes behind the prefix.
fn renew_words(bytes: &Arena, words: &mut [u128], prefix: usize) {
    for renewed in words {
        let place = place(*renewed);
        *renewed = word(key_at(bytes, place), prefix, place);
    }
}

/// How many bytes all keys share.
fn shared_prefix(bytes: &Arena, words: &[u128]) -> usize {
    let mut keys = words.iter().map(|&word| key_at(bytes, place(word)));
    let first = keys.next().unwrap_or_default();
    keys.fold(first.len(), |prefix, key| match key.get(..prefix) == Some(&first[..prefix]) {
        true => prefix,
        false => common_prefix(first, key),
    })
}

/// Sorts words of bytes behind `prefix`, and where they are equal by the rest of the keys.
fn sort_words(bytes: &Arena, words: &mut [u128], prefix: usize, depth: usize) {
    words.sort_unstable();
    for run in words.chunk_by_mut(|a, b| is_same(*a, *b)).filter(|run| run.len() > 1) {
        if run.len() > SHORT && depth < MAX_DEPTH {
            let head = run[0] >> 64;
            let shared = shared_prefix(bytes, run);
            renew_words(bytes, run, shared);
            let goes_on = shared >= prefix + 8;
            if goes_on {
                sort_words(bytes, run, shared, depth + 1);
            }
            // all heads are of what lies behind one prefix again
            run.iter_mut().for_each(|word| *word = head << 64 | *word & u128::from(u64::MAX));
            if goes_on {
                continue;
            }
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

    /// The key and what it shall have.
    #[inline]
    pub(super) fn get(self, at: usize) -> (&'a [u8], Option<&'a [u8]>) {
        write_at(self.bytes, place(self.words[at]))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        (0..self.len()).map(move |at| self.get(at))
    }

    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Sorted { words: &self.words[range], ..self }
    }

    /// Splits before the first key that is not below `key`.
    pub(super) fn split(self, key: &[u8]) -> (Self, Self) {
        let Some(&first) = self.words.first() else { return (self, self) };
        let shared = &key_at(self.bytes, place(first))[..self.prefix];
        let at = match key[..key.len().min(self.prefix)].cmp(shared) {
            Ordering::Less => 0,
            Ordering::Greater => self.len(),
            Ordering::Equal => self.count_below(key, head(key, self.prefix)),
        };
        (self.slice(0..at), self.slice(at..self.len()))
    }

    /// How many keys are below `key`, which shares what they all share. Most comparisons need the heads alone.
    fn count_below(self, key: &[u8], wanted: u64) -> usize {
        let is_below = |word: u128| match ((word >> 64) as u64).cmp(&wanted) {
            Ordering::Equal => key_at(self.bytes, place(word)) < key,
            order => order == Ordering::Less,
        };
        // the keys looked for lie near the front
        let mut step = 1;
        while self.words.get(step).is_some_and(|&word| is_below(word)) {
            step *= 2;
        }
        let (low, high) = (step / 2, step.min(self.len()));
        low + self.words[low..high].partition_point(|&word| is_below(word))
    }

    /// Reads a little of each write. They lie anywhere in memory, and so the waits for them are one wait, and not one each.
    pub(super) fn touch(self) {
        let touched = self.words.iter().map(|&word| {
            let bytes = self.bytes.at(place(word));
            let read = |at: usize| bytes.get(at).copied().unwrap_or_default();
            read(0) ^ read(64) ^ read(128)
        });
        std::hint::black_box(touched.fold(0, |all, byte| all ^ byte));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(writes: u64, keys: u64) -> Batch {
        let mut batch = Batch::default();
        (0..writes).for_each(|n| batch.push([b"", &[0], &(n % keys).to_le_bytes()], Some(&[1; 50])));
        batch
    }

    #[test]
    fn what_later_writes_overwrite_is_not_live() {
        for (writes, keys) in [(40_000, 40_000), (40_000, 10_000)] {
            let batch = batch(writes, keys);
            let live = batch.live_size() as u64 * writes / keys;
            let all = batch.size() as u64;
            assert!(live > all / 10 * 7 && live < all / 10 * 13, "{keys} keys: {live} of {all}");
        }
    }

    #[test]
    fn what_is_adopted_is_sorted_among_the_others_whatever_each_has_in_common() {
        let parts: [&[&[u8]]; 6] =
            [&[b"m12", b"m11"], &[], &[b"m13", b"m12"], &[b"mm", b"m"], &[b"", b"z"], &[b"m11x"]];
        for first in 0..parts.len() {
            let order: Vec<_> = (0..parts.len()).map(|n| parts[(first + n) % parts.len()]).collect();
            let (mut batch, mut model) = (Batch::default(), std::collections::BTreeMap::new());
            for (n, keys) in order.iter().enumerate() {
                let mut helpers = batch.helpers([100, 9].into_iter());
                let value = [n as u8];
                for key in *keys {
                    helpers[0].push([key, b"", b""], Some(&value));
                    model.insert(key.to_vec(), value);
                }
                helpers.into_iter().for_each(|helper| batch.adopt(helper));
                if let (0, Some(key)) = (n % 2, keys.first()) {
                    batch.push([b"", key, b"+"], Some(&value));
                    model.insert([key, &b"+"[..]].concat(), value);
                }
            }
            let found: Vec<_> =
                batch.sort(1).iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
            let wanted: Vec<_> = model.into_iter().map(|(key, value)| (key, Some(value.to_vec()))).collect();
            assert_eq!(found, wanted, "from {first} on");
        }
    }

    #[test]
    fn a_split_is_before_the_first_key_that_is_not_below() {
        // heads that are equal, in runs long enough to be told apart by what lies further behind
        let names = |n: u64| {
            [
                b"same head ".to_vec(),
                vec![b'x'; (n % 3) as usize * 9],
                (n / 3 % 7).to_be_bytes().to_vec(),
                n.to_le_bytes().to_vec(),
            ]
            .concat()
        };
        let mut batch = Batch::default();
        (0..2_000).for_each(|n| batch.push([b"p", &names(n), b""], Some(&n.to_le_bytes())));
        let mut keys: Vec<Vec<u8>> = (0..2_000).map(|n| [b"p".to_vec(), names(n)].concat()).collect();
        keys.sort();
        let sorted = batch.sort(2);
        let wanted =
            [keys.clone(), vec![b"".to_vec(), b"p".to_vec(), b"o".to_vec(), b"q".to_vec(), b"psame head ".to_vec()]]
                .concat();
        for key in wanted {
            let at = keys.partition_point(|k| *k < key);
            let (below, above) = sorted.split(&key);
            assert_eq!((below.len(), above.len()), (at, keys.len() - at), "{key:?}");
            assert_eq!(above.iter().next().map(|(k, _)| k.to_vec()), keys.get(at).cloned());
        }
    }
}
