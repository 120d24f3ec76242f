//! What the fuzz targets in `fuzz/` run: one function each, from bytes to assertions.
//!
//! The same functions replay the corpora in `cargo test`, so that a find stays found without a fuzzer. The first byte of an
//! input says whether checksums are put right before the bytes are looked at, for most of what is worth finding lies behind
//! them. What holds for any bytes: an answer or a typed error that names what is wrong; no panic, no hang, no more memory
//! than the bytes back; and no two parts of the crate that answer differently. For the fuzzers alone: nothing here is stable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "what fails here is a find")]

mod codecs;
mod directory;
mod history;
#[cfg(test)]
mod replay;
#[cfg(feature = "cli")]
mod script;
#[cfg(test)]
mod seeds;
mod store;

pub use codecs::{frame, manifest, record};
pub use history::history;
#[cfg(feature = "cli")]
pub use script::script;
pub use store::{scan, snapshot, store};
