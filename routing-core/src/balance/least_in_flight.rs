//! The least loaded.

use super::draw::{Draw, Numbers};
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

/// Those with the fewest requests in flight, where all have the same share. Less than one request tells them apart, so each is
/// chosen as often: it takes one random number, and no division for each.
struct Fewest {
    in_flight: u32,
    count: usize,
}

impl Fewest {
    /// `None` when shares differ.
    fn of(candidates: &[Candidate<'_>]) -> Option<Self> {
        let weight = candidates.first()?.weight;
        let mut fewest = Self { in_flight: u32::MAX, count: 0 };
        for Candidate { in_flight, weight: own, ramp, .. } in candidates {
            if *own != weight || *ramp < 1.0 {
                return None;
            }
            let same = fewest.count + usize::from(*in_flight == fewest.in_flight);
            fewest.count = if *in_flight < fewest.in_flight { 1 } else { same };
            fewest.in_flight = fewest.in_flight.min(*in_flight);
        }
        Some(fewest)
    }

    /// The index of the nth of them, without a jump that depends on what was drawn: the processor would guess it wrong.
    fn nth(&self, nth: usize, candidates: &[Candidate<'_>]) -> usize {
        let (mut index, mut left) = (0, nth as isize);
        for (at, candidate) in candidates.iter().enumerate() {
            index = if left >= 0 { at } else { index };
            left -= isize::from(candidate.in_flight == self.in_flight);
        }
        index
    }
}

/// The least loaded for its share.
fn by_share(candidates: &[Candidate<'_>], numbers: &mut Numbers) -> usize {
    let mut best = (f64::INFINITY, 0);
    for (index, candidate) in candidates.iter().enumerate() {
        let load = (f64::from(candidate.in_flight) + numbers.unit()) / candidate.share();
        if load < best.0 {
            best = (load, index);
        }
    }
    best.1
}

impl Balance for LeastInFlight {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let mut numbers = self.draw.split();
        let Some(fewest) = Fewest::of(candidates) else { return by_share(candidates, &mut numbers) };
        fewest.nth(numbers.index(fewest.count), candidates)
    }

    fn heeds_latency(&self) -> bool {
        false
    }

    fn reason(&self) -> Reason {
        Reason::LeastInFlight
    }
}
