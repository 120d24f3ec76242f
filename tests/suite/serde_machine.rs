//! Machines with derived encodings, and one with an encoding of its own.

use super::common::manual;
use seawal::inspect;
use seawal::machine::{Access, BulkMachine, DecodeError, Footprint, SerdeMachine, StateMachine};
use seawal::salvage::{Reach, salvage};
use seawal::sim::SimDisk;
use seawal::{Engine, Error, RecoveryPolicy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Notes {
    title: String,
    lines: BTreeMap<u32, Vec<u8>>,
    tags: Vec<Option<(char, f64)>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Edit {
    Title(String),
    Line { number: u32, text: Option<Vec<u8>> },
}

impl SerdeMachine for Notes {
    const NAME: &'static str = "notes";
    const VERSION: u32 = 3;
    type Command = Edit;
    type Reply = ();
    type Rejection = &'static str;

    fn apply(&mut self, edit: &Edit) -> Result<((), Edit), &'static str> {
        match edit {
            Edit::Title(title) if title.len() > 100 => Err("too long"),
            Edit::Title(title) => Ok(((), Edit::Title(std::mem::replace(&mut self.title, title.clone())))),
            Edit::Line { number, text } => {
                let text = match text {
                    Some(text) => self.lines.insert(*number, text.clone()),
                    None => self.lines.remove(number),
                };
                Ok(((), Edit::Line { number: *number, text }))
            }
        }
    }

    fn footprint(edit: &Edit) -> Footprint {
        match edit {
            Edit::Title(_) => Footprint::key(Access::Exclusive, b"title"),
            Edit::Line { number, .. } => Footprint::key(Access::Exclusive, &number.to_be_bytes()),
        }
    }

    fn supports(version: u32) -> bool {
        version >= 2
    }
}

/// Has its own encoding, although the feature is enabled.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum(u64);

impl BulkMachine for Sum {}

impl StateMachine for Sum {
    const NAME: &'static str = "sum";
    const VERSION: u32 = 1;
    type Command = i64;
    type Reply = u64;
    type Rejection = ();

    fn apply(&mut self, add: &i64) -> Result<(u64, i64), ()> {
        self.0 = self.0.checked_add_signed(*add).ok_or(())?;
        Ok((self.0, -add))
    }
    fn encode(add: &i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&add.to_le_bytes());
    }
    fn decode(bytes: &[u8], _version: u32) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| DecodeError::new("eight bytes"))?))
    }
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
    fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        Ok(Sum(u64::from_le_bytes(bytes)))
    }
}

fn encoded<M: BulkMachine>(command: &M::Command) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    M::encode(command, &mut bytes);
    assert_eq!(&bytes[..6], b"before");
    assert_eq!(bytes.len() - 6, M::encoded_len(command));
    bytes.split_off(6)
}

fn saved<M: StateMachine>(machine: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.save(&mut bytes).unwrap();
    bytes
}

/// Applies a command that was encoded and decoded, and then its inverse. Returns the reply and the
/// state in between.
fn there_and_back<M: BulkMachine<Rejection: std::fmt::Debug>>(machine: &mut M, command: &M::Command) -> (M::Reply, M) {
    let before = saved(machine);
    let command = M::decode(&encoded::<M>(command), M::VERSION).unwrap();
    let (reply, inverse) = machine.apply(&command).unwrap();
    let between = M::load(&mut &saved(machine)[..], M::VERSION).unwrap();
    machine.apply(&M::decode(&encoded::<M>(&inverse), M::VERSION).unwrap()).unwrap();
    assert_eq!(saved(machine), before);
    (reply, between)
}

fn some_notes() -> Notes {
    Notes {
        title: "déjà vu".into(),
        lines: BTreeMap::from([(3, b"three".to_vec()), (1, vec![0; 100_000])]),
        tags: vec![None, Some(('ß', -0.5))],
    }
}

#[test]
fn machines_of_both_kinds_serve_the_same_generic_code() {
    let (_, between) = there_and_back(&mut some_notes(), &Edit::Line { number: 3, text: None });
    assert_eq!(between.lines.len(), 1);
    assert_eq!(there_and_back(&mut Sum(4), &3), (7, Sum(7)));
}

