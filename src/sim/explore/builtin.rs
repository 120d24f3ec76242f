//! The built-in machine explored: its commands, ways to look at it, and what must hold of it.

use super::settings::Explore;
use super::work::Look;
use crate::kv::{Kv, KvCommand};
use crate::sim::Rng;

const TABLES: [&str; 2] = [Kv::DEFAULT_TABLE, "other"];
const KEYS: u64 = 5;

impl Explore<Kv> {
    /// The built-in machine, with all of its commands on a few keys, and values that are no larger
    /// than a few blocks.
    ///
    /// ```
    /// use seawal::sim::explore::Explore;
    /// assert!(Explore::kv().steps(10).run()?.states > 50);
    /// # Ok::<(), Box<seawal::sim::explore::Failure>>(())
    /// ```
    pub fn kv() -> Self {
        Explore::commands(|rng| command(rng, 0)).looks(look).invariant(books_agree)
    }
}

fn key(rng: &mut Rng) -> (&'static str, Vec<u8>) {
    (TABLES[rng.below(TABLES.len() as u64) as usize], vec![b'a' + rng.below(KEYS) as u8])
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.below(8) == 0 { rng.below(6000) } else { rng.below(40) };
    let first = rng.next().to_le_bytes();
    first.into_iter().cycle().take(8 + len as usize).collect()
}

/// One of few values, so that a comparison comes out true at times.
fn small(rng: &mut Rng) -> Option<Vec<u8>> {
    (rng.below(3) > 0).then(|| vec![rng.below(2) as u8])
}

fn command(rng: &mut Rng, depth: u32) -> KvCommand {
    let (table, key) = key(rng);
    match rng.below(10) {
        0..=3 => KvCommand::put(table, key, value(rng)),
        4 => KvCommand::put(table, key, vec![rng.below(2) as u8]),
        5..=6 => KvCommand::delete(table, key),
        7..=8 if depth < 2 => {
            KvCommand::batch((0..1 + rng.below(4)).map(|_| command(rng, depth + 1)).collect::<Vec<_>>())
        }
        _ => KvCommand::compare_and_set(table, key, small(rng), small(rng)),
    }
}

/// A key, or a range, whose edges are keys that may be there or not.
fn look(rng: &mut Rng) -> Look<Kv> {
    let (table, first) = key(rng);
    if rng.coin() {
        return Look::new(&Kv::key_footprint(table, &first), move |kv: &Kv| {
            shown(kv.get(table, &first).map(|v| (&first[..], v)))
        });
    }
    let (_, last) = key(rng);
    let footprint = Kv::range_footprint(table, first.clone()..last.clone());
    Look::new(&footprint, move |kv: &Kv| shown(kv.range(table, first.clone()..last.clone())))
}

fn shown<'a>(entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    entries.into_iter().flat_map(|(key, value)| [key, b"=", value, b";"].concat()).collect()
}

/// A table exists exactly while it holds a key, and the sums are those of the entries.
fn books_agree(kv: &Kv) -> Result<(), String> {
    let (mut entries, mut bytes) = (0, 0);
    for table in kv.tables() {
        let before = entries;
        // a key carries its table's name, and what parts the two
        let name_bytes = table.len() + 1;
        for (key, value) in kv.range::<[u8]>(table, ..) {
            entries += 1;
            bytes += (name_bytes + key.len() + value.len()) as u64;
        }
        if entries == before {
            return Err(format!("table {table:?} is there and empty"));
        }
    }
    if entries != kv.len() {
        return Err(format!("{entries} entries, and {} are counted", kv.len()));
    }
    if bytes != kv.payload_bytes() {
        return Err(format!("{bytes} bytes of keys and values, and {} are counted", kv.payload_bytes()));
    }
    Ok(())
}
