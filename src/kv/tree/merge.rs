//! Merging a batch of sorted writes into the tree: each leaf that they change is rebuilt once.
//!
//! Each node, from the root down, gets the writes to its keys and returns the nodes that replace
//! it: none, one or several of equal depth. Large batches are merged by several threads, each with
//! some subtrees. Nodes that a clone shares are not changed.

use super::Tree;
use super::batch::{Batch, Sorted};
use super::build::{Builder, LEAF_FILL, Separated, parents_of, root_of};
use super::leaf::{LEAF_BYTES, Leaf};
use super::leaf_pool::LeafPool;
use super::node::{Inner, Link};
use crate::io::parallel::{max_threads, parallel_map};
use std::ops::Range;
use std::sync::Arc;

/// Smaller batches are applied write by write: for them, rebuilding leaves costs more than it
/// saves.
const MIN_MERGED: usize = 32;
/// The least number of subtrees that are shared out, if the tree is deep enough: four for each of
/// eight threads, so that stealing evens out the load.
const MIN_SUBTREES: usize = 32;
/// How many writes are prefetched together. More would not fit the cache misses that a core has
/// under way.
const PREFETCHED_WRITES: usize = 32;
/// Up to this number of writes, a leaf with room for them is edited in place instead of rebuilt.
const MAX_EDITS_IN_PLACE: usize = 2;

impl Tree {
    /// Applies all writes of a batch, as if in the order of their arrival, and empties it.
    pub(crate) fn merge(&mut self, batch: &mut Batch) {
        let threads = batch.threads(max_threads());
        let writes = batch.sort(threads);
        if self.is_empty() {
            *self = Tree { pool: Arc::clone(&self.pool), ..built(writes, threads) };
        } else if writes.len() < MIN_MERGED {
            for (key, value) in writes.iter() {
                match value {
                    Some(value) => drop(self.insert_and_read(key, value, |_| ())),
                    None => drop(self.remove(key)),
                }
            }
        } else {
            self.merge_sorted(writes, threads);
        }
        batch.clear();
    }

    fn merge_sorted(&mut self, writes: Sorted<'_>, threads: usize) {
        let mut nodes: Vec<_> = self.root.take().map(|root| (Vec::new(), root)).into_iter().collect();
        while nodes.len() < MIN_SUBTREES && nodes.iter().any(|(_, node)| matches!(node, Link::Inner(_))) {
            nodes = nodes.into_iter().flat_map(children_of).collect();
        }
        let pool = &self.pool;
        let merged = parallel_map(share_out(nodes, writes), threads, |(node, writes)| {
            let mut merger = Merger { pool: Arc::clone(pool), ..Merger::default() };
            merger.node(node, writes);
            merger
        });
        let mut nodes = Vec::with_capacity(merged.len());
        for part in merged {
            debug_assert!(self.len.checked_add_signed(part.added_len).is_some(), "more is removed than there was");
            self.len = self.len.wrapping_add_signed(part.added_len);
            self.payload_bytes = self.payload_bytes.wrapping_add_signed(part.added_bytes);
            part.nodes.into_iter().for_each(|node| push(&mut nodes, node));
        }
        self.root = root_of(nodes);
        self.collapse_root();
    }
}

/// Builds a tree from the writes alone.
fn built(writes: Sorted<'_>, threads: usize) -> Tree {
    let each = writes.len().div_ceil(threads).max(1);
    let parts = (0..writes.len()).step_by(each).map(|from| writes.slice(from..writes.len().min(from + each)));
    let runs = parallel_map(parts.collect(), threads, |part| {
        let mut builder = Builder::default();
        for from in (0..part.len()).step_by(PREFETCHED_WRITES) {
            let few = part.slice(from..part.len().min(from + PREFETCHED_WRITES));
            few.prefetch();
            for (key, value) in few.iter() {
                if let Some(value) = value {
                    // leaving a write out would lose it silently
                    assert!(builder.push(key, value).is_ok(), "a batch is not sorted");
                }
            }
        }
        builder.finish_run()
    });
    Tree::from_runs(runs).unwrap_or_else(|error| unreachable!("a batch is not sorted: {error}"))
}

