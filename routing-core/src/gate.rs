//! A node's breaker as requests see it: without a lock.

use std::mem::offset_of;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{BreakerConfig, BreakerState, CircuitBreaker, Failure};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A breaker, and the part of it that a decision reads without a lock.
// In this order: what requests read and write while all is well comes first, on a cache line with the like.
#[repr(C)]
pub(crate) struct Gate {
    /// 0: closed. Else when the open period ends, in nanoseconds since `origin`, plus 1.
    opens_at: AtomicU64,
    /// Successes since the breaker was last told, so that a success costs one addition; and [`ATTENTIVE`]. In one number, so
    /// that no success can come between the two: told late, it would close a breaker that has opened since.
    successes: AtomicU64,
    /// The one request of the half-open state is under way.
    probing: AtomicBool,
    origin: Instant,
    window: Duration,
    told: Mutex<Told>,
}

/// The breaker wants to hear of each success: there were failures since the last.
const ATTENTIVE: u64 = 1 << 63;

/// The breaker, and when it heard something last.
struct Told {
    breaker: CircuitBreaker,
    at: Instant,
}

impl Told {
    /// How many of the successes since it heard something last are of its last window, if they came evenly. An hour of
    /// successes must not hide that most requests fail now.
    fn recent(&self, successes: u64, window: Duration, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.at);
        let share = if since <= window { 1.0 } else { window.as_secs_f64() / since.as_secs_f64() };
        (successes as f64 * share).ceil() as u32
    }
}

/// What a node's breaker says to one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go.
    Admitted,
    /// Go, if no one else takes the half-open state's only slot first.
    Trial,
    /// No, for this much longer.
    Refused(Duration),
}

impl Gate {
    /// How many of its bytes a request reads or writes while the breaker is closed and nothing fails: the first.
    pub(crate) const READ_BY_DECISIONS: usize = offset_of!(Self, probing);

    pub(crate) fn new(config: BreakerConfig) -> Self {
        let origin = Instant::now();
        Self {
            window: config.window,
            told: Mutex::new(Told { breaker: CircuitBreaker::new(config), at: origin }),
            opens_at: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            successes: AtomicU64::new(0),
            origin,
        }
    }

    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        self.lock().breaker.state(now)
    }

    /// Takes the half-open state's only slot; `false` when another request has it, or had it and has failed.
    pub(crate) fn take_trial(&self, now: Instant) -> bool {
        if self.probing.swap(true, Relaxed) {
            return false;
        }
        let open = self.until().is_some_and(|until| now < until);
        if open {
            self.return_trial();
        }
        !open
    }

    /// When the open period ends; `None` when the breaker is closed.
    fn until(&self) -> Option<Instant> {
        self.opens_at.load(Relaxed).checked_sub(1).map(|end| self.instant(end))
    }

    fn instant(&self, nanos: u64) -> Instant {
        self.origin + Duration::from_nanos(nanos)
    }

    pub(crate) fn return_trial(&self) {
        self.probing.store(false, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the breaker is not closed.
    #[inline(always)]
    pub(crate) fn has_opened(&self) -> bool {
        self.opens_at.load(Relaxed) != 0
    }

    // Inlined: of a closed breaker it is one comparison.
    #[inline(always)]
    pub(crate) fn admission(&self, now: Instant) -> Admission {
        match self.opens_at.load(Relaxed) {
            0 => Admission::Admitted,
            end => self.admission_after(self.instant(end - 1), now),
        }
    }

    /// The same of a breaker that has opened, until then.
    #[cold]
    fn admission_after(&self, until: Instant, now: Instant) -> Admission {
        match until.checked_duration_since(now) {
            Some(left) if !left.is_zero() => Admission::Refused(left),
            _ if self.probing.load(Relaxed) => Admission::Refused(Duration::ZERO),
            _ => Admission::Trial,
        }
    }

    /// Whether the success closed the breaker.
    // Inlined: of a healthy node it is one operation.
    #[inline(always)]
    pub(crate) fn success(&self, now: Instant) -> bool {
        // A healthy node's success ends here; the breaker hears of it with the next failure.
        self.successes.fetch_add(1, Relaxed) & ATTENTIVE != 0 && self.tell(now, |_| {})
    }

    pub(crate) fn failure(&self, kind: Failure, now: Instant) {
        self.tell(now, |breaker| breaker.record_failure(kind, now, fastrand::f64()));
    }

    pub(crate) fn probe_succeeded(&self, now: Instant) {
        if self.opens_at.load(Relaxed) != 0 {
            self.tell(now, |breaker| breaker.probe_succeeded(now));
        }
    }

    /// Whether that closed it.
    fn tell(&self, now: Instant, event: impl FnOnce(&mut CircuitBreaker)) -> bool {
        let mut told = self.lock();
        let successes = self.successes.swap(ATTENTIVE, Relaxed) & !ATTENTIVE;
        let successes = told.recent(successes, self.window, now);
        told.at = now;
        let breaker = &mut told.breaker;
        breaker.record_successes(successes, now);
        event(breaker);
        let end = breaker.opens_until().map_or(0, |until| {
            u64::try_from(until.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX - 1) + 1
        });
        let was_open = self.opens_at.swap(end, Relaxed) != 0;
        if end == 0 && breaker.consecutive_failures() == 0 {
            self.successes.fetch_and(!ATTENTIVE, Relaxed);
        }
        was_open && end == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Gate {
        let gate = Gate::new(BreakerConfig::default());
        (0..5).for_each(|_| gate.failure(Failure::Hard, now));
        gate
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_second_to_a_trial_that_has_failed_meanwhile_has_no_place() {
        let gate = opened(Instant::now());
        let later = Instant::now() + Duration::from_secs(2);
        // Both have seen the half-open state.
        assert_eq!(gate.admission(later), Admission::Trial);
        assert!(gate.take_trial(later));
        gate.failure(Failure::Hard, later);
        gate.return_trial();
        assert!(!gate.take_trial(later));
        // The slot itself is not lost by that.
        let much_later = later + Duration::from_secs(60);
        assert_eq!(gate.admission(much_later), Admission::Trial);
        assert!(gate.take_trial(much_later));
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_of_successes_does_not_hide_that_most_requests_fail_now() {
        let gate = Gate::new(BreakerConfig::default());
        let start = Instant::now();
        for second in 0..3_600 {
            gate.success(start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(3_600);
        let opens = (0..40).any(|step| {
            let now = now + Duration::from_millis(100 * step);
            if step % 3 == 0 {
                gate.success(now);
            } else {
                gate.failure(Failure::Hard, now);
            }
            gate.state(now) != BreakerState::Closed
        });
        assert!(opens, "within four seconds of ten requests each");
    }
}
