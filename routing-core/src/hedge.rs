//! When a second node is asked the same, and how often.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durations::Durations;
use crate::node::Node;

/// Hedged reads: when a replica keeps a read waiting for longer than most take, another one is sent it as well, and the first
/// answer counts (Dean and Barroso, "The Tail at Scale", 2013). It cuts the time of the slowest reads for some more load.
///
/// In a file: `[hedge]`, which takes the defaults of what it leaves out.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeConfig {
    /// How many reads may be sent twice, as a share of all. Default 0.05. Higher costs load without helping many more.
    pub ratio: f64,
    /// The share of recent reads that a read must have outlasted. Default 0.95: the slowest twentieth is hedged, which is
    /// what the default `ratio` pays for.
    pub percentile: f64,
    /// No read is sent twice before this time. Default 10 ms: where the slowest twentieth is sooner answered, a second statement
    /// gains little. The run that loses keeps its connection if it ends within [`LAST_WORD`](crate::pool::LAST_WORD).
    #[serde(with = "humantime_serde")]
    pub minimum_delay: Duration,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self { ratio: 0.05, percentile: 0.95, minimum_delay: Duration::from_millis(10) }
    }
}

/// So many hedges may have been saved up.
const MOST: u64 = 10;

/// The unit of the budget.
const HEDGE: u64 = 1_000_000;

/// What reads share that may be hedged: how long they take, and what is left to spend.
pub(crate) struct Hedging {
    config: HedgeConfig,
    durations: Durations,
    /// Millionths of a hedge.
    budget: AtomicU64,
}

impl Hedging {
    pub(crate) fn new(config: HedgeConfig) -> Self {
        let durations = Durations::new(config.percentile);
        Self { config, durations, budget: AtomicU64::new(0) }
    }

    /// A read that may be sent twice begins: it earns its share.
    pub(crate) fn earn(&self) {
        self.add((self.config.ratio * HEDGE as f64) as u64);
    }

    /// How long a read is waited for that one node serves, when these others could answer it too; `None` while nobody can tell.
    pub(crate) fn delay<'n>(&self, others: impl Iterator<Item = &'n Node>) -> Option<Duration> {
        // Where a slow node serves more reads than are beyond the quantile, that of all reads is the slow node's own time.
        let others = others.filter_map(|other| other.answers()?.quantile());
        let shortest = others.chain(self.durations.quantile()).min()?;
        Some(shortest.max(self.config.minimum_delay))
    }

    /// A node has answered a read after this time.
    pub(crate) fn answered(&self, node: &Node, took: Duration) {
        self.durations.record(took);
        if let Some(answers) = node.answers() {
            answers.record(took);
        }
    }

    /// Takes one hedge out of the budget; `false` when there is none.
    pub(crate) fn spend(&self) -> bool {
        self.budget.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(HEDGE)).is_ok()
    }

    /// It was not sent after all.
    pub(crate) fn give_back(&self) {
        self.add(HEDGE);
    }

    fn add(&self, millionths: u64) {
        let more = |left: u64| Some((left + millionths).min(MOST * HEDGE));
        let _ = self.budget.fetch_update(Relaxed, Relaxed, more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_may_be_sent_twice_and_little_is_saved_up() {
        let hedging = Hedging::new(HedgeConfig::default());
        let hedged = |reads: u32| {
            let each = |_| {
                hedging.earn();
                u32::from(hedging.spend())
            };
            (0..reads).map(each).sum::<u32>()
        };
        assert_eq!(hedged(10_000), 500);
        for _ in 0..10_000 {
            hedging.earn();
        }
        assert_eq!((0..100).filter(|_| hedging.spend()).count(), 10);
        hedging.give_back();
        assert!(hedging.spend() && !hedging.spend());
    }
}
