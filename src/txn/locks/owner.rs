//! The owner of locks: a transaction, or a single commit.

/// An owner that holds locks or waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The owner's number. It is unique in the process and never reused.
    pub(crate) id: u64,
    /// When the transaction first began; a smaller number is older. A transaction that is run again
    /// keeps it.
    pub(crate) age: u64,
}
