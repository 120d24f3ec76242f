//! Files that have lost their names and not yet given back their space.
//!
//! Where a file system tells the device at once what is free, the end of a large file takes as long as reading it does. Nobody needs to
//! wait for that but who needs the space; and so the file is held open here until a thread has the time. It knows nothing of what the
//! files were.

use crate::error::Result;
use crate::io::File;
use crate::io::sync::{Arc, Mutex};

/// The files. Held locked while they end, so that whoever asks for their space waits for it.
#[derive(Default)]
pub(crate) struct DeferredUnlinks(Mutex<Vec<Arc<dyn File>>>);

impl DeferredUnlinks {
    /// Takes in a file that has lost its name.
    pub(crate) fn hold(&self, file: Arc<dyn File>) {
        self.0.lock().push(file);
    }

    /// Lets all of them go. Returns whether there was any, be it that somebody else was about it.
    pub(crate) fn give_back(&self) -> bool {
        let (mut files, waited) = match self.0.try_lock() {
            Some(files) => (files, false),
            None => (self.0.lock(), true),
        };
        let some = !files.is_empty();
        files.clear();
        some || waited
    }

    /// Passes over a lack of space if that may be at an end: something has given its space back. The caller tries again.
    pub(crate) fn retry_after_reclaim(&self, made: Result<()>) -> Result<()> {
        match made {
            Err(error) if error.is_full() && self.give_back() => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::io::{Clock, Directory, OpenMode};
    use crate::sim::SimDisk;

    #[test]
    fn a_lack_of_space_is_passed_over_once_for_what_gave_its_space_back_and_no_other_failure_is() {
        let disk = SimDisk::new(1);
        let deferred_unlinks = DeferredUnlinks::default();
        let hold = || deferred_unlinks.hold(disk.open(&disk.random().to_string(), OpenMode::CreateNew).unwrap());
        let full = || Err(Error::Full { what: "a test", source: None });
        assert!(deferred_unlinks.retry_after_reclaim(full()).unwrap_err().is_full());
        (0..2).for_each(|_| hold());
        assert!(deferred_unlinks.retry_after_reclaim(full()).is_ok());
        assert!(deferred_unlinks.retry_after_reclaim(full()).unwrap_err().is_full());
        hold();
        assert!(matches!(deferred_unlinks.retry_after_reclaim(Err(Error::Closed)), Err(Error::Closed)));
        assert!(deferred_unlinks.give_back() && !deferred_unlinks.give_back());
    }

    /// Under its old path the kernel shows what somebody still has open.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_snapshot_that_was_removed_is_let_go_by_the_keeper_and_by_a_close() {
        use crate::kv::{Kv, KvCommand};
        use std::collections::BTreeSet;
        use std::path::PathBuf;
        use std::time::{Duration, Instant};
        let dir = tempfile::tempdir().unwrap();
        let within = dir.path().canonicalize().unwrap();
        // a file may have been opened for two ways of reading it
        let removed_and_open = || {
            let links = std::fs::read_dir("/proc/self/fd").unwrap();
            let links = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
            let removed = |path: &PathBuf| path.to_string_lossy().ends_with(".snap (deleted)");
            links.filter(|path| path.starts_with(&within) && removed(path)).collect::<BTreeSet<_>>().len()
        };
        let options = crate::Options::new().checkpoint_bytes_per_second(None);
        let engine: crate::Engine<Kv> = options.open(dir.path()).unwrap();
        for n in 0..5u8 {
            engine.execute(KvCommand::put("", [n], [n])).unwrap();
            engine.checkpoint().unwrap();
            let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
            let snapshots = files.filter(|name| name.to_str().unwrap().ends_with(".snap")).count();
            assert_eq!(snapshots, usize::from(n + 1).min(2));
            assert!(removed_and_open() <= 1);
        }
        let began = Instant::now();
        while removed_and_open() > 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "the keeper lets it go");
            std::thread::sleep(Duration::from_millis(5));
        }
        engine.execute(KvCommand::put("", "one", "more")).unwrap();
        engine.checkpoint().unwrap();
        engine.close().unwrap();
        assert_eq!(removed_and_open(), 0, "the engine is still there");
    }
}
