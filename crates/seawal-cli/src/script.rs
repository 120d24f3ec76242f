//! Transaction scripts: the parser, and the escapes that scripts and all other text of the program
//! use.
//!
//! ```text
//! put<TAB>KEY<TAB>VALUE
//! del<TAB>KEY
//! table<TAB>NAME                 the table of the lines below; at first it is the default table
//! commit[<TAB>anything …]        ends the transaction; the rest of the line is a label
//! # anything                     a comment
//! ```
//!
//! In a field `\t`, `\n`, `\\` and `\xHH` are escapes; all other bytes stand for themselves. Blank
//! lines are ignored. A line ends with LF or CR LF. A CR elsewhere is refused, because it is what
//! another line end becomes; a field writes it as `\x0d`, as [`escape`] does. A byte order mark of
//! UTF-8 at the beginning is skipped. Any input gives transactions or an error with a line number.
//! Lines and transactions have a maximum size.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

/// The format of a script, for `load --help`.
pub(crate) const FORMAT: &str = "Script format: a text of lines whose fields are separated by tabs (shown as <TAB>)
  put<TAB>KEY<TAB>VALUE    sets the value of a key
  del<TAB>KEY              removes a key, if it exists
  table<TAB>NAME           selects the table of the lines below; without it they mean the default table
  commit                   ends the transaction; a tab and a label may follow
  # TEXT                   a comment, ignored like a blank line

In KEY, VALUE and NAME, \\t is a tab, \\n a line feed, \\\\ a backslash, and \\xHH the byte with that hexadecimal
number; all other bytes stand for themselves. Lines end with LF or CR LF; another CR is written as \\x0d. A byte
order mark is skipped.
\"dump --script\" writes such a script.";

/// The byte order mark of UTF-8, which some editors write at the beginning of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
    /// Selects the table of the operations that follow.
    Table(String),
    /// The end of the transaction.
    Commit,
    /// A comment or a blank line.
    Blank,
}

/// Parses a line, without the bytes that end it.
///
/// # Errors
/// A description of what is wrong with the line.
pub fn parse_line(line: &[u8]) -> Result<Line, &'static str> {
    if line.starts_with(b"#") || line.trim_ascii().is_empty() {
        return Ok(Line::Blank);
    }
    let mut fields = line.split(|&byte| byte == b'\t');
    let name = fields.next().unwrap_or_default();
    if name == b"commit" {
        return Ok(Line::Commit);
    }
    let (first, second) = (fields.next(), fields.next());
    match (name, first, second, fields.next()) {
        (b"put", Some(key), Some(value), None) => {
            Ok(Line::Operation(Operation::Put { key: unescape(key)?, value: unescape(value)? }))
        }
        (b"put", ..) => Err("\"put\" takes a key and a value, separated by tabs"),
        (b"del", Some(key), None, None) => Ok(Line::Operation(Operation::Delete { key: unescape(key)? })),
        (b"del", ..) => Err("\"del\" takes a key, separated by a tab"),
        (b"table", Some(table), None, None) => {
            String::from_utf8(unescape(table)?).map(Line::Table).map_err(|_| "the table's name is not UTF-8")
        }
        (b"table", ..) => Err("\"table\" takes a name, separated by a tab"),
        _ if has_spaces_for_tabs(name) => Err("fields are separated by tabs, not by spaces"),
        _ => Err("the line begins with none of \"put\", \"del\", \"table\", \"commit\" and \"#\""),
    }
}

/// Whether a script that begins with this is UTF-16: it has a mark, or one of the first two bytes
/// is zero, as in no script.
fn is_utf16(line: &[u8]) -> bool {
    matches!(line, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..])
}

/// Whether this is the name of an operation with spaces around it.
fn has_spaces_for_tabs(field: &[u8]) -> bool {
    let mut words = field.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    matches!(words.next(), Some(b"put" | b"del" | b"table" | b"commit"))
}

/// Replaces the escapes of a field.
///
/// # Errors
/// A description of what is wrong with an escape.
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
    /// The table; the default table has an empty name.
    pub table: Arc<str>,
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
    /// A checksum of the script up to here, without labels, comments and blank lines.
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
    /// The table that the last `table` line selected.
    table: Arc<str>,
    digest: crc32fast::Hasher,
}

impl<R: BufRead> Script<R> {
    /// A script from its beginning.
    pub fn new(input: R) -> Self {
        Script { input, line: Vec::new(), lines: 0, table: Arc::from(""), digest: crc32fast::Hasher::new() }
    }

    /// The next transaction; `None` at the end of the script.
    ///
    /// # Errors
    /// An error for the first malformed line, or for input that cannot be read.
    pub fn next_transaction(&mut self) -> Result<Option<ScriptTransaction>, ScriptError> {
        let mut steps = Vec::new();
        let mut bytes = 0u64;
        loop {
            if !self.read_line()? {
                return if steps.is_empty() { Ok(None) } else { Err(self.error(ScriptFault::Unfinished)) };
            }
            match parse_line(&self.line).map_err(|reason| self.error(ScriptFault::Malformed(reason)))? {
                Line::Blank => {}
                Line::Table(table) => {
                    self.digest_line();
                    self.table = Arc::from(table);
                }
                Line::Operation(operation) => {
                    self.digest_line();
                    bytes = bytes.saturating_add(self.line.len() as u64);
                    if bytes > MAX_TRANSACTION_BYTES {
                        return Err(self.error(ScriptFault::Malformed("the transaction is larger than 1 GiB")));
                    }
                    steps.push(Step { line: self.lines, table: self.table.clone(), operation });
                }
                Line::Commit => {
                    self.digest.update(b"commit\n");
                    let digest = self.digest.clone().finalize();
                    return Ok(Some(ScriptTransaction { steps, commit_line: self.lines, digest }));
                }
            }
        }
    }

