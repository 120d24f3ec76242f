//! Transaction scripts: the parser, and the escapes that scripts and all other text of the program
//! use.
//!
//! ```text
//! put<TAB>KEY<TAB>VALUE
//! del<TAB>KEY
//! commit[<TAB>anything …]        ends the transaction; the rest of the line is a label
//! ```
//!
//! In a field `\t`, `\n`, `\\` and `\xHH` are escapes; all other bytes stand for themselves. Any
//! input gives transactions or an error with a line number. Lines and transactions have a maximum
//! size.

use std::fmt;
use std::io::{self, BufRead, Read};

/// The longest line, in bytes: room for the longest record of a store with every byte escaped.
pub const MAX_LINE_BYTES: u64 = 4 * (64 << 20) + 1024;
/// The largest transaction, in bytes of its lines.
pub const MAX_TRANSACTION_BYTES: u64 = 1 << 30;

/// One operation of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// An operation of the transaction.
    Operation(Operation),
    /// The end of the transaction.
    Commit,
}

/// Parses a line, without its line feed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_line(line: &[u8]) -> Result<Line, &'static str> {
    let mut fields = line.split(|&byte| byte == b'\t');
    let name = fields.next().unwrap_or_default();
    if name == b"commit" {
        return Ok(Line::Commit);
    }
    let (key, value) = (fields.next(), fields.next());
    let operation = match (name, key, value, fields.next()) {
        (b"put", Some(key), Some(value), None) => Operation::Put { key: unescape(key)?, value: unescape(value)? },
        (b"put", ..) => return Err("\"put\" takes a key and a value"),
        (b"del", Some(key), None, None) => Operation::Delete { key: unescape(key)? },
        (b"del", ..) => return Err("\"del\" takes a key"),
        (b"", ..) => return Err("the line is empty"),
        _ => return Err("the line begins with neither \"put\" nor \"del\" nor \"commit\""),
    };
    Ok(Line::Operation(operation))
}

/// Replaces the escapes of a field.
///
/// # Errors
/// What is wrong with one of them.
pub fn unescape(field: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let (escaped, behind) = match rest {
            [b't', behind @ ..] => (b'\t', behind),
            [b'n', behind @ ..] => (b'\n', behind),
            [b'\\', behind @ ..] => (b'\\', behind),
            [b'x', high, low, behind @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, behind),
                _ => return Err("\"\\x\" is not followed by two hexadecimal digits"),
            },
            [b'x', ..] => return Err("\"\\x\" is not followed by two hexadecimal digits"),
            _ => return Err("a backslash is not followed by \"t\", \"n\", \"x\" or another backslash"),
        };
        plain.push(escaped);
        rest = behind;
    }
    Ok(plain)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Appends a field. Backslashes, control characters and bytes that are not UTF-8 are escaped.
pub fn escape(plain: &[u8], out: &mut Vec<u8>) {
    for chunk in plain.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => out.extend_from_slice(b"\\t"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\\' => out.extend_from_slice(b"\\\\"),
                _ => {
                    let mut bytes = [0; 4];
                    let bytes = character.encode_utf8(&mut bytes).as_bytes();
                    if character.is_control() { escape_bytes(bytes, out) } else { out.extend_from_slice(bytes) }
                }
            }
        }
        escape_bytes(chunk.invalid(), out);
    }
}

fn escape_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
    }
}

/// An operation with its line number, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line.
    pub line: u64,
    /// The operation.
    pub operation: Operation,
}

/// A transaction of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptTransaction {
    /// Its operations, in order.
    pub steps: Vec<Step>,
    /// The line that ends it.
    pub commit_line: u64,
    /// A checksum of the script up to here, without labels.
    pub digest: u32,
}

/// An error in a script. Nothing of the transaction that the line belongs to is returned.
#[derive(Debug)]
pub struct ScriptError {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub fault: ScriptFault,
}

/// What is wrong with a script.
#[derive(Debug)]
pub enum ScriptFault {
    /// The line is malformed.
    Malformed(&'static str),
    /// The script ends within a transaction.
    Unfinished,
    /// The input could not be read.
    Input(io::Error),
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.fault {
            ScriptFault::Malformed(reason) => f.write_str(reason),
            ScriptFault::Unfinished => f.write_str("the script ends within a transaction, without a \"commit\" line"),
            ScriptFault::Input(e) => write!(f, "reading the input failed: {e}"),
        }
    }
}

impl std::error::Error for ScriptError {}

/// Reads the transactions of a script, one after the other.
#[derive(Debug)]
pub struct Script<R> {
    input: R,
    line: Vec<u8>,
    lines: u64,
    digest: crc32fast::Hasher,
}

impl<R: BufRead> Script<R> {
    /// A script from its beginning.
    pub fn new(input: R) -> Self {
        Script { input, line: Vec::new(), lines: 0, digest: crc32fast::Hasher::new() }
    }

