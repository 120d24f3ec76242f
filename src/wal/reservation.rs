//! Reservations of room in the log. Room is reserved before a command is applied, so that appending
//! its record cannot fail for lack of room.
//!
//! There are two kinds of reservation. Room for one record is valid as long as no other record is
//! appended. So the caller keeps the lock that orders its appends until it has appended. Room for a
//! rollback is reserved in preallocated segments and stays valid until its guard is dropped,
//! whatever is appended meanwhile.
//!
//! If there is no room, [`Log::with_room`] makes some and tries again. It is the only such loop. It
//! preallocates a segment, waits until pending frames are written, or writes the manifest if
//! opening the log could not. On a full disk it waits until the space of unlinked files is
//! reclaimed before it returns [`Error::Full`].

use super::Level;
use super::log::Log;
use super::queue::Queue;
use super::room::Shortage;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::format::bytes::Head;
use crate::format::frame;
use crate::ids::Lsn;
use crate::io::sync::{Arc, Ordering};
use crate::store::open_dir::PreallocatedSegment;

/// The preallocator checks whether another segment is due each time that the reservations have
/// grown by this many bytes.
const AHEAD_BYTES: u64 = 64 << 10;

/// Where a record was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// Durable once the durable LSN reaches this.
    pub(crate) end: Lsn,
}

/// The room to reserve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// The length of a record's body, in bytes; `None` reserves a rollback alone.
    record_bytes: Option<usize>,
    /// Room in preallocated segments for the records of a rollback, in bytes.
    rollback_bytes: u64,
}

impl Need {
    /// Room for a record whose body has `record_bytes` bytes.
    pub(crate) fn record(record_bytes: usize) -> Need {
        Need { record_bytes: Some(record_bytes), rollback_bytes: 0 }
    }

    /// Room for the records of a rollback.
    pub(crate) fn rollback(rollback_bytes: u64) -> Need {
        Need { record_bytes: None, rollback_bytes }
    }

    /// This room, and room for the records of a rollback.
    pub(crate) fn and_rollback(self, rollback_bytes: u64) -> Need {
        Need { rollback_bytes, ..self }
    }

    /// Claims the room. If there is not enough, claims nothing and returns what is short.
    fn claim(self, queue: &mut Queue) -> Result<(), Shortage> {
        // the rollback's room comes first, so that the record does not take the segment that holds
        // it
        if self.rollback_bytes > 0 {
            queue.room.reserve(self.rollback_bytes)?;
        }
        let Some(len) = self.record_bytes else { return Ok(()) };
        let claimed = queue.has_room(entry_bytes(len));
        if claimed.is_err() {
            self.give_back(queue);
        }
        claimed
    }

    fn give_back(self, queue: &mut Queue) {
        if self.rollback_bytes > 0 {
            queue.room.release(self.rollback_bytes);
        }
    }
}

/// Room for one record, and perhaps for the rollback of its transaction. Dropping it gives both
/// back.
///
/// It is valid while the caller holds the lock that orders its appends.
#[must_use = "dropping a reservation gives the room back"]
pub(crate) struct Reservation<'a> {
    log: &'a Log,
    record_bytes: usize,
    rollback: Option<RollbackRoom>,
}

impl Reservation<'_> {
    /// Appends the record. `wanted` is the level that the log brings it to without a further
    /// request. `head` may depend on its LSN. Returns the position of the record, and the room for
    /// the rollback if it was reserved.
    ///
    /// # Errors
    /// [`Error::Closed`], and [`Error::Full`] without memory. The room is released then.
    pub(crate) fn append(
        self,
        body: &[u8],
        wanted: Option<Level>,
        head: impl FnOnce(Lsn) -> Head,
    ) -> Result<(Position, Option<RollbackRoom>)> {
        debug_assert!(body.len() <= self.record_bytes, "a record is larger than the room reserved for it");
        let position = self.log.shared.append(body, wanted, head)?;
        Ok((position, self.rollback))
    }
}

/// Room for the records of a rollback, in preallocated segments. Dropping it gives the room back.
#[must_use = "dropping it gives the room back"]
pub(crate) struct RollbackRoom {
    shared: Arc<Shared>,
    bytes: u64,
}

