mod leaf_pool;
mod merge;

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

impl Tree {
    /// Asserts everything that the modules' descriptions promise.
    fn check_invariants(&self) {
        let (mut len, mut payload, mut depths) = (0, 0, Vec::new());
        if let Some(root) = &self.root {
            if let Link::Inner(inner) = root {
                assert!(inner.children.len() > 1, "a root has several children");
            }
            check(root, None, None, 0, &mut |depth, leaf_len, leaf_payload| {
                len += leaf_len;
                payload += leaf_payload;
                depths.push(depth);
            });
        }
        assert_eq!((len, payload), (self.len, self.payload_bytes));
        assert!(depths.windows(2).all(|d| d[0] == d[1]), "leaves are equally deep");
    }

    fn nodes(&self) -> usize {
        fn count(link: &Link) -> usize {
            match link {
                Link::Leaf(_) => 1,
                Link::Inner(inner) => 1 + inner.children.iter().map(count).sum::<usize>(),
            }
        }
        self.root.as_ref().map_or(0, count)
    }
}

fn check(
    link: &Link,
    low: Option<&[u8]>,
    high: Option<&[u8]>,
    depth: usize,
    report: &mut impl FnMut(usize, usize, u64),
) {
    match link {
        Link::Leaf(leaf) => {
            leaf.check();
            let len = leaf.len();
            assert!(len > 0, "no leaf is empty");
            assert!(low.is_none_or(|low| low <= leaf.key(0)));
            assert!(high.is_none_or(|high| leaf.key(len - 1) < high));
            report(depth, len, (0..len).map(|i| (leaf.key(i).len() + leaf.value(i).len()) as u64).sum());
        }
        Link::Inner(inner) => {
            inner.separators.check();
            let len = inner.children.len();
            assert!(len > 0 && inner.separators.len() + 1 == len && len <= node::INNER_CHILDREN);
            for (at, child) in inner.children.iter().enumerate() {
                let low = if at == 0 { low } else { Some(inner.separators.key(at - 1)) };
                let high = if at + 1 == len { high } else { Some(inner.separators.key(at)) };
                check(child, low, high, depth + 1, report);
            }
        }
    }
}

fn assert_same(tree: &Tree, model: &Model) {
    let all = tree.range((Bound::Unbounded, Bound::Unbounded));
    assert!(all.eq(model.iter().map(|(k, v)| (&k[..], &v[..]))));
}

fn tree_of(model: &Model) -> Tree {
    let mut tree = Tree::default();
    for (key, value) in model {
        tree.insert(key, value);
    }
    tree
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    /// Removes whatever is at this share of the keys.
    RemoveAt(u16),
    /// Removes everything between two shares of the keys.
    RemoveRun(u16, u16),
    Freeze,
    Merge(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Range(Bound<Vec<u8>>, Bound<Vec<u8>>, u64),
}

/// Keys from a small alphabet, long ones, ones with shared prefixes, ones that differ in trailing
/// zeroes only.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(0u8..4, 0..6),
        4 => (any::<u16>()).prop_map(|n| format!("table/path/{:05}", n % 3000).into_bytes()),
        4 => vec(any::<u8>(), 0..20),
        2 => (any::<u8>(), 0usize..9).prop_map(|(n, z)| [vec![n % 8], vec![0; z]].concat()),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(n, m)| [vec![b'p'; 300], vec![n % 16, m % 4]].concat()),
        2 => (any::<u8>(), 400usize..6000).prop_map(|(n, len)| [vec![n % 3; len], vec![n]].concat()),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..10),
        4 => (any::<u8>(), 0usize..300).prop_map(|(b, len)| vec![b; len]),
        1 => (any::<u8>(), 1000usize..1050).prop_map(|(b, len)| vec![b; len]),
        1 => (any::<u8>(), 0usize..20_000).prop_map(|(b, len)| vec![b; len]),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        4 => key().prop_map(Bound::Included),
        4 => key().prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (key(), value()).prop_map(|(k, v)| Step::Insert(k, v)),
        8 => key().prop_map(Step::Remove),
        20 => any::<u16>().prop_map(Step::RemoveAt),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Step::RemoveRun(a, b)),
        3 => Just(Step::Freeze),
        2 => vec((key(), prop::option::weighted(0.7, value())), 1..120).prop_map(Step::Merge),
        8 => (bound(), bound(), any::<u64>()).prop_map(|(s, e, ends)| Step::Range(s, e, ends)),
    ]
}

