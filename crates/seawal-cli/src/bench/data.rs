//! The keys and values of the workload: the same in each run, and in random order.

/// The size of a key.
pub(super) const KEY_BYTES: u64 = 16;

/// Mixes a number well (the finalizer of SplitMix64).
pub(super) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The n-th of a sequence of keys in random order.
pub(super) fn key(n: u64) -> [u8; KEY_BYTES as usize] {
    ((u128::from(mix(n)) << 64) | u128::from(n)).to_be_bytes()
}

/// A value of this size. Another seed gives another value.
pub(super) fn value(bytes: u64, seed: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes).unwrap_or(0);
    let mut value = Vec::with_capacity(bytes.saturating_add(8));
    let mut word = seed;
    while value.len() < bytes {
        word = mix(word.wrapping_add(1));
        value.extend_from_slice(&word.to_le_bytes());
    }
    value.truncate(bytes);
    value
}
