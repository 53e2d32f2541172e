//! Why a node was chosen lately, without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::decision::{Access, REASONS, Reason};

/// How many decisions of each node are kept.
const KEPT: usize = 16;

/// One decision that a node won.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RecentDecision {
    /// How long ago it was.
    pub seconds_ago: f64,
    /// What the node was chosen for.
    pub access: Access,
    /// Why it was chosen.
    pub reason: Reason,
}

/// The last decisions of a node and how many there were for each reason. Counting is one atomic operation and a store.
// On cache lines of its own: each decision writes two of them.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Recent {
    began: Instant,
    /// Milliseconds since `began`, then the access, then the reason plus one; zero is an empty place.
    ring: [AtomicU64; KEPT],
    counts: [[AtomicU64; REASONS]; 2],
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            ring: [const { AtomicU64::new(0) }; KEPT],
            counts: [const { [const { AtomicU64::new(0) }; REASONS] }; 2],
        }
    }

    /// The node won its decision with this number; the next has the next.
    pub(crate) fn record(&self, number: u64, access: Access, reason: Reason, now: Instant) {
        self.counts[access as usize][reason as usize].fetch_add(1, Relaxed);
        let since = now.saturating_duration_since(self.began);
        // `as_millis` computes in 128 bits.
        let millis = since.as_secs() * 1_000 + u64::from(since.subsec_millis());
        let code = (millis << 16) | ((access as u64) << 8) | (reason as u64 + 1);
        self.ring[number as usize % KEPT].store(code, Relaxed);
    }

    /// The last decisions at `now`, the newest first.
    pub(crate) fn last(&self, now: Instant) -> Vec<RecentDecision> {
        let mut codes: Vec<u64> =
            self.ring.iter().map(|code| code.load(Relaxed)).filter(|code| *code > 0).collect();
        codes.sort_unstable_by_key(|code| std::cmp::Reverse(code >> 16));
        let since = now.saturating_duration_since(self.began);
        let decision = |code: u64| {
            let reason = *Reason::ALL.get(usize::try_from(code & 0xff).ok()?.checked_sub(1)?)?;
            let access = if (code >> 8) & 1 == Access::Read as u64 { Access::Read } else { Access::Write };
            let at = Duration::from_millis(code >> 16);
            Some(RecentDecision { seconds_ago: since.saturating_sub(at).as_secs_f64(), access, reason })
        };
        codes.into_iter().filter_map(decision).collect()
    }

    /// How often the node was chosen for each reason since it joined; reasons that never were are left out.
    pub(crate) fn counts(&self) -> Vec<(Access, Reason, u64)> {
        let of = |access: Access| {
            Reason::ALL.into_iter().map(move |reason| {
                (access, reason, self.counts[access as usize][reason as usize].load(Relaxed))
            })
        };
        of(Access::Read).chain(of(Access::Write)).filter(|(.., count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_decisions_are_shown_newest_first_and_all_are_counted() {
        let recent = Recent::new();
        assert_eq!(recent.last(Instant::now()), []);
        for number in 0..20 {
            tokio::time::advance(Duration::from_millis(500)).await;
            recent.record(number, Access::Read, Reason::LeastInFlight, Instant::now());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        recent.record(20, Access::Write, Reason::Writer, Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        let last = recent.last(Instant::now());
        assert_eq!(last.len(), KEPT);
        assert_eq!(
            last[0],
            RecentDecision { seconds_ago: 1.0, access: Access::Write, reason: Reason::Writer }
        );
        assert_eq!((last[1].seconds_ago, last[1].reason), (2.0, Reason::LeastInFlight));
        assert!(last.windows(2).all(|pair| pair[0].seconds_ago <= pair[1].seconds_ago));
        assert_eq!(
            recent.counts(),
            [(Access::Read, Reason::LeastInFlight, 20), (Access::Write, Reason::Writer, 1)]
        );
    }
}
