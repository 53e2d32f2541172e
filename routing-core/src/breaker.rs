//! The circuit breaker: after how many failures a node is left alone, and for how long.
//!
//! Pure: it is told what happened and when, and takes no lock. [`Node`](crate::Node) publishes its state to readers.
//!
//! ```text
//!            5 failures in a row, or half of the recent requests
//!   Closed ───────────────────────────────────────────────────────► Open
//!     ▲                                                              │ its time is over
//!     │ the one request it lets through succeeds                     ▼
//!     └────────────────────────────────────────────────────────── HalfOpen
//!                                 (it fails: Open again, for longer)
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// When a breaker opens and how long it stays open.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures in a row that open the breaker. Default 5. Too low: one bad moment ejects a healthy node; too
    /// high: more callers pay for a failed attempt.
    pub failures: u32,
    /// The share of failures among the requests of the last `window` that opens it, from 0 (exclusive) to 1.
    /// Default 0.5; 1 leaves the decision to `failures`.
    pub failure_rate: f64,
    /// How far back `failure_rate` looks. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Fewer requests in the window than this decide nothing by rate. Default 20.
    pub minimum_requests: u32,
    /// How long it stays open the first time. Default 1 s, jittered by ±20 % so that many processes do not come back
    /// together; it doubles with each time that the half-open attempt fails.
    #[serde(with = "humantime_serde")]
    pub first_open: Duration,
    /// The longest it stays open. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub longest_open: Duration,
    /// The share of the replicas that could serve a read otherwise which open breakers may keep away, from 0 to 1; rounded
    /// down, but one at least. Default 0.5. Beyond it those that would be tried soonest are used all the same. Too high: a
    /// fault that hits all alike leaves everything to a few, which then fail as well; too low: reads go on meeting nodes that
    /// fail. 0 keeps none away, 1 as many as there are.
    pub max_ejected: f64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            failure_rate: 0.5,
            window: Duration::from_secs(10),
            minimum_requests: 20,
            first_open: Duration::from_secs(1),
            longest_open: Duration::from_secs(60),
            max_ejected: 0.5,
        }
    }
}

/// A breaker's state, in the field's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Admits every request. Leaves to `Open` by failures.
    Closed,
    /// Refuses every request. Leaves to `HalfOpen` when its time is over.
    Open {
        /// When that is.
        until: Instant,
    },
    /// Admits one request at a time. Leaves to `Closed` by its success, to `Open` by its failure.
    HalfOpen,
}

/// How a failure weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The node did not do its work.
    Hard,
    /// The node said that it takes no one now: the open period is half as long and does not grow.
    Refusal,
}

