//! What a decision allocates: nothing.

use std::hint::black_box;

use routing_core::balance::{
    Balance, Candidate, LeastInFlight, PowerOfTwoChoices, Random, RoundRobin, Weighted,
};
use routing_core::testing::Decisions;

/// As many as a cluster of the documented size has, and the ends of that.
const NODES: [u16; 4] = [1, 3, 8, 32];
const DECISIONS: u64 = 100;
/// After as many, chance has led to every one of 32 nodes (the odds against are below 10^-26).
const FIRST_DECISIONS: u32 = 2_000;

fn first(_: &[Candidate<'_>]) -> usize {
    0
}

/// Allocations of so many decisions, after each node's first and the thread's: a node's counters' names are made then, and a
/// thread's place for the picture that it has seen last, once for all.
fn allocations(decisions: &Decisions, with_token: bool) -> u64 {
    let reader = decisions.reader(with_token);
    for _ in 0..FIRST_DECISIONS {
        reader.decide();
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..DECISIONS {
            black_box(reader.decide());
        }
    });
    counted.count_total
}

fn assert_none<B: Balance + 'static>(name: &str, balance: impl Fn() -> B) {
    for nodes in NODES {
        let decisions = Decisions::on(nodes, balance());
        for with_token in [false, true] {
            let count = allocations(&decisions, with_token);
            assert_eq!(count, 0, "{name}, {nodes} nodes, token: {with_token}");
        }
    }
}

#[test]
fn a_decision_allocates_nothing_whatever_the_balancer_the_size_and_the_token() {
    assert_none("least in flight", LeastInFlight::default);
    assert_none("power of two choices", PowerOfTwoChoices::default);
    assert_none("round robin", RoundRobin::default);
    assert_none("random", Random::default);
    assert_none("weighted", Weighted::default);
    assert_none("a closure", || first);
}

#[test]
fn a_fallback_to_the_primary_allocates_nothing_either() {
    let decisions = Decisions::on(3, LeastInFlight::default());
    for node in decisions.cluster().nodes().iter().filter(|node| node.name() != "pg1") {
        node.set_draining(true);
    }
    assert!(decisions.reader(false).decide(), "the primary is all that is left");
    assert_eq!(allocations(&decisions, false), 0);
}

/// Otherwise the first test above could not fail.
#[test]
fn what_a_balancer_allocates_is_counted() {
    let careless = |candidates: &[Candidate<'_>]| black_box(vec![0_usize; candidates.len()])[0];
    let decisions = Decisions::on(3, careless);
    assert_eq!(allocations(&decisions, false), DECISIONS);
}

#[test]
fn a_tokens_first_reading_allocates_nothing_either() {
    let decisions = Decisions::on(1, LeastInFlight::default());
    decisions.reader(true).decide();
    let reader = decisions.reader(true);
    let counted = allocation_counter::measure(|| {
        reader.decide();
    });
    assert_eq!(counted.count_total, 0);
}
