//! Threads under loom, with parking built from a mutex and a condition variable.
//!
//! loom's own `unpark` also wakes a thread that waits for a lock or joins another thread. loom then
//! reports that as an error of the model.

use crate::io::sync::{Condvar, Mutex};
pub(crate) use loom::thread::{panicking, yield_now};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

// the loom models do not cover recovery
pub(crate) use std::thread::scope;

#[derive(Debug, Default)]
struct Parker {
    token: Mutex<bool>,
    given: Condvar,
}

/// A handle to a thread, to wake it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thread(Arc<Parker>);

impl Thread {
    pub(crate) fn unpark(&self) {
        *self.0.token.lock() = true;
        self.0.given.notify_one();
    }
}

loom::thread_local! {
    static CURRENT: RefCell<Thread> = RefCell::new(Thread::default());
}

pub(crate) fn current() -> Thread {
    CURRENT.with(|thread| thread.borrow().clone())
}

pub(crate) fn park() {
    let Thread(parker) = current();
    let mut token = parker.token.lock();
    while !std::mem::take(&mut *token) {
        parker.given.wait(&mut token);
    }
}

pub(crate) fn park_timeout(_limit: Duration) {
    yield_now();
}

#[derive(Debug)]
pub(crate) struct Builder(loom::thread::Builder);

#[derive(Debug)]
pub(crate) struct JoinHandle<T> {
    handle: loom::thread::JoinHandle<T>,
    thread: Thread,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Builder(loom::thread::Builder::new())
    }

    pub(crate) fn name(self, name: String) -> Self {
        Builder(self.0.name(name))
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let thread = Thread::default();
        let own = thread.clone();
        let handle = self.0.spawn(move || {
            CURRENT.with(|current| *current.borrow_mut() = own);
            run()
        })?;
        Ok(JoinHandle { handle, thread })
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn join(self) -> std::thread::Result<T> {
        self.handle.join()
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.thread
    }
}
