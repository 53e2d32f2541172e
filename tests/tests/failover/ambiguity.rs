//! Two standbys of one dead primary are promoted: both are out of recovery, on one timeline, and nothing tells them apart.

use std::time::Duration;

use routing_core::{RouteError, RouterConfig};
use routing_tests::{
    Handle as _, Mode, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, TestCluster, Writers, eventually,
    reader, router, served_by, throughout, writer,
};

use crate::{impatient, quiet};

routing_tests::on_both! {
    two_primaries_on_one_timeline_get_no_write_until_one_is_gone,
}

async fn two_primaries_on_one_timeline_get_no_write_until_one_is_gone<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    // Neither is declared dead for an answer that comes late.
    let config = RouterConfig { probe_timeout: PATIENCE, ..cluster.config_through(&proxies) };
    let router = router::<O>(impatient(config)).await;
    let writers = Writers::start(&router, 10);
    writers.go_on(50).await;
    quiet(&cluster, &writers).await;
    cluster.kill(PRIMARY).await;
    eventually(PATIENCE, "the death is seen", async || router.refuses(PRIMARY, "down")).await;

    // Both are promoted before the router hears of either, and are heard one after the other.
    for node in REPLICAS {
        proxies.get(node).set(Mode::Blackhole);
    }
    writers.release();
    let promote = "SELECT pg_promote()";
    tokio::join!(cluster.sql(REPLICAS[0], promote), cluster.sql(REPLICAS[1], promote));
    let before = writers.writes().acknowledged().count();
    proxies.get(REPLICAS[0]).set(Mode::Pass);
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxies.get(REPLICAS[1]).set(Mode::Pass);
    let ambiguous = |words: &str| {
        router.status().primary_missing.is_some_and(|why| why.starts_with("ambiguous") && why.contains(words))
    };
    eventually(PATIENCE, "both are heard", async || ambiguous("pg2 on timeline 2, pg3 on timeline 2")).await;
    throughout(Duration::from_secs(2), "nothing is written", async || {
        ambiguous("pg2") && writers.writes().acknowledged().count() == before
    })
    .await;
    let error = writer(&router).insert_note("writer", "lost").await.expect_err("there are two primaries");
    let Some(RouteError::AmbiguousPrimary(claims)) = O::route_error(&error) else { panic!("{error}") };
    assert_eq!(claims.to_string(), "pg2 on timeline 2, pg3 on timeline 2");
    assert!(error.to_string().contains("fence all but one"), "{error}");
    let error = served_by(&reader(&router)).await.expect_err("which one has the data of the others?");
    assert!(O::route_error(&error).is_some(), "{error}");
    let status = router.status();
    assert_eq!((status.primary, status.epoch), (None, 1));
    for node in REPLICAS {
        assert!(router.refuses(node, "claims to be the primary on timeline 2"), "{:?}", router.node(node));
        let written = cluster.notes_by(node, "traffic").await;
        assert_eq!(usize::try_from(written).expect("a count"), before, "{node} got no write");
    }

    cluster.stop("pg3").await;
    writers.go_on(50).await;
    let writes = writers.stop().await;
    writes.assert_typed();
    writes.assert_kept(&cluster, &["pg2"]).await;
    assert_eq!(router.status().epoch, 2);
}
