//! Replicas that are worse than their peers, and yet not down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use routing_core::balance::{Balance, LeastInFlight, PowerOfTwoChoices};
use routing_core::testing::{FakeBackend, FakeError};
use routing_core::{Fault, Lease, RouterConfig};
use tokio::time::{sleep, timeout};

use crate::{Scene, ms, secs};

const SEED: u64 = 20;

fn unchanged(_: &mut RouterConfig) {}

async fn a_slow_replica_loses_its_traffic(balance: impl Balance + 'static, per_second: u64) -> f64 {
    let name = balance.reason();
    let scene = Scene::balanced(3, balance, unchanged).await;
    scene.set_latency(ms(5));
    let before = scene.load(per_second, secs(2), SEED).await.of("pg4");
    assert!((0.25..0.42).contains(&before), "{name}: a third while all are alike, not {before}");
    scene.servers.server("pg4").set_latency(ms(100));
    let first = scene.load(per_second, secs(1), SEED + 1).await;
    let then = scene.load(per_second, secs(5), SEED + 2).await;
    eprintln!(
        "outlier | {name} | {per_second}/s, 20 times slower | share {:.3} in the first second, {:.3} then",
        first.of("pg4"),
        then.of("pg4")
    );
    assert_eq!((first.count("-"), then.count("-")), (0, 0), "nobody notices but by the time it takes");
    assert_eq!(scene.breaker("pg4"), "closed", "it is no fault to be slow");
    then.of("pg4")
}

#[tokio::test(start_paused = true)]
async fn a_replica_20_times_slower_than_its_peers_loses_most_of_its_traffic_within_a_second() {
    for (per_second, most) in [(2_000, 0.05), (1_000, 0.06), (200, 0.17)] {
        let share = a_slow_replica_loses_its_traffic(LeastInFlight::seeded(SEED), per_second).await;
        assert!(share < most, "{per_second}: {share}");
    }
    for per_second in [2_000, 1_000, 200] {
        let share = a_slow_replica_loses_its_traffic(PowerOfTwoChoices::seeded(SEED), per_second).await;
        assert!(share < 0.02, "{per_second}: {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_slow_is_tried_again_after_a_while_and_has_its_share_then() {
    let scene = Scene::balanced(3, PowerOfTwoChoices::seeded(SEED), unchanged).await;
    scene.set_latency(ms(5));
    scene.load(500, secs(1), SEED).await;
    scene.servers.server("pg4").set_latency(ms(100));
    scene.load(500, secs(1), SEED).await;
    scene.servers.server("pg4").set_latency(ms(5));
    let mut shares = Vec::new();
    for second in 0..40 {
        shares.push(scene.load(500, secs(1), SEED + second).await.of("pg4"));
    }
    let back = shares.iter().position(|share| *share > 0.25);
    eprintln!("outlier | power_of_two_choices | fast again | its share is back after {back:?} s");
    assert!((5..30).contains(&back.expect("it is tried again")), "{shares:?}");
    assert!(shares[35..].iter().all(|share| (0.2..0.5).contains(share)), "{shares:?}");
}

/// What `pg4` got of the attempts, and how many of them failed, while it fails three in ten at once.
async fn share_of_one_that_fails_at_once(balance: impl Balance + 'static) -> (f64, u32) {
    let scene = Scene::balanced(3, balance, |config| {
        // Only the balancer is to help here.
        (config.breaker.failures, config.breaker.failure_rate) = (u32::MAX, 1.0);
    })
    .await;
    scene.set_latency(ms(5));
    let (all, here, failed) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let counts = Arc::new((all, here, failed));
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut reads = Vec::new();
    for _ in 0..5_000 {
        sleep(ms(1)).await;
        let (request, counts, fails) = (scene.request(), counts.clone(), random.f64() < 0.3);
        reads.push(tokio::spawn(async move {
            let counts = &counts;
            request
                .run_read(async |lease: &mut Lease<FakeBackend>| {
                    counts.0.fetch_add(1, SeqCst);
                    if lease.node().name() == "pg4" {
                        counts.1.fetch_add(1, SeqCst);
                        if fails {
                            counts.2.fetch_add(1, SeqCst);
                            return Err(FakeError::Fault(Fault::Refusing));
                        }
                    }
                    lease.query().await.map(drop)
                })
                .await
        }));
    }
    for read in reads {
        read.await.unwrap().unwrap();
    }
    let [all, here, failed] = [&counts.0, &counts.1, &counts.2].map(|count| count.load(SeqCst));
    (f64::from(here) / f64::from(all), failed)
}

#[tokio::test(start_paused = true)]
async fn failing_at_once_attracts_nobody() {
    for (name, (share, failed)) in [
        ("least_in_flight", share_of_one_that_fails_at_once(LeastInFlight::seeded(SEED)).await),
        ("power_of_two_choices", share_of_one_that_fails_at_once(PowerOfTwoChoices::seeded(SEED)).await),
    ] {
        eprintln!(
            "outlier | {name} | three in ten fail at once | share {share:.3}, {failed} failed attempts"
        );
        assert!(share < 0.05, "{name}: {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_or_a_lease_that_ends_after_long_does_not_make_its_node_look_slow() {
    let scene = Scene::new(1, unchanged).await;
    scene.set_latency(ms(5));
    let lease = scene.request().acquire_read().await.unwrap();
    lease.query().await.unwrap();
    // What its caller does between two queries is no business of the node.
    sleep(secs(60)).await;
    drop(lease);
    assert!(scene.node("pg2").latency() <= ms(5));
    let query = async |lease: &mut Lease<FakeBackend>| lease.query().await;
    let (_, stream) = scene.request().run_read_keeping(query).await.unwrap();
    let lease = scene.request().acquire_read().await.unwrap();
    scene.set_latency(secs(1_000));
    for going_on in [stream, lease] {
        timeout(secs(600), going_on.query()).await.unwrap_err();
        drop(going_on);
        let latency = scene.node("pg2").latency();
        assert!(latency <= ms(5), "the node had answered in that time, not in {latency:?}");
    }
    // What has not answered at all is slow.
    timeout(secs(60), scene.read()).await.unwrap_err();
    assert!(scene.node("pg2").latency() >= secs(59));
}
