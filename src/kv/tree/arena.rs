//! Bytes that never move: what is appended goes into blocks, each as large as all before it.
//!
//! The large ones are memory maps, in large pages where the system has them: to fault in small ones costs about as much as to write to
//! them, and those who come back for bytes anywhere in hundreds of megabytes find few of the pages' addresses at hand. And the heap
//! stays free of them, so that what lies there for longer leaves no holes.

use crate::io::AlignedBuf;
use std::alloc::{Layout, handle_alloc_error};

const FIRST_BYTES: usize = if cfg!(test) { 64 } else { 32 << 10 };
const MOST_BYTES: usize = if cfg!(test) { 4 << 10 } else { 64 << 20 };

/// Appended bytes.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// Each of the length that it has room for. The last one is being filled.
    blocks: Vec<AlignedBuf>,
    /// How far the last one is filled.
    filled: usize,
    /// How many bytes were appended.
    len: usize,
    /// Blocks to be filled again.
    spare: Vec<AlignedBuf>,
}

/// Where bytes are: places ascend as they are appended.
pub(super) type Place = u64;

impl Arena {
    /// With such blocks to fill again, and room for so many bytes.
    pub(super) fn over(spare: Vec<AlignedBuf>, bytes: usize) -> Arena {
        let mut arena = Arena { spare, ..Arena::default() };
        arena.open_next(bytes);
        arena
    }

    /// How many bytes were appended.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Room for so many bytes more, all in one stretch, and where it is.
    #[inline]
    pub(super) fn append(&mut self, len: usize) -> (Place, &mut [u8]) {
        if self.blocks.last().is_none_or(|block| block.len() - self.filled < len) {
            self.open_next(len);
        }
        let (open, from) = (self.blocks.len() - 1, self.filled);
        self.filled += len;
        self.len += len;
        ((open as u64) << 32 | from as u64, &mut self.blocks[open][from..from + len])
    }

    /// What was appended at a place, and all that lies behind it in its block.
    #[inline]
    pub(super) fn at(&self, place: Place) -> &[u8] {
        &self.blocks[(place >> 32) as usize][place as u32 as usize..]
    }

    /// Takes in what another holds. Its places are so much greater from now on.
    pub(super) fn adopt(&mut self, other: Arena) -> Place {
        let base = self.blocks.len();
        if !other.blocks.is_empty() {
            self.filled = other.filled;
        }
        self.len += other.len;
        self.blocks.extend(other.blocks);
        self.spare.extend(other.spare);
        (base as u64) << 32
    }

    /// Forgets all bytes, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.spare.append(&mut self.blocks);
        (self.filled, self.len) = (0, 0);
    }

    /// Gives away the blocks that are not in use.
    pub(super) fn take_spare(&mut self) -> Vec<AlignedBuf> {
        std::mem::take(&mut self.spare)
    }

    /// Goes on in a block that has room for so much.
    #[cold]
    fn open_next(&mut self, len: usize) {
        let next = match self.spare.iter().position(|block| block.len() >= len) {
            Some(at) => self.spare.swap_remove(at),
            None => {
                let all: usize = self.blocks.iter().map(|block| block.len()).sum();
                zeroed(all.clamp(FIRST_BYTES, MOST_BYTES).max(len))
            }
        };
        self.blocks.push(next);
        self.filled = 0;
    }
}

/// Memory that is not to be had ends the program, as it does where any list grows.
fn zeroed(len: usize) -> AlignedBuf {
    let refused = || handle_alloc_error(Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>()));
    AlignedBuf::zeroed(len).unwrap_or_else(|_| refused())
}

impl Clone for Arena {
    fn clone(&self) -> Self {
        let copy = |block: &AlignedBuf| {
            let mut copy = zeroed(block.len());
            copy.copy_from_slice(block);
            copy
        };
        let blocks = self.blocks.iter().map(copy).collect();
        Arena { blocks, filled: self.filled, len: self.len, spare: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_stays_where_it_is() {
        let lens = [1, 60, 0, 3, 64, 5_000, 7, 100, 4_096, 20_000, 1];
        let mut arena = Arena::default();
        for round in 0..3 {
            let fill = |arena: &mut Arena, n: usize| {
                let (place, bytes) = arena.append(lens[n]);
                bytes.fill(n as u8 + round);
                place
            };
            let mut other = Arena::over(arena.take_spare(), 100);
            let mut places: Vec<Place> = (0..5).map(|n| fill(&mut arena, n)).collect();
            let others: Vec<Place> = (5..lens.len()).map(|n| fill(&mut other, n)).collect();
            let base = arena.adopt(other);
            places.extend(others.iter().map(|place| place + base));
            assert!(places.is_sorted(), "{places:?}");
            assert_eq!(arena.len(), lens.iter().sum::<usize>());
            let all = |arena: &Arena| {
                let mut stretches = places.iter().zip(lens).enumerate();
                stretches.all(|(n, (&place, len))| arena.at(place)[..len].iter().all(|&byte| byte == n as u8 + round))
            };
            let copy = arena.clone();
            assert!(all(&arena) && all(&copy));
            let blocks = arena.blocks.len();
            arena.clear();
            assert_eq!((arena.len(), arena.spare.len() >= blocks), (0, true));
            assert!(all(&copy));
        }
    }
}
