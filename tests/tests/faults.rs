//! Readers and writers while nodes die, freeze and return.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use routing_cluster::Login;
use routing_core::{Consistency, RouteError, Router, RouterConfig};
use routing_tests::{
    Handle as _, Mode, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, Readers, Tally, TestCluster,
    eventually, reader, reader_on, reader_with, refusals, router, served_by, served_by_slowly, throughout,
    writer,
};
use tokio::time::Instant;

routing_tests::on_both! {
    a_killed_replica_costs_no_reader_an_error,
    a_frozen_replica_loses_its_reads_within_the_timeouts_and_gets_them_back,
    a_stream_moves_on_before_its_first_row_and_never_after,
    without_replicas_the_primary_serves_up_to_its_cap_and_the_rest_is_shed_at_once,
    without_any_node_requests_fail_with_reasons_and_recover_by_themselves,
    idle_connections_broken_by_a_restart_cost_no_request_an_error,
    a_write_connection_that_reaches_a_standby_is_not_used,
    a_replica_behind_a_broken_network_is_left_and_taken_back,
    a_router_that_starts_before_its_servers_serves_when_they_come,
    a_connection_that_opens_slower_than_one_attempt_allows_is_opened_all_the_same,
    idle_connections_that_the_network_resets_cost_no_read_an_error,
}

/// Rows that cost the server next to nothing and are far more than any buffer holds.
const MANY_ROWS: &str = "SELECT generate_series(1, 10000000) AS number, repeat('x', 1000) AS ballast";

fn assert_no_errors(tally: &Tally) {
    let (count, first) = (tally.errors.len(), tally.errors.first());
    assert_eq!(count, 0, "{count} errors beside {} answers, the first: {first:?}", tally.total());
}

async fn a_killed_replica_costs_no_reader_an_error<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let readers = Readers::start(&router, 50);
    readers.go_on_at("pg2", 500).await;
    cluster.kill("pg2").await;
    readers.go_on(3_000).await;
    let while_dead = readers.tally();
    eventually(PATIENCE, "the status says that it is down", async || router.refuses("pg2", "down")).await;
    cluster.start_node("pg2").await;
    readers.go_on_at("pg2", 500).await;
    let tally = readers.stop().await;
    eprintln!("answers while pg2 was dead {:?}, in all {:?}", while_dead.answers, tally.answers);
    assert_no_errors(&tally);
    assert_eq!(tally.of(PRIMARY), 0, "the other replica took over");
}

async fn a_frozen_replica_loses_its_reads_within_the_timeouts_and_gets_them_back<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let readers = Readers::start(&router, 50);
    readers.go_on_at("pg2", 500).await;
    cluster.servers().pause("pg2").await.expect("it runs");
    let noticed =
        eventually(10 * Duration::from_secs(2), "it is refused", async || router.refuses("pg2", "down"))
            .await;
    // Its statements count for as long as it is tried to end them.
    let given_up =
        eventually(PATIENCE, "reads in flight move on", async || router.node("pg2").in_flight == 0).await;
    eprintln!("noticed after {noticed:?}, the last statement was given up {given_up:?} later");
    let before = readers.tally().of("pg2");
    throughout(Duration::from_secs(1), "it gets no reads", async || router.node("pg2").in_flight == 0).await;
    readers.go_on(2_000).await;
    assert_eq!(readers.tally().of("pg2"), before);

    cluster.servers().resume("pg2").await.expect("it runs");
    readers.go_on_at("pg2", 500).await;
    let tally = readers.stop().await;
    eprintln!("answers: {:?}", tally.answers);
    assert_no_errors(&tally);
}

