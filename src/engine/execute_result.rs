//! The result of a command: its reply, a rejection by the machine, or a failure of the engine.

use crate::error::Error;
use crate::machine::StateMachine;
use std::fmt;

/// Why a command was not executed.
#[derive(Clone, Debug)]
pub enum ExecuteError<R> {
    /// The machine rejected it. Nothing changed.
    Rejected(R),
    /// The engine could not execute it.
    Failed(Error),
}

impl<R> ExecuteError<R> {
    /// Whether running the transaction again may succeed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, ExecuteError::Failed(error) if error.is_conflict())
    }
}

impl<R> From<Error> for ExecuteError<R> {
    fn from(error: Error) -> Self {
        ExecuteError::Failed(error)
    }
}

/// A rejection keeps only its text.
///
/// ```
/// use seawal::{Error, ExecuteError};
///
/// let rejected = ExecuteError::Rejected("only 3 are left");
/// assert_eq!(Error::from(rejected).to_string(), "rejected: only 3 are left");
/// let failed: ExecuteError<&str> = Error::Closed.into();
/// assert!(matches!(Error::from(failed), Error::Closed));
/// ```
impl<R: fmt::Display> From<ExecuteError<R>> for Error {
    fn from(error: ExecuteError<R>) -> Self {
        match error {
            ExecuteError::Rejected(rejection) => Error::Rejected { reason: rejection.to_string().into() },
            ExecuteError::Failed(error) => error,
        }
    }
}

impl<R: fmt::Display> fmt::Display for ExecuteError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecuteError::Rejected(rejection) => write!(f, "rejected: {rejection}"),
            ExecuteError::Failed(error) => error.fmt(f),
        }
    }
}

impl<R: fmt::Debug + fmt::Display> std::error::Error for ExecuteError<R> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ExecuteError::Rejected(_) => None,
            ExecuteError::Failed(error) => Some(error),
        }
    }
}

/// The result of a command on a machine.
pub type ExecuteResult<M, T> = Result<T, ExecuteError<<M as StateMachine>::Rejection>>;
