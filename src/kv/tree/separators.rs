//! The separators of an inner node: sorted keys, packed.
//!
//! The keys lie in one buffer, in order, and their starts in another. Their heads lie in the node
//! itself, so that a search without ties reads nothing else. Invariants: the starts ascend and
//! cover the buffer; the keys ascend strictly; `prefix` bytes are common to all keys (perhaps more
//! are; without keys it is 0), and the first of them are repeated in `lead`; unused heads are the
//! greatest number.

use super::head::{common_prefix, head, search_ties};
use std::cmp::Ordering;

/// How much of the common prefix lies in the node itself. It covers a table name of 23 bytes; a
/// longer prefix costs a cache miss more.
const LEAD_BYTES: usize = 24;
/// The most keys a node can have, just before it is split.
pub(super) const MAX_SEPARATORS: usize = 64;

/// Sorted keys.
#[derive(Clone, Debug)]
pub(super) struct Separators {
    /// Signed, because SSE2 compares only signed integers.
    heads: [i32; MAX_SEPARATORS],
    prefix: u32,
    lead: [u8; LEAD_BYTES],
    starts: Vec<u32>,
    bytes: Vec<u8>,
}

/// Maps a head to a signed integer and keeps the order.
#[inline]
fn signed(head: u32) -> i32 {
    (head ^ 1 << 31) as i32
}

impl Default for Separators {
    fn default() -> Self {
        let (starts, bytes) = (Vec::new(), Vec::new());
        Separators { heads: [i32::MAX; MAX_SEPARATORS], prefix: 0, lead: [0; LEAD_BYTES], starts, bytes }
    }
}

impl Separators {
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// How many bytes the keys take.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn start(&self, at: usize) -> usize {
        self.starts.get(at).map_or(self.bytes.len(), |&start| start as usize)
    }

    /// The key at `at`, which must exist.
    pub(super) fn key(&self, at: usize) -> &[u8] {
        &self.bytes[self.starts[at] as usize..self.start(at + 1)]
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.len().checked_sub(1).map(|last| self.key(last))
    }

    /// How many keys are at or below `key`.
    #[inline(always)]
    pub(super) fn at_or_below(&self, key: &[u8]) -> usize {
        let prefix = self.prefix as usize;
        match self.compare_prefix(key, prefix) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.len(),
            Ordering::Equal => {}
        }
        let wanted = signed(head(key, prefix));
        let low = self.heads.iter().map(|&head| u32::from(head < wanted)).sum::<u32>() as usize;
        if low >= self.len() || self.heads[low] != wanted {
            return low;
        }
        let high = low + self.heads[low..self.len()].partition_point(|&head| head == wanted);
        match search_ties((low, high), |at| &self.key(at)[prefix..], &key[prefix..]) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// Compares `key` with the common prefix. A key that ends within it is less.
    #[inline]
    fn compare_prefix(&self, key: &[u8], prefix: usize) -> Ordering {
        let lead = &self.lead[..prefix.min(LEAD_BYTES)];
        let order = key[..key.len().min(lead.len())].cmp(lead);
        if order != Ordering::Equal || prefix <= LEAD_BYTES || key.len() < LEAD_BYTES {
            return order;
        }
        key[..key.len().min(prefix)].cmp(&self.key(0)[..prefix])
    }

    /// Inserts a key at `at`, which must be its place in the order.
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        if self.starts.is_empty() {
            self.set_prefix_of(key, key.len());
        } else {
            let common = common_prefix(&self.key(0)[..self.prefix as usize], key);
            if common < self.prefix as usize {
                self.compute_heads(common);
            }
        }
        let (start, len) = (self.start(at), self.len());
        self.bytes.splice(start..start, key.iter().copied());
        self.starts.insert(at, start as u32);
        self.starts[at + 1..].iter_mut().for_each(|later| *later += key.len() as u32);
        self.heads.copy_within(at..len, at + 1);
        self.heads[at] = signed(head(key, self.prefix as usize));
    }

    /// Removes the key at `at`.
    pub(super) fn remove(&mut self, at: usize) {
        let (start, end, len) = (self.start(at), self.start(at + 1), self.len());
        self.bytes.drain(start..end);
        self.starts.remove(at);
        self.starts[at..].iter_mut().for_each(|later| *later -= (end - start) as u32);
        self.heads.copy_within(at + 1..len, at);
        self.heads[len - 1] = i32::MAX;
        if self.starts.is_empty() {
            // a node may have one child and no key, and then no prefix
            self.prefix = 0;
        }
    }

    /// Appends a key without a head. The caller must [`seal`](Self::seal) afterwards.
    pub(super) fn push_unsealed(&mut self, key: &[u8]) {
        self.starts.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(key);
    }

    /// Takes the longest common prefix of the keys as the prefix, computes all heads, and frees
    /// unused memory.
    pub(super) fn seal(&mut self) {
        let prefix = self.last().map_or(0, |last| common_prefix(self.key(0), last));
        self.compute_heads(prefix);
        self.starts.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// Splits off the keys from `at` on. Removes and returns the key before them.
    pub(super) fn split_around(&mut self, at: usize) -> (Vec<u8>, Separators) {
        let mut right = Separators::default();
        (at..self.len()).for_each(|i| right.push_unsealed(self.key(i)));
        right.seal();
        let between = self.key(at - 1).to_vec();
        self.bytes.truncate(self.start(at - 1));
        self.starts.truncate(at - 1);
        self.seal();
        (between, right)
    }

    /// Appends the key `between` and then those of `other`, which are all greater.
    pub(super) fn append(&mut self, between: &[u8], other: &Separators) {
        self.push_unsealed(between);
        (0..other.len()).for_each(|i| self.push_unsealed(other.key(i)));
        self.seal();
    }

    fn compute_heads(&mut self, prefix: usize) {
        for at in 0..self.len() {
            self.heads[at] = signed(head(self.key(at), prefix));
        }
        self.heads[self.starts.len()..].fill(i32::MAX);
        self.prefix = prefix as u32;
        if prefix > 0 {
            let first = self.key(0)[..prefix.min(LEAD_BYTES)].to_vec();
            self.lead[..first.len()].copy_from_slice(&first);
        }
    }

    fn set_prefix_of(&mut self, key: &[u8], prefix: usize) {
        self.prefix = prefix as u32;
        let len = prefix.min(LEAD_BYTES);
        self.lead[..len].copy_from_slice(&key[..len]);
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let prefix = self.prefix as usize;
        assert_eq!(self.start(0), 0);
        assert!(self.heads[self.len()..].iter().all(|&head| head == i32::MAX));
        assert!(self.len() > 0 || prefix == 0, "no key has a prefix");
        for at in 0..self.len() {
            let key = self.key(at);
            assert_eq!(self.heads[at], signed(head(key, prefix)));
            assert_eq!(self.key(0)[..prefix], key[..prefix]);
            assert_eq!(self.lead[..prefix.min(LEAD_BYTES)], key[..prefix.min(LEAD_BYTES)]);
            assert!(at == 0 || self.key(at - 1) < key, "separators ascend");
        }
    }
}
