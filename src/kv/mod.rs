//! The built-in ordered key-value machine.

mod tree;
