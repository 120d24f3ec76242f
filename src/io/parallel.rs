//! Parallel maps on scoped threads, and the one bound on their number.

use crate::io::sync::{Mutex, mpsc, thread};
use crate::io::threads::spawn_scoped;
use std::collections::VecDeque;
use std::io;

/// Bounds the threads of one call, and with them the memory of their buffers. It was measured with
/// two processors only.
const MAX_THREADS: usize = 8;

/// The number of items per helper of [`parallel_stream`]. Two keep it busy while the caller
/// consumes results.
const ITEMS_AHEAD: usize = 2;

/// The number of threads that parallel work may use: one per processor, at most [`MAX_THREADS`].
pub(crate) fn max_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_THREADS)
}

/// Applies `f` to each item, on at most `threads` threads including the caller's. Returns the
/// results in the order of the items.
///
/// It steals work: each thread starts on a contiguous slice of the items. A thread that has
/// finished its own slice steals from the tail of the longest other one. Starting on slices lets
/// equal calls work on equal items with equal threads, so that memory is freed by the thread that
/// allocated it. Otherwise the threads contend for each other's allocator arenas.
///
/// If the system refuses a thread, the others do its work. A panic in `f` propagates to the caller.
pub(crate) fn parallel_map<T: Send, R: Send>(items: Vec<T>, threads: usize, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let helpers = threads.min(items.len()).saturating_sub(1);
    if helpers == 0 {
        return items.into_iter().map(f).collect();
    }
    let mut results = Vec::with_capacity(items.len());
    let queues = Mutex::new(split(items, helpers + 1));
    let next = |own: usize| take(&mut queues.lock(), own);
    let work = |own: usize| {
        let mut done = Vec::new();
        while let Some((index, item)) = next(own) {
            done.push((index, f(item)));
        }
        done
    };
    let work = &work;
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..=helpers).map_while(|own| spawn_scoped(scope, move || work(own)).ok()).collect();
        results.extend(work(0));
        for helper in helpers {
            match helper.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Maps a stream of items with `threads` helper threads. Passes the results to `consume`, on the
/// caller's thread and in the order of the items.
///
/// At most [`ITEMS_AHEAD`] items per thread are taken from the stream before their results are
/// consumed, which bounds the memory.
///
/// If the system refuses a thread, the other threads do its work, or else the caller does.
///
/// # Errors
/// The error of `consume`, or that a thread has panicked. The panic then propagates to the caller.
pub(crate) fn parallel_stream<T: Send, R: Send>(
    items: impl Iterator<Item = T>,
    threads: usize,
    f: impl Fn(T) -> R + Sync,
    mut consume: impl FnMut(R) -> io::Result<()>,
) -> io::Result<()> {
    let (f, threads) = (&f, threads.max(1));
    thread::scope(|scope| {
        let mut helpers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (items, items_in) = mpsc::channel::<T>();
            let (results_out, results) = mpsc::channel::<R>();
            // the loop ends when the caller drops either channel
            let work = move || _ = items_in.into_iter().map(f).try_for_each(|result| results_out.send(result));
            if spawn_scoped(scope, work).is_err() {
                break;
            }
            helpers.push((items, results));
        }
        let threads = helpers.len();
        if threads == 0 {
            return items.map(f).try_for_each(consume);
        }
        // the helpers take turns, so their results are in order
        let mut waiting = VecDeque::new();
        let mut consume_next = |waiting: &mut VecDeque<usize>| {
            let result = waiting.pop_front().and_then(|helper: usize| helpers[helper].1.recv().ok());
            consume(result.ok_or_else(|| io::Error::other("a worker thread has panicked"))?)
        };
        for (helper, item) in (0..threads).cycle().zip(items) {
            if waiting.len() >= threads * ITEMS_AHEAD {
                consume_next(&mut waiting)?;
            }
            // a helper that has panicked is noticed when its result is awaited
            let _ = helpers[helper].0.send(item);
            waiting.push_back(helper);
        }
        while !waiting.is_empty() {
            consume_next(&mut waiting)?;
        }
        Ok(())
    })
}

/// The items of one thread, with their indices.
type Queue<T> = VecDeque<(usize, T)>;

/// Splits the items into `count` contiguous queues of about equal length.
fn split<T>(items: Vec<T>, count: usize) -> Vec<Queue<T>> {
    let each = items.len().div_ceil(count).max(1);
    let mut queues: Vec<_> = (0..count).map(|_| VecDeque::with_capacity(each)).collect();
    for (index, item) in items.into_iter().enumerate() {
        queues[index / each].push_back((index, item));
    }
    queues
}

/// Takes the next item of the thread's own queue, or steals the last one of the longest queue.
fn take<T>(queues: &mut [Queue<T>], own: usize) -> Option<(usize, T)> {
    queues[own].pop_front().or_else(|| queues.iter_mut().max_by_key(|queue| queue.len())?.pop_back())
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for threads in [0, 1, 2, 5, 40] {
            for count in [0, 1, 2, 7, 100] {
                let doubled = parallel_map((0..count).collect(), threads, |n: usize| 2 * n);
                assert_eq!(doubled, (0..count).map(|n| 2 * n).collect::<Vec<_>>(), "{count} items, {threads} threads");
            }
        }
    }

    #[test]
    fn a_thread_that_is_done_steals_what_another_has_not_begun() {
        // the first item waits for all others, which its own thread would otherwise have to do
        let left = std::sync::atomic::AtomicUsize::new(9);
        parallel_map((0..10).collect(), 2, |n: usize| {
            if n > 0 {
                left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            }
            while n == 0 && left.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn a_panic_in_one_item_reaches_the_caller() {
        let panicking = || parallel_map((0..10).collect(), 3, |n: usize| assert!(n != 7, "seven"));
        assert!(std::panic::catch_unwind(panicking).is_err());
    }

    #[test]
    fn a_stream_is_consumed_in_order_until_an_error() {
        for threads in [0, 1, 3] {
            let mut consumed = Vec::new();
            let streamed = parallel_stream(
                0..100,
                threads,
                |n: usize| 2 * n,
                |n| {
                    consumed.push(n);
                    if n == 80 { Err(io::Error::other("full")) } else { Ok(()) }
                },
            );
            assert_eq!(streamed.unwrap_err().to_string(), "full");
            assert_eq!(consumed, (0..=40).map(|n| 2 * n).collect::<Vec<_>>());
            let count = std::cell::Cell::new(0);
            let consume = |_| {
                count.set(count.get() + 1);
                Ok(())
            };
            parallel_stream(0..100, threads, |n: usize| n, consume).unwrap();
            assert_eq!(count.get(), 100);
        }
    }

    /// S4: a helper that was refused failed the whole stream.
    #[test]
    fn refused_threads_leave_their_work_to_the_others() {
        for allowed in 0..3 {
            crate::io::threads::refusal::after(allowed, || {
                let mut sum = 0;
                let consume = |n: usize| {
                    sum += n;
                    Ok(())
                };
                parallel_stream(0..100, 3, |n: usize| n, consume).unwrap();
                assert_eq!((sum, parallel_map((0..9).collect(), 3, |n: usize| n)), (4950, (0..9).collect()));
            });
        }
    }

    #[test]
    fn a_panic_in_a_stream_reaches_the_caller() {
        let panicking = || parallel_stream(0..100, 2, |n: usize| assert!(n != 7, "seven"), Ok);
        assert!(std::panic::catch_unwind(panicking).is_err());
    }
}
