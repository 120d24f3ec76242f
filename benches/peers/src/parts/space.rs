//! The space of an entry in memory and in the log.

use super::Effort;
use crate::child::{self, Task};
use crate::figures::{Part, Samples};
use crate::peer::{Level, OURS};
use crate::peers;
use crate::work::{PAYLOAD_BYTES, bytes_under, directory, new_seed};
use seawal::Engine;
use seawal::kv::{Kv, KvCommand};
use std::path::Path;

pub const LOG: &str = "log bytes for each byte of payload, in batches of 100";

pub fn inserted_row(entries: u64) -> String {
    format!("bytes an entry, {entries} inserted at random")
}

/// With the engine's own checkpoints. If many entries are inserted, one is in progress nearly all
/// the time.
pub fn beside_row(entries: u64) -> String {
    format!("bytes an entry, {entries} inserted at random while checkpoints go on")
}

pub fn recovered_row(entries: u64) -> String {
    format!("bytes an entry, {entries} recovered")
}

pub const CHECKPOINT: &str = "most memory in a checkpoint under full write load, of that before";

pub fn measure(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let sizes: &[u64] = if effort.large { &[1_000_000, 10_000_000] } else { &[1_000_000] };
    for peer in peers::all().into_iter().filter(|peer| [OURS, "Redis"].contains(&peer.name) && effort.wants(peer.name))
    {
        for &entries in sizes {
            let dir = directory();
            let mut add = |row: String, task, dir: &Path| {
                samples.add(&row, peer.name, child::run(task, peer.name, dir, entries)[0] / entries as f64);
            };
            if peer.name == OURS {
                add(inserted_row(entries), Task::MemoryAlone, directory().path());
                add(beside_row(entries), Task::Memory, dir.path());
                add(recovered_row(entries), Task::MemoryOpened, dir.path());
            } else {
                add(inserted_row(entries), Task::Memory, dir.path());
            }
        }
    }
    if effort.wants(OURS) {
        let dir = directory();
        if let [before, most] = child::run(Task::MemoryCheckpoint, OURS, dir.path(), 1_000_000)[..] {
            samples.add(CHECKPOINT, OURS, most / before);
        }
    }
    log_volume(effort, &mut samples);
    samples.into_part()
}

fn log_volume(effort: &Effort, samples: &mut Samples) {
    const BATCHES: u64 = 5_000;
    let payload = (BATCHES * 100 * PAYLOAD_BYTES) as f64;
    if effort.wants(OURS) {
        let dir = directory();
        let engine: Engine<Kv> = peers::seawal::options(Level::Durable).open(dir.path()).expect("a store");
        let (seed, before) = (new_seed(), engine.stats().log.expect("a log").durable);
        let batch = |first: u64| KvCommand::batch((first..first + 100).map(|n| peers::seawal::put(n, n ^ seed)));
        let tickets: Vec<_> = (0..BATCHES).map(|n| engine.submit(batch(n * 100)).expect("a commit")).collect();
        tickets.into_iter().for_each(|ticket| drop(ticket.wait().expect("durability")));
        let written = engine.stats().log.expect("a log").durable.get() - before.get();
        samples.add(LOG, OURS, written as f64 / payload);
    }
    for peer in peers::all().into_iter().filter(|peer| peer.name == "Redis" && effort.wants(peer.name)) {
        let dir = directory();
        let store = (peer.open)(dir.path(), Level::Buffered);
        let before = bytes_under(dir.path());
        let mut session = store.session();
        (0..BATCHES).for_each(|n| session.batch(n * 100, 100, n));
        samples.add(LOG, peer.name, (bytes_under(dir.path()) - before) as f64 / payload);
    }
}
