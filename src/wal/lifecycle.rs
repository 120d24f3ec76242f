//! The life of an open log: its threads, and its end.

use super::Level;
use super::deferred_wakes::DeferredWakes;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::io::sync::{Arc, Mutex, Ordering, thread};
use crate::io::threads::{is_own, spawn};
use crate::options::Background;

/// Ends the log when it is dropped, which the last handle of the log does.
pub(super) struct Lifecycle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Lifecycle {
    /// Starts the log's threads, unless the caller runs its steps.
    pub(super) fn start(shared: Arc<Shared>) -> Result<Lifecycle> {
        let log = Lifecycle { shared, threads: Mutex::new(Vec::new()) };
        if log.shared.options.background == Background::Threads {
            let start = |name: &str, run: fn(&Shared)| {
                let shared = log.shared.clone();
                let started = spawn(name, move || run(&shared));
                let started = started.map_err(|e| Error::io("start a thread for", log.shared.storage.path(""), e))?;
                // if the next thread cannot be started, dropping the log ends this one
                log.threads.lock().push(started);
                Ok::<_, Error>(())
            };
            start("seawal-flush", Shared::run_flusher)?;
            start("seawal-prealloc", Shared::run_preallocator)?;
        }
        Ok(log)
    }

    /// Closes the log, for a caller that holds locks. The caller must call [`Lifecycle::end_threads`]
    /// after it has released them.
    pub(super) fn close_but_threads(&self) -> Result<()> {
        self.end_once(|| self.finish())
    }

    /// Ends the log by `finish`, unless it has ended already. All callers get the outcome of the
    /// first call. When it returns, no thread touches the store's files any more.
    fn end_once(&self, finish: impl FnOnce() -> Result<()>) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        // a waker may close the log again
        let _wakes = DeferredWakes::begin();
        let mut outcome = self.shared.outcome.lock();
        if let Some(outcome) = &*outcome {
            return outcome.clone();
        }
        let result = finish();
        self.end();
        *outcome = Some(result.clone());
        result
    }

    fn finish(&self) -> Result<()> {
        // no record is accepted after this, so the following sync covers every record
        self.shared.commit.queue.lock().close();
        self.shared.check_ownership()?;
        self.shared.commit.flush_wanted()?;
        self.shared.sync_all()?;
        self.shared.write_watermark()?;
        if self.shared.commit.has_entered() {
            let end = self.shared.seal()?;
            self.shared.commit.wait(end, Level::Durable)?;
            self.shared.publish(|m| {
                m.clean_end = end;
                m.watermark = m.watermark.max(end);
            })?;
        }
        Ok(())
    }

    /// Ends the log without a clean mark. Records whose durability was requested are still written,
    /// and tickets get any error.
    pub(super) fn abandon(&self) -> Result<()> {
        let result = self.abandon_but_threads();
        self.end_threads();
        result
    }

    /// As [`Lifecycle::abandon`], for a caller that holds locks. The caller must call
    /// [`Lifecycle::end_threads`] after it has released them.
    pub(super) fn abandon_but_threads(&self) -> Result<()> {
        self.end_once(|| {
            self.shared.commit.queue.lock().close();
            self.shared.commit.flush_wanted()
        })
    }

    /// Ends the log as a kill of the process would: nothing more is written.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn kill(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.commit.latch(Error::Closed);
        let _ = self.end_once(|| Err(Error::Closed));
        self.end_threads();
    }

    fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.commit.stop();
        if let Some(index) = &self.shared.commit.frame_index {
            index.close_files();
        }
        self.shared.segment_pool.settle();
        // wait for a manifest write that is under way, because the store may have another owner
        // afterwards; later ones see the latch
        drop(self.shared.root.lock());
        self.shared.ownership.release();
    }

    /// Waits until the threads of a closed log have ended, and reports the failure if the log has
    /// failed.
    ///
    /// The caller must hold no lock. One of these threads may be within a subscriber of its event,
    /// and the subscriber may wait for a lock that the caller holds.
    pub(super) fn end_threads(&self) {
        let threads = {
            let mut threads = self.threads.lock();
            threads.iter().for_each(|thread| thread.thread().unpark());
            // A subscriber or a waker may close the log on a thread of a store, which joins none.
            // The handles stay for another caller.
            if is_own() { Vec::new() } else { std::mem::take(&mut *threads) }
        };
        for thread in threads {
            // a thread that panicked has latched the log, so its waiters have got an error
            let _ = thread.join();
        }
        self.shared.commit.report_failure();
    }
}

impl Drop for Lifecycle {
    /// Does the least that is safe. Records whose durability was requested are still written, but
    /// the log is not marked as closed cleanly. Tickets get any error.
    fn drop(&mut self) {
        let _ = self.abandon();
    }
}
