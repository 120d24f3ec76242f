//! The crate's error. It says what failed, in which file, at which offset and LSN.

use crate::count::Count;
use crate::ids::Lsn;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;

// an error is never changed once it was made
impl UnwindSafe for Error {}
impl RefUnwindSafe for Error {}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
///
/// Programs usually distinguish five cases, each with a predicate: a call to make again
/// ([`is_retryable`](Error::is_retryable)), a full disk to make room on
/// ([`is_full`](Error::is_full)), a store to reopen ([`is_latched`](Error::is_latched)), a store
/// that is in use ([`is_locked`](Error::is_locked)), and damage to repair
/// ([`is_corrupt`](Error::is_corrupt)).
///
/// Cloning is cheap, because one failed write is reported to every commit that waits for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system returned an error.
    Io {
        /// The operation that failed, as a verb ("write", "sync", …).
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The offset in the file, in bytes, for reads and writes.
        offset: Option<u64>,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// Data that was durable is damaged. The store was not changed.
    Corrupt {
        /// The damaged file, or the directory if a file is missing.
        path: PathBuf,
        /// The offset of the damage, in bytes. `None` if it concerns the file or directory as a
        /// whole.
        offset: Option<u64>,
        /// The LSN at that offset, if it is known.
        lsn: Option<Lsn>,
        /// What is wrong with the data.
        reason: Cow<'static, str>,
    },
    /// Data is whole, as its checksums show, but the machine cannot decode it. Usually a type was
    /// changed without raising the machine's version. The store was not changed.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The offset of the command, or of the chunk of the state, in bytes.
        offset: u64,
        /// The LSN of the command or of the state.
        lsn: Lsn,
        /// The machine's name.
        machine: &'static str,
        /// The version of the machine that wrote the data.
        version: u32,
        /// The version of the machine that cannot decode it.
        current: u32,
        /// What the machine says.
        reason: Cow<'static, str>,
    },
    /// Replay produced a state whose digest differs from the one in the log, although every
    /// checksum is right. The machine is not deterministic, loses state in its snapshots, or is
    /// not the machine that wrote the log. The store was not changed.
    Diverged {
        /// The machine's name.
        machine: &'static str,
        /// The file that holds the digest.
        path: PathBuf,
        /// The offset of the digest, in bytes.
        offset: u64,
        /// The first LSN whose state was compared and differs.
        lsn: Lsn,
        /// The last LSN whose state is known to agree, or the LSN where replay began.
        agreed: Lsn,
    },
    /// The directory holds no store of this crate.
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is missing or foreign.
        reason: Cow<'static, str>,
    },
    /// The store belongs to another state machine than the one it was opened with.
    /// [`inspect`](crate::inspect) and backups of files work on the store of any machine.
    OtherMachine {
        /// The store's directory.
        path: PathBuf,
        /// The name of the machine that the store belongs to.
        found: Cow<'static, str>,
        /// The version of that machine.
        version: u32,
        /// The name of the machine that the store was opened with.
        expected: Cow<'static, str>,
    },
    /// The data is whole, but this program cannot read its version (of the file format, or of the
    /// user's machine).
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// What the version belongs to.
        what: Cow<'static, str>,
        /// The version in the file.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// Another process, or another handle in this process, has the store open.
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds the store, if it is known.
        holder: Option<String>,
    },
    /// The machine rejected the command, which had no effect. Calls that execute a command return
    /// [`ExecuteError::Rejected`](crate::ExecuteError::Rejected) with the machine's own value, which
    /// `?` converts into this text.
    Rejected {
        /// What the machine says.
        reason: Cow<'static, str>,
    },
    /// The transaction was chosen as the victim of a deadlock. Roll it back and run it again.
    Conflict,
    /// A lock was not granted within [`lock_timeout`](crate::Options::lock_timeout). The
    /// transaction may go on, or be rolled back.
    LockTimeout,
    /// The operation exceeds a limit and had no effect.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Space ran out. The operation had no effect, and the store works again once there is space.
    Full {
        /// What there was no space for.
        what: &'static str,
        /// The operating system's error, if it returned one.
        source: Option<Arc<io::Error>>,
    },
    /// An earlier write or sync failed, or the directory was replaced under the store. The store
    /// refuses all writes until it is reopened, because what reached the device is unknown.
    Latched {
        /// The first failure.
        source: Arc<Error>,
    },
    /// The command or commit took effect, but the log could not write it yet: it could not go on to
    /// its next segment, or lacked memory for a buffer. The store stays usable, and writes it
    /// before the next commit that succeeds. Power loss before that takes it back. Do not repeat
    /// it.
    Delayed {
        /// Why the log could not write it.
        source: Arc<Error>,
    },
    /// The state machine's own code panicked. The message of that panic, which Rust prints to
    /// stderr unless the program has set a panic hook, says where.
    ///
    /// If it panicked while a command was applied or undone, the state in memory may be half
    /// changed. Every call then returns this error until the store is closed and opened again,
    /// which recovers all that was committed. The command that panicked is not logged, so it does
    /// not come back. In other code, such as `encode` or `footprint`, only the call fails. If an
    /// open returns it, the machine panics on data of the store, and must be fixed.
    Poisoned,
    /// A thread of the store itself panicked. Reopening recovers.
    Internal {
        /// What the thread was doing.
        what: &'static str,
    },
    /// The store was closed.
    Closed,
    /// The store was opened read-only.
    ReadOnly,
    /// The transaction was rolled back because it was open for longer than `max_txn_age`.
    Expired,
    /// The call came from within the closure of a read, or from within the machine's own code, and
    /// would wait for that to return. It had no effect.
    Reentrant,
    /// The call came from within the closure of a transaction, and would wait for a lock that this
    /// transaction holds, directly or through other transactions. The closure would wait for itself.
    /// The call had no effect. Inside [`transact`](crate::Engine::transact), use the transaction
    /// instead of the engine.
    SelfDeadlock,
    /// The savepoint belongs to another transaction, or a rollback went past it.
    UnknownSavepoint,
    /// A table was written with other types than those that it is opened with. Nothing was read or
    /// written.
    OtherTypes {
        /// The name of the table.
        table: String,
        /// The types that it was written with, such as `Table<u64, User>`.
        recorded: String,
        /// The types that it was opened with. If they have the same names, the fields or variants
        /// of the values differ.
        requested: String,
    },
    /// A key or a value of a table cannot be decoded as its type. The store is undamaged: its
    /// checksums hold.
    Undecodable {
        /// The name of the table.
        table: String,
        /// What cannot be decoded: "key" or "value", or the store's own "record of the types".
        what: &'static str,
        /// The name of its type.
        type_name: String,
        /// What the type says.
        reason: String,
    },
    /// No record of the log begins at the LSN.
    NotARecord {
        /// The LSN.
        lsn: Lsn,
    },
    /// The log begins past the LSN: what was there was truncated.
    Truncated {
        /// The LSN.
        lsn: Lsn,
        /// The LSN at which the log begins.
        start: Lsn,
    },
    /// An argument or option is not valid.
    InvalidArgument {
        /// What is wrong, and what to use instead.
        reason: Cow<'static, str>,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: PathBuf, source: io::Error) -> Self {
        Error::Io { operation, path, offset: None, source: Arc::new(source) }
    }

    pub(crate) fn io_at(operation: &'static str, path: PathBuf, offset: u64, source: io::Error) -> Self {
        Error::Io { operation, path, offset: Some(offset), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(path: PathBuf, offset: u64, lsn: Option<Lsn>, reason: impl Into<Cow<'static, str>>) -> Self {
        Error::Corrupt { path, offset: Some(offset), lsn, reason: reason.into() }
    }

    /// Damage that concerns a file or directory as a whole, such as a missing file.
    pub(crate) fn corrupt_as_a_whole(path: PathBuf, lsn: Option<Lsn>, reason: impl Into<Cow<'static, str>>) -> Self {
        Error::Corrupt { path, offset: None, lsn, reason: reason.into() }
    }

    /// The error without advice, for reports that give advice of their own.
    pub(crate) fn finding(&self) -> impl fmt::Display + use<'_> {
        Finding(self)
    }

    pub(crate) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Error::InvalidArgument { reason: reason.into() }
    }

    pub(crate) fn undecodable(table: &str, what: &'static str, type_name: &str, reason: &impl fmt::Display) -> Self {
        let (table, type_name, reason) = (table.to_owned(), type_name.to_owned(), reason.to_string());
        Error::Undecodable { table, what, type_name, reason }
    }

    /// Turns an I/O error that says that space ran out into [`Error::Full`].
    pub(crate) fn full_if_out_of_space(self, what: &'static str) -> Self {
        match self {
            Error::Io { source, .. } if out_of_space(&source) => Error::Full { what, source: Some(source) },
            other => other,
        }
    }

    /// True if the transaction lost a deadlock and may succeed when it is run again.
    ///
    /// [`Engine::transact`](crate::Engine::transact) retries such transactions by itself.
    ///
    /// ```
    /// use seawal::Error;
    ///
    /// assert!(Error::Conflict.is_conflict());
    /// assert!(!Error::LockTimeout.is_conflict());
    /// ```
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict)
    }

    /// True if nothing happened, and the same call may succeed if it is made again:
    ///
    /// - [`Conflict`](Error::Conflict) and [`Expired`](Error::Expired): run the transaction again,
    ///   from its beginning.
    /// - [`LockTimeout`](Error::LockTimeout) and [`Locked`](Error::Locked): at once, or a little
    ///   later.
    /// - [`Full`](Error::Full): once there is space.
    ///
    /// It is false where the effect may have happened, as after [`Delayed`](Error::Delayed) and
    /// [`Latched`](Error::Latched), and where the same call would fail again.
    ///
    /// ```
    /// use seawal::Error;
    /// use std::sync::Arc;
    ///
    /// let full = Error::Full { what: "a segment", source: None };
    /// assert!(Error::LockTimeout.is_retryable() && full.is_retryable());
    /// // the commit has taken effect: a second one would be another
    /// assert!(!Error::Delayed { source: Arc::new(full) }.is_retryable());
    /// assert!(!Error::SelfDeadlock.is_retryable(), "it would fail again");
    /// ```
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::Conflict | Error::Expired | Error::LockTimeout | Error::Locked { .. } | Error::Full { .. }
        )
    }

    /// True if durable data is damaged. [`inspect`](crate::inspect) shows the damage, and
    /// [`salvage`](mod@crate::salvage) copies what is intact into a new store.
    ///
    /// ```
    /// use seawal::Error;
    ///
    /// let (path, reason) = ("store/0.seg".into(), "the frame's checksum is wrong".into());
    /// let error = Error::Corrupt { path, offset: Some(4096), lsn: None, reason };
    /// assert!(error.is_corrupt());
    /// assert!(error.to_string().contains("at offset 4096"));
    /// ```
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }

    /// True if data is whole, but the machine cannot decode it. That is a mistake in the machine,
    /// not damage: the program that wrote the store still opens it.
    ///
    /// ```
    /// use seawal::{Error, Lsn};
    ///
    /// let (path, lsn, reason) = ("store/0.seg".into(), Lsn::new(4096), "it ends too early".into());
    /// let error = Error::Unreadable { path, offset: 4096, lsn, machine: "ledger", version: 1, current: 1, reason };
    /// assert!(error.is_unreadable() && !error.is_corrupt());
    /// assert!(error.to_string().contains("was a type changed without raising VERSION?"));
    /// ```
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Error::Unreadable { .. })
    }

    /// True if replay produced another state than the log's digest records.
    ///
    /// ```
    /// use seawal::{Error, Lsn};
    ///
    /// let (machine, path) = ("counter", "store/0.seg".into());
    /// let (lsn, agreed) = (Lsn::new(8192), Lsn::new(4096));
    /// let error = Error::Diverged { machine, path, offset: 512, lsn, agreed };
    /// assert!(error.is_diverged() && !error.is_corrupt());
    /// ```
    pub fn is_diverged(&self) -> bool {
        matches!(self, Error::Diverged { .. })
    }

    /// True if a table was written with other types than those that it is opened with.
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// store.table(Table::<u64, str>::new("users")).put(&7, "ann")?;
    /// let users = store.table(Table::<str, str>::new("users"));
    /// assert!(users.get("ann").unwrap_err().is_other_types());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_other_types(&self) -> bool {
        matches!(self, Error::OtherTypes { .. })
    }

    /// True if another process, or another handle in this process, has the store open.
    ///
    /// ```
    /// use seawal::{Engine, kv::Kv};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = Engine::<Kv>::open(dir.path())?;
    /// let second = Engine::<Kv>::open(dir.path()).map(drop);
    /// assert!(second.unwrap_err().is_locked());
    /// # drop(store);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_locked(&self) -> bool {
        matches!(self, Error::Locked { .. })
    }

    /// True if space ran out. The operation had no effect, and the store works again once there
    /// is space.
    ///
    /// ```
    /// use seawal::Error;
    ///
    /// let error = Error::Full { what: "the log", source: None };
    /// assert!(error.is_full() && !error.is_latched());
    /// ```
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }

    /// True if an earlier write or sync failed, or the directory was replaced, so that the store
    /// must be reopened.
    ///
    /// ```
    /// use seawal::Error;
    /// use std::{io, sync::Arc};
    ///
    /// let source = Arc::new(io::Error::from(io::ErrorKind::StorageFull));
    /// let (operation, path) = ("sync", "store/0.seg".into());
    /// let first = Error::Io { operation, path, offset: None, source };
    /// let error = Error::Latched { source: Arc::new(first) };
    /// assert!(error.is_latched());
    /// assert!(error.is_out_of_space(), "that is why the sync failed");
    /// ```
    pub fn is_latched(&self) -> bool {
        matches!(self, Error::Latched { .. })
    }

    /// Whether an operation that found no space may succeed once files are removed. Under a limit
    /// of file sizes that does not help.
    pub(crate) fn can_be_met_by_freeing(&self) -> bool {
        let is_limit = |e: &Arc<io::Error>| e.kind() == io::ErrorKind::FileTooLarge;
        matches!(self, Error::Full { source, .. } if !source.as_ref().is_some_and(is_limit))
    }

    /// True if the cause is a lack of space or disk quota, or a limit of file sizes, also where the
    /// store latched for it.
    ///
    /// ```
    /// use seawal::Error;
    ///
    /// assert!(Error::Full { what: "a segment", source: None }.is_out_of_space());
    /// assert!(!Error::Closed.is_out_of_space());
    /// ```
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Error::Io { source, .. } => out_of_space(source),
            Error::Full { .. } => true,
            Error::Latched { source } | Error::Delayed { source } => source.is_out_of_space(),
            _ => false,
        }
    }
}

