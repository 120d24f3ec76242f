//! The segment pool: segments that are preallocated, and segments that are recycled.
//!
//! A preallocated segment was filled with zeros and synced before it got its name, so that a frame
//! written into it later changes no metadata. It has no base LSN until the log enters it. A few
//! stay open until then. Preallocation is slow and holds no lock that a commit or recycling needs.
//! Ahead of need it proceeds in pieces with pauses between them, so that commits find the device
//! free. The zeros are written around the page cache where the device takes direct writes.

use crate::error::{Error, Result, out_of_space};
use crate::format::bytes::round_up;
use crate::ids::Lsn;
use crate::io::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, thread};
use crate::io::{AlignedBuf, OpenMode, Storage, WritePath, create_anew, write_all_at};
use crate::store::layout as names;
use crate::store::open_dir::PreallocatedSegment;
use crate::wal::group_commit::GroupCommit;
use crate::wal::queue::Queue;
use crate::wal::segment_writer::SegmentInfo;
use std::time::Duration;

/// Bytes written at once while a commit waits for the segment, and ahead of need. The smaller piece
/// bounds how long a commit waits behind it: 64 KiB gave two thirds of the p99 of 256 KiB with one
/// committer on a new store, and smaller ones cost more requests than they saved.
const PIECE_BYTES: u64 = 1 << 20;
const PIECE_BYTES_AHEAD: u64 = 64 << 10;
/// How many segments hold the log between two truncations. Recycling gives up whole segments, so
/// fewer would keep more log than is needed, and more would rotate more often.
const SEGMENTS_PER_TRUNCATION: u64 = 4;
/// The smallest segment that is tried where there is no space for a larger one. It holds the
/// reserve.
const LEAST_BYTES: u64 = 128 << 10;
/// The number of preallocated segments that stay open. Open transactions may have reserved
/// thousands of segments, and the descriptors belong to the whole process.
pub(super) const MOST_OPEN: usize = 8;
/// Ahead of need, the pause after a piece is this many times as long as its write, up to a maximum.
/// So preallocation takes at most a fifth of the device's time.
const PAUSE_FACTOR: u32 = 4;
const MAX_PAUSE: Duration = Duration::from_millis(5);

/// Sizes and numbers of preallocated segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolBounds {
    pub(super) block_bytes: u32,
    pub(super) first_segment_bytes: u64,
    pub(super) segment_bytes: u64,
    /// Number kept ready: one for the next rotation, the others as the reserve.
    pub(super) ready: usize,
    /// Number that recycling keeps at most; further segments are removed. `None` keeps what holds
    /// the log between two truncations.
    pub(super) most: Option<usize>,
}

pub(super) struct SegmentPool {
    storage: Arc<dyn Storage>,
    bounds: PoolBounds,
    /// Up to this size, in bytes, each segment is twice as large as the one before it.
    doubling_limit: AtomicU64,
    /// How much of the log recycling keeps unless a number is set, in bytes.
    recycled_bytes: AtomicU64,
    /// The highest number that a preallocated segment was given.
    newest: AtomicU64,
    /// Held while a segment is preallocated, so that one is made at a time. Recycling never waits
    /// for it. Contains the number of an attempt that failed, for the next attempt.
    making: Mutex<Option<u64>>,
    /// Held while segments are recycled. Contains recycled segments whose new names no sync of the
    /// directory has covered yet: they enter the pool after the next one that succeeds.
    recycling: Mutex<Vec<PreallocatedSegment>>,
    /// Whether the last attempt to preallocate a segment failed for lack of space.
    no_space: AtomicBool,
    /// Whether the free space belongs to a checkpoint, which will free more. No segment is
    /// preallocated meanwhile.
    set_aside: AtomicBool,
    /// Number of threads that wait for a preallocated segment: while there are any, the
    /// preallocator does not pause.
    needing: AtomicUsize,
}

/// How a segment is preallocated.
enum FillMode<'a> {
    /// As fast as possible.
    Full,
    /// With pauses, unless the log fills its segment too fast for that. It gives up when `stopping`
    /// returns true.
    Ahead { commit: &'a GroupCommit, stopping: &'a dyn Fn() -> bool },
}

/// Counts a thread that waits for a preallocated segment.
struct Needing<'a>(&'a AtomicUsize);

