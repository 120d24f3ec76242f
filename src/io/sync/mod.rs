//! The one place that names the synchronisation primitives.
//!
//! Everything that locks, counts or parks goes through these names, so that a model checker can
//! stand in for them: [loom](https://docs.rs/loom) with `--cfg loom`, [shuttle](https://docs.rs/shuttle) with
//! `--cfg shuttle`. Without these flags they are `parking_lot`'s and the standard library's, and nothing else.
//! It knows nothing of what is being guarded.

#[cfg(any(loom, shuttle))]
mod model;
#[cfg(not(any(loom, shuttle)))]
mod spin_mutex;

#[cfg(any(loom, shuttle))]
pub(crate) use model::{
    AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, Mutex as SpinMutex, RwLock, RwLockWriteGuard, mpsc, thread,
    write_spinning,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use spin_mutex::{SpinMutex, write_spinning};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::mpsc;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::thread;

pub(crate) use std::sync::Arc;
// of no checker: what is set once is only read after an atomic that says so
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::Ordering;
