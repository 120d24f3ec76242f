//! Which operations fail, and how.
//!
//! Operations are counted from 0; those that are refused because the machine is down are not counted.
//! This file decides whether a fault strikes; what it does is for each operation to say.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The device fails. A sync that fails marks what it should have written clean: the cache goes on showing
    /// it, the device lacks it, and another sync says `Ok` without writing it. A durable write that
    /// fails leaves any subset of its sectors.
    Eio,
    /// The disk is full, for operations that can take space; others go on.
    NoSpace,
    /// `write_at` takes a part, at least one byte; `read_at` returns a part. No effect on others.
    ShortWrite,
    /// A signal arrives: reads and `write_at` answer [`std::io::ErrorKind::Interrupted`] and do nothing; a sync fails as
    /// for [`Fault::Eio`], for what it did is unknown. No effect on others. With
    /// [`Persistence::ForEver`] it strikes every other time, so that loops end.
    Interrupted,
    /// The machine stops in the middle of this operation, what it writes is left unsynced, and every later
    /// operation fails. [`super::SimDisk::crash`] says what survives.
    Crash,
    /// A write that the device reports as done and never did: what was there stays. The file's length changes as it
    /// would have, and after a write through the page cache the cache shows what the device lacks. For writes only.
    LostWrite,
    /// As `LostWrite`; besides, the bytes land somewhere else, at another block of this or of another file, and are
    /// durable there.
    MisdirectedWrite,
}

/// How long a fault stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// It strikes one operation.
    Once,
    /// It strikes that operation and every later one that it fits.
    ForEver,
}

/// The operations of the storage trait that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name; `Create` is `open` with `CreateNew`")]
pub enum OpKind {
    Open,
    Create,
    List,
    Rename,
    Remove,
    SyncDir,
    Lock,
    ReadAt,
    ReadDeviceAt,
    WriteAt,
    WriteDurableAt,
    SyncData,
    SyncAll,
    Len,
    SetLen,
    Allocate,
}

impl std::fmt::Display for OpKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl OpKind {
    /// Whether the operation may have to take space.
    fn takes_space(self) -> bool {
        use OpKind::{Allocate, Create, Rename, SetLen, SyncAll, SyncData, SyncDir, WriteAt, WriteDurableAt};
        matches!(self, Create | Rename | SyncDir | WriteAt | WriteDurableAt | SyncData | SyncAll | SetLen | Allocate)
    }

    fn fits(self, fault: Fault) -> bool {
        use OpKind::{ReadAt, ReadDeviceAt, SyncAll, SyncData, SyncDir, WriteAt, WriteDurableAt};
        match fault {
            Fault::Eio | Fault::Crash => true,
            Fault::NoSpace => self.takes_space(),
            Fault::ShortWrite => matches!(self, WriteAt | ReadAt),
            Fault::LostWrite | Fault::MisdirectedWrite => matches!(self, WriteAt | WriteDurableAt),
            Fault::Interrupted => matches!(self, WriteAt | ReadAt | ReadDeviceAt | SyncData | SyncAll | SyncDir),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// At the operation with this index.
    At(u64),
    /// At the next operation of this kind.
    Next(OpKind),
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    when: When,
    fault: Fault,
    persistence: Persistence,
    /// How often it has struck or passed.
    turns: u64,
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct Plan(Vec<Planned>);

impl Plan {
    pub(super) fn add(&mut self, when: When, fault: Fault, persistence: Persistence) {
        self.0.push(Planned { when, fault, persistence, turns: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that strikes this operation; of several, the one planned first.
    pub(super) fn strike(&mut self, index: u64, kind: OpKind) -> Option<Fault> {
        self.0.iter_mut().find_map(|planned| {
            let due = match (planned.when, planned.persistence) {
                (When::At(at), Persistence::Once) => index == at,
                (When::At(at), Persistence::ForEver) => index >= at,
                (When::Next(wanted), Persistence::Once) => kind == wanted && planned.turns == 0,
                (When::Next(wanted), Persistence::ForEver) => kind == wanted,
            };
            if !due || !kind.fits(planned.fault) {
                return None;
            }
            planned.turns += 1;
            (planned.fault != Fault::Interrupted || planned.turns % 2 == 1).then_some(planned.fault)
        })
    }
}