impl Drop for Needing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SegmentPool {
    /// Takes over the preallocated segments found at open.
    pub(super) fn new(storage: Arc<dyn Storage>, bounds: PoolBounds, found: &[PreallocatedSegment]) -> SegmentPool {
        let newest = found.iter().map(|s| s.number).max().unwrap_or(0);
        SegmentPool {
            storage,
            bounds,
            doubling_limit: AtomicU64::new(bounds.segment_bytes),
            recycled_bytes: AtomicU64::new(0),
            newest: AtomicU64::new(newest),
            making: Mutex::new(None),
            recycling: Mutex::new(Vec::new()),
            no_space: AtomicBool::new(false),
            set_aside: AtomicBool::new(false),
            needing: AtomicUsize::new(0),
        }
    }

    /// Whether a file of this size can become a segment. A larger one than the log's segments
    /// cannot: as the current segment it could not be recycled, and with a limit of a few segments
    /// it would fill the log by itself.
    pub(super) fn is_usable(&self, file_bytes: u64) -> bool {
        let block = u64::from(self.bounds.block_bytes);
        let is_of_size = (block.saturating_mul(2)..=self.largest_bytes()).contains(&file_bytes);
        is_of_size && round_up(file_bytes, block) == file_bytes
    }

    fn largest_bytes(&self) -> u64 {
        round_up(self.bounds.segment_bytes, u64::from(self.bounds.block_bytes))
    }

    /// Chooses the size of segments for a log that is truncated each time it has grown by `bytes`.
    /// A log that is truncated often then takes little space.
    pub(super) fn expect_truncation_every(&self, bytes: u64, recycled_bytes: u64) {
        let PoolBounds { first_segment_bytes, segment_bytes, .. } = self.bounds;
        // a power of two, so that a small change leaves the size, and recycled segments have the
        // right one
        let each = bytes.checked_div(SEGMENTS_PER_TRUNCATION).and_then(u64::checked_ilog2);
        let limit = each.map_or(0, |bits| 1u64 << bits).clamp(first_segment_bytes, segment_bytes);
        self.doubling_limit.store(limit, Ordering::Relaxed);
        self.recycled_bytes.store(recycled_bytes, Ordering::Relaxed);
    }

    /// The number of segments that recycling keeps at most. Unless it is set, all segments of one
    /// truncation are kept: the log needs as many before the next one, and to fill new ones with
    /// zeros would write the log twice.
    fn most(&self) -> usize {
        self.bounds.most.unwrap_or_else(|| {
            let each = self.doubling_limit.load(Ordering::Relaxed).max(1);
            let segments = self.recycled_bytes.load(Ordering::Relaxed).div_ceil(each);
            let segments = usize::try_from(segments).unwrap_or(usize::MAX).max(SEGMENTS_PER_TRUNCATION as usize);
            segments.saturating_add(self.bounds.ready)
        })
    }

    /// The size of the next preallocated segment, in bytes. Segments start small and double up to
    /// a limit. One that is needed for a larger record holds what is missing, up to
    /// `segment_bytes`. The next one is as large, because large records rarely come alone.
    fn next_bytes(&self, current: u64, missing_bytes: u64) -> u64 {
        let block = u64::from(self.bounds.block_bytes);
        // a block for its header, and one for what does not fit at its end
        let needed = missing_bytes.saturating_add(block.saturating_mul(2));
        let doubled = current.saturating_mul(2).min(self.doubling_limit.load(Ordering::Relaxed));
        let grown = current.max(doubled).max(needed);
        round_up(grown.clamp(self.bounds.first_segment_bytes, self.bounds.segment_bytes), block)
    }

    /// Preallocates one segment for `missing_bytes`, or for a part of them that fills a segment, if
    /// `needed` still says so once no other thread is preallocating. When it returns `true`, the
    /// preallocated segment survives power loss.
    ///
    /// # Errors
    /// [`Error::Full`] if the file system has no space. The incomplete file is removed again.
    pub(super) fn prepare(
        &self,
        commit: &GroupCommit,
        missing_bytes: u64,
        needed: impl Fn(&mut Queue) -> bool,
    ) -> Result<bool> {
        self.needing.fetch_add(1, Ordering::Relaxed);
        let _needing = Needing(&self.needing);
        // the preallocator may be pausing
        commit.wake_preallocator();
        self.prepare_at(commit, missing_bytes, needed, &FillMode::Full)
    }

