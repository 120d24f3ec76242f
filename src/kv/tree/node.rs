//! The nodes: leaves with entries, inner nodes with separators and children.
//!
//! Invariants: an inner node has one child more than separators; all keys under child `i` are below separator `i`,
//! which is at or below all keys under child `i + 1`. Values over [`INLINE_VALUE`] bytes lie outside the
//! page, one [`Arc`] each, so that neither a shift nor a copy of the leaf touches them; the entry
//! then carries the flag and the value's index in `large`, and each index occurs once.
//!
//! A node does not know its depth, nor who else holds it: copying before a change is the tree's matter.

use super::page::{Page, common_prefix};
use std::sync::Arc;

/// The longest value that is kept in the page.
pub(super) const INLINE_VALUE: usize = 1024;
/// A leaf whose entries take more is split, if it has two.
pub(super) const LEAF_BYTES: usize = 4096;
/// An inner node with more children is split.
pub(super) const INNER_CHILDREN: usize = 64;
/// An inner node whose separators take more is split, if it has at least eight children.
const INNER_BYTES: usize = 16 << 10;

/// A node, shared between trees until one of them changes it.
pub(super) type Link = Arc<Node>;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

/// A leaf.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) page: Page,
    large: Vec<Arc<[u8]>>,
}

/// An inner node. The page's keys are the separators; their values are empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    pub(super) page: Page,
    pub(super) children: Vec<Link>,
}

/// What a node that became too large gives to its parent: the separator, and the node to its right.
pub(super) type Split = Option<(Vec<u8>, Link)>;

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.page.len() == 0,
            Node::Inner(inner) => inner.children.is_empty(),
        }
    }

    /// Whether a merge with a neighbour is worth a try.
    pub(super) fn is_small(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.page.size() < LEAF_BYTES / 3,
            Node::Inner(inner) => inner.children.len() < INNER_CHILDREN / 3,
        }
    }

    /// Whether the two make one node that will not be split again soon.
    pub(super) fn fits_with(&self, right: &Node) -> bool {
        match (self, right) {
            (Node::Leaf(a), Node::Leaf(b)) => a.page.size() + b.page.size() <= LEAF_BYTES / 4 * 3,
            (Node::Inner(a), Node::Inner(b)) => {
                a.children.len() + b.children.len() <= INNER_CHILDREN / 4 * 3
                    && a.page.size() + b.page.size() <= INNER_BYTES / 2
            }
            _ => false,
        }
    }

    /// Takes in the right neighbour, which is of the same kind. `separator` stood between the two.
    pub(super) fn absorb(&mut self, separator: &[u8], right: Node) {
        match (self, right) {
            (Node::Leaf(a), Node::Leaf(b)) => {
                let (count, shift) = (a.page.len(), a.large.len());
                a.page.append(&b.page);
                a.large.extend(b.large);
                a.renumber_from(count, shift);
            }
            (Node::Inner(a), Node::Inner(b)) => {
                a.page.insert(a.page.len(), separator, &[], false);
                a.page.append(&b.page);
                a.children.extend(b.children);
            }
            _ => debug_assert!(false, "neighbours are equally deep"),
        }
    }
}

impl Leaf {
    /// A leaf of entries in order whose large values, in order too, are `large`.
    pub(super) fn from_parts(page: Page, large: Vec<Arc<[u8]>>) -> Leaf {
        Leaf { page, large }
    }

    /// The value at `at`, which must exist.
    #[inline]
    pub(super) fn value(&self, at: usize) -> &[u8] {
        self.item(at).1
    }

    /// The key and the value at `at`, which must exist.
    #[inline]
    pub(super) fn item(&self, at: usize) -> (&[u8], &[u8]) {
        let entry = self.page.entry(at);
        if entry.flag { (entry.key, &self.large[index_of(entry.value)]) } else { (entry.key, entry.value) }
    }

