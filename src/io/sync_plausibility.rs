//! How long durable writes take, to notice a storage that only says that they are done.

use crate::io::sync::{AtomicUsize, Mutex, Ordering};
use std::io;
use std::time::{Duration, Instant};

/// So many durable writes are timed, and no more.
const SAMPLES: usize = 9;
/// Fewer say nothing.
const TELLING: usize = 3;
/// No device that keeps what it is given without power is known to answer faster than this, the system call included. (The fastest
/// flash and phase-change memory take about ten microseconds.)
const PLAUSIBLE: Duration = Duration::from_micros(5);

/// The first durable writes and syncs with something to write, timed.
#[derive(Debug, Default)]
pub(super) struct SyncPlausibility {
    taken: AtomicUsize,
    times: Mutex<Vec<Duration>>,
}

impl SyncPlausibility {
    /// Runs a durable write, and times it if it is one of the first.
    pub(super) fn timed(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.taken.load(Ordering::Relaxed) >= SAMPLES {
            return write();
        }
        let began = Instant::now();
        write()?;
        self.note(began.elapsed());
        Ok(())
    }

    fn note(&self, time: Duration) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.times.lock().push(time);
    }

    /// A sentence, if they were faster than can be.
    pub(super) fn warning(&self) -> Option<String> {
        let mut times = self.times.lock().clone();
        times.sort_unstable();
        let median = *times.get(times.len() / 2).filter(|_| times.len() >= TELLING)?;
        (median < PLAUSIBLE).then(|| {
            let micros = median.as_nanos() as f64 / 1000.0;
            format!("durable writes take {micros:.1} µs, less than any device needs: they may not survive power loss")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(micros: &[u64]) -> Option<String> {
        let pace = SyncPlausibility::default();
        micros.iter().for_each(|n| pace.note(Duration::from_micros(*n)));
        pace.warning()
    }

    #[test]
    fn durable_writes_faster_than_any_device_are_warned_of() {
        assert_eq!(warning(&[]), None);
        assert_eq!(warning(&[1, 1]), None, "too few to tell");
        assert!(warning(&[1, 2, 90]).unwrap().contains("2.0 µs"));
        assert_eq!(warning(&[1, 2, 12, 13, 14]), None);
        assert_eq!(warning(&[150; 9]), None);
    }

    #[test]
    fn only_the_first_writes_are_timed_and_no_failed_one() {
        let pace = SyncPlausibility::default();
        for n in 0..100 {
            let result = pace.timed(|| if n % 2 == 0 { Ok(()) } else { Err(io::Error::other("")) });
            assert_eq!(result.is_ok(), n % 2 == 0);
        }
        assert_eq!(pace.times.lock().len(), SAMPLES);
    }
}
