//! The room for records beyond the current segment: the preallocated segments, the bytes that
//! transactions have reserved in them, and the reserve for the next open.
//!
//! An ordinary record never takes the last preallocated segments. They hold the bytes that open
//! transactions have reserved for their rollback, and the reserve that the next open needs.

use crate::store::open_dir::PreallocatedSegment;

/// Room that must be left in preallocated segments beyond what is reserved, in bytes, unless a
/// segment holds less: it lets a full disk be opened again.
const RESERVE_BYTES: u64 = 64 << 10;

/// Why a record cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// The preallocated segments lack so many bytes.
    PreallocatedSegment { missing_bytes: u64 },
    /// Too many bytes wait to be written.
    Pending,
    /// The manifest could not be written when the log was opened, and no record may be written
    /// before it.
    Manifest,
}

/// The preallocated segments, and the number of reserved bytes in them.
pub(super) struct Room {
    block_bytes: u32,
    /// Room that is left beyond what is reserved, in bytes.
    reserve_bytes: u64,
    segments: Vec<PreallocatedSegment>,
    /// Bytes reserved for the rollback of open transactions.
    reserved: u64,
}

impl Room {
    pub(super) fn new(block_bytes: u32, segment_bytes: u64, segments: Vec<PreallocatedSegment>) -> Room {
        let reserve_bytes = RESERVE_BYTES.min(usable_bytes(segment_bytes, block_bytes));
        Room { block_bytes, reserve_bytes, segments, reserved: 0 }
    }

    pub(super) fn segments(&self) -> &[PreallocatedSegment] {
        &self.segments
    }

    /// The capacity of a preallocated segment behind its header, in bytes.
    pub(super) fn capacity_of(&self, segment: &PreallocatedSegment) -> u64 {
        segment.file_bytes.saturating_sub(u64::from(self.block_bytes))
    }

    /// What can be reserved of a preallocated segment, in bytes.
    fn usable_bytes(&self, segment: &PreallocatedSegment) -> u64 {
        usable_bytes(segment.file_bytes, self.block_bytes)
    }

    fn capacity(&self) -> u64 {
        self.segments.iter().map(|s| self.usable_bytes(s)).fold(0, u64::saturating_add)
    }

    /// What must stay in the pool when an ordinary frame takes a segment, in bytes.
    fn floor(&self) -> u64 {
        self.reserved.saturating_add(self.reserve_bytes)
    }