/// The children of an inner node, or the leaf itself.
fn children_of((before, node): Separated) -> Vec<Separated> {
    match node {
        Link::Leaf(_) => vec![(before, node)],
        Link::Inner(inner) => {
            let Inner { separators, children } = Arc::unwrap_or_clone(inner);
            let befores = std::iter::once(before).chain((0..separators.len()).map(|at| separators.key(at).to_vec()));
            befores.zip(children).collect()
        }
    }
}

/// Splits the writes among the nodes.
fn share_out(nodes: Vec<Separated>, mut writes: Sorted<'_>) -> Vec<(Separated, Sorted<'_>)> {
    let mut shares = Vec::with_capacity(nodes.len());
    let mut nodes = nodes.into_iter().peekable();
    while let Some(node) = nodes.next() {
        let own = match nodes.peek() {
            Some((separator, _)) => {
                let (own, behind) = writes.split(separator);
                writes = behind;
                own
            }
            None => writes,
        };
        shares.push((node, own));
    }
    shares
}

/// Appends a node. If it or the node before it is small and they fit into one, it merges them.
fn push(nodes: &mut Vec<Separated>, (before, node): Separated) {
    match nodes.last_mut() {
        Some((_, last)) if (node.is_small() || last.is_small()) && last.fits_with(&node) => last.absorb(&before, node),
        _ => nodes.push((before, node)),
    }
}

/// Rebuilds nodes with the writes to them.
#[derive(Default)]
struct Merger {
    nodes: Vec<Separated>,
    /// How many entries were added, less those removed.
    added_len: isize,
    added_bytes: i64,
    /// Where each write to a leaf goes: the result of a search.
    positions: Vec<Result<usize, usize>>,
    /// An empty leaf of the largest size, to be reused.
    scratch: Option<Arc<Leaf>>,
    pool: Arc<LeafPool>,
}

impl Merger {
    fn node(&mut self, (before, node): Separated, writes: Sorted<'_>) {
        if writes.is_empty() {
            return self.nodes.push((before, node));
        }
        if writes.len() <= PREFETCHED_WRITES {
            writes.prefetch();
        }
        match node {
            Link::Leaf(leaf) if writes.len() <= MAX_EDITS_IN_PLACE && has_room(&leaf, writes) => {
                self.edit_leaf(before, leaf, writes);
            }
            Link::Leaf(leaf) => self.merge_leaf(before, &leaf, writes),
            inner => {
                let above = std::mem::take(&mut self.nodes);
                for (child, writes) in share_out(children_of((before, inner)), writes) {
                    self.node(child, writes);
                }
                let below = std::mem::replace(&mut self.nodes, above);
                parents_of(below).into_iter().for_each(|node| push(&mut self.nodes, node));
            }
        }
    }

    /// Applies writes to a leaf that has room for them.
    fn edit_leaf(&mut self, before: Vec<u8>, mut leaf: Arc<Leaf>, writes: Sorted<'_>) {
        for (key, value) in writes.iter() {
            let previous = match value {
                Some(value) => Leaf::insert(&mut leaf, key, value, &self.pool, <[u8]>::len).0,
                None => Leaf::remove(&mut leaf, key, &self.pool, <[u8]>::len),
            };
            self.count(key, value, previous);
        }
        if leaf.len() > 0 {
            push(&mut self.nodes, (before, Link::Leaf(leaf)));
        }
    }

