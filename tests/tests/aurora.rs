//! Servers that tell no positions, as Amazon Aurora's do: real ones, with functions that stand for Aurora's own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use routing_core::Consistency;
use routing_tests::{
    NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, on_both, reader_with, router,
    served_by, writer,
};

on_both!(what_only_claims_to_be_fresh_serves_reads_that_ask_for_no_proof);

const FUNCTIONS: &str = "
    CREATE FUNCTION aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '15.4.0' $$;
    CREATE FUNCTION aurora_db_instance_identifier() RETURNS text LANGUAGE sql
        AS $$ SELECT current_setting('cluster_name') $$;
    CREATE TABLE aurora_servers (server_id text, session_id text, replica_lag_in_msec float8);
    INSERT INTO aurora_servers VALUES
        ('pg1', 'MASTER_SESSION_ID', NULL), ('pg2', 'a session', 12.5), ('pg3', 'another session', 20);
    CREATE FUNCTION aurora_replica_status() RETURNS SETOF aurora_servers LANGUAGE sql STABLE
        AS $$ SELECT * FROM aurora_servers $$;
    GRANT SELECT ON aurora_servers TO monitor;";

async fn what_only_claims_to_be_fresh_serves_reads_that_ask_for_no_proof<O: Orm>() {
    let cluster = TestCluster::start().await;
    cluster.sql(PRIMARY, FUNCTIONS).await;
    cluster.wait_replayed().await;
    let router = router::<O>(cluster.config()).await;
    assert_eq!(router.status().primary.as_deref(), Some(PRIMARY));
    for name in REPLICAS {
        let node = router.node(name);
        assert_eq!((node.lsn, node.lag_bytes), (None, None), "it tells no position");
        assert!(node.staleness_seconds.unwrap() < 5.0);
    }
    let by = async |consistency| served_by(&reader_with(&router, consistency)).await.unwrap();
    for _ in 0..10 {
        assert!(REPLICAS.contains(&by(Consistency::Eventual).await.as_str()));
        let bounded = by(Consistency::BoundedStaleness(Duration::from_secs(3))).await;
        assert_eq!(bounded, PRIMARY, "a claim proves no bound");
    }
    use routing_tests::Handle as _;
    writer(&router).insert_note("aurora", "a note").await.unwrap();

    // A claim above `max_staleness` is heeded all the same.
    cluster
        .sql(PRIMARY, "UPDATE aurora_servers SET replica_lag_in_msec = 9000 WHERE server_id = 'pg2'")
        .await;
    eventually(PATIENCE, "pg2 is too stale", async || router.refuses("pg2", "stale 9")).await;
    assert_eq!(by(Consistency::Eventual).await, "pg3");
}
