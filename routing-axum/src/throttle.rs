//! Saying a thing once when it happens a thousand times.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Lets one event through in each interval and counts those that it holds back.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// When the next event may pass, in milliseconds since the throttle was made.
    next: AtomicU64,
    held_back: AtomicU64,
    made: Instant,
}

impl Throttle {
    /// Between two events that pass. During an outage each refused request is an event.
    const INTERVAL: Duration = Duration::from_secs(1);

    pub(crate) fn new(now: Instant) -> Self {
        Self { next: AtomicU64::new(0), held_back: AtomicU64::new(0), made: now }
    }

    /// Whether the event at `now` passes: then how many were held back since the last that did.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let elapsed = millis(now.saturating_duration_since(self.made));
        let next = self.next.load(Relaxed);
        // Of several events at one moment, one wins the exchange.
        let passes = elapsed >= next
            && self.next.compare_exchange(next, elapsed + millis(Self::INTERVAL), Relaxed, Relaxed).is_ok();
        if passes {
            return Some(self.held_back.swap(0, Relaxed));
        }
        self.held_back.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_passes_in_each_interval_and_the_others_are_counted() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        assert_eq!(throttle.pass(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(throttle.pass(start + Duration::from_millis(999)), None);
        }
        assert_eq!(throttle.pass(start + Duration::from_secs(1)), Some(1000));
        assert_eq!(throttle.pass(start + Duration::from_secs(5)), Some(0));
    }
}
