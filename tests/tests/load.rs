//! What the load program stands on sees what it is to see.

use std::time::Duration;

use routing_tests::load::LagSampler;
use routing_tests::{REPLICAS, TestCluster};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_replays_nothing_is_seen_to_lag_and_the_other_is_not() {
    let cluster = TestCluster::start().await;
    let sampler = LagSampler::start(&cluster, &REPLICAS).await;
    cluster.sql(REPLICAS[0], "SELECT pg_wal_replay_pause()").await;
    sleep(Duration::from_secs(3)).await;
    let lags = sampler.stop();
    let maximum = |number: usize| lags[number].1.maximum();
    assert!(maximum(0) > 1.0, "{lags:?}");
    assert!(maximum(1) < maximum(0) / 2.0, "{lags:?}");
}
