//! Walking a key range from both ends.
//!
//! Each end is a cursor that stands on an entry and remembers the leaf's parent, so that only the step from the last child of
//! one parent to the next parent costs a search. Invariant: until the walk is over, the front cursor stands at or before the back
//! cursor, and both on entries within the bounds.

use super::Tree;
use super::leaf::{Leaf, Stretch};
use super::node::{Inner, Link};
use std::iter::FusedIterator;
use std::ops::Bound;
use std::sync::Arc;

/// The entries of a key range, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Range<'a> {
    ends: Option<(Cursor<'a>, Cursor<'a>)>,
    /// The entries before the one on which the front stands, in its leaf, which it has passed and not yet given out.
    clear: Stretch<'a>,
}

/// Entries of one leaf, kept without the tree.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    leaf: Arc<Leaf>,
    entries: std::ops::Range<usize>,
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

/// A place in the tree: an entry.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    root: &'a Link,
    place: Place<'a>,
    at: usize,
}

/// A leaf, and which child of which node it is, unless it is the root.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    parent: Option<(&'a Inner, usize)>,
    leaf: &'a Arc<Leaf>,
}

impl<'a> Range<'a> {
    pub(super) fn new(tree: &'a Tree, (start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> Self {
        let ends = tree.root.as_ref().and_then(|root| {
            let front = Cursor::first(root, start)?;
            let back = Cursor::last(root, end)?;
            // Inverted bounds, and bounds with nothing between them, put the last entry before the first.
            (front.item().0 <= back.item().0).then_some((front, back))
        });
        let mut range = Range { ends, clear: Stretch::default() };
        range.run_ahead();
        range
    }

    /// Lets the front pass what lies before the last entry of its leaf, or before the back.
    fn run_ahead(&mut self) {
        let Some((front, back)) = &mut self.ends else { return };
        let leaf = front.place.leaf;
        let last = if front.shares_leaf(back) { back.at } else { leaf.len() - 1 };
        let from = std::mem::replace(&mut front.at, last);
        self.clear = leaf.stretch(from..last);
    }

    /// Lets the front go back to what it has not yet given out.
    fn call_back(&mut self) {
        if let Some((front, _)) = &mut self.ends {
            front.at -= self.clear.len();
            self.clear = Stretch::default();
        }
    }

    /// As many entries at an end as lie in one leaf.
    pub(crate) fn piece(&self, end: End) -> Option<Piece> {
        let (front, back) = self.ends.as_ref()?;
        let from = front.at - self.clear.len();
        let (leaf, entries) = match end {
            _ if front.shares_leaf(back) => (front.place.leaf, from..back.at + 1),
            End::Front => (front.place.leaf, from..front.place.leaf.len()),
            End::Back => (back.place.leaf, 0..back.at + 1),
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
            if let Some(next) = front.place.beside(1) {
                next.leaf.touch();
            }
            front.place.leaf.touch_entries();
        }
        self.run_ahead();
        Some(item)
    }
}

impl Piece {
    /// Hands the entry at an end to `f`, and takes it off.
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

    /// The first or the last key that is left.
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
        match self.clear.next() {
            None => self.next_at_edge(),
            item => item,
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.call_back();
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
    /// The first entry that `start` admits.
    fn first(root: &'a Link, start: Bound<&[u8]>) -> Option<Self> {
        let (key, behind) = match start {
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
            Bound::Unbounded => (&[][..], false),
        };
        let place = Place::under(root, |inner| inner.child_of(key));
        let at = match place.leaf.search(key) {
            Ok(at) => at + usize::from(behind),
            Err(at) => at,
        };
        let mut cursor = Cursor { root, place, at };
        (at < place.leaf.len() || cursor.next_leaf()).then_some(cursor)
    }

    /// The last entry that `end` admits.
    fn last(root: &'a Link, end: Bound<&[u8]>) -> Option<Self> {
        let (key, with) = match end {
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
            Bound::Unbounded => {
                let place = Place::under(root, |inner| inner.children.len() - 1);
                return place.leaf.len().checked_sub(1).map(|at| Cursor { root, place, at });
            }
        };
        let place = Place::under(root, |inner| inner.child_of(key));
        let count = match place.leaf.search(key) {
            Ok(at) => at + usize::from(with),
            Err(at) => at,
        };
        let mut cursor = Cursor { root, place, at: count.saturating_sub(1) };
        (count > 0 || cursor.previous_leaf()).then_some(cursor)
    }

    #[inline]
    fn item(&self) -> (&'a [u8], &'a [u8]) {
        self.place.leaf.item(self.at)
    }

    #[inline]
    fn meets(&self, other: &Cursor<'a>) -> bool {
        self.at == other.at && self.shares_leaf(other)
    }

    #[inline]
    fn shares_leaf(&self, other: &Cursor<'a>) -> bool {
        Arc::ptr_eq(self.place.leaf, other.place.leaf)
    }

    /// Steps to the next entry, if there is one.
    #[inline]
    fn forward(&mut self) -> bool {
        if self.at + 1 < self.place.leaf.len() {
            self.at += 1;
            return true;
        }
        self.next_leaf()
    }

    /// Steps to the entry before, if there is one.
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
        let next = self.place.beside(1).or_else(|| self.place.far_beside(self.root, 1, |_| 0));
        let Some(place) = next else { return false };
        (self.place, self.at) = (place, 0);
        true
    }

    fn previous_leaf(&mut self) -> bool {
        let last = |inner: &Inner| inner.children.len() - 1;
        let before = self.place.beside(-1).or_else(|| self.place.far_beside(self.root, -1, last));
        let Some(place) = before else { return false };
        (self.place, self.at) = (place, place.leaf.len() - 1);
        true
    }
}

impl<'a> Place<'a> {
    /// A leaf below `node`.
    fn under(mut node: &'a Link, choose: impl Fn(&Inner) -> usize) -> Self {
        let mut parent = None;
        loop {
            match node {
                Link::Leaf(leaf) => return Place { parent, leaf },
                Link::Inner(inner) => {
                    let at = choose(inner);
                    parent = Some((&**inner, at));
                    node = &inner.children[at];
                }
            }
        }
    }

    /// The leaf so far away among the children of the same parent.
    #[inline]
    fn beside(&self, step: isize) -> Option<Self> {
        let (inner, at) = self.parent?;
        let at = at.checked_add_signed(step)?;
        match inner.children.get(at)? {
            Link::Leaf(leaf) => Some(Place { parent: Some((inner, at)), leaf }),
            Link::Inner(_) => None,
        }
    }

    /// The leaf beside this one, which is at an end of its parent: beneath the lowest node on the way here that has a child on that side,
    /// it is at that child's near end.
    #[cold]
    fn far_beside(&self, root: &'a Link, step: isize, near_end: impl Fn(&Inner) -> usize) -> Option<Self> {
        let key = self.leaf.last_key()?;
        let (mut node, mut beside) = (root, None);
        while let Link::Inner(inner) = node {
            let at = inner.child_of(key);
            beside = at.checked_add_signed(step).and_then(|at| inner.children.get(at)).or(beside);
            node = &inner.children[at];
        }
        beside.map(|node| Place::under(node, near_end))
    }
}
