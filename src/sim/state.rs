//! The state behind a simulated disk's lock: its image, with planned faults, trace, locks and crash
//! points.

use super::fault::{Fault, OpKind, Plan};
use super::image::{Image, down, eio, no_space};
use super::points::Points;
use super::trace::{Op, Trace};
use crate::io::sync::{Arc, Condvar};
use std::io;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Locks {
    pub(super) readers: usize,
    pub(super) owned: bool,
    /// How often an owner has lost its directory. A lock of an earlier count is void.
    pub(super) losses: u64,
}

/// A disk with its planned faults, trace, locks and crash points.
#[derive(Debug)]
pub(super) struct State {
    pub(super) image: Image,
    pub(super) ops: u64,
    pub(super) plan: Plan,
    pub(super) trace: Trace,
    pub(super) locks: Locks,
    pub(super) points: Points,
    /// The first operation that a fault affected.
    pub(super) struck: Option<(OpKind, String)>,
    /// Wakes the threads whose durable writes are in flight.
    pub(super) completed: Arc<Condvar>,
}

impl State {
    pub(super) fn new(image: Image) -> State {
        State {
            image,
            ops: 0,
            plan: Plan::default(),
            trace: Trace::default(),
            locks: Locks::default(),
            points: Points::default(),
            struck: None,
            completed: Arc::default(),
        }
    }

    /// Runs one operation: counts it, finds its fault, and calls `act` with both. If crash points
    /// are recorded, a copy of the disk runs the same operation with [`Fault::Crash`].
    pub(super) fn perform<T>(
        &mut self,
        op: &Op<'_>,
        mut act: impl FnMut(&mut Image, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.image.down {
            return Err(down());
        }
        let index = self.ops;
        self.ops += 1;
        self.image.clock += Duration::from_micros(1);
        let fault = self.plan.strike(index, op.kind);
        self.trace.add(index, op, fault);
        if fault.is_some() && self.struck.is_none() {
            self.struck = Some((op.kind, op.name.to_owned()));
        }
        if self.points.wants(index) {
            let mut image = self.image.clone();
            let _ = act(&mut image, Some(Fault::Crash));
            self.points.push(index, op.kind, image);
        }
        let result = act(&mut self.image, fault);
        if self.image.down {
            self.completed.notify_all();
        }
        result
    }

    /// An operation that has no effect if it fails. If the computer stops, the operation takes
    /// effect, but its result is not returned.
    pub(super) fn simple<T>(
        &mut self,
        op: &Op<'_>,
        mut effect: impl FnMut(&mut Image) -> io::Result<T>,
    ) -> io::Result<T> {
        self.perform(op, |image, fault| match fault {
            Some(Fault::Eio) => Err(eio()),
            Some(Fault::NoSpace) => Err(no_space()),
            Some(Fault::Crash) => {
                let _ = effect(image);
                Err(image.stop())
            }
            None | Some(_) => effect(image),
        })
    }
}

/// The kind of an open operation, for the trace and for faults.
pub(super) fn open_kind(mode: crate::io::OpenMode) -> OpKind {
    if mode == crate::io::OpenMode::CreateNew { OpKind::Create } else { OpKind::Open }
}
