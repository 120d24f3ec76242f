use super::range::KvSpan;
use super::tree::End;
use super::*;
use crate::machine::parts::PartCollector;
use crate::machine::{BulkMachine, DecodeError, Parts, StateMachine};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::BufReader;

fn saved(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::new();
    kv.save(&mut bytes).unwrap();
    bytes
}

fn load(bytes: &[u8]) -> Result<Kv, DecodeError> {
    Kv::load(&mut &bytes[..], 1)
}

fn encoded(command: &KvCommand) -> Vec<u8> {
    let mut bytes = Vec::new();
    Kv::encode(command, &mut bytes);
    bytes
}

fn table() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["", "a", "ab", "ab\u{1}", "ü"]).prop_map(String::from),
        1 => prop::sample::select(vec!["a\0b".to_owned(), "x".repeat(256)]),
    ]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(prop::sample::select(vec![0u8, 1, b'k', 255]), 0..3),
        1 => Just(vec![7; MAX_KEY_LEN - 3]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..4), 1 => (1000usize..70_000).prop_map(|n| vec![9; n])]
}

fn single() -> impl Strategy<Value = KvCommand> {
    let small = || prop::option::of(vec(0u8..2, 0..2));
    prop_oneof![
        4 => (table(), key(), value()).prop_map(|(t, k, v)| KvCommand::put(t, k, v)),
        2 => (table(), key(), vec(0u8..2, 0..2)).prop_map(|(t, k, v)| KvCommand::put(t, k, v)),
        3 => (table(), key()).prop_map(|(t, k)| KvCommand::delete(t, k)),
        4 => (table(), key(), small(), small()).prop_map(|(t, k, e, n)| KvCommand::compare_and_set(t, k, e, n)),
    ]
}

fn command() -> impl Strategy<Value = KvCommand> {
    single().prop_recursive(3, 24, 5, |inner| vec(inner, 0..5).prop_map(KvCommand::Batch))
}

/// Batches that come back to a key they have changed before; one in four ends with a command that
/// is rejected.
fn busy_batch() -> impl Strategy<Value = KvCommand> {
    let write = (0u8..2, prop::option::weighted(0.7, any::<u8>())).prop_map(|(key, value)| match value {
        Some(value) => KvCommand::put("a", [key], [value]),
        None => KvCommand::delete("a", [key]),
    });
    let nested = prop_oneof![3 => write.clone(), 1 => vec(write, 0..4).prop_map(KvCommand::Batch)];
    (vec(nested, 0..7), prop::bool::weighted(0.25)).prop_map(|(mut commands, fails)| {
        commands.extend(fails.then(|| KvCommand::delete("\0", "")));
        KvCommand::Batch(commands)
    })
}

fn state() -> impl Strategy<Value = Kv> {
    vec(command(), 0..30).prop_map(|commands| {
        let mut kv = Kv::default();
        for command in &commands {
            let _ = kv.apply(command);
        }
        kv
    })
}

