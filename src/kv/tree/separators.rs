//! The separators of an inner node: sorted keys, packed.
//!
//! The keys lie one behind the other in one buffer, beside an array of words, each a key's head (upper half) and
//! the key's start in the buffer (lower half). Invariants: the starts ascend and cover the buffer; the
//! keys ascend strictly; `prefix` bytes are common to all keys (perhaps more are; none without keys), and the first of
//! them are repeated in `lead`, so that a search that stays clear of ties reads only the words.

use super::head::{common_prefix, equal_heads, head, search_ties};
use std::cmp::Ordering;

const LEAD: usize = 24;

/// Sorted keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Separators {
    words: Vec<u64>,
    bytes: Vec<u8>,
    prefix: u32,
    lead: [u8; LEAD],
}

fn start_of(word: u64) -> usize {
    word as u32 as usize
}

impl Separators {
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// How many bytes the keys take.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn start(&self, at: usize) -> usize {
        self.words.get(at).map_or(self.bytes.len(), |&w| start_of(w))
    }

    /// The key at `at`, which must exist.
    pub(super) fn key(&self, at: usize) -> &[u8] {
        &self.bytes[start_of(self.words[at])..self.start(at + 1)]
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.len().checked_sub(1).map(|last| self.key(last))
    }

    /// How many keys are at or below `key`.
    #[inline]
    pub(super) fn at_or_below(&self, key: &[u8]) -> usize {
        let prefix = self.prefix as usize;
        match self.compare_prefix(key, prefix) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.len(),
            Ordering::Equal => {}
        }
        let (low, high) = equal_heads(&self.words, |w| w, head(key, prefix));
        if low == high {
            return low;
        }
        match search_ties((low, high), |at| &self.key(at)[prefix..], &key[prefix..]) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// How `key` compares with the common prefix. A key that ends within it is less.
    #[inline]
    fn compare_prefix(&self, key: &[u8], prefix: usize) -> Ordering {
        let lead = &self.lead[..prefix.min(LEAD)];
        let order = key[..key.len().min(lead.len())].cmp(lead);
        if order != Ordering::Equal || prefix <= LEAD || key.len() < LEAD {
            return order;
        }
        key[..key.len().min(prefix)].cmp(&self.key(0)[..prefix])
    }

    /// Puts a key in at `at`, where it belongs.
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        if self.words.is_empty() {
            self.set_prefix_of(key, key.len());
        } else {
            let common = common_prefix(&self.key(0)[..self.prefix as usize], key);
            if common < self.prefix as usize {
                self.renew_heads(common);
            }
        }
        let start = self.start(at);
        self.bytes.splice(start..start, key.iter().copied());
        self.words.insert(at, u64::from(head(key, self.prefix as usize)) << 32 | start as u64);
        self.words[at + 1..].iter_mut().for_each(|w| *w += key.len() as u64);
    }

    /// Takes the key at `at` out.
    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.start(at + 1));
        self.bytes.drain(start..end);
        self.words.remove(at);
        self.words[at..].iter_mut().for_each(|w| *w -= (end - start) as u64);
        if self.words.is_empty() {
            // a node may go on with its last child alone, and no key is left that has the prefix
            self.prefix = 0;
        }
    }

    /// Appends a key without a head: [`seal`](Self::seal) must follow.
    pub(super) fn push_unsealed(&mut self, key: &[u8]) {
        self.words.push(self.bytes.len() as u64);
        self.bytes.extend_from_slice(key);
    }

    /// Takes as much for the prefix as the keys have in common, renews the heads, and gives spare memory back.
    pub(super) fn seal(&mut self) {
        let prefix = self.last().map_or(0, |last| common_prefix(self.key(0), last));
        self.renew_heads(prefix);
        self.words.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// Splits the keys from `at` on off, and removes the one before them, which is returned.
    pub(super) fn split_around(&mut self, at: usize) -> (Vec<u8>, Separators) {
        let mut right = Separators::default();
        (at..self.len()).for_each(|i| right.push_unsealed(self.key(i)));
        right.seal();
        let between = self.key(at - 1).to_vec();
        self.bytes.truncate(self.start(at - 1));
        self.words.truncate(at - 1);
        self.seal();
        (between, right)
    }

    /// Appends a key and then those of `other`, all of them greater than the ones before.
    pub(super) fn append(&mut self, between: &[u8], other: &Separators) {
        self.push_unsealed(between);
        (0..other.len()).for_each(|i| self.push_unsealed(other.key(i)));
        self.seal();
    }

    fn renew_heads(&mut self, prefix: usize) {
        for at in 0..self.words.len() {
            self.words[at] = u64::from(head(self.key(at), prefix)) << 32 | self.start(at) as u64;
        }
        self.prefix = prefix as u32;
        if prefix > 0 {
            let first = self.key(0)[..prefix.min(LEAD)].to_vec();
            self.lead[..first.len()].copy_from_slice(&first);
        }
    }

    fn set_prefix_of(&mut self, key: &[u8], prefix: usize) {
        self.prefix = prefix as u32;
        let len = prefix.min(LEAD);
        self.lead[..len].copy_from_slice(&key[..len]);
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let prefix = self.prefix as usize;
        assert_eq!(self.start(0), 0);
        assert!(self.len() > 0 || prefix == 0, "no key has a prefix");
        for at in 0..self.len() {
            let key = self.key(at);
            assert_eq!((self.words[at] >> 32) as u32, head(key, prefix));
            assert_eq!(self.key(0)[..prefix], key[..prefix]);
            assert_eq!(self.lead[..prefix.min(LEAD)], key[..prefix.min(LEAD)]);
            assert!(at == 0 || self.key(at - 1) < key, "separators ascend");
        }
    }
}