/// Counts the outcomes of one node's requests and says whether it may have more.
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    config: BreakerConfig,
    consecutive: u32,
    /// The period that counts now and the one before; together they cover one to two windows.
    current: Tally,
    previous: Tally,
    /// `Some` from the opening until the success that closes it.
    open: Option<OpenPeriod>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    since: Option<Instant>,
    successes: u32,
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
struct OpenPeriod {
    since: Instant,
    until: Instant,
    /// How often it opened without closing in between.
    streak: u32,
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, consecutive: 0, current: Tally::default(), previous: Tally::default(), open: None }
    }

    /// Its state at `now`. It changes nothing.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.open {
            None => BreakerState::Closed,
            Some(open) if now < open.until => BreakerState::Open { until: open.until },
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// When an opened breaker lets its one request through; `None` when it is closed.
    #[must_use]
    pub fn opens_until(&self) -> Option<Instant> {
        self.open.map(|open| open.until)
    }

    /// Failures since the last success.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.consecutive
    }

    /// Records `count` successes up to `now`. A success after the open period closes the breaker.
    pub fn record_successes(&mut self, count: u32, now: Instant) {
        if count == 0 {
            return;
        }
        if self.open.is_some_and(|open| now >= open.until) {
            *self = Self::new(self.config.clone());
        }
        self.consecutive = 0;
        self.roll(now);
        self.current.successes = self.current.successes.saturating_add(count);
    }

    /// Records a failure at `now`. `jitter` is a random number from 0 to 1; it spreads the end of the open period.
    pub fn record_failure(&mut self, kind: Failure, now: Instant, jitter: f64) {
        self.consecutive = self.consecutive.saturating_add(1);
        self.roll(now);
        self.current.failures = self.current.failures.saturating_add(1);
        match self.open {
            // Requests admitted before it opened come back late; they say nothing new.
            Some(open) if now < open.until => {}
            Some(open) => self.open_for(kind, open.streak, now, jitter),
            None if self.consecutive >= self.config.failures || self.rate_exceeded() => {
                self.open_for(kind, 0, now, jitter);
            }
            None => {}
        }
    }

    /// The monitor reached the node at `now`: a long open period ends once `first_open` has passed since it began.
    pub fn probe_succeeded(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min((open.since + self.config.first_open).max(now));
        }
    }

    fn open_for(&mut self, kind: Failure, streak: u32, now: Instant, jitter: f64) {
        let (period, streak) = match kind {
            Failure::Refusal => (self.config.first_open / 2, streak),
            Failure::Hard => {
                let doubled = self.config.first_open.saturating_mul(1 << streak.min(16));
                (doubled.min(self.config.longest_open), streak.saturating_add(1))
            }
        };
        let jittered = period.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)).min(self.config.longest_open);
        self.open = Some(OpenPeriod { since: now, until: now + jittered, streak });
        self.current = Tally::default();
        self.previous = Tally::default();
    }

    fn roll(&mut self, now: Instant) {
        let since = *self.current.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age >= self.config.window {
            let old = std::mem::take(&mut self.current);
            self.previous = if age < 2 * self.config.window { old } else { Tally::default() };
            self.current.since = Some(now);
        }
    }

    fn rate_exceeded(&self) -> bool {
        let failures = u64::from(self.current.failures) + u64::from(self.previous.failures);
        let all = failures + u64::from(self.current.successes) + u64::from(self.previous.successes);
        self.config.failure_rate < 1.0
            && all >= u64::from(self.config.minimum_requests)
            && failures as f64 >= self.config.failure_rate * all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5; // no jitter

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    fn opened(now: Instant) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::new(BreakerConfig::default());
        for _ in 0..5 {
            breaker.record_failure(Failure::Hard, now, MIDDLE);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_open_it_and_four_do_not() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new(BreakerConfig::default());
        for _ in 0..4 {
            breaker.record_failure(Failure::Hard, now, MIDDLE);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        breaker.record_successes(1, now);
        for _ in 0..4 {
            breaker.record_failure(Failure::Hard, now, MIDDLE);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed, "a success in between starts the count anew");
        breaker.record_failure(Failure::Hard, now, MIDDLE);
        assert_eq!(breaker.state(now), BreakerState::Open { until: now + seconds(1.0) });
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_recent_requests_failing_opens_it() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new(BreakerConfig::default());
        for _ in 0..9 {
            breaker.record_successes(1, now);
            breaker.record_failure(Failure::Hard, now, MIDDLE);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed, "18 requests are too few to judge by rate");
        breaker.record_successes(1, now);
        breaker.record_failure(Failure::Hard, now, MIDDLE);
        assert!(matches!(breaker.state(now), BreakerState::Open { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_long_past_are_forgotten() {
        let start = Instant::now();
        let mut breaker = CircuitBreaker::new(BreakerConfig { failures: 100, ..BreakerConfig::default() });
        for _ in 0..19 {
            breaker.record_failure(Failure::Hard, start, MIDDLE);
        }
        let later = start + seconds(30.0);
        breaker.record_failure(Failure::Hard, later, MIDDLE);
        assert_eq!(breaker.state(later), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn each_failed_attempt_doubles_the_wait_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            assert_eq!(breaker.state(now), BreakerState::Open { until: now + seconds(expected) });
            now += seconds(expected);
            assert_eq!(breaker.state(now), BreakerState::HalfOpen);
            breaker.record_failure(Failure::Hard, now, MIDDLE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_when_half_open_closes_it_and_forgets_the_streak() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += seconds(1.0);
        breaker.record_failure(Failure::Hard, now, MIDDLE);
        now += seconds(2.0);
        breaker.record_successes(1, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
        for _ in 0..5 {
            breaker.record_failure(Failure::Hard, now, MIDDLE);
        }
        assert_eq!(breaker.state(now), BreakerState::Open { until: now + seconds(1.0) });
    }

    #[tokio::test(start_paused = true)]
    async fn late_news_of_requests_admitted_before_changes_nothing_while_open() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let before = breaker.state(now);
        breaker.record_failure(Failure::Hard, now + seconds(0.5), MIDDLE);
        breaker.record_successes(3, now + seconds(0.5));
        assert_eq!(breaker.state(now), before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_reaches_the_node_shortens_a_long_wait() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for wait in [1.0, 2.0, 4.0] {
            now += seconds(wait);
            breaker.record_failure(Failure::Hard, now, MIDDLE);
        }
        breaker.probe_succeeded(now + seconds(0.1));
        assert_eq!(breaker.state(now), BreakerState::Open { until: now + seconds(1.0) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusing_server_is_left_alone_for_half_the_time_without_growth() {
        let mut now = Instant::now();
        let mut breaker = CircuitBreaker::new(BreakerConfig { failures: 1, ..BreakerConfig::default() });
        for _ in 0..4 {
            breaker.record_failure(Failure::Refusal, now, MIDDLE);
            assert_eq!(breaker.state(now), BreakerState::Open { until: now + seconds(0.5) });
            now += seconds(0.5);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_stays_within_a_fifth_either_way() {
        let now = Instant::now();
        for (jitter, expected) in [(0.0, 0.8), (0.25, 0.9), (1.0, 1.2), (7.0, 1.2)] {
            let mut breaker = CircuitBreaker::new(BreakerConfig { failures: 1, ..BreakerConfig::default() });
            breaker.record_failure(Failure::Hard, now, jitter);
            assert_eq!(breaker.opens_until(), Some(now + seconds(expected)));
        }
    }
}
