//! A failed command: one sentence and an exit status.

use seawal::Error;
use seawal::ExecuteError;
use seawal::StateMachine;
use seawal::kv::Kv;
use std::fmt;
use std::io;

/// The exit statuses. They are part of the program's interface, and `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// `verify`: the store opens without loss, but has a torn tail or a damaged redundant copy.
    /// `get`: there is no such key. `salvage`: a store was written, and some data is missing.
    Partly = 1,
    /// Durable data is damaged.
    Damage = 2,
    /// Any other failure, such as an I/O error.
    Other = 3,
    /// The directory holds no store, or the store of another state machine.
    NotAStore = 4,
    /// The store is in use by another process.
    Locked = 5,
    /// The store has a version that this program cannot read, or is whole and cannot be decoded.
    Version = 6,
    /// A transaction script is malformed, or is not the one that the store has loaded.
    Script = 7,
    /// The arguments are invalid.
    Usage = 64,
}

/// The exit statuses, for `--help`.
pub(super) const STATUSES: &str = "Exit status:
  0   success; verify: the store is clean; salvage: nothing is missing
  1   verify: the store opens without loss, but the end of its log is torn or a redundant copy is damaged;
      get: there is no such key; salvage: the new store was written, but some data is missing
  2   durable data is damaged; salvage: no usable state is left, and nothing was written
  3   any other failure, such as an I/O error
  4   the directory holds no store, or the store of another state machine
  5   the store is in use by another process
  6   the store has a version that this program cannot read, or is whole and cannot be decoded
  7   the script is malformed, or is not the one that the store has loaded
  64  the arguments are invalid";

/// The escapes, for `--help`.
pub(super) const ESCAPES: &str =
    "KEY, VALUE and table names take the escapes \\t, \\n, \\\\ and \\xHH, in arguments, scripts and output.";

/// The failure of a command.
#[derive(Debug)]
pub(super) enum Failure {
    /// The reader of the output has closed it, so the program ends without a report.
    Quiet,
    /// A failure to report on the standard error.
    Reported {
        /// The exit status.
        status: Status,
        /// The message, one sentence.
        text: String,
    },
    /// The result was printed on the standard output already.
    Shown(Status),
}

impl Failure {
    pub(super) fn new(status: Status, text: impl Into<String>) -> Self {
        Failure::Reported { status, text: text.into() }
    }

    /// A failure to write the output.
    pub(super) fn output(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Failure::Quiet
        } else {
            Failure::new(Status::Other, format!("cannot write the output: {e}"))
        }
    }

    pub(super) fn io(what: impl fmt::Display, e: &io::Error) -> Self {
        Failure::new(Status::Other, format!("cannot {what}: {e}"))
    }
}

/// The exit status for an error of the library.
pub(super) fn status_of(error: &Error) -> Status {
    match error {
        Error::Corrupt { .. } | Error::Diverged { .. } => Status::Damage,
        Error::NotAStore { .. } | Error::OtherMachine { .. } => Status::NotAStore,
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => Status::NotAStore,
        Error::Locked { .. } => Status::Locked,
        Error::UnsupportedVersion { .. } | Error::Unreadable { .. } => Status::Version,
        Error::Latched { source } | Error::Delayed { source } => status_of(source),
        _ => Status::Other,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = match &error {
            Error::OtherMachine { path, found, version, .. } => format!(
                "{} is a store of the machine \"{found}\" version {version}, and this command needs one of \"{}\"; stat, \
                 inspect, verify and backup work on it, and for the rest use the program that has its machine",
                path.display(),
                Kv::NAME
            ),
            error => error.to_string(),
        };
        Failure::new(status_of(&error), text)
    }
}

impl<R: fmt::Display> From<ExecuteError<R>> for Failure {
    fn from(error: ExecuteError<R>) -> Self {
        match error {
            ExecuteError::Rejected(rejection) => Failure::new(Status::Usage, rejection.to_string()),
            ExecuteError::Failed(error) => error.into(),
        }
    }
}