#[test]
fn the_derived_machine_is_what_its_trait_says() {
    fn about<M: StateMachine>() -> (&'static str, u32, [bool; 3]) {
        (M::NAME, M::VERSION, [1, 2, 3].map(M::supports))
    }
    assert_eq!(about::<Notes>(), ("notes", 3, [false, true, true]));
    let title = Edit::Title("t".into());
    assert_eq!(<Notes as StateMachine>::footprint(&title), Footprint::key(Access::Exclusive, b"title"));
    assert!(StateMachine::apply(&mut Notes::default(), &Edit::Title("t".repeat(101))).is_err());
}

#[test]
fn the_bytes_are_those_of_postcard() {
    assert_eq!(encoded::<Notes>(&Edit::Title("ab".into())), [0, 2, b'a', b'b']);
    assert_eq!(encoded::<Notes>(&Edit::Line { number: 300, text: None }), [1, 0xAC, 0x02, 0]);
    assert_eq!(saved(&Notes::default()), [0, 0, 0]);
}

#[test]
fn trailing_and_missing_bytes_are_errors() {
    let edit = Edit::Line { number: 70_000, text: Some(b"text".to_vec()) };
    let mut bytes = encoded::<Notes>(&edit);
    for cut in 0..bytes.len() {
        Notes::decode(&bytes[..cut], 3).unwrap_err();
    }
    bytes.push(0);
    assert_eq!(Notes::decode(&bytes, 3).unwrap_err().to_string(), "bytes follow the command");

    let mut bytes = saved(&some_notes());
    assert_eq!(Notes::load(&mut &bytes[..], 3).unwrap(), some_notes());
    for cut in (0..bytes.len()).step_by(997).chain(bytes.len() - 40..bytes.len()) {
        Notes::load(&mut &bytes[..cut], 3).unwrap_err();
    }
    bytes.push(0);
    assert_eq!(Notes::load(&mut &bytes[..], 3).unwrap_err().to_string(), "bytes follow the state");
}

/// Returns one byte at a time, and then an error.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (first, rest) = self.0.split_first().ok_or_else(|| io::Error::other("unplugged"))?;
        out[0] = *first;
        self.0 = rest;
        Ok(1)
    }
}

#[test]
fn an_error_of_the_input_is_not_taken_for_the_end() {
    let bytes = saved(&some_notes());
    for length in [0, 5, bytes.len()] {
        let error = Notes::load(&mut BufReader::new(Trickle(&bytes[..length])), 3).unwrap_err();
        assert_eq!(error.into_io().unwrap().to_string(), "unplugged");
    }
    Notes::load(&mut BufReader::new(Trickle(&bytes).take(bytes.len() as u64)), 3).unwrap();
}

