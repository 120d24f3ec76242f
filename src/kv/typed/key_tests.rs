//! The encodings of keys: their documented bytes, their order, and what is refused.

use super::key::Key;
use super::key_range::KeyPrefix;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Debug;

type Three = (String, Vec<u8>, i16);

fn prefix_of_three(prefix: &impl KeyPrefix<Three>) -> Vec<u8> {
    prefix.encode_prefix()
}

fn bytes<K: Key + ?Sized>(key: &K) -> Vec<u8> {
    key.encode().as_ref().to_vec()
}

#[test]
fn keys_have_the_documented_bytes() {
    assert_eq!(bytes(&0x0102u16), [1, 2]);
    assert_eq!(bytes(&-1i16), [0x7f, 0xff]);
    assert_eq!(bytes(&i64::MIN), [0; 8]);
    assert_eq!(bytes(&7usize), bytes(&7u64));
    assert_eq!(bytes(&-7isize), bytes(&-7i64));
    assert_eq!(bytes(&true), [1]);
    assert_eq!(bytes(&'a'), [0, 0, 0, 97]);
    assert_eq!(bytes("ab"), b"ab");
    assert_eq!(bytes(&[1u8, 0][..]), [1, 0]);
    assert_eq!(bytes(&[9u8; 3]), [9, 9, 9]);
    assert_eq!(bytes(&()), []);
    assert_eq!(bytes(&None::<u8>), [0]);
    assert_eq!(bytes(&Some(7u8)), [1, 7]);
    // parts of a fixed length as they are, others escaped and terminated, and the last one as it is
    assert_eq!(bytes(&(1u8, 2u16)), [1, 0, 2]);
    assert_eq!(bytes(&("a\0b".to_owned(), 7u8)), b"a\0\xffb\0\0\x07");
    assert_eq!(bytes(&(7u8, "a\0b".to_owned())), b"\x07a\0b");
    let nested = b"a\0\xff\xff\0\xff\0\xff\x01\0\0\x02";
    assert_eq!(bytes(&(("a\0".to_owned(), 1u8), 2u8)), nested);
    assert_eq!(prefix_of_three(&("a".to_owned(), vec![7])), b"a\0\0\x07\0\0");
    assert_eq!(KeyPrefix::<String>::encode_prefix("ab"), b"ab");
}

#[test]
fn types_have_lasting_names() {
    assert_eq!(<(u64, String, [u8; 4], Option<i8>)>::type_name(), "(u64, str, [u8; 4], Option<i8>)");
    assert_eq!([str::type_name(), String::type_name(), usize::type_name()], ["str", "str", "u64"]);
    assert_eq!([<[u8]>::type_name(), Vec::<u8>::type_name(), isize::type_name()], ["[u8]", "[u8]", "i64"]);
    assert_eq!(<(u8, u32)>::LEN, Some(5));
    assert_eq!(<(u8, String)>::LEN, None);
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    let refused = [
        u16::decode(&[1]).is_err(),
        i32::decode(&[0; 5]).is_err(),
        bool::decode(&[2]).is_err(),
        char::decode(&0xd800u32.to_be_bytes()).is_err(),
        str::decode(&[0xff]).is_err(),
        <[u8; 2]>::decode(&[1]).is_err(),
        <()>::decode(&[0]).is_err(),
        Option::<u8>::decode(&[0, 1]).is_err(),
        Option::<u8>::decode(&[2]).is_err(),
        <(String, u8)>::decode(b"a").is_err(),
        <(String, u8)>::decode(b"a\0").is_err(),
        <(String, u8)>::decode(b"a\0\x01\0\0\x07").is_err(),
        <(String, u8)>::decode(b"a\0\0").is_err(),
        <(u16, u8)>::decode(&[1]).is_err(),
    ];
    assert_eq!(refused, [true; 14]);
}

/// Checks that two keys come back from their encodings, and have their order.
fn check<K: Key<Owned = K> + Ord + Debug>(a: &K, b: &K) {
    assert_eq!(K::decode(&bytes(a)).unwrap(), *a);
    assert_eq!(bytes(a).cmp(&bytes(b)), a.cmp(b), "{a:?} {b:?}");
    assert!(K::LEN.is_none_or(|len| bytes(a).len() == len));
}

