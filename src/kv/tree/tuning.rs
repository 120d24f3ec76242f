//! The sizes of a batch of writes and its arena.

/// Sizes that tests make small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// The size of an arena's first block. Blocks double, so it only has to be more than a few
    /// writes.
    pub(crate) first_block_bytes: usize,
    /// The largest block of an arena, unless a write needs more. It bounds what the last block
    /// wastes.
    pub(crate) max_block_bytes: usize,
    /// One key of this number is sampled to estimate how much of a batch is overwritten.
    pub(crate) sampled_one_in: u32,
    /// A merge uses one more thread for each of this number of writes: milliseconds of work, while
    /// starting a thread takes microseconds.
    pub(crate) writes_per_thread: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            first_block_bytes: 32 << 10,
            max_block_bytes: 64 << 20,
            sampled_one_in: 64,
            writes_per_thread: 16 << 10,
        }
    }
}

#[cfg(test)]
impl Tuning {
    /// Small blocks and many threads, for small tests.
    pub(crate) fn small() -> Self {
        Tuning { first_block_bytes: 64, max_block_bytes: 4 << 10, sampled_one_in: 4, writes_per_thread: 64 }
    }
}
