//! A copy-on-write B+tree from byte strings to byte strings.
//!
//! A clone shares every node and costs nothing; a change copies just the nodes on its way that are still
//! shared, and changes the others in place. That is what makes a frozen copy of the whole state free.
//!
//! Invariants: every leaf is equally deep; no node is empty; `len` and `payload_bytes` are those of the
//! entries. How full a node must be is not an invariant: small nodes merge where they can, and
//! memory is sized to what a node holds.
//!
//! The tree does not know of tables, commands or limits: any key below a gigabyte and any value goes.

mod arena;
mod batch;
mod build;
mod head;
mod iter;
mod leaf;
mod merge;
mod node;
mod separators;
mod spares;
#[cfg(test)]
mod tests;

pub(crate) use batch::Batch;
pub(crate) use build::{Builder, OutOfOrder, Run};
pub(crate) use iter::{End, Piece, Range};
pub(crate) use spares::Drain;

use leaf::Leaf;
use node::{Children, Inner, Link};
use spares::LeafPool;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// A sorted map from byte strings to byte strings, with a clone that costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Option<Link>,
    len: usize,
    payload_bytes: u64,
    spares: Arc<LeafPool>,
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

    /// Gives `key` a value and returns the previous one.
    pub(crate) fn insert(&mut self, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        self.insert_seeing(key, value, <[u8]>::to_vec)
    }

    /// Gives `key` a value and returns what `seen` makes of the previous one.
    pub(crate) fn insert_seeing<R>(&mut self, key: &[u8], value: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let root = self.root.get_or_insert_with(|| Link::Leaf(Leaf::zeroed(0)));
        let (previous, split) = root.insert(key, value, &self.spares, |previous| (previous.len(), seen(previous)));
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
        previous.map(|(_, seen)| seen)
    }

    /// Removes `key` and returns its value.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        // Nodes are copied on the way down, so look first.
        if !self.contains(key) {
            return None;
        }
        let root = self.root.as_mut()?;
        let previous = root.remove(key, &self.spares, <[u8]>::to_vec)?;
        self.len -= 1;
        self.payload_bytes -= (key.len() + previous.len()) as u64;
        self.drop_lone_roots();
        Some(previous)
    }

    /// Takes roots off that are empty or have one child only.
    fn drop_lone_roots(&mut self) {
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
        self.payload_bytes + (self.len * leaf::WORD) as u64
    }

    /// How much of its size a copy that is being written out holds alone: what has changed since, and was not passed yet.
    pub(crate) fn copied_share(&self) -> f64 {
        self.spares.held() as f64 / self.bytes().max(1) as f64
    }

    /// Is told of leaves that were written out, as the tree goes on.
    pub(crate) fn drain(&self) -> Drain {
        Drain::of(self)
    }

    /// The entries between two bounds, in order, from both ends. Inverted bounds have nothing between them.
    pub(crate) fn range(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Range<'_> {
        Range::new(self, bounds)
    }

    /// Hands every entry to `f`, in order, and lets go of each node once it has been passed.
    pub(crate) fn drain_sorted(self, mut f: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let drain = self.drain();
        self.into_leaves().try_for_each(|leaf| {
            each_item(&leaf.0, &mut f)?;
            drain.pass([leaf]);
            Ok(())
        })
    }

    /// All leaves in order. Each node is let go of once it has been passed.
    pub(crate) fn into_leaves(self) -> impl Iterator<Item = DetachedLeaf> {
        let mut open = vec![Children::from_iter(self.root).into_iter()];
        std::iter::from_fn(move || {
            loop {
                match open.last_mut()?.next() {
                    None => drop(open.pop()),
                    Some(Link::Leaf(leaf)) => return Some(DetachedLeaf(leaf)),
                    // Of a node that others hold too, only the way to its children is kept.
                    Some(Link::Inner(inner)) => open.push(Arc::unwrap_or_clone(inner).children.into_iter()),
                }
            }
        })
    }
}

/// A leaf of a tree that was taken apart: some entries that follow one another.
pub(crate) struct DetachedLeaf(Arc<Leaf>);

impl DetachedLeaf {
    /// About how many bytes its keys and values take.
    pub(crate) fn bytes(&self) -> usize {
        self.0.full_size()
    }

    /// No leaf is empty.
    pub(crate) fn last_key(&self) -> &[u8] {
        self.0.last_key().unwrap_or_default()
    }

    /// Every entry, in order. They are on their way from memory at once.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.touch_all();
        let mut entries = self.0.stretch(0..self.0.len());
        std::iter::from_fn(move || entries.next())
    }
}

fn each_item(leaf: &Leaf, f: &mut impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
    (0..leaf.len()).try_for_each(|at| {
        let (key, value) = leaf.item(at);
        f(key, value)
    })
}