async fn a_stream_moves_on_before_its_first_row_and_never_after<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    // Before the first row: the node freezes, another one takes over.
    let db = reader_on(&router, "pg2").await;
    cluster.servers().pause("pg2").await.expect("it runs");
    let sql =
        "SELECT number, current_setting('cluster_name') AS node FROM generate_series(1, 1000) AS number";
    let mut rows = O::rows(&db, sql).await.expect("another node gives the first row");
    let mut expected = 0;
    while let Some(row) = rows.next().await {
        expected += 1;
        assert_eq!(row.expect("a row"), (expected, "pg3".to_owned()));
    }
    assert_eq!(expected, 1_000);
    cluster.servers().resume("pg2").await.expect("it runs");
    eventually(PATIENCE, "it serves again", async || router.serves("pg2")).await;

    // After the first row: an error, and no row twice.
    let db = reader_on(&router, "pg2").await;
    let mut rows = O::rows(&db, MANY_ROWS).await.expect("the first row");
    let mut next = 1;
    let mut error = None;
    while let Some(row) = rows.next().await {
        match row {
            Ok((number, _)) => {
                assert_eq!(number, next);
                next += 1;
                if next == 100 {
                    cluster.kill("pg2").await;
                }
            }
            Err(lost) => error = Some(lost),
        }
    }
    eprintln!("{} rows, then {error:?}", next - 1);
    error.expect("a lost stream ends in an error, not as if it were complete");
    assert!(next >= 100, "rows came before the node was lost");
    drop(rows);
    assert_eq!(router.node("pg2").in_flight, 0);
    assert_eq!(served_by(&db).await.expect("the next read of the request"), "pg3");
}

async fn without_replicas_the_primary_serves_up_to_its_cap_and_the_rest_is_shed_at_once<O: Orm>() {
    const CAP: u32 = 4;
    const READS: u32 = 40;
    let cluster = TestCluster::start().await;
    let config = RouterConfig { fallback_no_replica: Some(CAP), ..cluster.config() };
    let router = router::<O>(config).await;
    for replica in REPLICAS {
        cluster.kill(replica).await;
    }
    for replica in REPLICAS {
        eventually(PATIENCE, "the dead are known", async || router.refuses(replica, "down")).await;
    }
    assert_eq!(served_by(&reader(&router)).await.expect("a read"), PRIMARY);

    let watched = cluster.database(PRIMARY, Login::Superuser).await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'";
    let mut reads: FuturesUnordered<_> = (0..READS)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move { served_by_slowly(&reader(&router), 2.0).await })
        })
        .collect();
    let (mut served, mut shed, mut most) = (0, 0, 0);
    let began = Instant::now();
    while let Some(read) = reads.next().await {
        match read.expect("a read does not panic") {
            Ok(node) => {
                assert_eq!(node, PRIMARY);
                served += 1;
            }
            Err(error) => {
                assert!(
                    matches!(O::route_error(&error), Some(RouteError::Overloaded { cap: CAP, .. })),
                    "{error}"
                );
                assert_eq!(served, 0, "the rest is shed while the first still run");
                shed += 1;
            }
        }
        if served == 0 {
            most = most.max(watched.value::<i64>(running).await.expect("a count"));
            if shed + CAP == READS {
                eprintln!("the last was shed after {:?}", began.elapsed());
            }
        }
    }
    assert_eq!((served, shed), (CAP, READS - CAP));
    assert!((1..=i64::from(CAP)).contains(&most), "{most} reads ran on the primary at once");
    assert_eq!(router.status().fallback_in_use, 0, "the permits are back");
    writer(&router).insert_note("writer", "kept").await.expect("writes go on");
}

