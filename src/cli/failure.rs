//! Why a command failed, as one sentence and an exit status.

use crate::engine::ExecuteError;
use crate::error::Error;
use std::fmt;
use std::io;

/// What the program exits with. The numbers are part of its interface, and are listed in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// `verify`: a torn tail, or damage that something whole stands in for. `get`: the key is not there. `salvage`: a store was
    /// written, and something is missing.
    Partly = 1,
    /// Durable data is damaged.
    Damage = 2,
    /// Anything else, I/O errors first of all.
    Other = 3,
    /// There is no store in the directory, or another machine's.
    NotAStore = 4,
    /// The store is in use.
    Locked = 5,
    /// A version that this program does not read.
    Version = 6,
    /// A transaction script is malformed, or does not fit what the store has loaded.
    Script = 7,
    /// The arguments make no sense.
    Usage = 64,
}

/// Those numbers in words, for `--help`.
pub(super) const STATUSES: &str = "Exit status:
  0   done; verify: clean; salvage: nothing is missing
  1   verify: it opens and nothing is missing, but its tail is torn, or something whole stands in for what is damaged;
      get: the key is not there; salvage: the new store was written, and something is missing from it
  2   durable data is damaged; salvage: nothing is left to begin from, and nothing was written
  3   any other failure, such as an I/O error
  4   not a store, or one of another machine
  5   the store is in use
  6   a version that this program does not read
  7   a malformed script, or one that the store did not load before
  64  arguments that make no sense

KEY, VALUE and table names: \\t, \\n, \\\\ and \\xHH are escapes, in arguments, scripts and output.";

/// Why a command did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Whoever read the output has gone: nothing is left to be said.
    Quiet,
    /// To be told.
    Told {
        /// What to exit with.
        status: Status,
        /// One sentence.
        text: String,
    },
    /// It has been told on the standard output.
    Shown(Status),
}

impl Failure {
    pub(super) fn new(status: Status, text: impl Into<String>) -> Self {
        Failure::Told { status, text: text.into() }
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

/// What an error of the library exits with.
pub(super) fn status_of(error: &Error) -> Status {
    match error {
        Error::Corrupt { .. } | Error::Diverged { .. } => Status::Damage,
        Error::NotAStore { .. } => Status::NotAStore,
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => Status::NotAStore,
        Error::Locked { .. } => Status::Locked,
        Error::UnsupportedVersion { .. } => Status::Version,
        Error::Latched { source } => status_of(source),
        _ => Status::Other,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::new(status_of(&error), error.to_string())
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
