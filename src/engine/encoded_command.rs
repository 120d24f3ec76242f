//! The encoding of a command and the hashes of its keys. They are made before any lock is taken, in
//! memory that each thread reuses.

use crate::durability::Durability;
use crate::error::Result;
use crate::ids::Lsn;
use crate::machine::{Footprint, StateMachine, bulk};
use crate::txn::{CommitWatermarks, DurabilityBarrier, guarded, hash};
use std::cell::Cell;

/// Larger buffers are freed after use. It bounds the memory that an idle thread keeps.
const KEPT_BYTES: usize = 64 << 10;

#[derive(Default)]
struct Memory {
    body: Vec<u8>,
    hashes: Vec<usize>,
}

thread_local! {
    static MEMORY: Cell<Memory> = Cell::default();
}

/// A command as bytes, and the keys that it touches: their hashes, or a footprint.
pub(super) struct EncodedCommand {
    memory: Memory,
    footprint: Option<Footprint>,
}

impl EncodedCommand {
    /// Encodes a command, and collects the hashes of its keys. Makes a footprint if the machine
    /// cannot list the keys.
    #[inline]
    pub(super) fn of<M: StateMachine>(command: &M::Command) -> Result<EncodedCommand> {
        // the memory may be in use by an outer call or dropped by a thread that is ending; it is
        // allocated again then
        let memory = MEMORY.try_with(Cell::take).unwrap_or_default();
        let mut scratch = EncodedCommand { memory, footprint: None };
        let Memory { body, hashes } = &mut scratch.memory;
        body.clear();
        hashes.clear();
        guarded(|| M::encode(command, body))?;
        if !guarded(|| bulk::visit_keys::<M>(command, &mut |key| hashes.push(hash(key))))? {
            scratch.make_footprint::<M>(command)?;
        }
        Ok(scratch)
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.memory.body
    }

    /// Makes the footprint, which a check of the locks needs.
    pub(super) fn make_footprint<M: StateMachine>(&mut self, command: &M::Command) -> Result<()> {
        if self.footprint.is_none() {
            self.footprint = Some(guarded(|| M::footprint(command))?);
        }
        Ok(())
    }

    pub(super) fn footprint(&self) -> Option<&Footprint> {
        self.footprint.as_ref()
    }

    /// The barrier for an answer about the keys that the command touches.
    pub(super) fn needed(&self, watermarks: &CommitWatermarks) -> DurabilityBarrier {
        match &self.footprint {
            Some(footprint) => watermarks.needed_for(footprint),
            None => watermarks.needed_for_keys(&self.memory.hashes),
        }
    }

    /// Records the commit in the watermarks of the keys that the command writes.
    pub(super) fn note(&self, watermarks: &CommitWatermarks, end: Lsn, durability: Durability) {
        match &self.footprint {
            Some(footprint) => watermarks.note(footprint, end, durability),
            None => watermarks.note_keys(&self.memory.hashes, end, durability),
        }
    }
}

impl Drop for EncodedCommand {
    fn drop(&mut self) {
        let Memory { body, hashes } = &self.memory;
        if body.capacity() <= KEPT_BYTES && hashes.capacity().saturating_mul(size_of::<usize>()) <= KEPT_BYTES {
            let memory = std::mem::take(&mut self.memory);
            let _ = MEMORY.try_with(|kept| kept.set(memory));
        }
    }
}
