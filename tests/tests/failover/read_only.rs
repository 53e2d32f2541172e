//! A server out of recovery whose sessions start read-only: promoted and not ready, or in maintenance.

use std::time::Duration;

use routing_core::{RouteError, Router, RouterConfig};
use routing_tests::{
    Handle as _, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, TestCluster, Writers, eventually, figures,
    router, throughout, writer,
};

use crate::{follow, impatient, patient, quiet};

routing_tests::on_both! {
    a_promoted_server_that_is_read_only_gets_no_write_and_causes_no_flapping,
    a_primary_in_maintenance_is_no_demotion,
    a_refused_write_has_every_server_looked_at_at_once,
}

const READ_ONLY: &str = "default_transaction_read_only";

async fn a_promoted_server_that_is_read_only_gets_no_write_and_causes_no_flapping<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = router::<O>(patient(cluster.config())).await;
    let writers = Writers::start(&router, 10);
    writers.go_on(50).await;
    quiet(&cluster, &writers).await;
    let before = cluster.notes_by("pg2", "traffic").await;
    cluster.set("pg2", READ_ONLY, "on").await;
    cluster.kill(PRIMARY).await;
    cluster.sql("pg2", "SELECT pg_promote()").await;
    follow(&cluster, "pg3", "pg2").await;
    writers.release();
    eventually(PATIENCE, "it is seen, and the old one missed", async || {
        router.refuses("pg2", "read-only") && router.status().primary.is_none()
    })
    .await;
    throughout(Duration::from_secs(4), "it is waited for", async || {
        let status = router.status();
        status.epoch == 1
            && status.primary.is_none()
            && router.node("pg2").write_pool.open == 0
            && cluster.notes_by("pg2", "traffic").await == before
    })
    .await;
    cluster.set("pg2", READ_ONLY, "off").await;
    writers.go_on(100).await;
    let writes = writers.stop().await;
    writes.assert_typed();
    writes.assert_kept(&cluster, &["pg2", "pg3"]).await;
    let status = router.status();
    assert_eq!((status.primary.as_deref(), status.epoch), (Some("pg2"), 2), "it changed once");
}

/// Whether the primary is the same as ever, and refuses writes.
fn is_read_only<O: Orm>(router: &Router<O>) -> bool {
    let status = router.status();
    status.primary.as_deref() == Some(PRIMARY) && status.primary_missing.as_deref() == Some("read-only")
}

async fn a_primary_in_maintenance_is_no_demotion<O: Orm>() {
    let cluster = TestCluster::start().await;
    let patient = router::<O>(patient(cluster.config())).await;
    let impatient = router::<O>(impatient(cluster.config())).await;
    let writers = Writers::start(&patient, 20);
    writers.go_on(100).await;
    cluster.set(PRIMARY, READ_ONLY, "on").await;
    eventually(PATIENCE, "it is seen", async || is_read_only(&patient) && is_read_only(&impatient)).await;
    let error = writer(&impatient).insert_note("writer", "lost").await.expect_err("it is read-only");
    assert!(matches!(O::route_error(&error), Some(RouteError::NoPrimary(_))), "{error}");
    throughout(Duration::from_secs(1), "nobody else is chosen", async || {
        [&patient, &impatient].iter().all(|router| is_read_only(router) && router.status().epoch == 1)
    })
    .await;
    cluster.set(PRIMARY, READ_ONLY, "off").await;
    writers.go_on(100).await;
    let writes = writers.stop().await;
    figures::gap::<O>(
        "the primary is read-only for a while",
        "between acknowledged writes",
        writes.longest_gap(),
    );
    writes.assert_all_acknowledged();
    writes.assert_kept(&cluster, &NODES).await;
    assert_eq!((patient.status().epoch, impatient.status().epoch), (1, 1));
}

async fn a_refused_write_has_every_server_looked_at_at_once<O: Orm>() {
    let cluster = TestCluster::start().await;
    // The next tick is far off.
    let never = Duration::from_secs(600);
    let config = RouterConfig {
        probe_interval: never,
        max_staleness: 4 * never,
        max_staleness_return: 4 * never,
        ..impatient(cluster.config())
    };
    let router = router::<O>(config).await;
    writer(&router).insert_note("writer", "first").await.expect("a write");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let seen = |node| router.node(node).probe_age_seconds.expect("it answers");
    let before = NODES.map(seen);
    cluster.set(PRIMARY, READ_ONLY, "on").await;
    eventually(PATIENCE, "the write is refused", async || {
        writer(&router).insert_note("writer", "lost").await.is_err()
    })
    .await;
    assert!(is_read_only(&router), "its role was verified");
    for (node, before) in NODES.into_iter().zip(before) {
        assert!(seen(node) < before + 0.05, "{node} was looked at again: {} after {before}", seen(node));
    }
    assert_eq!(router.status().epoch, 1);
    cluster.set(PRIMARY, READ_ONLY, "off").await;
    eventually(PATIENCE, "writes go on", async || {
        writer(&router).insert_note("writer", "last").await.is_ok()
    })
    .await;
    assert_eq!(router.status().epoch, 1);
}
