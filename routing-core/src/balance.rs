//! Which of several equally permitted nodes serves.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::decision::Reason;

/// What a balancer sees of a node that may serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// The node's name.
    pub name: &'a str,
    /// Requests that hold a connection of the node, or wait for one, in this process.
    pub in_flight: u32,
    /// The node's weight from the configuration; 1 unless set, never 0.
    pub weight: u32,
    /// The node's recent latency: an average that follows peaks at once and forgets them slowly. Zero before the
    /// first answer.
    pub latency: Duration,
}

/// Chooses among the nodes that may serve. It is *not* responsible for health, freshness or permits: every candidate
/// has passed those.
///
/// Called once for each read with at least one candidate; it must not block. A closure is a balancer:
///
/// ```
/// use routing_core::balance::{Balance, Candidate};
///
/// let first = |_: &[Candidate<'_>]| 0;
/// fn takes(_: impl Balance) {}
/// takes(first);
/// ```
pub trait Balance: Send + Sync {
    /// The index of the chosen candidate. An index out of range is taken as the last candidate.
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize;

    /// The reason that metrics and spans show for this choice.
    fn reason(&self) -> Reason {
        Reason::Balanced
    }
}

impl<F> Balance for F
where
    F: Fn(&[Candidate<'_>]) -> usize + Send + Sync,
{
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        self(candidates)
    }
}

/// Random numbers for balancing from one atomic counter (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", 2014): no lock, and the same sequence from the same seed.
struct Draw(AtomicU64);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0. The bias is below `bound` / 2^64.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn index(&self, length: usize) -> usize {
        self.below(length.max(1) as u64) as usize
    }
}

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draw")
    }
}

macro_rules! seeded {
    ($name:ident) => {
        impl Default for $name {
            fn default() -> Self {
                Self::seeded(fastrand::u64(..))
            }
        }
    };
}

/// The node with the fewest requests in flight for its weight; ties at random, so that idle nodes share evenly.
///
/// The default. In-flight counts rise by themselves on a slow node, which makes them the better signal than latency.
#[derive(Debug)]
pub struct LeastInFlight {
    draw: Draw,
}

seeded!(LeastInFlight);

impl LeastInFlight {
    /// With ties drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::new(seed) }
    }
}

/// Compares two loads for their weights without division: a/wa against b/wb. The request to come counts as one.
fn lighter(a: &Candidate<'_>, b: &Candidate<'_>) -> std::cmp::Ordering {
    let left = (u64::from(a.in_flight) + 1) * u64::from(b.weight.max(1));
    let right = (u64::from(b.in_flight) + 1) * u64::from(a.weight.max(1));
    left.cmp(&right)
}

impl Balance for LeastInFlight {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let mut best = 0;
        let mut ties = 1_u64;
        for (index, candidate) in candidates.iter().enumerate().skip(1) {
            match lighter(candidate, &candidates[best]) {
                std::cmp::Ordering::Less => (best, ties) = (index, 1),
                std::cmp::Ordering::Equal => {
                    // Reservoir sampling: each of k ties ends up chosen with probability 1/k.
                    ties += 1;
                    if self.draw.below(ties) == 0 {
                        best = index;
                    }
                }
                std::cmp::Ordering::Greater => {}
            }
        }
        best
    }

    fn reason(&self) -> Reason {
        Reason::LeastInFlight
    }
}

/// Two nodes drawn at random; the one with the lower expected wait (peak latency × requests in flight) serves
/// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
#[derive(Debug)]
pub struct PowerOfTwoChoices {
    draw: Draw,
}

seeded!(PowerOfTwoChoices);

impl PowerOfTwoChoices {
    /// With pairs drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::new(seed) }
    }

    fn cost(candidate: &Candidate<'_>) -> u128 {
        // A node that never answered costs a microsecond: it gets tried, and its in-flight count still tells.
        let latency = candidate.latency.as_nanos().max(1_000);
        latency * (u128::from(candidate.in_flight) + 1)
    }
}

impl Balance for PowerOfTwoChoices {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let length = candidates.len();
        if length < 2 {
            return 0;
        }
        let first = self.draw.index(length);
        let second = (first + 1 + self.draw.index(length - 1)) % length;
        let (a, b) = (&candidates[first], &candidates[second]);
        let weighted_a = Self::cost(a) * u128::from(b.weight.max(1));
        let weighted_b = Self::cost(b) * u128::from(a.weight.max(1));
        if weighted_b < weighted_a { second } else { first }
    }

    fn reason(&self) -> Reason {
        Reason::PowerOfTwoChoices
    }
}

