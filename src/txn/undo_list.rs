//! The inverses of a transaction's commands, the newest on top.
//!
//! It is a list of shared chunks. A checkpoint or a view copies it in constant time and undoes its
//! own copy while the transaction continues. The list depends on neither the log nor the locks.

use crate::ids::Lsn;
use crate::io::sync::Arc;

/// The maximum number of entries in a chunk. It bounds what a pop from a shared chunk copies.
const CHUNK_ENTRIES: usize = 64;

/// The memory of an inverse beyond its encoding, in bytes, because the allocator rounds each
/// allocation up.
const HEAP_OVERHEAD_BYTES: u64 = 32;

/// The inverse of one effect that was not undone yet.
#[derive(Clone, Debug)]
pub(crate) struct UndoEntry<C> {
    /// The LSN of the record whose command had the effect.
    pub(crate) lsn: Lsn,
    pub(crate) inverse: C,
    /// The length of the encoded inverse, in bytes.
    pub(crate) bytes: u64,
}

impl<C> UndoEntry<C> {
    /// The memory of an entry whose inverse has an encoding of `encoded_bytes` bytes. It is an
    /// estimate, because only the machine knows what an inverse holds in memory.
    pub(crate) fn memory_bytes(encoded_bytes: u64) -> u64 {
        (size_of::<Self>() as u64).saturating_add(HEAP_OVERHEAD_BYTES).saturating_add(encoded_bytes)
    }
}

#[derive(Debug)]
struct Chunk<C> {
    entries: Vec<UndoEntry<C>>,
    below: Option<Arc<Chunk<C>>>,
}

/// The inverses of a transaction.
#[derive(Debug)]
pub(crate) struct UndoList<C> {
    top: Option<Arc<Chunk<C>>>,
    len: usize,
    /// The sum of the lengths of the encoded inverses.
    bytes: u64,
}

impl<C> Clone for UndoList<C> {
    fn clone(&self) -> Self {
        UndoList { top: self.top.clone(), len: self.len, bytes: self.bytes }
    }
}

impl<C> Default for UndoList<C> {
    fn default() -> Self {
        UndoList { top: None, len: 0, bytes: 0 }
    }
}

impl<C: Clone> UndoList<C> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The memory that the list takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        UndoEntry::<C>::memory_bytes(0).saturating_mul(self.len as u64).saturating_add(self.bytes)
    }

    /// The LSN of the newest effect that was not undone yet.
    pub(crate) fn last_lsn(&self) -> Option<Lsn> {
        self.top.as_ref().and_then(|chunk| chunk.entries.last()).map(|entry| entry.lsn)
    }

    pub(crate) fn push(&mut self, entry: UndoEntry<C>) {
        self.len = self.len.saturating_add(1);
        self.bytes = self.bytes.saturating_add(entry.bytes);
        if let Some(chunk) = self.top.as_mut().and_then(Arc::get_mut)
            && chunk.entries.len() < CHUNK_ENTRIES
        {
            chunk.entries.push(entry);
            return;
        }
        self.top = Some(Arc::new(Chunk { entries: vec![entry], below: self.top.take() }));
    }

    pub(crate) fn pop(&mut self) -> Option<UndoEntry<C>> {
        let top = self.top.as_mut()?;
        let entry = match Arc::get_mut(top) {
            Some(chunk) => {
                let entry = chunk.entries.pop()?;
                if chunk.entries.is_empty() {
                    self.top = chunk.below.take();
                }
                entry
            }
            None => {
                let (entry, rest) = top.entries.split_last()?;
                let entry = entry.clone();
                self.top = if rest.is_empty() {
                    top.below.clone()
                } else {
                    Some(Arc::new(Chunk { entries: rest.to_vec(), below: top.below.clone() }))
                };
                entry
            }
        };
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }

    /// Calls `f` for each entry, the oldest first.
    pub(crate) fn for_each<E>(&self, mut f: impl FnMut(&UndoEntry<C>) -> Result<(), E>) -> Result<(), E> {
        let mut chunks = Vec::new();
        let mut at = self.top.as_ref();
        while let Some(chunk) = at {
            chunks.push(chunk);
            at = chunk.below.as_ref();
        }
        chunks.into_iter().rev().flat_map(|chunk| &chunk.entries).try_for_each(&mut f)
    }
}

impl<C> Drop for UndoList<C> {
    /// Drops the chunks in a loop: recursion over a long list would overflow the stack.
    fn drop(&mut self) {
        let mut at = self.top.take();
        while let Some(chunk) = at {
            at = Arc::into_inner(chunk).and_then(|mut chunk| chunk.below.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> UndoEntry<u64> {
        UndoEntry { lsn: Lsn::new(n), inverse: n, bytes: 3 }
    }

    #[test]
    fn a_copy_and_its_original_go_separate_ways() {
        let mut list = UndoList::default();
        (0..200).for_each(|n| list.push(entry(n)));
        let mut copy = list.clone();
        for n in (100..200).rev() {
            assert_eq!(copy.pop().unwrap().inverse, n);
        }
        (500..600).for_each(|n| copy.push(entry(n)));
        (200..300).for_each(|n| list.push(entry(n)));
        assert_eq!((list.len(), list.memory_bytes()), (300, 300 * UndoEntry::<u64>::memory_bytes(3)));
        let mut seen = Vec::new();
        copy.for_each(|e| {
            seen.push(e.inverse);
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!(seen, (0..100).chain(500..600).collect::<Vec<_>>());
        assert_eq!(list.last_lsn(), Some(Lsn::new(299)));
        for n in (0..300).rev() {
            assert_eq!(list.pop().unwrap().inverse, n);
        }
        assert!(list.pop().is_none());
    }

    #[test]
    fn a_long_list_is_dropped_without_recursion() {
        let mut list = UndoList::default();
        (0..2_000_000).for_each(|n| list.push(entry(n)));
        drop(list);
    }
}
