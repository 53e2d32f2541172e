//! By weight.

use super::draw::Draw;
use super::random::drawn;
use super::{Balance, Candidate};
use crate::decision::Reason;

/// Any of them, in proportion to their weights; one in its slow start less often.
#[derive(Debug)]
pub struct Weighted {
    draw: Draw,
}

impl Default for Weighted {
    fn default() -> Self {
        Self { draw: Draw::OfThread }
    }
}

impl Weighted {
    /// Drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::seeded(seed) }
    }
}

impl Balance for Weighted {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        drawn(&mut self.draw.split(), candidates, |candidate| candidate.share())
    }

    fn heeds_latency(&self) -> bool {
        false
    }

    fn reason(&self) -> Reason {
        Reason::Weighted
    }
}
