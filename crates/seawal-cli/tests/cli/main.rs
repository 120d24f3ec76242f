//! The program, run as a shell runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

mod bench;
mod program;
