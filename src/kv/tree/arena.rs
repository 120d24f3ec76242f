//! An append-only arena: bytes that never move, in blocks that double in size.
//!
//! Large blocks are memory maps in huge pages where the system has them. Small pages cost about as
//! much to fault in as to write, and random access to hundreds of megabytes would miss the TLB for
//! most of them. Maps also keep the heap free of large holes.

use super::tuning::Tuning;
use memmap2::MmapMut;
use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};

/// A larger block is a memory map. For a smaller one the system calls and page faults would cost
/// more than most uses of it.
const MAX_HEAP_BLOCK_BYTES: usize = 64 << 10;
/// The size of a huge page on the most common processors. A map of at least two asks for them.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Appended bytes.
#[derive(Debug)]
pub(super) struct Arena {
    /// The blocks in order. The last one is being filled.
    blocks: Vec<Block>,
    /// How many bytes of the last block are in use.
    filled: usize,
    /// How many bytes were appended.
    len: usize,
    /// Blocks to reuse.
    free: Vec<Block>,
    first_block_bytes: usize,
    max_block_bytes: usize,
}

/// The position of appended bytes. Positions ascend in the order of the appends.
pub(super) type Position = u64;

impl Arena {
    pub(super) fn new(tuning: &Tuning) -> Arena {
        let Tuning { first_block_bytes, max_block_bytes, .. } = *tuning;
        Arena { blocks: Vec::new(), filled: 0, len: 0, free: Vec::new(), first_block_bytes, max_block_bytes }
    }

    /// An arena with free blocks to reuse and one open block of at least `bytes` bytes.
    pub(super) fn with_free_blocks(free: Vec<Block>, bytes: usize, tuning: &Tuning) -> Arena {
        let mut arena = Arena { free, ..Arena::new(tuning) };
        arena.open_next(bytes);
        arena
    }

    /// How many bytes were appended.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends `len` contiguous bytes, to be filled by the caller, and returns their position.
    #[inline]
    pub(super) fn append(&mut self, len: usize) -> (Position, &mut [u8]) {
        if self.blocks.last().is_none_or(|block| block.len() - self.filled < len) {
            self.open_next(len);
        }
        let (open, from) = (self.blocks.len() - 1, self.filled);
        self.filled += len;
        self.len += len;
        ((open as u64) << 32 | from as u64, &mut self.blocks[open][from..from + len])
    }

    /// The bytes from a position to the end of its block.
    #[inline]
    pub(super) fn at(&self, position: Position) -> &[u8] {
        &self.blocks[(position >> 32) as usize][position as u32 as usize..]
    }

    /// Takes over the blocks of another arena. Returns the offset that its positions have from now
    /// on.
    pub(super) fn adopt(&mut self, other: Arena) -> Position {
        let base = self.blocks.len();
        if !other.blocks.is_empty() {
            self.filled = other.filled;
        }
        self.len += other.len;
        self.blocks.extend(other.blocks);
        self.free.extend(other.free);
        (base as u64) << 32
    }

    /// Removes all bytes and keeps the blocks for reuse.
    pub(super) fn clear(&mut self) {
        self.free.append(&mut self.blocks);
        (self.filled, self.len) = (0, 0);
    }

    /// Takes the blocks that are not in use.
    pub(super) fn take_free_blocks(&mut self) -> Vec<Block> {
        std::mem::take(&mut self.free)
    }

    /// Opens a block with room for `len` bytes.
    #[cold]
    fn open_next(&mut self, len: usize) {
        let next = match self.free.iter().position(|block| block.len() >= len) {
            Some(at) => self.free.swap_remove(at),
            None => {
                // these are too small for the parts that come now, and their memory would never be
                // used again
                self.free.clear();
                let all: usize = self.blocks.iter().map(|block| block.len()).sum();
                Block::zeroed(all.clamp(self.first_block_bytes, self.max_block_bytes).max(len))
            }
        };
        self.blocks.push(next);
        self.filled = 0;
    }
}

impl Clone for Arena {
    fn clone(&self) -> Self {
        Arena { blocks: self.blocks.clone(), free: Vec::new(), ..*self }
    }
}

/// A block of memory that is zero at first.
#[derive(Debug)]
pub(super) enum Block {
    Heap(Box<[u8]>),
    Map(MmapMut),
}

impl Block {
    /// Aborts the program if there is no memory, as growing a vector does.
    fn zeroed(bytes: usize) -> Block {
        if bytes <= MAX_HEAP_BLOCK_BYTES {
            return Block::Heap(vec![0; bytes].into());
        }
        let huge = bytes >= 2 * HUGE_PAGE_BYTES;
        // the kernel aligns a map to huge pages only if it consists of whole ones
        let map = MmapMut::map_anon(if huge { bytes.next_multiple_of(HUGE_PAGE_BYTES) } else { bytes });
        let map = map.unwrap_or_else(|_| {
            handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()));
        });
        #[cfg(target_os = "linux")]
        if huge {
            // this is advice: if it is not taken, the pages are small
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Block::Map(map)
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Block::Heap(bytes) => bytes,
            Block::Map(map) => map,
        }
    }
}

impl DerefMut for Block {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Block::Heap(bytes) => bytes,
            Block::Map(map) => map,
        }
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        let mut copy = Block::zeroed(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_stays_where_it_is() {
        let lens = [1, 60, 0, 3, 64, 5_000, 7, 100, 4_096, 20_000, 1];
        for tuning in [Tuning::small(), Tuning::default()] {
            let mut arena = Arena::new(&tuning);
            for round in 0..3 {
                let fill = |arena: &mut Arena, n: usize| {
                    let (position, bytes) = arena.append(lens[n]);
                    bytes.fill(n as u8 + round);
                    position
                };
                let mut other = Arena::with_free_blocks(arena.take_free_blocks(), 100, &tuning);
                let mut positions: Vec<Position> = (0..5).map(|n| fill(&mut arena, n)).collect();
                let others: Vec<Position> = (5..lens.len()).map(|n| fill(&mut other, n)).collect();
                let base = arena.adopt(other);
                positions.extend(others.iter().map(|position| position + base));
                assert!(positions.is_sorted(), "{positions:?}");
                assert_eq!(arena.len(), lens.iter().sum::<usize>());
                let all = |arena: &Arena| {
                    let mut written = positions.iter().zip(lens).enumerate();
                    written.all(|(n, (&at, len))| arena.at(at)[..len].iter().all(|&byte| byte == n as u8 + round))
                };
                let copy = arena.clone();
                assert!(all(&arena) && all(&copy));
                let blocks = arena.blocks.len();
                arena.clear();
                assert_eq!((arena.len(), arena.free.len() >= blocks), (0, true));
                assert!(all(&copy));
            }
        }
    }

    #[test]
    fn a_large_block_is_a_zeroed_map_of_whole_huge_pages() {
        for (bytes, mapped, len) in
            [(64 << 10, false, 64 << 10), (1 << 20, true, 1 << 20), ((4 << 20) + 1, true, 6 << 20)]
        {
            let block = Block::zeroed(bytes);
            assert_eq!((matches!(block, Block::Map(_)), block.len()), (mapped, len));
            assert!(block.iter().all(|&byte| byte == 0));
        }
    }
}
