//! Crash points: copies of the disk as a crash in the middle of an operation would have left it.
//!
//! A workload runs once, and the crashes of each of its operations are examined afterwards. A crash
//! point equals the disk that [`Fault::Crash`](super::Fault::Crash) at that operation would leave.

use super::fault::OpKind;
use super::image::Image;
use std::ops::{Bound, RangeBounds};

/// A disk that stopped in the middle of an operation, while the program continued on the original.
///
/// It shares the content of unchanged files with the original, so that a copy costs a few pointers.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    op: u64,
    kind: OpKind,
    pub(super) image: Image,
}

impl CrashPoint {
    /// The operation's index (see [`SimDisk::op_count`](super::SimDisk::op_count)).
    pub fn op(&self) -> u64 {
        self.op
    }

    /// The operation's kind.
    pub fn kind(&self) -> OpKind {
        self.kind
    }
}

/// The crash points of a disk.
#[derive(Debug, Default)]
pub(super) struct Points {
    wanted: Option<(Bound<u64>, Bound<u64>)>,
    taken: Vec<CrashPoint>,
}

impl Points {
    /// Wants a crash point of each operation in the range, and of no other.
    pub(super) fn want(&mut self, ops: impl RangeBounds<u64>) {
        self.wanted = Some((ops.start_bound().cloned(), ops.end_bound().cloned()));
    }

    pub(super) fn wants(&self, op: u64) -> bool {
        self.wanted.is_some_and(|range| range.contains(&op))
    }

    pub(super) fn push(&mut self, op: u64, kind: OpKind, image: Image) {
        self.taken.push(CrashPoint { op, kind, image });
    }

    /// Takes the points recorded since the last call, in order.
    pub(super) fn take(&mut self) -> Vec<CrashPoint> {
        std::mem::take(&mut self.taken)
    }
}
