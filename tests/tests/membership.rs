//! Servers that join and leave a running router, real ones, under traffic.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use routing_cluster::{Login, SilentProgress};
use routing_core::NodeConfig;
use routing_tests::Handle as _;
use routing_tests::{
    NodeView as _, Orm, PATIENCE, PRIMARY, Readers, TestCluster, eventually, on_both, writer,
};

on_both!(servers_come_and_go_without_a_failed_request, a_new_password_reaches_new_connections);

async fn servers_come_and_go_without_a_failed_request<O: Orm>() {
    let mut cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    let readers = Readers::start(&router, 20);
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let writing = tokio::spawn({
        let (router, stop, written) = (router.clone(), stop.clone(), written.clone());
        async move {
            while !stop.load(SeqCst) {
                writer(&router).insert_note("membership", "a note").await.unwrap();
                written.fetch_add(1, SeqCst);
            }
        }
    });
    readers.go_on(200).await;

    // One joins.
    let record = cluster.servers_mut().add_replica(Some("pg4"), None, &SilentProgress).await.unwrap();
    router
        .cluster()
        .add_node(NodeConfig {
            probe_url: Some(cluster.url(record.port, Login::Monitor)),
            ..NodeConfig::new("pg4", cluster.url(record.port, Login::Application))
        })
        .unwrap();
    readers.go_on_at("pg4", 50).await;

    // One leaves: it is let alone, then its pools are gone from its server.
    let left = router.cluster().remove_node("pg2").unwrap();
    eventually(PATIENCE, "what ran on pg2 ends", async || left.in_flight() == 0).await;
    eventually(PATIENCE, "pg2 has no connection of the application left", async || {
        cluster.app_processes("pg2", "true").await == 0
    })
    .await;
    let answered = readers.tally().of("pg2");
    readers.go_on(300).await;
    assert_eq!(readers.tally().of("pg2"), answered, "nobody goes there any more");
    cluster.stop("pg2").await;
    readers.go_on(100).await;

    // One drains, and comes back.
    router.cluster().drain("pg3").unwrap();
    let pg3 = router.cluster().node("pg3").unwrap();
    eventually(PATIENCE, "pg3 is idle", async || pg3.in_flight() == 0).await;
    let answered = readers.tally().of("pg3");
    readers.go_on(200).await;
    assert_eq!(readers.tally().of("pg3"), answered);
    router.cluster().undrain("pg3").unwrap();
    readers.go_on_at("pg3", 50).await;

    let tally = readers.stop().await;
    stop.store(true, SeqCst);
    writing.await.unwrap();
    assert_eq!(tally.errors, [""; 0]);
    assert_eq!(cluster.notes_by(PRIMARY, "membership").await, written.load(SeqCst));
    assert_eq!(router.status().nodes.len(), 3);
}

async fn a_new_password_reaches_new_connections<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    let db = writer(&router);
    db.insert_note("password", "before").await.unwrap();
    let epoch = router.status().epoch;
    cluster.sql(PRIMARY, "ALTER ROLE app PASSWORD 'another one'").await;
    cluster.wait_replayed().await;
    let mut nodes: Vec<NodeConfig> = cluster.config().nodes;
    for node in &mut nodes {
        node.url = node.url.with_credentials("app", "another one");
    }
    let change = router.cluster().set_nodes(nodes).unwrap();
    assert_eq!(change.replaced.len(), 3);
    writer(&router).insert_note("password", "after").await.unwrap();
    assert_eq!(router.status().epoch, epoch, "the writer is the same");
    eventually(PATIENCE, "all serve again", async || router.status().nodes.iter().all(|node| node.serving))
        .await;
    assert_eq!(router.node(PRIMARY).write_pool.open, 1, "the old connection was let go");
    assert_eq!(cluster.notes_by(PRIMARY, "password").await, 2);
}
