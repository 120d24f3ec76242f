//! The commands for entries: `dump`, `get`, `put`, `del`, `scan`.

use super::failure::{Failure, Status};
use super::script::escape;
use super::{Dir, InTable, load, output, plain, say, table_name};
use seawal::io::Create;
use seawal::kv::{Kv, KvCommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::Bound;

/// Prints all entries of a table, ordered by key, as lines of key, tab and value.
///
/// With --script it prints a script that "load" takes. Without --table, that script holds all
/// tables. It leaves out the count that "load" keeps in the table "seawal.load".
#[derive(Debug, clap::Args)]
pub(super) struct Dump {
    #[command(flatten)]
    dir: Dir,
    /// The name of the table. The default table has no name.
    #[arg(long, value_name = "TABLE")]
    table: Option<OsString>,
    /// Print a transaction script, for "load".
    #[arg(long)]
    script: bool,
}

/// A transaction of a dumped script ends with the entry that reaches one of these.
const SCRIPT_ENTRIES: usize = 1000;
const SCRIPT_BYTES: usize = 1 << 20;

impl Dump {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let table = self.table.as_ref().map(table_name).transpose()?;
        let (store, _) = self.dir.open_to_read()?;
        if !self.script {
            return write_entries(store.raw_table(table.unwrap_or_default()).iter()?);
        }
        let view = store.view()?;
        let tables: Vec<&str> = match &table {
            Some(table) => vec![table],
            None => view.tables().collect(),
        };
        print(|out| tables.iter().try_for_each(|table| write_script(&view, table, out)))
    }
}

/// Writes the entries of a table as transactions.
fn write_script(view: &Kv, table: &str, out: &mut dyn Write) -> io::Result<()> {
    let counts = |key: &[u8]| table == load::TABLE && key == load::KEY.as_bytes();
    let mut line = b"table\t".to_vec();
    escape(table.as_bytes(), &mut line);
    line.push(b'\n');
    out.write_all(&line)?;
    let (mut entries, mut bytes) = (0, 0);
    for (key, value) in view.range::<[u8]>(table, ..).filter(|(key, _)| !counts(key)) {
        line.clear();
        line.extend_from_slice(b"put\t");
        write_entry(key, value, &mut line);
        out.write_all(&line)?;
        (entries, bytes) = (entries + 1, bytes + line.len());
        if entries >= SCRIPT_ENTRIES || bytes >= SCRIPT_BYTES {
            out.write_all(b"commit\n")?;
            (entries, bytes) = (0, 0);
        }
    }
    if entries > 0 { out.write_all(b"commit\n") } else { Ok(()) }
}

/// Prints the value of a key.
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    table: InTable,
    /// The key.
    key: OsString,
    /// Print the bytes of the value as they are, without escapes and without a line feed.
    #[arg(long)]
    raw: bool,
}

impl Get {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let key = plain("the key", &self.key)?;
        let (store, _) = self.dir.open_to_read()?;
        let Some(value) = store.raw_table(self.table.name()?).get(key)? else {
            return Err(Failure::new(Status::Partly, "there is no such key"));
        };
        let mut line = Vec::new();
        if self.raw {
            line = value;
        } else {
            escape(&value, &mut line);
            line.push(b'\n');
        }
        let mut out = output();
        out.write_all(&line).and_then(|()| out.flush()).map_err(Failure::output)
    }
}

/// Sets the value of a key; creates the store if there is none.
///
/// When the command returns, the entry survives power loss.
#[derive(Debug, clap::Args)]
pub(super) struct Put {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    table: InTable,
    /// The key.
    key: OsString,
    /// The value.
    value: OsString,
}

impl Put {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let table = self.table.name()?;
        let (key, value) = (plain("the key", &self.key)?, plain("the value", &self.value)?);
        let store = self.dir.open_to_write(Create::IfMissing)?;
        store.execute(KvCommand::put(table, key, value))?;
        Ok(store.close()?)
    }
}

/// Removes a key, if it exists.
///
/// When the command returns, the removal survives power loss.
#[derive(Debug, clap::Args)]
pub(super) struct Del {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    table: InTable,
    /// The key.
    key: OsString,
}

impl Del {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let table = self.table.name()?;
        let key = plain("the key", &self.key)?;
        let store = self.dir.open_to_write(Create::Never)?;
        let previous = store.raw_table(table).remove(key)?;
        store.close()?;
        if previous.is_none() { say("there was no such key") } else { Ok(()) }
    }
}

/// Prints the entries of a range of keys as lines of key, tab and value.
#[derive(Debug, clap::Args)]
pub(super) struct Scan {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    table: InTable,
    /// The first key of the range.
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// The end of the range, not included.
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// Print only keys that start with this prefix.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
    /// Print the entries in descending order.
    #[arg(long)]
    reverse: bool,
    /// Print at most this many entries.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

impl Scan {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let key = |argument: &Option<OsString>| argument.as_ref().map(|key| plain("a key", key)).transpose();
        let (from, to, prefix) = (key(&self.from)?, key(&self.to)?, key(&self.prefix)?);
        let (store, _) = self.dir.open_to_read()?;
        let table = store.raw_table(self.table.name()?);
        let entries = match prefix {
            Some(prefix) => table.prefix(prefix)?,
            None => {
                let from = from.map_or(Bound::Unbounded, Bound::Included);
                let to = to.map_or(Bound::Unbounded, Bound::Excluded);
                table.range::<Vec<u8>>((from, to))?
            }
        };
        if self.reverse {
            write_entries(entries.rev().take(self.limit))
        } else {
            write_entries(entries.take(self.limit))
        }
    }
}

fn write_entries(entries: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), Failure> {
    print(|out| {
        let mut line = Vec::new();
        for (key, value) in entries {
            line.clear();
            write_entry(&key, &value, &mut line);
            out.write_all(&line)?;
        }
        Ok(())
    })
}

/// Appends a line of key, tab and value.
fn write_entry(key: &[u8], value: &[u8], line: &mut Vec<u8>) {
    escape(key, line);
    line.push(b'\t');
    escape(value, line);
    line.push(b'\n');
}

/// Writes to the standard output.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = output();
    let written = write(&mut out).and_then(|()| out.flush());
    if written.is_err() {
        // discard the buffer, or its drop would write again
        let _ = out.into_parts();
    }
    written.map_err(Failure::output)
}
