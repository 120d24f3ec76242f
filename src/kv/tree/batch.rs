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
    bytes: Vec<u8>,
    words: Vec<u128>,
}

/// Writes in the order of their keys, each key once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sorted<'a> {
    bytes: &'a [u8],
    words: &'a [u128],
    /// How many bytes all keys share: the heads are of what lies behind them.
    prefix: usize,
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

    /// About how much memory the writes take that no later one overwrites, told from one key in many. For as long as they lie as they came.
    pub(crate) fn live_size(&self) -> usize {
        let mut sample = HashMap::new();
        for (at, &word) in self.words.iter().enumerate() {
            let hash = crc32fast::hash(key_at(&self.bytes, place(word)));
            if hash.is_multiple_of(SAMPLED) {
                let end = self.words.get(at + 1).map_or(self.bytes.len(), |&next| place(next));
                sample.insert(hash, end - place(word) + size_of::<u128>());
            }
        }
        sample.values().sum::<usize>() * SAMPLED as usize
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
        Sorted { bytes, words: &self.words, prefix }
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
        let read = |at: usize| self.bytes.get(at).copied().unwrap_or_default();
        let touched =
            self.words.iter().map(|&word| place(word)).map(|place| read(place) ^ read(place + 64) ^ read(place + 128));
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
