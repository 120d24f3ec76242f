//! The memory of leaves that are of no more use, for the leaves that come; and how much a frozen copy holds alone.
//!
//! A leaf that outgrows its memory leaves a place of a size that another one grows into before long. Handed on by size, it is filled
//! as it is; the allocator would make one with what is free beside it, cut that up for what comes next, and be left with pieces too
//! small for a leaf, a sixteenth of the whole. A few places of each size are enough.
//!
//! While a frozen copy is written out, the tree goes on and copies leaves, and what the copy has passed is let go of by the threads that
//! write it. Allocators keep memory apart by threads, so that what those free is of no use to the thread that copies; and so
//! these leaves, too, go from the ones to the other directly, all of them. No more than the few are kept once the copy has been written.

use super::leaf::{self, Leaf};
use super::node::Link;
use super::{DetachedLeaf, Tree};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// While a copy is being written out, a leaf of so many size classes serves where it fits: its own, and the next.
const NEAR: usize = 2;
/// So many of each size class are kept at other times, 6 MiB in all at the most.
const KEPT: usize = if cfg!(test) { 4 } else { 64 };

/// What a tree and its clones have in common.
#[derive(Debug, Default)]
pub(super) struct LeafPool {
    /// Whether a copy is being written out; only the first of several counts.
    draining: AtomicBool,
    /// The bytes of its entries that it has not passed.
    left: AtomicI64,
    /// About how many bytes of them nobody else holds any more.
    held: AtomicI64,
    /// Leaves by their size class.
    pool: Mutex<[Vec<Arc<Leaf>>; leaf::CLASSES]>,
}

impl LeafPool {
    /// Notes that the tree has replaced so many bytes that a clone still holds.
    pub(super) fn note_replaced(&self, bytes: usize) {
        if self.draining.load(Ordering::Relaxed) {
            self.held.fetch_add(bytes as i64, Ordering::Relaxed);
        }
    }

    /// Memory for a leaf of `size` bytes, which nobody else holds. It has no entries.
    pub(super) fn place(&self, size: usize) -> Arc<Leaf> {
        self.take(size).unwrap_or_else(|| Leaf::zeroed(size))
    }

    fn take(&self, size: usize) -> Option<Arc<Leaf>> {
        // whoever is there hands leaves over, too: it is not worth a wait
        let mut pool = self.pool.try_lock().ok()?;
        let class = leaf::class_of(size);
        let near = if self.draining.load(Ordering::Relaxed) { NEAR } else { 1 };
        pool.get_mut(class..leaf::CLASSES.min(class + near))?.iter_mut().find_map(Vec::pop)
    }

    /// Takes in a leaf that another one stands in for, if nobody else holds it.
    pub(super) fn give(&self, mut leaf: Arc<Leaf>) {
        let Some(only) = Arc::get_mut(&mut leaf) else { return };
        only.clear();
        let Ok(mut pool) = self.pool.try_lock() else { return };
        if let Some(class) = pool.get_mut(leaf.class())
            && (class.len() < KEPT || self.draining.load(Ordering::Relaxed))
        {
            class.push(leaf);
        }
    }

    /// How many bytes a copy that is being written out holds alone.
    pub(super) fn held(&self) -> u64 {
        // clones that are not written out hold leaves too, and so there is no more than what is left to pass
        let (held, left) = (self.held.load(Ordering::Relaxed), self.left.load(Ordering::Relaxed));
        held.min(left).max(0) as u64
    }

    /// Whether no more is kept than while no copy is being written out.
    #[cfg(test)]
    pub(super) fn keeps_few(&self) -> bool {
        self.pool.lock().is_ok_and(|pool| pool.iter().all(|class| class.len() <= KEPT))
    }
}

/// How many bytes lie in leaves that nobody else holds. Looks at no more nodes than have been replaced, and their children.
fn bytes_alone(link: &Link) -> usize {
    match link {
        Link::Leaf(leaf) if Arc::strong_count(leaf) == 1 => leaf.size_alone(),
        Link::Inner(inner) if Arc::strong_count(inner) == 1 => inner.children.iter().map(bytes_alone).sum(),
        Link::Leaf(_) | Link::Inner(_) => 0,
    }
}

/// Sees a frozen tree being written out.
#[derive(Debug)]
pub(crate) struct Drain(Option<Arc<LeafPool>>);

impl Drain {
    pub(super) fn of(tree: &Tree) -> Drain {
        let spares = &tree.spares;
        // a tree without clones has nobody to hand on to
        let first = Arc::strong_count(spares) > 1 && !spares.draining.swap(true, Ordering::AcqRel);
        if first {
            spares.left.store(tree.bytes() as i64, Ordering::Relaxed);
            // what was replaced since it was frozen, and nothing that came too late for the copy before
            spares.held.store(tree.root.as_ref().map_or(0, bytes_alone) as i64, Ordering::Relaxed);
        }
        Drain(first.then(|| Arc::clone(spares)))
    }

    /// Takes in leaves that have been written out.
    pub(crate) fn pass(&self, leaves: impl IntoIterator<Item = DetachedLeaf>) {
        let Some(spares) = &self.0 else { return leaves.into_iter().for_each(drop) };
        let (mut passed, mut alone) = (0, 0);
        let mut lone = Vec::new();
        for DetachedLeaf(mut leaf) in leaves {
            passed += leaf.full_size();
            if let Some(only) = Arc::get_mut(&mut leaf) {
                alone += only.size() + only.clear();
                lone.push(leaf);
            }
        }
        spares.left.fetch_sub(passed as i64, Ordering::Relaxed);
        // it is counted by and by and not exactly: what is given back must not hide what comes later
        let less = |held: i64| Some(held.saturating_sub(alone as i64).max(0));
        let _ = spares.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let mut pool = spares.pool.lock().unwrap_or_else(PoisonError::into_inner);
        for leaf in lone {
            if let Some(class) = pool.get_mut(leaf.class()) {
                class.push(leaf);
            }
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let Some(spares) = &self.0 else { return };
        spares.left.store(0, Ordering::Relaxed);
        spares.held.store(0, Ordering::Relaxed);
        spares.draining.store(false, Ordering::Release);
        let mut pool = spares.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let many = pool.iter_mut().filter(|class| class.len() > KEPT);
        let rest: Vec<_> = many
            .map(|class| {
                let few = class.split_off(class.len() - KEPT);
                std::mem::replace(class, few)
            })
            .collect();
        drop(pool);
        drop(rest);
    }
}
