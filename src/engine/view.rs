//! Views: a consistent committed state, to keep.

use super::answer::wait_for;
use super::shared::Shared;
use crate::error::Result;
use crate::machine::StateMachine;
use crate::txn::{DurabilityBarrier, undo_in_memory};
use std::ops::Deref;

/// A committed state of one moment. It owns what it shows, and stays as it is whatever comes after.
#[derive(Clone, Debug)]
pub struct View<M> {
    state: M,
}

impl<M: StateMachine> View<M> {
    /// Freezes the state and rolls back, on the copy, what is in flight. Returns also what must be durable before it may be shown.
    pub(super) fn take(shared: &Shared<M>) -> Result<(View<M>, DurabilityBarrier)> {
        let (mut state, mut table, needed) = {
            let core = shared.core.read()?;
            shared.core.check()?;
            (core.state.clone(), core.table.clone(), shared.watermarks.needed_for_all())
        };
        if !table.is_empty() {
            undo_in_memory(&mut state, &mut table).map_err(|_| shared.core.poison())?;
        }
        Ok((View { state }, needed))
    }

    /// Freezes the state, and waits until everything that it shows is as durable as its writer requested.
    pub(super) fn take_hardened(shared: &Shared<M>) -> Result<View<M>> {
        let (view, needed) = View::take(shared)?;
        wait_for(shared.log.as_deref(), needed)?;
        Ok(view)
    }

    /// The state itself.
    pub fn into_inner(self) -> M {
        self.state
    }
}

impl<M> Deref for View<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.state
    }
}
