//! The log of a consensus algorithm: entries are read by their index with one read each, a new
//! leader gives up a suffix, and a prefix that a snapshot covers is truncated.
//!
//! `cargo run --example replicated_log -- DIR`; kill it at any time, and start it again.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use seawal::wal::{Level, Log};
use std::collections::BTreeMap;
use std::error::Error;

type Fallible<T> = Result<T, Box<dyn Error>>;
/// The term of a record that gives up all entries from its index on.
const GIVEN_UP: u64 = 0;

fn encode(index: u64, term: u64) -> Vec<u8> {
    let text = format!("entry {index} of term {term} {}", ".".repeat(300));
    [&index.to_le_bytes()[..], &term.to_le_bytes(), text.as_bytes()].concat()
}

fn decode(record: &[u8]) -> Option<(u64, u64)> {
    let (index, rest) = record.split_first_chunk()?;
    Some((u64::from_le_bytes(*index), u64::from_le_bytes(*rest.first_chunk()?)))
}

/// The log, and the term and the LSN of each entry by its index.
struct Entries(Log, BTreeMap<u64, (u64, seawal::Lsn)>);

impl Entries {
    fn note(&mut self, (index, term): (u64, u64), lsn: seawal::Lsn) {
        match term {
            GIVEN_UP => drop(self.1.split_off(&index)),
            _ => drop(self.1.insert(index, (term, lsn))),
        }
    }
    /// Replaces the entries from an index on: after a crash, all of it has happened or nothing.
    fn replace(&mut self, from: u64, term: u64, count: u64) -> Fallible<()> {
        let new = (from..from + count).map(|index| (index, term));
        let records: Vec<_> = std::iter::once((from, GIVEN_UP)).chain(new).collect();
        let (lsns, ticket) = self.0.append_group(records.iter().map(|(index, term)| encode(*index, *term)))?;
        ticket.wait()?; // it survives power loss
        records.into_iter().zip(lsns).for_each(|(record, lsn)| self.note(record, lsn));
        Ok(())
    }
    /// Checks an entry, by one read of the device.
    fn check(&self, index: u64) -> Fallible<()> {
        let (term, lsn) = *self.1.get(&index).ok_or("an entry is missing")?;
        let found = self.0.read_at(lsn, Level::Durable)?;
        (found == Some(encode(index, term))).then_some(()).ok_or_else(|| format!("entry {index} is another one").into())
    }
}

fn main() -> Fallible<()> {
    let dir = std::env::args().nth(1).ok_or("usage: replicated_log DIR")?;
    let log = Log::options().name("entries").segment_bytes(64 << 10).open(dir)?;
    println!("opened: {}", log.recovery_report());
    let mut entries = Entries(log.clone(), BTreeMap::new());
    for record in log.read(.., Level::Durable)? {
        let (lsn, bytes) = record?;
        entries.note(decode(&bytes).ok_or("an unknown record")?, lsn);
    }
    let first = entries.1.keys().next().copied().unwrap_or(1);
    (first..first + entries.1.len() as u64).try_for_each(|index| entries.check(index))?; // without a gap
    let mut term = entries.1.values().map(|(term, _)| *term).max().unwrap_or(0);
    for round in 0..400 {
        let next = entries.1.keys().last().map_or(1, |last| last + 1);
        // a new leader has other entries than the last two
        let (from, elected) = if round % 50 == 0 { (next.saturating_sub(2).max(1), 1) } else { (next, 0) };
        term += elected;
        entries.replace(from, term, 3)?;
        entries.check(from + round % 3)?;
        if entries.1.len() > 300 {
            entries.1 = entries.1.split_off(&(from - 100)); // a snapshot covers the others
            log.truncate_before(entries.1.values().next().ok_or("no entry")?.1)?;
        }
        println!("{round}: {} entries up to {}, term {term}", entries.1.len(), from + 2);
    }
    Ok(log.close()?)
}
