//! How far behind a replica is, without a clock of any server.
//!
//! The monitor keeps what the primary's log position was at which instant of *this process's* monotonic clock. A
//! replica that has replayed up to R is then judged by two figures that are never mixed:
//!
//! - the **staleness bound**: everything committed before the newest sample at or below R is visible on the replica.
//!   So its data is at most (now − that sample) old. It is a proof, and it ages by itself when probes stop.
//! - the **lag** that people read: now − the first sample above R, and none when R has reached the newest sample. It
//!   is zero on an idle primary, where the bound still breathes with the probe interval.
//!
//! ```text
//!   primary samples   10    20    20    20    30    40   (log position)
//!                     t0    t1    t2    t3    t4    t5   (our clock; a sample's instant is when its probe was sent)
//!   replica at 20:                   bound since t3 ┘└ lag since t4
//! ```

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::lsn::Lsn;

/// How many distinct positions are remembered: at the default probe interval of 250 ms and a primary that never
/// idles, 17 minutes.
const CAPACITY: usize = 4_096;

/// When the primary was seen at which position, within one writer epoch.
#[derive(Clone, Debug, Default)]
pub struct PrimaryHistory {
    /// Strictly rising by position and by time. Equal positions are one entry, so an idle primary costs nothing.
    samples: VecDeque<Sample>,
    /// Samples that had to be dropped for room.
    dropped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    lsn: Lsn,
    first: Instant,
    last: Instant,
}

/// Since when a replica lags, for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// It has replayed all that the primary was seen to have.
    CaughtUp,
    /// The first position that it has not replayed was seen at this instant.
    Since(Instant),
    /// It lags for longer than the history reaches: at least since this instant.
    SinceBefore(Instant),
    /// There is no sample to compare with.
    Unknown,
}

impl PrimaryHistory {
    /// Remembers that the primary had written up to `lsn` at `sent`, the instant when its probe was sent. Samples that
    /// come out of order add nothing and are left out.
    pub fn record(&mut self, lsn: Lsn, sent: Instant) {
        match self.samples.back_mut() {
            Some(newest) if sent < newest.last || lsn < newest.lsn => {}
            Some(newest) if lsn == newest.lsn => newest.last = sent,
            _ => {
                if self.samples.len() == CAPACITY {
                    self.samples.pop_front();
                    self.dropped = true;
                }
                self.samples.push_back(Sample { lsn, first: sent, last: sent });
            }
        }
    }

    /// Forgets everything: the samples of one writer epoch say nothing about the next.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The newest position and when it was last seen.
    #[must_use]
    pub fn newest(&self) -> Option<(Lsn, Instant)> {
        self.samples.back().map(|sample| (sample.lsn, sample.last))
    }

    /// The instant that a replica at `replayed` is fresh as of: the newest sample at or below. `None` is unknown, which
    /// is not fresh.
    #[must_use]
    pub fn fresh_as_of(&self, replayed: Lsn) -> Option<Instant> {
        let above = self.samples.partition_point(|sample| sample.lsn <= replayed);
        Some(self.samples[above.checked_sub(1)?].last)
    }

    /// Since when a replica at `replayed` lags.
    #[must_use]
    pub fn behind(&self, replayed: Lsn) -> Behind {
        let above = self.samples.partition_point(|sample| sample.lsn <= replayed);
        match self.samples.get(above) {
            None if self.samples.is_empty() => Behind::Unknown,
            None => Behind::CaughtUp,
            Some(first) if above == 0 && self.dropped => Behind::SinceBefore(first.first),
            Some(first) => Behind::Since(first.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn history(samples: &[(u64, u64)], start: Instant) -> PrimaryHistory {
        let mut history = PrimaryHistory::default();
        for &(second, lsn) in samples {
            history.record(Lsn::from(lsn), start + Duration::from_secs(second));
        }
        history
    }

    #[tokio::test(start_paused = true)]
    async fn bound_and_lag_follow_the_drawn_example() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let history = history(&[(0, 10), (1, 20), (2, 20), (3, 20), (4, 30), (5, 40)], start);
        let table = [
            // replayed, fresh as of, behind
            (5, None, Behind::Since(at(0))),
            (10, Some(at(0)), Behind::Since(at(1))),
            (19, Some(at(0)), Behind::Since(at(1))),
            (20, Some(at(3)), Behind::Since(at(4))),
            (39, Some(at(4)), Behind::Since(at(5))),
            (40, Some(at(5)), Behind::CaughtUp),
            (99, Some(at(5)), Behind::CaughtUp),
        ];
        for (replayed, fresh, behind) in table {
            let replayed = Lsn::from(replayed);
            assert_eq!(
                (history.fresh_as_of(replayed), history.behind(replayed)),
                (fresh, behind),
                "{replayed}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_sample_nothing_is_known() {
        let history = PrimaryHistory::default();
        assert_eq!(history.fresh_as_of(Lsn::from(1)), None);
        assert_eq!(history.behind(Lsn::from(1)), Behind::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_hour_costs_one_entry_and_raises_no_lag() {
        let start = Instant::now();
        let samples: Vec<_> = (0..3_600).map(|second| (second, 10)).collect();
        let history = history(&samples, start);
        assert_eq!(history.samples.len(), 1);
        assert_eq!(history.behind(Lsn::from(10)), Behind::CaughtUp);
        assert_eq!(history.fresh_as_of(Lsn::from(10)), Some(start + Duration::from_secs(3_599)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_below_the_kept_history_is_behind_for_at_least_that_long() {
        let start = Instant::now();
        let samples: Vec<_> = (0..5_000).map(|second| (second, 10 + second)).collect();
        let history = history(&samples, start);
        assert!(matches!(history.behind(Lsn::from(11)), Behind::SinceBefore(_)));
        assert_eq!(history.fresh_as_of(Lsn::from(11)), None);
    }

    proptest! {
        /// The law of the bound: whatever was committed (at or below a sample's position) before the instant that the
        /// history calls fresh has been replayed.
        #[test]
        fn nothing_older_than_the_bound_is_missing(steps in prop::collection::vec((0_u64..50, 1_u64..1_000), 1..60), replayed in 0_u64..2_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let start = Instant::now();
                let mut history = PrimaryHistory::default();
                let (mut lsn, mut time) = (0, 0);
                let mut truth = Vec::new();
                for (grown, passed) in steps {
                    lsn += grown;
                    time += passed;
                    truth.push((lsn, start + Duration::from_millis(time)));
                    history.record(Lsn::from(lsn), start + Duration::from_millis(time));
                }
                if let Some(fresh) = history.fresh_as_of(Lsn::from(replayed)) {
                    for (lsn, seen) in truth {
                        assert!(seen > fresh || lsn <= replayed, "{lsn} seen before the bound is not replayed");
                    }
                }
            });
        }
    }
}
