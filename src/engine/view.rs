//! Views: consistent copies of the committed state.

use super::answer::wait_for;
use super::shared::Shared;
use crate::error::Result;
use crate::machine::StateMachine;
use crate::txn::{DurabilityBarrier, undo_in_memory};
use std::ops::Deref;

/// A copy of the committed state of one moment. Later commits do not change it.
#[derive(Clone, Debug)]
pub struct View<M> {
    state: M,
}

impl<M: StateMachine> View<M> {
    /// Clones the state and rolls back the open transactions on the clone. Also returns the barrier
    /// for showing it.
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

    /// Takes a view, and waits until everything that it shows is as durable as its writer
    /// requested.
    pub(super) fn take_hardened(shared: &Shared<M>) -> Result<View<M>> {
        let (view, needed) = View::take(shared)?;
        wait_for(shared.log.as_deref(), needed)?;
        Ok(view)
    }

    /// Returns the state itself.
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
