//! A full pool is not a dead server: in what the router does, in what it counts, and in what it says.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use routing_core::{RouteError, RouterConfig};
use routing_tests::{
    Handle as _, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, reader, reader_on,
    refusals, router, served_by, slowly, writer,
};
use tokio::time::Instant;

routing_tests::on_both! {
    a_full_pool_and_a_dead_server_differ_in_deed_number_and_word,
}

/// The process's one recorder.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().expect("the first recorder"))
}

/// The value of one line of the metrics; 0 when it is not there.
fn counted(line: &str) -> u64 {
    let metrics = recorder().render();
    let value = metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse::<f64>().ok());
    value.map_or(0, |value| value as u64)
}

fn faults(node: &str, fault: &str) -> u64 {
    counted(&format!("db_routing_errors_total{{node=\"{node}\",fault=\"{fault}\"}}"))
}

const FALLBACKS: &str = "db_routing_fallback_total{reason=\"fallback_no_replica\"}";

async fn a_full_pool_and_a_dead_server_differ_in_deed_number_and_word<O: Orm>() {
    recorder();
    let cluster = TestCluster::start().await;
    let config = RouterConfig {
        read_pool_size: 1,
        fallback_no_replica: Some(1),
        fallback_behind_token: Some(1),
        checkout_timeout: Duration::from_millis(500),
        write_wait: Duration::from_secs(1),
        acquire_deadline: Duration::from_secs(2),
        ..cluster.config()
    };
    let deadline = config.acquire_deadline;
    let router = router::<O>(config).await;
    // The only connection to each replica is taken by a slow query.
    let mut slow = Vec::new();
    for node in REPLICAS {
        let db = reader_on(&router, node).await;
        slow.push(tokio::spawn(async move { db.text(&slowly(600.0)).await }));
        eventually(PATIENCE, "the slow query runs", async || {
            cluster.app_processes(node, "wait_event = 'PgSleep'").await == 1
        })
        .await;
    }
    let before = (REPLICAS.map(|node| faults(node, "saturated")), counted(FALLBACKS));
    let statements =
        "SELECT coalesce(max(xact_start)::text, 'none') FROM pg_stat_activity WHERE usename = 'app'";
    let primary_before: String = cluster.value(PRIMARY, statements).await;

    for _ in 0..6 {
        let began = Instant::now();
        let error = served_by(&reader(&router)).await.expect_err("every connection is taken");
        assert!(began.elapsed() < 10 * deadline, "{:?}", began.elapsed());
        let refused = O::route_error(&error).expect("the router's own error");
        assert!(matches!(refused, RouteError::DeadlineExceeded { .. } | RouteError::NoNode(_)), "{refused}");
        for (node, why) in &refusals(refused).expect("reasons").0 {
            let why = why.to_string();
            if REPLICAS.contains(&&**node) {
                assert!(why.contains("saturated"), "{node}: {why}");
            }
            assert!(!why.contains("down") && !why.contains("unreachable"), "{node}: {why}");
        }
    }
    for (node, before) in REPLICAS.iter().zip(before.0) {
        assert!(faults(node, "saturated") > before, "it is counted for {node}");
        assert_eq!((faults(node, "unreachable"), faults(node, "unresponsive")), (0, 0), "{node}");
        assert!(router.serves(node) && router.node(node).breaker == "closed", "{:?}", router.node(node));
    }
    assert_eq!(counted(FALLBACKS), before.1, "nothing spills to the primary");
    assert_eq!(router.node(PRIMARY).read_pool.open, 0);
    assert_eq!(cluster.value::<String>(PRIMARY, statements).await, primary_before);
    writer(&router).insert_note("saturation", "kept").await.expect("writes have a pool of their own");

    // The same replicas, dead: another word, another number, and the primary takes over.
    for node in REPLICAS {
        cluster.kill(node).await;
    }
    for node in REPLICAS {
        eventually(PATIENCE, "the dead are known", async || router.refuses(node, "down")).await;
    }
    for query in slow {
        query.await.expect("no panic").map(drop).unwrap_or_else(|error| eprintln!("the slow query: {error}"));
    }
    assert_eq!(served_by(&reader(&router)).await.expect("the primary takes over"), PRIMARY);
    assert!(counted(FALLBACKS) > before.1);
    let saturated = REPLICAS.map(|node| faults(node, "saturated"));
    // With its one place taken, the next is told both: who is dead, and that the primary does no more.
    let db = reader(&router);
    let holding = tokio::spawn(async move { db.text(&slowly(5.0)).await });
    eventually(PATIENCE, "the place is taken", async || router.status().fallback_in_use == 1).await;
    let error = served_by(&reader(&router)).await.expect_err("it is shed");
    let refused = O::route_error(&error).expect("the router's own error");
    assert!(matches!(refused, RouteError::Overloaded { .. }), "{refused}");
    for (node, why) in &refusals(refused).expect("reasons").0 {
        assert!(!why.to_string().contains("saturated"), "{node}: {why}");
        assert_eq!(why.to_string().contains("down"), REPLICAS.contains(&&**node), "{node}: {why}");
    }
    assert_eq!(REPLICAS.map(|node| faults(node, "saturated")), saturated, "nobody waits for the dead");
    holding.abort();
}
