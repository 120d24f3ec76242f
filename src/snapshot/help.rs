//! Whether a snapshot is written or read with the help of other threads.

use crate::options::Background;

/// Whether other threads help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// The caller does everything itself: the operations on files have one order.
    None,
    /// Threads that end with the call: one reads or writes, one checks, and others decode or
    /// encode.
    Threads,
}

impl From<Background> for Help {
    fn from(background: Background) -> Help {
        match background {
            Background::Threads => Help::Threads,
            Background::Manual => Help::None,
        }
    }
}
