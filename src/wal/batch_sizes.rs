//! A histogram of the records in each frame, by powers of two.

/// Number of classes. The last class also counts every larger frame.
const SIZES: usize = 16;

/// A histogram of how many records each frame of a log held: the batch sizes of group commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchSizes {
    frames: u64,
    records: u64,
    most: u32,
    by_size: [u64; SIZES],
}

impl BatchSizes {
    /// Counts a frame. A frame without records is not counted.
    pub(crate) fn add(&mut self, records: u32) {
        let Some(power) = records.checked_ilog2() else { return };
        self.frames = self.frames.saturating_add(1);
        self.records = self.records.saturating_add(u64::from(records));
        self.most = self.most.max(records);
        let size = usize::try_from(power).map_or(SIZES, |power| power).min(SIZES.saturating_sub(1));
        if let Some(count) = self.by_size.get_mut(size) {
            *count = count.saturating_add(1);
        }
    }

    /// Number of frames that held records.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Number of records in all frames.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Number of records in the largest batch.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Mean number of records in a frame; 0 without frames.
    pub fn mean(&self) -> f64 {
        if self.frames == 0 { 0.0 } else { self.records as f64 / self.frames as f64 }
    }

    /// The histogram: the smallest batch of each class and the number of frames in it. The classes
    /// are 1 record, 2 to 3, 4 to 7 and so on. Empty classes are left out; the last class has no
    /// upper end.
    pub fn by_size(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.by_size.iter().zip(0..u32::BITS).filter(|(count, _)| **count > 0).map(|(count, power)| {
            // no shift overflows: there are fewer classes than bits
            (1u32.checked_shl(power).unwrap_or(u32::MAX), *count)
        })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for BatchSizes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        #[derive(serde::Serialize)]
        struct Class {
            records_at_least: u32,
            frames: u64,
        }

        let classes = self.by_size().map(|(records_at_least, frames)| Class { records_at_least, frames });
        let mut sizes = serializer.serialize_struct("BatchSizes", 4)?;
        sizes.serialize_field("frames", &self.frames)?;
        sizes.serialize_field("records", &self.records)?;
        sizes.serialize_field("most", &self.most)?;
        sizes.serialize_field("by_size", &classes.collect::<Vec<_>>())?;
        sizes.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_powers_of_two_and_empty_ones_are_not() {
        let mut groups = BatchSizes::default();
        [0, 1, 1, 2, 3, 4, 7, 8, u32::MAX].into_iter().for_each(|records| groups.add(records));
        assert_eq!(groups.by_size().collect::<Vec<_>>(), [(1, 2), (2, 2), (4, 2), (8, 1), (1 << 15, 1)]);
        assert_eq!((groups.frames(), groups.most()), (8, u32::MAX));
        assert_eq!(groups.records(), 26 + u64::from(u32::MAX));
        assert_eq!(BatchSizes::default().mean(), 0.0);
    }
}