impl RollbackRoom {
    /// Takes over room that was claimed.
    fn new(shared: &Arc<Shared>, bytes: u64) -> RollbackRoom {
        let before = shared.commit.rollback_bytes.fetch_add(bytes, Ordering::Relaxed);
        // The next segment is made ahead of need, also for reservations. It is looked for once in a
        // while.
        if before / AHEAD_BYTES != before.saturating_add(bytes) / AHEAD_BYTES {
            shared.commit.wake_preallocator();
        }
        RollbackRoom { shared: shared.clone(), bytes }
    }

    /// Gives back a part of the room, for records that have been appended.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes, "{bytes} bytes are given back of {} that are held", self.bytes);
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.bytes = self.bytes.saturating_sub(bytes);
            let has_surplus = {
                let mut queue = self.shared.commit.queue.lock();
                queue.room.release(bytes);
                self.shared.segment_pool.surplus(&queue).is_some()
            };
            self.shared.commit.rollback_bytes.fetch_sub(bytes, Ordering::Relaxed);
            if has_surplus {
                self.shared.commit.wake_preallocator();
            }
        }
    }

    /// Adds the room that another guard holds.
    pub(crate) fn join(&mut self, mut other: RollbackRoom) {
        debug_assert!(Arc::ptr_eq(&self.shared, &other.shared), "room of two logs cannot be joined");
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
    }

    /// Appends a record without a body, which this room covers: a compensation record, or the end
    /// of the transaction.
    ///
    /// # Errors
    /// [`Error::Closed`], and [`Error::Full`] without memory.
    pub(crate) fn append(&self, wanted: Option<Level>, head: impl FnOnce(Lsn) -> Head) -> Result<Position> {
        self.shared.append(&[], wanted, head)
    }
}

impl Drop for RollbackRoom {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// What is free on a full disk, set aside for a checkpoint: until this is dropped, no segment is
/// preallocated, and commits that need one are refused.
#[must_use = "dropping it ends the setting aside"]
pub(crate) struct SpaceAside(Arc<Shared>);

impl Drop for SpaceAside {
    fn drop(&mut self) {
        self.0.segment_pool.end_setting_aside();
    }
}

impl Shared {
    fn append(&self, body: &[u8], wanted: Option<Level>, head: impl FnOnce(Lsn) -> Head) -> Result<Position> {
        let (lsn, end) = self.commit.append(body, wanted, head)?;
        self.commit.growth_alarm.note_end(end);
        Ok(Position { lsn, end })
    }

    /// Ends a shortage, or returns why it cannot. It blocks, so the caller must hold no lock.
    fn relieve(&self, shortage: Shortage, need: Need) -> Result<()> {
        self.commit.check_latch()?;
        let is_short = |queue: &mut Queue| {
            let claimed = need.claim(queue).is_ok();
            if claimed {
                need.give_back(queue);
            }
            !claimed
        };
        match shortage {
            Shortage::PreallocatedSegment { missing_bytes } => {
                self.segment_pool.prepare(&self.commit, missing_bytes, is_short).map(|_| ())
            }
            Shortage::Pending => {
                let end = {
                    let mut queue = self.commit.queue.lock();
                    queue.frames.seal()?;
                    queue.frames.next_frame_start()
                };
                self.commit.wait(end, Level::Written)
            }
            Shortage::Manifest => {
                if is_short(&mut self.commit.queue.lock()) {
                    self.publish_epoch()?;
                    self.commit.queue.lock().set_epoch_pending(false);
                }
                Ok(())
            }
        }
    }
}

impl Log {
    /// Appends a record once there is room for it, and requests this level for it. Returns its LSN
    /// and the LSN past it.
    pub(super) fn append_alone(&self, record: &[u8], wanted: Level) -> Result<(Lsn, Lsn)> {
        self.with_room(Need::record(record.len()), || {
            self.check_record(record.len())?;
            self.check_log_bytes(entry_bytes(record.len()))?;
            self.shared.commit.append_if_room(record, entry_bytes(record.len()), wanted)
        })
    }

