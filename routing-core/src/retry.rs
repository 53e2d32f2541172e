//! How often, how soon, and how much in all a failed attempt is repeated.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower::retry::budget::{Budget, TpsBudget};

/// How failed attempts are repeated. What may be repeated at all is not decided here: see
/// [`Router`](crate::Router).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts of one statement, the first included. Default 3; 1 never retries. Checkouts that fail before
    /// anything was sent are not counted: they are bounded by `acquire_deadline`.
    pub attempts: u32,
    /// The pause before the first repetition is a random time up to this. Default 10 ms.
    #[serde(with = "humantime_serde")]
    pub base: Duration,
    /// No pause is longer. Default 500 ms.
    #[serde(with = "humantime_serde")]
    pub cap: Duration,
    /// Repetitions allowed as a share of requests over the last 10 s. Default 0.2. It keeps retries from multiplying
    /// the load of a fault that hits everyone.
    pub budget_ratio: f32,
    /// Repetitions a second that are allowed however few requests there are. Default 10.
    pub budget_per_second: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 3,
            base: Duration::from_millis(10),
            cap: Duration::from_millis(500),
            budget_ratio: 0.2,
            budget_per_second: 10,
        }
    }
}

/// How far back the budget counts requests.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// A retry configuration with its budget. Clones share the budget.
#[derive(Clone)]
pub struct RetryPolicy {
    config: RetryConfig,
    budget: Arc<TpsBudget>,
}

impl RetryPolicy {
    /// A policy with a full budget.
    #[must_use]
    pub fn new(config: RetryConfig) -> Self {
        let budget = TpsBudget::new(BUDGET_WINDOW, config.budget_per_second, config.budget_ratio);
        Self { config, budget: Arc::new(budget) }
    }

    /// Counts a request, which earns its share of a repetition.
    pub fn request(&self) {
        self.budget.deposit();
    }

    /// Takes one repetition out of the budget; `false` when there is none left.
    #[must_use]
    pub fn spend(&self) -> bool {
        self.budget.withdraw()
    }

    /// Whether a statement that was attempted `attempts` times may be attempted again, the budget aside.
    #[must_use]
    pub fn allows(&self, attempts: u32) -> bool {
        attempts < self.config.attempts
    }

    /// The pause before the repetition after `attempts` attempts: a random time up to `base` × 2^(attempts−1), at most
    /// `cap` ("full jitter": Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). `random` is from
    /// 0 to 1.
    #[must_use]
    pub fn pause(&self, attempts: u32, random: f64) -> Duration {
        let exponent = attempts.saturating_sub(1).min(20);
        let longest = self.config.base.saturating_mul(1 << exponent).min(self.config.cap);
        longest.mul_f64(random.clamp(0.0, 1.0))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_the_cap_and_are_drawn_from_zero() {
        let policy = RetryPolicy::new(RetryConfig::default());
        let milliseconds = |attempts, random| policy.pause(attempts, random).as_millis();
        assert_eq!(
            [1, 2, 3, 6, 7, 60].map(|attempts| milliseconds(attempts, 1.0)),
            [10, 20, 40, 320, 500, 500]
        );
        assert_eq!(milliseconds(6, 0.0), 0);
        assert_eq!(milliseconds(6, 0.5), 160);
    }

    #[tokio::test(start_paused = true)]
    async fn when_everything_fails_repetitions_stay_near_a_fifth_of_requests() {
        let policy = RetryPolicy::new(RetryConfig { budget_per_second: 0, ..RetryConfig::default() });
        let mut repeated = 0;
        for _ in 0..1_000 {
            policy.request();
            repeated += u32::from(policy.spend());
        }
        assert!((150..=250).contains(&repeated), "{repeated}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_service_may_still_repeat() {
        let policy = RetryPolicy::new(RetryConfig::default());
        let repeated = (0..200).filter(|_| policy.spend()).count();
        assert!((90..=110).contains(&repeated), "10 a second over the window of 10 s, not {repeated}");
    }
}
