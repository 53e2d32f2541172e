//! How much of its share a node gets that has just come.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// What it gets at first: enough to warm its cache with, and little enough to be slow at.
const FLOOR: f32 = 0.1;

/// The ramp of one node: from a tenth of its share to the whole, along a straight line. A server that has just started has
/// nothing in its cache; its full share at once would be slow, and keep it slow. (Envoy has the same for its clusters.)
#[derive(Debug)]
pub(crate) struct SlowStart {
    length: Duration,
    origin: Instant,
    /// Nanoseconds since `origin`, plus 1; 0: it has its whole share.
    began: AtomicU64,
}

impl SlowStart {
    /// The whole share.
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, origin: Instant::now(), began: AtomicU64::new(0) }
    }

    /// It begins at this instant, which may lie ahead.
    pub(crate) fn begin(&self, at: Instant) {
        if !self.length.is_zero() {
            let began = at.saturating_duration_since(self.origin).as_nanos();
            self.began.store(u64::try_from(began).unwrap_or(u64::MAX - 1) + 1, Relaxed);
        }
    }

    /// The part of its share that it gets at `now`.
    #[inline]
    pub(crate) fn at(&self, now: Instant) -> f32 {
        self.began.load(Relaxed).checked_sub(1).map_or(1.0, |began| self.since(began, now))
    }

    #[cold]
    fn since(&self, began: u64, now: Instant) -> f32 {
        let elapsed = now.saturating_duration_since(self.origin + Duration::from_nanos(began));
        if elapsed >= self.length {
            // It is over: nobody needs to look at the clock for it again. One that has begun meanwhile stays.
            let _ = self.began.compare_exchange(began + 1, 0, Relaxed, Relaxed);
            return 1.0;
        }
        FLOOR + (1.0 - FLOOR) * elapsed.div_duration_f32(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_share_grows_from_a_tenth_to_the_whole() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let ramp = SlowStart::new(Duration::from_secs(10));
        assert_eq!(ramp.at(start), 1.0, "not before it begins");
        ramp.begin(after(5));
        for (at, expected) in [(0, 0.1), (5, 0.1), (10, 0.55), (14, 0.91), (15, 1.0), (99, 1.0)] {
            assert!((ramp.at(after(at)) - expected).abs() < 1e-6, "{at}: {}", ramp.at(after(at)));
        }
        let none = SlowStart::new(Duration::ZERO);
        none.begin(start);
        assert_eq!(none.at(start), 1.0);
    }
}
