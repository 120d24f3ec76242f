//! The state that an open log shares with its tickets and threads, and the publication of its
//! epoch.

use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::ids::Lsn;
use crate::io::Storage;
use crate::io::background_errors::BackgroundErrors;
use crate::io::deferred_unlinks::DeferredUnlinks;
use crate::io::sync::{Arc, AtomicBool, Mutex};
use crate::options::LogOptions;
use crate::store::manifest_file::ManifestFile;
use crate::store::ownership::Ownership;
use crate::wal::Level;
use crate::wal::group_commit::GroupCommit;
use crate::wal::room::Shortage;
use crate::wal::segment_pool::SegmentPool;
use crate::wal::segment_writer::Identity;

/// The state that an open log shares with its tickets and threads.
pub(crate) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) commit: GroupCommit,
    pub(super) segment_pool: SegmentPool,
    pub(super) root: Arc<Mutex<ManifestFile>>,
    pub(super) identity: Identity,
    pub(super) options: LogOptions,
    pub(super) ownership: Arc<Ownership>,
    pub(super) stop: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) deferred_unlinks: DeferredUnlinks,
    /// The outcome of the first close. The lock is held while that close is under way.
    pub(super) outcome: Mutex<Option<Result<()>>>,
    /// The last errors of the flusher and the preallocator.
    pub(super) background_errors: BackgroundErrors<2>,
    /// Where this open began to write.
    pub(super) start: Lsn,
    /// The end of the recovered log.
    pub(super) recovered: Lsn,
    /// The same, as the header of this open's first segment tells it: without a segment that held
    /// no frame and is replaced by that one.
    pub(super) previous_end: Lsn,
}

impl Shared {
    /// Enters the first segment of this open, and preallocates another as the reserve. A full disk
    /// is not an error here.
    pub(super) fn enter_first(&self, base: Lsn) -> Result<()> {
        let full_is_fine = |result: Result<bool>| match result {
            Err(error) if error.is_full() => Ok(()),
            other => other.map(|_| ()),
        };
        if self.commit.queue.lock().has_room(0) == Err(Shortage::Manifest) {
            return Ok(());
        }
        full_is_fine(self.segment_pool.prepare(&self.commit, 0, |queue| queue.room.segments().is_empty()))?;
        if !self.commit.queue.lock().room.segments().is_empty() {
            self.commit.enter_first(base)?;
        }
        full_is_fine(self.segment_pool.prepare(&self.commit, 0, |queue| queue.room.segments().is_empty()))
    }

    /// Waits until everything appended so far survives power loss.
    pub(super) fn sync_all(&self) -> Result<()> {
        // a log that was stopped for another reason than a failed write refuses this too, even if
        // everything is durable
        self.commit.check_latch()?;
        let (records, end) = {
            let queue = self.commit.queue.lock();
            (queue.frames.records(), queue.frames.appended_end())
        };
        // if nothing was appended, there is nothing to sync; on a full disk this open may not even
        // have a segment yet
        if records == 0 {
            return Ok(());
        }
        self.commit.wait(end, Level::Durable)
    }

    /// Seals the forming frame. Returns the frame boundary behind everything appended so far.
    pub(super) fn seal(&self) -> Result<Lsn> {
        let mut queue = self.commit.queue.lock();
        queue.frames.seal()?;
        Ok(queue.frames.next_frame_start())
    }

    /// Makes this open's epoch durable before any frame carries it, and raises the manifest's
    /// watermark to the end of the recovered log.
    ///
    /// On a full disk this may fail, if a copy of the manifest must be created again. No record is
    /// written until it succeeds.
    pub(super) fn publish_epoch(&self) -> Result<()> {
        let Identity { epoch, block_bytes, machine, .. } = &self.identity;
        let mut root = self.root.lock();
        self.commit.check_latch()?;
        // the epoch may be published already, and a close may have added its mark since, which must
        // stay
        if root.current().epoch == *epoch && root.current().watermark >= self.recovered {
            return Ok(());
        }
        root.publish(|m| {
            m.epoch = *epoch;
            m.clean_end = Lsn::ZERO;
            m.block_bytes = *block_bytes;
            m.machine = machine.clone();
            m.watermark = m.watermark.max(self.recovered);
        })
    }

    /// Publishes the epoch if the disk had no space for it when the log was opened. Returns whether
    /// it did; on a disk that is still full it does nothing.
    pub(super) fn publish_pending_epoch(&self) -> Result<bool> {
        if self.commit.queue.lock().has_room(0) != Err(Shortage::Manifest) {
            return Ok(false);
        }
        match self.publish_epoch() {
            Err(error) if error.is_full() => return Ok(false),
            other => other?,
        }
        self.commit.queue.lock().set_epoch_pending(false);
        Ok(true)
    }

    /// Checks that the log still writes and that its directory is still its own. A lost directory
    /// latches the log. The caller must hold no lock of the log.
    pub(super) fn check_ownership(&self) -> Result<()> {
        self.commit.check_latch()?;
        self.ownership.check().map_err(|error| self.commit.latch(error))
    }

    /// Checks that the manifest's names are still those of its open files. A lost one latches the
    /// log. The caller must hold no lock of the log.
    fn check_manifest(&self) -> Result<()> {
        let checked = self.root.lock().check_names();
        checked.map_err(|error| self.commit.latch(error))
    }

    /// Changes the manifest of a log that still writes; see [`ManifestFile::publish`].
    pub(super) fn publish(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.check_ownership()?;
        let published = {
            let mut root = self.root.lock();
            self.commit.check_latch()?;
            root.publish(change)
        };
        published.or_else(|error| self.check_manifest().and(Err(error)))
    }
}
