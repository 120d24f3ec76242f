//! The crate's error: what failed, where, and at which LSN.

use crate::ids::Lsn;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. It is cheap to clone: one failed write is told to every waiter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation.
    Io {
        /// What was being done ("write", "sync", …).
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Where in the file, if that matters.
        offset: Option<u64>,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// Data that had been durable is damaged. Nothing was changed.
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The LSN there, if there is one.
        lsn: Option<Lsn>,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
    /// Replaying the log gives another state than the one that the log's digest tells of, though every byte is whole: the machine
    /// broke its law, or is not the one that wrote the log. Nothing was changed.
    Diverged {
        /// The machine.
        machine: &'static str,
        /// The file with the digest.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The LSN whose state differs, the first that was compared and did.
        lsn: Lsn,
        /// The LSN of the last state that was known to agree, or where replay began.
        agreed: Lsn,
    },
    /// The directory holds no store of this crate.
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is missing or foreign.
        reason: Cow<'static, str>,
    },
    /// The bytes are whole, but of a version (of the format, or of the user's machine) that this program cannot read.
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Which thing has the version.
        what: Cow<'static, str>,
        /// The version found.
        found: u32,
        /// The version supported.
        supported: u32,
    },
    /// Another process, or another handle in this one, has the store open.
    Locked {
        /// The store.
        path: PathBuf,
        /// Who holds it, where known.
        holder: Option<String>,
    },
    /// The transaction was chosen to end a deadlock. Roll it back and try again.
    Conflict,
    /// A lock was not free within the limit. The transaction may go on or be rolled back.
    LockTimeout,
    /// Something exceeds a limit; nothing of it was done.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// There is no space for this operation; it did nothing, and the engine goes on.
    Full {
        /// What ran out.
        what: &'static str,
        /// The system's answer, where it gave one.
        source: Option<Arc<io::Error>>,
    },
    /// An earlier write or sync failed. Nothing is written until the store is reopened.
    Latched {
        /// The first failure.
        source: Arc<Error>,
    },
    /// The machine panicked while it was being changed. Reopening recovers.
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
    /// The savepoint does not belong to this transaction, or was rolled past.
    UnknownSavepoint,
    /// An argument or option makes no sense.
    InvalidArgument {
        /// What is wrong with it.
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
        Error::Corrupt { path, offset, lsn, reason: reason.into() }
    }

    pub(crate) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Error::InvalidArgument { reason: reason.into() }
    }

    /// Turns an I/O error that says that space ran out into [`Error::Full`].
    pub(crate) fn full_if_out_of_space(self, what: &'static str) -> Self {
        match self {
            Error::Io { source, .. } if out_of_space(&source) => Error::Full { what, source: Some(source) },
            other => other,
        }
    }

    /// Whether running the transaction again may succeed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict)
    }

    /// Whether durable data is damaged.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }

    /// Whether replay came to another state than the log tells of.
    pub fn is_diverged(&self) -> bool {
        matches!(self, Error::Diverged { .. })
    }

    /// Whether another opener holds the store.
    pub fn is_locked(&self) -> bool {
        matches!(self, Error::Locked { .. })
    }

    /// Whether space ran out; the engine goes on, and works again once there is space.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }

    /// Whether an earlier write failed, so that the store must be reopened.
    pub fn is_latched(&self) -> bool {
        matches!(self, Error::Latched { .. })
    }

    /// Whether the operating system says that no space, or no quota, is left.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Error::Io { source, .. } => out_of_space(source),
            Error::Full { .. } => true,
            Error::Latched { source } => source.is_out_of_space(),
            _ => false,
        }
    }
}

/// Whether the operating system's error says that space or quota ran out.
pub(crate) fn out_of_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
            Error::Corrupt { path, offset, lsn, reason } => {
                write!(f, "{} is damaged at offset {offset}", path.display())?;
                if let Some(lsn) = lsn {
                    write!(f, " (LSN {lsn})")?;
                }
                write!(f, ": {reason}")
            }
            Error::Diverged { machine, path, offset, lsn, agreed } => write!(
                f,
                "replaying the log does not give the state that the machine \"{machine}\" had at LSN {lsn}, by the digest in {} at \
                 offset {offset}; up to LSN {agreed} it did",
                path.display()
            ),
            Error::NotAStore { path, reason } => write!(f, "{} is not a store: {reason}", path.display()),
            Error::UnsupportedVersion { path, what, found, supported } => {
                write!(
                    f,
                    "{}: {what} version {found} is not supported; this program supports {supported}",
                    path.display()
                )
            }
            Error::Locked { path, holder } => {
                write!(f, "{} is in use", path.display())?;
                match holder {
                    Some(holder) => write!(f, " by {holder}"),
                    None => Ok(()),
                }
            }
            Error::Conflict => f.write_str("the transaction would deadlock with another; try it again"),
            Error::LockTimeout => f.write_str("a lock was not free within the time limit"),
            Error::TooLarge { what, size, limit } => write!(f, "{what} of {size} bytes is over the limit of {limit}"),
            Error::Full { what, source } => {
                write!(f, "no space for {what}")?;
                match source {
                    Some(source) => write!(f, ": {source}"),
                    None => Ok(()),
                }
            }
            Error::Latched { source } => write!(f, "the store stopped writing after a failure: {source}"),
            Error::Poisoned => f.write_str("the state machine panicked; reopen the store to recover"),
            Error::Internal { what } => write!(f, "a thread of the store panicked while {what}; reopen the store"),
            Error::Closed => f.write_str("the store is closed"),
            Error::ReadOnly => f.write_str("the store was opened read-only"),
            Error::Expired => f.write_str("the transaction was open for too long and was rolled back"),
            Error::UnknownSavepoint => f.write_str("the savepoint is not part of this transaction any more"),
            Error::InvalidArgument { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(&**source),
            Error::Full { source: Some(source), .. } => Some(&**source),
            Error::Latched { source } => Some(&**source),
            _ => None,
        }
    }
}
