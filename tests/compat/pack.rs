//! The files of a small store as text, without the zeros of preallocated space.
//!
//! ```text
//! file MANIFEST-0 4096         a file and its length in bytes
//! 0 53454157414c4d46…          an offset in hexadecimal, and the bytes from there on
//! 60 01
//! ```
//!
//! A line holds at most 32 bytes. Rows of zeros, and the zeros at the end of a row, are left out.

use std::collections::BTreeMap;
use std::fmt::Write;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

const ROW_BYTES: usize = 32;

pub(crate) fn pack(files: &Files) -> String {
    let mut text = String::new();
    for (name, bytes) in files {
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        for (row, bytes) in bytes.chunks(ROW_BYTES).enumerate() {
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                writeln!(text, "{:x} {}", row * ROW_BYTES, hex(&bytes[..=last])).unwrap();
            }
        }
    }
    text
}

/// # Panics
/// If the text is not what [`pack`] writes.
pub(crate) fn unpack(text: &str) -> Files {
    let mut files = Files::new();
    let mut current: Option<&mut Vec<u8>> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["file", name, len] => {
                assert!(!files.contains_key(name), "{name} is there twice");
                current = Some(files.entry(name.to_owned()).or_insert(vec![0; len.parse().unwrap()]));
            }
            [offset, digits] => {
                let file = current.as_mut().expect("a line of bytes follows a line that names their file");
                let (offset, bytes) = (usize::from_str_radix(offset, 16).unwrap(), unhex(digits));
                file[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            _ => panic!("no line of a packed store: {line}"),
        }
    }
    files
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "an odd number of digits: {digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn packing_loses_nothing() {
    let mut sparse = vec![0; 5000];
    sparse[4999] = 7;
    sparse[31] = 1;
    let files = Files::from([
        ("empty".to_owned(), vec![]),
        ("sparse".to_owned(), sparse),
        ("zeros".to_owned(), vec![0; 100]),
        ("dense".to_owned(), (0..=255).collect()),
    ]);
    assert_eq!(unpack(&pack(&files)), files);
}
