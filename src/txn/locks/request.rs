//! The claims that a waiter asks for, sorted so that two requests are compared quickly.

use crate::machine::Claim;

/// Claims on keys, in ascending order and each key once, followed by the wide claims.
#[derive(Debug)]
pub(super) struct Request {
    claims: Vec<Claim>,
    /// The number of claims on keys.
    keys: usize,
}

impl Request {
    pub(super) fn new(mut claims: Vec<Claim>) -> Self {
        // a key's exclusive claim comes first, so this is the one that remains
        claims.sort_by(|a, b| key_or_last(a).cmp(&key_or_last(b)).then(b.access.cmp(&a.access)));
        claims.dedup_by(|b, a| key_or_last(a).1.is_some() && key_or_last(a) == key_or_last(b));
        let keys = claims.partition_point(|claim| key_or_last(claim).1.is_some());
        Request { claims, keys }
    }

    pub(super) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether two owners cannot hold these requests at the same time.
    pub(super) fn conflicts_with(&self, other: &Request) -> bool {
        let (few, many) = if self.keys <= other.keys { (self, other) } else { (other, self) };
        few.keys().iter().any(|claim| many.has_conflicting_key(claim))
            || self.wide_conflict_with(other.claims())
            || other.wide_conflict_with(self.keys())
    }

    fn keys(&self) -> &[Claim] {
        &self.claims[..self.keys]
    }

    fn has_conflicting_key(&self, claim: &Claim) -> bool {
        let keys = self.keys();
        let found = keys.binary_search_by(|own| key_or_last(own).cmp(&key_or_last(claim)));
        found.is_ok_and(|at| keys[at].access.excludes(claim.access))
    }

    fn wide_conflict_with(&self, claims: &[Claim]) -> bool {
        self.claims[self.keys..].iter().any(|own| claims.iter().any(|claim| own.conflicts_with(claim)))
    }
}

/// The order of claims in a request: by key, with wide claims after all keys.
fn key_or_last(claim: &Claim) -> (bool, Option<&[u8]>) {
    let key = claim.key();
    (key.is_none(), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Access, Extent};

    #[test]
    fn a_key_claimed_twice_is_asked_for_once_with_the_stronger_access() {
        let key = |access| Claim { access, extent: Extent::Key(Box::from(&b"k"[..])) };
        let everything = Claim { access: Access::Shared, extent: Extent::Everything };
        let request = Request::new(vec![
            everything.clone(),
            key(Access::Shared),
            key(Access::Exclusive),
            everything.clone(),
            key(Access::Shared),
        ]);
        assert_eq!(request.claims(), [key(Access::Exclusive), everything.clone(), everything]);
        assert_eq!(request.keys, 1);
    }
}
