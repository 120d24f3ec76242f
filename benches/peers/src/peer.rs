//! Who is measured, and how each is set up for the same durability.

use std::path::Path;

/// What a write survives once it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Power loss.
    Durable,
    /// A kill of the process.
    Buffered,
}

/// One thread's access to an open store. What fails ends the run: a figure of what failed is none.
pub trait Session {
    /// Sets the n-th key to the value that the seed gives: one that it did not have, or a store may notice that nothing changes.
    fn put(&mut self, n: u64, seed: u64);

    /// The entries from `first` on as one transaction.
    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        let _ = (first, entries, seed);
        unreachable!("no batch is asked of a peer without")
    }

    /// Looks up the n-th key, and looks at its value.
    fn get(&mut self, n: u64) -> Option<usize> {
        let _ = n;
        unreachable!("no read is asked of a peer without")
    }

    /// Looks at so many entries from the n-th key on.
    fn scan(&mut self, n: u64, entries: usize) -> usize {
        let _ = (n, entries);
        unreachable!("no scan is asked of a peer without")
    }
}

pub trait Store: Send + Sync {
    fn session(&self) -> Box<dyn Session + '_>;

    /// One that reads what it saw at first and nothing newer.
    fn held(&self) -> Box<dyn Session + '_> {
        unreachable!("nothing is held of a store without")
    }

    /// Makes everything so far survive power loss.
    fn sync(&self) {}

    /// Ends at once what is not of this process, which is about to die.
    fn kill(&self) {}

    /// Ends it cleanly, so that the next open has as little to do as can be.
    fn close(self: Box<Self>) {}

    /// The memory of the store, where that is not this process's.
    fn resident_bytes(&self) -> Option<u64> {
        None
    }
}

pub struct Peer {
    pub name: &'static str,
    /// The crate whose version stands in the lock file; empty for a program.
    pub package: &'static str,
    /// How a write that survives power loss is asked for, in the words of its documentation.
    pub durable: Option<&'static str>,
    /// How one that survives a kill of the process is.
    pub buffered: Option<&'static str>,
    /// What else was set, and what to know when comparing.
    pub note: &'static str,
    /// Whether it holds a state that can be read; else it is a log only.
    pub reads: bool,
    /// Whether it reads in the order of keys.
    pub scans: bool,
    /// Whether it holds one view or transaction of a store of the same package, and reads that.
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

    /// The version that was measured.
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
