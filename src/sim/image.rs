//! The image of a simulated disk: its files, names, space and clock. A crash is taken of it.
//!
//! Copying an image costs a few pointers, whatever the size of the files.
//!
//! Invariants:
//! - `dir` shows every name change. Applying all of `pending_dir` to `durable_dir` in order gives `dir`,
//!   unless a directory sync has failed.
//! - An inode has at most one name in a directory.
//! - An inode is kept while a directory or a handle refers to it.

use super::content::PAGE_BYTES;
use super::inode::Inode;
use super::rng::Rng;
use crate::io::WritePath;
use crate::io::sync::Arc;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// The free space of a disk without a limit, in bytes.
const UNLIMITED_BYTES: u64 = 1 << 40;

pub(super) type Ino = u64;
pub(super) type Names = BTreeMap<Arc<str>, Ino>;

/// A name change, which a power loss keeps or loses as a whole.
#[derive(Clone, Debug)]
pub(super) enum EntryChange {
    Create { name: Arc<str>, ino: Ino },
    Rename { to: Arc<str>, ino: Ino },
    Remove { name: Arc<str>, ino: Ino },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) block_bytes: u32,
    pub(super) write_path: WritePath,
    pub(super) warning: Option<&'static str>,
}

/// The range of a durable write that was in flight when the disk failed or stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) ino: Ino,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A durable write in flight, which completes on demand.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) number: u64,
    pub(super) ino: Ino,
    pub(super) offset: u64,
    pub(super) bytes: Arc<[u8]>,
}

/// A disk at one moment.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) config: Config,
    pub(super) inodes: BTreeMap<Ino, Arc<Inode>>,
    pub(super) next_ino: Ino,
    pub(super) dir: Arc<Names>,
    pub(super) durable_dir: Arc<Names>,
    pub(super) pending_dir: Vec<(u64, EntryChange)>,
    /// The number of open handles, which keep a removed file alive.
    pub(super) handles: BTreeMap<Ino, usize>,
    /// The largest number of open handles since that was last asked for.
    pub(super) most_open: usize,
    /// The sequence number that orders all pending changes, of files and of names.
    pub(super) seq: u64,
    /// The size of the disk, in bytes; `None` for unlimited space.
    pub(super) capacity: Option<u64>,
    /// The generator of [`Clock::random`](crate::io::Clock::random).
    pub(super) rng: Rng,
    /// The generator of fault effects. It is separate, so that a fault does not change the numbers
    /// that the program gets.
    pub(super) fault_rng: Rng,
    pub(super) clock: Duration,
    pub(super) down: bool,
    pub(super) in_flight: Option<InFlight>,
    /// True while durable writes block until they are completed on demand.
    pub(super) holds: bool,
    pub(super) held: Vec<Held>,
}

impl Image {
    pub(super) fn new(seed: u64, config: Config) -> Image {
        Image {
            config,
            inodes: BTreeMap::new(),
            next_ino: 1,
            dir: Arc::default(),
            durable_dir: Arc::default(),
            pending_dir: Vec::new(),
            handles: BTreeMap::new(),
            most_open: 0,
            seq: 0,
            capacity: None,
            rng: Rng::new(seed).fork(1),
            fault_rng: Rng::new(seed).fork(2),
            clock: Duration::ZERO,
            down: false,
            in_flight: None,
            holds: false,
            held: Vec::new(),
        }
    }

    /// Stops the computer, and returns the operation's error.
    pub(super) fn stop(&mut self) -> io::Error {
        self.down = true;
        down()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.dir.keys().map(|name| String::from(&**name)).collect()
    }

    pub(super) fn lookup(&self, name: &str) -> io::Result<Ino> {
        self.dir.get(name).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no file {name:?}")))
    }

    /// An inode, for changes.
    pub(super) fn inode(&mut self, ino: Ino) -> &mut Inode {
        Arc::make_mut(self.inodes.entry(ino).or_default())
    }

    /// An inode, for reads.
    pub(super) fn look<T>(&self, ino: Ino, look: impl FnOnce(&Inode) -> T) -> T {
        match self.inodes.get(&ino) {
            Some(inode) => look(inode),
            None => look(&Inode::default()),
        }
    }

