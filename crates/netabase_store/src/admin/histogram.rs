//! Counting measurements in ranges, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// A histogram, which counts measurements in ranges with fixed bounds.
///
/// A measurement costs a search in the bounds and two atomic additions, so it may be made anywhere.
/// The unit, such as nanoseconds, is the caller's.
///
/// ```
/// use netabase_store::admin::Histogram;
///
/// let sizes = Histogram::new(&[1, 10, 100]);
/// [1, 7, 1000].into_iter().for_each(|size| sizes.observe(size));
/// let reading = sizes.read();
/// assert_eq!((reading.counts, reading.sum), (vec![1, 1, 0, 1], 1008));
/// ```
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The counts of a [`Histogram`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistogramReading {
    /// The largest measurement of each range but the last, which has no bound; in ascending order.
    pub bounds: &'static [u64],
    /// The number of measurements in each range; there is one range more than bounds.
    pub counts: Vec<u64>,
    /// The sum of all measurements.
    pub sum: u64,
}

impl Histogram {
    /// Makes a histogram whose ranges end at `bounds`, which ascend; one more range is for larger
    /// values.
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a measurement.
    pub fn observe(&self, value: u64) {
        let range = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(range) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Returns the counts. A concurrent measurement may be in a part of them only.
    pub fn read(&self) -> HistogramReading {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        HistogramReading { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl HistogramReading {
    /// Returns the number of measurements.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_in_the_first_range_that_has_room_for_it() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, u64::from(u32::MAX)] {
            histogram.observe(value);
        }
        let reading = histogram.read();
        assert_eq!((reading.counts.as_slice(), reading.count()), (&[2, 2, 2][..], 6));
        assert_eq!(reading.sum, 62 + u64::from(u32::MAX));
    }
}
