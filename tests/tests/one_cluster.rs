//! One cluster under two ORMs.

use routing_core::{Backend as _, Cluster, Router};
use routing_tests::{
    Diesel, Handle as _, NODES, NodeView as _, PATIENCE, PRIMARY, REPLICAS, Readers, SeaOrm, TestCluster,
    eventually, reader, ready, served_by, writer,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_orms_on_one_cluster_share_its_monitor_and_both_outlive_a_replica() {
    let servers = TestCluster::start().await;
    let config = servers.config();
    let prober = SeaOrm::prober(&config, &Default::default());
    let cluster = Cluster::start(config, prober).expect("a valid configuration");
    let seaorm = Router::<SeaOrm>::new(&cluster, Default::default()).expect("a router");
    let diesel = Router::<Diesel>::new(&cluster, Default::default()).expect("a router");
    ready(&seaorm).await;
    ready(&diesel).await;

    writer(&seaorm).insert_note("seaorm", "kept").await.expect("a write");
    writer(&diesel).insert_note("diesel", "kept").await.expect("a write");
    let readers = (Readers::start(&seaorm, 15), Readers::start(&diesel, 15));
    for tallies in [&readers.0, &readers.1] {
        for replica in REPLICAS {
            tallies.go_on_at(replica, 100).await;
        }
    }
    for node in NODES {
        let probes: i64 =
            servers.value(node, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'monitor'").await;
        assert_eq!(probes, 1, "one monitor looks at {node}");
    }
    servers.kill("pg2").await;
    for tallies in [&readers.0, &readers.1] {
        tallies.go_on(1_000).await;
    }
    for refusing in [seaorm.refuses("pg2", "down"), diesel.refuses("pg2", "down")] {
        assert!(refusing, "both see that it is down");
    }
    servers.start_node("pg2").await;
    for tallies in [&readers.0, &readers.1] {
        tallies.go_on_at("pg2", 100).await;
    }
    for tally in [readers.0.stop().await, readers.1.stop().await] {
        assert!(
            tally.errors.is_empty(),
            "{} errors, the first: {:?}",
            tally.errors.len(),
            tally.errors.first()
        );
        assert_eq!(tally.of(PRIMARY), 0, "the other replica took over");
    }

    // Closing one router leaves the other, and the monitor, alone.
    seaorm.close();
    served_by(&reader(&seaorm)).await.expect_err("it is closed");
    for _ in 0..20 {
        served_by(&reader(&diesel)).await.expect("a read");
    }
    writer(&diesel).insert_note("diesel", "kept").await.expect("a write");
    assert_eq!(servers.notes_by(PRIMARY, "diesel").await, 2);
    eventually(PATIENCE, "every node serves", async || NODES.iter().all(|node| diesel.serves(node))).await;
}
