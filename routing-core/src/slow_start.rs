//! How much of its share a node gets that has just come.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What it gets at first: enough to warm its cache with, and little enough to be slow at.
const FLOOR: f32 = 0.1;

/// The ramp of one node: from a tenth of its share to the whole, along a straight line. A server that has just started has
/// nothing in its cache; its full share at once would be slow, and keep it slow. (Envoy has the same for its clusters.)
///
/// Its owner says how much time has passed since some instant that it keeps.
// In this order: the first is read by each decision, and shares its cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SlowStart {
    /// When it began, in nanoseconds plus 1; 0: it has its whole share.
    began: AtomicU64,
    /// In nanoseconds.
    length: u64,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

impl SlowStart {
    /// The whole share.
    pub(crate) fn new(length: Duration) -> Self {
        Self { began: AtomicU64::new(0), length: nanos(length) }
    }

    /// It begins then, which may lie ahead.
    pub(crate) fn begin(&self, since: Duration) {
        if self.length > 0 {
            self.began.store(nanos(since).min(u64::MAX - 1) + 1, Relaxed);
        }
    }

    /// Whether it has begun, and nobody has seen its end.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.began.load(Relaxed) != 0
    }

    /// The part of its share that it gets now. Nobody needs to look at the time for the whole.
    #[inline]
    pub(crate) fn at(&self, since: impl FnOnce() -> Duration) -> f32 {
        match self.began.load(Relaxed) {
            0 => 1.0,
            began => self.part(began, nanos(since())),
        }
    }

    #[cold]
    fn part(&self, began: u64, now: u64) -> f32 {
        let elapsed = now.saturating_sub(began - 1);
        if elapsed >= self.length {
            // It is over. One that has begun meanwhile stays.
            let _ = self.began.compare_exchange(began, 0, Relaxed, Relaxed);
            return 1.0;
        }
        FLOOR + (1.0 - FLOOR) * (elapsed as f64 / self.length as f64) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_a_tenth_to_the_whole() {
        let ramp = SlowStart::new(Duration::from_secs(10));
        let at = |secs| ramp.at(|| Duration::from_secs(secs));
        assert_eq!(at(0), 1.0, "not before it begins");
        ramp.begin(Duration::from_secs(5));
        for (secs, expected) in [(0, 0.1), (5, 0.1), (10, 0.55), (14, 0.91), (15, 1.0), (99, 1.0)] {
            assert!((at(secs) - expected).abs() < 1e-6, "{secs}: {}", at(secs));
        }
        let none = SlowStart::new(Duration::ZERO);
        none.begin(Duration::ZERO);
        assert_eq!(none.at(|| Duration::ZERO), 1.0);
    }
}
