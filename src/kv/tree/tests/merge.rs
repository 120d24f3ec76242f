//! Batches of writes, merged into a tree.

use super::*;

type Write = (Vec<u8>, Option<Vec<u8>>);

/// Merges the writes, and does them one by one in the model.
pub(super) fn merge(tree: &mut Tree, model: &mut Model, writes: &[Write]) {
    let mut batch = Batch::new(&Tuning::small());
    for (key, value) in writes {
        let (first, rest) = key.split_at(key.len() / 2);
        batch.push([first, &[], rest], value.as_deref());
        match value {
            Some(value) => drop(model.insert(key.clone(), value.clone())),
            None => drop(model.remove(key)),
        }
    }
    tree.merge(&mut batch);
    assert_eq!(batch.len(), 0);
    tree.check_invariants();
}

/// Keys that have much in common, or little, so that heads tie at every depth.
fn alike() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0u8..3, 0usize..40, 0u8..4).prop_map(|(a, len, b)| [vec![a; len], vec![b]].concat()),
        any::<u16>().prop_map(|n| format!("a prefix of many bytes/{:05}", n % 700).into_bytes()),
        any::<u16>().prop_map(|n| [b"b/", &n.to_be_bytes()[..]].concat()),
        key(),
    ]
}

fn writes(most: usize) -> impl Strategy<Value = Vec<Write>> {
    let value = prop_oneof![9 => (any::<u8>(), 0usize..120).prop_map(|(b, len)| vec![b; len]), 1 => value()];
    vec((alike(), prop::option::weighted(0.8, value)), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_does_what_single_writes_do_and_leaves_clones_alone(
        start in writes(900),
        batches in vec(writes(700), 1..4),
        fewer in any::<bool>(),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        for (key, value) in start {
            let value = value.unwrap_or_default();
            tree.insert(&key, &value);
            model.insert(key, value);
        }
        let mut frozen = Vec::new();
        for batch in &batches {
            frozen.push((tree.clone(), model.clone()));
            let few = if fewer { batch.len().min(40) } else { batch.len() };
            merge(&mut tree, &mut model, &batch[..few]);
            assert_same(&tree, &model);
            // and without a clone, in place
            frozen.retain(|_| !few.is_multiple_of(3));
        }
        for (tree, model) in &frozen {
            tree.check_invariants();
            assert_same(tree, model);
        }
    }
}

fn numbered(n: u32) -> Vec<u8> {
    spread(n).to_vec()
}

#[test]
fn large_batches_grow_overwrite_and_empty_a_tree() {
    const N: u32 = 30_000;
    let (mut tree, mut model) = (Tree::default(), Model::new());
    for part in 0..3 {
        let writes: Vec<_> = (0..N / 2).map(|n| (numbered(n * 3 + part), Some(vec![part as u8; 60]))).collect();
        merge(&mut tree, &mut model, &writes);
    }
    assert_same(&tree, &model);
    let least = tree.payload_bytes() as usize / leaf::LEAF_BYTES;
    assert!(tree.nodes() < least * 9 / 4, "{} nodes for what {least} would hold", tree.nodes());
    let frozen = tree.clone();
    let all: Vec<_> = model.keys().cloned().collect();
    let most: Vec<_> = all.iter().filter(|key| key[2] % 8 != 0).map(|key| (key.clone(), None)).collect();
    merge(&mut tree, &mut model, &most);
    assert_same(&tree, &model);
    assert!(tree.nodes() * 3 < frozen.nodes(), "{} of {} nodes are left", tree.nodes(), frozen.nodes());
    merge(&mut tree, &mut model, &all.iter().map(|key| (key.clone(), None)).collect::<Vec<_>>());
    assert!(tree.is_empty() && tree.root.is_none());
    assert!(frozen.range((Bound::Unbounded, Bound::Unbounded)).map(|(key, _)| key).eq(all.iter().map(|key| &key[..])));
}

#[test]
fn of_many_writes_to_a_key_the_last_counts() {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    for round in 0..3u8 {
        let writes: Vec<_> = (0..2_000u32)
            .map(|n| (numbered(n % 7), (n % 5 != u32::from(round)).then(|| n.to_be_bytes().to_vec())))
            .collect();
        merge(&mut tree, &mut model, &writes);
        assert_same(&tree, &model);
    }
}

#[test]
fn a_merge_touches_only_the_leaves_that_it_has_writes_for() {
    let mut tree = Tree::default();
    let mut model = Model::new();
    let all: Vec<_> = (0..20_000).map(|n| (numbered(n), Some(vec![1; 100]))).collect();
    merge(&mut tree, &mut model, &all);
    let frozen = tree.clone();
    // all of these keys are neighbours
    let few: Vec<_> = model.keys().skip(5_000).take(200).map(|key| (key.clone(), Some(vec![2; 100]))).collect();
    merge(&mut tree, &mut model, &few);
    assert_same(&tree, &model);
    fn leaves(link: &Link, all: &mut Vec<*const u8>) {
        match link {
            Link::Leaf(leaf) => all.push(Arc::as_ptr(leaf).cast()),
            Link::Inner(inner) => inner.children.iter().for_each(|child| leaves(child, all)),
        }
    }
    let of = |tree: &Tree| {
        let mut all = Vec::new();
        tree.root.iter().for_each(|root| leaves(root, &mut all));
        all
    };
    let (new, old) = (of(&tree), of(&frozen));
    let kept = new.iter().filter(|leaf| old.contains(leaf)).count();
    assert!(kept + 12 > old.len() && kept < old.len(), "{kept} of {} leaves are kept", old.len());
}
