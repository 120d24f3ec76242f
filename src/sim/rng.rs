//! Random numbers from a seed: splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
//! number generators", OOPSLA 2014).
//!
//! The same seed gives the same numbers on every computer. They are not suited for secrets.

/// A random number generator with a seed. It gives the same numbers on every computer, and is not
/// suited for secrets.
///
/// ```
/// use seawal::sim::Rng;
/// let (mut one, mut other) = (Rng::new(7), Rng::new(7));
/// assert_eq!(one.next(), other.next());
/// assert!(one.below(6) < 6);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Creates a generator with this seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// Splits off a generator for another purpose, whose use does not change this one's numbers.
    pub(super) fn fork(self, purpose: u64) -> Rng {
        Rng(mix(self.0 ^ mix(purpose)))
    }

    /// The next number, uniform over all values.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody collects it")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, or 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// True or false, with equal probability.
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// Spreads a number's bits over all of the result.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