fn nested(depth: usize) -> KvCommand {
    (0..depth).fold(KvCommand::delete("t", "k"), |inner, _| KvCommand::Batch(vec![inner]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn an_inverse_restores_the_state_exactly_whatever_came_between(
        kv in state(),
        command in prop_oneof![command(), busy_batch()],
        between in vec(command(), 0..12),
    ) {
        let before = saved(&kv);
        let mut with = kv.clone();
        let mut without = kv.clone();
        let Ok((_, inverse)) = with.apply(&command) else {
            prop_assert_eq!(saved(&with), before);
            return Ok(());
        };
        let footprint = Kv::footprint(&command);
        let inverse_footprint = Kv::footprint(&inverse);
        prop_assert!(inverse_footprint.claims().iter().all(|claim| footprint.claims().contains(claim)));
        for other in between.iter().filter(|other| !Kv::footprint(other).conflicts_with(&footprint)) {
            prop_assert_eq!(with.apply(other).map(|(r, _)| r), without.apply(other).map(|(r, _)| r));
        }
        let (_, again) = with.apply(&inverse).unwrap();
        prop_assert_eq!(saved(&with), saved(&without));
        // The inverse's inverse brings the change back.
        let mut changed = kv.clone();
        changed.apply(&command).unwrap();
        let after = saved(&changed);
        changed.apply(&inverse).unwrap();
        prop_assert_eq!(saved(&changed), before.clone());
        changed.apply(&again).unwrap();
        prop_assert_eq!(saved(&changed), after);
        prop_assert_eq!(saved(&kv), before);
    }

    #[test]
    fn a_loaded_state_is_the_saved_one(kv in state(), buffer in 1usize..200) {
        let bytes = saved(&kv);
        let loaded = load(&bytes).unwrap();
        prop_assert_eq!(saved(&loaded), bytes.clone());
        let piecewise = Kv::load(&mut BufReader::with_capacity(buffer, &bytes[..]), 1).unwrap();
        prop_assert_eq!((piecewise.len(), piecewise.payload_bytes()), (kv.len(), kv.payload_bytes()));
        prop_assert_eq!(saved(&piecewise), bytes.clone());
        let mut drained = Vec::new();
        kv.save_parts(&mut drained).unwrap();
        prop_assert_eq!(drained, bytes);
    }

    #[test]
    fn damaged_states_are_refused_or_read_without_panic(
        kv in state(), at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = saved(&kv);
        prop_assert!(load(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(loaded) = load(&bytes) {
            prop_assert_eq!(load(&saved(&loaded)).unwrap().len(), loaded.len());
        }
        bytes[at] ^= flip;
        bytes.push(0);
        prop_assert!(load(&bytes).is_err());
    }

    #[test]
    fn commands_survive_their_encoding(command in command(), at in any::<prop::sample::Index>(), flip in 1u8..=255) {
        let mut bytes = encoded(&command);
        prop_assert_eq!(Kv::encoded_len(&command), bytes.len());
        prop_assert_eq!(Kv::decode(&bytes, 1).unwrap(), command);
        let at = at.index(bytes.len());
        prop_assert!(Kv::decode(&bytes[..at], 1).is_err());
        bytes.push(0);
        prop_assert!(Kv::decode(&bytes, 1).is_err());
        bytes.pop();
        bytes[at] ^= flip;
        if let Ok(other) = Kv::decode(&bytes, 1) {
            prop_assert_eq!(encoded(&other), bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(prop_oneof![0u8..6, any::<u8>()], 0..60)) {
        if let Ok(command) = Kv::decode(&bytes, 1) {
            prop_assert_eq!(encoded(&command), bytes.clone());
        }
        let _ = load(&bytes);
    }

    #[test]
    fn reads_see_one_table_only(kv in state(), table in table(), from in key(), to in key()) {
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (key, value) in kv.prefix(&table, "") {
            model.insert(key.to_vec(), value.to_vec());
            prop_assert_eq!(kv.get(&table, key), Some(value));
            prop_assert!(kv.contains(&table, key));
        }
        prop_assert_eq!(model.is_empty(), kv.table_is_empty(&table));
        prop_assert_eq!(kv.tables().any(|t| t == table), !model.is_empty());
        prop_assert_eq!(kv.tables().map(|t| kv.range::<[u8]>(t, ..).count()).sum::<usize>(), kv.len());
        prop_assert!(kv.tables().is_sorted());
        let wanted: Vec<_> = model.iter().filter(|(k, _)| **k >= from && **k < to).collect();
        let got: Vec<_> = kv.range(&table, from.clone()..to.clone()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        prop_assert!(got.iter().map(|(k, v)| (k, v)).eq(wanted));
        let wanted = model.keys().rev().filter(|k| k.starts_with(&from));
        prop_assert!(kv.prefix(&table, &from).rev().map(|(k, _)| k.to_vec()).eq(wanted.cloned()));
    }
}

#[test]
fn equal_content_has_equal_bytes_whatever_its_history() {
    let put = |kv: &mut Kv, n: u32| drop(kv.apply(&KvCommand::put("t", n.to_be_bytes(), n.to_le_bytes())));
    let (mut up, mut down) = (Kv::default(), Kv::default());
    (0..3000).for_each(|n| put(&mut up, n));
    (0..6000).rev().for_each(|n| put(&mut down, n));
    (3000u32..6000).for_each(|n| drop(down.apply(&KvCommand::delete("t", n.to_be_bytes()))));
    assert_eq!(saved(&up), saved(&down));
}

#[test]
fn the_bytes_of_a_state_are_as_documented() {
    let mut kv = Kv::default();
    kv.apply(&KvCommand::batch([
        KvCommand::put("", "k", "1"),
        KvCommand::put("t", "ab", "2"),
        KvCommand::put("t", "ac", ""),
    ]))
    .unwrap();
    let wanted = [
        &[3][..], // entries
        &[0, 2, 1, 0, b'k', b'1'],
        &[0, 4, 1, b't', 0, b'a', b'b', b'2'],
        &[3, 1, 0, b'c'],
    ];
    assert_eq!(saved(&kv), wanted.concat());
}

#[test]
fn the_bytes_of_commands_are_as_documented() {
    let cas = |e: Option<&str>, n: Option<&str>| encoded(&KvCommand::compare_and_set("t", "k", e, n));
    assert_eq!(encoded(&KvCommand::put("t", "k", "vv")), [1, 1, b't', 1, b'k', 2, b'v', b'v']);
    assert_eq!(encoded(&KvCommand::batch([KvCommand::delete("", "k")])), [4, 1, 2, 0, 1, b'k']);
    assert_eq!(cas(None, None), [3, 1, b't', 1, b'k', 0]);
    assert_eq!(cas(Some("e"), Some("n")), [3, 1, b't', 1, b'k', 3, 1, b'e', 1, b'n']);
    assert_eq!(cas(None, Some("")), [3, 1, b't', 1, b'k', 2, 0]);
}

#[test]
fn numbers_have_one_form() {
    for n in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
        let mut bytes = Vec::new();
        crate::varint::put_varint(n, &mut bytes);
        assert_eq!(codec::split_varint(&bytes).unwrap(), Some((n, &[][..])));
        assert_eq!(codec::split_varint(&bytes[..bytes.len() - 1]).unwrap(), None);
    }
    for bad in [&[0x80, 0][..], &[0xff, 0x80, 0x00], &[0xff; 11], &[0xff, 255, 255, 255, 255, 255, 255, 255, 255, 2]] {
        assert!(codec::split_varint(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn batches_nest_to_the_limit() {
    let mut kv = Kv::default();
    assert!(kv.apply(&nested(MAX_BATCH_DEPTH)).is_ok());
    assert!(Kv::decode(&encoded(&nested(MAX_BATCH_DEPTH)), 1).is_ok());
    assert!(Kv::decode(&encoded(&nested(MAX_BATCH_DEPTH + 1)), 1).is_err());
    let mut rejection = kv.apply(&nested(MAX_BATCH_DEPTH + 1)).unwrap_err();
    while let KvRejection::InBatch { index: 0, rejection: inner } = rejection {
        rejection = *inner;
    }
    assert_eq!(rejection, KvRejection::BatchTooDeep);
}

#[test]
fn limits_are_checked_before_anything_changes() {
    let mut kv = Kv::default();
    let rejected = |kv: &mut Kv, command: KvCommand| kv.apply(&command).unwrap_err();
    let long = vec![0; MAX_KEY_LEN];
    assert!(kv.apply(&KvCommand::put("", &long[..], "v")).is_ok());
    assert_eq!(load(&saved(&kv)).unwrap().get("", &long), Some(&b"v"[..]));
    let limit = MAX_KEY_LEN - 1;
    assert_eq!(
        rejected(&mut kv, KvCommand::put("t", &long[..], "v")),
        KvRejection::KeyTooLong { len: MAX_KEY_LEN, limit }
    );
    assert_eq!(rejected(&mut kv, KvCommand::delete("a\0", "k")), KvRejection::InvalidTable { table: "a\0".into() });
    assert_eq!(kv.len(), 1);
    assert_eq!(kv.get("a\0b", "k"), None);
    let text = rejected(&mut kv, KvCommand::batch([nested(1), KvCommand::delete("\0", "")])).to_string();
    assert_eq!(text, "command 1 of the batch: \"\\0\" is not a table name: use at most 255 bytes and no NUL");
}

#[test]
fn a_count_or_length_of_what_is_not_there_is_an_error_before_anything_is_allocated() {
    for kind in 1..=4 {
        for stated in [1 << 40, u64::MAX >> 1, u64::MAX] {
            let mut bytes = vec![kind];
            crate::varint::put_varint(stated, &mut bytes);
            assert!(Kv::decode(&bytes, 1).is_err(), "{kind} {stated}");
            assert!(Kv::default().redo(&[&bytes], 1).is_err(), "{kind} {stated}");
        }
    }
}

#[test]
fn a_state_in_parts_is_the_same_read_side_by_side_and_as_a_stream() {
    let mut kv = Kv::default();
    for n in 0..60_000u32 {
        let table = if n % 3 == 0 { "a" } else { "b" };
        kv.apply(&KvCommand::put(table, n.wrapping_mul(0x9E37_79B9).to_be_bytes(), [n as u8; 100])).unwrap();
    }
    // one that is longer than a chunk of a snapshot
    kv.apply(&KvCommand::put("c", "large", vec![1; 3 << 20])).unwrap();
    kv.apply(&KvCommand::put("d", "last", "")).unwrap();
    let mut writer = PartCollector::default();
    snapshot::save(&kv.tree, &mut writer).unwrap();
    let parts = writer.into_parts();
    assert!(parts.len() >= 5, "{}", parts.len());
    assert_eq!(parts.concat(), saved(&kv));
    assert!(kv.payload_bytes() > 6 << 20, "several threads encode it");
    for threads in 1..5 {
        let mut frozen = PartCollector::default();
        parallel_save::save(kv.tree.clone(), threads, &mut frozen).unwrap();
        assert!(frozen.into_parts() == parts, "the parts do not depend on the way, with {threads} threads");
    }

    let load_parts = |parts: &[Vec<u8>]| Kv::load_parts(Parts::of(parts), 1);
    assert_eq!(saved(&load_parts(&parts).unwrap()), saved(&kv));
    assert_eq!(saved(&load(&parts.concat()).unwrap()), saved(&kv));
    assert_eq!(saved(&load_parts(&[saved(&Kv::default())]).unwrap()), saved(&Kv::default()));

    for part in 0..parts.len() {
        let mut missing = parts.clone();
        missing.remove(part);
        assert!(load_parts(&missing).is_err(), "without part {part}");
        let mut cut = parts.clone();
        cut[part].pop();
        // the last entry's value may be what was cut short, or it has none
        assert!(load_parts(&cut).is_err(), "part {part} cut short");
    }
    let mut swapped = parts.clone();
    swapped.swap(1, 2);
    assert!(load_parts(&swapped).is_err());
    let mut twice = parts.clone();
    twice.insert(1, parts[1].clone());
    assert!(load_parts(&twice).is_err());
    assert!(load_parts(&[]).is_err());
}

proptest! {
    #[test]
    fn a_span_taken_in_pieces_from_both_ends_gives_what_a_range_gives(
        keys in prop::collection::vec((0u8..3, any::<u16>()), 0..600),
        (start, end) in (any::<u16>(), any::<u16>()),
        ends in prop::collection::vec(any::<bool>(), 1..9),
    ) {
        let mut kv = Kv::default();
        for (table, key) in keys {
            let table = ["", "t", "tt"][usize::from(table)];
            kv.apply(&KvCommand::put(table, key.to_be_bytes(), [table.len() as u8; 50])).unwrap();
        }
        let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
        let range = || (std::ops::Bound::Included(&start[..]), std::ops::Bound::Excluded(&end[..]));
        for table in ["", "t", "no table\0"] {
            let mut left: std::collections::VecDeque<_> = kv.range::<[u8]>(table, range()).collect();
            let mut span = KvSpan::of_range::<[u8]>(table, &range());
            prop_assert!(kv.entries(&span).eq(left.iter().copied()));
            for end in ends.iter().cycle().map(|front| if *front { End::Front } else { End::Back }) {
                let Some(mut piece) = kv.take_piece(&mut span, end) else { break };
                while let Some((key, value)) = piece.pop(end, |key, value| (key.to_vec(), value.to_vec())) {
                    let wanted = if end == End::Front { left.pop_front() } else { left.pop_back() };
                    prop_assert_eq!(Some((&key[..], &value[..])), wanted);
                }
            }
            prop_assert!(left.is_empty());
        }
    }
}
