//! Bulk loading: building a tree from sorted entries, bottom up.
//!
//! A [`Builder`] makes leaves, each of the size that it needs; the leaves are a [`Run`].
//! Consecutive runs are joined into a tree, so that several threads can each build one. The inner
//! nodes come last, level by level.

use super::Tree;
use super::head::separator;
use super::leaf::{LEAF_BYTES, Leaf};
use super::node::{Children, INNER_BYTES, INNER_CHILDREN, Inner, Link, MIN_CHILDREN};
use std::fmt;
use std::sync::Arc;

/// The size to which leaves are filled. The rest is room, so that the first insert does not split
/// each leaf.
pub(super) const LEAF_FILL: usize = LEAF_BYTES / 8 * 7;
/// The number of children to which inner nodes are filled.
const INNER_FILL: usize = INNER_CHILDREN / 8 * 7;

/// Leaves being built from sorted entries.
pub(crate) struct Builder {
    /// The leaf being filled. Nothing else holds it.
    leaf: Arc<Leaf>,
    /// The separator before that leaf.
    before: Vec<u8>,
    run: Run,
}

/// Finished leaves in order: a slice of a tree.
#[derive(Debug, Default)]
pub(crate) struct Run {
    leaves: Vec<Separated>,
    first: Vec<u8>,
    last: Vec<u8>,
    len: usize,
    payload_bytes: u64,
}

/// A node, and the separator between it and the node before it. The separator before a first node
/// has no meaning.
pub(super) type Separated = (Vec<u8>, Link);

/// A key is not above the key before it.
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
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), OutOfOrder> {
        match self.leaf.last_key() {
            Some(last) if key <= last => return Err(OutOfOrder),
            Some(last) if self.leaf.size() + Leaf::size_of(key, value) > LEAF_FILL => {
                let separator = separator(last, key);
                self.finish_leaf();
                self.before = separator;
            }
            Some(_) => {}
            None => self.run.first = key.to_vec(),
        }
        if let Some(leaf) = Arc::get_mut(&mut self.leaf) {
            leaf.push_unsealed(key, value);
        }
        self.run.len += 1;
        self.run.payload_bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// The tree of all entries.
    pub(crate) fn finish(self) -> Tree {
        // a single run cannot be out of order
        Tree::from_runs([self.finish_run()]).unwrap_or_default()
    }

    /// The leaves of all entries, for [`Tree::from_runs`].
    pub(crate) fn finish_run(mut self) -> Run {
        if let Some(last) = self.leaf.last_key() {
            self.run.last = last.to_vec();
            self.finish_leaf();
        }
        self.run
    }

    fn finish_leaf(&mut self) {
        let leaf = self.leaf.finished();
        if let Some(open) = Arc::get_mut(&mut self.leaf) {
            open.clear();
        }
        self.run.leaves.push((std::mem::take(&mut self.before), Link::Leaf(leaf)));
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder { leaf: Leaf::zeroed(LEAF_BYTES), before: Vec::new(), run: Run::default() }
    }
}

impl Tree {
    /// The tree of all entries of the runs. Each run must begin above the end of the run before it.
    /// Empty runs are skipped.
    pub(crate) fn from_runs(runs: impl IntoIterator<Item = Run>) -> Result<Tree, OutOfOrder> {
        let mut all = Run::default();
        for mut run in runs.into_iter().filter(|run| run.len > 0) {
            if all.len == 0 {
                all = run;
                continue;
            }
            if run.first <= all.last {
                return Err(OutOfOrder);
            }
            if let Some((before, _)) = run.leaves.first_mut() {
                *before = separator(&all.last, &run.first);
            }
            all.leaves.append(&mut run.leaves);
            all.last = run.last;
            all.len += run.len;
            all.payload_bytes += run.payload_bytes;
        }
        let (root, pool) = (root_of(all.leaves), Arc::default());
        Ok(Tree { root, len: all.len, payload_bytes: all.payload_bytes, pool })
    }
}

/// Builds the levels above consecutive nodes of equal depth. Returns the root.
pub(super) fn root_of(mut nodes: Vec<Separated>) -> Option<Link> {
    while nodes.len() > 1 {
        nodes = parents_of(nodes);
    }
    nodes.pop().map(|(_, root)| root)
}

/// Builds the level above: as few inner nodes as possible, about equally full, with tight memory.
pub(super) fn parents_of(nodes: Vec<Separated>) -> Vec<Separated> {
    let each = nodes.len().div_ceil(nodes.len().div_ceil(INNER_FILL).max(1));
    let mut parents = Vec::with_capacity(nodes.len().div_ceil(each.max(1)));
    let mut open: Option<(Vec<u8>, Inner)> = None;
    for (before, node) in nodes {
        open = match open {
            Some((first, inner)) if is_full(&inner, each) => {
                parents.push((first, Link::Inner(Arc::new(sealed(inner)))));
                None
            }
            open => open,
        };
        match &mut open {
            Some((_, inner)) => {
                inner.separators.push_unsealed(&before);
                inner.children.push(node);
            }
            None => open = Some((before, Inner { children: Children::from_iter([node]), ..Inner::default() })),
        }
    }
    parents.extend(open.map(|(first, inner)| (first, Link::Inner(Arc::new(sealed(inner))))));
    parents
}

fn is_full(inner: &Inner, each: usize) -> bool {
    let len = inner.children.len();
    len >= each || (len >= MIN_CHILDREN && inner.separators.size() > INNER_BYTES / 8 * 7)
}

/// The finished node, with no more memory than it needs.
fn sealed(mut inner: Inner) -> Inner {
    inner.separators.seal();
    inner
}