/// True if the operating system reports that space or quota ran out, or that a file may not grow to
/// that size.
pub(crate) fn out_of_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// True if the system refuses memory, descriptors or threads to this process, or to all of them.
#[cfg(any(test, feature = "salvage"))]
pub(crate) fn lacks_resources(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let refusals = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    matches!(e.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock)
        || e.raw_os_error().is_some_and(|raw| refusals.contains(&raw))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { operation, path, offset, source } => {
                write!(f, "cannot {operation} {}", path.display())?;
                if let Some(offset) = offset {
                    write!(f, " at offset {offset}")?;
                }
                write!(f, ": {source}")
            }
            Error::Corrupt { .. } => write!(
                f,
                "{}; `seawal verify` shows the extent of the damage, and `seawal salvage` copies what is intact",
                Finding(self)
            ),
            Error::Unreadable { path, offset, lsn, machine, version, current, reason } => {
                write!(
                    f,
                    "{} at offset {offset} (LSN {lsn}) is whole, but not readable as `{machine}` version {version}: \
                     {reason}; ",
                    path.display()
                )?;
                if version == current {
                    f.write_str("was a type changed without raising VERSION?")
                } else {
                    write!(f, "version {current} says that it supports version {version}, but cannot decode it")
                }
            }
            Error::Diverged { machine, path, offset, lsn, agreed } => write!(
                f,
                "replay diverged: the state of the machine \"{machine}\" at LSN {lsn} does not match the digest in {} at \
                 offset {offset}; the last match is at LSN {agreed}. Open the store with the machine that wrote it",
                path.display()
            ),
            Error::NotAStore { path, reason } => write!(f, "{} is not a store: {reason}", path.display()),
            Error::OtherMachine { path, found, version, expected } => write!(
                f,
                "{} belongs to the machine \"{found}\" version {version}, and was opened as \"{expected}\"; open it with \
                 its own machine; `seawal inspect`, `stat`, `verify` and `backup` work on the store of any machine",
                path.display()
            ),
            Error::UnsupportedVersion { path, what, found, supported } => {
                write!(
                    f,
                    "{}: {what} version {found} is not supported; this program supports version {supported}, so use the one \
                     that wrote the store",
                    path.display()
                )
            }
            Error::Locked { path, holder } => {
                write!(f, "{} is in use", path.display())?;
                if let Some(holder) = holder {
                    write!(f, " by {holder}")?;
                }
                f.write_str("; close it there, or wait for it (Options::lock_wait, --wait SECONDS)")
            }
            Error::Rejected { reason } => write!(f, "rejected: {reason}"),
            Error::Conflict => {
                f.write_str("the transaction would deadlock with another; roll it back and run it again")
            }
            Error::LockTimeout => {
                f.write_str("a lock was not granted within lock_timeout; run the transaction again, or raise the limit")
            }
            Error::TooLarge { what, size, limit } => {
                let [size, limit] = [*size, *limit].map(|bytes| Count(bytes, "byte", "bytes"));
                write!(f, "{what} of {size} exceeds the limit of {limit}")
            }
            Error::Full { what, source } => {
                write!(f, "no space for {what}")?;
                match source {
                    Some(source) => write!(f, ": {source}"),
                    None => f.write_str("; free some and try again"),
                }
            }
            Error::Latched { source } => {
                write!(f, "the store stopped writing after a failure; reopen it to recover ({source})")
            }
            Error::Delayed { source } => {
                write!(f, "the commit took effect but waits to be written; the next commit that succeeds writes it ({source})")
            }
            Error::Poisoned => f.write_str(
                "the state machine's own code panicked, and the panic's message says where; reopen the store to recover \
                 all that was committed, and fix the machine if it panics again",
            ),
            Error::Internal { what } => write!(f, "a thread of the store panicked while {what}; reopen the store"),
            Error::Closed => f.write_str("the store is closed"),
            Error::ReadOnly => {
                f.write_str("the store was opened read-only; open it without RecoveryPolicy::ReadOnly to write")
            }
            Error::Expired => f.write_str("the transaction was open for longer than max_txn_age and was rolled back"),
            Error::Reentrant => f.write_str(
                "a call inside the closure of a read, or inside the machine's own code, would deadlock; return from there \
                 first",
            ),
            Error::SelfDeadlock => f.write_str(
                "the call would wait for a lock of the transaction whose closure made it; inside the closure of `transact`, \
                 call the transaction (`tx`) instead of the engine",
            ),
            Error::UnknownSavepoint => {
                f.write_str("the savepoint belongs to another transaction, or a rollback went past it")
            }
            Error::OtherTypes { table, recorded, requested } => {
                write!(f, "the table {table:?} was written as {recorded}, and was opened as {requested}; ")?;
                if recorded == requested {
                    f.write_str("the fields or variants of its values differ, so use the types that wrote it, or another table")
                } else {
                    f.write_str("use the types that wrote it, or another table")
                }
            }
            Error::Undecodable { table, what, type_name, reason } => {
                write!(f, "a {what} of the table {table:?} cannot be decoded")?;
                if !type_name.is_empty() {
                    write!(f, " as {type_name}")?;
                }
                write!(f, ": {reason}; use the program that wrote it, or read the bytes with Kv::range")
            }
            Error::NotARecord { lsn } => {
                write!(f, "no record of the log begins at LSN {lsn}; use an LSN that an append has returned")
            }
            Error::Truncated { lsn, start } => {
                write!(f, "LSN {lsn} was truncated: the log begins at LSN {start}, so read from there on")
            }
            Error::InvalidArgument { reason } => f.write_str(reason),
        }
    }
}