async fn without_any_node_requests_fail_with_reasons_and_recover_by_themselves<O: Orm>() {
    let deadline = Duration::from_secs(2);
    let cluster = TestCluster::start().await;
    let config = RouterConfig {
        acquire_deadline: deadline,
        write_wait: Duration::from_secs(1),
        checkout_timeout: Duration::from_millis(500),
        ..cluster.config()
    };
    let router = router::<O>(config).await;
    served_by(&reader(&router)).await.expect("a read");
    writer(&router).insert_note("writer", "before").await.expect("a write");

    for node in NODES {
        cluster.kill(node).await;
    }
    for round in 0..3 {
        let began = Instant::now();
        let read = served_by(&reader(&router)).await.expect_err("no node is there");
        let read_took = began.elapsed();
        let began = Instant::now();
        let written = writer(&router).insert_note("writer", "lost").await.expect_err("no primary");
        let write_took = began.elapsed();
        eprintln!("round {round}: read failed after {read_took:?} with {read}");
        eprintln!("round {round}: write failed after {write_took:?} with {written}");
        for (error, took) in [(read, read_took), (written, write_took)] {
            assert!(took < 10 * deadline, "{took:?}");
            let refused = O::route_error(&error).and_then(refusals).expect("a refusal of the router");
            let named: BTreeSet<_> = refused.0.iter().map(|(node, _)| &**node).collect();
            assert_eq!(named, BTreeSet::from(NODES), "each node has its reason: {refused}");
        }
    }

    for node in NODES {
        cluster.start_node(node).await;
    }
    eventually(PATIENCE, "reads and writes come back", async || {
        served_by(&reader(&router)).await.is_ok()
            && writer(&router).insert_note("writer", "after").await.is_ok()
    })
    .await;
    for replica in REPLICAS {
        eventually(PATIENCE, "replicas serve again", async || {
            served_by(&reader(&router)).await.is_ok_and(|node| node == replica)
        })
        .await;
    }
    assert_eq!(cluster.notes_by(PRIMARY, "writer").await, 2, "what failed was not written");
}

async fn idle_connections_broken_by_a_restart_cost_no_request_an_error<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    // Many idle connections to every node.
    let slow = (0..30).map(|_| {
        let router = router.clone();
        async move { served_by_slowly(&reader(&router), 0.2).await.expect("a read") }
    });
    let nodes: BTreeSet<_> = futures_util::future::join_all(slow).await.into_iter().collect();
    assert_eq!(nodes.len(), REPLICAS.len());
    let slow = (0..10).map(|_| {
        let router = router.clone();
        async move { served_by_slowly(&writer(&router), 0.2).await.expect("a statement") }
    });
    futures_util::future::join_all(slow).await;
    assert!(router.node(PRIMARY).write_pool.idle >= 5 && router.node("pg2").read_pool.idle >= 5);

    for node in ["pg2", PRIMARY] {
        let before = router.node(node);
        cluster.stop(node).await;
        eventually(PATIENCE, "the stop is seen", async || router.refuses(node, "down")).await;
        cluster.start_node(node).await;
        eventually(PATIENCE, "the start is seen", async || {
            NODES.iter().all(|node| router.serves(node)) && router.status().primary.is_some()
        })
        .await;
        eprintln!("{node} had {:?} and {:?}", before.read_pool, before.write_pool);
        for _ in 0..100 {
            served_by(&reader(&router)).await.expect("a read");
        }
        for number in 0..30 {
            let text = format!("after the restart of {node}, {number}");
            writer(&router).insert_note("writer", &text).await.expect("a write");
        }
    }
    assert_eq!(cluster.notes_by(PRIMARY, "writer").await, 60);
}

async fn a_write_connection_that_reaches_a_standby_is_not_used<O: Orm>() {
    let cluster = TestCluster::start().await;
    let mut config = RouterConfig { write_wait: Duration::from_secs(1), ..cluster.config() };
    // The address moved to another server, and the monitor does not know it yet.
    config.nodes[0].url = cluster.url(cluster.port("pg2"), Login::Application);
    let router = router::<O>(config).await;

    let error = writer(&router).insert_note("writer", "lost").await.expect_err("it is a standby");
    assert!(O::route_error(&error).is_some(), "nothing was sent: {error}");
    assert_eq!(router.node(PRIMARY).write_pool.open, 0);
    assert_eq!(cluster.notes_by(PRIMARY, "writer").await, 0);
    assert!(REPLICAS.contains(&served_by(&reader(&router)).await.expect("a read").as_str()));
}

