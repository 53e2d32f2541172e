//! By turns.

use std::sync::atomic::{AtomicU32, Ordering};

use super::draw::Draw;
use super::{Balance, Candidate};
use crate::decision::Reason;

/// One after the other, whatever their weights. With a changing set of candidates the turn goes on by position, not by
/// name. In its slow start a node lets turns pass with the probability that its share lacks.
#[derive(Debug)]
pub struct RoundRobin {
    turn: AtomicU32,
    draw: Draw,
}

impl Default for RoundRobin {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl RoundRobin {
    pub(super) fn starting_at(turn: u32) -> Self {
        Self { turn: AtomicU32::new(turn), draw: Draw::OfThread }
    }

    fn turn(&self, length: usize) -> usize {
        // fetch_add wraps around; the turn after u32::MAX is 0.
        self.turn.fetch_add(1, Ordering::Relaxed) as usize % length.max(1)
    }
}

impl Balance for RoundRobin {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let mut turn = self.turn(candidates.len());
        if candidates.iter().all(|candidate| candidate.ramp() >= 1.0) {
            return turn;
        }
        let mut numbers = self.draw.split();
        for _ in 1..candidates.len() {
            if numbers.happens(candidates[turn].ramp()) {
                break;
            }
            turn = self.turn(candidates.len());
        }
        turn
    }

    fn heeds_latency(&self) -> bool {
        false
    }

    fn reason(&self) -> Reason {
        Reason::RoundRobin
    }
}
