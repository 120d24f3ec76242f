//! A new store whose content is one snapshot.

use super::help::Help;
use super::write::{Unpaced, write};
use crate::error::Result;
use crate::ids::MachineTag;
use crate::machine::StateMachine;
use crate::store::create::NewStore;
use crate::txn::ActiveTransactions;

/// Writes a state as a new store, with the shape of the machine's types. When it returns `Ok`, the
/// store is complete and survives power loss.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_as_store<M: StateMachine>(place: NewStore, state: M, shape: Vec<u8>, help: Help) -> Result<()> {
    let machine = MachineTag { name: M::NAME.into(), version: M::VERSION };
    place.create(machine, shape, |storage, header| {
        write(storage, header, state, &ActiveTransactions::default(), help, &mut Unpaced)
    })
}