    /// The size of all preallocated segment files, in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.file_bytes).fold(0, u64::saturating_add)
    }

    /// The number of preallocated segments that are open.
    pub(super) fn open_files(&self) -> usize {
        self.segments.iter().filter(|s| s.file.is_some()).count()
    }

    pub(super) fn add(&mut self, segment: PreallocatedSegment) {
        debug_assert!(self.segments.iter().all(|s| s.name != segment.name), "{} is added twice", segment.name);
        self.segments.push(segment);
    }

    /// Takes a preallocated segment that holds at least `bytes` behind its header.
    pub(super) fn take(&mut self, bytes: u64) -> Option<PreallocatedSegment> {
        // The smallest that serves, for the others may hold what was reserved; of these one that is
        // open, and of these the newest, which is the most likely to have been recycled.
        let serving = self.segments.iter().enumerate().rev().filter(|(_, s)| self.capacity_of(s) >= bytes);
        let (at, _) = serving.min_by_key(|(_, s)| (s.file_bytes, s.file.is_none()))?;
        Some(self.segments.remove(at))
    }

    /// Whether any preallocated segment, the reserve included, can hold a frame of `frame_bytes`.
    pub(super) fn holds(&self, frame_bytes: u64) -> bool {
        self.segments.iter().any(|s| self.capacity_of(s) >= frame_bytes)
    }

    /// Whether an ordinary frame may be placed, in the current segment if it fits there, or else in
    /// a preallocated one.
    pub(super) fn check(&self, frame_bytes: u64, fits_current: bool) -> Result<(), Shortage> {
        let (floor, capacity) = (self.floor(), self.capacity());
        let may_take = |s: &PreallocatedSegment| {
            self.capacity_of(s) >= frame_bytes && capacity.saturating_sub(self.usable_bytes(s)) >= floor
        };
        if capacity < floor {
            return Err(Shortage::PreallocatedSegment { missing_bytes: floor.saturating_sub(capacity) });
        }
        if fits_current || self.segments.iter().any(may_take) {
            return Ok(());
        }
        Err(Shortage::PreallocatedSegment { missing_bytes: frame_bytes })
    }

    /// Reserves room for the rollback of an open transaction, whose records must not fail for lack
    /// of room.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), Shortage> {
        let total = self.reserved.saturating_add(bytes);
        let missing_bytes = total.saturating_add(self.reserve_bytes).saturating_sub(self.capacity());
        if missing_bytes > 0 {
            return Err(Shortage::PreallocatedSegment { missing_bytes });
        }
        debug_assert!(total >= self.reserved, "a reservation lowers what is reserved");
        self.reserved = total;
        Ok(())
    }

    /// Releases reserved room.
    pub(super) fn release(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.reserved, "{bytes} bytes are released of {} that are reserved", self.reserved);
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// The place of a segment that is not needed, for [`Room::take_out`]. The others hold what is
    /// reserved, the reserve, and the next ordinary frame, for one as large is left; they are at
    /// least `ready`. A segment of more than `ordinary_bytes` was made for reservations that are
    /// over; of the others, `most` are kept.
    pub(super) fn surplus(&self, ready: usize, most: usize, ordinary_bytes: u64) -> Option<usize> {
        let count = self.segments.len();
        if count <= ready {
            return None;
        }
        let sizes = self.segments.iter().map(|s| s.file_bytes);
        let (first, second) =
            sizes.fold((0, 0), |(first, second): (u64, u64), n| (first.max(n), second.max(first.min(n))));
        let floor = self.floor().saturating_add(usable_bytes(first, self.block_bytes));
        let capacity = self.capacity();
        let is_surplus = |s: &PreallocatedSegment| {
            let left = capacity.saturating_sub(self.usable_bytes(s));
            s.file_bytes <= second && left >= floor && (count > most || s.file_bytes > ordinary_bytes)
        };
        let surplus = self.segments.iter().enumerate().filter(|(_, s)| is_surplus(s));
        surplus.max_by_key(|(_, s)| s.file_bytes).map(|(at, _)| at)
    }

    /// Takes out all segments that reservations do not need, the reserve too.
    pub(super) fn take_unreserved(&mut self) -> Vec<PreallocatedSegment> {
        let mut taken = Vec::new();
        let unreserved = |room: &Room| {
            let is_left = |s: &PreallocatedSegment| room.capacity().saturating_sub(room.usable_bytes(s));
            room.segments.iter().position(|s| is_left(s) >= room.reserved)
        };
        while let Some(at) = unreserved(self) {
            taken.push(self.take_out(at));
        }
        taken
    }

    /// Takes out the segment at a place in [`Room::segments`].
    pub(super) fn take_out(&mut self, at: usize) -> PreallocatedSegment {
        self.segments.remove(at)
    }
}

/// What rollback records can be sure of in a segment, in bytes. Its header takes a block, and so
/// may the rest at its end, where the next record does not fit any more.
fn usable_bytes(file_bytes: u64, block_bytes: u32) -> u64 {
    file_bytes.saturating_sub(u64::from(block_bytes).saturating_mul(2))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn preallocated(number: u64, file_bytes: u64) -> PreallocatedSegment {
        PreallocatedSegment { name: format!("{number}"), number, file_bytes, file: None }
    }

    #[test]
    fn a_segment_is_surplus_once_neither_reservations_nor_the_reserve_need_it() {
        let mut room = Room::new(4096, 64 << 10, Vec::new());
        let reserve = 56 << 10;
        assert_eq!(room.reserve(1), Err(Shortage::PreallocatedSegment { missing_bytes: reserve + 1 }));
        (1..=4).for_each(|number| room.add(preallocated(number, 64 << 10)));
        room.reserve(3 * reserve).unwrap();
        assert_eq!(room.check(4096, true), Ok(()));
        assert_eq!(room.surplus(1, 1, 16 << 10), None, "all of it is reserved");
        room.release(3 * reserve);
        for (ready, most, ordinary_bytes, surplus, why) in [
            (1, 9, 16 << 10, true, "larger than ordinary"),
            (1, 9, 64 << 10, false, "few and of ordinary size"),
            (1, 2, 64 << 10, true, "more than are kept"),
            (0, 0, 0, false, "the reserve, and the next rotation's"),
        ] {
            let at = room.surplus(ready, most, ordinary_bytes);
            assert_eq!(at.is_some(), surplus, "{why}");
            at.map(|at| room.take_out(at));
        }
        room.reserve(1).unwrap();
        assert_eq!((room.take_unreserved().len(), room.segments().len()), (1, 1), "the other is reserved");
        room.release(1);
        assert_eq!((room.take_unreserved().len(), room.segments().len()), (1, 0), "the reserve too");
    }
}