    /// Appends records to one frame once there is room for it. Returns the LSN of each, and the LSN
    /// past the last.
    pub(super) fn append_group_alone(&self, records: &[&[u8]], wanted: Level) -> Result<(Vec<Lsn>, Lsn)> {
        let sizes = || records.iter().map(|record| record.len());
        let entries = sizes().map(|len| frame::record_bytes(len as u64)).fold(0, u64::saturating_add);
        let size = sizes().map(|len| len as u64).fold(0, u64::saturating_add);
        self.with_room(Need::record(usize::try_from(entries).unwrap_or(usize::MAX)), || {
            self.check_entries("a group of records", size, entries)?;
            self.check_log_bytes(entries)?;
            self.shared.commit.append_group_if_room(records, entries, wanted)
        })
    }

    /// Fails if the log would exceed its maximum size.
    fn check_log_bytes(&self, entry_bytes: u64) -> Result<()> {
        let most = self.shared.options.max_log_bytes;
        let Some(index) = self.shared.commit.frame_index.as_ref().filter(|_| most < u64::MAX) else { return Ok(()) };
        let end = self.shared.commit.queue.lock().frames.appended_end();
        if end.plus(entry_bytes).since(index.start()) > most {
            return Err(Error::Full { what: "another record within max_log_bytes", source: None });
        }
        Ok(())
    }

    /// Fails if a record of `len` bytes can never be placed, or if the log accepts no more records.
    pub(crate) fn check_record(&self, len: usize) -> Result<()> {
        self.check_entries("a record", len as u64, entry_bytes(len))
    }

    /// As [`Log::check_record`], for records of `size` bytes that take `entry_bytes` in one frame.
    fn check_entries(&self, what: &'static str, size: u64, entry_bytes: u64) -> Result<()> {
        self.shared.commit.check_latch()?;
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let block = u64::from(self.shared.identity.block_bytes);
        let frame = frame::frame_bytes(entry_bytes, self.shared.identity.block_bytes);
        let limit = self.shared.options.segment_bytes.saturating_sub(block).min(u64::from(u32::MAX / 2));
        if frame > limit {
            // the limit for the record itself, without the bytes that its frame adds
            let around = entry_bytes.saturating_sub(size).saturating_add(frame::HEADER_BYTES as u64);
            let limit = limit.saturating_sub(limit.checked_rem(block).unwrap_or(0)).saturating_sub(around);
            return Err(Error::TooLarge { what, size, limit });
        }
        Ok(())
    }

    /// Runs `attempt` until it finds room. Between two attempts it makes room and waits for it.
    /// `attempt` returns what was short, after it has released its locks.
    ///
    /// # Errors
    /// [`Error::Full`] if the disk has no space even after the space of unlinked files was
    /// reclaimed; [`Error::Latched`]; those of `attempt`.
    fn with_room<T>(&self, need: Need, mut attempt: impl FnMut() -> Result<Result<T, Shortage>>) -> Result<T> {
        loop {
            match attempt()? {
                Ok(done) => return Ok(done),
                Err(shortage) => self.deferred_unlinks().retry_after_reclaim(self.shared.relieve(shortage, need))?,
            }
        }
    }

    /// Takes the lock that orders the caller's appends, and reserves room under it. It blocks
    /// without the lock until there is room. `lock` may be called several times: its guard is
    /// dropped before each wait.
    ///
    /// # Errors
    /// As [`Log::with_room`].
    #[inline]
    pub(crate) fn reserve_under<G>(
        &self,
        need: Need,
        mut lock: impl FnMut() -> Result<G>,
    ) -> Result<(G, Reservation<'_>)> {
        self.with_room(need, || {
            let guard = lock()?;
            Ok(self.claim(need)?.map(|reservation| (guard, reservation)))
        })
    }

    /// Reserves room for a rollback alone. It blocks until there is room, so the caller must hold
    /// no lock.
    ///
    /// # Errors
    /// As [`Log::with_room`].
    pub(crate) fn reserve_rollback(&self, bytes: u64) -> Result<RollbackRoom> {
        let need = Need::rollback(bytes);
        self.with_room(need, || Ok(need.claim(&mut self.shared.commit.queue.lock())))?;
        Ok(RollbackRoom::new(&self.shared, bytes))
    }