/// Short strings of few characters, so that one is often the start of the other.
fn text() -> impl Strategy<Value = String> {
    vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'ü', char::MAX]), 0..4).prop_map(String::from_iter)
}

fn few_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(vec![0u8, 1, 254, 255]), 0..4)
}

macro_rules! numbers {
    ($($test:ident $ty:ty;)*) => {
        proptest! {$(
            #[test]
            fn $test(a in any::<$ty>(), b in any::<$ty>(), step in 0u8..3) {
                check(&a, &b);
                check(&a, &a.wrapping_add(step as $ty));
                for edge in [<$ty>::MIN, <$ty>::MAX, 0] {
                    check(&a, &edge);
                    check(&edge, &a);
                }
            }
        )*}
    };
}

numbers! {
    u8_keeps_its_order u8;
    u16_keeps_its_order u16;
    u32_keeps_its_order u32;
    u64_keeps_its_order u64;
    u128_keeps_its_order u128;
    usize_keeps_its_order usize;
    i8_keeps_its_order i8;
    i16_keeps_its_order i16;
    i32_keeps_its_order i32;
    i64_keeps_its_order i64;
    i128_keeps_its_order i128;
    isize_keeps_its_order isize;
}

proptest! {
    #[test]
    fn single_keys_keep_their_order(
        (text_a, text_b) in (text(), text()),
        (bytes_a, bytes_b) in (few_bytes(), few_bytes()),
        (chars, bools, arrays) in (any::<(char, char)>(), any::<(bool, bool)>(), any::<([u8; 3], [u8; 3])>()),
        (some_a, some_b) in (prop::option::of(few_bytes()), prop::option::of(few_bytes())),
    ) {
        check(&text_a, &text_b);
        check(&bytes_a, &bytes_b);
        check(&chars.0, &chars.1);
        check(&bools.0, &bools.1);
        check(&arrays.0, &arrays.1);
        check(&some_a, &some_b);
        prop_assert_eq!(bytes(&text_a), bytes(text_a.as_str()));
    }

    #[test]
    fn tuples_have_the_order_of_their_parts(
        (a, b) in (text(), text()), (c, d) in (few_bytes(), few_bytes()), (e, f) in any::<(i16, i16)>(),
        (g, h) in (prop::option::of(text()), prop::option::of(text())),
    ) {
        check(&(a.clone(), e), &(b.clone(), f));
        check(&(e, a.clone()), &(f, b.clone()));
        check(&(a.clone(), c.clone(), e), &(b.clone(), d.clone(), f));
        check(&(g.clone(), c.clone(), a.clone(), e), &(h.clone(), d.clone(), b.clone(), f));
        check(&((a.clone(), c.clone()), g.clone()), &((b.clone(), d.clone()), h.clone()));
        check(&(1u8, a.clone(), c.clone(), e, g.clone()), &(1u8, b.clone(), d.clone(), f, h.clone()));
        check(&(true, a.clone(), c.clone(), e, g.clone(), 'x'), &(true, b.clone(), d.clone(), f, h.clone(), 'y'));
        check(&(a.clone(),), &(b.clone(),));

        // a prefix covers exactly the keys with the same leading parts
        let (one, other) = ((a.clone(), c.clone(), e), (b.clone(), d.clone(), f));
        prop_assert_eq!(bytes(&one).starts_with(&prefix_of_three(&(b.clone(),))), a == b);
        prop_assert_eq!(bytes(&other).starts_with(&prefix_of_three(&(a.clone(), c.clone()))), a == b && c == d);
    }

    #[test]
    fn decoding_noise_never_panics(noise in vec(prop_oneof![0u8..2, 254u8..=255, any::<u8>()], 0..20)) {
        if let Ok(key) = <(String, Vec<u8>, u16)>::decode(&noise) {
            prop_assert_eq!(bytes(&key), noise.clone());
        }
        if let Ok(key) = <(Option<(String, u8)>, Vec<u8>)>::decode(&noise) {
            prop_assert_eq!(bytes(&key), noise.clone());
        }
        let _ = (char::decode(&noise), bool::decode(&noise), str::decode(&noise), i128::decode(&noise));
    }
}