/// An error without advice.
struct Finding<'a>(&'a Error);

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error::Corrupt { path, offset, lsn, reason } = self.0 else { return self.0.fmt(f) };
        write!(f, "{} is damaged", path.display())?;
        if let Some(offset) = offset {
            write!(f, " at offset {offset}")?;
        }
        if let Some(lsn) = lsn {
            write!(f, " (LSN {lsn})")?;
        }
        write!(f, ": {reason}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(&**source),
            Error::Full { source: Some(source), .. } => Some(&**source),
            Error::Latched { source } | Error::Delayed { source } => Some(&**source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N7: one byte is not told as several.
    #[test]
    fn a_limit_of_one_byte_is_singular() {
        let error = Error::TooLarge { what: "a command", size: 2, limit: 1 };
        assert_eq!(error.to_string(), "a command of 2 bytes exceeds the limit of 1 byte");
    }

    /// N7: a directory and a missing file have no offset, and damage says what to do.
    #[test]
    fn damage_is_told_as_it_is_and_with_what_to_do() {
        let whole = Error::corrupt_as_a_whole("store".into(), Some(Lsn::new(7)), "segment 15 is missing");
        assert!(whole.to_string().starts_with("store is damaged (LSN 7): segment 15 is missing; "), "{whole}");
        let part = Error::corrupt("store/1.seg".into(), 512, None, "the frame's checksum is wrong");
        assert_eq!(part.finding().to_string(), "store/1.seg is damaged at offset 512: the frame's checksum is wrong");
        for error in [whole, part] {
            let text = error.to_string();
            assert!(text.contains("`seawal verify`") && text.contains("`seawal salvage`"), "{text}");
            assert!(!error.finding().to_string().contains("salvage"), "{}", error.finding());
        }
    }
}
