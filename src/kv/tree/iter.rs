//! Iterating over a key range from both ends.
//!
//! Each end is a cursor: an entry, its leaf, and the parent of the leaf. So only the step from one
//! parent to the next costs a search. Invariant: until the iteration ends, the front cursor is at
//! or before the back cursor, and both are on entries within the bounds.

use super::leaf::{Leaf, LeafIter};
use super::node::{Inner, Link};
use std::iter::FusedIterator;
use std::ops::Bound;
use std::sync::Arc;

/// The entries of a key range, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Range<'a> {
    /// The front and the back cursor; `None` at the end.
    ends: Option<(Cursor<'a>, Cursor<'a>)>,
    /// The entries of the front's leaf that the front cursor has passed but that are not yet
    /// returned. Taking them needs no comparison of the cursors.
    ahead: LeafIter<'a>,
}

/// Consecutive entries of one leaf. It holds the leaf and not the tree.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    leaf: Arc<Leaf>,
    entries: std::ops::Range<usize>,
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

/// The position of an entry in the tree.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    root: &'a Link,
    leaf: LeafCursor<'a>,
    at: usize,
}

/// The position of a leaf: its parent and its index there, unless it is the root.
#[derive(Clone, Copy, Debug)]
struct LeafCursor<'a> {
    parent: Option<(&'a Inner, usize)>,
    leaf: &'a Arc<Leaf>,
}

impl<'a> Range<'a> {
    /// The entries below `root`, which is the root of a tree, between two bounds.
    pub(super) fn new(root: Option<&'a Link>, (start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> Self {
        let ends = root.and_then(|root| {
            let front = Cursor::first(root, start)?;
            let back = Cursor::last(root, end)?;
            // inverted bounds, and bounds with nothing between them, put the last entry before the
            // first
            (front.item().0 <= back.item().0).then_some((front, back))
        });
        let mut range = Range { ends, ahead: LeafIter::default() };
        range.run_ahead();
        range
    }

    /// Moves the front cursor to the last entry of its leaf, or to the back cursor, and the entries
    /// that it passes to `ahead`.
    fn run_ahead(&mut self) {
        let Some((front, back)) = &mut self.ends else { return };
        let leaf = front.leaf.leaf;
        let last = if front.shares_leaf(back) { back.at } else { leaf.len() - 1 };
        let from = std::mem::replace(&mut front.at, last);
        self.ahead = leaf.iter(from..last);
    }

    /// Undoes [`run_ahead`](Self::run_ahead).
    fn return_from_ahead(&mut self) {
        if let Some((front, _)) = &mut self.ends {
            front.at -= self.ahead.len();
            self.ahead = LeafIter::default();
        }
    }

    /// The entries at one end that lie in one leaf.
    pub(crate) fn piece(&self, end: End) -> Option<Piece> {
        let (front, back) = self.ends.as_ref()?;
        let from = front.at - self.ahead.len();
        let (leaf, entries) = match end {
            _ if front.shares_leaf(back) => (front.leaf.leaf, from..back.at + 1),
            End::Front => (front.leaf.leaf, from..front.leaf.leaf.len()),
            End::Back => (back.leaf.leaf, 0..back.at + 1),
        };
        Some(Piece { leaf: Arc::clone(leaf), entries })
    }

    fn next_at_edge(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (front, back) = self.ends.as_mut()?;
        let item = front.item();
        if front.meets(back) || !front.forward() {
            self.ends = None;
            return Some(item);
        }
        if front.at == 0 {
            if let Some(next) = front.leaf.sibling(1) {
                next.leaf.prefetch_front();
            }
            front.leaf.leaf.prefetch_entries();
        }
        self.run_ahead();
        Some(item)
    }
}

impl Piece {
    /// Removes the entry at one end and returns what `f` makes of it.
    pub(crate) fn pop<R>(&mut self, end: End, f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let at = match end {
            End::Front => self.entries.next(),
            End::Back => self.entries.next_back(),
        };
        at.map(|at| {
            let (key, value) = self.leaf.item(at);
            f(key, value)
        })
    }

    /// The key at one end.
    pub(crate) fn key(&self, end: End) -> Option<&[u8]> {
        let at = match end {
            End::Front => self.entries.clone().next(),
            End::Back => self.entries.clone().next_back(),
        };
        at.map(|at| self.leaf.key(at))
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.ahead.next() {
            None => self.next_at_edge(),
            item => item,
        }
    }

