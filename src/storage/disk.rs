//! The real storage: a directory of an operating system's file system.

/// A directory on a file system.
#[derive(Debug)]
pub struct DiskStorage;
