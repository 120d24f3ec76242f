//! Typical rates of recovery, for estimates before a recovery has been measured.

/// What recovery of a machine typically takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveryRates {
    /// How many times faster than `apply` with its decoding redo is.
    pub(crate) redo_speedup: u64,
    /// The time to load a byte of a snapshot, in picoseconds.
    pub(crate) load_byte_picos: u64,
}

impl RecoveryRates {
    /// Of a machine that decodes and applies the commands in turn, and loads a snapshot as a
    /// stream.
    pub(crate) const ONE_BY_ONE: RecoveryRates = RecoveryRates { redo_speedup: 1, load_byte_picos: 6_000 };
    /// Of `Kv`, which decodes on all processors and inserts in sorted batches.
    pub(crate) const IN_BATCHES: RecoveryRates = RecoveryRates { redo_speedup: 2, load_byte_picos: 1_500 };
}
