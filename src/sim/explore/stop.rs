//! Why a run stops early: a promise was broken, an operation failed, or the code panicked.

use crate::error::Error;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a run stopped early.
pub(super) enum Stop {
    /// A promise was broken.
    Wrong(String),
    /// The engine returned an error that ends the run.
    Failed(Error),
}

impl Stop {
    /// A sentence for the report of a run in which no operation was made to fail.
    pub(super) fn into_text(self) -> String {
        match self {
            Stop::Wrong(what) => what,
            Stop::Failed(error) => format!("an error, though nothing failed: {error}"),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

pub(super) type Stopped<T = ()> = Result<T, Stop>;

pub(super) fn wrong<T>(what: impl Into<String>) -> Stopped<T> {
    Err(Stop::Wrong(what.into()))
}

/// Runs a closure. A panic of the engine or of the machine counts as a broken promise.
pub(super) fn contained<T>(run: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(Stop::Wrong(panic_text(panic.as_ref()))))
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("not in words"))
}
