//! A histogram of latencies, precise to one percent.

use hdrhistogram::Histogram;
use std::time::Duration;

/// The longest latency that is recorded; longer ones count as this one.
const MAX_NANOS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 2;

#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    #[expect(clippy::expect_used, reason = "the bounds are constants that a histogram accepts")]
    fn default() -> Self {
        Latencies(Histogram::new_with_bounds(1, MAX_NANOS, SIGNIFICANT_DIGITS).expect("valid bounds"))
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(MAX_NANOS));
    }

    pub(super) fn merge(&mut self, other: &Latencies) {
        self.0 += &other.0;
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency, in microseconds, that this fraction of the operations did not exceed; 0 if
    /// there were none.
    pub(super) fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_reported_within_one_percent() {
        for nanos in (1..70).chain((6..40).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 7])) {
            let mut one = Latencies::default();
            one.record(Duration::from_nanos(nanos));
            let reported = (one.micros(1.0) * 1e3).round() as u64;
            assert!(reported >= nanos && reported <= nanos + nanos / 100 + 1, "{nanos} is reported as {reported}");
        }
        let mut all = Latencies::default();
        all.record(Duration::ZERO);
        all.record(Duration::MAX);
        assert_eq!(all.count(), 2);
    }

    #[test]
    fn percentiles_are_of_all_that_was_merged() {
        let (mut low, mut high) = (Latencies::default(), Latencies::default());
        (1..=900).for_each(|n| low.record(Duration::from_micros(n)));
        (901..=1000).for_each(|n| high.record(Duration::from_micros(n)));
        low.merge(&high);
        assert_eq!(low.count(), 1000);
        for (quantile, micros) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            assert!((low.micros(quantile) / micros - 1.0).abs() < 0.011, "{quantile}: {}", low.micros(quantile));
        }
        assert_eq!(Latencies::default().micros(0.5), 0.0);
    }
}
