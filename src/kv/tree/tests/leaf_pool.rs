//! A tree that goes on while a frozen copy of it is written out.

use super::*;
use std::collections::BTreeSet;

fn spread(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
}

fn leaves(tree: &Tree) -> BTreeSet<*const u8> {
    fn collect(link: &Link, into: &mut BTreeSet<*const u8>) {
        match link {
            Link::Leaf(leaf) => drop(into.insert(Arc::as_ptr(leaf).cast())),
            Link::Inner(inner) => inner.children.iter().for_each(|child| collect(child, into)),
        }
    }
    let mut found = BTreeSet::new();
    tree.root.iter().for_each(|root| collect(root, &mut found));
    found
}

/// A tree whose pool keeps few leaves.
fn tree_with_small_pool() -> Tree {
    Tree { pool: Arc::new(LeafPool::keeping(4)), ..Tree::default() }
}

fn little_is_kept(tree: &Tree) {
    assert!(tree.pool.held_bytes() == 0 && tree.pool.is_trimmed());
    assert_eq!(tree.copied_share(), 0.0);
}

#[test]
fn the_place_of_a_leaf_that_nobody_holds_serves_the_next_of_its_size_and_few_are_kept() {
    let pool = LeafPool::keeping(4);
    let place = |leaf: &Arc<Leaf>| Arc::as_ptr(leaf).cast::<u8>();
    let (leaf, shared) = (Leaf::zeroed(1_000), Leaf::zeroed(1_000));
    let (first, other) = (place(&leaf), Arc::clone(&shared));
    pool.recycle(leaf);
    pool.recycle(other);
    let smaller = pool.allocate(500);
    assert_ne!(place(&smaller), first);
    let again = pool.allocate(1_000);
    assert!(place(&again) == first && again.len() == 0);
    let next = pool.allocate(1_000);
    assert!(![first, place(&shared)].contains(&place(&next)));
    (0..100).map(|_| Leaf::zeroed(1_000)).collect::<Vec<_>>().into_iter().for_each(|leaf| pool.recycle(leaf));
    assert!(pool.is_trimmed());
}

#[test]
fn what_a_copy_has_passed_serves_the_tree_that_goes_on() {
    let mut tree = tree_with_small_pool();
    (0..4_000).for_each(|n| drop(tree.insert(&spread(n), &[0; 100])));
    let frozen = tree.clone();
    let of_frozen = leaves(&frozen);
    (0..2_000).for_each(|n| drop(tree.insert(&spread(n), &[1; 100])));
    little_is_kept(&tree);
    let (mut passed, mut most) = (0, 0.0f64);
    // when it is half way, all leaves are replaced; the second half of them lies in those of the
    // first
    frozen
        .drain_sorted(|_, value| {
            assert_eq!(value, [0; 100]);
            passed += 1;
            if passed == 1 || passed == 2_000 {
                (0..4_000).for_each(|n| drop(tree.insert(&spread(n), &[2; 100])));
                let copy = tree.clone();
                (0..4_000).for_each(|n| drop(tree.insert(&spread(n), &[passed as u8; 100])));
                drop(copy);
            }
            most = most.max(tree.copied_share());
            Ok(())
        })
        .unwrap();
    assert!(most > 0.5 && most <= 1.0, "{most}");
    let again = leaves(&tree).intersection(&of_frozen).count();
    assert!(again * 3 > of_frozen.len(), "{again} of {}", of_frozen.len());
    little_is_kept(&tree);
    tree.check_invariants();
    assert!(tree.range((Bound::Unbounded, Bound::Unbounded)).all(|(_, value)| value == [2_000u16 as u8; 100]));
}

