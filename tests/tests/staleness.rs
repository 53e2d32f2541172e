//! How old the data of a read may be.

use std::time::Duration;

use routing_cluster::Login;
use routing_core::{Consistency, RouterConfig};
use routing_tests::{
    NODES, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, reader, reader_with,
    router, served_by, throughout,
};
use tokio::task::JoinHandle;

routing_tests::on_both! {
    a_replica_whose_replay_stands_still_is_left_until_it_has_caught_up,
    when_all_replicas_are_stale_only_reads_without_a_bound_stay_on_them,
    an_idle_primary_raises_no_lag,
    a_replica_without_a_wal_receiver_is_not_taken_for_fresh,
}

/// A limit that a paused replay exceeds soon.
fn strict(cluster: &TestCluster) -> RouterConfig {
    RouterConfig {
        max_staleness: Duration::from_secs(1),
        max_staleness_return: Duration::from_millis(800),
        ..cluster.config()
    }
}

/// Writes that go on until the test ends.
struct Writes(JoinHandle<()>);

impl Writes {
    async fn start(cluster: &TestCluster) -> Self {
        let database = cluster.database(PRIMARY, Login::Application).await;
        Self(tokio::spawn(async move {
            // Each one takes its time on the server.
            let write = "INSERT INTO note (author, text) SELECT 'writes', pg_sleep(0.02)::text";
            while database.run(write).await.is_ok() {}
        }))
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn a_replica_whose_replay_stands_still_is_left_until_it_has_caught_up<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = router::<O>(strict(&cluster)).await;
    let _writes = Writes::start(&cluster).await;

    for (fault, remedy) in [
        ("SELECT pg_wal_replay_pause()", "SELECT pg_wal_replay_resume()"),
        ("ALTER SYSTEM SET recovery_min_apply_delay = '1h'", "ALTER SYSTEM RESET recovery_min_apply_delay"),
    ] {
        cluster.sql("pg2", fault).await;
        cluster.sql("pg2", "SELECT pg_reload_conf()").await;
        let noticed = eventually(PATIENCE, "it is stale", async || router.refuses("pg2", "stale ")).await;
        eprintln!("{fault}: stale after {noticed:?}: {:?}", router.node("pg2").refused);
        for _ in 0..100 {
            assert_eq!(served_by(&reader(&router)).await.expect("a read"), "pg3");
        }
        let stale = router.node("pg2");
        assert!(stale.lag_seconds > Some(0.5) && stale.lag_bytes > Some(0), "{stale:?}");
        assert!(router.serves("pg3"), "the other one is fresh");

        cluster.sql("pg2", remedy).await;
        cluster.sql("pg2", "SELECT pg_reload_conf()").await;
        let back = eventually(PATIENCE, "it serves again", async || router.serves("pg2")).await;
        eprintln!("{remedy}: back after {back:?}");
        eventually(PATIENCE, "it is read from", async || {
            served_by(&reader(&router)).await.expect("a read") == "pg2"
        })
        .await;
    }
}

async fn when_all_replicas_are_stale_only_reads_without_a_bound_stay_on_them<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = router::<O>(strict(&cluster)).await;
    let _writes = Writes::start(&cluster).await;

    for replica in REPLICAS {
        cluster.sql(replica, "SELECT pg_wal_replay_pause()").await;
    }
    for replica in REPLICAS {
        eventually(PATIENCE, "it is stale", async || router.refuses(replica, "stale ")).await;
    }
    let bounded = Consistency::BoundedStaleness(Duration::from_secs(30));
    for _ in 0..20 {
        let eventual = served_by(&reader(&router)).await.expect("a read");
        assert!(REPLICAS.contains(&eventual.as_str()), "the least stale replica spares the primary");
        let bounded = served_by(&reader_with(&router, bounded)).await.expect("a read");
        assert_eq!(bounded, PRIMARY, "a bound is kept");
    }
    for replica in REPLICAS {
        cluster.sql(replica, "SELECT pg_wal_replay_resume()").await;
    }
    for replica in REPLICAS {
        eventually(PATIENCE, "it serves again", async || router.serves(replica)).await;
    }
    let fresh = served_by(&reader_with(&router, bounded)).await.expect("a read");
    assert!(REPLICAS.contains(&fresh.as_str()), "{fresh}");
}

async fn an_idle_primary_raises_no_lag<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    // What it would write by itself some seconds after the last work, it writes now.
    cluster.sql(PRIMARY, "CHECKPOINT").await;
    let position = "SELECT pg_current_wal_flush_lsn()::text";
    let before: String = cluster.value(PRIMARY, position).await;
    eventually(PATIENCE, "the router has seen that", async || {
        NODES.iter().all(|node| router.node(node).lsn.is_some_and(|lsn| lsn.to_string() == before))
    })
    .await;

    let mut highest = 0.0_f64;
    throughout(Duration::from_secs(60), "an idle cluster lags nowhere", async || {
        REPLICAS.iter().all(|replica| {
            let node = router.node(replica);
            highest = highest.max(node.lag_seconds.unwrap_or(f64::INFINITY));
            node.serving && node.lag_seconds < Some(1.0) && node.staleness_seconds < Some(2.0)
        })
    })
    .await;
    let idle = before == cluster.value::<String>(PRIMARY, position).await;
    eprintln!("the primary wrote nothing: {idle}; highest lag {highest} s");
    assert!(!idle || highest == 0.0, "{highest} s of lag behind a primary that wrote nothing");
}

async fn a_replica_without_a_wal_receiver_is_not_taken_for_fresh<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    let upstream: String = cluster.value("pg2", "SELECT current_setting('primary_conninfo')").await;

    // Nothing is written meanwhile: its position equals the primary's, and yet proves nothing.
    cluster.set("pg2", "primary_conninfo", "").await;
    let noticed =
        eventually(PATIENCE, "it is refused", async || router.refuses("pg2", "receives no log")).await;
    eprintln!("refused after {noticed:?}");
    for _ in 0..50 {
        assert_eq!(served_by(&reader(&router)).await.expect("a read"), "pg3");
    }
    let loose = Consistency::BoundedStaleness(Duration::from_secs(60));
    assert_eq!(served_by(&reader_with(&router, loose)).await.expect("a read"), "pg3");

    cluster.set("pg2", "primary_conninfo", &upstream).await;
    eventually(PATIENCE, "it serves again", async || NODES.iter().all(|node| router.serves(node))).await;
    eventually(PATIENCE, "it is read from", async || {
        served_by(&reader(&router)).await.expect("a read") == "pg2"
    })
    .await;
}