    fn digest_line(&mut self) {
        self.digest.update(&self.line);
        self.digest.update(b"\n");
    }

    /// Reads a line, without the bytes that end it. Returns false at the end of the input.
    fn read_line(&mut self) -> Result<bool, ScriptError> {
        let has_line = self.read_raw_line()?;
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if self.line.starts_with(BYTE_ORDER_MARK) {
            if self.lines > 1 {
                return Err(self.error(ScriptFault::Malformed("a byte order mark stands within the script; remove it")));
            }
            self.line.drain(..BYTE_ORDER_MARK.len());
        } else if self.lines <= 1 && is_utf16(&self.line) {
            return Err(self.error(ScriptFault::Malformed("the script is UTF-16; convert it to UTF-8")));
        }
        if self.line.contains(&b'\r') {
            let reason = "a carriage return stands within the line; end lines with LF or CR LF, and write it as \\x0d";
            return Err(self.error(ScriptFault::Malformed(reason)));
        }
        Ok(has_line)
    }

    fn read_raw_line(&mut self) -> Result<bool, ScriptError> {
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
        let step = |line, operation| Step { line, table: Arc::from(""), operation };
        assert_eq!(transactions[1].steps, [step(2, put), step(3, del)]);
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn every_malformed_line_is_named() {
        for line in [
            "put",
            "put\tk",
            "put\tk\tv\tw",
            "del",
            "del\tk\tv",
            "PUT\tk\tv",
            "commits",
            "put k v",
            "table",
            "table\tt\tu",
            "table\t\\xff",
            " # k",
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

    /// N6: spaces for tabs are what people write first.
    #[test]
    fn spaces_between_fields_are_named_as_the_fault() {
        for line in ["put apple red", "del  apple", "table fruit", "commit label", " put apple\tred", "put apple\tred"]
        {
            let (at, text) = fault(format!("put\ta\tb\n{line}\ncommit\n").as_bytes());
            assert_eq!((at, text.contains("fields are separated by tabs")), (2, true), "{line:?}: {text}");
        }
        for line in ["put\tapple red", "del", "table"] {
            assert!(fault(line.as_bytes()).1.contains("separated by"), "{line:?}");
        }
    }

    /// N6: a script may explain itself.
    #[test]
    fn comments_and_blank_lines_mean_nothing() {
        let plain = parse(b"put\t#k\tv\ncommit\n").unwrap();
        let explained = parse(b"# fruit\n\n \t \nput\t#k\tv\n#put\tx\ty\n\ncommit\n\n# end").unwrap();
        let operations = |script: &[ScriptTransaction]| script[0].steps[0].operation.clone();
        assert_eq!((plain.len(), explained.len()), (1, 1));
        assert_eq!(operations(&explained), operations(&plain));
        assert_eq!((explained[0].steps[0].line, explained[0].commit_line), (4, 7));
        assert_eq!(explained[0].digest, plain[0].digest);
    }

    /// U10: what another editor or system makes of the same text is the same script.
    #[test]
    fn line_ends_and_a_byte_order_mark_are_no_part_of_a_script() {
        let plain = b"put\ta\t1\\x0d\ncommit\ndel\ta\ncommit";
        let text = std::str::from_utf8(plain).unwrap();
        let expected = parse(plain).unwrap();
        assert_eq!(expected[0].steps[0].operation, Operation::Put { key: b"a".to_vec(), value: b"1\r".to_vec() });
        for other in [text.replace('\n', "\r\n"), format!("\u{feff}{text}\r\n"), format!("\u{feff}\r\n{text}")] {
            let read = parse(other.as_bytes()).unwrap();
            let steps = |script: &[ScriptTransaction]| -> Vec<_> {
                script.iter().flat_map(|t| t.steps.iter().map(|step| step.operation.clone())).collect()
            };
            assert_eq!((steps(&read), read[1].digest), (steps(&expected), expected[1].digest), "{other:?}");
        }
        // only at the beginning, and only once
        assert_eq!(fault("commit\n\u{feff}commit\n".as_bytes()).0, 2);
        assert!(fault("commit\n\u{feff}commit\n".as_bytes()).1.contains("byte order mark"));
        for utf_16 in [&b"\xff\xfec\0o\0m\0m\0i\0t\0\n\0"[..], b"c\0o\0m\0m\0i\0t\0\n\0", b"\0c\0o\0m\0m\0i\0t\0\n"] {
            let (line, text) = fault(utf_16);
            assert!(line == 1 && text.contains("UTF-16"), "{text}");
        }
    }

    /// U10: with other line ends, a value got a CR at its end, and a script that began with a
    /// comment was one.
    #[test]
    fn line_ends_of_other_systems_are_named_as_the_fault() {
        for script in ["put\ta\t1\r\r\ncommit\n", "put\ta\t1\rcommit\r", "# fruit\rput\ta\t1\rcommit\r", "commit\r\r\n"]
        {
            let (line, text) = fault(script.as_bytes());
            assert!(line == 1 && text.contains("carriage return"), "{script:?}: {text}");
        }
    }

    #[test]
    fn a_table_holds_for_the_lines_below_it() {
        let script = parse(b"put\ta\t1\ntable\tt\\t1\nput\tb\t1\ncommit\ndel\tc\ntable\t\ndel\td\ncommit\n").unwrap();
        let tables: Vec<&str> = script.iter().flat_map(|t| t.steps.iter().map(|step| &*step.table)).collect();
        assert_eq!(tables, ["", "t\t1", "t\t1", ""]);
        let other = parse(b"put\ta\t1\ntable\tu\nput\tb\t1\ncommit\n").unwrap();
        assert_ne!(other[0].digest, script[0].digest);
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
