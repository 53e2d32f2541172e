//! Connections that the server closes because nobody uses them.

use routing_core::Consistency;
use routing_tests::{
    Handle as _, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, reader,
    reader_on, served_by, writer,
};

routing_tests::on_both! {
    a_read_connection_that_the_server_closed_for_idleness_costs_no_read_an_error,
    a_write_connection_that_the_server_closed_for_idleness_costs_no_write_an_error,
}

/// A cluster that closes what the application leaves idle.
async fn impatient() -> TestCluster {
    let cluster = TestCluster::start().await;
    cluster.sql(PRIMARY, "ALTER ROLE app SET idle_session_timeout = '300ms'").await;
    cluster.wait_replayed().await;
    cluster
}

async fn all_are_closed(cluster: &TestCluster) {
    for node in NODES {
        eventually(PATIENCE, "the server has closed what was idle", async || {
            cluster.app_processes(node, "true").await == 0
        })
        .await;
    }
}

async fn a_read_connection_that_the_server_closed_for_idleness_costs_no_read_an_error<O: Orm>() {
    let cluster = impatient().await;
    let router = cluster.router::<O>().await;

    for round in 0..8 {
        for node in REPLICAS {
            reader_on(&router, node).await;
        }
        let lease = router.read(Consistency::Strong).await;
        drop(lease.unwrap_or_else(|error| panic!("a connection of the primary: {error}")));
        all_are_closed(&cluster).await;
        for _ in 0..4 {
            let db = reader(&router);
            let node = served_by(&db).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert!(REPLICAS.contains(&node.as_str()), "{node}");
        }
    }
    for node in NODES {
        assert_eq!(router.node(node).breaker, "closed", "{node}");
    }
}

async fn a_write_connection_that_the_server_closed_for_idleness_costs_no_write_an_error<O: Orm>() {
    let cluster = impatient().await;
    let router = cluster.router::<O>().await;

    for _ in 0..4 {
        writer(&router).insert_note("idle", "kept").await.expect("a write");
        all_are_closed(&cluster).await;
        let insert = "INSERT INTO note (author, text) VALUES ('idle', 'kept') RETURNING text";
        writer(&router).transaction(&[insert]).await.expect("a transaction");
        all_are_closed(&cluster).await;
    }
    assert_eq!(cluster.notes_by(PRIMARY, "idle").await, 8, "each was written once");
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}
