//! Planned faults: which operations fail, and how.
//!
//! Operations are counted from 0. Operations after [`Fault::Crash`] fail and are not counted. This
//! module decides whether a fault takes effect; each operation implements the effect itself.

/// A fault of the simulated disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The operation returns `EIO`. A failed sync marks its pages clean, as Linux does: the page
    /// cache shows the data, the device lacks it, and the next sync succeeds without writing it. A
    /// failed durable write leaves any subset of its sectors.
    Eio,
    /// Operations that may need space return `ENOSPC`; others succeed.
    NoSpace,
    /// `write_at` and `read_at` transfer a part, at least one byte. Other operations are not
    /// affected.
    ShortWrite,
    /// A signal arrives. Reads and `write_at` return [`std::io::ErrorKind::Interrupted`] and have
    /// no effect. A sync fails as with [`Fault::Eio`], because its effect is unknown. Other
    /// operations are not affected. With [`Persistence::ForEver`] it affects every other operation,
    /// so that retry loops end.
    Interrupted,
    /// The computer stops in the middle of this operation. What it writes is unsynced, and all
    /// later operations fail. [`super::SimDisk::crash`] decides what survives.
    Crash,
    /// Writes only: the device acknowledges the write and does not store it. The file's length
    /// changes as usual. After a write through the page cache, the cache shows data that the device
    /// lacks.
    LostWrite,
    /// Like `LostWrite`, and the data is stored durably in another block, of this file or another
    /// one.
    MisdirectedWrite,
}

/// How often a fault takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Persistence {
    /// For one operation.
    Once,
    /// For that operation and all later ones that it applies to.
    ForEver,
}

/// The operations of the storage trait that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name; `Create` is `open` with `CreateNew`")]
#[non_exhaustive]
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
    /// True if the operation may need space.
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
    /// How often it has taken effect or been skipped.
    turns: u64,
}

/// The planned faults.
#[derive(Debug, Default)]
pub(super) struct Plan(Vec<Planned>);

impl Plan {
    pub(super) fn add(&mut self, when: When, fault: Fault, persistence: Persistence) {
        self.0.push(Planned { when, fault, persistence, turns: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for this operation; of several, the one that was planned first.
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
