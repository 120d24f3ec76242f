//! Carrying out a whole batch of writes: each leaf that they touch is made anew once.
//!
//! The nodes from the root down are handed the writes that fall to them, and hand back the nodes that take their place: none, one,
//! or several, all equally deep. Large batches are dealt out to several threads, by the subtrees that they fall to.
//! Nodes that a clone shares are left as they are.

use super::Tree;
use super::batch::{Batch, Sorted};
use super::build::{Builder, LEAF_FILL, Placed, parents_of, root_of};
use super::leaf::{LEAF_BYTES, Leaf};
use super::node::{Inner, Link};
use super::spares::LeafPool;
use crate::kv::deal::{deal, most_threads};
use std::ops::Range;
use std::sync::Arc;

/// Smaller batches are carried out write by write.
const FEW: usize = 32;
/// A thread more for so many writes.
const PER_THREAD: usize = if cfg!(test) { 64 } else { 16 << 10 };
/// The subtrees dealt out are at least so many, if the tree is deep enough.
const SUBTREES: usize = 32;
/// So many writes are fetched from memory at once.
const AT_ONCE: usize = 32;
/// So few writes to a leaf that has room for them are carried out in place.
const FEW_TO_A_LEAF: usize = 2;

impl Tree {
    /// Carries out all writes of a batch, as if in the order in which they came, and empties it.
    pub(crate) fn merge(&mut self, batch: &mut Batch) {
        let threads = (batch.len() / PER_THREAD).clamp(1, most_threads());
        let writes = batch.sort(threads);
        if self.is_empty() {
            *self = Tree { spares: Arc::clone(&self.spares), ..built(writes, threads) };
        } else if writes.len() < FEW {
            for (key, value) in writes.iter() {
                match value {
                    Some(value) => drop(self.insert_seeing(key, value, |_| ())),
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
        while nodes.len() < SUBTREES && nodes.iter().any(|(_, node)| matches!(node, Link::Inner(_))) {
            nodes = nodes.into_iter().flat_map(children_of).collect();
        }
        let spares = Arc::clone(&self.spares);
        let done = deal(share_out(nodes, writes), threads, |(node, writes)| {
            let mut merger = Merger { spares: Arc::clone(&spares), ..Merger::default() };
            merger.node(node, writes);
            merger
        });
        let mut nodes = Vec::with_capacity(done.len());
        for part in done {
            self.len = self.len.wrapping_add_signed(part.len);
            self.payload_bytes = self.payload_bytes.wrapping_add_signed(part.payload_bytes);
            part.nodes.into_iter().for_each(|node| push(&mut nodes, node));
        }
        self.root = root_of(nodes);
        self.drop_lone_roots();
    }
}

/// The tree of what the writes leave.
fn built(writes: Sorted<'_>, threads: usize) -> Tree {
    let each = writes.len().div_ceil(threads).max(1);
    let parts = (0..writes.len()).step_by(each).map(|from| writes.slice(from..writes.len().min(from + each)));
    let runs = deal(parts.collect(), threads, |part| {
        let mut builder = Builder::default();
        for from in (0..part.len()).step_by(AT_ONCE) {
            let few = part.slice(from..part.len().min(from + AT_ONCE));
            few.touch();
            for (key, value) in few.iter() {
                if let Some(value) = value {
                    // nothing else could be made of a batch that is not in order, and to leave a write out would be a silent loss
                    assert!(builder.push(key, value).is_ok(), "the writes are sorted");
                }
            }
        }
        builder.finish_run()
    });
    Tree::from_runs(runs).unwrap_or_else(|error| unreachable!("the parts follow one another: {error}"))
}

/// The children of an inner node, or the leaf itself.
fn children_of((before, node): Placed) -> Vec<Placed> {
    match node {
        Link::Leaf(_) => vec![(before, node)],
        Link::Inner(inner) => {
            let Inner { separators, children } = Arc::unwrap_or_clone(inner);
            let befores = std::iter::once(before).chain((0..separators.len()).map(|at| separators.key(at).to_vec()));
            befores.zip(children).collect()
        }
    }
}

/// Gives each node its writes.
fn share_out(nodes: Vec<Placed>, mut writes: Sorted<'_>) -> Vec<(Placed, Sorted<'_>)> {
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

/// Appends a node. If the one before it or it is small, and they fit into one, they become one.
fn push(nodes: &mut Vec<Placed>, (before, node): Placed) {
    match nodes.last_mut() {
        Some((_, last)) if (node.is_small() || last.is_small()) && last.fits_with(&node) => last.absorb(&before, node),
        _ => nodes.push((before, node)),
    }
}

/// Makes nodes anew.
#[derive(Default)]
struct Merger {
    nodes: Vec<Placed>,
    /// How many entries there are more or less.
    len: isize,
    payload_bytes: i64,
    /// Where each write of a leaf goes.
    spots: Vec<Result<usize, usize>>,
    /// An empty leaf with room for the most, to be used again.
    spare: Option<Arc<Leaf>>,
    spares: Arc<LeafPool>,
}

impl Merger {
    fn node(&mut self, (before, node): Placed, writes: Sorted<'_>) {
        if writes.is_empty() {
            return self.nodes.push((before, node));
        }
        if writes.len() <= AT_ONCE {
            writes.touch();
        }
        match node {
            Link::Leaf(leaf) if writes.len() <= FEW_TO_A_LEAF && has_room(&leaf, writes) => {
                self.change_leaf(before, leaf, writes);
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

    /// Carries out writes to a leaf that will not have to be split.
    fn change_leaf(&mut self, before: Vec<u8>, mut leaf: Arc<Leaf>, writes: Sorted<'_>) {
        for (key, value) in writes.iter() {
            let previous = match value {
                Some(value) => Leaf::insert(&mut leaf, key, value, &self.spares, <[u8]>::len).0,
                None => Leaf::remove(&mut leaf, key, &self.spares, <[u8]>::len),
            };
            self.count(key, value, previous);
        }
        if leaf.len() > 0 {
            push(&mut self.nodes, (before, Link::Leaf(leaf)));
        }
    }

    /// Makes a leaf anew, with its writes: as many leaves as it takes, about equally full.
    fn merge_leaf(&mut self, before: Vec<u8>, leaf: &Leaf, writes: Sorted<'_>) {
        let size = self.find_spots(leaf, writes);
        let count = if size <= LEAF_BYTES { 1 } else { size.div_ceil(LEAF_FILL) };
        let (open, each) = match self.spare.take() {
            _ if count == 1 => (Leaf::zeroed(size), None),
            Some(spare) => (spare, Some(size.div_ceil(count))),
            None => (Leaf::zeroed(LEAF_BYTES), Some(size.div_ceil(count))),
        };
        let mut pieces = Pieces { open, each, before: Some(before), nodes: &mut self.nodes };
        let mut from = 0;
        for ((key, value), spot) in writes.iter().zip(&self.spots) {
            let at = spot.unwrap_or_else(|at| at);
            pieces.copy(leaf, from..at);
            from = at + usize::from(spot.is_ok());
            if let Some(value) = value {
                pieces.push(key, value);
            }
        }
        pieces.copy(leaf, from..leaf.len());
        pieces.close();
        self.spare = each.map(|_| pieces.open);
    }

    /// Finds where the writes go. Returns the size of what they leave.
    fn find_spots(&mut self, leaf: &Leaf, writes: Sorted<'_>) -> usize {
        let mut size = leaf.size();
        self.spots.clear();
        for (key, value) in writes.iter() {
            let spot = leaf.search(key);
            self.spots.push(spot);
            let previous = spot.ok().map(|at| {
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
        self.len += isize::from(value.is_some()) - isize::from(previous.is_some());
        self.payload_bytes += value.map_or(0, |value| entry(value.len())) - previous.map_or(0, entry);
    }
}

/// Whether the leaf will not be too large with the writes.
fn has_room(leaf: &Leaf, writes: Sorted<'_>) -> bool {
    let more = writes.iter().map(|(key, value)| value.map_or(0, |value| Leaf::size_of(key, value)));
    leaf.size() + more.sum::<usize>() <= LEAF_BYTES
}

/// Leaves that take the place of one.
struct Pieces<'a> {
    /// The piece being made. Nobody else holds it.
    open: Arc<Leaf>,
    /// The size at which a piece is finished; `None` if there is to be one only, and the open leaf is of its very size.
    each: Option<usize>,
    /// The separator before the first piece, until that is finished.
    before: Option<Vec<u8>>,
    nodes: &'a mut Vec<Placed>,
}

impl Pieces<'_> {
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

    /// Finishes the open piece, if it has an entry.
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