async fn a_replica_behind_a_broken_network_is_left_and_taken_back<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router::<O>(cluster.config_through(&proxies)).await;
    let proxy = proxies.get("pg2");

    let readers = Readers::start(&router, 20);
    readers.go_on_at("pg2", 200).await;
    for fault in ["blackhole", "refuse and reset"] {
        if fault == "blackhole" {
            proxy.set(Mode::Blackhole);
        } else {
            proxy.set(Mode::Refuse);
            proxy.cut();
        }
        eventually(PATIENCE, fault, async || router.refuses("pg2", "down")).await;
        readers.go_on(500).await;
        proxy.set(Mode::Pass);
        readers.go_on_at("pg2", 200).await;
    }
    let late = Duration::from_millis(20);
    proxy.set(Mode::Delay { to_server: late, to_client: late });
    let before = readers.tally();
    readers.go_on(2_000).await;
    let tally = readers.stop().await;
    let slow = tally.of("pg2") - before.of("pg2");
    eprintln!("{slow} of {} answers came from the slow node", tally.total() - before.total());
    assert_no_errors(&tally);
    assert!(slow > 0 && slow < (tally.total() - before.total()) / 2, "a slow node serves, and serves less");
}

async fn a_router_that_starts_before_its_servers_serves_when_they_come<O: Orm>() {
    let cluster = TestCluster::start().await;
    for node in NODES {
        cluster.stop(node).await;
    }
    let router = Router::<O>::start(cluster.config(), O::Options::default()).expect("valid");
    for node in NODES {
        eventually(PATIENCE, "all are down", async || router.refuses(node, "down")).await;
    }
    for node in NODES {
        cluster.start_node(node).await;
    }
    eventually(PATIENCE, "replicas serve", async || REPLICAS.iter().all(|node| router.serves(node))).await;
    let node = served_by(&reader(&router)).await.expect("a read");
    assert!(REPLICAS.contains(&node.as_str()), "{node}");
    writer(&router).execute("DELETE FROM note").await.expect("a write");
}

async fn a_connection_that_opens_slower_than_one_attempt_allows_is_opened_all_the_same<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    // Opening takes some five round trips: more than checkout_timeout, less than connect_timeout.
    let late = Duration::from_millis(120);
    for node in NODES {
        proxies.get(node).set(Mode::Delay { to_server: late, to_client: late });
    }
    let mut config = cluster.config_through(&proxies);
    config.probe_timeout = Duration::from_secs(3);
    let router = router::<O>(config).await;

    let began = Instant::now();
    let mut failed = 0;
    while let Err(error) = served_by(&reader(&router)).await {
        failed += 1;
        assert!(failed < 3, "no connection is ever opened: {error}");
    }
    eprintln!("the first read took {:?}, after {failed} that failed", began.elapsed());
    assert_eq!(failed, 0, "one read is enough to open a connection");
}

async fn idle_connections_that_the_network_resets_cost_no_read_an_error<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let mut config = cluster.config_through(&proxies);
    for node in &mut config.nodes {
        // The monitor's own connection survives, and tells nothing.
        node.probe_url = Some(cluster.url(cluster.port(&node.name), Login::Monitor));
    }
    let router = router::<O>(config).await;
    let strong = || reader_with(&router, Consistency::Strong);
    let many = (0..10).map(|_| {
        let db = strong();
        async move { served_by_slowly(&db, 0.2).await.expect("a read") }
    });
    futures_util::future::join_all(many).await;
    assert!(router.node(PRIMARY).read_pool.idle >= 5);

    proxies.get(PRIMARY).cut();
    for _ in 0..20 {
        assert_eq!(served_by(&strong()).await.expect("a read"), PRIMARY);
    }
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}
