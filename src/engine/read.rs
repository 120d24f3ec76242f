//! Reads of the committed state. A read waits for conflicting locks first, and then until the
//! commits that it saw are durable.

use super::answer::wait_for;
use super::shared::Shared;
use crate::durability::ReadLevel;
use crate::error::Result;
use crate::io::sync::Runs;
use crate::machine::{Access, Footprint, StateMachine};
use crate::txn::DurabilityBarrier;

/// Reads the state while no transaction holds the footprint exclusively.
pub(super) fn within<M: StateMachine, T>(
    shared: &Shared<M>,
    footprint: &Footprint,
    level: ReadLevel,
    read: impl FnOnce(&M) -> T,
) -> Result<T> {
    let mut held = None;
    let (value, needed) = loop {
        let core = shared.core.read()?;
        shared.core.check()?;
        if held.is_some() || shared.locks.is_free(footprint, None) {
            let needed = shared.watermarks.needed_for(footprint);
            break (read(&core.state), needed);
        }
        drop(core);
        held = Some(shared.wait_for_locks(footprint)?);
    };
    drop(held);
    hardened(shared, level, needed, value)
}

/// Returns the value of a read, once the commits that it saw are as durable as the level requires.
fn hardened<M: StateMachine, T>(
    shared: &Shared<M>,
    level: ReadLevel,
    needed: DurabilityBarrier,
    value: T,
) -> Result<T> {
    if level == ReadLevel::Hardened {
        wait_for(shared.log.as_deref(), needed)?;
    }
    Ok(value)
}

/// Reads the state at one key, like [`within`] a footprint of that key. The footprint is made only
/// if a conflicting lock may be held.
pub(super) fn key<M: StateMachine, T>(
    shared: &Shared<M>,
    key: &[u8],
    level: ReadLevel,
    runs: Runs,
    read: impl FnOnce(&M) -> T,
) -> Result<T> {
    let (value, needed) = {
        let core = shared.core.read_for(runs)?;
        shared.core.check()?;
        if !shared.locks.key_is_free(Access::Shared, key, None) {
            drop(core);
            return within(shared, &Footprint::key(Access::Shared, key), level, read);
        }
        (read(&core.state), shared.watermarks.needed_for_key(key))
    };
    hardened(shared, level, needed, value)
}

/// Reads the state as it is, without waiting for any lock, and tells `read` whether no transaction
/// holds this key exclusively.
pub(super) fn peek<M: StateMachine, T>(shared: &Shared<M>, key: &[u8], read: impl FnOnce(&M, bool) -> T) -> Result<T> {
    let core = shared.core.read_for(Runs::OwnCode)?;
    shared.core.check()?;
    Ok(read(&core.state, shared.locks.key_is_free(Access::Shared, key, None)))
}

/// Like [`within`], but the footprint is made only if a conflicting lock may be held.
pub(super) fn span<M: StateMachine, T>(
    shared: &Shared<M>,
    footprint: impl FnOnce() -> Footprint,
    level: ReadLevel,
    runs: Runs,
    read: impl FnOnce(&M) -> T,
) -> Result<T> {
    let (value, needed) = {
        let core = shared.core.read_for(runs)?;
        shared.core.check()?;
        if !shared.locks.is_free_to_read() {
            drop(core);
            return within(shared, &footprint(), level, read);
        }
        (read(&core.state), shared.watermarks.needed_for_all())
    };
    hardened(shared, level, needed, value)
}
