//! The one place that names the synchronisation primitives.
//!
//! Everything that locks, counts or parks goes through these names, so that a model checker can
//! stand in for them. It knows nothing of what is being guarded.

pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::thread;
