//! The better of two.

use std::time::Duration;

use super::draw::Draw;
use super::{Balance, Candidate};
use crate::decision::Reason;

/// Two nodes drawn at random; the one with the lower expected wait for its weight (peak latency × requests in flight) serves
/// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; the peak-following average is Finagle's
/// "peak EWMA"). One that has not answered yet is taken to be as fast as the other. In its slow start a node that was drawn
/// stands back with the probability that its share lacks.
#[derive(Debug)]
pub struct PowerOfTwoChoices {
    draw: Draw,
}

impl Default for PowerOfTwoChoices {
    fn default() -> Self {
        Self { draw: Draw::OfThread }
    }
}

impl PowerOfTwoChoices {
    /// With pairs drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::seeded(seed) }
    }
}

fn cost(candidate: &Candidate<'_>, other: &Candidate<'_>) -> f64 {
    let latency = if candidate.latency.is_zero() { other.latency } else { candidate.latency };
    let latency = latency.max(Duration::from_micros(1)).as_secs_f64();
    latency * (f64::from(candidate.in_flight) + 1.0) / f64::from(candidate.weight.max(1))
}

impl Balance for PowerOfTwoChoices {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let length = candidates.len();
        if length < 2 {
            return 0;
        }
        let mut numbers = self.draw.split();
        let first = numbers.index(length);
        let second = (first + 1 + numbers.index(length - 1)) % length;
        let (a, b) = (&candidates[first], &candidates[second]);
        match (numbers.happens(a.ramp()), numbers.happens(b.ramp())) {
            (true, false) => first,
            (false, true) => second,
            _ if cost(b, a) < cost(a, b) => second,
            _ => first,
        }
    }

    fn reason(&self) -> Reason {
        Reason::PowerOfTwoChoices
    }
}
