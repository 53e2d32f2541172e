//! The least loaded.

use super::draw::Draw;
use super::{Balance, Candidate};
use crate::decision::Reason;

/// The node with the fewest requests in flight for its share.
///
/// The default. In-flight counts rise by themselves on a slow node, which makes them the better signal than latency. The
/// request to come counts as a random part of one: of equally loaded nodes each is chosen in proportion to its share (its
/// weight, and how far its slow start is), and one that has a whole request less than the others of its share always.
#[derive(Debug)]
pub struct LeastInFlight {
    draw: Draw,
}

impl Default for LeastInFlight {
    fn default() -> Self {
        Self { draw: Draw::OfThread }
    }
}

impl LeastInFlight {
    /// With ties drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::seeded(seed) }
    }
}

impl Balance for LeastInFlight {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let mut numbers = self.draw.split();
        let mut best = (f64::INFINITY, 0);
        for (index, candidate) in candidates.iter().enumerate() {
            let load = (f64::from(candidate.in_flight) + numbers.unit()) / candidate.share();
            if load < best.0 {
                best = (load, index);
            }
        }
        best.1
    }

    fn heeds_latency(&self) -> bool {
        false
    }

    fn reason(&self) -> Reason {
        Reason::LeastInFlight
    }
}
