//! What the router does while the primary changes, is lost, or is claimed by several: on real servers, with both ORMs.
//!
//! Each test prints what it measured: see `routing_tests::figures`.

mod ambiguity;
mod busy;
mod commit;
mod freeze;
mod old_primary;
mod partition;
mod promotion;
mod read_only;
mod rogue;
mod switchover;

use std::time::Duration;

use routing_core::{Consistency, Router, RouterConfig};
use routing_tests::{Orm, PATIENCE, PRIMARY, Readers, Tally, TestCluster, Writers};

/// Reads that no failover may cost an error: of clients that never wrote, at the levels that ask for no more.
const UNDEMANDING: [Consistency; 2] = [Consistency::Eventual, Consistency::Session];

/// Requests wait for as long as a busy machine may take. How long they did wait is printed.
fn patient(config: RouterConfig) -> RouterConfig {
    RouterConfig { write_wait: PATIENCE, acquire_deadline: PATIENCE, ..config }
}

/// Requests that must fail do so soon.
fn impatient(config: RouterConfig) -> RouterConfig {
    RouterConfig { write_wait: Duration::from_secs(1), acquire_deadline: Duration::from_secs(2), ..config }
}

/// So many readers that ask for no more.
fn readers<O: Orm>(router: &Router<O>, count: usize) -> Readers {
    Readers::start_with(router, count, &UNDEMANDING, Duration::from_millis(100))
}

fn assert_no_errors(tally: &Tally) {
    let (count, first) = (tally.errors.len(), tally.errors.first());
    assert_eq!(count, 0, "{count} errors beside {} answers, the first: {first:?}", tally.total());
}

/// The replica that has received most: the one that a failover chooses.
async fn furthest(cluster: &TestCluster) -> (&'static str, &'static str) {
    let received = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn";
    let received = format!("SELECT ({received})::bigint");
    let of_pg2: i64 = cluster.value("pg2", &received).await;
    let of_pg3: i64 = cluster.value("pg3", &received).await;
    if of_pg3 > of_pg2 { ("pg3", "pg2") } else { ("pg2", "pg3") }
}

/// Holds the writers, and waits until the replicas have all that was acknowledged: what is lost from here on is lost by
/// the router.
async fn quiet(cluster: &TestCluster, writers: &Writers) {
    writers.hold().await;
    cluster.wait_replayed().await;
}

/// Has a standby stream from another node.
async fn follow(cluster: &TestCluster, standby: &str, upstream: &str) {
    cluster.set(standby, "primary_slot_name", "").await;
    stream_from(cluster, standby, cluster.port(upstream)).await;
}

/// Has a standby of the first primary stream from another port.
async fn stream_from(cluster: &TestCluster, standby: &str, port: u16) {
    let conninfo: String = cluster.value(standby, "SELECT current_setting('primary_conninfo')").await;
    let conninfo = conninfo.replace(&cluster.port(PRIMARY).to_string(), &port.to_string());
    cluster.set(standby, "primary_conninfo", &conninfo).await;
}