/// One after the other. With a changing set of candidates the turn goes on by position, not by name.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turn: AtomicU32,
}

impl Balance for RoundRobin {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        // fetch_add wraps around; the turn after u32::MAX is 0.
        self.turn.fetch_add(1, Ordering::Relaxed) as usize % candidates.len().max(1)
    }

    fn reason(&self) -> Reason {
        Reason::RoundRobin
    }
}

/// Any of them, evenly.
#[derive(Debug)]
pub struct Random {
    draw: Draw,
}

seeded!(Random);

impl Random {
    /// Drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::new(seed) }
    }
}

impl Balance for Random {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        self.draw.index(candidates.len())
    }

    fn reason(&self) -> Reason {
        Reason::Random
    }
}

/// Any of them, in proportion to their weights.
#[derive(Debug)]
pub struct Weighted {
    draw: Draw,
}

seeded!(Weighted);

impl Weighted {
    /// Drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { draw: Draw::new(seed) }
    }
}

impl Balance for Weighted {
    fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
        let total: u64 = candidates.iter().map(|c| u64::from(c.weight.max(1))).sum();
        let mut ticket = self.draw.below(total.max(1));
        for (index, candidate) in candidates.iter().enumerate() {
            let weight = u64::from(candidate.weight.max(1));
            if ticket < weight {
                return index;
            }
            ticket -= weight;
        }
        0
    }

    fn reason(&self) -> Reason {
        Reason::Weighted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const _OBJECT_SAFE: Option<&dyn Balance> = None;

    fn candidate(in_flight: u32, weight: u32, latency_ms: u64) -> Candidate<'static> {
        Candidate { name: "n", in_flight, weight, latency: Duration::from_millis(latency_ms) }
    }

    fn counts(balance: &dyn Balance, candidates: &[Candidate<'_>], rounds: usize) -> Vec<usize> {
        let mut counts = vec![0; candidates.len()];
        for _ in 0..rounds {
            counts[balance.choose(candidates)] += 1;
        }
        counts
    }

    #[test]
    fn the_least_loaded_for_its_weight_serves() {
        let balance = LeastInFlight::seeded(1);
        let table: [(&[(u32, u32)], usize); 4] = [
            (&[(3, 1), (1, 1), (2, 1)], 1),
            (&[(0, 1), (1, 4)], 1), // (1+1)/4 < (0+1)/1
            (&[(5, 1)], 0),
            (&[(u32::MAX, 1), (u32::MAX, 2)], 1),
        ];
        for (loads, expected) in table {
            let candidates: Vec<_> = loads.iter().map(|&(load, weight)| candidate(load, weight, 1)).collect();
            assert_eq!(balance.choose(&candidates), expected, "{loads:?}");
        }
    }

    #[test]
    fn idle_nodes_share_evenly() {
        for balance in [
            &LeastInFlight::seeded(7) as &dyn Balance,
            &PowerOfTwoChoices::seeded(7),
            &Random::seeded(7),
            &Weighted::seeded(7),
            &RoundRobin::default(),
        ] {
            let share = counts(balance, &[candidate(0, 1, 1); 4], 4_000);
            assert!(share.iter().all(|n| (850..1_150).contains(n)), "{} {share:?}", balance.reason());
        }
    }

    #[test]
    fn weights_are_kept() {
        let share = counts(&Weighted::seeded(3), &[candidate(0, 1, 1), candidate(0, 3, 1)], 4_000);
        assert!((2_850..3_150).contains(&share[1]), "{share:?}");
    }

    #[test]
    fn of_two_choices_a_slow_node_wins_only_against_itself() {
        let nodes = [candidate(0, 1, 1), candidate(0, 1, 1), candidate(0, 1, 50)];
        assert_eq!(counts(&PowerOfTwoChoices::seeded(5), &nodes, 3_000)[2], 0);
    }

    #[test]
    fn the_turn_survives_the_end_of_its_counter() {
        let balance = RoundRobin { turn: AtomicU32::new(u32::MAX - 1) };
        let nodes = [candidate(0, 1, 1); 3];
        let turns: Vec<_> = (0..4).map(|_| balance.choose(&nodes)).collect();
        assert_eq!(turns, [2, 0, 0, 1]);
    }

    #[test]
    fn the_same_seed_chooses_the_same_nodes() {
        let (a, b) = (Random::seeded(42), Random::seeded(42));
        let nodes = [candidate(0, 1, 1); 8];
        assert!((0..100).all(|_| a.choose(&nodes) == b.choose(&nodes)));
    }
}
