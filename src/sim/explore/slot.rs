//! An open transaction of a run, and what the model knows of it.

use super::explorable::Explorable;
use super::work::Script;
use crate::engine::{Savepoint, Transaction};
use crate::machine::Footprint;

/// An open transaction with what the model knows of it.
pub(super) struct Slot<M: Explorable> {
    pub(super) tx: Transaction<M>,
    pub(super) script: Script<M>,
    /// How many commands of the script have been carried out.
    pub(super) done: usize,
    /// Commands that took effect, with their inverses.
    pub(super) effects: Vec<(M::Command, M::Command)>,
    /// Each with the number of effects, and with `done` at that time.
    pub(super) savepoints: Vec<(Savepoint, usize, usize)>,
    /// Savepoints that a rollback to an earlier one has removed.
    pub(super) past: Vec<Savepoint>,
    pub(super) held: Footprint,
    /// It saw this many commits, which must be durable before its answer leaves.
    pub(super) saw: usize,
}
