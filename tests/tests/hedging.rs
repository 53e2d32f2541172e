//! Hedged reads on real servers: the second answer counts, and the first statement ends where it runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::StreamExt as _;
use routing_core::{HedgeConfig, Reason, Router, RouterConfig};
use routing_tests::{
    Handle, Mode, NAME, Orm, PATIENCE, REPLICAS, TestCluster, eventually, reader, reader_on, router,
    served_by,
};
use tokio::time::Instant;

routing_tests::on_both! {
    the_statement_of_a_read_that_another_replica_has_answered_is_cancelled_on_its_server,
    transactions_and_streams_stay_where_they_are,
    a_run_that_is_late_by_less_than_a_connection_takes_keeps_its_connection,
}

/// Asks a server for its name; `pg2` takes so many seconds for it.
fn stalling(seconds: u32) -> String {
    format!("{NAME}, CASE current_setting('cluster_name') WHEN 'pg2' THEN pg_sleep({seconds})::text END")
}

async fn hedging<O: Orm>(cluster: &TestCluster) -> Router<O> {
    let hedge = HedgeConfig { ratio: 1.0, ..HedgeConfig::default() };
    let router = router::<O>(RouterConfig { hedge: Some(hedge), ..cluster.config() }).await;
    // What most reads take is known from these.
    for _ in 0..200 {
        served_by(&reader(&router)).await.unwrap();
    }
    router
}

async fn the_statement_of_a_read_that_another_replica_has_answered_is_cancelled_on_its_server<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = hedging::<O>(&cluster).await;
    let (mut hedges, mut longest) = (0, Duration::ZERO);
    for _ in 0..30 {
        let db = reader(&router);
        let began = Instant::now();
        assert_eq!(db.text(&stalling(600)).await.unwrap(), "pg3");
        longest = longest.max(began.elapsed());
        hedges += u32::from(db.last_decision().unwrap().reason == Reason::Hedge);
    }
    eprintln!(
        "time | {} | hedged reads of 600 s on one replica | {hedges} of 30, {longest:?} at most",
        O::NAME
    );
    assert!(hedges > 0, "some begin on the replica that stalls");
    assert!(longest < Duration::from_secs(60), "{longest:?}");
    eventually(PATIENCE, "no statement of a read that was answered goes on", async || {
        cluster.app_processes("pg2", "state <> 'idle'").await == 0
    })
    .await;
    eventually(PATIENCE, "nothing is in flight", async || {
        router.status().nodes.iter().all(|node| node.breaker == "closed" && node.in_flight == 0)
    })
    .await;
}

/// How many reads were sent to a second replica.
fn hedges<O: Orm>(router: &Router<O>) -> u64 {
    let decisions = router.status().nodes.into_iter().flat_map(|node| node.decisions);
    decisions.filter(|count| count.reason == Reason::Hedge).map(|count| count.count).sum()
}

async fn transactions_and_streams_stay_where_they_are<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = hedging::<O>(&cluster).await;
    let (one, other) = (reader_on(&router, "pg2").await, reader_on(&router, "pg2").await);
    let before = hedges(&router);
    assert_eq!(one.transaction(&[&stalling(1)]).await.unwrap(), ["pg2"]);
    let sql = "SELECT 1, current_setting('cluster_name') FROM pg_sleep(1)";
    let rows: Vec<_> = O::rows(&other, sql).await.unwrap().collect().await;
    assert_eq!(rows.into_iter().map(|row| row.unwrap().1).collect::<Vec<_>>(), ["pg2"]);
    assert_eq!(hedges(&router), before);
}

async fn a_run_that_is_late_by_less_than_a_connection_takes_keeps_its_connection<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let hedge = HedgeConfig { ratio: 1.0, percentile: 0.5, minimum_delay: Duration::from_millis(1) };
    let config = RouterConfig { hedge: Some(hedge), ..cluster.config_through(&proxies) };
    let router = router::<O>(config).await;
    let delay = |to_client| Mode::Delay { to_server: Duration::ZERO, to_client };
    proxies.get("pg3").set(delay(Duration::from_millis(2)));
    for _ in 0..200 {
        served_by(&reader(&router)).await.unwrap();
    }
    proxies.get("pg2").set(delay(Duration::from_millis(20)));
    let taken = || REPLICAS.map(|node| proxies.get(node).taken()).into_iter().sum::<u64>();
    let before = (taken(), hedges(&router));
    for number in 0..200 {
        // Whoever comes next on a connection that was given back gets its own answer.
        let sql = format!("SELECT 'answer {number}'");
        assert_eq!(reader(&router).text(&sql).await.unwrap(), format!("answer {number}"));
    }
    eventually(PATIENCE, "every connection is back", async || {
        router.status().nodes.iter().all(|node| node.read_pool.idle == node.read_pool.open)
    })
    .await;
    let (connections, hedged) = (taken() - before.0, hedges(&router) - before.1);
    eprintln!("{hedged} of 200 reads were sent twice; {connections} connections were opened");
    assert!(hedged >= 40, "many begin on the slow replica, or outlast half of the others: {hedged}");
    assert!(connections < hedged / 2, "{connections} connections for {hedged} reads that were sent twice");
}
