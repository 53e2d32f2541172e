//! The old primary comes back as it was: on its own timeline, writable, with nobody to tell it.

use std::fs;

use routing_tests::{
    NodeView as _, Orm, PATIENCE, PRIMARY, TestCluster, Writers, eventually, figures, router, served_by,
    writer,
};

use crate::{assert_no_errors, follow, furthest, patient, quiet, readers};

routing_tests::on_both! {
    an_old_primary_that_returns_under_traffic_gets_no_statement,
}

/// Statements of the application that a server has logged from a place in its log on.
fn statements(log: &str) -> Vec<&str> {
    let of_app =
        |line: &&str| line.contains(" app@") && (line.contains("statement:") || line.contains("execute"));
    log.lines().filter(of_app).collect()
}

async fn an_old_primary_that_returns_under_traffic_gets_no_statement<O: Orm>() {
    let cluster = TestCluster::start().await;
    cluster.set(PRIMARY, "log_statement", "all").await;
    let log_file = cluster.servers().node(PRIMARY).expect("a node").log_file.clone();
    let log = || String::from_utf8_lossy(&fs::read(&log_file).expect("the server's log")).into_owned();
    let router = router::<O>(patient(cluster.config())).await;
    let readers = readers(&router, 20);
    let writers = Writers::start(&router, 20);
    writers.go_on(100).await;
    quiet(&cluster, &writers).await;
    assert!(statements(&log()).len() > 100, "the log shows what the application does");

    cluster.kill(PRIMARY).await;
    eventually(PATIENCE, "the death is seen", async || router.refuses(PRIMARY, "down")).await;
    writers.release();
    let (successor, other) = furthest(&cluster).await;
    cluster.sql(successor, "SELECT pg_promote()").await;
    follow(&cluster, other, successor).await;
    writers.go_on(100).await;
    let before = log().len();
    cluster.start_node(PRIMARY).await;
    let fenced = eventually(PATIENCE, "it is fenced", async || router.refuses(PRIMARY, "fenced")).await;
    figures::gap::<O>("the old primary returns", "from its first answer to the fence, at most", fenced);
    writers.go_on(300).await;
    readers.go_on(300).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);

    let log = log();
    let seen = statements(&log[before..]);
    assert!(seen.is_empty(), "it got {} statements, the first: {:?}", seen.len(), seen.first());
    assert_eq!(cluster.app_processes(PRIMARY, "true").await, 0, "and no connection at all");
    assert!(log[before..].contains("monitor@"), "the probes are there");
    assert_no_errors(&tally);
    writes.assert_typed();
    writes.assert_kept(&cluster, &[successor, other]).await;
    assert_eq!(served_by(&writer(&router)).await.expect("a statement"), successor);
    assert_eq!(router.status().epoch, 2);
}
