//! Building a tree from entries that come in order, bottom up.
//!
//! A node is finished when the next one begins, and takes just the memory that it needs. Invariant: each
//! open inner node has at least one child, and `before` is the separator that belongs before its first.

use super::Tree;
use super::node::{INLINE_VALUE, INNER_CHILDREN, Inner, LEAF_BYTES, Leaf, Link, Node, separator};
use super::page::Page;
use std::fmt;
use std::sync::Arc;

/// How full leaves are made, so that the first insert does not split each.
const LEAF_FILL: usize = LEAF_BYTES / 8 * 7;
/// How full inner nodes are made.
const INNER_FILL: usize = INNER_CHILDREN / 8 * 7;

/// A tree being built from sorted entries.
#[derive(Default)]
pub(crate) struct Builder {
    page: Page,
    large: Vec<Arc<[u8]>>,
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
        if let Some(last) = self.page.last_key() {
            if key <= last {
                return Err(OutOfOrder);
            }
            let inline = if value.len() > INLINE_VALUE { &[0; 4] } else { value };
            if self.page.size() + Page::entry_size(key, inline) > LEAF_FILL {
                let separator = separator(last, key);
                self.finish_leaf();
                self.before = separator;
            }
        }
        if value.len() > INLINE_VALUE {
            self.page.push_unsealed(key, &(self.large.len() as u32).to_le_bytes(), true);
            self.large.push(Arc::from(value));
        } else {
            self.page.push_unsealed(key, value, false);
        }
        self.len += 1;
        self.payload_bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// The tree of all entries.
    pub(crate) fn finish(mut self) -> Tree {
        let (len, payload_bytes) = (self.len, self.payload_bytes);
        if self.page.len() > 0 {
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
            self.attach(at, before, Arc::new(Node::Inner(inner)));
        }
        Tree::default()
    }

    fn finish_leaf(&mut self) {
        // A clone has just the memory it needs; the builder's own page keeps its buffers.
        let mut page = self.page.clone();
        page.seal();
        self.page.clear();
        let mut large = std::mem::take(&mut self.large);
        large.shrink_to_fit();
        let before = std::mem::take(&mut self.before);
        self.attach(0, before, Arc::new(Node::Leaf(Leaf::from_parts(page, large))));
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
            open.inner.page.push_unsealed(&before, &[], false);
        } else {
            let full = std::mem::replace(open, Level { inner: Inner::default(), before });
            open.inner.children.push(node);
            return self.attach(level + 1, full.before, Arc::new(Node::Inner(tight(full.inner))));
        }
        open.inner.children.push(node);
    }
}

/// The finished node, with just the memory that it needs.
fn tight(inner: Inner) -> Inner {
    let mut inner = Inner { page: inner.page.clone(), children: inner.children };
    inner.page.seal();
    inner.children.shrink_to_fit();
    inner
}
