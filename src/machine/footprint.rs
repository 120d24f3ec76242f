//! What a command or a read touches, as keys, key ranges, or everything.
//!
//! The keys are whatever bytes the machine chooses: they name what is locked and mean nothing here.

use std::ops::Bound;

/// Whether others may hold the same extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// For reading: shared with other readers.
    Shared,
    /// For writing: held alone.
    Exclusive,
}

/// A part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One key.
    Key(Box<[u8]>),
    /// All keys between two bounds, present or not.
    Range(Bound<Box<[u8]>>, Bound<Box<[u8]>>),
    /// The whole state.
    Everything,
}

/// An extent and how it is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Read or written.
    pub access: Access,
    /// What part of the state.
    pub extent: Extent,
}

/// All that a command or a read touches.
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
    /// Touches nothing.
    pub fn none() -> Self {
        Footprint::default()
    }

    /// Touches the whole state.
    pub fn everything(access: Access) -> Self {
        Footprint { claims: vec![Claim { access, extent: Extent::Everything }] }
    }

    /// Touches one key.
    pub fn key(access: Access, key: &[u8]) -> Self {
        Footprint::none().and_key(access, key)
    }

    /// Touches every key in a range, present or not.
    pub fn range<K: AsRef<[u8]> + ?Sized>(access: Access, range: impl std::ops::RangeBounds<K>) -> Self {
        Footprint::none().and_range(access, range)
    }

    /// Touches one key more.
    #[must_use]
    pub fn and_key(mut self, access: Access, key: &[u8]) -> Self {
        self.claims.push(Claim { access, extent: Extent::Key(key.into()) });
        self
    }

    /// Touches every key in a range more.
    #[must_use]
    pub fn and_range<K: AsRef<[u8]> + ?Sized>(mut self, access: Access, range: impl std::ops::RangeBounds<K>) -> Self {
        let owned = |bound: Bound<&K>| bound.map(|k| Box::from(k.as_ref()));
        let extent = Extent::Range(owned(range.start_bound()), owned(range.end_bound()));
        self.claims.push(Claim { access, extent });
        self
    }

    /// Touches what a claim names more.
    #[must_use]
    pub fn and_claim(mut self, claim: Claim) -> Self {
        self.claims.push(claim);
        self
    }

    /// Touches all of `other` more.
    #[must_use]
    pub fn and(mut self, other: Footprint) -> Self {
        self.claims.extend(other.claims);
        self
    }

    /// The single claims.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Whether the two touch a common part and one of them writes it.
    pub fn conflicts_with(&self, other: &Footprint) -> bool {
        self.claims.iter().any(|a| other.claims.iter().any(|b| a.conflicts_with(b)))
    }
}

impl Claim {
    /// Whether the two touch a common part and one of them writes it.
    pub fn conflicts_with(&self, other: &Claim) -> bool {
        let writes = self.access == Access::Exclusive || other.access == Access::Exclusive;
        writes && self.extent.overlaps(&other.extent)
    }
}

impl Extent {
    /// Whether the two have a key in common.
    pub fn overlaps(&self, other: &Extent) -> bool {
        match (self, other) {
            (Extent::Everything, _) | (_, Extent::Everything) => true,
            (Extent::Key(a), Extent::Key(b)) => a == b,
            (Extent::Key(key), Extent::Range(start, end)) | (Extent::Range(start, end), Extent::Key(key)) => {
                starts_by(start, key) && ends_after(end, key)
            }
            (Extent::Range(a_start, a_end), Extent::Range(b_start, b_end)) => {
                meets(a_start, b_end) && meets(b_start, a_end) && meets(a_start, a_end) && meets(b_start, b_end)
            }
        }
    }
}

/// Whether a range that starts so takes in `key`, as far as its start goes.
fn starts_by(start: &Bound<Box<[u8]>>, key: &[u8]) -> bool {
    match start {
        Bound::Included(s) => **s <= *key,
        Bound::Excluded(s) => **s < *key,
        Bound::Unbounded => true,
    }
}

/// Whether a range that ends so takes in `key`, as far as its end goes.
fn ends_after(end: &Bound<Box<[u8]>>, key: &[u8]) -> bool {
    match end {
        Bound::Included(e) => *key <= **e,
        Bound::Excluded(e) => *key < **e,
        Bound::Unbounded => true,
    }
}

/// Whether a key may lie both behind `start` and before `end`.
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
