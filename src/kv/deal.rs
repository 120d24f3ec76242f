//! Dealing jobs out to threads.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

const MOST_THREADS: usize = 8;

/// How many threads there may be.
pub(crate) fn most_threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get()).min(MOST_THREADS)
}

/// Does all jobs, on so many threads at the most, the caller's among them. Returns what they came to, in order.
///
/// Each thread begins with a stretch of neighbours: the first with the first, and so on. So what lies at one place is mostly worked on
/// by the same thread each time, and the allocator gets memory back from the one it gave it to; else the threads wait for one
/// another's part of the heap. Who has no more takes from the far end of who has the most. Where the system gives no more threads,
/// those that there are do the work.
pub(crate) fn deal<J: Send, R: Send>(jobs: Vec<J>, threads: usize, work: impl Fn(J) -> R + Sync) -> Vec<R> {
    let helpers = threads.min(jobs.len()).saturating_sub(1);
    if helpers == 0 {
        return jobs.into_iter().map(work).collect();
    }
    let mut done = Vec::with_capacity(jobs.len());
    let stretches = Mutex::new(stretches(jobs, helpers + 1));
    let next = |own: usize| take(&mut stretches.lock().unwrap_or_else(PoisonError::into_inner), own);
    let work = |own: usize| {
        let mut done = Vec::new();
        while let Some((at, job)) = next(own) {
            done.push((at, work(job)));
        }
        done
    };
    thread::scope(|scope| {
        let start = |own| thread::Builder::new().spawn_scoped(scope, move || work(own)).ok();
        let helpers: Vec<_> = (1..=helpers).map_while(start).collect();
        done.extend(work(0));
        for helper in helpers {
            match helper.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

type Stretch<J> = VecDeque<(usize, J)>;

/// The jobs with their places, in so many stretches of about the same length.
fn stretches<J>(jobs: Vec<J>, count: usize) -> Vec<Stretch<J>> {
    let each = jobs.len().div_ceil(count).max(1);
    let mut stretches: Vec<_> = (0..count).map(|_| VecDeque::with_capacity(each)).collect();
    for (at, job) in jobs.into_iter().enumerate() {
        stretches[at / each].push_back((at, job));
    }
    stretches
}

/// The next job of one's own stretch, or the last of the longest.
fn take<J>(stretches: &mut [Stretch<J>], own: usize) -> Option<(usize, J)> {
    stretches[own].pop_front().or_else(|| stretches.iter_mut().max_by_key(|stretch| stretch.len())?.pop_back())
}
