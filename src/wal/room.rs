//! The room for records beyond the current segment: the preallocated segments, the bytes that
//! transactions have reserved in them, and the reserve for the next open.
//!
//! An ordinary record never takes the last preallocated segments. They hold the bytes that open
//! transactions have reserved for their rollback, and the reserve that the next open needs.

use crate::store::open_dir::PreallocatedSegment;

/// The reserve: room in preallocated segments beyond the reserved bytes, in bytes. It allows a
/// store on a full disk to be opened again.
const RESERVE_BYTES: u64 = 64 << 10;

/// Why a record cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// A preallocated segment with room for `bytes` behind its header is needed.
    PreallocatedSegment { bytes: u64 },
    /// Too many bytes wait to be written.
    Pending,
    /// The manifest could not be written when the log was opened, and no record may be written
    /// before it.
    Manifest,
}

/// The preallocated segments, and the number of reserved bytes in them.
pub(super) struct Room {
    block_bytes: u32,
    segments: Vec<PreallocatedSegment>,
    /// Bytes reserved for the rollback of open transactions.
    reserved: u64,
}

impl Room {
    pub(super) fn new(block_bytes: u32, segments: Vec<PreallocatedSegment>) -> Room {
        Room { block_bytes, segments, reserved: 0 }
    }

    pub(super) fn segments(&self) -> &[PreallocatedSegment] {
        &self.segments
    }

    /// The capacity of a preallocated segment behind its header, in bytes.
    pub(super) fn capacity_of(&self, segment: &PreallocatedSegment) -> u64 {
        segment.file_bytes.saturating_sub(u64::from(self.block_bytes))
    }

    fn capacity(&self) -> u64 {
        self.segments.iter().map(|s| self.capacity_of(s)).fold(0, u64::saturating_add)
    }

    /// The size of all preallocated segment files, in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.file_bytes).fold(0, u64::saturating_add)
    }

    pub(super) fn add(&mut self, segment: PreallocatedSegment) {
        debug_assert!(self.segments.iter().all(|s| s.name != segment.name), "{} is added twice", segment.name);
        self.segments.push(segment);
    }

    /// Takes a preallocated segment that holds at least `bytes` behind its header.
    pub(super) fn take(&mut self, bytes: u64) -> Option<PreallocatedSegment> {
        // the smallest that is large enough: the larger ones may be needed for the reserved bytes
        let serving = self.segments.iter().enumerate().filter(|(_, s)| self.capacity_of(s) >= bytes);
        let (at, _) = serving.min_by_key(|(_, s)| s.file_bytes)?;
        Some(self.segments.remove(at))
    }

    /// Whether any preallocated segment, the reserve included, can hold a frame of `frame_bytes`.
    pub(super) fn holds(&self, frame_bytes: u64) -> bool {
        self.segments.iter().any(|s| self.capacity_of(s) >= frame_bytes)
    }

    /// Whether an ordinary frame may be placed, in the current segment if it fits there, or else in
    /// a preallocated one.
    pub(super) fn check(&self, frame_bytes: u64, fits_current: bool) -> Result<(), Shortage> {
        let floor = self.reserved.saturating_add(RESERVE_BYTES);
        let capacity = self.capacity();
        let may_take = |s: &PreallocatedSegment| {
            let own = self.capacity_of(s);
            own >= frame_bytes && capacity.saturating_sub(own) >= floor
        };
        if capacity >= floor && (fits_current || self.segments.iter().any(may_take)) {
            return Ok(());
        }
        Err(Shortage::PreallocatedSegment { bytes: floor.max(frame_bytes) })
    }

    /// Reserves room for the rollback of an open transaction, whose records must not fail for lack
    /// of room.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), Shortage> {
        let total = self.reserved.saturating_add(bytes);
        let floor = total.saturating_add(RESERVE_BYTES);
        if self.capacity() < floor {
            return Err(Shortage::PreallocatedSegment { bytes: floor });
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
}
