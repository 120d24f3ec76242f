//! How long things took, counted in classes that grow by powers of two, each divided into 32: exact to three per cent, in little memory.

use std::time::Duration;

const STEPS_LOG2: u32 = 5;
const STEPS: u64 = 1 << STEPS_LOG2;
const CLASSES: usize = 64 << STEPS_LOG2;

#[derive(Clone, Debug)]
pub(super) struct Tally {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally { counts: vec![0; CLASSES], total: 0 }
    }
}

fn class(nanos: u64) -> usize {
    let class = match nanos.checked_ilog2() {
        Some(power) if power >= STEPS_LOG2 => {
            let shift = power - STEPS_LOG2;
            (u64::from(shift) + 1) * STEPS + ((nanos >> shift) - STEPS)
        }
        _ => nanos,
    };
    usize::try_from(class).map_or(CLASSES - 1, |class| class.min(CLASSES - 1))
}

/// The largest that is counted in a class.
fn upper(class: usize) -> u64 {
    let class = class as u64;
    match (class / STEPS).checked_sub(1) {
        None => class,
        Some(shift) => ((STEPS + class % STEPS + 1) << shift) - 1,
    }
}

impl Tally {
    pub(super) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(class(nanos)) {
            *count += 1;
            self.total += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Tally) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
    }

    pub(super) fn count(&self) -> u64 {
        self.total
    }

    /// What this part of them did not exceed, in microseconds; 0 if there were none.
    pub(super) fn micros(&self, part: f64) -> f64 {
        let rank = (self.total as f64 * part).ceil().max(1.0);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > 0 && seen as f64 >= rank {
                return upper(class) as f64 / 1e3;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_counted_in_a_class_that_is_three_per_cent_wide_at_the_most() {
        for nanos in (0..70).chain((6..40).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 7])) {
            let upper = upper(class(nanos));
            assert!(upper >= nanos && upper <= nanos + nanos / 32, "{nanos} counts as {upper}");
        }
    }

    #[test]
    fn percentiles_are_of_all_that_was_merged() {
        let (mut low, mut high) = (Tally::default(), Tally::default());
        (1..=900).for_each(|n| low.add(Duration::from_micros(n)));
        (901..=1000).for_each(|n| high.add(Duration::from_micros(n)));
        low.merge(&high);
        assert_eq!(low.count(), 1000);
        for (part, micros) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            assert!((low.micros(part) / micros - 1.0).abs() < 0.04, "{part}: {}", low.micros(part));
        }
        assert_eq!(Tally::default().micros(0.5), 0.0);
    }
}