#[test]
fn an_error_of_the_output_is_reported_as_it_was() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.0.min(bytes.len());
            self.0 -= room;
            if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let length = saved(&some_notes()).len();
    for room in [0, 1, 70_000, length - 1] {
        assert_eq!(some_notes().save(&mut Full(room)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    some_notes().save(&mut Full(length)).unwrap();
}

#[test]
fn a_length_that_the_input_does_not_back_is_an_error() {
    // A title, and a list of tags, of 2⁶³ bytes.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    Notes::load(&mut &huge[..], 3).unwrap_err();
    Notes::load(&mut &[&[0, 0][..], &huge].concat()[..], 3).unwrap_err();
    Notes::decode(&[&[0][..], &huge].concat(), 3).unwrap_err();
}

/// Deserializes from a borrowed string, as many types do that parse one.
#[derive(Clone, Debug, Default, PartialEq)]
struct Parsed(u64);

impl Serialize for Parsed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        text.parse().map(Parsed).map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Numbers(Vec<Parsed>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
}

impl SerdeMachine for Numbers {
    const NAME: &'static str = "numbers";
    const VERSION: u32 = 1;
    type Command = Untagged;
    type Reply = ();
    type Rejection = ();

    fn apply(&mut self, command: &Untagged) -> Result<((), Untagged), ()> {
        Ok(((), command.clone()))
    }
}

#[test]
fn types_that_borrow_while_they_are_read_are_loaded_from_a_stream() {
    let numbers = Numbers((0..200_000).map(Parsed).collect());
    let loaded = Numbers::load(&mut BufReader::new(&saved(&numbers)[..]), 1).unwrap();
    assert_eq!(loaded, numbers);
    assert_eq!(<Numbers as StateMachine>::footprint(&Untagged::Number(1)), Footprint::everything(Access::Exclusive));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "cannot be read back as it was written")]
fn a_command_that_cannot_be_read_back_is_found_in_debug_builds() {
    <Numbers as StateMachine>::encode(&Untagged::Number(1), &mut Vec::new());
}

/// Defines a machine `ledger` of this version, whose state and commands have these fields.
macro_rules! ledger {
    ($module:ident, $version:literal, $oldest:literal, $($field:ident)*) => {
        mod $module {
            use seawal::machine::SerdeMachine;
            use serde::{Deserialize, Serialize};

            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
            pub(super) struct Ledger {
                pub(super) total: u64,
                $(pub(super) $field: u64,)*
            }

            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
            pub(super) struct Add {
                pub(super) amount: i64,
                $(pub(super) $field: u64,)*
            }

            impl SerdeMachine for Ledger {
                const NAME: &'static str = "ledger";
                const VERSION: u32 = $version;
                type Command = Add;
                type Reply = ();
                type Rejection = ();

                fn apply(&mut self, add: &Add) -> Result<((), Add), ()> {
                    self.total = self.total.checked_add_signed(add.amount).ok_or(())?;
                    let mut inverse = add.clone();
                    inverse.amount = -add.amount;
                    Ok(((), inverse))
                }

                fn supports(version: u32) -> bool {
                    version >= $oldest
                }
            }
        }
    };
}

ledger!(first, 1, 1,);
ledger!(longer, 1, 1, note);
ledger!(second, 2, 1, note);

/// The first ledger with another command at the end, and the same with one between.
macro_rules! entries {
    ($module:ident, $($variant:ident)*) => {
        mod $module {
            use seawal::machine::SerdeMachine;
            use serde::{Deserialize, Serialize};

            #[derive(Clone, Default, Serialize, Deserialize)]
            pub(super) struct Entries(u64);

            #[derive(Clone, Serialize, Deserialize)]
            pub(super) enum Entry { $($variant(i64),)* }

            impl SerdeMachine for Entries {
                const NAME: &'static str = "entries";
                const VERSION: u32 = 1;
                type Command = Entry;
                type Reply = ();
                type Rejection = ();

                fn apply(&mut self, entry: &Entry) -> Result<((), Entry), ()> {
                    Ok(((), entry.clone()))
                }
            }
        }
    };
}

entries!(two, Credit Debit);
entries!(three, Credit Debit Transfer);
entries!(swapped, Debit Credit Transfer);

/// A store of the first ledger. With a checkpoint, its state must be decoded, else its commands.
fn ledger_store(checkpoint: bool, amount: i64) -> SimDisk {
    let disk = SimDisk::new(1);
    let engine: Engine<first::Ledger> = manual().open_on(Arc::new(disk.clone())).unwrap();
    (0..5).for_each(|_| engine.execute(first::Add { amount }).unwrap());
    if checkpoint {
        // until no older state is left to begin from
        (0..3).for_each(|_| {
            engine.execute(first::Add { amount }).unwrap();
            engine.checkpoint().unwrap();
        });
    }
    engine.close().unwrap();
    disk
}

/// N3: a type that changed without its version is a mistake in the program, told as that and not as
/// damage, and the store stays as it is.
#[test]
fn whole_data_that_the_machine_cannot_decode_is_not_damage() {
    for checkpoint in [false, true] {
        let disk = ledger_store(checkpoint, 300);
        let files = |disk: &SimDisk| -> Vec<_> {
            disk.file_names().into_iter().map(|name| (disk.read_file(&name).unwrap(), name)).collect()
        };
        let before = files(&disk);
        let storage = || Arc::new(disk.clone());
        let opened = manual().open_on::<longer::Ledger>(storage()).map(drop).unwrap_err();
        let verified = inspect::verify_machine::<longer::Ledger>(storage()).map(drop).unwrap_err();
        for error in [opened, verified] {
            assert!(error.is_unreadable() && !error.is_corrupt(), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("is whole, but not readable as `ledger` version 1: "), "{text}");
            assert!(text.contains("was a type changed without raising VERSION?"), "{text}");
            assert!(!text.contains("salvage") && !text.contains("damage"), "{text}");
        }
        let error = manual().open_on::<second::Ledger>(storage()).map(drop).unwrap_err();
        assert!(matches!(error, Error::Unreadable { version: 1, current: 2, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("version 2 says that it supports version 1"), "{text}");
        // what can be decoded can still be salvaged, and the machine of old still opens it
        salvage::<longer::Ledger>(storage(), Arc::new(SimDisk::new(2)), Reach::Proven).unwrap();
        assert_eq!(files(&disk), before);
        let engine: Engine<first::Ledger> = manual().open_on(storage()).unwrap();
        assert_eq!(engine.read(|ledger| ledger.total).unwrap(), if checkpoint { 2400 } else { 1500 });
    }
}

/// N3: bytes of one type can pass for another, so the store knows the shape of the types, from the
/// first open on.
#[test]
fn a_type_that_changed_without_its_version_is_refused_at_the_first_open() {
    let storage = |disk: &SimDisk| Arc::new(disk.clone());
    // a young store, which holds nothing that could be decoded wrongly
    let disk = SimDisk::new(1);
    drop(manual().open_on::<first::Ledger>(storage(&disk)).unwrap());
    let refused = |error: Error| {
        assert!(error.is_unreadable(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("MANIFEST-") && text.contains("another shape") && text.contains("VERSION?"), "{text}");
    };
    refused(manual().open_on::<longer::Ledger>(storage(&disk)).map(drop).unwrap_err());
    refused(
        manual().recovery(RecoveryPolicy::ReadOnly).open_on::<longer::Ledger>(storage(&disk)).map(drop).unwrap_err(),
    );
    refused(inspect::verify_machine::<longer::Ledger>(storage(&disk)).map(drop).unwrap_err());
    drop(manual().open_on::<first::Ledger>(storage(&disk)).unwrap());
    // a raised version that supports the older one is asked for no shape of it, and leaves its own
    drop(manual().open_on::<second::Ledger>(storage(&disk)).unwrap());
    drop(manual().open_on::<second::Ledger>(storage(&disk)).unwrap());
    // new commands at the end are no change, in both directions
    let disk = SimDisk::new(2);
    drop(manual().open_on::<two::Entries>(storage(&disk)).unwrap());
    drop(manual().open_on::<three::Entries>(storage(&disk)).unwrap());
    drop(manual().open_on::<two::Entries>(storage(&disk)).unwrap());
    refused(manual().open_on::<swapped::Entries>(storage(&disk)).map(drop).unwrap_err());
    // a backup knows the shape too
    let (disk, copy) = (SimDisk::new(4), SimDisk::new(5));
    let engine: Engine<first::Ledger> = manual().open_on(storage(&disk)).unwrap();
    engine.backup_to_storage(storage(&copy)).unwrap();
    refused(manual().open_on::<longer::Ledger>(storage(&copy)).map(drop).unwrap_err());
    // also by a program with more commands, for which the programs that lack them must not be
    // refused
    let (disk, copy) = (SimDisk::new(6), SimDisk::new(7));
    drop(manual().open_on::<two::Entries>(storage(&disk)).unwrap());
    manual().open_on::<three::Entries>(storage(&disk)).unwrap().backup_to_storage(storage(&copy)).unwrap();
    drop(manual().open_on::<two::Entries>(storage(&copy)).unwrap());
}