    /// Preallocates one ahead of need if too few are ready, and gives up when `stopping` returns
    /// true. See [`SegmentPool::prepare`].
    ///
    /// # Errors
    /// As [`SegmentPool::prepare`]; [`Error::Closed`] if it was given up.
    pub(super) fn prepare_ahead(&self, commit: &GroupCommit, stopping: &dyn Fn() -> bool) -> Result<bool> {
        self.prepare_at(commit, 0, |queue| self.are_short(queue), &FillMode::Ahead { commit, stopping })
    }

    fn prepare_at(
        &self,
        commit: &GroupCommit,
        missing_bytes: u64,
        needed: impl Fn(&mut Queue) -> bool,
        pace: &FillMode<'_>,
    ) -> Result<bool> {
        let mut making = self.making.lock();
        commit.check_latch()?;
        let (current, stays_open) = {
            let mut queue = commit.queue.lock();
            if !needed(&mut queue) {
                return Ok(false);
            }
            (queue.frames.segment_bytes(), queue.room.open_files() < MOST_OPEN)
        };
        // a failed attempt may have left its file, which the next one replaces
        let number = *making.get_or_insert_with(|| self.next_number());
        let made = self.make_what_fits(number, current, missing_bytes, pace);
        let lacks_space = made.as_ref().is_err_and(Error::is_full);
        if self.no_space.swap(lacks_space, Ordering::Relaxed) != lacks_space && lacks_space {
            // a checkpoint may be due for that
            commit.growth_alarm.wake();
        }
        let mut spare = made?;
        if stays_open {
            // if no descriptor is free now, rotation opens the file later
            spare.file = self.storage.open(&spare.name, OpenMode::ReadWrite).ok();
        }
        *making = None;
        commit.queue.lock().room.add(spare);
        Ok(true)
    }

    /// Removes a preallocated segment that nothing needs any more, such as one for the rollback of
    /// transactions that are over. Returns whether there was one.
    ///
    /// # Errors
    /// I/O errors; the segment stays in the pool then.
    pub(super) fn trim(&self, commit: &GroupCommit) -> Result<bool> {
        // not while one is being made: it may be for what was reserved just now
        let Some(_making) = self.making.try_lock() else { return Ok(false) };
        commit.check_latch()?;
        let surplus = {
            let mut queue = commit.queue.lock();
            self.surplus(&queue).map(|at| queue.room.take_out(at))
        };
        let Some(segment) = surplus else { return Ok(false) };
        self.remove(commit, vec![segment]).map(|()| true)
    }

    /// The place of a segment that is to be removed.
    pub(super) fn surplus(&self, queue: &Queue) -> Option<usize> {
        let ordinary_bytes = self.next_bytes(queue.frames.segment_bytes(), 0);
        queue.room.surplus(self.bounds.ready, self.most(), ordinary_bytes)
    }

    /// Whether the disk had no space for a segment, and no checkpoint has ended since.
    pub(super) fn lacks_space(&self) -> bool {
        self.no_space.load(Ordering::Relaxed)
    }

    /// Notes that space may have become free.
    pub(super) fn note_space_freed(&self, commit: &GroupCommit) {
        if self.no_space.swap(false, Ordering::Relaxed) {
            commit.wake_preallocator();
        }
    }

    /// Leaves what is free, and becomes so, to a checkpoint. When it returns, no segment is being
    /// preallocated.
    pub(super) fn set_space_aside(&self) {
        let _making = self.making.lock();
        self.set_aside.store(true, Ordering::Relaxed);
    }

    /// Ends [`SegmentPool::set_space_aside`].
    pub(super) fn end_setting_aside(&self) {
        self.set_aside.store(false, Ordering::Relaxed);
    }

    /// Removes segments that were taken out of the pool.
    ///
    /// # Errors
    /// I/O errors; what could not be removed is in the pool again.
    pub(super) fn remove(&self, commit: &GroupCommit, segments: Vec<PreallocatedSegment>) -> Result<()> {
        let mut result = Ok(());
        for segment in segments {
            if let Err(e) = self.storage.remove_gradually(&segment.name) {
                result = Err(Error::io("remove", self.storage.path(&segment.name), e));
                commit.queue.lock().room.add(segment);
            }
        }
        result
    }

