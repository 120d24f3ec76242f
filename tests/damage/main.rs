//! Damage at rest and forgery, with every allocation counted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]
#![allow(clippy::print_stdout, reason = "how much was tried")]

mod at_rest;
mod chunks;
#[path = "../suite/common/mod.rs"]
mod common;
mod forged;
mod headers;
mod layout;
mod packed;
mod stores;