    /// Inserts or replaces. Returns the previous value.
    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) -> (Option<Vec<u8>>, Split) {
        let (at, previous) = match self.page.search(key) {
            Ok(at) => {
                let previous = self.value(at).to_vec();
                self.discard_large(at);
                match self.stow(value) {
                    Some(index) => self.page.replace(at, &index, true),
                    None => self.page.replace(at, value, false),
                }
                (at, Some(previous))
            }
            Err(at) => {
                match self.stow(value) {
                    Some(index) => self.page.insert(at, key, &index, true),
                    None => self.page.insert(at, key, value, false),
                }
                (at, None)
            }
        };
        (previous, self.split(at))
    }

    /// Removes `key` and returns its value.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let at = self.page.find(key)?;
        let previous = self.value(at).to_vec();
        self.discard_large(at);
        self.page.remove(at);
        Some(previous)
    }

    /// Splits the leaf if it is too large. The entry at `changed` was the last to come.
    fn split(&mut self, changed: usize) -> Split {
        let len = self.page.len();
        if self.page.size() <= LEAF_BYTES || len < 2 {
            return None;
        }
        // Keys that arrive in order leave full leaves behind them.
        let at = if changed + 1 == len { changed } else { self.page.middle() };
        let page = self.page.split_off(at);
        let separator = separator(self.page.last_key().unwrap_or_default(), page.key(0));
        let mut right = Leaf { page, large: Vec::new() };
        if !self.large.is_empty() {
            right.large = self.large.clone();
            right.renumber_within();
            self.renumber_within();
        }
        Some((separator, Arc::new(Node::Leaf(right))))
    }

    /// Puts a large value beside the page. Returns what the entry holds instead.
    fn stow(&mut self, value: &[u8]) -> Option<[u8; 4]> {
        (value.len() > INLINE_VALUE).then(|| {
            self.large.push(Arc::from(value));
            (self.large.len() as u32 - 1).to_le_bytes()
        })
    }

    /// Drops the large value of the entry at `at`, if it has one; the entry must be changed or removed next.
    fn discard_large(&mut self, at: usize) {
        let entry = self.page.entry(at);
        if !entry.flag {
            return;
        }
        let (freed, last) = (index_of(entry.value), self.large.len() - 1);
        self.large.swap_remove(freed);
        if freed != last {
            let moved = (0..self.page.len()).find(|&i| {
                let entry = self.page.entry(i);
                entry.flag && index_of(entry.value) == last
            });
            if let Some(moved) = moved {
                self.page.replace(moved, &(freed as u32).to_le_bytes(), true);
            }
        }
    }

    /// Keeps only the large values that the entries name, and numbers them in order.
    fn renumber_within(&mut self) {
        let mut kept = Vec::new();
        for at in 0..self.page.len() {
            let entry = self.page.entry(at);
            if entry.flag {
                kept.push(Arc::clone(&self.large[index_of(entry.value)]));
                self.page.replace(at, &(kept.len() as u32 - 1).to_le_bytes(), true);
            }
        }
        self.large = kept;
    }

    /// Raises the indices in the entries from `from` on by `shift`.
    fn renumber_from(&mut self, from: usize, shift: usize) {
        for at in from..self.page.len() {
            let entry = self.page.entry(at);
            if entry.flag && shift > 0 {
                let index = index_of(entry.value) + shift;
                self.page.replace(at, &(index as u32).to_le_bytes(), true);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.page.check();
        let mut named = Vec::new();
        for at in 0..self.page.len() {
            let entry = self.page.entry(at);
            assert_eq!(entry.flag, self.value(at).len() > INLINE_VALUE);
            if entry.flag {
                named.push(index_of(entry.value));
            }
        }
        named.sort_unstable();
        assert_eq!(named, (0..self.large.len()).collect::<Vec<_>>(), "each large value is named once");
    }
}

impl Inner {
    /// The index of the child that `key` belongs under.
    #[inline]
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        match self.page.search(key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// Takes in a child's right half.
    pub(super) fn insert_split(&mut self, at: usize, separator: &[u8], right: Link) -> Split {
        self.page.insert(at, separator, &[], false);
        self.children.insert(at + 1, right);
        let len = self.children.len();
        if len <= INNER_CHILDREN && (self.page.size() <= INNER_BYTES || len < 8) {
            return None;
        }
        let middle = if at + 2 == len { len - 2 } else { len / 2 };
        let page = self.page.split_off(middle);
        let separator = self.page.last_key().unwrap_or_default().to_vec();
        self.page.remove(middle - 1);
        let children = self.children.split_off(middle);
        self.children.shrink_to_fit();
        Some((separator, Arc::new(Node::Inner(Inner { page, children }))))
    }

    /// Drops or merges the child at `at`, which has lost an entry, if it has become empty or small.
    pub(super) fn settle(&mut self, at: usize) {
        if self.children[at].is_empty() {
            self.children.remove(at);
            if self.page.len() > 0 {
                self.page.remove(at.saturating_sub(1));
            }
        } else if self.children[at].is_small() {
            let fits = |left: usize| match (self.children.get(left), self.children.get(left + 1)) {
                (Some(a), Some(b)) => a.fits_with(b),
                _ => false,
            };
            let left = match at.checked_sub(1) {
                Some(left) if fits(left) => left,
                _ if fits(at) => at,
                _ => return,
            };
            let right = Arc::unwrap_or_clone(self.children.remove(left + 1));
            Arc::make_mut(&mut self.children[left]).absorb(self.page.key(left), right);
            self.page.remove(left);
        }
        if self.children.len() < self.children.capacity() / 3 {
            self.children.shrink_to_fit();
        }
    }
}

/// The index that stands for a large value.
fn index_of(value: &[u8]) -> usize {
    value.first_chunk::<4>().map_or(usize::MAX, |bytes| u32::from_le_bytes(*bytes) as usize)
}

/// The shortest key above `left` and at or below `right`, where `left` is below `right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    right[..(common_prefix(left, right) + 1).min(right.len())].to_vec()
}
