//! Real processes on a real kernel: killed, with failing system calls, without space, without
//! power.
//!
//! A test that needs another process starts this program again as one of the children that
//! `child.rs` lists. A test that cannot run on a machine (no root, no strace, no loop devices) is
//! skipped, and prints why.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]
#![allow(clippy::print_stdout, reason = "a test says what it skips, and what its processes met")]

#[path = "../suite/common/mod.rs"]
mod common;

mod child;
mod descriptors;
mod device;
mod full;
mod idle;
mod inject;
mod kills;
mod kinds;
mod memory;
mod mounts;
mod surroundings;
mod workload;
