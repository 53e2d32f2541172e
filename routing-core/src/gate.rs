//! A node's breaker as requests see it: without a lock.

use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{BreakerConfig, BreakerState, CircuitBreaker, Failure};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A breaker, and the part of it that a decision reads without a lock.
pub(crate) struct Gate {
    breaker: Mutex<CircuitBreaker>,
    /// 0: closed. Else when the open period ends, in nanoseconds since `origin`, plus 1.
    opens_at: AtomicU64,
    /// The one request of the half-open state is under way.
    probing: AtomicBool,
    /// Successes since the breaker was last told, so that a success costs one addition; and [`ATTENTIVE`]. In one number, so
    /// that no success can come between the two: told late, it would close a breaker that has opened since.
    successes: AtomicU64,
    origin: Instant,
}

/// The breaker wants to hear of each success: there were failures since the last.
const ATTENTIVE: u64 = 1 << 63;

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
    pub(crate) fn new(config: BreakerConfig) -> Self {
        Self {
            breaker: Mutex::new(CircuitBreaker::new(config)),
            opens_at: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            successes: AtomicU64::new(0),
            origin: Instant::now(),
        }
    }

    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        self.lock().state(now)
    }

    /// Takes the half-open state's only slot; `false` when another request has it.
    pub(crate) fn take_trial(&self) -> bool {
        !self.probing.swap(true, Relaxed)
    }

    pub(crate) fn return_trial(&self) {
        self.probing.store(false, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn admission(&self, now: Instant) -> Admission {
        match self.opens_at.load(Relaxed) {
            0 => Admission::Admitted,
            end => {
                let until = self.origin + Duration::from_nanos(end - 1);
                match until.checked_duration_since(now) {
                    Some(left) if !left.is_zero() => Admission::Refused(left),
                    _ if self.probing.load(Relaxed) => Admission::Refused(Duration::ZERO),
                    _ => Admission::Trial,
                }
            }
        }
    }

    pub(crate) fn success(&self, now: Instant) {
        // A healthy node's success ends here; the breaker hears of it with the next failure.
        if self.successes.fetch_add(1, Relaxed) & ATTENTIVE != 0 {
            self.tell(now, |_| {});
        }
    }

    pub(crate) fn failure(&self, kind: Failure, now: Instant) {
        self.tell(now, |breaker| breaker.record_failure(kind, now, fastrand::f64()));
    }

    pub(crate) fn probe_succeeded(&self, now: Instant) {
        if self.opens_at.load(Relaxed) != 0 {
            self.tell(now, |breaker| breaker.probe_succeeded(now));
        }
    }

    fn tell(&self, now: Instant, event: impl FnOnce(&mut CircuitBreaker)) {
        let mut breaker = self.lock();
        let successes = self.successes.swap(ATTENTIVE, Relaxed) & !ATTENTIVE;
        breaker.record_successes(u32::try_from(successes).unwrap_or(u32::MAX), now);
        event(&mut breaker);
        let end = breaker.opens_until().map_or(0, |until| {
            u64::try_from(until.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX - 1) + 1
        });
        self.opens_at.store(end, Relaxed);
        if end == 0 && breaker.consecutive_failures() == 0 {
            self.successes.fetch_and(!ATTENTIVE, Relaxed);
        }
    }
}
