//! Typed tables: their types, and what handles of stores, transactions and views do.

use crate::common::{Rng, manual, open_on};
use seawal::kv::{Kv, KvCommand, MAX_KEY_LEN, TableHandle};
use seawal::sim::{Crash, SimDisk};
use seawal::{Error, Store, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    visits: u32,
}

const USERS: Table<u64, User> = Table::new("users");
const WORDS: Table<str, str> = Table::new("words");
const BYTES: Table<[u8], [u8]> = Table::new("bytes");

fn store() -> (SimDisk, Store) {
    let disk = SimDisk::new(1);
    let (store, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    (disk, store)
}

/// The store after power loss.
fn reopened(disk: &SimDisk) -> Store {
    manual().open_on(Arc::new(disk.crash(Crash::Nothing))).unwrap()
}

fn user(name: &str, visits: u32) -> User {
    User { name: name.into(), visits }
}

#[test]
fn a_table_keeps_the_types_that_it_was_written_with() {
    mod changed {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        pub(super) struct User {
            pub(super) name: String,
            pub(super) visits: u64,
        }
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub(super) struct Person {
            pub(super) name: String,
            pub(super) visits: u32,
        }
    }
    let (disk, store) = store();
    store.table(USERS).put(&7, &user("ann", 1)).unwrap();
    for store in [store, reopened(&disk)] {
        let error = store.table(Table::<str, User>::new("users")).get("ann").unwrap_err();
        assert!(error.is_other_types());
        let text = "the table \"users\" was written as Table<u64, User>, and was opened as Table<str, User>; ";
        assert!(error.to_string().starts_with(text), "{error}");
        let other = store.table(Table::<u64, changed::User>::new("users"));
        assert!(other.put(&8, &changed::User { name: "bob".into(), visits: 1 }).unwrap_err().is_other_types());
        let text = other.iter().unwrap_err().to_string();
        assert!(text.contains("the fields or variants of its values differ"), "{text}");
        let raw = store.table(Table::<u64, [u8]>::new("users"));
        assert!(raw.get(&7).unwrap_err().is_other_types());
        store
            .transact(|tx| {
                assert!(tx.table(WORDS_AS_USERS).get_for_update("x").unwrap_err().is_other_types());
                Ok::<_, Error>(())
            })
            .unwrap();
        assert!(store.view().unwrap().table(WORDS_AS_USERS).get("x").unwrap_err().is_other_types());
        // a type may get another name, as long as its parts are the same
        let person = store.table(Table::<u64, changed::Person>::new("users")).get(&7).unwrap().unwrap();
        assert_eq!(person, changed::Person { name: "ann".into(), visits: 1 });
        assert_eq!(store.table(USERS).len().unwrap(), 1);
    }
}

const WORDS_AS_USERS: Table<str, str> = Table::new("users");

#[test]
fn an_enum_of_a_table_may_get_variants_at_its_end() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Before {
        Open(u8),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum After {
        Open(u8),
        Closed,
    }
    let (disk, store) = store();
    store.table(Table::<u8, Before>::new("doors")).put(&1, &Before::Open(7)).unwrap();
    let store = reopened(&disk);
    let doors = store.table(Table::<u8, After>::new("doors"));
    doors.put(&2, &After::Closed).unwrap();
    assert_eq!(doors.get(&1).unwrap(), Some(After::Open(7)));
    // the older program still reads what it knows
    let doors = store.table(Table::<u8, Before>::new("doors"));
    assert_eq!(doors.get(&1).unwrap(), Some(Before::Open(7)));
    assert!(matches!(doors.get(&2), Err(Error::Undecodable { what: "value", .. })));
}

#[test]
fn a_handle_that_was_opened_before_the_first_write_learns_the_types() {
    let (_, store) = store();
    let early = store.table(WORDS_AS_USERS);
    let same = store.table(USERS);
    assert_eq!(early.get("x").unwrap(), None);
    store.table(USERS).put(&7, &user("ann", 1)).unwrap();
    for _ in 0..2 {
        assert!(early.get("x").unwrap_err().is_other_types());
        assert!(early.put("x", "y").unwrap_err().is_other_types());
        assert!(early.iter().unwrap_err().is_other_types());
        assert!(early.clone().remove("x").unwrap_err().is_other_types());
    }
    assert_eq!(same.get(&7).unwrap(), Some(user("ann", 1)));
    same.put(&8, &user("bob", 0)).unwrap();
    assert_eq!(same.len().unwrap(), 2);
}

#[test]
fn the_types_are_recorded_with_the_first_row_or_not_at_all() {
    let (disk, store) = store();
    let other = store.table(WORDS_AS_USERS);
    let tx = store.begin().unwrap();
    {
        let users = tx.table(USERS);
        users.put(&1, &user("ann", 0)).unwrap();
        assert_eq!(users.insert(&1, &user("ann", 1)).unwrap(), Some(user("ann", 0)));
        assert!(tx.table(WORDS_AS_USERS).get("x").unwrap_err().is_other_types(), "within the transaction");
    }
    // nothing waits for the transaction before a row is read or written
    let waiting = store.table(USERS);
    assert!(matches!(waiting.get(&1), Err(Error::LockTimeout)));
    assert!(matches!(waiting.put(&2, &user("bob", 0)), Err(Error::LockTimeout)));
    tx.rollback().unwrap();
    assert!(store.view().unwrap().is_empty());
    other.put("x", "y").unwrap();
    assert!(waiting.put(&2, &user("bob", 0)).unwrap_err().is_other_types());

    // a rollback to a savepoint takes the record along, and the next write writes it again
    let tx = store.begin().unwrap();
    let start = tx.savepoint().unwrap();
    tx.table(WORDS).put("a", "1").unwrap();
    tx.rollback_to(start).unwrap();
    tx.table(WORDS).put("b", "2").unwrap();
    tx.commit().unwrap();
    let store = reopened(&disk);
    let types = |name: &str| store.tables().unwrap().into_iter().find(|table| table.name == name).unwrap().types;
    assert_eq!(types("words"), Some(("str".into(), "str".into())));
    assert_eq!(types("users"), Some(("str".into(), "str".into())));
    assert_eq!(store.table(WORDS).get("b").unwrap().as_deref(), Some("2"));
}

#[test]
fn the_records_of_types_are_not_listed() {
    let (_, store) = store();
    store.insert("raw", "row").unwrap();
    store.table(USERS).put(&7, &user("ann", 1)).unwrap();
    store.table(BYTES).put(b"k", b"v").unwrap();
    let kv = store.view().unwrap();
    assert_eq!(kv.tables().collect::<Vec<_>>(), ["", "bytes", "users"]);
    assert_eq!(kv.len(), 3);
    let names: Vec<_> = store.tables().unwrap().into_iter().map(|table| (table.name, table.types)).collect();
    let typed = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
    assert_eq!(
        names,
        [
            ("".to_owned(), None),
            ("bytes".to_owned(), typed("[u8]", "[u8]")),
            ("users".to_owned(), typed("u64", "User")),
        ]
    );
    assert!(store.table(USERS).remove(&7).unwrap());
    assert!(!store.table(USERS).remove(&7).unwrap());
    assert_eq!(store.tables().unwrap().len(), 2);
    assert!(store.table(WORDS_AS_USERS).get("x").unwrap_err().is_other_types(), "the types outlast the rows");
}

#[test]
fn what_the_machine_rejects_is_an_error_of_the_crate() {
    // a record of the smallest segments is shorter than the longest key
    let options = manual().first_segment_bytes(1 << 20).segment_bytes(1 << 20).max_log_bytes(16 << 20);
    let (store, _) = open_on::<Kv>(&SimDisk::new(1), &options).unwrap();
    let long = "x".repeat(MAX_KEY_LEN);
    for error in [
        store.table(WORDS).put(&long, "v").unwrap_err(),
        store.table(WORDS).insert(&long, "v").unwrap_err(),
        store.table(WORDS).take(&long).unwrap_err(),
        store.table(WORDS).compare_and_set(&long, None, Some("v")).unwrap_err(),
        store.table(WORDS).update(&long, |_| Some("v".into())).unwrap_err(),
    ] {
        let limit = (MAX_KEY_LEN - "words".len()) as u64;
        assert!(matches!(error, Error::TooLarge { what: "a key", limit: l, .. } if l == limit), "{error}");
    }
    assert!(store.view().unwrap().is_empty());
    for name in ["a\0b".to_owned(), "x".repeat(256), "\u{1}types".to_owned()] {
        let table = store.table(Table::<str, str>::named(name));
        for error in [table.get("k").unwrap_err(), table.put("k", "v").unwrap_err(), table.iter().unwrap_err()] {
            assert!(matches!(&error, Error::InvalidArgument { reason } if reason.contains("name")), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_decoded_is_named_and_passed_over() {
    let (_, store) = store();
    let users = store.table(USERS);
    for n in [1, 3] {
        users.put(&n, &user("ann", n as u32)).unwrap();
    }
    store.execute(KvCommand::put("users", 2u64.to_be_bytes(), "\u{7f}")).unwrap();
    store.execute(KvCommand::put("users", "odd", "")).unwrap();
    let error = users.get(&2).unwrap_err();
    assert!(error.to_string().starts_with("a value of the table \"users\" cannot be decoded as User: "), "{error}");
    let entries: Vec<_> = users.iter().unwrap().collect();
    assert_eq!(entries[0].as_ref().unwrap().0, 1);
    assert!(matches!(&entries[1], Err(Error::Undecodable { what: "value", .. })));
    assert_eq!(entries[2].as_ref().unwrap().1, user("ann", 3));
    assert!(matches!(&entries[3], Err(Error::Undecodable { what: "key", .. })));
    assert_eq!((entries.len(), users.len().unwrap()), (4, 4));
    assert_eq!(users.with(&2, <[u8]>::to_vec).unwrap(), Some(vec![0x7f]));
}

#[test]
fn rows_that_no_handle_has_written_can_be_read_with_types() {
    let (_, store) = store();
    store.execute(KvCommand::put("words", "a", "1")).unwrap();
    assert_eq!(store.table(WORDS).get("a").unwrap().as_deref(), Some("1"));
    assert_eq!(store.table(WORDS).len().unwrap(), 1);
    store.table(WORDS).put("b", "2").unwrap();
    assert_eq!(store.tables().unwrap()[0].types, Some(("str".into(), "str".into())));
    let words: Vec<_> = store.table(WORDS).range("a"..).unwrap().rev().map(|entry| entry.unwrap().0).collect();
    assert_eq!(words, ["b", "a"]);
}

#[test]
fn updates_and_removals_of_several_threads_are_each_done_once() {
    const COUNTS: Table<str, u64> = Table::new("counts");
    const JOBS: Table<u64, str> = Table::new("jobs");
    let dir = tempfile::tempdir().unwrap();
    let store = seawal::Options::new().durability(seawal::Durability::Os).open::<Kv>(dir.path()).unwrap();
    let (counts, jobs) = (store.table(COUNTS), store.table(JOBS));
    (0..100).for_each(|n| jobs.put(&n, "work").unwrap());
    let taken = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (counts, jobs, store) = (counts.clone(), jobs.clone(), store.clone());
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    for _ in 0..50 {
                        if thread % 2 == 0 {
                            counts.update("n", |n| Some(n.unwrap_or(0) + 1)).unwrap();
                            taken.extend(jobs.pop_first().unwrap().map(|(job, _)| job));
                        } else {
                            let job = store.transact(|tx| {
                                tx.table(COUNTS).update("n", |n| Some(n.unwrap_or(0) + 1))?;
                                tx.table(JOBS).pop_last()
                            });
                            taken.extend(job.unwrap().map(|(job, _)| job));
                        }
                    }
                    taken
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(counts.get("n").unwrap(), Some(200));
    assert!(jobs.is_empty().unwrap());
    let mut taken = taken;
    taken.sort_unstable();
    assert!(taken.into_iter().eq(0..100));
}

/// The same steps through any handle that writes, against a map.
fn step<S: seawal::kv::WriteSource>(table: &TableHandle<S, i16, User>, model: &mut BTreeMap<i16, User>, rng: &mut Rng) {
    let key = rng.below(40) as i16 - 20;
    let new = user(&"x".repeat(rng.below(30) as usize), rng.below(3) as u32);
    match rng.below(12) {
        0 => assert_eq!(table.insert(&key, &new).unwrap(), model.insert(key, new)),
        1 | 2 => {
            table.put(&key, &new).unwrap();
            model.insert(key, new);
        }
        3 => assert_eq!(table.remove(&key).unwrap(), model.remove(&key).is_some()),
        4 => assert_eq!(table.take(&key).unwrap(), model.remove(&key)),
        5 => {
            let change = |old: Option<User>| old.map(|old| user(&old.name, old.visits + 1)).filter(|u| u.visits < 4);
            let changed = change(model.remove(&key));
            assert_eq!(table.update(&key, change).unwrap(), changed);
            model.extend(changed.map(|changed| (key, changed)));
        }
        6 => {
            let expected = if rng.one_in(2) { model.get(&key).cloned() } else { Some(new.clone()) };
            let wanted = if model.get(&key) == expected.as_ref() { Ok(()) } else { Err(model.get(&key).cloned()) };
            assert_eq!(table.compare_and_set(&key, expected.as_ref(), Some(&new)).unwrap(), wanted);
            if wanted.is_ok() {
                model.insert(key, new);
            }
        }
        7 => assert_eq!(table.pop_first().unwrap(), model.pop_first()),
        8 => assert_eq!(table.pop_last().unwrap(), model.pop_last()),
        9 => assert_eq!(table.get(&key).unwrap().as_ref(), model.get(&key)),
        10 => {
            let end = key.saturating_add(rng.below(20) as i16);
            let entries: Vec<_> = table.range(key..end).unwrap().map(Result::unwrap).collect();
            assert!(entries.iter().map(|(key, user)| (key, user)).eq(model.range(key..end)));
        }
        _ => {
            assert_eq!(table.len().unwrap(), model.len());
            assert_eq!(table.is_empty().unwrap(), model.is_empty());
            assert_eq!(table.contains(&key).unwrap(), model.contains_key(&key));
            let entry = |entry: Option<(&i16, &User)>| entry.map(|(key, user)| (*key, user.clone()));
            assert_eq!(table.first().unwrap(), entry(model.first_key_value()));
            assert_eq!(table.last().unwrap(), entry(model.last_key_value()));
        }
    }
}

#[test]
fn a_store_a_transaction_and_a_view_agree_with_a_map() {
    const TABLE: Table<i16, User> = Table::new("t");
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let (disk, mut store) = store();
        let mut disk = disk;
        let mut model = BTreeMap::new();
        for _ in 0..60 {
            match rng.below(4) {
                0 => {
                    let mut changed = model.clone();
                    let tx = store.begin().unwrap();
                    let table = tx.table(TABLE);
                    (0..rng.below(20)).for_each(|_| step(&table, &mut changed, &mut rng));
                    if rng.one_in(2) {
                        tx.commit().unwrap();
                        model = changed;
                    } else {
                        tx.rollback().unwrap();
                    }
                }
                1 if rng.one_in(4) => {
                    disk = disk.crash(Crash::Nothing);
                    store = manual().open_on(Arc::new(disk.clone())).unwrap();
                }
                _ => {
                    let table = store.table(TABLE);
                    (0..rng.below(20)).for_each(|_| step(&table, &mut model, &mut rng));
                }
            }
            let view = store.view().unwrap();
            let entries: Vec<_> = view.table(TABLE).iter().unwrap().map(Result::unwrap).collect();
            assert!(entries.iter().map(|(key, user)| (key, user)).eq(&model));
        }
    }
}

#[test]
fn ranges_and_prefixes_of_text_and_of_tuples_are_inferred() {
    let (_, store) = store();
    let words = store.table(WORDS);
    for word in ["a", "ab", "b", "c"] {
        words.put(word, word).unwrap();
    }
    let keys = |iter: seawal::Result<seawal::kv::TableIter<str, str>>| {
        iter.unwrap().map(|entry| entry.unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(keys(words.range("a".."b")), ["a", "ab"]);
    assert_eq!(keys(words.range(.."b")), ["a", "ab"]);
    assert_eq!(keys(words.range("ab"..="b")), ["ab", "b"]);
    assert_eq!(keys(words.range(..="ab")), ["a", "ab"]);
    assert_eq!(keys(words.range(..)).len(), 4);
    assert_eq!(keys(words.prefix("a")), ["a", "ab"]);
    assert_eq!(keys(words.prefix(&"b".to_owned())), ["b"]);
    #[allow(clippy::reversed_empty_ranges, reason = "it is empty")]
    let inverted = store.table(USERS).range(9..3).unwrap().count();
    assert_eq!(inverted, 0);

    const EVENTS: Table<(String, i64), [u8]> = Table::new("events");
    let events = store.table(EVENTS);
    for (name, at) in [("a", -5), ("a", 5), ("a\0", 1), ("b", 0)] {
        events.put(&(name.to_owned(), at), b"").unwrap();
    }
    assert_eq!(events.prefix(&("a".to_owned(),)).unwrap().count(), 2);
    let from = ("a".to_owned(), 0);
    assert_eq!(events.range(from.clone()..).unwrap().count(), 3);
    assert_eq!(events.range(&from..&("b".to_owned(), 0)).unwrap().count(), 2);
    assert_eq!(events.first().unwrap().unwrap().0, ("a".to_owned(), -5));
}
