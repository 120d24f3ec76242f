//! Times the first durable writes, to detect a storage that acknowledges them too early.

use crate::io::sync::{AtomicUsize, Mutex, Ordering};
use std::io;
use std::time::{Duration, Instant};

/// The number of durable writes that are timed. The median of nine is safe from four outliers.
const SAMPLES: usize = 9;
/// The minimum number of samples for a warning. The median of three is safe from one outlier.
const MIN_SAMPLES: usize = 3;
/// Half the latency of the fastest durable devices known: flash with power-loss protection and
/// phase-change memory take about 10 µs, system call included.
const MIN_PLAUSIBLE: Duration = Duration::from_micros(5);

/// The latencies of the first durable writes, and of the first syncs that had something to write.
#[derive(Debug, Default)]
pub(super) struct SyncPlausibility {
    taken: AtomicUsize,
    times: Mutex<Vec<Duration>>,
}

impl SyncPlausibility {
    /// Runs a durable write, and times it if it is one of the first that succeed.
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

    /// A warning, if the median is faster than any known device.
    pub(super) fn warning(&self) -> Option<String> {
        let mut times = self.times.lock().clone();
        times.sort_unstable();
        let median = *times.get(times.len() / 2).filter(|_| times.len() >= MIN_SAMPLES)?;
        (median < MIN_PLAUSIBLE).then(|| {
            let micros = median.as_nanos() as f64 / 1000.0;
            format!("durable writes take {micros:.1} µs, less than any device needs: they may not survive power loss")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(micros: &[u64]) -> Option<String> {
        let plausibility = SyncPlausibility::default();
        micros.iter().for_each(|n| plausibility.note(Duration::from_micros(*n)));
        plausibility.warning()
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
        let plausibility = SyncPlausibility::default();
        for n in 0..100 {
            let result = plausibility.timed(|| if n % 2 == 0 { Ok(()) } else { Err(io::Error::other("")) });
            assert_eq!(result.is_ok(), n % 2 == 0);
        }
        assert_eq!(plausibility.times.lock().len(), SAMPLES);
    }
}
