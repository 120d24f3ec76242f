//! The result of a command: its reply, a rejection by the machine, or a failure of the engine.

use crate::error::Error;
use crate::machine::StateMachine;
use std::fmt;

/// Why a command was not executed. Only programs that act on the machine's own rejection need to
/// know this type: `?` converts it into [`Error`], into boxed errors, and into an error of your own
/// that has a `From` for it. The conversion into [`Error`] needs a rejection with
/// [`Display`](fmt::Display), others one with [`Debug`](fmt::Debug) too.
///
/// ```
/// use seawal::{Engine, Error, ExecuteError, kv::{Kv, KvRejection}};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Engine::<Kv>::open(dir.path())?;
/// let rejected = store.insert("key".repeat(30_000), "value");
/// assert!(matches!(rejected, Err(ExecuteError::Rejected(KvRejection::KeyTooLong { .. }))));
///
/// fn put(store: &Engine<Kv>) -> Result<(), Error> {
///     store.insert("key".repeat(30_000), "value")?;
///     Ok(())
/// }
/// assert!(matches!(put(&store), Err(Error::Rejected { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

    /// Whether nothing happened, and the same command or transaction may succeed if it is tried
    /// again; see [`Error::is_retryable`]. A rejection is an answer, so it is not retryable.
    ///
    /// ```
    /// use seawal::{Error, ExecuteError};
    ///
    /// assert!(ExecuteError::<&str>::Failed(Error::LockTimeout).is_retryable());
    /// assert!(!ExecuteError::Rejected("only 3 are left").is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        matches!(self, ExecuteError::Failed(error) if error.is_retryable())
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