    /// The next transaction; `None` at the end of the script.
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn next_transaction(&mut self) -> Result<Option<ScriptTransaction>, ScriptError> {
        let mut steps = Vec::new();
        let mut bytes = 0u64;
        loop {
            if !self.read_line()? {
                return if steps.is_empty() { Ok(None) } else { Err(self.error(ScriptFault::Unfinished)) };
            }
            match parse_line(&self.line).map_err(|reason| self.error(ScriptFault::Malformed(reason)))? {
                Line::Operation(operation) => {
                    self.digest.update(&self.line);
                    self.digest.update(b"\n");
                    bytes = bytes.saturating_add(self.line.len() as u64);
                    if bytes > MAX_TRANSACTION_BYTES {
                        return Err(self.error(ScriptFault::Malformed("the transaction is larger than 1 GiB")));
                    }
                    steps.push(Step { line: self.lines, operation });
                }
                Line::Commit => {
                    self.digest.update(b"commit\n");
                    let digest = self.digest.clone().finalize();
                    return Ok(Some(ScriptTransaction { steps, commit_line: self.lines, digest }));
                }
            }
        }
    }

    fn read_line(&mut self) -> Result<bool, ScriptError> {
        self.line.clear();
        let read = (&mut self.input).take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
        self.lines = self.lines.saturating_add(1);
        match read {
            Err(e) => Err(self.error(ScriptFault::Input(e))),
            Ok(0) => {
                self.lines = self.lines.saturating_sub(1);
                Ok(false)
            }
            Ok(_) if self.line.last() == Some(&b'\n') => {
                self.line.pop();
                Ok(true)
            }
            Ok(len) if len as u64 == MAX_LINE_BYTES => {
                Err(self.error(ScriptFault::Malformed("the line is longer than the longest operation")))
            }
            Ok(_) => Ok(true),
        }
    }

    fn error(&self, fault: ScriptFault) -> ScriptError {
        ScriptError { line: self.lines, fault }
    }
}

/// Parses a whole script.
///
/// # Errors
/// As [`Script::next_transaction`].
pub fn parse(bytes: &[u8]) -> Result<Vec<ScriptTransaction>, ScriptError> {
    let mut script = Script::new(bytes);
    let mut transactions = Vec::new();
    while let Some(transaction) = script.next_transaction()? {
        transactions.push(transaction);
    }
    Ok(transactions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(script: &[u8]) -> (u64, String) {
        let error = parse(script).unwrap_err();
        (error.line, error.to_string())
    }

    #[test]
    fn a_script_is_read_line_by_line() {
        let script = b"commit\nput\ta\\tb\t\ndel\tk\\x00\ncommit\tlabel\twith \\ anything\nput\tk\tv\ncommit";
        let transactions = parse(script).unwrap();
        assert_eq!(transactions.iter().map(|t| t.commit_line).collect::<Vec<_>>(), [1, 4, 6]);
        let put = Operation::Put { key: b"a\tb".to_vec(), value: Vec::new() };
        let del = Operation::Delete { key: b"k\0".to_vec() };
        assert_eq!(transactions[1].steps, [Step { line: 2, operation: put }, Step { line: 3, operation: del }]);
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn every_malformed_line_is_named() {
        for line in [
            "",
            "put",
            "put\tk",
            "put\tk\tv\tw",
            "del",
            "del\tk\tv",
            "PUT\tk\tv",
            "commits",
            "put k v",
            "put\t\\\tv",
            "put\t\\x0\tv",
            "put\t\\xg0\tv",
            "put\t\\q\tv",
            "put\tk\tv\\",
        ] {
            let script = format!("put\ta\tb\ncommit\n{line}\ncommit\n");
            assert_eq!(fault(script.as_bytes()).0, 3, "{line:?}");
        }
    }

    #[test]
    fn a_transaction_without_its_commit_line_is_an_error() {
        let (line, text) = fault(b"put\ta\tb\ncommit\nput\tc\td\ndel\ta\n");
        assert_eq!(line, 4);
        assert!(text.contains("commit"), "{text}");
    }

    #[test]
    fn the_digest_tells_scripts_apart_but_not_their_labels() {
        let digest = |script: &[u8]| parse(script).unwrap().last().unwrap().digest;
        assert_eq!(digest(b"put\ta\tb\ncommit\tone\n"), digest(b"put\ta\tb\ncommit\ttwo"));
        assert_ne!(digest(b"put\ta\tb\ncommit\n"), digest(b"put\ta\tc\ncommit\n"));
        assert_ne!(digest(b"put\ta\tb\ncommit\n"), digest(b"commit\nput\ta\tb\ncommit\n"));
    }

    proptest! {
        #[test]
        fn an_escaped_field_comes_back_on_one_line(plain in any::<Vec<u8>>()) {
            let mut escaped = Vec::new();
            escape(&plain, &mut escaped);
            prop_assert!(!escaped.iter().any(|b| *b < b' ' || *b == 0x7f));
            prop_assert!(std::str::from_utf8(&escaped).is_ok());
            prop_assert_eq!(unescape(&escaped).unwrap(), plain);
        }

        #[test]
        fn text_stays_readable(text in "[ -\\[\\]-~äöü世]*") {
            let mut escaped = Vec::new();
            escape(text.as_bytes(), &mut escaped);
            prop_assert_eq!(escaped, text.into_bytes());
        }

        #[test]
        fn any_bytes_are_a_script_or_not(bytes in any::<Vec<u8>>()) {
            let _ = parse(&bytes);
        }
    }
}