    /// An inode, for changes, with the sequence number that orders them.
    pub(super) fn inode_and_seq(&mut self, ino: Ino) -> (&mut Inode, &mut u64) {
        (Arc::make_mut(self.inodes.entry(ino).or_default()), &mut self.seq)
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<Ino> {
        if self.dir.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("file {name:?} exists")));
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        self.inodes.insert(ino, Arc::default());
        self.change_entry(EntryChange::Create { name: name.into(), ino });
        Ok(ino)
    }

    pub(super) fn change_entry(&mut self, change: EntryChange) {
        apply_entry(Arc::make_mut(&mut self.dir), &change);
        self.pending_dir.push((self.seq, change));
        self.seq += 1;
    }

    pub(super) fn sync_dir(&mut self) {
        for (_, change) in std::mem::take(&mut self.pending_dir) {
            apply_entry(Arc::make_mut(&mut self.durable_dir), &change);
        }
        self.forget_nameless();
    }

    /// Drops the inodes that nothing refers to.
    pub(super) fn forget_nameless(&mut self) {
        let mut named: BTreeSet<Ino> = self.dir.values().chain(self.durable_dir.values()).copied().collect();
        named.extend(self.pending_dir.iter().map(|(_, change)| match change {
            EntryChange::Create { ino, .. } | EntryChange::Rename { ino, .. } | EntryChange::Remove { ino, .. } => ino,
        }));
        let handles = &self.handles;
        self.inodes.retain(|ino, _| handles.contains_key(ino) || named.contains(ino));
    }

    /// Makes all name changes before a direct edit of this name durable, so that none of them is
    /// applied after it.
    pub(super) fn sync_name(&mut self, name: &str) {
        let about = |change: &EntryChange, ino: Option<&Ino>| match change {
            EntryChange::Create { name: n, ino: i }
            | EntryChange::Rename { to: n, ino: i }
            | EntryChange::Remove { name: n, ino: i } => &**n == name || Some(i) == ino,
        };
        let ino = self.dir.get(name);
        if let Some(last) = self.pending_dir.iter().rposition(|(_, change)| about(change, ino)) {
            for (_, change) in self.pending_dir.drain(..=last) {
                apply_entry(Arc::make_mut(&mut self.durable_dir), &change);
            }
        }
    }

    /// Forgets writes in flight of a file after a durable write or a sync of it has succeeded.
    pub(super) fn finish_in_flight(&mut self, ino: Ino) {
        self.in_flight = self.in_flight.filter(|write| write.ino != ino);
    }

    /// Closes a handle.
    pub(super) fn close(&mut self, ino: Ino) {
        let Some(open) = self.handles.get_mut(&ino) else { return };
        *open -= 1;
        if *open == 0 {
            self.handles.remove(&ino);
            if !self.dir.values().any(|&named| named == ino) {
                self.forget_nameless();
            }
        }
    }

    /// The space of all files with a name or a handle.
    pub(super) fn used_bytes(&self) -> u64 {
        let named: BTreeSet<Ino> = self.dir.values().copied().collect();
        let live = self.inodes.iter().filter(|(ino, _)| self.handles.contains_key(ino) || named.contains(ino));
        live.map(|(_, inode)| inode.extents.bytes()).sum()
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.capacity.map_or(UNLIMITED_BYTES, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    /// Allocates space for a range of a file, from its start, until the disk is full. Returns the
    /// number of bytes of the range that have space.
    pub(super) fn claim(&mut self, ino: Ino, offset: u64, len: u64) -> u64 {
        let page_bytes = PAGE_BYTES as u64;
        let (first, last) = (offset / page_bytes, (offset + len).div_ceil(page_bytes));
        let mut room = match self.capacity {
            None => u64::MAX,
            Some(_) => self.free_bytes() / page_bytes,
        };
        if self.look(ino, |inode| inode.extents.missing(first, last)) == 0 {
            return len;
        }
        let extents = &mut self.inode(ino).extents;
        let mut end = last;
        if extents.missing(first, last) > room {
            end = first;
            while end < last {
                let needed = extents.missing(end, end + 1);
                if needed > room {
                    break;
                }
                room -= needed;
                end += 1;
            }
        }
        extents.add(first, end);
        (end * page_bytes).saturating_sub(offset).min(len)
    }
}

/// Applies a name change to the surviving result of those before it.
pub(super) fn apply_entry(names: &mut Names, change: &EntryChange) {
    match change {
        EntryChange::Create { name, ino } | EntryChange::Rename { to: name, ino } => give_name(names, name, *ino),
        EntryChange::Remove { name, ino } => {
            if names.get(name) == Some(ino) {
                names.remove(name);
            }
        }
    }
}

/// Gives an inode a name, and removes the name it had. If an earlier rename was lost, that is not
/// the old name in this change.
fn give_name(names: &mut Names, name: &Arc<str>, ino: Ino) {
    names.retain(|_, held| *held != ino);
    names.insert(Arc::clone(name), ino);
}

pub(super) fn down() -> io::Error {
    io::Error::other("the simulated machine is down")
}

pub(super) fn eio() -> io::Error {
    Errno::IO.into()
}

pub(super) fn no_space() -> io::Error {
    Errno::NOSPC.into()
}
