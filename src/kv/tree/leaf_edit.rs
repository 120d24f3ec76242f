//! Copy-on-write edits of leaves: a leaf is changed in place if nothing else holds it, else in a
//! copy.
//!
//! Copies take their memory from the [`LeafPool`], and replaced leaves return to it.

use super::leaf::{LEAF_BYTES, Leaf, edited};
use super::leaf_pool::LeafPool;
use std::ops::Range;
use std::sync::Arc;

impl Leaf {
    /// Sets the value of `key`. Returns what `read` makes of the previous value, and the right half
    /// if the leaf had to be split.
    pub(super) fn insert<R>(
        this: &mut Arc<Leaf>,
        key: &[u8],
        value: &[u8],
        pool: &LeafPool,
        read: impl FnOnce(&[u8]) -> R,
    ) -> (Option<R>, Option<Arc<Leaf>>) {
        let (at, previous) = match this.search(key) {
            Ok(at) => {
                let previous = read(this.value(at));
                pool.note_replaced(Self::shared_value_bytes(this, at));
                let (old, new) = (this.size_at(at), Self::size_of(key, value));
                let size = this.size() + new.saturating_sub(old);
                make_mut(this, size, pool, |leaf| leaf.replace(at, value));
                (at, Some(previous))
            }
            Err(at) => {
                let size = this.size() + Self::size_of(key, value);
                make_mut(this, size, pool, |leaf| leaf.insert_at(at, key, value));
                (at, None)
            }
        };
        (previous, split(this, at, pool))
    }

    /// Removes `key`. Returns what `read` makes of its value.
    pub(super) fn remove<R>(
        this: &mut Arc<Leaf>,
        key: &[u8],
        pool: &LeafPool,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let at = this.search(key).ok()?;
        let previous = read(this.value(at));
        pool.note_replaced(Self::shared_value_bytes(this, at));
        let size = this.size();
        make_mut(this, size, pool, |leaf| leaf.remove_at(at));
        if this.size() < this.capacity() / 3 * 2 {
            reallocate(this, this.size(), pool);
        }
        Some(previous)
    }
}

/// Edits the leaf in place if nothing else holds it and it has the capacity for `size` bytes, else
/// in a copy that has.
fn make_mut(this: &mut Arc<Leaf>, size: usize, pool: &LeafPool, edit: impl FnOnce(&mut Leaf)) {
    match Arc::get_mut(this) {
        Some(leaf) if leaf.capacity() >= size => return edit(leaf),
        Some(_) => {}
        None => pool.note_replaced(this.size()),
    }
    reallocate(this, size, pool);
    if let Some(leaf) = Arc::get_mut(this) {
        edit(leaf);
    }
}

/// Replaces the leaf by a copy with the capacity for `size` bytes.
fn reallocate(this: &mut Arc<Leaf>, size: usize, pool: &LeafPool) {
    let copy = this.copy_into(pool.allocate(size));
    pool.recycle(std::mem::replace(this, copy));
}

/// Splits the leaf if it is too large. The entry at `changed` was the last to come.
fn split(this: &mut Arc<Leaf>, changed: usize, pool: &LeafPool) -> Option<Arc<Leaf>> {
    let len = this.len();
    if this.size() <= LEAF_BYTES || len < 2 {
        return None;
    }
    // keys that arrive in order leave full leaves behind them
    let at = if changed + 1 == len { changed } else { this.middle() };
    let [left, right] = [0..at, at..len].map(|range| copy_range(this, range, pool));
    pool.recycle(std::mem::replace(this, left));
    Some(right)
}

/// The entries of a range, in a leaf of the size that they need.
fn copy_range(leaf: &Leaf, range: Range<usize>, pool: &LeafPool) -> Arc<Leaf> {
    edited(pool.allocate(leaf.size_of_range(&range)), |copy| {
        copy.push_entries(leaf, range);
        copy.seal();
    })
}