#[test]
fn what_is_copied_counts_until_it_was_passed() {
    // with values that lie within the leaves, and outside of them
    for size in [100, 5_000] {
        let mut tree = tree_with_small_pool();
        let key = |n: u64| n.to_be_bytes();
        (0..2_000).for_each(|n| drop(tree.insert(&key(n), &vec![0; size])));
        let frozen = tree.clone();
        let (mut passed, mut shares) = (0, Vec::new());
        frozen
            .drain_sorted(|_, _| {
                match passed {
                    // nothing yet; then a quarter that lies far behind; then what was passed long
                    // ago
                    0 => shares.push(tree.copied_share()),
                    100 => (1_500..2_000).for_each(|n| drop(tree.insert(&key(n), &vec![1; size]))),
                    101 => shares.push(tree.copied_share()),
                    1_400 => (0..1_000).for_each(|n| drop(tree.insert(&key(n), &vec![1; size]))),
                    1_401 => shares.push(tree.copied_share()),
                    1_750 => shares.push(tree.copied_share()),
                    _ => {}
                }
                passed += 1;
                Ok(())
            })
            .unwrap();
        let near = |share: f64, expected: f64| assert!((share - expected).abs() < 0.08, "{size}: {shares:?}");
        [0.0, 0.25, 0.25, 0.125].into_iter().zip(shares.clone()).for_each(|(expected, share)| near(share, expected));
        little_is_kept(&tree);
    }
}

#[test]
fn what_was_copied_before_a_copy_is_written_out_counts_too() {
    for size in [100, 5_000] {
        let mut tree = tree_with_small_pool();
        let key = |n: u64| n.to_be_bytes();
        (0..1_000).for_each(|n| drop(tree.insert(&key(n), &vec![0; size])));
        let frozen = tree.clone();
        (0..500).for_each(|n| drop(tree.insert(&key(n), &vec![1; size])));
        let (mut passed, mut shares) = (0, Vec::new());
        frozen
            .drain_sorted(|_, _| {
                if passed % 250 == 0 {
                    shares.push(tree.copied_share());
                }
                passed += 1;
                Ok(())
            })
            .unwrap();
        let near = |(share, expected): (&f64, f64)| (share - expected).abs() < 0.12;
        assert!(shares.iter().zip([0.5, 0.25, 0.0, 0.0]).all(near), "{size}: {shares:?}");
        little_is_kept(&tree);
    }
}

#[test]
fn only_the_first_of_two_copies_hands_on() {
    let mut tree = tree_with_small_pool();
    (0..1_000).for_each(|n| drop(tree.insert(&spread(n), &[0; 100])));
    let (one, other) = (tree.clone(), tree.clone());
    let mut other = Some(other);
    one.drain_sorted(|_, _| {
        if let Some(other) = other.take() {
            (0..1_000).for_each(|n| drop(tree.insert(&spread(n), &[1; 100])));
            let held = tree.copied_share();
            other.drain_sorted(|_, value| {
                assert_eq!(value, [0; 100]);
                Ok(())
            })?;
            assert_eq!(tree.copied_share(), held, "the second says nothing");
        }
        Ok(())
    })
    .unwrap();
    little_is_kept(&tree);
    assert!(tree.clone().drain_sorted(|_, _| Err(io::Error::other("full"))).is_err());
    little_is_kept(&tree);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_goes_on_while_a_copy_is_written_out(
        entries in vec((key(), value()), 1..400),
        writes in vec((key(), prop::option::weighted(0.7, value()), 0u8..3), 0..400),
    ) {
        let mut model: Model = entries.into_iter().collect();
        let mut tree = tree_with_small_pool();
        model.iter().for_each(|(key, value)| drop(tree.insert(key, value)));
        let (frozen, as_frozen) = (tree.clone(), model.clone());
        let mut writes = writes.into_iter();
        let (mut drained, mut view) = (Model::new(), None);
        frozen.drain_sorted(|key, value| {
            drained.insert(key.to_vec(), value.to_vec());
            // some writes between two entries, of new keys and of those that are there
            for (new, value, kind) in writes.by_ref() {
                let key = if kind == 0 { new } else { key_at(&model, (new.len() as u16).wrapping_mul(331)).unwrap_or(new) };
                match value {
                    Some(value) => assert_eq!(tree.insert(&key, &value), model.insert(key, value)),
                    None => assert_eq!(tree.remove(&key), model.remove(&key)),
                }
                if kind == 2 {
                    view = Some((tree.clone(), model.clone()));
                    break;
                }
            }
            Ok(())
        }).unwrap();
        prop_assert_eq!(drained, as_frozen);
        for (tree, model) in [Some((tree, model)), view].iter().flatten() {
            tree.check_invariants();
            assert_same(tree, model);
            little_is_kept(tree);
        }
    }
}