    /// Counts leaf by leaf.
    fn count(mut self) -> usize {
        let mut count = 0;
        loop {
            count += std::mem::take(&mut self.ahead).len();
            if self.next().is_none() {
                return count;
            }
            count += 1;
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.return_from_ahead();
        let (front, back) = self.ends.as_mut()?;
        let item = back.item();
        if front.meets(back) || !back.backward() {
            self.ends = None;
        }
        self.run_ahead();
        Some(item)
    }
}

impl FusedIterator for Range<'_> {}

impl<'a> Cursor<'a> {
    /// The first entry within the bound `start`.
    fn first(root: &'a Link, start: Bound<&[u8]>) -> Option<Self> {
        let (key, behind) = match start {
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
            Bound::Unbounded => (&[][..], false),
        };
        let leaf = LeafCursor::below(root, |inner| inner.child_of(key));
        let at = match leaf.leaf.search(key) {
            Ok(at) => at + usize::from(behind),
            Err(at) => at,
        };
        let mut cursor = Cursor { root, leaf, at };
        (at < leaf.leaf.len() || cursor.next_leaf()).then_some(cursor)
    }

    /// The last entry within the bound `end`.
    fn last(root: &'a Link, end: Bound<&[u8]>) -> Option<Self> {
        let (key, with) = match end {
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
            Bound::Unbounded => {
                let leaf = LeafCursor::below(root, |inner| inner.children.len() - 1);
                return leaf.leaf.len().checked_sub(1).map(|at| Cursor { root, leaf, at });
            }
        };
        let leaf = LeafCursor::below(root, |inner| inner.child_of(key));
        let count = match leaf.leaf.search(key) {
            Ok(at) => at + usize::from(with),
            Err(at) => at,
        };
        let mut cursor = Cursor { root, leaf, at: count.saturating_sub(1) };
        (count > 0 || cursor.previous_leaf()).then_some(cursor)
    }

    #[inline]
    fn item(&self) -> (&'a [u8], &'a [u8]) {
        self.leaf.leaf.item(self.at)
    }

    #[inline]
    fn meets(&self, other: &Cursor<'a>) -> bool {
        self.at == other.at && self.shares_leaf(other)
    }

    #[inline]
    fn shares_leaf(&self, other: &Cursor<'a>) -> bool {
        Arc::ptr_eq(self.leaf.leaf, other.leaf.leaf)
    }

    /// Moves to the next entry. Returns `false` if there is none.
    #[inline]
    fn forward(&mut self) -> bool {
        if self.at + 1 < self.leaf.leaf.len() {
            self.at += 1;
            return true;
        }
        self.next_leaf()
    }

    /// Moves to the previous entry. Returns `false` if there is none.
    #[inline]
    fn backward(&mut self) -> bool {
        if self.at > 0 {
            self.at -= 1;
            return true;
        }
        self.previous_leaf()
    }

    #[inline]
    fn next_leaf(&mut self) -> bool {
        let next = self.leaf.sibling(1).or_else(|| self.leaf.cousin(self.root, 1, |_| 0));
        let Some(leaf) = next else { return false };
        (self.leaf, self.at) = (leaf, 0);
        true
    }

    fn previous_leaf(&mut self) -> bool {
        let last = |inner: &Inner| inner.children.len() - 1;
        let before = self.leaf.sibling(-1).or_else(|| self.leaf.cousin(self.root, -1, last));
        let Some(leaf) = before else { return false };
        (self.leaf, self.at) = (leaf, leaf.leaf.len() - 1);
        true
    }
}

impl<'a> LeafCursor<'a> {
    /// Descends from `node` to a leaf.
    fn below(mut node: &'a Link, choose: impl Fn(&Inner) -> usize) -> Self {
        let mut parent = None;
        loop {
            match node {
                Link::Leaf(leaf) => return LeafCursor { parent, leaf },
                Link::Inner(inner) => {
                    let at = choose(inner);
                    parent = Some((&**inner, at));
                    node = &inner.children[at];
                }
            }
        }
    }

    /// The leaf `step` places away under the same parent.
    #[inline]
    fn sibling(&self, step: isize) -> Option<Self> {
        let (inner, at) = self.parent?;
        let at = at.checked_add_signed(step)?;
        match inner.children.get(at)? {
            Link::Leaf(leaf) => Some(LeafCursor { parent: Some((inner, at)), leaf }),
            Link::Inner(_) => None,
        }
    }

    /// The neighboring leaf under another parent. The lowest common ancestor is the lowest node on
    /// the path to this leaf that has a child on that side; the neighbor is at the near end of that
    /// child.
    #[cold]
    fn cousin(&self, root: &'a Link, step: isize, near_end: impl Fn(&Inner) -> usize) -> Option<Self> {
        let key = self.leaf.last_key()?;
        let (mut node, mut beside) = (root, None);
        while let Link::Inner(inner) = node {
            let at = inner.child_of(key);
            beside = at.checked_add_signed(step).and_then(|at| inner.children.get(at)).or(beside);
            node = &inner.children[at];
        }
        beside.map(|node| LeafCursor::below(node, near_end))
    }
}
