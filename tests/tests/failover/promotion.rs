//! The primary is killed and a replica promoted.

use std::time::Duration;

use routing_cluster::{Login, Promotion, SilentProgress, SyncMode};
use routing_core::{Consistency, Router, Session, SessionToken};
use routing_tests::{
    Handle as _, NODES, Orm, PATIENCE, PRIMARY, Signal, TestCluster, Writers, Writes, eventually, figures,
    router, signal,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{assert_no_errors, furthest, patient, readers};

routing_tests::on_both! {
    a_failover_with_a_quorum_loses_no_acknowledged_write_and_no_undemanding_read,
    a_failover_without_a_quorum_loses_what_the_old_primary_alone_had_and_says_no_more,
}

/// The goal is 300 ms between a new primary that accepts writes and the first that the router has acknowledged.
const FOLLOWED: Duration = Duration::from_secs(3);

/// Promotes a replica, and sees when it accepts writes.
async fn promote(cluster: &TestCluster, node: &'static str) -> (Instant, Promotion) {
    let watched = cluster.database(node, Login::Superuser).await;
    let opened = tokio::spawn(async move {
        while !watched.value::<bool>("SELECT NOT pg_is_in_recovery()").await.expect("an answer") {
            sleep(Duration::from_millis(2)).await;
        }
        Instant::now()
    });
    let promoted = cluster.servers().promote(node, false, &SilentProgress).await;
    let promoted = promoted.unwrap_or_else(|error| panic!("{node} was not promoted: {error}"));
    (opened.await.expect("it was watched"), promoted)
}

/// What is measured of a failover.
fn measure<O: Orm>(scenario: &str, writes: &Writes, killed: Instant, opened: Instant) {
    let first = writes.first_after(opened).expect("writes go on");
    figures::gap::<O>(scenario, "from a primary that accepts writes to the first write", first - opened);
    figures::gap::<O>(scenario, "from the kill to the first write", first - killed);
    figures::count::<O>(scenario, "acknowledged writes", writes.acknowledged().count());
    figures::count::<O>(scenario, "writes of unknown outcome", writes.unknown());
    assert!(first - opened < FOLLOWED, "{:?}", first - opened);
}

async fn taken_back<O: Orm>(cluster: &TestCluster, router: &Router<O>) {
    let rejoined = cluster.servers().rejoin(PRIMARY, false, &SilentProgress).await;
    rejoined.unwrap_or_else(|error| panic!("{PRIMARY} was not taken back: {error}"));
    eventually(PATIENCE, "every node serves", async || router.status().nodes.iter().all(|node| node.serving))
        .await;
}

async fn a_failover_with_a_quorum_loses_no_acknowledged_write_and_no_undemanding_read<O: Orm>() {
    let cluster = TestCluster::start().await;
    cluster.servers().set_sync(SyncMode::Quorum, &SilentProgress).await.expect("standbys stream");
    let router = router::<O>(patient(cluster.config())).await;
    let readers = readers(&router, 50);
    let writers = Writers::start(&router, 50);
    writers.go_on(500).await;

    let killed = Instant::now();
    cluster.kill(PRIMARY).await;
    let (successor, _) = furthest(&cluster).await;
    let (opened, _) = promote(&cluster, successor).await;
    writers.go_on(500).await;
    taken_back(&cluster, &router).await;
    readers.go_on(500).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    measure::<O>("kill -9, quorum", &writes, killed, opened);
    assert_no_errors(&tally);
    writes.assert_typed();
    writes.assert_kept(&cluster, &NODES).await;
    assert_eq!(router.status().epoch, 2);
}

async fn a_failover_without_a_quorum_loses_what_the_old_primary_alone_had_and_says_no_more<O: Orm>() {
    const CLIENTS: usize = 5;
    let cluster = TestCluster::start().await;
    let router = router::<O>(patient(cluster.config())).await;
    let readers = readers(&router, 50);
    let writers = Writers::start(&router, 50);
    writers.go_on(500).await;
    // What is acknowledged from here on reaches no replica.
    stall_replication(&cluster).await;
    let mut tokens = Vec::new();
    for number in 0..CLIENTS {
        let session = Session::new();
        let db = O::write(router.routed(session.clone(), Consistency::Strong));
        db.insert_note("client", &format!("lost {number}")).await.expect("a write");
        tokens.push(session.token().await.expect("a token"));
    }
    writers.go_on(50).await;

    let killed = Instant::now();
    cluster.kill(PRIMARY).await;
    let (successor, _) = furthest(&cluster).await;
    let (opened, _) = promote(&cluster, successor).await;
    for (number, token) in tokens.into_iter().enumerate() {
        goes_on_without_its_write(&router, number, token).await;
    }
    writers.go_on(500).await;
    taken_back(&cluster, &router).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    measure::<O>("kill -9, asynchronous", &writes, killed, opened);
    assert_no_errors(&tally);
    writes.assert_typed();
    let lost = writes.lost_on(&cluster, successor).await;
    figures::count::<O>("kill -9, asynchronous", "acknowledged writes lost with the primary", lost.len());
    for write in &lost {
        eprintln!(
            "lost: {} acknowledged {:?} before the kill",
            write.text,
            killed.duration_since(write.ended)
        );
    }
    assert!(lost.len() >= 50, "{} were lost", lost.len());
    assert_eq!(cluster.notes_by(successor, "client").await, i64::try_from(CLIENTS).expect("a small number"));
}

async fn stall_replication(cluster: &TestCluster) {
    let senders = "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_replication";
    let senders: String = cluster.value(PRIMARY, senders).await;
    for pid in senders.split_whitespace() {
        signal(pid.parse().expect("the number of a process"), Signal::SIGSTOP);
    }
}

/// A client whose write is gone is served by the new timeline, and sees what it writes there.
async fn goes_on_without_its_write<O: Orm>(router: &Router<O>, number: usize, lost: SessionToken) {
    let read = async |tokens: &[SessionToken], text: &str| {
        let session = Session::new();
        for token in tokens {
            session.observe(*token);
        }
        let db = O::read(router.routed(session, Consistency::Session));
        let sql = format!("SELECT count(*)::text FROM note WHERE author = 'client' AND text = '{text}'");
        let answer = timeout(PATIENCE, db.text(&sql)).await.expect("it does not hang");
        answer.expect("a read")
    };
    let gone = format!("lost {number}");
    for _ in 0..5 {
        assert_eq!(read(&[lost], &gone).await, "0", "it is gone, and does not come back");
    }
    let session = Session::new();
    session.observe(lost);
    let again = format!("again {number}");
    let db = O::write(router.routed(session.clone(), Consistency::Strong));
    db.insert_note("client", &again).await.expect("a write");
    let token = session.token().await.expect("a token");
    for _ in 0..5 {
        assert_eq!(read(&[lost, token], &again).await, "1");
        assert_eq!(read(&[token], &gone).await, "0");
    }
}
