//! Links to nodes, and the inner nodes.
//!
//! Invariants: an inner node has one child more than separators; all keys under child `i` are below separator `i`,
//! which is at or below all keys under child `i + 1`; all children are of one kind.
//!
//! A node does not know its depth, nor who else holds it: a link copies what is shared before it is changed.

use super::leaf::{LEAF_BYTES, LINE, Leaf};
use super::separators::Separators;
use super::spares::LeafPool;
use arrayvec::ArrayVec;
use std::hint::black_box;
use std::sync::Arc;

/// An inner node with more children is split.
pub(super) const INNER_CHILDREN: usize = 64;
/// An inner node whose separators take more is split, if it has at least eight children.
pub(super) const INNER_BYTES: usize = 16 << 10;

/// A node, shared between trees until one of them changes it.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

/// So many children lie in a line of memory.
const A_LINE: usize = LINE / size_of::<Link>();

const _: () = assert!(size_of::<Link>() == 16);
const _: () = assert!(INNER_CHILDREN <= super::separators::MOST);

/// As many as there can be, just before a node is split.
pub(super) type Children = ArrayVec<Link, { INNER_CHILDREN + 1 }>;

/// An inner node: all that a search reads of it is in one piece of memory.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct Inner {
    pub(super) separators: Separators,
    pub(super) children: Children,
}

/// What a node that became too large gives to its parent: the separator, and the node to its right.
pub(super) type Split = Option<(Vec<u8>, Link)>;

impl Link {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Link::Leaf(leaf) => leaf.len() == 0,
            Link::Inner(inner) => inner.children.is_empty(),
        }
    }

    /// Whether a merge with a neighbour is worth a try.
    pub(super) fn is_small(&self) -> bool {
        match self {
            Link::Leaf(leaf) => leaf.size() < LEAF_BYTES / 3,
            Link::Inner(inner) => inner.children.len() < INNER_CHILDREN / 3,
        }
    }

    /// Whether the two make one node that will not be split again soon.
    pub(super) fn fits_with(&self, right: &Link) -> bool {
        match (self, right) {
            (Link::Leaf(a), Link::Leaf(b)) => a.size() + b.size() <= LEAF_BYTES / 4 * 3,
            (Link::Inner(a), Link::Inner(b)) => {
                a.children.len() + b.children.len() <= INNER_CHILDREN / 4 * 3
                    && a.separators.size() + b.separators.size() <= INNER_BYTES / 2
            }
            _ => false,
        }
    }

    /// Takes in the right neighbour. `separator` stood between the two.
    pub(super) fn absorb(&mut self, separator: &[u8], right: Link) {
        match (self, right) {
            (Link::Leaf(a), Link::Leaf(b)) => *a = Leaf::merge(a, &b),
            (Link::Inner(a), Link::Inner(b)) => {
                let (a, b) = (Arc::make_mut(a), Arc::unwrap_or_clone(b));
                a.separators.append(separator, &b.separators);
                a.children.extend(b.children);
            }
            _ => debug_assert!(false, "neighbours are equally deep"),
        }
    }

    /// Inserts or replaces. Returns what `seen` makes of the previous value.
    pub(super) fn insert<R>(
        &mut self,
        key: &[u8],
        value: &[u8],
        spares: &LeafPool,
        seen: impl FnOnce(&[u8]) -> R,
    ) -> (Option<R>, Split) {
        match self {
            Link::Leaf(leaf) => {
                let (previous, right) = Leaf::insert(leaf, key, value, spares, seen);
                (previous, right.map(|right| (leaf.separator_before(&right), Link::Leaf(right))))
            }
            Link::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let at = inner.child_of(key);
                let (previous, split) = inner.children[at].insert(key, value, spares, seen);
                (previous, split.and_then(|(separator, right)| inner.insert_split(at, &separator, right)))
            }
        }
    }

    /// Removes `key`. Returns what `seen` makes of its value.
    pub(super) fn remove<R>(&mut self, key: &[u8], spares: &LeafPool, seen: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match self {
            Link::Leaf(leaf) => Leaf::remove(leaf, key, spares, seen),
            Link::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let at = inner.child_of(key);
                let previous = inner.children[at].remove(key, spares, seen)?;
                inner.settle(at);
                Some(previous)
            }
        }
    }
}

impl Inner {
    /// Which child `key` falls to.
    #[inline]
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        self.touch_children();
        self.separators.at_or_below(key)
    }

    /// Reads from the lines where the children lie, so that they are on their way while the heads are.
    #[inline]
    fn touch_children(&self) {
        for at in (A_LINE / 2..INNER_CHILDREN).step_by(A_LINE) {
            black_box(matches!(self.children.get(at), Some(Link::Leaf(_))));
        }
    }

    /// Takes in a child's right half.
    pub(super) fn insert_split(&mut self, at: usize, separator: &[u8], right: Link) -> Split {
        self.separators.insert(at, separator);
        self.children.insert(at + 1, right);
        let len = self.children.len();
        if len <= INNER_CHILDREN && (self.separators.size() <= INNER_BYTES || len < 8) {
            return None;
        }
        let middle = if at + 2 == len { len - 2 } else { len / 2 };
        let (separator, separators) = self.separators.split_around(middle);
        let children = self.children.drain(middle..).collect();
        Some((separator, Link::Inner(Arc::new(Inner { separators, children }))))
    }

    /// Drops or merges the child at `at`, which has lost an entry, if it has become empty or small.
    fn settle(&mut self, at: usize) {
        if self.children[at].is_empty() {
            self.children.remove(at);
            if self.separators.len() > 0 {
                self.separators.remove(at.saturating_sub(1));
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
            let right = self.children.remove(left + 1);
            self.children[left].absorb(self.separators.key(left), right);
            self.separators.remove(left);
        }
    }
}
