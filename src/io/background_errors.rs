//! The errors of background work, each kept until that work succeeds.

use crate::error::{Error, Result};
use crate::io::sync::Mutex;
use crate::io::threads::contained;

/// The last failure of each kind of work, so that no failure goes unnoticed.
pub(crate) struct BackgroundErrors<const KINDS: usize>(Mutex<[Option<Error>; KINDS]>);

impl<const KINDS: usize> BackgroundErrors<KINDS> {
    pub(crate) fn new() -> Self {
        BackgroundErrors(Mutex::new([const { None }; KINDS]))
    }

    /// Runs one piece of a kind of work. A panic in it becomes [`Error::Internal`], which says what
    /// the thread did. A run that returns `true` clears the failure of its kind. `report` is called
    /// with a new failure; the caller holds no lock.
    pub(crate) fn run(
        &self,
        kind: usize,
        what: &'static str,
        work: impl FnOnce() -> Result<bool>,
        report: impl FnOnce(&Error),
    ) -> Result<bool> {
        let result = contained(work).unwrap_or(Err(Error::Internal { what }));
        match &result {
            Ok(false) => {}
            Ok(true) => _ = self.replace(kind, None),
            Err(error) => {
                let before = self.replace(kind, Some(error.clone()));
                if before.is_none_or(|before| before.to_string() != error.to_string()) {
                    // `report` may run an event subscriber, which is foreign code and may panic
                    let _ = contained(|| report(error));
                }
            }
        }
        result
    }

    fn replace(&self, kind: usize, error: Option<Error>) -> Option<Error> {
        self.0.lock().get_mut(kind).and_then(|slot| std::mem::replace(slot, error))
    }

    /// Clears the failure of a kind of work that has nothing left to do.
    pub(crate) fn clear(&self, kind: usize) {
        self.replace(kind, None);
    }

    /// The first failure that was not cleared.
    pub(crate) fn first(&self) -> Option<Error> {
        self.0.lock().iter().flatten().next().cloned()
    }
}
