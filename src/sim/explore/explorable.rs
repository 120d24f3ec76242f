//! What a machine must offer to be explored.

use crate::machine::StateMachine;
use std::fmt::Debug;

/// What an exploration needs of a machine besides its law: commands that can be shown, and answers
/// that can be compared. Every machine whose types allow it implements this.
pub trait Explorable: StateMachine<Command: Debug, Reply: Debug + PartialEq, Rejection: Debug + PartialEq> {}

impl<M> Explorable for M where M: StateMachine<Command: Debug, Reply: Debug + PartialEq, Rejection: Debug + PartialEq> {}
