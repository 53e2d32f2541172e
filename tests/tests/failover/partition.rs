//! The network parts: the application from the primary, or the primary from its standbys.

use std::time::Duration;

use routing_core::{Consistency, RouterConfig};
use routing_tests::{
    Mode, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, Proxy, REPLICAS, TestCluster, Writers, eventually,
    figures, reader_with, router, served_by, throughout,
};

use crate::{assert_no_errors, impatient, quiet, readers, stream_from};

routing_tests::on_both! {
    a_primary_that_the_application_cannot_reach_is_waited_for_and_nothing_is_written_twice,
    a_primary_that_its_standbys_cannot_reach_goes_on_without_a_quorum,
    a_primary_that_its_standbys_cannot_reach_gets_no_write_where_a_quorum_is_asked_for,
}

async fn a_primary_that_the_application_cannot_reach_is_waited_for_and_nothing_is_written_twice<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router::<O>(impatient(cluster.config_through(&proxies))).await;
    let readers = readers(&router, 10);
    let writers = Writers::start(&router, 10);
    writers.go_on(50).await;
    for mode in [Mode::Blackhole, Mode::SwallowToServer, Mode::SwallowToClient] {
        let before = writers.writes().all().count();
        proxies.get(PRIMARY).set(mode);
        eventually(PATIENCE, "it is not reached", async || router.refuses(PRIMARY, "down")).await;
        assert_eq!(router.status().primary, None);
        let since = readers.tally().total();
        readers.go_on(100).await;
        eventually(PATIENCE, "writes are refused", async || {
            router.status().primary_missing.as_deref() == Some("unknown")
                && writers.writes().all().count() > before + 10
        })
        .await;
        proxies.get(PRIMARY).set(Mode::Pass);
        writers.go_on(50).await;
        eprintln!("{mode:?}: {} reads meanwhile", readers.tally().total() - since);
    }
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    figures::count::<O>("the application is cut off", "writes of unknown outcome", writes.unknown());
    assert_no_errors(&tally);
    writes.assert_typed();
    writes.assert_kept(&cluster, &NODES).await;
    assert_eq!(router.status().epoch, 1);
}

/// Replication that can be cut, and is soon noticed to be.
async fn cuttable(cluster: &TestCluster) -> Proxy {
    let replication = Proxy::start(cluster.port(PRIMARY)).await.expect("a free port for a proxy");
    for standby in REPLICAS {
        cluster.set(standby, "wal_receiver_timeout", "1s").await;
        stream_from(cluster, standby, replication.port()).await;
    }
    let streaming = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = {})",
        replication.port()
    );
    for standby in REPLICAS {
        eventually(PATIENCE, "it streams through the proxy", async || {
            cluster.value(standby, &streaming).await
        })
        .await;
    }
    replication
}

async fn a_primary_that_its_standbys_cannot_reach_goes_on_without_a_quorum<O: Orm>() {
    let cluster = TestCluster::start().await;
    let replication = cuttable(&cluster).await;
    let router = router::<O>(impatient(cluster.config())).await;
    let writers = Writers::start(&router, 10);
    writers.go_on(50).await;
    replication.set(Mode::Blackhole);
    let bounded = || reader_with(&router, Consistency::BoundedStaleness(Duration::from_millis(500)));
    eventually(PATIENCE, "a bounded read is the primary's", async || {
        served_by(&bounded()).await.is_ok_and(|node| node == PRIMARY)
    })
    .await;
    throughout(Duration::from_secs(1), "no replica is fresh enough", async || {
        served_by(&bounded()).await.is_ok_and(|node| node == PRIMARY)
    })
    .await;
    writers.go_on(50).await;
    replication.set(Mode::Pass);
    replication.cut();
    let writes = writers.stop().await;
    writes.assert_all_acknowledged();
    writes.assert_kept(&cluster, &NODES).await;
    assert_eq!(router.status().epoch, 1);
}

async fn a_primary_that_its_standbys_cannot_reach_gets_no_write_where_a_quorum_is_asked_for<O: Orm>() {
    let cluster = TestCluster::start().await;
    let replication = cuttable(&cluster).await;
    let router = router::<O>(impatient(RouterConfig { write_quorum: 1, ..cluster.config() })).await;
    let writers = Writers::start(&router, 10);
    writers.go_on(50).await;
    quiet(&cluster, &writers).await;
    replication.set(Mode::Blackhole);
    let lost =
        eventually(PATIENCE, "no standby is seen to follow", async || router.status().primary.is_none())
            .await;
    figures::gap::<O>("the standbys are cut off, quorum 1", "until nothing is written", lost);
    writers.release();
    let before = cluster.notes_by(PRIMARY, "traffic").await;
    throughout(Duration::from_secs(2), "nothing is written", async || {
        cluster.notes_by(PRIMARY, "traffic").await == before
    })
    .await;
    assert!(writers.writes().all().count() > writers.writes().acknowledged().count(), "writes are refused");
    replication.set(Mode::Pass);
    replication.cut();
    writers.go_on(50).await;
    let writes = writers.stop().await;
    writes.assert_typed();
    writes.assert_kept(&cluster, &NODES).await;
    assert_eq!(router.status().epoch, 1);
}
