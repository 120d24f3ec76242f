//! Starts threads and contains panics. A thread that the system refuses is an error, and a panic
//! ends no thread.

use crate::io::sync::{thread, thread_local};
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(not(any(loom, shuttle)))]
use crate::io::sync::thread as scoped;
#[cfg(shuttle)]
use shuttle::thread as scoped;
// loom has no scoped threads, and none of its models runs this code
#[cfg(loom)]
use std::thread as scoped;

/// The minimum stack size of a thread, as large as that of a main thread on Linux. User code runs
/// on these threads, and may recurse as deeply there as on its own thread. Pages that are not
/// touched take no memory.
#[cfg(not(any(loom, shuttle)))]
const STACK_BYTES: usize = 8 << 20;

/// The standard library's environment variable for the minimum stack size of a thread.
#[cfg(not(any(loom, shuttle)))]
fn stack_bytes() -> usize {
    let asked = std::env::var("RUST_MIN_STACK").ok().and_then(|bytes| bytes.parse().ok());
    asked.unwrap_or(0).max(STACK_BYTES)
}

thread_local! {
    /// Whether a store started this thread.
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether any store started the calling thread. Such a thread joins no thread of a store: two of
/// them that close each other's stores would wait for each other.
pub(crate) fn is_own() -> bool {
    IS_OWN.try_with(Cell::get).unwrap_or(false)
}

/// Starts a named thread, unless the system refuses it.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.into());
    #[cfg(not(any(loom, shuttle)))]
    let builder = builder.stack_size(stack_bytes());
    #[cfg(all(test, not(any(loom, shuttle))))]
    refusal::check()?;
    builder.spawn(|| {
        IS_OWN.with(|is_own| is_own.set(true));
        run();
    })
}

/// Starts a thread in a scope, unless the system refuses it.
pub(crate) fn spawn_scoped<'scope, R: Send + 'scope>(
    scope: &'scope scoped::Scope<'scope, '_>,
    work: impl FnOnce() -> R + Send + 'scope,
) -> io::Result<scoped::ScopedJoinHandle<'scope, R>> {
    #[cfg(all(test, not(any(loom, shuttle))))]
    refusal::check()?;
    #[cfg(not(any(loom, shuttle)))]
    return scoped::Builder::new().stack_size(stack_bytes()).spawn_scoped(scope, work);
    // a model checker refuses none
    #[cfg(any(loom, shuttle))]
    Ok(scope.spawn(work))
}

/// Runs code that may panic. Returns `None` if it did.
#[inline]
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // the payload is foreign too, and its drop may panic in turn
            if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
            None
        }
    }
}

/// Refuses threads, as the system does at `RLIMIT_NPROC`.
#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) mod refusal {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static ALLOWED: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn check() -> io::Result<()> {
        let left = ALLOWED.get().checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        ALLOWED.set(left);
        Ok(())
    }

    /// Runs `run`, during which this thread can start `allowed` threads.
    pub(crate) fn after<T>(allowed: usize, run: impl FnOnce() -> T) -> T {
        ALLOWED.set(allowed);
        let result = run();
        ALLOWED.set(usize::MAX);
        result
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                std::panic::panic_any(0);
            }
        }
    }

    #[test]
    fn a_panic_whose_payload_panics_is_contained() {
        assert_eq!(contained(|| 1), Some(1));
        assert!(contained(|| std::panic::panic_any(Bomb)).is_none());
    }

    #[test]
    fn a_thread_of_a_store_has_the_stack_of_a_main_thread() {
        fn deep(n: u32) -> u64 {
            let filler = std::hint::black_box([u64::from(n); 512]);
            if n == 0 { filler[0] } else { filler[1] + deep(n - 1) }
        }
        // 4 MiB, and more: the standard library's default of 2 MiB overflows
        let found = thread::scope(|scope| spawn_scoped(scope, || deep(900)).unwrap().join().unwrap());
        assert_eq!(found, (0..=900).sum::<u64>());
    }
}
