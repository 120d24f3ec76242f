//! The peers, and how each is set up for the same durability.

use std::path::Path;

/// What a write survives once it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Power loss.
    Durable,
    /// A kill of the process.
    Buffered,
}

/// One thread's access to an open store. A failure ends the run, because its figures would be
/// wrong.
pub trait Session {
    /// Sets the n-th key to the value of the seed. The seed is new, because a store may skip a
    /// write that changes nothing.
    fn put(&mut self, n: u64, seed: u64);

    /// Writes entries from `first` on in one transaction.
    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let _ = (first, entries, seed);
        unreachable!("no batch is asked of a peer without")
    }

    /// Reads the n-th key and its value.
    fn get(&mut self, n: u64) -> Option<usize> {
        let _ = n;
        unreachable!("no read is asked of a peer without")
    }

    /// Reads `entries` entries from the n-th key on.
    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let _ = (n, entries);
        unreachable!("no scan is asked of a peer without")
    }
}

pub trait Store: Send + Sync {
    fn session(&self) -> Box<dyn Session + '_>;

    /// A session that reads one state and nothing newer.
    fn held(&self) -> Box<dyn Session + '_> {
        unreachable!("nothing is held of a store without")
    }

    /// Makes everything so far survive power loss.
    fn sync(&self) {}

    /// Kills processes that belong to the store, when this process is about to exit.
    fn kill(&self) {}

    /// Closes the store cleanly, so that the next open has as little to do as possible.
    fn close(self: Box<Self>) {}

    /// The memory of the store if it is in another process.
    fn resident_bytes(&self) -> Option<u64> {
        None
    }
}

pub struct Peer {
    pub name: &'static str,
    /// The crate whose version is in the lock file; empty for a program.
    pub package: &'static str,
    /// The settings for writes that survive power loss, as its documentation names them.
    pub durable: Option<&'static str>,
    /// The settings for writes that survive a kill of the process.
    pub buffered: Option<&'static str>,
    /// Other settings, and notes on the comparison.
    pub note: &'static str,
    /// Whether it has a state that can be read. Otherwise it is a log only.
    pub reads: bool,
    /// Whether it can scan in key order.
    pub scans: bool,
    /// Whether it reads one held view or transaction, of a store of the same package.
    pub held: bool,
    pub open: fn(&Path, Level) -> Box<dyn Store>,
}

impl Peer {
    pub fn supports(&self, level: Level) -> bool {
        match level {
            Level::Durable => self.durable.is_some(),
            Level::Buffered => self.buffered.is_some(),
        }
    }

    /// The measured version.
    pub fn version(&self) -> String {
        if self.package.is_empty() {
            return crate::peers::redis::version().unwrap_or_default();
        }
        if self.package == "seawal" {
            return "this engine".into();
        }
        let lock = include_str!("../Cargo.lock");
        let wanted = format!("name = \"{}\"", self.package);
        let mut lines = lock.lines().skip_while(|line| *line != wanted).skip(1);
        lines.next().and_then(|line| line.split('"').nth(1)).unwrap_or_default().into()
    }
}

/// This engine's name in tables.
pub const OURS: &str = "seawal";
