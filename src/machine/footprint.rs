//! Footprints: the parts of the state that a command or a read accesses, as keys, key ranges, or
//! everything.
//!
//! The machine chooses the keys. They are names for locking and have no meaning here.

use std::ops::Bound;

/// How a part of the state is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read: compatible with other reads.
    Shared,
    /// Written: compatible with nothing.
    Exclusive,
}

/// A part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One key.
    Key(Box<[u8]>),
    /// All keys between two bounds, whether they exist or not.
    Range(Bound<Box<[u8]>>, Bound<Box<[u8]>>),
    /// The whole state.
    Everything,
}

/// A part of the state and how it is accessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// How it is accessed.
    pub access: Access,
    /// The part of the state.
    pub extent: Extent,
}

/// Everything that a command or a read accesses: the locks that a transaction takes for it.
///
/// ```
/// use seawal::machine::{Access, Footprint};
/// let transfer = Footprint::key(Access::Exclusive, b"alice").and_key(Access::Exclusive, b"bob");
/// let audit = Footprint::range(Access::Shared, "a"..);
/// assert!(transfer.conflicts_with(&audit));
/// assert!(!audit.conflicts_with(&audit));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    claims: Vec<Claim>,
}

impl Footprint {
    /// The footprint of something that accesses no state.
    pub fn none() -> Self {
        Footprint::default()
    }

    /// The whole state.
    pub fn everything(access: Access) -> Self {
        Footprint { claims: vec![Claim { access, extent: Extent::Everything }] }
    }

    /// One key.
    pub fn key(access: Access, key: &[u8]) -> Self {
        Footprint::none().and_key(access, key)
    }

    /// Every key in a range, whether it exists or not.
    pub fn range<K: AsRef<[u8]> + ?Sized>(access: Access, range: impl std::ops::RangeBounds<K>) -> Self {
        Footprint::none().and_range(access, range)
    }

    /// Adds one key.
    #[must_use]
    pub fn and_key(mut self, access: Access, key: &[u8]) -> Self {
        self.claims.push(Claim { access, extent: Extent::Key(key.into()) });
        self
    }

    /// Adds every key in a range.
    #[must_use]
    pub fn and_range<K: AsRef<[u8]> + ?Sized>(mut self, access: Access, range: impl std::ops::RangeBounds<K>) -> Self {
        let owned = |bound: Bound<&K>| bound.map(|k| Box::from(k.as_ref()));
        let extent = Extent::Range(owned(range.start_bound()), owned(range.end_bound()));
        self.claims.push(Claim { access, extent });
        self
    }

    /// Adds a claim.
    #[must_use]
    pub fn and_claim(mut self, claim: Claim) -> Self {
        self.claims.push(claim);
        self
    }

    /// Adds all of `other`.
    #[must_use]
    pub fn and(mut self, other: Footprint) -> Self {
        self.claims.extend(other.claims);
        self
    }

    /// The claims that it consists of.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Returns whether both access a common part of the state and at least one writes it.
    pub fn conflicts_with(&self, other: &Footprint) -> bool {
        self.claims.iter().any(|a| other.claims.iter().any(|b| a.conflicts_with(b)))
    }
}

impl Access {
    /// Returns whether the two accesses to a common part of the state exclude each other.
    pub(crate) fn excludes(self, other: Access) -> bool {
        self == Access::Exclusive || other == Access::Exclusive
    }
}

impl Claim {
    /// Returns whether both access a common part of the state and at least one writes it.
    pub fn conflicts_with(&self, other: &Claim) -> bool {
        self.access.excludes(other.access) && self.extent.overlaps(&other.extent)
    }

    /// Returns the key, if the claim is on a single one.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        match &self.extent {
            Extent::Key(key) => Some(key),
            Extent::Range(..) | Extent::Everything => None,
        }
    }
}

impl Extent {
    /// Returns whether the key lies in this part of the state.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Extent::Key(own) => **own == *key,
            Extent::Range(start, end) => starts_by(start, key) && ends_after(end, key),
            Extent::Everything => true,
        }
    }

    /// Returns whether the two have a key in common.
    pub fn overlaps(&self, other: &Extent) -> bool {
        match (self, other) {
            (Extent::Everything, _) | (_, Extent::Everything) => true,
            (extent, Extent::Key(key)) | (Extent::Key(key), extent) => extent.contains(key),
            (Extent::Range(a_start, a_end), Extent::Range(b_start, b_end)) => {
                meets(a_start, b_end) && meets(b_start, a_end) && meets(a_start, a_end) && meets(b_start, b_end)
            }
        }
    }
}

/// Whether `key` is not before the start of a range.
fn starts_by(start: &Bound<Box<[u8]>>, key: &[u8]) -> bool {
    match start {
        Bound::Included(s) => **s <= *key,
        Bound::Excluded(s) => **s < *key,
        Bound::Unbounded => true,
    }
}

/// Whether `key` is not after the end of a range.
fn ends_after(end: &Bound<Box<[u8]>>, key: &[u8]) -> bool {
    match end {
        Bound::Included(e) => *key <= **e,
        Bound::Excluded(e) => *key < **e,
        Bound::Unbounded => true,
    }
}

/// Whether a key may lie between `start` and `end`.
fn meets(start: &Bound<Box<[u8]>>, end: &Bound<Box<[u8]>>) -> bool {
    match (start, end) {
        (Bound::Unbounded, Bound::Excluded(e)) => !e.is_empty(),
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(s), Bound::Included(e)) => s <= e,
        (Bound::Included(s) | Bound::Excluded(s), Bound::Excluded(e)) | (Bound::Excluded(s), Bound::Included(e)) => {
            s < e
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_as_sets_of_keys() {
        let range = |s: Bound<&str>, e: Bound<&str>| {
            Extent::Range(s.map(|s| Box::from(s.as_bytes())), e.map(|s| Box::from(s.as_bytes())))
        };
        use Bound::{Excluded as X, Included as I, Unbounded as U};
        assert!(range(I("a"), I("c")).overlaps(&range(I("c"), U)));
        assert!(!range(I("a"), X("c")).overlaps(&range(I("c"), U)));
        assert!(!range(I("a"), I("c")).overlaps(&range(X("c"), U)));
        assert!(!range(I("b"), X("b")).overlaps(&range(U, U)));
        assert!(!range(U, X("")).overlaps(&range(U, U)));
        assert!(range(U, U).overlaps(&Extent::Key(Box::from(&b""[..]))));
    }
}
