//! Whether a snapshot is written or read with the help of other threads.

use crate::options::{Background, Options};

/// Whether other threads help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// The caller does everything itself: the operations on files have one order.
    None,
    /// Threads that end with the call: one reads or writes, one checks, and others decode or
    /// encode.
    Threads,
}

impl From<&Options> for Help {
    fn from(options: &Options) -> Help {
        match options.log.background {
            Background::Threads if options.helper_threads => Help::Threads,
            Background::Threads | Background::Manual => Help::None,
        }
    }
}