    /// Rebuilds a leaf with the writes to it: as many leaves as needed, about equally full.
    fn merge_leaf(&mut self, before: Vec<u8>, leaf: &Leaf, writes: Sorted<'_>) {
        let size = self.find_positions(leaf, writes);
        let count = if size <= LEAF_BYTES { 1 } else { size.div_ceil(LEAF_FILL) };
        let (open, each) = match self.scratch.take() {
            _ if count == 1 => (Leaf::zeroed(size), None),
            Some(scratch) => (scratch, Some(size.div_ceil(count))),
            None => (Leaf::zeroed(LEAF_BYTES), Some(size.div_ceil(count))),
        };
        let mut leaves = Replacements { open, each, before: Some(before), nodes: &mut self.nodes };
        let mut from = 0;
        for ((key, value), position) in writes.iter().zip(&self.positions) {
            let at = position.unwrap_or_else(|at| at);
            leaves.copy(leaf, from..at);
            from = at + usize::from(position.is_ok());
            if let Some(value) = value {
                leaves.push(key, value);
            }
        }
        leaves.copy(leaf, from..leaf.len());
        leaves.close();
        self.scratch = each.map(|_| leaves.open);
    }

    /// Searches the positions of the writes. Returns the size of all entries after them.
    fn find_positions(&mut self, leaf: &Leaf, writes: Sorted<'_>) -> usize {
        let mut size = leaf.size();
        self.positions.clear();
        for (key, value) in writes.iter() {
            let position = leaf.search(key);
            self.positions.push(position);
            let previous = position.ok().map(|at| {
                size -= leaf.size_at(at);
                leaf.value(at).len()
            });
            size += value.map_or(0, |value| Leaf::size_of(key, value));
            self.count(key, value, previous);
        }
        size
    }

    fn count(&mut self, key: &[u8], value: Option<&[u8]>, previous: Option<usize>) {
        let entry = |value: usize| (key.len() + value) as i64;
        self.added_len += isize::from(value.is_some()) - isize::from(previous.is_some());
        self.added_bytes += value.map_or(0, |value| entry(value.len())) - previous.map_or(0, entry);
    }
}

/// Whether the leaf need not be split for the writes.
fn has_room(leaf: &Leaf, writes: Sorted<'_>) -> bool {
    let more = writes.iter().map(|(key, value)| value.map_or(0, |value| Leaf::size_of(key, value)));
    leaf.size() + more.sum::<usize>() <= LEAF_BYTES
}

/// The leaves that replace one.
struct Replacements<'a> {
    /// The leaf being filled. Nothing else holds it.
    open: Arc<Leaf>,
    /// The size at which a leaf is finished; `None` if `open` is to be the only one and has the
    /// exact size.
    each: Option<usize>,
    /// The separator before the first leaf, until that is finished.
    before: Option<Vec<u8>>,
    nodes: &'a mut Vec<Separated>,
}

impl Replacements<'_> {
    /// Appends entries of a leaf.
    fn copy(&mut self, from: &Leaf, range: Range<usize>) {
        if self.each.is_none() {
            return self.add(|open| open.push_entries(from, range));
        }
        for at in range {
            self.make_room(from.size_at(at));
            self.add(|open| open.push_entries(from, at..at + 1));
        }
    }

    /// Appends an entry.
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.make_room(Leaf::size_of(key, value));
        self.add(|open| open.push_unsealed(key, value));
    }

    fn add(&mut self, add: impl FnOnce(&mut Leaf)) {
        if let Some(open) = Arc::get_mut(&mut self.open) {
            add(open);
        }
    }

    fn make_room(&mut self, more: usize) {
        let size = self.open.size();
        if self.each.is_some_and(|each| size > 0 && (size >= each || size + more > LEAF_BYTES)) {
            self.close();
        }
    }

    /// Finishes the open leaf, if it has an entry.
    fn close(&mut self) {
        if self.open.len() == 0 {
            return;
        }
        let leaf = match self.each {
            Some(_) => self.open.finished(),
            None => {
                self.add(Leaf::seal);
                Arc::clone(&self.open)
            }
        };
        let before = match (self.before.take(), self.nodes.last()) {
            (None, Some((_, Link::Leaf(last)))) => last.separator_before(&leaf),
            (before, _) => before.unwrap_or_default(),
        };
        push(self.nodes, (before, Link::Leaf(leaf)));
        self.add(|leaf| _ = leaf.clear());
    }
}