    /// Waits until no segment is being preallocated or recycled. After the log was stopped, none
    /// will be.
    pub(super) fn settle(&self) {
        drop(self.making.lock());
        drop(self.recycling.lock());
    }

    /// Whether fewer segments are ready than should be, or the next rotation would find none: all
    /// of them hold what is reserved, and the reserve.
    pub(super) fn are_short(&self, queue: &Queue) -> bool {
        let room = &queue.room;
        let can_rotate = room.check(u64::from(self.bounds.block_bytes), false).is_ok();
        room.segments().len() < self.bounds.ready || !can_rotate
    }

    /// A number that no preallocated segment has had.
    fn next_number(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Makes the next segment. Where there is no space for it, or it would exceed a limit of file
    /// sizes, half its size is tried, and so on.
    fn make_what_fits(
        &self,
        number: u64,
        current: u64,
        missing_bytes: u64,
        pace: &FillMode<'_>,
    ) -> Result<PreallocatedSegment> {
        if self.set_aside.load(Ordering::Relaxed) {
            let source = Some(Arc::new(std::io::ErrorKind::StorageFull.into()));
            return Err(Error::Full { what: "the next segment while a checkpoint frees space", source });
        }
        let block = u64::from(self.bounds.block_bytes);
        let least =
            self.bounds.first_segment_bytes.min(LEAST_BYTES).max(missing_bytes.saturating_add(block.saturating_mul(2)));
        let mut file_bytes = self.next_bytes(current, missing_bytes);
        loop {
            match self.make(number, file_bytes, pace) {
                Err(error) if error.is_full() && file_bytes / 2 >= least => {
                    file_bytes = round_up(file_bytes / 2, block)
                }
                made => return made,
            }
        }
    }

    fn make(&self, number: u64, file_bytes: u64, pace: &FillMode<'_>) -> Result<PreallocatedSegment> {
        let name = names::preallocated(number);
        let temp = names::temp(&name);
        let made = self.write_through(&temp, &name, file_bytes, pace);
        match made {
            Ok(()) => Ok(PreallocatedSegment { name, number, file_bytes, file: None }),
            Err(error) => {
                // best effort: a left-over is removed at the next open
                let _ = self.storage.remove(&temp);
                Err(error)
            }
        }
    }

    fn write_through(&self, temp: &str, name: &str, file_bytes: u64, pace: &FillMode<'_>) -> Result<()> {
        let fail = |operation, e: std::io::Error| {
            if out_of_space(&e) {
                Error::Full { what: "the next segment", source: Some(Arc::new(e)) }
            } else {
                Error::io(operation, self.storage.path(temp), e)
            }
        };
        if file_bytes > self.storage.max_file_bytes() {
            return Err(fail("allocate", std::io::ErrorKind::FileTooLarge.into()));
        }
        let file = create_anew(&*self.storage, temp).map_err(|(operation, e)| fail(operation, e))?;
        file.allocate(file_bytes).map_err(|e| fail("allocate", e))?;
        let most = match pace {
            FillMode::Full => PIECE_BYTES,
            FillMode::Ahead { .. } => PIECE_BYTES_AHEAD.max(u64::from(self.bounds.block_bytes)),
        };
        let most = most.min(file_bytes);
        let zeros = AlignedBuf::zeroed(usize::try_from(most).unwrap_or(4096)).map_err(|e| fail("write", e))?;
        let mut at = 0u64;
        while at < file_bytes {
            let len = most.min(file_bytes.saturating_sub(at));
            let piece = usize::try_from(len).ok().and_then(|len| zeros.get(..len)).unwrap_or_default();
            let began = self.storage.monotonic();
            let written = match file.write_path() {
                WritePath::Direct => file.write_durable_at(piece, at),
                // the sync below covers it
                WritePath::BufferedSync => write_all_at(&*file, piece, at),
            };
            written.map_err(|e| fail("write", e))?;
            at = at.saturating_add(len);
            if let FillMode::Ahead { commit, stopping } = pace {
                if stopping() {
                    return Err(Error::Closed);
                }
                let taken = self.storage.monotonic().saturating_sub(began);
                self.pause(commit, taken, (at, file_bytes));
            }
        }
        file.sync_all().map_err(|e| fail("sync", e))?;
        self.storage.rename(temp, name).map_err(|e| fail("rename", e))?;
        self.storage.sync_dir().map_err(|e| fail("sync", e))
    }

    /// Pauses after a piece, with `done` bytes of `all` written. It does not pause while a thread
    /// waits for the segment, or if the current segment would fill up before the next one is ready.
    fn pause(&self, commit: &GroupCommit, taken: Duration, (done, all): (u64, u64)) {
        let (used, capacity) = commit.queue.lock().frames.filled();
        let twice_used = u128::from(all).saturating_mul(used.into()).saturating_mul(2);
        let is_behind = u128::from(done).saturating_mul(capacity.into()) < twice_used;
        if self.needing.load(Ordering::Relaxed) == 0 && !is_behind {
            thread::park_timeout(taken.saturating_mul(PAUSE_FACTOR).min(MAX_PAUSE));
        }
    }

    /// Recycles every segment that lies wholly below `lsn` and that no reader has yet to read: some
    /// become preallocated segments, the others are removed. The caller has durably recorded that
    /// nothing else needs them. Returns their number.
    ///
    /// When it returns, the renames and removals survive power loss. If a crash takes them back,
    /// the names show that the files are garbage.
    pub(super) fn recycle_below(&self, commit: &GroupCommit, lsn: Lsn) -> Result<usize> {
        let mut unsynced = self.recycling.lock();
        commit.check_latch()?;
        let gone: Vec<SegmentInfo> = {
            let mut segments = commit.segments.lock();
            let lsn = commit.readers.lowest().map_or(lsn, |lowest| lowest.min(lsn));
            let count = segments.iter().zip(segments.iter().skip(1)).take_while(|(_, next)| next.base <= lsn).count();
            segments.drain(..count).collect()
        };
        let mut done = 0usize;
        let mut result = Ok(());
        for segment in &gone {
            match self.give_up(commit, segment, unsynced.len()) {
                Ok(spare) => unsynced.extend(spare),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            done = done.saturating_add(1);
        }
        // segments that could not be recycled still take space, and the next call tries them again
        let (given_up, left) = gone.split_at(done.min(gone.len()));
        commit.segments.lock().splice(..0, left.iter().cloned());
        let gone_bytes = given_up.iter().map(|s| s.file_bytes).fold(0, u64::saturating_add);
        commit.segment_bytes.fetch_sub(gone_bytes, Ordering::Relaxed);
        if done > 0 || !unsynced.is_empty() {
            // Where this fails, the next call syncs again. A sync that succeeds after a failed one
            // proves nothing about the earlier renames, and nothing rests on them: an old name that
            // comes back is garbage by its base LSN, and entering a segment syncs the directory for
            // its own rename.
            self.storage.sync_dir().map_err(|e| Error::io("sync", self.storage.path(""), e))?;
        }
        let mut queue = commit.queue.lock();
        unsynced.drain(..).for_each(|spare| queue.room.add(spare));
        result.map(|()| done)
    }

    /// Makes a preallocated segment of a segment's file, or removes the file.
    fn give_up(
        &self,
        commit: &GroupCommit,
        segment: &SegmentInfo,
        recycled: usize,
    ) -> Result<Option<PreallocatedSegment>> {
        let is_there = |operation, done: std::io::Result<()>| match done {
            // another process has removed the file: there is nothing left to recycle
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).map_err(|e| Error::io(operation, self.storage.path(&segment.name), e)),
        };
        let (kept, current) = {
            let queue = commit.queue.lock();
            (queue.room.segments().len().saturating_add(recycled), queue.frames.segment_bytes())
        };
        let right_size = segment.file_bytes >= current.min(self.bounds.segment_bytes);
        if right_size && kept < self.most() && self.is_usable(segment.file_bytes) {
            let number = self.next_number();
            let name = names::preallocated(number);
            // if no descriptor is free now, rotation opens the file later
            let file = self.storage.open(&segment.name, OpenMode::ReadWrite).ok();
            if !is_there("rename", self.storage.rename(&segment.name, &name))? {
                return Ok(None);
            }
            return Ok(Some(PreallocatedSegment { name, number, file_bytes: segment.file_bytes, file }));
        }
        is_there("remove", self.storage.remove(&segment.name)).map(|_| None)
    }
}
