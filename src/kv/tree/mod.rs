//! A copy-on-write B+tree from byte strings to byte strings.
//!
//! A clone shares every node and costs nothing. A change copies the shared nodes on its path and
//! edits the others in place. So a frozen copy of the whole state is free.
//!
//! Invariants: all leaves are equally deep; no node is empty; `len` and `payload_bytes` are those
//! of the entries. How full a node is is not an invariant: small neighbors merge where they fit,
//! and memory is sized to what a node holds.
//!
//! The tree does not know tables, commands or limits: it takes any key below a gigabyte and any
//! value.
//!
//! | file | contents |
//! | --- | --- |
//! | `leaf`, `leaf_edit`, `leaf_pool` | the entries; copy-on-write edits of them; free leaves |
//! | `node`, `separators`, `head` | inner nodes, their keys, and comparing keys by four bytes |
//! | `iter` | ranges from both ends |
//! | `build`, `merge`, `batch`, `arena`, `tuning` | building a tree from sorted entries; merging many writes at once |
//! | `prefetch` | loads ahead of use |

mod arena;
mod batch;
mod build;
mod head;
mod iter;
mod leaf;
mod leaf_edit;
mod leaf_pool;
mod merge;
mod node;
mod prefetch;
mod separators;
#[cfg(test)]
mod tests;
mod tuning;

pub(crate) use batch::Batch;
pub(crate) use build::{Builder, OutOfOrder, Run};
pub(super) use head::common_prefix;
pub(crate) use iter::{End, Piece, Range};
pub(crate) use leaf_pool::{DetachedLeaf, Handover};
pub(crate) use tuning::Tuning;

use leaf::Leaf;
use leaf_pool::LeafPool;
use node::{Children, Inner, Link};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// A sorted map from byte strings to byte strings. A clone costs nothing and is independent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Option<Link>,
    len: usize,
    payload_bytes: u64,
    pool: Arc<LeafPool>,
}

impl Tree {
    /// The value of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let mut link = self.root.as_ref()?;
        loop {
            match link {
                Link::Inner(inner) => link = &inner.children[inner.child_of(key)],
                Link::Leaf(leaf) => return leaf.get(key),
            }
        }
    }

    /// Whether `key` has a value.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of `key` and returns the previous one.
    pub(crate) fn insert(&mut self, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        self.insert_and_read(key, value, <[u8]>::to_vec)
    }

    /// Sets the value of `key` and returns what `read` makes of the previous one.
    pub(crate) fn insert_and_read<R>(&mut self, key: &[u8], value: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let root = self.root.get_or_insert_with(|| Link::Leaf(Leaf::zeroed(0)));
        let (previous, split) = root.insert(key, value, &self.pool, |previous| (previous.len(), read(previous)));
        if let Some((separator, right)) = split {
            let mut inner = Inner { children: Children::from_iter([root.clone()]), ..Inner::default() };
            inner.insert_split(0, &separator, right);
            *root = Link::Inner(Arc::new(inner));
        }
        self.payload_bytes += value.len() as u64;
        match &previous {
            Some((len, _)) => self.payload_bytes -= *len as u64,
            None => {
                self.len += 1;
                self.payload_bytes += key.len() as u64;
            }
        }
        previous.map(|(_, read)| read)
    }

    /// Removes `key` and returns its value.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        // nodes are copied on the way down, so look first
        if !self.contains(key) {
            return None;
        }
        let root = self.root.as_mut()?;
        let previous = root.remove(key, &self.pool, <[u8]>::to_vec)?;
        self.len -= 1;
        self.payload_bytes -= (key.len() + previous.len()) as u64;
        self.collapse_root();
        Some(previous)
    }

    /// Removes roots that are empty or have only one child.
    fn collapse_root(&mut self) {
        while let Some(root) = &self.root {
            if root.is_empty() {
                self.root = None;
            } else if let Link::Inner(inner) = root
                && let [only] = &inner.children[..]
            {
                self.root = Some(only.clone());
            } else {
                break;
            }
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lengths of all keys and values together.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// How many bytes the entries take in the leaves.
    fn bytes(&self) -> u64 {
        self.payload_bytes + (self.len * leaf::WORD_BYTES) as u64
    }

    /// The memory that a frozen copy that is being written out holds alone, as a share of this
    /// tree's size: the entries that changed since it was frozen and are not yet written.
    pub(crate) fn copied_share(&self) -> f64 {
        self.pool.held_bytes() as f64 / self.bytes().max(1) as f64
    }

    /// Begins to hand the leaves of this frozen copy over to the tree that it was cloned from, as
    /// the copy is written out.
    pub(crate) fn hand_over(&self) -> Handover {
        let held = || self.root.as_ref().map_or(0, Link::unshared_bytes) as u64;
        self.pool.hand_over(self.bytes(), held)
    }

    /// The entries between two bounds, in order, from both ends. Inverted bounds give an empty
    /// range.
    pub(crate) fn range(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Range<'_> {
        Range::new(self.root.as_ref(), bounds)
    }

    /// Passes every entry to `f`, in order, and frees each leaf after that.
    pub(crate) fn drain_sorted(self, mut f: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let handover = self.hand_over();
        self.into_leaves().try_for_each(|leaf| {
            leaf.entries().try_for_each(|(key, value)| f(key, value))?;
            handover.recycle([leaf]);
            Ok(())
        })
    }

    /// All leaves in order. Each inner node is freed when its last child is taken.
    pub(crate) fn into_leaves(self) -> impl Iterator<Item = DetachedLeaf> {
        let mut path = vec![Children::from_iter(self.root).into_iter()];
        std::iter::from_fn(move || {
            loop {
                match path.last_mut()?.next() {
                    None => drop(path.pop()),
                    Some(Link::Leaf(leaf)) => return Some(DetachedLeaf::new(leaf)),
                    // of a shared node only the links are copied
                    Some(Link::Inner(inner)) => path.push(Arc::unwrap_or_clone(inner).children.into_iter()),
                }
            }
        })
    }
}
