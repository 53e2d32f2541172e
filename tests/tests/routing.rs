//! Where statements go while all is well, and what stops a router from starting.

use std::time::Duration;

use routing_cluster::Login;
use routing_core::{ConfigError, Consistency, NodeConfig, Router, RouterConfig};
use routing_tests::{
    Handle as _, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, Tally, TestCluster, eventually,
    reader, reader_with, refusals, router, served_by, writer,
};

routing_tests::on_both! {
    writes_land_on_the_primary_and_reads_spread_over_both_replicas,
    the_reads_of_one_request_keep_to_one_node,
    a_plain_connection_to_the_primary_runs_migrations,
    a_prober_without_privileges_still_yields_a_working_router,
    a_broken_rule_is_named_when_the_router_starts,
    a_wrong_password_fails_with_reasons_and_shows_no_secret,
}

/// Who answers this many requests of one statement each.
async fn spread<O: Orm>(router: &Router<O>, requests: usize, consistency: Consistency) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..requests {
        let node = served_by(&reader_with(router, consistency)).await.expect("a read");
        *tally.answers.entry(node).or_default() += 1;
    }
    tally
}

async fn writes_land_on_the_primary_and_reads_spread_over_both_replicas<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    assert_eq!(served_by(&writer(&router)).await.expect("a statement"), PRIMARY);
    writer(&router).insert_note("writer", "kept").await.expect("a write");
    assert_eq!(cluster.notes_by(PRIMARY, "writer").await, 1);
    for replica in REPLICAS {
        eventually(PATIENCE, "the row is replicated", async || {
            cluster.notes_by(replica, "writer").await == 1
        })
        .await;
    }

    for consistency in [Consistency::Eventual, Consistency::Session] {
        let tally = spread(&router, 200, consistency).await;
        eprintln!("{consistency}: {:?}", tally.answers);
        assert_eq!(tally.of(PRIMARY), 0, "the primary is spared");
        for replica in REPLICAS {
            assert!(tally.of(replica) >= 40, "{replica} has its share: {:?}", tally.answers);
        }
    }
    let strong = spread(&router, 20, Consistency::Strong).await;
    assert_eq!(strong.of(PRIMARY), 20, "a strong read is the primary's: {:?}", strong.answers);
}

async fn the_reads_of_one_request_keep_to_one_node<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    for _ in 0..20 {
        let db = reader(&router);
        let first = served_by(&db).await.expect("a read");
        for _ in 0..10 {
            assert_eq!(served_by(&db.clone()).await.expect("a read"), first);
        }
        let decision = db.last_decision().expect("a decision");
        assert_eq!((&*decision.node, decision.reason.as_str()), (first.as_str(), "same_request"));
    }
}

async fn a_plain_connection_to_the_primary_runs_migrations<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let statements = [
        "CREATE TABLE migrated (id int)",
        "ALTER TABLE migrated ADD COLUMN name text",
        "INSERT INTO migrated VALUES (1, 'one')",
    ];
    let server = O::on_plain_connection(&router, PATIENCE, &statements).await;
    assert_eq!(server.expect("a connection to the primary"), PRIMARY);
    cluster.wait_replayed().await;
    for node in NODES {
        assert_eq!(cluster.value::<i64>(node, "SELECT count(*) FROM migrated").await, 1, "on {node}");
    }
}

async fn a_prober_without_privileges_still_yields_a_working_router<O: Orm>() {
    let cluster = TestCluster::start().await;
    let mut config = cluster.config();
    for node in &mut config.nodes {
        node.probe_url = None;
    }
    let router = router::<O>(config).await;

    let tally = spread(&router, 100, Consistency::Eventual).await;
    assert!(REPLICAS.iter().all(|replica| tally.of(replica) >= 20), "{:?}", tally.answers);
    writer(&router).insert_note("plain", "kept").await.expect("a write");
    for replica in REPLICAS {
        eventually(PATIENCE, "the lag of a replica is known, and none", async || {
            router.node(replica).lag_seconds == Some(0.0)
        })
        .await;
        assert!(router.node(replica).staleness_seconds.is_some());
    }
}

