//! How long reads take: a quantile of the recent ones.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Each doubling of a duration is cut into so many: a quantile is too high by an eighth at most.
const PARTS: usize = 8;
const BUCKETS: usize = 32 * PARTS;

/// Fewer samples than this say nothing.
const FEWEST: u32 = 100;

/// At so many samples all counts are halved: what is older than some thousand reads hardly counts.
const MOST: u32 = 1_024;

/// The quantile is taken anew after so many samples.
const REFRESH: u32 = 32;

/// A histogram of recent durations in doubling steps, and one quantile of it. Counting is three atomic operations and takes
/// no lock; counts that several threads halve and add to at once may miss a few.
pub(crate) struct Durations {
    quantile: f64,
    counts: [AtomicU32; BUCKETS],
    samples: AtomicU32,
    /// Microseconds; 0: too few samples yet.
    value: AtomicU64,
}

/// Microseconds to the number of their bucket: below `PARTS` each its own, then `PARTS` for each doubling.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    let doubling = micros.ilog2() as usize;
    let bucket = match doubling.checked_sub(PARTS.ilog2() as usize) {
        None | Some(0) => micros as usize,
        Some(shift) => (shift << PARTS.ilog2()) + (micros >> shift) as usize,
    };
    bucket.min(BUCKETS - 1)
}

/// The first value beyond a bucket.
fn end(bucket: usize) -> u64 {
    if bucket < 2 * PARTS {
        return bucket as u64 + 1;
    }
    let shift = bucket / PARTS - 1;
    ((bucket - shift * PARTS) as u64 + 1) << shift
}

impl Durations {
    pub(crate) fn new(quantile: f64) -> Self {
        let counts = [const { AtomicU32::new(0) }; BUCKETS];
        Self { quantile, counts, samples: AtomicU32::new(0), value: AtomicU64::new(0) }
    }

    pub(crate) fn record(&self, duration: Duration) {
        self.counts[bucket(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))].fetch_add(1, Relaxed);
        let samples = self.samples.fetch_add(1, Relaxed) + 1;
        if samples >= FEWEST && samples.is_multiple_of(REFRESH) {
            self.value.store(self.take(), Relaxed);
        }
        if samples == MOST {
            for count in &self.counts {
                let _ = count.fetch_update(Relaxed, Relaxed, |count| (count > 0).then_some(count / 2));
            }
            self.samples.store(MOST / 2, Relaxed);
        }
    }

    /// The quantile of the recent durations, rounded up; `None` while there are too few.
    pub(crate) fn quantile(&self) -> Option<Duration> {
        Some(self.value.load(Relaxed)).filter(|value| *value > 0).map(Duration::from_micros)
    }

    fn take(&self) -> u64 {
        let counts = || self.counts.iter().map(|count| u64::from(count.load(Relaxed)));
        let wanted = (counts().sum::<u64>() as f64 * self.quantile).ceil() as u64;
        let mut seen = 0;
        let reached = counts().position(|count| {
            seen += count;
            seen >= wanted
        });
        end(reached.unwrap_or(BUCKETS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap_and_are_an_eighth_wide_at_most() {
        let mut last = bucket(1);
        for micros in 2..100_000_u64 {
            let this = bucket(micros);
            assert!(this == last || this == last + 1, "{micros}");
            assert!(micros < end(this) && (this == 0 || micros >= end(this - 1)), "{micros}");
            assert!(end(this) <= micros + micros.div_ceil(8), "{micros}");
            last = this;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_quantile_is_known_from_a_hundred_samples_on_and_follows_what_changes() {
        let durations = Durations::new(0.95);
        for millis in 1..=100 {
            assert_eq!(durations.quantile(), None);
            durations.record(Duration::from_millis(millis));
        }
        (0..28).for_each(|_| durations.record(Duration::from_millis(50)));
        let quantile = durations.quantile().unwrap();
        assert!((94..107).contains(&quantile.as_millis()), "{quantile:?}");
        (0..3_000).for_each(|_| durations.record(Duration::from_millis(1)));
        let quantile = durations.quantile().unwrap();
        assert!((1_000..1_200).contains(&quantile.as_micros()), "{quantile:?}");
    }
}
