//! The trace of operations, as a running hash and, on demand, as text.
//!
//! Two runs with the same hash did the same operations, with the same bytes, in the same order.

use super::fault::{Fault, OpKind};
use super::rng::mix;
use std::collections::VecDeque;

/// The maximum number of lines that are kept.
const LINES_KEPT: usize = 1000;

/// One operation in the trace.
pub(super) struct Op<'a> {
    pub(super) kind: OpKind,
    pub(super) name: &'a str,
    /// The offset, or another number that identifies the operation.
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) data: &'a [u8],
}

impl<'a> Op<'a> {
    pub(super) fn new(kind: OpKind, name: &'a str) -> Op<'a> {
        Op { kind, name, offset: 0, len: 0, data: &[] }
    }
}

#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(super) fn add(&mut self, index: u64, op: &Op<'_>, fault: Option<Fault>) {
        let crcs = u64::from(crc32fast::hash(op.name.as_bytes())) << 32 | u64::from(crc32fast::hash(op.data));
        let kinds = (op.kind as u64) << 8 | fault.map_or(0, |fault| fault as u64 + 1);
        for word in [kinds, crcs, op.offset, op.len] {
            self.hash = mix(self.hash.rotate_left(5) ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        let fault = fault.map(|fault| format!(" !{fault:?}")).unwrap_or_default();
        lines.push_back(format!("{index} {:?} {} @{}+{}{fault}", op.kind, op.name, op.offset, op.len));
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn enable(&mut self) {
        self.lines.get_or_insert_default();
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().flatten().cloned().collect()
    }
}
