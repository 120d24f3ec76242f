//! Building a tree from entries that come in order, bottom up.
//!
//! A [`Builder`] makes leaves, each of the size that it needs; what it has made is a [`Run`]. Runs that follow one another
//! are stitched to a tree, so that several threads can each build one. The inner nodes come last, level by level.

use super::Tree;
use super::head::separator;
use super::leaf::{LEAF_BYTES, Leaf};
use super::node::{Children, INNER_BYTES, INNER_CHILDREN, Inner, Link};
use std::fmt;
use std::sync::Arc;

/// How full leaves are made, so that the first insert does not split each.
pub(super) const LEAF_FILL: usize = LEAF_BYTES / 8 * 7;
/// How full inner nodes are made.
const INNER_FILL: usize = INNER_CHILDREN / 8 * 7;

/// Leaves being built from sorted entries.
pub(crate) struct Builder {
    /// The open leaf. Nobody else holds it.
    leaf: Arc<Leaf>,
    /// The separator before the leaf that is open.
    before: Vec<u8>,
    run: Run,
}

/// Finished leaves, in order: a piece of a tree.
#[derive(Debug, Default)]
pub(crate) struct Run {
    leaves: Vec<Placed>,
    first: Vec<u8>,
    last: Vec<u8>,
    len: usize,
    payload_bytes: u64,
}

/// A node, and the separator between it and the one before it. That of the first in a row means nothing.
pub(super) type Placed = (Vec<u8>, Link);

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
        // one run is in order
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
    /// The tree of all entries of the runs, each of which must begin above the end of the one before. Those without entries are passed
    /// over.
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
        let (root, spares) = (root_of(all.leaves), Arc::default());
        Ok(Tree { root, len: all.len, payload_bytes: all.payload_bytes, spares })
    }
}

/// The root above nodes that follow one another, equally deep.
pub(super) fn root_of(mut nodes: Vec<Placed>) -> Option<Link> {
    while nodes.len() > 1 {
        nodes = parents_of(nodes);
    }
    nodes.pop().map(|(_, root)| root)
}

/// The inner nodes right above: as few as hold them, about equally full, each tight.
pub(super) fn parents_of(nodes: Vec<Placed>) -> Vec<Placed> {
    let each = nodes.len().div_ceil(nodes.len().div_ceil(INNER_FILL).max(1));
    let mut parents = Vec::with_capacity(nodes.len().div_ceil(each.max(1)));
    let mut open: Option<(Vec<u8>, Inner)> = None;
    for (before, node) in nodes {
        open = match open {
            Some((first, inner)) if is_full(&inner, each) => {
                parents.push((first, Link::Inner(Arc::new(tight(inner)))));
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
    parents.extend(open.map(|(first, inner)| (first, Link::Inner(Arc::new(tight(inner))))));
    parents
}

fn is_full(inner: &Inner, each: usize) -> bool {
    let len = inner.children.len();
    len >= each || (len >= 8 && inner.separators.size() > INNER_BYTES / 8 * 7)
}

/// The finished node, with just the memory that it needs.
fn tight(mut inner: Inner) -> Inner {
    inner.separators.seal();
    inner
}
