//! Walking a key range from both ends.
//!
//! Each end is a cursor that stands on an entry and remembers the way down to it, so that a step costs no
//! search. Invariant: until the walk is over, the front cursor stands at or before the back cursor,
//! and both on entries within the bounds.

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

/// A place in the tree: an entry, and the way to it.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    path: Vec<(&'a Inner, usize)>,
    leaf: &'a Arc<Leaf>,
    at: usize,
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
        let last = if std::ptr::eq(&**front.leaf, &**back.leaf) { back.at } else { front.leaf.len() - 1 };
        let from = std::mem::replace(&mut front.at, last);
        self.clear = front.leaf.stretch(from..last);
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
            _ if std::ptr::eq(&**front.leaf, &**back.leaf) => (front.leaf, from..back.at + 1),
            End::Front => (front.leaf, from..front.leaf.len()),
            End::Back => (back.leaf, 0..back.at + 1),
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
            front.touch_next();
            front.leaf.touch_entries();
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
        let (path, leaf) = descend(root, |inner| inner.child_of(key));
        let at = match leaf.search(key) {
            Ok(at) => at + usize::from(behind),
            Err(at) => at,
        };
        let mut cursor = Cursor { path, leaf, at };
        (at < leaf.len() || cursor.next_leaf()).then_some(cursor)
    }

    /// The last entry that `end` admits.
    fn last(root: &'a Link, end: Bound<&[u8]>) -> Option<Self> {
        let (key, with) = match end {
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
            Bound::Unbounded => {
                let (path, leaf) = descend(root, |inner| inner.children.len() - 1);
                return leaf.len().checked_sub(1).map(|at| Cursor { path, leaf, at });
            }
        };
        let (path, leaf) = descend(root, |inner| inner.child_of(key));
        let count = match leaf.search(key) {
            Ok(at) => at + usize::from(with),
            Err(at) => at,
        };
        let mut cursor = Cursor { path, leaf, at: count.saturating_sub(1) };
        (count > 0 || cursor.previous_leaf()).then_some(cursor)
    }

    #[inline]
    fn item(&self) -> (&'a [u8], &'a [u8]) {
        self.leaf.item(self.at)
    }

    fn meets(&self, other: &Cursor<'a>) -> bool {
        self.at == other.at && std::ptr::eq(&**self.leaf, &**other.leaf)
    }

    /// Steps to the next entry, if there is one.
    #[inline]
    fn forward(&mut self) -> bool {
        if self.at + 1 < self.leaf.len() {
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

    /// Has the next leaf on its way while this one is being read, if the two have a parent in common.
    fn touch_next(&self) {
        if let Some((inner, at)) = self.path.last()
            && let Some(Link::Leaf(leaf)) = inner.children.get(at + 1)
        {
            leaf.touch();
        }
    }

    fn next_leaf(&mut self) -> bool {
        while let Some((inner, at)) = self.path.pop() {
            if let Some(child) = inner.children.get(at + 1) {
                self.path.push((inner, at + 1));
                self.leaf = descend_from(child, &mut self.path, |_| 0);
                self.at = 0;
                return true;
            }
        }
        false
    }

    fn previous_leaf(&mut self) -> bool {
        while let Some((inner, at)) = self.path.pop() {
            if let Some(before) = at.checked_sub(1) {
                self.path.push((inner, before));
                self.leaf = descend_from(&inner.children[before], &mut self.path, |inner| inner.children.len() - 1);
                self.at = self.leaf.len() - 1;
                return true;
            }
        }
        false
    }
}

type Path<'a> = Vec<(&'a Inner, usize)>;

fn descend<'a>(root: &'a Link, choose: impl Fn(&Inner) -> usize) -> (Path<'a>, &'a Arc<Leaf>) {
    let mut path = Vec::with_capacity(8);
    let leaf = descend_from(root, &mut path, choose);
    (path, leaf)
}

fn descend_from<'a>(mut node: &'a Link, path: &mut Path<'a>, choose: impl Fn(&Inner) -> usize) -> &'a Arc<Leaf> {
    loop {
        match node {
            Link::Leaf(leaf) => return leaf,
            Link::Inner(inner) => {
                let at = choose(inner);
                path.push((inner, at));
                node = &inner.children[at];
            }
        }
    }
}