async fn a_broken_rule_is_named_when_the_router_starts<O: Orm>() {
    let url = "postgres://app@127.0.0.1:1/app".parse().expect("a URL");
    let nodes = vec![NodeConfig::new("a", url)];
    let good = RouterConfig { nodes, ..RouterConfig::default() };
    let twice = [good.nodes.clone(), good.nodes.clone()].concat();
    let zero = Duration::ZERO;
    let table = [
        (RouterConfig { nodes: Vec::new(), ..good.clone() }, "nodes"),
        (RouterConfig { nodes: twice, ..good.clone() }, "names of nodes"),
        (RouterConfig { probe_interval: zero, ..good.clone() }, "probe_interval"),
        (RouterConfig { read_pool_size: 0, ..good.clone() }, "read_pool_size"),
        (RouterConfig { max_staleness: zero, ..good.clone() }, "max_staleness"),
        (RouterConfig { acquire_deadline: zero, ..good.clone() }, "acquire_deadline"),
        (RouterConfig { fallback_no_replica: Some(1_000), ..good.clone() }, "fallback_no_replica"),
    ];
    for (config, name) in table {
        match Router::<O>::start(config, O::Options::default()) {
            Err(ConfigError::Rule(rule)) => assert!(rule.contains(name), "{rule:?} names {name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    Router::<O>::start(good, O::Options::default()).expect("the rest of it is valid");
}

async fn a_wrong_password_fails_with_reasons_and_shows_no_secret<O: Orm>() {
    const WRONG: &str = "not-the-password";
    let cluster = TestCluster::start().await;
    let secrets = [
        WRONG.to_owned(),
        cluster.servers().credentials(Login::Application).password,
        cluster.servers().credentials(Login::Monitor).password,
    ];
    let hides = |shown: String| {
        assert!(secrets.iter().all(|secret| !shown.contains(secret.as_str())), "a secret shows: {shown}");
    };
    let short = |mut config: RouterConfig| {
        config.acquire_deadline = Duration::from_secs(2);
        config.write_wait = Duration::from_secs(1);
        config
    };

    // The application's password is wrong, the monitor's is right.
    let mut config = short(cluster.config());
    for node in &mut config.nodes {
        node.url = node.url.with_credentials("app", WRONG);
    }
    hides(format!("{config:?}"));
    let locked_out = router::<O>(config).await;
    for error in [
        served_by(&reader(&locked_out)).await.expect_err("no one is let in"),
        writer(&locked_out).insert_note("a", "b").await.expect_err("no one is let in"),
    ] {
        let refused = O::route_error(&error).and_then(refusals).expect("a refusal of the router");
        // After some attempts the breaker speaks for the server.
        let words = refused.to_string();
        assert!(words.contains("refusing") || words.contains("breaker open"), "{words}");
        hides(format!("{error} {error:?}"));
    }
    hides(format!("{:?} {locked_out:?}", locked_out.status()));

    // The monitor's password is wrong.
    let mut config = short(cluster.config());
    for node in &mut config.nodes {
        node.probe_url = node.probe_url.as_ref().map(|url| url.with_credentials("monitor", WRONG));
    }
    let blind = Router::<O>::start(config, O::Options::default()).expect("valid");
    for node in NODES {
        eventually(PATIENCE, "the status says why", async || blind.refuses(node, "password")).await;
    }
    let error = served_by(&reader(&blind)).await.expect_err("no node is known");
    let refused = O::route_error(&error).and_then(refusals).expect("a refusal of the router");
    assert!(refused.to_string().contains("password"), "{refused}");
    hides(format!("{error} {error:?} {:?} {blind:?}", blind.status()));
}
