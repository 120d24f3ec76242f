//! The transactions whose closures the current thread runs.
//!
//! Such a transaction cannot end before its closure returns. If a call within the closure waits for
//! locks as another owner, the transaction therefore waits for that owner.

use super::{Locks, Owner};
use crate::io::sync::thread_local;
use std::cell::RefCell;
use std::marker::PhantomData;

/// Identifies the locks of one engine, by their address. They stay there while a closure runs.
type Place = usize;

thread_local! {
    /// The closures that this thread is in, the innermost last. The transactions may be of several
    /// engines.
    static RUNNING: RefCell<Vec<(Place, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Says that this thread runs the closure of a transaction, until it is dropped. Several are dropped
/// in reverse order.
#[must_use = "dropping it says that the closure has returned"]
pub(crate) struct RunningClosure {
    /// It belongs to one thread.
    _thread: PhantomData<*const ()>,
}

impl Locks {
    /// Notes that this thread runs the closure of a transaction.
    pub(crate) fn enter_closure(&self, owner: Owner) -> RunningClosure {
        // a thread that is ending has no list any more; its calls may then wait up to the timeout
        let _ = RUNNING.try_with(|running| running.borrow_mut().push((self.place(), owner.id)));
        RunningClosure { _thread: PhantomData }
    }

    /// The other transactions whose closures this thread runs.
    pub(super) fn callers_of(&self, owner: Owner) -> Vec<u64> {
        let of = |running: &RefCell<Vec<(Place, u64)>>| {
            let running = running.borrow();
            let callers = running.iter().filter(|(place, id)| *place == self.place() && *id != owner.id);
            callers.map(|(_, id)| *id).collect()
        };
        RUNNING.try_with(of).unwrap_or_default()
    }

    fn place(&self) -> Place {
        std::ptr::from_ref(self).addr()
    }
}

impl Drop for RunningClosure {
    fn drop(&mut self) {
        let _ = RUNNING.try_with(|running| running.borrow_mut().pop());
    }
}
