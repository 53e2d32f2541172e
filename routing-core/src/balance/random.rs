//! Any of them.

use super::draw::Draw;
use super::{Balance, Candidate};
use crate::decision::Reason;

/// Any of them, evenly; one in its slow start less often.
#[derive(Debug)]
pub struct Random {
    draw: Draw,
}

impl Default for Random {
    fn default() -> Self {
        Self { draw: Draw::OfThread }
    }
}

impl Random {
    /// Drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::seeded(seed) }
    }
}

impl Balance for Random {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let mut numbers = self.draw.split();
        drawn(&mut numbers, candidates, |candidate| f64::from(candidate.ramp()))
    }

    fn heeds_latency(&self) -> bool {
        false
    }

    fn reason(&self) -> Reason {
        Reason::Random
    }
}

/// One of them, in proportion to what `share` says of each.
pub(super) fn drawn(
    numbers: &mut super::draw::Numbers,
    candidates: &[Candidate<'_>],
    share: impl Fn(&Candidate<'_>) -> f64,
) -> usize {
    let total: f64 = candidates.iter().map(&share).sum();
    let mut ticket = numbers.unit() * total;
    for (index, candidate) in candidates.iter().enumerate() {
        ticket -= share(candidate);
        if ticket <= 0.0 {
            return index;
        }
    }
    // What rounding has left.
    candidates.len().saturating_sub(1)
}
