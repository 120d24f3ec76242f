//! How much a commit or a read waits for.

use std::time::Duration;

/// What a commit has survived once it returns. Default: [`Durability::Sync`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Power loss.
    #[default]
    Sync,
    /// A kill of the process at once, and power loss after at most this time.
    Interval(Duration),
    /// A kill of the process. The operating system decides when it survives power loss; nothing
    /// waits for that.
    Os,
}

/// Whether a read waits for the durability of what it saw. Default: [`ReadLevel::Hardened`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadLevel {
    /// Waits until everything the read observed is as durable as its writer requested.
    #[default]
    Hardened,
    /// Returns at once. A crash may take back what it returned.
    Latest,
}