    /// Whether the disk had no space for a segment, and no checkpoint has ended since.
    pub(crate) fn lacks_space(&self) -> bool {
        self.shared.segment_pool.lacks_space()
    }

    /// Notes that space may have become free.
    pub(crate) fn note_space_freed(&self) {
        self.shared.segment_pool.note_space_freed(&self.shared.commit);
    }

    /// Makes sure that another record finds room.
    ///
    /// # Errors
    /// As [`Log::with_room`].
    pub(crate) fn claim_freed_space(&self) -> Result<()> {
        self.reserve_under(Need::record(0), || Ok(())).map(drop)
    }

    /// Sets free space aside for a checkpoint, until the result is dropped.
    pub(crate) fn set_space_aside(&self) -> SpaceAside {
        self.shared.segment_pool.set_space_aside();
        SpaceAside(self.shared.clone())
    }

    /// Takes all preallocated segments out of the pool that no rollback has reserved. The caller
    /// holds the lock that orders its appends, for a record that has found room must keep it. It
    /// then calls [`Log::remove_preallocated`] without that lock.
    pub(crate) fn take_unreserved(&self) -> Vec<PreallocatedSegment> {
        self.shared.commit.queue.lock().room.take_unreserved()
    }

    /// Removes segments that were taken out of the pool. Returns whether there were any.
    ///
    /// # Errors
    /// I/O errors; what could not be removed is in the pool again.
    pub(crate) fn remove_preallocated(&self, segments: Vec<PreallocatedSegment>) -> Result<bool> {
        let some = !segments.is_empty();
        self.shared.segment_pool.remove(&self.shared.commit, segments).map(|()| some)
    }

    /// Reserves room if there is some already. The caller holds the lock that orders its appends.
    ///
    /// # Errors
    /// [`Error::Latched`].
    pub(crate) fn try_reserve(&self, need: Need) -> Result<Option<Reservation<'_>>> {
        Ok(self.claim(need)?.ok())
    }

    #[inline]
    fn claim(&self, need: Need) -> Result<Result<Reservation<'_>, Shortage>> {
        self.check_latch()?;
        let claimed = need.claim(&mut self.shared.commit.queue.lock());
        Ok(claimed.map(|()| self.reservation(need)))
    }

    fn reservation(&self, need: Need) -> Reservation<'_> {
        let bytes = need.rollback_bytes;
        let rollback = (bytes > 0).then(|| RollbackRoom::new(&self.shared, bytes));
        Reservation { log: self, record_bytes: need.record_bytes.unwrap_or(0), rollback }
    }

    /// Room for records without a body, one after the other, while no other caller appends. On a
    /// full disk, the records go into the reserve that is kept for recovery's undo.
    pub(crate) fn last_room(&self) -> LastRoom<'_> {
        LastRoom { log: self, full: false }
    }
}

/// An upper bound on the bytes that a record of `len` bytes takes in a frame.
fn entry_bytes(len: usize) -> u64 {
    frame::record_bytes((len as u64).saturating_add(Head::CAPACITY as u64))
}

/// See [`Log::last_room`].
pub(crate) struct LastRoom<'a> {
    log: &'a Log,
    /// Whether the disk was found full, so that not every record tries to preallocate again.
    full: bool,
}

impl<'a> LastRoom<'a> {
    /// Reserves room for one more record.
    ///
    /// # Errors
    /// [`Error::Full`] if the reserve is used up too; [`Error::Latched`].
    pub(crate) fn reserve(&mut self) -> Result<Reservation<'a>> {
        let need = Need::record(0);
        if self.full && self.is_left() {
            self.log.check_latch()?;
            return Ok(self.log.reservation(need));
        }
        match self.log.reserve_under(need, || Ok(())) {
            Ok(((), reservation)) => Ok(reservation),
            Err(error) if error.is_full() && self.is_left() => {
                self.full = true;
                Ok(self.log.reservation(need))
            }
            Err(error) => Err(error),
        }
    }

    fn is_left(&self) -> bool {
        self.log.shared.commit.queue.lock().has_last_room(entry_bytes(0))
    }
}
