//! The commands for entries: `dump`, `get`, `put`, `del`, `scan`.

use super::failure::{Failure, Status};
use super::script::escape;
use super::{Dir, InTable, output, plain, say};
use seawal::io::Create;
use seawal::kv::KvCommand;
use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::Bound;

/// Prints all entries of a table, ordered by key, as lines of key, tab and value.
#[derive(Debug, clap::Args)]
pub(super) struct Dump {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    table: InTable,
}

impl Dump {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (store, _) = self.dir.open_to_read()?;
        write_entries(store.table(self.table.name()?).iter()?)
    }
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
        let Some(value) = store.table(self.table.name()?).get(key)? else {
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
        let previous = store.table(table).remove(key)?;
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
        let table = store.table(self.table.name()?);
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
    let mut out = output();
    let write = || -> io::Result<()> {
        let mut line = Vec::new();
        for (key, value) in entries {
            line.clear();
            escape(&key, &mut line);
            line.push(b'\t');
            escape(&value, &mut line);
            line.push(b'\n');
            out.write_all(&line)?;
        }
        out.flush()
    };
    let written = write();
    if written.is_err() {
        // discard the buffer, or its drop would write again
        let _ = out.into_parts();
    }
    written.map_err(Failure::output)
}
