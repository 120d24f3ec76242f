//! Deferred unlinks: files that are unlinked but still open, so that their space is not yet free.
//!
//! With online discard, freeing a large file can take as long as reading it. The last descriptor is
//! therefore closed in the background; a caller that runs out of space waits for it.

use crate::error::Result;
use crate::io::File;
use crate::io::sync::{Arc, Mutex};

/// The unlinked files. The lock is held while they are closed, so that a caller that needs their
/// space waits for it.
#[derive(Default)]
pub(crate) struct DeferredUnlinks(Mutex<Vec<Arc<dyn File>>>);

impl DeferredUnlinks {
    /// Keeps an unlinked file open until the next [`reclaim`](Self::reclaim).
    pub(crate) fn defer(&self, file: Arc<dyn File>) {
        self.0.lock().push(file);
    }

    /// Closes all files, which frees their space. Returns true if it, or a concurrent call that it
    /// waited for, may have freed any.
    pub(crate) fn reclaim(&self) -> bool {
        let (mut files, waited) = match self.0.try_lock() {
            Some(files) => (files, false),
            None => (self.0.lock(), true),
        };
        let some = !files.is_empty();
        files.clear();
        some || waited
    }

    /// Turns [`Error::Full`](crate::Error::Full) into `Ok` if closing files may have freed space;
    /// the caller then tries again.
    pub(crate) fn retry_after_reclaim(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if error.is_full() && self.reclaim() => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failure fails the test")]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::io::{Clock, Directory, OpenMode};
    use crate::sim::SimDisk;

    #[test]
    fn a_lack_of_space_is_passed_over_once_for_what_gave_its_space_back_and_no_other_failure_is() {
        let disk = SimDisk::new(1);
        let deferred_unlinks = DeferredUnlinks::default();
        let defer = || deferred_unlinks.defer(disk.open(&disk.random().to_string(), OpenMode::CreateNew).unwrap());
        let full = || Err(Error::Full { what: "a test", source: None });
        assert!(deferred_unlinks.retry_after_reclaim(full()).unwrap_err().is_full());
        (0..2).for_each(|_| defer());
        assert!(deferred_unlinks.retry_after_reclaim(full()).is_ok());
        assert!(deferred_unlinks.retry_after_reclaim(full()).unwrap_err().is_full());
        defer();
        assert!(matches!(deferred_unlinks.retry_after_reclaim(Err(Error::Closed)), Err(Error::Closed)));
        assert!(deferred_unlinks.reclaim() && !deferred_unlinks.reclaim());
    }
}
