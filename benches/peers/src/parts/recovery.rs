//! Opening a store of a million entries: one whose process was killed, and one that was closed.

use super::Effort;
use crate::child::{self, Task};
use crate::figures::{Part, Samples};
use crate::peer::{OURS, Peer};
use crate::peers;
use crate::work::directory;

pub const KILLED: &str = "killed, seconds";
pub const CLOSED: &str = "closed, seconds";
pub const ENTRIES: u64 = 1_000_000;

/// A store that was filled by a process with this end.
fn filled(peer: &Peer, end: Task) -> tempfile::TempDir {
    eprintln!("  filling {}", peer.name);
    let dir = directory();
    child::run(end, peer.name, dir.path(), ENTRIES);
    dir
}

pub fn measure(effort: &Effort) -> Part {
    let mut samples = Samples::default();
    let able = peers::all().into_iter().filter(|peer| peer.durable.is_some() && effort.wants(peer.name));
    let stores: Vec<_> = able
        .map(|peer| {
            let killed = filled(&peer, Task::Kill);
            // the other peers read on demand, so a close makes no difference
            let loads = [OURS, "raft-engine", "Redis"].contains(&peer.name);
            let closed = loads.then(|| filled(&peer, Task::Close));
            (peer, killed, closed)
        })
        .collect();
    for _ in 0..effort.repetitions {
        for (peer, killed, closed) in &stores {
            samples.add(KILLED, peer.name, child::run(Task::Open, peer.name, killed.path(), ENTRIES)[0]);
            if let Some(closed) = closed {
                samples.add(CLOSED, peer.name, child::run(Task::Open, peer.name, closed.path(), ENTRIES)[0]);
            }
        }
    }
    samples.into_part()
}
