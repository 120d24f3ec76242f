//! Synchronization primitives. This is the only module that imports them.
//!
//! Model checkers replace them: [loom](https://docs.rs/loom) with `--cfg loom`,
//! [shuttle](https://docs.rs/shuttle) with `--cfg shuttle`. Without these flags they are those of
//! `parking_lot` and the standard library.

mod held;
#[cfg(any(loom, shuttle))]
mod model;
#[cfg(not(any(loom, shuttle)))]
mod spin_mutex;

pub(crate) use held::{HoldMark, Runs, defer, is_held};
#[cfg(any(loom, shuttle))]
pub(crate) use model::{
    AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, Mutex as SpinMutex, RwLock, RwLockReadGuard, RwLockWriteGuard,
    mpsc, thread, write_spinning,
};
#[cfg(any(loom, shuttle))]
pub(crate) use model::{checker_thread_local, model_thread_local as thread_local};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use spin_mutex::{SpinMutex, write_spinning};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::mpsc;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{thread, thread_local};

pub(crate) use std::sync::Arc;
// no checker has a `OnceLock`; its value is read only after an atomic flag was seen
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::Ordering;
