//! What the handles of tables read and write through: a store, a transaction or a state.

use crate::durability::ReadLevel;
use crate::engine::{Engine, ExecuteResult, Transaction};
use crate::error::Result;
use crate::io::sync::Runs;
use crate::kv::range::KvSpan;
use crate::kv::{Kv, KvCommand, KvReply};
use crate::machine::{Access, Footprint};
use sealed::{How, Span};

/// What a [`TableHandle`](super::TableHandle) reads through: a [`Store`](crate::Store), a `&`[`Transaction`], or a
/// `&`[`Kv`], such as that of a [`View`](crate::View).
///
/// It cannot be implemented outside of this crate.
pub trait ReadSource: sealed::Read {}

/// What a [`TableHandle`](super::TableHandle) writes through: a [`Store`](crate::Store) or a `&`[`Transaction`].
///
/// It cannot be implemented outside of this crate.
pub trait WriteSource: ReadSource + sealed::Write {}

impl<S: sealed::Read> ReadSource for S {}
impl<S: sealed::Write> WriteSource for S {}

/// The traits that no other crate can name, and so not implement.
pub(super) mod sealed {
    use super::*;

    /// How a part of the state is read.
    #[derive(Clone, Copy, Debug)]
    pub struct How {
        /// The lock that a transaction takes.
        pub(super) access: Access,
        /// What a read of a store waits for.
        pub(super) level: ReadLevel,
        /// Whether the read runs code of users.
        pub(super) runs: Runs,
    }

    impl How {
        pub(in crate::kv) const SHARED: How =
            How { access: Access::Shared, level: ReadLevel::Hardened, runs: Runs::UserCode };
        pub(in crate::kv) const EXCLUSIVE: How = How { access: Access::Exclusive, ..How::SHARED };
        pub(in crate::kv) const LATEST: How = How { level: ReadLevel::Latest, ..How::SHARED };

        /// The same for a read that runs only code of this crate.
        pub(in crate::kv) const fn own_code(self) -> How {
            How { runs: Runs::OwnCode, ..self }
        }
    }

    /// A part of a table.
    #[derive(Clone, Copy, Debug)]
    pub struct Span<'a>(pub(in crate::kv) &'a KvSpan);

    pub trait Read {
        /// Reads the whole state without locks, and tells whether the value of a composite key is
        /// committed.
        fn peek<T>(&self, composite: &[u8], read: impl FnOnce(&Kv, bool) -> T) -> Result<T>;

        /// Reads the value of a composite key.
        fn read_key<T>(&self, composite: &[u8], how: How, read: impl FnOnce(&Kv) -> T) -> Result<T>;

        /// Reads a span of a table.
        fn read_span<T>(&self, span: Span<'_>, how: How, read: impl FnOnce(&Kv) -> T) -> Result<T>;
    }

    pub trait Write: Read {
        /// Whether writes are provisional, and reads lock what they read until the end.
        const MAY_ROLL_BACK: bool;

        /// Reads the record of a table's types, waiting for transactions that have written it. A
        /// transaction locks it for a write of its own.
        fn lock_types<T>(&self, composite: &[u8], read: impl FnOnce(&Kv) -> T) -> Result<T>;

        /// Executes a command.
        fn execute(&self, command: KvCommand) -> ExecuteResult<Kv, KvReply>;
    }
}

impl sealed::Read for Engine<Kv> {
    fn peek<T>(&self, composite: &[u8], read: impl FnOnce(&Kv, bool) -> T) -> Result<T> {
        self.peek_key(composite, read)
    }

    #[inline]
    fn read_key<T>(&self, composite: &[u8], how: How, read: impl FnOnce(&Kv) -> T) -> Result<T> {
        Engine::read_key(self, composite, how.level, how.runs, read)
    }

    fn read_span<T>(&self, span: Span<'_>, how: How, read: impl FnOnce(&Kv) -> T) -> Result<T> {
        Engine::read_span(self, || span.0.footprint(Access::Shared), how.level, how.runs, read)
    }
}

impl sealed::Write for Engine<Kv> {
    const MAY_ROLL_BACK: bool = false;

    fn lock_types<T>(&self, composite: &[u8], read: impl FnOnce(&Kv) -> T) -> Result<T> {
        Engine::read_key(self, composite, ReadLevel::Latest, Runs::OwnCode, read)
    }

    #[inline]
    fn execute(&self, command: KvCommand) -> ExecuteResult<Kv, KvReply> {
        Engine::execute(self, command)
    }
}

impl sealed::Read for &Transaction<Kv> {
    fn peek<T>(&self, composite: &[u8], read: impl FnOnce(&Kv, bool) -> T) -> Result<T> {
        self.peek_key(composite, read)
    }

    fn read_key<T>(&self, composite: &[u8], how: How, read: impl FnOnce(&Kv) -> T) -> Result<T> {
        self.read_within(&Footprint::key(how.access, composite), read)
    }

    fn read_span<T>(&self, span: Span<'_>, how: How, read: impl FnOnce(&Kv) -> T) -> Result<T> {
        self.read_within(&span.0.footprint(how.access), read)
    }
}

impl sealed::Write for &Transaction<Kv> {
    const MAY_ROLL_BACK: bool = true;

    fn lock_types<T>(&self, composite: &[u8], read: impl FnOnce(&Kv) -> T) -> Result<T> {
        // exclusively, because two transactions that share the lock could not both go on to write
        self.read_within(&Footprint::key(Access::Exclusive, composite), read)
    }

    fn execute(&self, command: KvCommand) -> ExecuteResult<Kv, KvReply> {
        Transaction::execute(self, command)
    }
}

impl sealed::Read for &Kv {
    fn peek<T>(&self, _composite: &[u8], read: impl FnOnce(&Kv, bool) -> T) -> Result<T> {
        Ok(read(self, true))
    }

    fn read_key<T>(&self, _composite: &[u8], _how: How, read: impl FnOnce(&Kv) -> T) -> Result<T> {
        Ok(read(self))
    }

    fn read_span<T>(&self, _span: Span<'_>, _how: How, read: impl FnOnce(&Kv) -> T) -> Result<T> {
        Ok(read(self))
    }
}
