//! The fuzz targets: one function each, from bytes to assertions.
//!
//! `tests/replay.rs` runs the corpora through the same functions, so that a find stays found
//! without a fuzzer. The first byte of most inputs says whether checksums are repaired before the
//! bytes are read, because most of the code lies behind a checksum. Any bytes must give an answer
//! or a typed error that says what is wrong. There must be no panic, no hang, no more memory than
//! the bytes justify, and no two parts of the crate that answer differently.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a panic is a find")]

mod codecs;
mod directory;
mod history;
mod names;
mod script;
#[cfg(test)]
mod seeds;
mod store;

pub use codecs::{frame, manifest, record};
pub use history::history;
pub use script::script;
pub use store::{scan, snapshot, store};
