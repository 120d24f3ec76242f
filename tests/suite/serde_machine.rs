//! Machines with derived encodings, and one with an encoding of its own.

use seawal::machine::{Access, BulkMachine, DecodeError, Footprint, SerdeMachine, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

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
