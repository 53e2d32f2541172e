//! Limits that protect the primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::priority::Priority;
use crate::sabotage::{Sabotage, disabled};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A counter with a limit, and a rate if there is one. Its permits give themselves back.
#[derive(Debug)]
pub(crate) struct Cap {
    limit: u32,
    taken: AtomicU32,
    rate: Option<Rate>,
}

impl Cap {
    pub(crate) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU32::new(0), rate: None })
    }

    /// The same, with so many permits a second at most; a second's worth may come at once.
    pub(crate) fn with_rate(limit: u32, rate: Option<u32>) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU32::new(0), rate: rate.map(Rate::new) })
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Relaxed)
    }

    /// A permit, unless all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<CapPermit> {
        self.below(self.limit)
    }

    /// A permit for a read that matters this much.
    pub(crate) fn take_for(self: &Arc<Self>, priority: Priority, now: Instant) -> Option<CapPermit> {
        let permit = self.below(priority.of(self.limit))?;
        let allowed = self.rate.as_ref().is_none_or(|rate| rate.allows(priority, now));
        allowed.then_some(permit)
    }

    fn below(self: &Arc<Self>, limit: u32) -> Option<CapPermit> {
        let one_more = |taken: u32| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(CapPermit(self.clone()))
    }
}

/// One place under a [`Cap`], for as long as it lives.
#[derive(Debug)]
pub(crate) struct CapPermit(Arc<Cap>);

impl Drop for CapPermit {
    fn drop(&mut self) {
        if disabled(Sabotage::PermitsReturn) {
            return;
        }
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

/// So many a second, by the generic cell rate algorithm (ITU-T I.371): one number says when the next would be due if all came
/// evenly, and whoever comes is let in while that lies less than a second ahead.
#[derive(Debug)]
struct Rate {
    began: Instant,
    /// Nanoseconds from one to the next.
    interval: u64,
    /// When the next is due: nanoseconds since `began`.
    due: AtomicU64,
}

/// How far ahead of an even stream a burst may run.
const BURST: Duration = Duration::from_secs(1);

impl Rate {
    fn new(per_second: u32) -> Self {
        let interval = nanos(BURST) / u64::from(per_second.max(1));
        Self { began: Instant::now(), interval, due: AtomicU64::new(0) }
    }

    fn allows(&self, priority: Priority, now: Instant) -> bool {
        let now = nanos(now.saturating_duration_since(self.began));
        // Per cent of a burst, so that classes are shed in their order.
        let ahead = nanos(BURST) / 100 * u64::from(priority.of(100));
        let next = |due: u64| {
            let after = due.max(now) + self.interval;
            (after <= now + ahead).then_some(after)
        };
        self.due.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_admits_up_to_its_limit_and_takes_permits_back() {
        let cap = Cap::new(2);
        let first = cap.take().unwrap();
        let _second = cap.take().unwrap();
        assert!(cap.take().is_none());
        drop(first);
        assert_eq!(cap.taken(), 1);
        assert!(cap.take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn classes_are_shed_in_their_order() {
        let (cap, now) = (Cap::new(10), Instant::now());
        let mut held = Vec::new();
        let mut admitted = |priority| {
            let before = held.len();
            held.extend(std::iter::from_fn(|| cap.take_for(priority, now)));
            held.len() - before
        };
        assert_eq!(admitted(Priority::Batch), 5);
        assert_eq!(admitted(Priority::Normal), 5);
        assert_eq!((admitted(Priority::Batch), admitted(Priority::Normal)), (0, 0));
        assert_eq!(admitted(Priority::Critical), 2);
        drop(held);
        assert_eq!(cap.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_over_time_and_a_refused_permit_is_given_back() {
        let cap = Cap::with_rate(1_000, Some(50));
        let at = |millis| Instant::now() + Duration::from_millis(millis);
        let admitted = |priority, now| (0..1_000).filter(|_| cap.take_for(priority, now).is_some()).count();
        let start = at(0);
        assert_eq!(admitted(Priority::Batch, start), 25, "half of a burst");
        assert_eq!(admitted(Priority::Normal, start), 25);
        assert_eq!(admitted(Priority::Critical, start), 10);
        assert_eq!(cap.taken(), 0);
        let later = start + Duration::from_secs(1);
        assert_eq!(admitted(Priority::Normal, later), 40, "what critical reads took beyond is missing");
        assert_eq!(admitted(Priority::Normal, later + Duration::from_secs(1)), 50);
        assert_eq!(admitted(Priority::Normal, later + Duration::from_secs(60)), 50, "nothing is saved up");
    }
}
