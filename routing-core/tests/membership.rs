//! Nodes that join, leave and drain under a running router, on servers in memory and tokio's paused clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use routing_core::testing::{FakeBackend, FakeCluster, FakeError, Reach};
use routing_core::{
    Access, Cluster, ConfigError, Consistency, Fault, Lease, MembershipChange, MembershipError, NodeConfig,
    Primary, Refusal, RouteError, Router, RouterConfig, Session,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Four servers, of which the router knows those that `known` names.
struct Scene {
    servers: FakeCluster,
    router: Router<FakeBackend>,
    configs: Vec<NodeConfig>,
}

impl Scene {
    async fn new(known: &[&str]) -> Self {
        Self::with(known, |_| {}).await
    }

    async fn with(known: &[&str], change: impl FnOnce(&mut RouterConfig)) -> Self {
        let servers = FakeCluster::new(3);
        let mut config = servers.config();
        let configs = config.nodes.clone();
        config.nodes.retain(|node| known.contains(&node.name.as_str()));
        change(&mut config);
        let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
        assert!(router.cluster().settled(Duration::from_secs(5)).await);
        Self { servers, router, configs }
    }

    fn cluster(&self) -> &Cluster {
        self.router.cluster()
    }

    fn config(&self, name: &str) -> NodeConfig {
        self.configs.iter().find(|config| config.name == name).unwrap().clone()
    }

    fn names(&self) -> Vec<String> {
        self.cluster().nodes().iter().map(|node| node.name().to_owned()).collect()
    }

    async fn read(&self, consistency: Consistency) -> Result<String, FakeError> {
        let read = async |lease: &mut Lease<FakeBackend>| {
            lease.query().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        };
        self.router.run_read(consistency, read).await
    }

    async fn write(&self) -> Result<String, FakeError> {
        let write = async |lease: &mut Lease<FakeBackend>| {
            lease.write().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        };
        self.router.routed(Session::new(), Consistency::Session).run_statement(write).await
    }

    /// Who serves reads.
    async fn readers(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for _ in 0..60 {
            names.insert(self.read(Consistency::Eventual).await.unwrap());
        }
        names
    }

    /// Whether reads come to a node. At first it has no more than a tenth of its share, so some hundred can miss it.
    async fn is_read(&self, node: &str) -> bool {
        for _ in 0..20 {
            if self.readers().await.contains(node) {
                return true;
            }
        }
        false
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn names(names: &[Arc<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_serves_once_it_was_seen() {
    let scene = Scene::new(&["pg1", "pg2"]).await;
    assert_eq!(scene.readers().await, set(&["pg2"]));
    let joined = scene.cluster().add_node(scene.config("pg3")).unwrap();
    assert_eq!(joined.name(), "pg3");
    assert_eq!(scene.names(), ["pg1", "pg2", "pg3"]);
    sleep(ms(500)).await;
    assert!(scene.is_read("pg3").await);
    assert_eq!(scene.router.status().nodes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_dead_costs_nobody_anything() {
    let scene = Scene::new(&["pg1", "pg2"]).await;
    scene.servers.server("pg3").set_reach(Reach::Frozen);
    scene.cluster().add_node(scene.config("pg3")).unwrap();
    let began = Instant::now();
    assert_eq!(scene.readers().await, set(&["pg2"]));
    assert_eq!(began.elapsed(), ms(60), "sixty reads of a millisecond");
    assert_eq!(scene.write().await.unwrap(), "pg1");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_gets_no_new_work_and_what_runs_on_it_ends_in_peace() {
    let scene = Scene::new(&["pg1", "pg2", "pg3"]).await;
    let router = scene.router.clone();
    let held = loop {
        let lease = router.read(Consistency::Eventual).await.unwrap();
        if lease.node().name() == "pg2" {
            break lease;
        }
    };
    let left = scene.cluster().remove_node("pg2").unwrap();
    assert_eq!(scene.names(), ["pg1", "pg3"]);
    assert_eq!(scene.readers().await, set(&["pg3"]), "from that moment on");
    sleep(Duration::from_secs(10)).await;
    assert!(held.query().await.is_ok(), "it is let go on");
    assert_eq!(left.in_flight(), 1);
    assert_eq!(scene.servers.server("pg2").closed(), 0);
    held.end(None);
    assert_eq!(left.in_flight(), 0);
    let probes = scene.servers.server("pg2").probes();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.servers.server("pg2").probes(), probes, "nobody looks at it any more");
    assert_eq!(scene.servers.server("pg2").retired(Access::Read), 1);
    assert_eq!(scene.servers.server("pg2").closed(), 1, "its pools are closed when nobody needs them");
    assert_eq!(scene.router.status().nodes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_right_after_a_removal_is_not_sent_there() {
    let scene = Scene::new(&["pg1", "pg2", "pg3"]).await;
    let mut held: Vec<Lease<FakeBackend>> = Vec::new();
    while held.iter().filter(|lease| lease.node().name() == "pg3").count() < 2 {
        held.push(scene.router.read(Consistency::Eventual).await.unwrap());
    }
    held.retain(|lease| lease.node().name() == "pg3");
    scene.cluster().remove_node("pg2").unwrap();
    // The monitor has not had its turn yet, and pg2 has less to do.
    assert_eq!(scene.router.read(Consistency::Eventual).await.unwrap().node().name(), "pg3");
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_a_node_that_has_left_is_moved_when_its_time_is_over() {
    let scene = Scene::with(&["pg1", "pg2", "pg3"], |config| config.drain_timeout = ms(2_000)).await;
    // The only replica for a while, and one that does not come to an end.
    scene.cluster().drain("pg3").unwrap();
    scene.servers.server("pg2").set_latency(Duration::from_secs(600));
    let (router, began) = (scene.router.clone(), Instant::now());
    let slow = tokio::spawn(async move {
        let read = async |lease: &mut Lease<FakeBackend>| {
            lease.query().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        };
        router.run_read(Consistency::Eventual, read).await
    });
    sleep(ms(10)).await;
    scene.cluster().undrain("pg3").unwrap();
    let left = scene.cluster().remove_node("pg2").unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), "pg3", "its read moved on");
    assert!((ms(2_000)..ms(2_200)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(left.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_do_not_notice_nodes_that_come_and_go() {
    let scene = Arc::new(Scene::new(&["pg1", "pg2", "pg3"]).await);
    let until = Instant::now() + Duration::from_secs(10);
    let mut tasks = JoinSet::new();
    for number in 0..1_000_u64 {
        let scene = scene.clone();
        tasks.spawn(async move {
            let mut reads = 0;
            sleep(ms(number % 50)).await;
            while Instant::now() < until {
                scene.read(Consistency::Eventual).await.unwrap();
                sleep(ms(100 + number % 7)).await;
                reads += 1;
            }
            reads
        });
    }
    for round in 0..20 {
        let (goes, comes) = if round % 2 == 0 { ("pg2", "pg4") } else { ("pg4", "pg2") };
        scene.cluster().add_node(scene.config(comes)).unwrap();
        sleep(ms(300)).await;
        scene.cluster().remove_node(goes).unwrap();
        sleep(ms(100)).await;
    }
    let reads: u32 = tasks.join_all().await.into_iter().sum();
    assert!(reads > 50_000, "{reads}");
    assert_eq!(scene.servers.connections(), 0, "every connection was given back");
}

#[tokio::test(start_paused = true)]
async fn a_list_with_a_broken_rule_changes_nothing() {
    let scene = Scene::with(&["pg1", "pg2"], |config| config.write_quorum = 1).await;
    let cluster = scene.cluster();
    let rule = |error| match error {
        MembershipError::Config(ConfigError::Rule(rule)) => rule,
        other => panic!("{other}"),
    };
    let twice = cluster.add_node(scene.config("pg2")).unwrap_err();
    assert_eq!(rule(twice), "the names of nodes must differ from each other");
    let light = cluster.add_node(NodeConfig { weight: 0, ..scene.config("pg3") }).unwrap_err();
    assert!(rule(light).starts_with("the weight of a node must be above 0"));
    let lone = cluster.remove_node("pg2").unwrap_err();
    assert_eq!(rule(lone), "write_quorum must be below the number of nodes");
    let none = cluster.set_nodes(Vec::new()).unwrap_err();
    assert_eq!(rule(none), "nodes must name at least one server");
    let missing = cluster.remove_node("pg9").unwrap_err();
    assert_eq!(missing.to_string(), "there is no node named pg9; the nodes are pg1, pg2");
    // A backend that cannot use a node keeps all of them out.
    let odd = NodeConfig::new("odd", "postgres://h/d".parse().unwrap());
    let odd = cluster.set_nodes(vec![scene.config("pg1"), scene.config("pg3"), odd]).unwrap_err();
    assert!(matches!(odd, MembershipError::Config(ConfigError::Backend { .. })), "{odd}");
    assert_eq!(scene.names(), ["pg1", "pg2"]);
    let pg3 = scene.servers.server("pg3");
    assert_eq!((pg3.opened(), pg3.closed()), (1, 1), "what was set up for it is gone");
    assert_eq!(scene.readers().await, set(&["pg2"]));
    cluster.close();
    assert_eq!(cluster.add_node(scene.config("pg3")).unwrap_err(), MembershipError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_gets_no_reads_and_the_primary_keeps_its_writes() {
    let scene = Scene::new(&["pg1", "pg2", "pg3"]).await;
    let cluster = scene.cluster();
    cluster.drain("pg2").unwrap();
    assert_eq!(scene.readers().await, set(&["pg3"]));
    assert_eq!(scene.servers.server("pg2").retired(Access::Read), 1, "its idle connections are closed");
    let shown = scene.router.status().nodes.into_iter().find(|node| node.name == "pg2").unwrap();
    assert_eq!((shown.draining, shown.refused.as_deref()), (true, Some("draining")));
    cluster.undrain("pg2").unwrap();
    assert!(scene.is_read("pg2").await && scene.is_read("pg3").await);
    cluster.drain("pg1").unwrap();
    assert_eq!(scene.write().await.unwrap(), "pg1");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_serves_no_reads_can_be_the_primary_all_the_same() {
    let scene = Scene::with(&["pg1", "pg2", "pg3"], |config| config.nodes[1].reads = false).await;
    assert_eq!(scene.readers().await, set(&["pg3"]));
    let shown = scene.router.status().nodes.into_iter().find(|node| node.name == "pg2").unwrap();
    assert_eq!(shown.refused.as_deref(), Some("configured to serve no reads"));
    scene.servers.follow("pg3", "pg2");
    scene.servers.promote("pg2");
    sleep(ms(500)).await;
    assert_eq!(scene.write().await.unwrap(), "pg2");
    assert_eq!(scene.read(Consistency::Strong).await.unwrap(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn a_configuration_read_again_changes_the_nodes_and_names_what_needs_a_restart() {
    let scene = Scene::new(&["pg1", "pg2", "pg3"]).await;
    let cluster = scene.cluster();
    let mut config = RouterConfig { nodes: scene.configs.clone(), ..cluster.config().clone() };
    config.nodes.retain(|node| node.name != "pg3");
    config.nodes[1].weight = 5;
    config.max_staleness = Duration::from_secs(9);
    let kept = cluster.node("pg2").unwrap().id();
    let change = cluster.reload(config.clone()).unwrap();
    assert_eq!(names(&change.added), ["pg4"]);
    assert_eq!(names(&change.removed), ["pg3"]);
    assert_eq!(names(&change.adjusted), ["pg2"]);
    assert_eq!(change.needs_restart, ["max_staleness"]);
    assert_eq!(cluster.node("pg2").unwrap().weight(), 5);
    assert_eq!(cluster.node("pg2").unwrap().id(), kept, "its breaker and counters stay");
    // What has joined begins slowly.
    sleep(ms(11_000)).await;
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(scene.router.read(Consistency::Eventual).await.unwrap());
    }
    let on = |name| held.iter().filter(|lease| lease.node().name() == name).count();
    assert!((9..=11).contains(&on("pg2")) && on("pg4") > 0, "by their weights: {}", on("pg2"));

    config.max_staleness = cluster.config().max_staleness;
    assert_eq!(cluster.reload(config.clone()).unwrap(), MembershipChange::default(), "nothing new");
    config.retry.attempts = 0;
    assert!(matches!(cluster.reload(config), Err(MembershipError::Config(_))));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_password_changed_joins_anew_and_the_primary_stays_the_primary() {
    let scene = Scene::new(&["pg1", "pg2"]).await;
    let cluster = scene.cluster();
    let epoch = cluster.topology().lineage.epoch;
    let before = cluster.node("pg1").unwrap().id();
    let held = scene.router.write().await.unwrap();
    let mut nodes = vec![scene.config("pg1"), scene.config("pg2")];
    nodes[0].url = nodes[0].url.with_credentials("app", "another");
    let change = cluster.set_nodes(nodes).unwrap();
    assert_eq!(names(&change.replaced), ["pg1"]);
    assert_eq!((change.added.len(), change.removed.len()), (0, 0));
    assert_ne!(cluster.node("pg1").unwrap().id(), before);
    assert_eq!(scene.write().await.unwrap(), "pg1", "a pause of one probe");
    assert_eq!(cluster.topology().lineage.epoch, epoch, "no other writer");
    assert!(held.write().await.is_ok(), "what was under way goes on");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_moves_to_another_server_is_another_writer() {
    let scene = Scene::new(&["pg1", "pg2"]).await;
    let cluster = scene.cluster();
    let epoch = cluster.topology().lineage.epoch;
    let mut moved = scene.config("pg1");
    moved.url = "postgres://app@10.9.9.9/app".parse().unwrap();
    cluster.set_nodes(vec![moved, scene.config("pg2")]).unwrap();
    sleep(ms(500)).await;
    // The server in memory is found by its name; to the router it is at another place.
    assert_eq!(cluster.topology().lineage.epoch, epoch + 1);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_was_removed_gets_no_write_and_its_timeline_is_not_forgotten() {
    let scene = Scene::with(&["pg1", "pg2", "pg3"], |config| config.write_wait = ms(500)).await;
    scene.cluster().remove_node("pg1").unwrap();
    sleep(ms(100)).await;
    assert!(matches!(scene.cluster().topology().primary, Primary::Unknown));
    let refused = scene.write().await.unwrap_err();
    assert!(matches!(refused, FakeError::Route(RouteError::NoPrimary(_))), "{refused}");
    scene.servers.follow("pg3", "pg2");
    scene.servers.promote("pg2");
    assert_eq!(scene.write().await.unwrap(), "pg2");
    // Back again on the old timeline, it is what any deposed primary is.
    scene.cluster().add_node(scene.config("pg1")).unwrap();
    sleep(ms(500)).await;
    let topology = scene.cluster().topology();
    let state = topology.nodes.iter().find(|state| state.node.name() == "pg1").unwrap();
    assert!(matches!(state.blocked, Some(Refusal::Fenced { .. })), "{:?}", state.blocked);
}

#[tokio::test(start_paused = true)]
async fn two_routers_on_one_cluster_both_follow_its_nodes() {
    let servers = FakeCluster::new(2);
    let mut config = servers.config();
    let third = config.nodes.pop().unwrap();
    config.slow_start = Duration::ZERO;
    let cluster = Cluster::start(config, Arc::new(servers.clone())).unwrap();
    let one = Router::<FakeBackend>::new(&cluster, servers.clone()).unwrap();
    cluster.add_node(third).unwrap();
    let two = Router::<FakeBackend>::new(&cluster, servers.clone()).unwrap();
    assert!(cluster.settled(Duration::from_secs(5)).await);
    for router in [&one, &two] {
        let mut served = BTreeSet::new();
        for _ in 0..40 {
            served.insert(router.read(Consistency::Eventual).await.unwrap().node().name().to_owned());
        }
        assert_eq!(served, set(&["pg2", "pg3"]));
    }
    let pg3 = servers.server("pg3");
    assert_eq!(pg3.opened(), 2);
    two.close();
    let config = cluster.node("pg3").unwrap().config().clone();
    cluster.remove_node("pg3").unwrap();
    tokio::time::sleep(ms(100)).await;
    cluster.add_node(config).unwrap();
    assert_eq!(pg3.opened(), 3, "a closed router wants none");
    cluster.remove_node("pg3").unwrap();
    assert_eq!(one.read(Consistency::Eventual).await.unwrap().node().name(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn nothing_opened_under_an_earlier_writer_is_kept() {
    let scene = Scene::new(&["pg1", "pg2", "pg3"]).await;
    scene.write().await.unwrap();
    let before = scene.servers.server("pg1").retired(Access::Write);
    scene.servers.follow("pg3", "pg2");
    scene.servers.promote("pg2");
    sleep(ms(500)).await;
    // Nobody wrote meanwhile: it is not left to the next write.
    assert!(scene.servers.server("pg1").retired(Access::Write) > before);
    assert!(scene.servers.server("pg1").retired(Access::Read) > 0, "the deposed primary is fenced");
    let pg3 = scene.servers.server("pg3");
    assert!(pg3.retired(Access::Write) > 0, "whatever it was in an earlier epoch");
    assert_eq!(pg3.retired(Access::Read), 0, "a standby goes on");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_turns_read_only_is_no_less_the_primary() {
    let scene = Scene::with(&["pg1", "pg2", "pg3"], |config| config.write_wait = ms(1_000)).await;
    scene.write().await.unwrap();
    let (epoch, pg1) = (scene.cluster().topology().lineage.epoch, scene.servers.server("pg1").clone());
    let retired = pg1.retired(Access::Write);
    let held = scene.router.write().await.unwrap();
    pg1.set_read_only(true);
    assert!(held.write().await.is_err());
    held.end(Some(Fault::NotPrimary));
    sleep(ms(500)).await;
    assert_eq!(scene.read(Consistency::Strong).await.unwrap(), "pg1", "it is read as before");
    assert_eq!(scene.read(Consistency::BoundedStaleness(ms(900))).await.unwrap().len(), 3);
    let status = scene.router.status();
    assert_eq!(
        (status.primary.as_deref(), status.primary_missing.as_deref()),
        (Some("pg1"), Some("read-only"))
    );
    let refused = scene.write().await.unwrap_err().to_string();
    assert!(refused.contains("pg1: out of recovery on timeline 1, and read-only"), "{refused}");
    let waiting = tokio::spawn({
        let router = scene.router.clone();
        async move { router.write().await.map(|lease| lease.node().name().to_owned()) }
    });
    sleep(ms(400)).await;
    pg1.set_read_only(false);
    assert_eq!(waiting.await.unwrap().unwrap(), "pg1", "writes waited for it");
    assert_eq!(scene.cluster().topology().lineage.epoch, epoch);
    assert_eq!(pg1.retired(Access::Write), retired, "its connections are as good as before");
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_has_every_node_looked_at_and_a_deposed_nodes_connections_dropped() {
    let scene = Scene::with(&["pg1", "pg2", "pg3"], |config| config.probe_interval = ms(2_000)).await;
    let held = scene.router.write().await.unwrap();
    let probes = |name| scene.servers.server(name).probes();
    sleep(ms(50)).await;
    let (pg2, pg3) = (probes("pg2"), probes("pg3"));
    scene.servers.follow("pg1", "pg2");
    scene.servers.promote("pg2");
    let retired = scene.servers.server("pg1").retired(Access::Write);
    assert!(held.write().await.is_err());
    held.end(Some(Fault::NotPrimary));
    sleep(ms(100)).await;
    assert!(probes("pg2") > pg2 && probes("pg3") > pg3, "not at their next ticks");
    assert!(scene.servers.server("pg1").retired(Access::Write) > retired);
    assert_eq!(scene.write().await.unwrap(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn a_demoted_node_loses_its_write_pool_before_anyone_succeeds_it() {
    let scene = Scene::new(&["pg1", "pg2", "pg3"]).await;
    let held = scene.router.write().await.unwrap();
    sleep(ms(500)).await;
    let retired = scene.servers.server("pg1").retired(Access::Write);
    scene.servers.follow("pg1", "pg2");
    assert!(held.write().await.is_err());
    held.end(Some(Fault::NotPrimary));
    sleep(ms(300)).await;
    assert!(scene.servers.server("pg1").retired(Access::Write) > retired);
    assert_eq!(scene.router.status().epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn writers_that_waited_are_let_in_a_few_at_a_time() {
    let scene = Arc::new(Scene::with(&["pg1", "pg2"], |config| config.probe_interval = ms(250)).await);
    scene.servers.server("pg1").set_reach(Reach::Refused);
    scene.servers.server("pg2").set_connect_time(ms(5));
    sleep(ms(500)).await;
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let scene = scene.clone();
        tasks.spawn(async move { scene.write().await.unwrap() });
    }
    sleep(ms(500)).await;
    scene.servers.promote("pg2");
    let served = tasks.join_all().await;
    assert!(served.iter().all(|node| node == "pg2"));
    let most = scene.servers.server("pg2").most_opening();
    assert!((1..=4).contains(&most), "{most} connections were opened at once");
}
