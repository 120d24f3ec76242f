//! Building a tree from entries that come in order, bottom up.
//!
//! A node is finished when the next one begins, and takes just the memory that it needs. Invariant: each
//! open inner node has at least one child, and `before` is the separator that belongs before its first.

use super::Tree;
use super::head::separator;
use super::leaf::{LEAF_BYTES, Leaf};
use super::node::{INNER_CHILDREN, Inner, Link};
use std::fmt;
use std::sync::Arc;

/// How full leaves are made, so that the first insert does not split each.
const LEAF_FILL: usize = LEAF_BYTES / 8 * 7;
/// How full inner nodes are made.
const INNER_FILL: usize = INNER_CHILDREN / 8 * 7;

/// A tree being built from sorted entries.
pub(crate) struct Builder {
    /// The open leaf. Nobody else holds it.
    leaf: Arc<Leaf>,
    /// The separator before the leaf that is open.
    before: Vec<u8>,
    /// The open inner nodes, the lowest first.
    levels: Vec<Level>,
    len: usize,
    payload_bytes: u64,
}

#[derive(Default)]
struct Level {
    inner: Inner,
    before: Vec<u8>,
}

/// A key that is not above the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

impl fmt::Display for OutOfOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keys do not ascend")
    }
}

impl std::error::Error for OutOfOrder {}

impl Builder {
    /// Appends an entry.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), OutOfOrder> {
        if let Some(last) = self.leaf.last_key() {
            if key <= last {
                return Err(OutOfOrder);
            }
            if self.leaf.size() + Leaf::size_of(key, value) > LEAF_FILL {
                let separator = separator(last, key);
                self.finish_leaf();
                self.before = separator;
            }
        }
        if let Some(leaf) = Arc::get_mut(&mut self.leaf) {
            leaf.push_unsealed(key, value);
        }
        self.len += 1;
        self.payload_bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// The tree of all entries.
    pub(crate) fn finish(mut self) -> Tree {
        let (len, payload_bytes) = (self.len, self.payload_bytes);
        if self.leaf.len() > 0 {
            self.finish_leaf();
        }
        let mut at = 0;
        while let Some(level) = self.levels.get_mut(at) {
            let Level { mut inner, before } = std::mem::take(level);
            at += 1;
            if at == self.levels.len() && inner.children.len() == 1 {
                return Tree { root: inner.children.pop(), len, payload_bytes };
            }
            inner = tight(inner);
            self.attach(at, before, Link::Inner(Arc::new(inner)));
        }
        Tree::default()
    }

    fn finish_leaf(&mut self) {
        let leaf = self.leaf.finished();
        if let Some(open) = Arc::get_mut(&mut self.leaf) {
            open.clear();
        }
        let before = std::mem::take(&mut self.before);
        self.attach(0, before, Link::Leaf(leaf));
    }

    /// Hangs a node under the open inner node at `level`, and finishes that one first if it is full.
    fn attach(&mut self, level: usize, before: Vec<u8>, node: Link) {
        if level == self.levels.len() {
            self.levels.push(Level::default());
        }
        let open = &mut self.levels[level];
        if open.inner.children.is_empty() {
            open.before = before;
        } else if open.inner.children.len() < INNER_FILL {
            open.inner.separators.push_unsealed(&before);
        } else {
            let full = std::mem::replace(open, Level { inner: Inner::default(), before });
            open.inner.children.push(node);
            return self.attach(level + 1, full.before, Link::Inner(Arc::new(tight(full.inner))));
        }
        open.inner.children.push(node);
    }
}

/// The finished node, with just the memory that it needs.
fn tight(mut inner: Inner) -> Inner {
    inner.separators.seal();
    inner.children.shrink_to_fit();
    inner
}

impl Default for Builder {
    fn default() -> Self {
        Builder { leaf: Leaf::zeroed(LEAF_BYTES), before: Vec::new(), levels: Vec::new(), len: 0, payload_bytes: 0 }
    }
}
