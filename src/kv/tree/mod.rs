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

mod build;
mod iter;
mod node;
mod page;
#[cfg(test)]
mod tests;

pub(crate) use build::{Builder, OutOfOrder};
pub(crate) use iter::Range;

use node::{Inner, Leaf, Link, Node, Split};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// A sorted map from byte strings to byte strings, with a clone that costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Option<Link>,
    len: usize,
    payload_bytes: u64,
}

impl Tree {
    /// The value of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)],
                Node::Leaf(leaf) => return leaf.page.find(key).map(|at| leaf.value(at)),
            }
        }
    }

    /// Whether `key` has a value.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// Gives `key` a value and returns the previous one.
    pub(crate) fn insert(&mut self, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let root = self.root.get_or_insert_with(|| Arc::new(Node::Leaf(Leaf::default())));
        let (previous, split) = insert_below(root, key, value);
        if let Some((separator, right)) = split {
            let mut inner = Inner { children: vec![Arc::clone(root)], ..Inner::default() };
            inner.insert_split(0, &separator, right);
            *root = Arc::new(Node::Inner(inner));
        }
        self.payload_bytes += value.len() as u64;
        match &previous {
            Some(previous) => self.payload_bytes -= previous.len() as u64,
            None => {
                self.len += 1;
                self.payload_bytes += key.len() as u64;
            }
        }
        previous
    }

    /// Removes `key` and returns its value.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        // Nodes are copied on the way down, so look first.
        if !self.contains(key) {
            return None;
        }
        let root = self.root.as_mut()?;
        let previous = remove_below(root, key)?;
        self.len -= 1;
        self.payload_bytes -= (key.len() + previous.len()) as u64;
        while let Some(root) = &self.root {
            if root.is_empty() {
                self.root = None;
            } else if let Node::Inner(Inner { children, .. }) = &**root
                && let [only] = &children[..]
            {
                self.root = Some(Arc::clone(only));
            } else {
                break;
            }
        }
        Some(previous)
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

    /// The entries between two bounds, in order, from both ends. Inverted bounds have nothing between them.
    pub(crate) fn range(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Range<'_> {
        Range::new(self, bounds)
    }

    /// Hands every entry to `f`, in order, and lets go of each node once it has been passed.
    pub(crate) fn drain_sorted(self, mut f: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut open = vec![Vec::from_iter(self.root).into_iter()];
        while let Some(nodes) = open.last_mut() {
            let Some(node) = nodes.next() else {
                open.pop();
                continue;
            };
            // Of a node that others hold too, only the way to its children is kept.
            match Arc::try_unwrap(node) {
                Ok(Node::Inner(inner)) => open.push(inner.children.into_iter()),
                Ok(Node::Leaf(leaf)) => each_item(&leaf, &mut f)?,
                Err(shared) => match &*shared {
                    Node::Inner(inner) => open.push(inner.children.clone().into_iter()),
                    Node::Leaf(leaf) => each_item(leaf, &mut f)?,
                },
            }
        }
        Ok(())
    }
}

fn each_item(leaf: &Leaf, f: &mut impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
    (0..leaf.page.len()).try_for_each(|at| {
        let (key, value) = leaf.item(at);
        f(key, value)
    })
}

fn insert_below(link: &mut Link, key: &[u8], value: &[u8]) -> (Option<Vec<u8>>, Split) {
    match Arc::make_mut(link) {
        Node::Leaf(leaf) => leaf.insert(key, value),
        Node::Inner(inner) => {
            let at = inner.child_of(key);
            let (previous, split) = insert_below(&mut inner.children[at], key, value);
            (previous, split.and_then(|(separator, right)| inner.insert_split(at, &separator, right)))
        }
    }
}

fn remove_below(link: &mut Link, key: &[u8]) -> Option<Vec<u8>> {
    match Arc::make_mut(link) {
        Node::Leaf(leaf) => leaf.remove(key),
        Node::Inner(inner) => {
            let at = inner.child_of(key);
            let previous = remove_below(&mut inner.children[at], key)?;
            inner.settle(at);
            Some(previous)
        }
    }
}
