//! What a decision costs: from the picture of the cluster to the place on a node, and the place given back.
//!
//! `cargo bench -p routing-core --bench decision`. No decision reads the clock: it is handed the time.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use routing_core::balance::{LeastInFlight, PowerOfTwoChoices, Random, RoundRobin, Weighted};
use routing_core::testing::Decisions;
use tokio::time::Instant;

const NODES: [u16; 4] = [1, 3, 8, 32];

fn on(balancer: &str, nodes: u16) -> Decisions {
    match balancer {
        "least_in_flight" => Decisions::on(nodes, LeastInFlight::default()),
        "power_of_two_choices" => Decisions::on(nodes, PowerOfTwoChoices::default()),
        "round_robin" => Decisions::on(nodes, RoundRobin::default()),
        "random" => Decisions::on(nodes, Random::default()),
        _ => Decisions::on(nodes, Weighted::default()),
    }
}

fn one_thread(criterion: &mut Criterion) {
    for balancer in ["least_in_flight", "power_of_two_choices", "round_robin", "random", "weighted"] {
        let mut group = criterion.benchmark_group(format!("decision/{balancer}"));
        for nodes in NODES {
            let decisions = on(balancer, nodes);
            for (name, with_token) in [("eventual", false), ("token", true)] {
                let reader = decisions.reader(with_token);
                group.bench_function(BenchmarkId::new(name, nodes), |bencher| {
                    bencher.iter(|| black_box(reader.decide()));
                });
            }
        }
        group.finish();
    }
}

/// The time of one decision while as many threads make decisions: on the same cluster, and each on one of its own, which
/// shares nothing. Where there are fewer cores than threads, it grows by their ratio.
fn several_threads(criterion: &mut Criterion) {
    for (name, shared) in [("same_cluster", true), ("own_clusters", false)] {
        let mut group = criterion.benchmark_group(format!("threads/least_in_flight/8/{name}"));
        let clusters: Vec<_> = (0..4).map(|_| on("least_in_flight", 8)).collect();
        for threads in 1..=4_usize {
            group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
                bencher.iter_custom(|rounds| {
                    let start = Barrier::new(threads);
                    let timed = |thread: usize| {
                        let reader = clusters[if shared { 0 } else { thread }].reader(false);
                        start.wait();
                        let began = Instant::now();
                        for _ in 0..rounds {
                            black_box(reader.decide());
                        }
                        began.elapsed()
                    };
                    let timed = &timed;
                    std::thread::scope(|scope| {
                        let running: Vec<_> =
                            (0..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
                        let times =
                            running.into_iter().map(|thread| thread.join().expect("no decision panics"));
                        times.max().unwrap_or(Duration::ZERO)
                    })
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, one_thread, several_threads);
criterion_main!(benches);
