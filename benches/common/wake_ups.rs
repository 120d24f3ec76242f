//! The limit of the scheduler: how fast committers can sleep and be woken without writes.
//! `benches/peers` uses it too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Threads that sleep until a group of `size` is complete. The thread that completes it wakes each
/// of the others with one `unpark`, and writes nothing. Goes on until `enough` is true of the
/// wake-ups so far and the time. Returns both.
pub(crate) fn wake_ups(threads: usize, size: usize, enough: impl Fn(u64, Duration) -> bool + Sync) -> (u64, Duration) {
    let waiting: Mutex<Vec<(Thread, Arc<AtomicBool>)>> = Mutex::new(Vec::new());
    let lock = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let (stop, woken) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let one = || {
        let flag = Arc::new(AtomicBool::new(false));
        while !stop.load(Ordering::Acquire) {
            flag.store(false, Ordering::Relaxed);
            let mut group = lock();
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if group.len() + 1 < size {
                group.push((std::thread::current(), flag.clone()));
                drop(group);
                while !flag.load(Ordering::Acquire) {
                    std::thread::park();
                }
                continue;
            }
            let ready = std::mem::take(&mut *group);
            drop(group);
            let so_far = woken.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
            if enough(so_far, began.elapsed()) {
                // under the lock that new threads take, because they would wait for a group that is
                // never completed
                let mut left = lock();
                stop.store(true, Ordering::Release);
                left.drain(..).for_each(|(thread, flag)| wake(&thread, &flag));
            }
            for (thread, flag) in ready {
                wake(&thread, &flag);
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(one))));
    (woken.into_inner(), began.elapsed())
}

fn wake(thread: &Thread, flag: &AtomicBool) {
    flag.store(true, Ordering::Release);
    thread.unpark();
}
