//! Which of several equally permitted nodes serves.

mod draw;
mod least_in_flight;
mod power_of_two_choices;
mod random;
mod round_robin;
mod weighted;

use std::time::Duration;

pub use least_in_flight::LeastInFlight;
pub use power_of_two_choices::PowerOfTwoChoices;
pub use random::Random;
pub use round_robin::RoundRobin;
pub use weighted::Weighted;

use crate::decision::Reason;

/// What a balancer sees of a node that may serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// The node's name.
    pub name: &'a str,
    /// Requests that hold a connection of the node, or wait for one, in this process, and statements that nobody waits for any
    /// more, until they have ended; and requests that failed lately, as if they were still under way: a node that fails at once
    /// would else look idle. They are forgotten with a half-life of a second.
    pub in_flight: u32,
    /// The node's weight from the configuration; 1 unless set, never 0.
    pub weight: u32,
    /// The part of its share that it gets so far, above 0 and at most 1: less than 1 for a while after it joined or came
    /// back ([`slow_start`](crate::RouterConfig::slow_start)).
    pub ramp: f32,
    /// The node's recent latency: an average that follows peaks at once and forgets them over some 20 answers, and half
    /// of them in 5 s without any. Zero before the first answer.
    pub latency: Duration,
}

impl Candidate<'_> {
    /// What its share is in proportion to; never 0.
    fn share(&self) -> f64 {
        f64::from(self.weight.max(1)) * f64::from(self.ramp()).max(0.001)
    }

    fn ramp(&self) -> f32 {
        // Whatever is no number counts as none.
        if self.ramp < 1.0 { self.ramp.max(0.0) } else { 1.0 }
    }
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

    /// Whether it looks at [`Candidate::latency`]. Of one that does not, every candidate's latency is zero: what each is now
    /// takes time to compute.
    fn heeds_latency(&self) -> bool {
        true
    }

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const _OBJECT_SAFE: Option<&dyn Balance> = None;

    fn candidate(in_flight: u32, weight: u32, latency_ms: u64) -> Candidate<'static> {
        Candidate { name: "n", in_flight, weight, ramp: 1.0, latency: Duration::from_millis(latency_ms) }
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
        let table: [(&[(u32, u32)], usize); 5] = [
            (&[(3, 1), (1, 1), (2, 1)], 1),
            (&[(1, 1), (1, 4)], 1), // at most (1+1)/4 < at least 1/1
            (&[(5, 1)], 0),
            (&[(u32::MAX, 1), (u32::MAX, 2)], 1),
            (&[(7, 2), (8, 2), (6, 2)], 2),
        ];
        for (loads, expected) in table {
            let candidates: Vec<_> = loads.iter().map(|&(load, weight)| candidate(load, weight, 1)).collect();
            assert!((0..50).all(|_| balance.choose(&candidates) == expected), "{loads:?}");
        }
    }

    #[test]
    fn idle_nodes_share_evenly() {
        // What is not seeded draws from the thread's own generator.
        fastrand::seed(7);
        for balance in [
            &LeastInFlight::default() as &dyn Balance,
            &PowerOfTwoChoices::default(),
            &Random::default(),
            &Weighted::default(),
            &LeastInFlight::seeded(7),
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
    fn the_least_loaded_share_evenly_wherever_they_stand() {
        let nodes = [3, 0, 0, 2, 0, 1].map(|in_flight| candidate(in_flight, 2, 1));
        let share = counts(&LeastInFlight::seeded(9), &nodes, 6_000);
        assert!([1, 2, 4].iter().all(|at| (1_800..2_200).contains(&share[*at])), "{share:?}");
        assert_eq!(share.iter().sum::<usize>(), 6_000);
        assert_eq!((share[0], share[3], share[5]), (0, 0, 0));
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
        let balance = RoundRobin::starting_at(u32::MAX - 1);
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

    /// All of them, of which the third takes only two candidates into account and so cannot keep exact shares.
    fn all(seed: u64) -> [Box<dyn Balance>; 5] {
        [
            Box::new(LeastInFlight::seeded(seed)),
            Box::new(Random::seeded(seed)),
            Box::new(PowerOfTwoChoices::seeded(seed)),
            Box::new(Weighted::seeded(seed)),
            Box::<RoundRobin>::default(),
        ]
    }

    #[test]
    fn a_node_in_its_slow_start_gets_that_part_of_its_share() {
        for ramp in [0.1, 0.3, 0.6] {
            let mut nodes = [candidate(0, 1, 1); 4];
            nodes[1].ramp = ramp;
            for balance in all(11) {
                let share = counts(&*balance, &nodes, 20_000);
                let part = share[1] as f32 / share[0] as f32;
                // The better of two: it cannot win more often than it is drawn. By turns: others take over its turns.
                let expected = if balance.reason() == Reason::PowerOfTwoChoices { ramp * 0.8 } else { ramp };
                let tolerance = 0.03 + 0.15 * ramp;
                assert!((part - expected).abs() < tolerance, "{} {ramp}: {share:?}", balance.reason());
            }
        }
    }

    #[test]
    fn weights_are_kept_under_load_as_well() {
        // Requests never end: what is in flight follows the weights.
        let balance = LeastInFlight::seeded(5);
        let mut nodes = [candidate(0, 1, 1), candidate(0, 3, 1)];
        for _ in 0..4_000 {
            let chosen = balance.choose(&nodes);
            nodes[chosen].in_flight += 1;
        }
        assert!((2_990..=3_010).contains(&nodes[1].in_flight), "{nodes:?}");
    }

    #[test]
    fn who_has_not_answered_yet_attracts_no_more_than_its_part() {
        let nodes = [candidate(0, 1, 5), candidate(0, 1, 0), candidate(0, 1, 5)];
        let share = counts(&PowerOfTwoChoices::seeded(5), &nodes, 3_000);
        assert!((800..1_200).contains(&share[1]), "{share:?}");
    }

    proptest! {
        #[test]
        fn whatever_the_candidates_are_one_of_them_is_chosen(
            seed: u64,
            nodes in prop::collection::vec((any::<u32>(), any::<u32>(), any::<f32>(), any::<u32>()), 1..40),
        ) {
            let candidates: Vec<_> = nodes
                .iter()
                .map(|&(in_flight, weight, ramp, micros)| Candidate {
                    ramp,
                    latency: Duration::from_micros(micros.into()),
                    ..candidate(in_flight, weight, 0)
                })
                .collect();
            for balance in all(seed) {
                for _ in 0..5 {
                    prop_assert!(balance.choose(&candidates) < candidates.len(), "{}", balance.reason());
                }
            }
        }

        #[test]
        fn more_weight_is_never_less_work(seed: u64, weights in prop::collection::vec(0_u32..9, 2..6)) {
            let candidates: Vec<_> = weights.iter().map(|weight| candidate(0, *weight, 1)).collect();
            for balance in [&LeastInFlight::seeded(seed) as &dyn Balance, &Weighted::seeded(seed)] {
                let share = counts(balance, &candidates, 4_000);
                for (a, b) in (0..weights.len()).flat_map(|a| (0..weights.len()).map(move |b| (a, b))) {
                    if weights[a].max(1) >= 2 * weights[b].max(1) {
                        prop_assert!(share[a] > share[b], "{} {weights:?} {share:?}", balance.reason());
                    }
                }
                prop_assert!(share.iter().all(|count| *count > 0), "{} {weights:?} {share:?}", balance.reason());
            }
        }
    }
}