fn key_at(model: &Model, share: u16) -> Option<Vec<u8>> {
    let index = model.len() * usize::from(share) / (usize::from(u16::MAX) + 1);
    model.keys().nth(index).cloned()
}

fn remove(tree: &mut Tree, model: &mut Model, key: &[u8]) {
    assert_eq!(tree.remove(key), model.remove(key));
    assert!(!tree.contains(key));
}

fn as_bound(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(|b| &b[..])
}

/// What a range should give, by looking at every entry.
fn expected<'a>(model: &'a Model, start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> Vec<(&'a [u8], &'a [u8])> {
    let behind = |k: &Vec<u8>| match start {
        Bound::Included(s) => k >= s,
        Bound::Excluded(s) => k > s,
        Bound::Unbounded => true,
    };
    let before = |k: &Vec<u8>| match end {
        Bound::Included(e) => k <= e,
        Bound::Excluded(e) => k < e,
        Bound::Unbounded => true,
    };
    model.iter().filter(|(k, _)| behind(k) && before(k)).map(|(k, v)| (&k[..], &v[..])).collect()
}

fn run(tree: &mut Tree, model: &mut Model, frozen: &mut Vec<(Tree, Model)>, step: Step) {
    match step {
        Step::Insert(key, value) => {
            assert_eq!(tree.get(&key), model.get(&key).map(|v| &v[..]));
            assert_eq!(tree.insert(&key, &value), model.insert(key.clone(), value.clone()));
            assert_eq!(tree.get(&key), Some(&value[..]));
        }
        Step::Remove(key) => remove(tree, model, &key),
        Step::RemoveAt(share) => {
            if let Some(key) = key_at(model, share) {
                remove(tree, model, &key);
            }
        }
        Step::RemoveRun(a, b) => {
            if let (Some(a), Some(b)) = (key_at(model, a.min(b)), key_at(model, a.max(b))) {
                let run: Vec<_> = model.range(a..=b).map(|(k, _)| k.clone()).collect();
                for key in run {
                    remove(tree, model, &key);
                    tree.check_invariants();
                }
            }
        }
        Step::Merge(writes) => merge::merge(tree, model, &writes),
        Step::Freeze => frozen.push((tree.clone(), model.clone())),
        Step::Range(start, end, mut ends) => {
            let mut left = std::collections::VecDeque::from(expected(model, &start, &end));
            let mut range = tree.range((as_bound(&start), as_bound(&end)));
            loop {
                ends = ends.rotate_left(1);
                let (got, wanted) =
                    if ends & 1 == 0 { (range.next(), left.pop_front()) } else { (range.next_back(), left.pop_back()) };
                assert_eq!(got, wanted);
                if got.is_none() {
                    break;
                }
            }
            assert_eq!((range.next(), range.next_back()), (None, None));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_behaves_as_a_sorted_map(
        start in vec((key(), value()), 0..400),
        steps in vec(step(), 1..250),
    ) {
        let mut model: Model = start.into_iter().collect();
        let mut tree = tree_of(&model);
        tree.check_invariants();
        let mut frozen = Vec::new();
        for step in steps {
            run(&mut tree, &mut model, &mut frozen, step);
            tree.check_invariants();
        }
        assert_same(&tree, &model);
        for (tree, model) in &frozen {
            tree.check_invariants();
            assert_same(tree, model);
        }
    }

    #[test]
    fn built_and_drained_trees_hold_the_same(entries in vec((key(), value()), 0..600), hold in any::<bool>()) {
        let model: Model = entries.into_iter().collect();
        let mut builder = Builder::default();
        for (key, value) in &model {
            builder.push(key, value).unwrap();
            prop_assert_eq!(builder.push(key, value), Err(OutOfOrder));
        }
        let mut tree = builder.finish();
        tree.check_invariants();
        assert_same(&tree, &model);
        let copy = hold.then(|| tree.clone());
        if let Some((key, _)) = model.first_key_value() {
            tree.insert(key, b"other");
            tree.insert(key, &model[key]);
        }
        let mut drained = Vec::new();
        tree.drain_sorted(|k, v| {
            drained.push((k.to_vec(), v.to_vec()));
            Ok(())
        }).unwrap();
        prop_assert!(drained.into_iter().eq(model.clone()));
        if let Some(copy) = copy {
            copy.check_invariants();
            assert_same(&copy, &model);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn runs_that_follow_one_another_make_the_tree_of_all(
        entries in vec((key(), value()), 0..600),
        cuts in vec(any::<u16>(), 0..12),
        swap in any::<u16>(),
    ) {
        let model: Model = entries.into_iter().collect();
        let entries: Vec<_> = model.iter().collect();
        let mut cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut) % (entries.len() + 1)).collect();
        cuts.extend([0, entries.len()]);
        cuts.sort_unstable();
        let runs = |order: &[usize]| {
            let runs = order.iter().map(|&at| {
                let mut builder = Builder::default();
                entries[cuts[at]..cuts[at + 1]].iter().for_each(|(k, v)| builder.push(k, v).unwrap());
                builder.finish_run()
            });
            Tree::from_runs(runs.collect::<Vec<_>>())
        };
        let mut order: Vec<_> = (0..cuts.len() - 1).collect();
        let tree = runs(&order).unwrap();
        tree.check_invariants();
        assert_same(&tree, &model);
        // out of order, unless what changed places is empty
        let at = usize::from(swap) % order.len();
        let is_empty = |at: usize| cuts[at] == cuts[at + 1];
        order[..=at].rotate_right(1);
        let alike = is_empty(at) || (0..at).all(is_empty);
        prop_assert_eq!(runs(&order).err(), (!alike).then_some(OutOfOrder));
    }
}

fn spread(n: u32) -> [u8; 16] {
    let n = u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key
}

#[test]
fn many_entries_in_any_order_come_and_go() {
    const N: u32 = 20_000;
    for order in [|n| n, |n| N - 1 - n, |n: u32| (n * 7919) % N] {
        let mut tree = Tree::default();
        for n in (0..N).map(order) {
            assert_eq!(tree.insert(&n.to_be_bytes(), &[7; 40]), None);
        }
        tree.check_invariants();
        let full = tree.nodes();
        for n in (0..N).map(order).filter(|n| n % 8 != 0) {
            assert!(tree.remove(&n.to_be_bytes()).is_some());
        }
        tree.check_invariants();
        assert_eq!(tree.len(), N as usize / 8);
        assert!(tree.nodes() * 3 < full, "{} of {full} nodes are left for an eighth of the entries", tree.nodes());
        for n in (0..N).map(order) {
            assert_eq!(tree.remove(&n.to_be_bytes()).is_some(), n % 8 == 0);
        }
        tree.check_invariants();
        assert!(tree.is_empty() && tree.root.is_none());
    }
}

#[test]
fn a_deep_tree_of_built_nodes_can_be_changed() {
    let mut builder = Builder::default();
    let mut keys: Vec<_> = (0..30_000).map(spread).collect();
    keys.sort_unstable();
    for key in &keys {
        builder.push(key, &[1; 200]).unwrap();
    }
    let mut tree = builder.finish();
    tree.check_invariants();
    let frozen = tree.clone();
    for key in &keys {
        assert_eq!(tree.remove(key), Some(vec![1; 200]));
    }
    tree.check_invariants();
    assert_eq!((tree.len(), tree.payload_bytes()), (0, 0));
    assert!(
        frozen.range((Bound::Unbounded, Bound::Unbounded)).rev().map(|(k, _)| k).eq(keys.iter().rev().map(|k| &k[..]))
    );
}

#[test]
fn draining_lets_go_of_what_was_passed() {
    let mut tree = Tree::default();
    for n in 0..5_000 {
        tree.insert(&spread(n), &[0; 2000]);
    }
    let Some(root) = tree.root.clone() else { panic!("it has a root") };
    let mut leaves = Vec::new();
    fn collect(link: &Link, leaves: &mut Vec<std::sync::Weak<Leaf>>) {
        match link {
            Link::Leaf(leaf) => leaves.push(Arc::downgrade(leaf)),
            Link::Inner(inner) => inner.children.iter().for_each(|c| collect(c, leaves)),
        }
    }
    collect(&root, &mut leaves);
    drop(root);
    assert!(leaves.len() > 20);
    let mut most = 0;
    let total = tree.len();
    let mut passed = 0;
    tree.drain_sorted(|_, _| {
        passed += 1;
        if passed == total / 2 {
            most = leaves.iter().filter(|l| l.strong_count() > 0).count();
        }
        Ok(())
    })
    .unwrap();
    assert!(most * 10 < leaves.len() * 7, "{most} of {} leaves are left half way", leaves.len());
    assert!(leaves.iter().all(|l| l.strong_count() == 0));
}

#[test]
fn a_change_after_a_clone_copies_one_path_only() {
    let mut tree = Tree::default();
    for n in 0..20_000 {
        tree.insert(&spread(n), &[0; 100]);
    }
    let frozen = tree.clone();
    tree.insert(&spread(3), b"changed");
    /// Nodes of `a` in the places of which `b` has others.
    fn copied(a: &Link, b: &Link) -> usize {
        match (a, b) {
            (Link::Leaf(a), Link::Leaf(b)) => usize::from(!Arc::ptr_eq(a, b)),
            (Link::Inner(a), Link::Inner(b)) if Arc::ptr_eq(a, b) => 0,
            (Link::Inner(a), Link::Inner(b)) => {
                1 + a.children.iter().zip(&b.children).map(|(a, b)| copied(a, b)).sum::<usize>()
            }
            _ => panic!("the trees are of one shape"),
        }
    }
    let (Some(new), Some(old)) = (&tree.root, &frozen.root) else { panic!("neither is empty") };
    assert_eq!(copied(new, old), 3);
    assert_eq!(frozen.get(&spread(3)), Some(&[0; 100][..]));
    assert_eq!(tree.get(&spread(3)), Some(&b"changed"[..]));
}

#[test]
fn long_keys_and_values_keep_their_place() {
    let mut tree = Tree::default();
    let mut model = Model::new();
    for n in 0..60u8 {
        let key = [vec![b'k'; usize::from(n) * 1100], vec![n]].concat();
        let value = vec![n; if n % 7 == 0 { 3 << 20 } else { usize::from(n) * 30 }];
        tree.insert(&key, &value);
        model.insert(key, value);
        tree.check_invariants();
    }
    assert_same(&tree, &model);
    for key in model.keys() {
        assert_eq!(tree.get(key), Some(&model[key][..]));
        tree.remove(key);
        tree.check_invariants();
    }
}

#[test]
fn entries_with_both_parts_outside_come_and_go() {
    let mut tree = Tree::default();
    let mut model = Model::new();
    let mut random = 1u64;
    for _ in 0..3000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (n, len) = ((random >> 33) as u8 % 24, (random >> 45) as usize % 3);
        let key = vec![n; leaf::INLINE_KEY_BYTES + usize::from(n % 2)];
        if random >> 63 == 0 {
            assert_eq!(tree.remove(&key), model.remove(&key));
        } else {
            let value = vec![n; leaf::INLINE_VALUE_BYTES + len];
            assert_eq!(tree.insert(&key, &value), model.insert(key, value));
        }
        tree.check_invariants();
        assert_same(&tree, &model);
    }
}

#[test]
fn a_node_left_with_one_child_is_searched_though_its_keys_had_a_long_prefix() {
    let key = |n: usize| format!("a prefix that is longer than what a node repeats of it, {n:08}").into_bytes();
    let mut tree = Tree::default();
    let mut model = Model::new();
    let (mut entries, mut most) = (0, 0);
    // ascending keys leave a full inner node and, to its right, one of two children
    while most < 3 {
        tree.insert(&key(entries), b"value");
        model.insert(key(entries), b"value".to_vec());
        entries += 1;
        most = match &tree.root {
            Some(Link::Inner(root)) => match &root.children[0] {
                Link::Inner(_) => root.children.len() + 1,
                Link::Leaf(_) => 0,
            },
            _ => 0,
        };
    }
    for n in (0..entries).rev().take(200) {
        assert!(tree.remove(&key(n)).is_some());
        model.remove(&key(n));
        tree.check_invariants();
        assert_eq!(tree.get(&key(n)), None);
        assert_eq!(tree.get(&key(n - 1)), Some(&b"value"[..]));
    }
    for n in (0..entries).rev().take(200) {
        tree.insert(&key(n), b"again");
        model.insert(key(n), b"again".to_vec());
    }
    tree.check_invariants();
    assert_same(&tree, &model);
}
