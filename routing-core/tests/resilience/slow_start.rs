//! Replicas that come back, or are new, begin slowly.

use routing_core::balance::{Balance, LeastInFlight, PowerOfTwoChoices, RoundRobin};
use routing_core::testing::Reach;
use tokio::time::{Instant, sleep};

use crate::{Scene, ms, secs};

const SEED: u64 = 5;

/// The shares of `pg4`, second by second.
async fn shares(scene: &Scene, seconds: u64) -> Vec<f64> {
    let mut shares = Vec::new();
    for second in 0..seconds {
        shares.push(scene.load(500, secs(1), SEED + second).await.of("pg4"));
    }
    shares
}

async fn come_back(balance: impl Balance + 'static) -> (&'static str, Vec<f64>) {
    let name = balance.reason().as_str();
    let scene = Scene::balanced(3, balance, |_| {}).await;
    scene.set_latency(ms(5));
    let start = shares(&scene, 1).await;
    assert!(start[0] > 0.25, "{name}: every node has its share when the router starts: {start:?}");
    scene.servers.server("pg4").set_reach(Reach::Refused);
    sleep(secs(2)).await;
    scene.servers.server("pg4").set_reach(Reach::Up);
    sleep(ms(500)).await;
    (name, shares(&scene, 14).await)
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_down_gets_its_share_little_by_little() {
    for (name, shares) in [
        come_back(LeastInFlight::seeded(SEED)).await,
        come_back(PowerOfTwoChoices::seeded(SEED)).await,
        come_back(RoundRobin::default()).await,
    ] {
        let shown: Vec<_> = shares.iter().map(|share| format!("{share:.2}")).collect();
        eprintln!("slow start | {name} | share of the third replica by second | {}", shown.join(" "));
        assert!((0.01..0.18).contains(&shares[0]), "{name}: {shares:?}");
        assert!((0.08..0.27).contains(&shares[4]), "{name}: {shares:?}");
        assert!(shares[11..].iter().all(|share| *share > 0.25), "{name}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_joins_comes_back_to_work_or_has_its_breaker_closed_begins_slowly_as_well() {
    let scene = Scene::new(3, |config| drop(config.nodes.pop())).await;
    let ramp = |scene: &Scene, name| scene.node(name).ramp(Instant::now());
    assert!(["pg1", "pg2", "pg3"].iter().all(|name| ramp(&scene, name) == 1.0), "at the start nobody does");
    scene.router.cluster().add_node(scene.servers.config().nodes.pop().unwrap()).unwrap();
    sleep(ms(500)).await;
    assert!(ramp(&scene, "pg4") < 0.2, "it joins");

    scene.open_breaker("pg2").await;
    sleep(secs(2)).await;
    assert_eq!(ramp(&scene, "pg2"), 1.0);
    while scene.breaker("pg2") != "closed" {
        scene.read().await.unwrap();
    }
    assert!(ramp(&scene, "pg2") < 0.2, "its breaker has closed");

    scene.router.cluster().drain("pg3").unwrap();
    sleep(secs(1)).await;
    scene.router.cluster().undrain("pg3").unwrap();
    assert!(ramp(&scene, "pg3") < 0.2, "it was drained");
    let status = scene.router.status();
    assert!(status.nodes.iter().filter(|node| node.ramp < 1.0).count() == 3, "the status shows it");
    sleep(secs(10)).await;
    assert!(["pg1", "pg2", "pg3", "pg4"].iter().all(|name| ramp(&scene, name) == 1.0));
}
